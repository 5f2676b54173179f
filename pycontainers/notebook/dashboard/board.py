"""The kernel's side of a dashboard: what its pages know, what is new, and what they ask for.

A :class:`Board` is looked after by one thread for all dashboards of a kernel (:func:`follower`): five times a second it asks whether
anything has happened anywhere, which costs a few stat(2), and once a second it looks at everything. Pages may ask on any thread: what they
ask is put into a queue, and done by workers. Only differences go to the pages; while none is open, nobody looks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from ...errors import ContainersError
from ...overview import ACTIVE, users
from ...protocol import ContainerInfo, Engine
from ..sampler import Sampler
from . import actions
from .actions import ACTIONS, Workers
from .panes import PANES, Pane
from .rows import Row, container_row, cut, difference, image_row

_log = logging.getLogger("pycontainers.notebook")
_SLICE, _PERIOD = 0.2, 1.0  # seconds
_COURSE = 60  # points of a sparkline
_ANEW = 30.0  # seconds after which a row is made anew: that a container is forgotten comes with time alone
_LEFT = 10.0  # seconds without a page, after which nobody looks any more (a reload takes less)
_ROWS = 2000

Send = Callable[[dict[str, Any]], None]


@cache
def follower() -> Sampler:
    """A thread of its own beside the sampler's: drawing twenty plots must not keep the dashboard from telling what has happened."""
    return Sampler(_SLICE)


def close_all() -> None:
    """At unload: no thread stays."""
    follower().close()
    actions.close_all()


class Use:
    """What one running container uses: a course of points, from the samples that its supervisor records."""

    def __init__(self) -> None:
        self.cpu: deque[float] = deque(maxlen=_COURSE)
        self.memory: deque[int] = deque(maxlen=_COURSE)
        self._before: Any = None

    def take(self, samples: Any) -> bool:
        """Whether there is something new. CPU in percent of one processor; memory in KiB."""
        was = (self.cpu[-1], self.memory[-1]) if self.cpu else None
        for sample in samples:
            before = self._before
            if before is not None and 0 < sample.time - before.time < 0.5 * _PERIOD:
                continue  # dense after a start: a point a second is what is shown
            self._before = sample
            if before is None or sample.time <= before.time or sample.cpu_usage < before.cpu_usage:
                continue  # the first one, or it was started anew
            self.cpu.append(round((sample.cpu_usage - before.cpu_usage) / (sample.time - before.time) / 1e7, 1))
            self.memory.append(sample.memory >> 10)
        return bool(self.cpu) and was != (self.cpu[-1], self.memory[-1])

    def last(self) -> list[float]:
        return [self.cpu[-1], self.memory[-1]]


class Page:
    """One view of the dashboard, and what it has open. ``kept``: panes that it may come back to (a shell goes on behind its log)."""

    def __init__(self) -> None:
        self.pane: Pane | None = None
        self.number = 0
        self.place = ("", "")  # tab and key of what the pane is about
        self.kept: dict[str, Pane] = {}

    def put_away(self, place: tuple[str, str] = ("", "")) -> None:
        """Close what is open; what is about ``place`` may be kept."""
        pane, self.pane = self.pane, None
        if place != self.place:
            for other in self.kept.values():
                other.close()
            self.kept.clear()
            if pane is not None:
                pane.close()
        elif pane is not None and pane.lasting:
            self.kept[pane.lasting] = pane
        elif pane is not None:
            pane.close()
        self.place = place


