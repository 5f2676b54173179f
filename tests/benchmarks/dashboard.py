"""What the dashboard costs: processor time of the kernel, bytes to the page. ``open`` and what follows run inside the notebook kernel."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .house import House

_opened: list[Any] = []
_BUSY = "while :; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 0.2; done"


def dashboard(house: House) -> None:
    """20 containers that do something, then 180 more beside them; seconds of the kernel's processor for each second."""
    report, kernel = house.report, house.kernel
    report.heading("the dashboard, live: the kernel's share of one core, and bytes to the page")
    kernel.cell("from tests.benchmarks import dashboard")
    kernel(f"dashboard.put({house.image!r}, 20, True)")
    once = kernel("dashboard.open()")
    report.figure("once: the view, its style, and 20 rows", once / 1e6, "MB", 6)
    for count, more in ((20, 0), (200, 180)):
        kernel(f"dashboard.put({house.image!r}, {more}, False)")
        found = kernel("dashboard.watch(20)")
        report.figure(f"{count} containers, 20 of them busy", 100 * found["cpu"], "%", 3)
        report.figure(f"{count} containers, to the page", found["bytes"] / 1000, "kB", 20)
    report.figure("nobody looks", 100 * kernel("dashboard.rest(10)"), "%", 0.2)
    kernel("cell.remove_all()")


def put(image: str, count: int, running: bool) -> None:
    from pycontainers.engines.native import engine
    from pycontainers.protocol import ContainerConfig

    for _ in range(count):
        info = engine().create(ContainerConfig(image, ("/bin/sh", "-c", _BUSY), network="none"))
        if running:
            engine().start(info.id)


def open() -> int:
    """Bytes of the comm that opens it, and of the first answer."""
    from pycontainers.engines.native import engine
    from pycontainers.notebook.widgets.dashboard import _widget_class
    from pycontainers.overview import Dashboard

    widget = _widget_class()(Dashboard(engine()))
    sent: list[int] = []
    send = widget.board._send

    def counted(message: dict[str, Any]) -> None:
        sent.append(len(json.dumps(message)))
        send(message)

    widget.board._send = counted
    _opened[:] = [widget, sent]
    widget.board.ask({"kind": "hello", "view": "bench", "question": 1})
    while not sent:
        time.sleep(0.01)
    return len(widget._esm) + len(widget._css) + sent[0]


def watch(seconds: float) -> dict[str, float]:
    """Processor seconds and bytes of each second, while the cell that asks does nothing but wait."""
    widget, sent = _opened
    time.sleep(3)
    sent.clear()
    begun, spent = time.monotonic(), time.process_time()
    time.sleep(seconds)
    passed = time.monotonic() - begun
    assert widget.comm is not None
    return {"cpu": (time.process_time() - spent) / passed, "bytes": sum(sent) / passed}


def rest(seconds: float) -> float:
    widget, _ = _opened
    widget.board.ask({"kind": "bye", "view": "bench"})
    time.sleep(12)
    spent = time.process_time()
    time.sleep(seconds)
    return (time.process_time() - spent) / seconds
