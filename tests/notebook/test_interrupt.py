"""The stop button in the middle of a build: a real kernel, a real engine, and nothing left behind."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager, start_new_kernel

pytestmark = pytest.mark.root
BUILD = """%%container build --context '' --network none
FROM host AS one
RUN echo begun one; trap '' INT TERM; sleep 300
FROM host AS two
RUN echo begun two; sleep 300
FROM scratch
COPY --from=one /etc/hostname /a
COPY --from=two /etc/hostname /b
"""


@pytest.fixture
def kernel(state: Any) -> Iterator[tuple[KernelManager, Any]]:
    environ = {**os.environ, "JPY_SESSION_NAME": "a.ipynb", "PYTHONPATH": str(Path(__file__).parents[2])}
    manager, client = start_new_kernel(env=environ)
    try:
        client.execute_interactive("%load_ext pycontainers", timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def until(client: Any, seconds: float, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first message of the kernel that is wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            message: dict[str, Any] = client.get_iopub_msg(timeout=0.2)
        except queue.Empty:
            continue
        if wanted(message):
            return message
    raise AssertionError("the kernel has not said it")


def begun(message: dict[str, Any]) -> bool:
    text = message["content"].get("data", {}).get("text/plain", "")
    return "    begun one" in text and "    begun two" in text


def interrupted(manager: KernelManager, client: Any) -> tuple[float, str]:
    """Seconds from the stop button until the kernel is idle, and the last drawing."""
    client.execute(BUILD)
    until(client, 60, begun)
    started = time.monotonic()
    manager.interrupt_kernel()
    drawn: list[str] = []

    def ended(message: dict[str, Any]) -> bool:
        drawn.append(message["content"].get("data", {}).get("text/plain", ""))
        return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == "idle")

    until(client, 20, ended)
    return time.monotonic() - started, next(text for text in reversed(drawn) if text)


def test_a_build_ends_within_a_second(kernel: Any, remains: Any) -> None:
    before, took = remains(), []
    while len(took) < 3 and min(took, default=9.0) >= 1.0:  # other tests may have had the processors
        seconds, last = interrupted(*kernel)
        took.append(seconds)
        assert last.count("⊘") == 2 and "✗" not in last, last
        assert remains() == before
    assert min(took) < 1.0, took