class Turn:
    """One stretch of being looked after: what the follower holds. When it has ended, a page that comes back begins another."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def tick(self) -> bool:
        return self._board.tick()

    def release(self, reason: str) -> None:
        self._board.release(reason)


class Board:
    """``send`` takes a message to all pages; ``closed`` says that the widget is gone."""

    def __init__(self, engine: Engine, send: Send, closed: Callable[[], bool]) -> None:
        self.engine, self._send, self._closed = engine, send, closed
        self._watch = engine.watch()
        self._ear = Workers(1)  # what pages say is taken in its order; what takes long is handed on
        self._workers = Workers()
        self._lock = threading.RLock()
        self._rows: dict[str, dict[str, Row]] = {"containers": {}, "images": {}}
        self._ids: dict[tuple[str, str], str] = {}
        self._made: dict[str, tuple[ContainerInfo, Row, float]] = {}
        self._uses: dict[str, Use] = {}
        self._busy: dict[tuple[str, str], str] = {}
        self._errors: dict[tuple[str, str], dict[str, str]] = {}
        self._pages: dict[str, Page] = {}
        self._turn: Turn | None = None
        self._trouble = ""
        self._looked = self._left = 0.0
        self._again = 0

    # -- what pages ask

    def ask(self, message: dict[str, Any]) -> None:
        """On any thread: it is put into a queue, and answered from there."""
        self._ear.do(lambda: self._do(message))

    def _do(self, message: dict[str, Any]) -> None:
        try:
            getattr(self, f"_on_{_word(message['kind'])}")(message)
        except ContainersError as error:
            self._send({"kind": "said", "view": message.get("view"), **_error(error)})
        except (KeyError, TypeError, ValueError, AttributeError):
            _log.debug("a question that makes no sense: %r", message, exc_info=True)

    def _on_hello(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._try(self._look)
            self._pages.setdefault(_word(message["view"]), Page())
            course = {key: [list(use.cpu), list(use.memory)] for key, use in self._uses.items() if use.cpu}
            tabs = {tab: list(rows.values()) for tab, rows in self._rows.items()}
            answer = {"kind": "all", "tabs": tabs, "course": course, "now": time.time()}
            self._send({**answer, "view": message["view"], "question": message["question"]})
            begun = None if self._turn is not None else Turn(self)
            self._turn = self._turn or begun
        if begun is not None:
            follower().add(begun)

    def _on_bye(self, message: dict[str, Any]) -> None:
        self._on_close(message)
        with self._lock:
            self._pages.pop(message["view"], None)
            self._left = time.monotonic()

    def _on_act(self, message: dict[str, Any]) -> None:
        tab, verb = _word(message["tab"]), _word(message["verb"])
        function, doing, done = ACTIONS[tab, verb]
        chosen = []
        with self._lock:
            for key in message["ids"]:
                if (tab, key) in self._ids and (tab, key) not in self._busy:
                    chosen.append((key, self._ids[tab, key], self._rows[tab].get(key, {}).get("name", key)))
                    self._busy[tab, key] = doing
                    self._errors.pop((tab, key), None)
            self._try(self._look)
        for key, ident, name in chosen:
            job = partial(self._act, tab, key, name, done, partial(function, self.engine, ident))
            self._workers.do(job)

    def _act(self, tab: str, key: str, name: str, done: str, does: Callable[[], Any]) -> None:
        said: dict[str, Any] = {}
        try:
            does()
            said = {"text": f"{name} {done}"}
        except ContainersError as error:
            said = _error(error)
        except Exception as error:  # a fault of ours is shown where it matters, and does not end the worker
            _log.debug("an action of the dashboard broke", exc_info=True)
            said = _error(error)
        with self._lock:
            self._busy.pop((tab, key), None)
            if "error" in said:
                self._errors[tab, key] = {"text": said["error"], "hint": said["hint"]}
            self._try(self._look)
            self._send({"kind": "said", "name": name, **said})

    def _on_dismiss(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._errors.pop((message["tab"], message["id"]), None)
            self._try(self._look)

    def _on_open(self, message: dict[str, Any]) -> None:
        """A pane for one page, in place of the one that it had. ``number``: by which the page knows what still belongs to it."""
        tab, key, view, name = (_word(message[part]) for part in ("tab", "id", "view", "pane"))
        number, ident, make = int(message["number"]), self._ids[tab, key], PANES[tab, name]
        with self._lock:
            page = self._pages[view]
            page.put_away((tab, key))
            page.number = number
            pane = page.kept.pop(name, None)
        if pane is not None:
            self._shown(view, page, number, pane)
        else:
            self._workers.do(lambda: self._make(view, page, number, make, ident))

    def _make(self, view: str, page: Page, number: int, make: Callable[[Engine, str], Pane], ident: str) -> None:
        try:
            pane = make(self.engine, ident)
        except ContainersError as error:
            self._send({"kind": "pane", "view": view, "number": number, **_error(error)})
        except Exception as error:  # a fault of ours is shown where it matters, and does not end the worker
            _log.debug("a pane of the dashboard broke", exc_info=True)
            self._send({"kind": "pane", "view": view, "number": number, **_error(error)})
        else:
            self._shown(view, page, number, pane)

    def _shown(self, view: str, page: Page, number: int, pane: Pane) -> None:
        with self._lock:
            if self._pages.get(view) is not page or page.number != number:  # closed meanwhile, or another was opened
                pane.close()
                return
            pane.again()
            page.pane = pane
            self._show(view)

    def _on_close(self, message: dict[str, Any]) -> None:
        with self._lock:
            page = self._pages.get(message["view"])
            if page is not None:
                page.number = -1
                page.put_away()

    def _on_more(self, message: dict[str, Any]) -> None:
        with self._lock:
            page = self._pages[message["view"]]
            found = page.pane.ask(self._watch, message) if page.pane is not None else None
            if found is not None:
                self._send({"kind": "pane", "view": message["view"], "number": page.number, **found})

    # -- what is new

    def tick(self) -> bool:
        """Called by the follower, five times a second."""
        now = time.monotonic()
        with self._lock:
            if self._closed() or (not self._pages and now - self._left > _LEFT):
                self._end_panes()
                self._turn = None
                return False
            if self._pages:
                self._try(lambda: self._watched(now))
                for view in list(self._pages):
                    self._show(view)
        return True

    def _watched(self, now: float) -> None:
        due = now - self._looked >= _PERIOD
        if due:
            self._looked = now
        if self._watch.stirred():
            self._again = 3  # an event may be told of before the file that it is about is in its place
        if due or self._again:
            self._again = max(0, self._again - 1)
            self._look()
        if due:
            self._measure()

    def _try(self, look: Callable[[], None]) -> None:
        """What cannot be read now (a full disk, a launcher that was killed) may be the next time: pages are told, once each way."""
        try:
            look()
            trouble = ""
        except (ContainersError, OSError) as error:
            _log.debug("the dashboard cannot look", exc_info=True)
            trouble = _error(error)["error"]
        if trouble != self._trouble:
            self._trouble = trouble
            self._send({"kind": "trouble", "text": trouble})

    def release(self, reason: str) -> None:
        with self._lock:
            self._end_panes()
            self._turn = None
        self._send({"kind": "stopped", "reason": reason})

    def _end_panes(self) -> None:
        with self._lock:
            for page in self._pages.values():
                page.put_away()
            self._pages.clear()

    def _look(self) -> None:
        infos, images = self._watch.containers()[:_ROWS], self._watch.images()[:_ROWS]
        used = users(images, infos)
        found = {
            "containers": {_key(info.id): self._container(info) for info in infos},
            "images": {_key(info.id): {**image_row(info, used[info.id]), "id": _key(info.id)} for info in images},
        }
        self._ids = {("containers", _key(info.id)): info.id for info in infos}
        self._ids.update({("images", _key(info.id)): info.id for info in images})
        for (tab, key), text in self._busy.items():
            if key in found[tab]:
                found[tab][key] = {**found[tab][key], "busy": text}
        self._errors = {place: error for place, error in self._errors.items() if place in self._ids}
        for (tab, key), error in self._errors.items():
            found[tab][key] = {**found[tab][key], "error": error}
        self._made = {key: made for key, made in self._made.items() if key in found["containers"]}
        for tab, rows in found.items():
            changed, gone = difference(self._rows[tab], rows)
            self._rows[tab] = rows
            if (changed or gone) and self._pages:
                self._send({"kind": "rows", "tab": tab, "rows": changed, "gone": gone, "now": time.time()})

    def _container(self, info: ContainerInfo) -> Row:
        key = _key(info.id)
        before = self._made.get(key)
        now = time.time()
        if before is not None and before[0] is info and now - before[2] < _ANEW:
            return before[1]
        row = {**container_row(info, now), "id": key}
        self._made[key] = (info, row, now)
        return row

    def _measure(self) -> None:
        running = {key: self._ids["containers", key] for key, row in self._rows["containers"].items() if row["state"] in ACTIVE}
        self._uses = {key: self._uses.get(key) or Use() for key in running}
        changed = {key: use.last() for key, use in self._uses.items() if use.take(self._watch.samples(running[key]))}
        # Sent also when nothing has changed: it is the clock by which the page moves its courses on.
        self._send({"kind": "use", "rows": changed})

    def _show(self, view: str) -> None:
        page = self._pages[view]
        if page.pane is None or not page.pane.due(time.monotonic()):
            return
        try:
            found = page.pane.update(self._watch)
        except Exception as error:  # what one container is like must not end the view of all others
            if not isinstance(error, ContainersError):
                _log.debug("a pane of the dashboard broke", exc_info=True)
            pane, page.pane = page.pane, None
            pane.close()
            found = _error(error)
        if found is not None:
            self._send({"kind": "pane", "view": view, "number": page.number, **found})


def _key(ident: str) -> str:
    """Short enough to be sent every second, and long enough to be nobody else's."""
    return ident.removeprefix("sha256:")[:16]


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value.isalnum():
        raise ValueError(f"{value!r} is no word")
    return value


def _error(error: Exception) -> dict[str, str]:
    text = error.message if isinstance(error, ContainersError) else f"{type(error).__name__}: {error}"
    return {"error": cut(text, 500), "hint": cut(getattr(error, "hint", ""), 500)}
