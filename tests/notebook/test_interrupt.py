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


def test_a_build_ends_within_a_second(kernel: Any, remains: Any) -> None:
    manager, client = kernel
    before = remains()
    client.execute(BUILD)
    both = lambda message: all(  # noqa: E731
        f"    begun {name}" in message["content"].get("data", {}).get("text/plain", "") for name in ("one", "two")
    )
    until(client, 60, both)
    started = time.monotonic()
    manager.interrupt_kernel()
    drawn: list[str] = []

    def ended(message: dict[str, Any]) -> bool:
        drawn.append(message["content"].get("data", {}).get("text/plain", ""))
        return message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"

    until(client, 20, ended)
    took = time.monotonic() - started
    last = next(text for text in reversed(drawn) if text)
    assert last.count("⊘") == 2 and "✗" not in last, last
    assert took < 1.0, took
    assert remains() == before
