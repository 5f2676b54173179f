"""One container with a Python of ours in it, as whoever waits for it sees it: descriptors to poll, messages, output, and an end."""

from __future__ import annotations

import contextlib
import secrets
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CommandNotFound, ContainersError, NotFound, StateError
from ..protocol import ContainerConfig, Engine, ExitStatus, Mount, OnOutput, Session, exit_of
from .channel import Channel, Message
from .inside import wire
from .places import BOOT, MEETING, Meeting

_MOST_SHOWN, _SHOWN_BYTES = 200, 64 << 20
_MOST_KINDS, _KIND = 40, 200
"""Forms of one thing that is shown, and characters of each one's media type."""
_START = 30.0
"""Seconds that an interpreter may take to start before they count as its task's."""
_PATIENCE = 30.0
"""Seconds that an end by SIGKILL may take."""

Show = Callable[[Mapping[str, bytes]], None]
"""Called with the forms of what is to be shown, by media type; None stands for taking away what was shown before."""


@dataclass(frozen=True)
class Hooks:
    """Where the output of one container goes. ``shown`` gets forms by media type as they came, unchecked.

    cleared: what was shown is to go away.
    """

    output: OnOutput
    shown: Callable[[dict[str, bytes]], None]
    cleared: Callable[[bool], None] = lambda wait: None
    ended: Callable[[], None] = lambda: None
    """Nothing more comes: what was held back may be written."""


class Worker:
    """:param config: as somebody asked for it; command, mounts and lifetime are set here. :param python: the interpreter inside.

    :param settings: what the runner is told first beside its task: ``op``, ``arrow``, ``pickle``, ``markup``.
    :param limit: bytes that may come back in one message.
    """

    def __init__(self, engine: Engine, config: ContainerConfig, python: str, limit: int, hooks: Hooks) -> None:
        self._engine, self._hooks, self._limit = engine, hooks, limit
        self.mark = secrets.token_hex(8)
        self.answer: Message | None = None
        self._asked = False  # an answer is still to come
        self._call: int | None = None
        self._waiting: deque[Message] = deque()  # what is shown when its mark comes
        self._shown = self._shown_bytes = 0
        self._stdout = Marked(self.mark)
        self._queued: list[tuple[dict[str, Any], list[Any]]] = []
        self._channel: Channel | None = None
        self.broken: ContainersError | None = None
        self._began = time.monotonic()
        self._connected: float | None = None
        self._meeting = Meeting()
        try:
            info = engine.create(_configured(config, python, self._meeting.mounts))
        except BaseException:
            self._meeting.close()
            raise
        self.id, self.name, self.memory = info.id, info.name, info.resources.memory
        try:
            self._session: Session = engine.start_attached(info.id)
        except BaseException as error:
            self._meeting.close()
            with contextlib.suppress(ContainersError):
                engine.remove(info.id, force=True)
            if isinstance(error, CommandNotFound):
                raise CommandNotFound(f"image {config.image!r} has no {python}", "use an image with Python 3.8 or newer") from None
            raise

    @property
    def over(self) -> bool:
        return self._session.over

    @property
    def exit(self) -> ExitStatus:
        """How it ended; for when it is over."""
        return exit_of(self._session)

    def ask(self, fields: dict[str, Any], buffers: list[Any], call: int | None = None) -> None:
        """A task, to which one message answers, with its number: then ``answer`` is no longer None."""
        self.answer, self._asked, self._call = None, True, call
        self.send({**fields, "call": call}, buffers)

    def send(self, fields: dict[str, Any], buffers: list[Any]) -> None:
        """As soon as it listens."""
        if self._channel is None:
            self._queued.append((fields, buffers))
        else:
            self._channel.send(fields, buffers)
            self._channel.write()

    def deadline(self, timeout: float | None, asked: float = 0.0) -> float | None:
        """When (time.monotonic) a task that may take ``timeout`` seconds is over its time; the interpreter's own start does not count."""
        if timeout is None:
            return None
        return max(asked, self._began + _START if self._connected is None else self._connected) + timeout

    def sources(self) -> dict[int, int]:
        """Descriptor → poll(2) events."""
        if self.over:
            return {}
        found = dict.fromkeys(self._session.sources(), select.POLLIN)
        if self._channel is None:
            found[self._meeting.listener.fileno()] = select.POLLIN
        elif not self._channel.closed:
            found[self._channel.fileno()] = select.POLLIN | (select.POLLOUT if self._channel.waiting else 0)
        return found

    def ready(self, fd: int) -> None:
        """Something can be done with one of :meth:`sources`. What came is in ``answer``, or went to the hooks.

        :raises ContainersError: what came is no message of ours.
        """
        if self._channel is None and fd == self._meeting.listener.fileno():
            conn, _ = self._meeting.listener.accept()
            self._connected = time.monotonic()
            self._channel = Channel(conn, self._limit, f"container {self.name}", self._judge)
            for fields, buffers in self._queued:
                self._channel.send(fields, buffers)
            self._queued.clear()
            self._channel.write()
        elif self._channel is not None and not self._channel.closed and fd == self._channel.fileno():
            self._channel.write()
            self._read()
        elif fd in self._session.sources():
            for stream, data in self._session.receive(fd):
                self._written(stream, data)
            if self._session.over:
                self._read()
                self._written("stdout", b"", final=True)
                while self._waiting:
                    self._show(self._waiting.popleft())
                self._hooks.ended()
                self._leave()

    def _judge(self, fields: dict[str, Any], size: int) -> None:
        """One answer to one question, and small things to show: nothing else is taken from whoever is inside. :raises ValueError:"""
        op = fields.get("op")
        if op in ("display", "clear"):
            kinds, sizes = fields.get("kinds", []), fields.get("sizes")
            if size > wire.SHOWN:
                raise ValueError(f"{size} bytes to show, more than the {wire.SHOWN} that are taken")
            if not isinstance(kinds, list) or len(kinds) > _MOST_KINDS or not all(isinstance(kind, str) for kind in kinds):
                raise ValueError("something to show without media types")
            if not isinstance(sizes, list) or len(sizes) != len(kinds):
                raise ValueError("something to show of another number of forms than was said")
            # It may have to wait for its mark: what nobody reads of it does not wait with it.
            kept = {"op": op, "kinds": [kind[:_KIND] for kind in kinds], "wait": fields.get("wait") is True, "sizes": sizes}
            fields.clear()
            fields.update(kept)
        elif op not in ("done", "raised", "unfit"):
            raise ValueError(f"no {str(op)[:40]!r} is known")
        elif not self._asked or fields.get("call") != self._call:
            raise ValueError("an answer that nobody has asked for")
        else:
            self._asked = False

    def _read(self, one: bool = False) -> None:
        """:param one: no more than the next thing to show."""
        if self._channel is None or self._channel.closed:
            return
        for message in self._channel.read():
            if message[0]["op"] not in ("display", "clear"):
                self.answer = message
                continue
            self._waiting.append(message)
            if one:
                return
            if len(self._waiting) > _MOST_SHOWN or sum(map(_size, self._waiting)) > _SHOWN_BYTES:  # their marks never came
                while self._waiting:
                    self._show(self._waiting.popleft())

    def _written(self, stream: str, data: bytes, final: bool = False) -> None:
        if stream != "stdout":
            self._hooks.output(stream, data)
            return
        for piece in self._stdout.feed(data, final):
            if piece is not None:
                self._hooks.output(stream, piece)
                continue
            if not self._waiting:
                self._read(one=True)
            if self._waiting:
                self._show(self._waiting.popleft())

    def _show(self, message: Message) -> None:
        fields, buffers = message
        if fields["op"] == "clear":
            self._shown = self._shown_bytes = 0
            self._hooks.cleared(fields["wait"])
            return
        size = _size(message)
        self._shown += 1
        self._shown_bytes += size
        if self._shown > _MOST_SHOWN or self._shown_bytes > _SHOWN_BYTES:
            if self._shown - 1 <= _MOST_SHOWN and self._shown_bytes - size <= _SHOWN_BYTES:
                self._shown_bytes = _SHOWN_BYTES + 1
                self._hooks.output("stderr", b"more was to be shown than a cell may show: the rest is left out\n")
            return
        self._hooks.shown({kind: bytes(buffer) for kind, buffer in zip(fields["kinds"], buffers, strict=True)})

    def kill(self) -> None:
        """End it at once, and take in what it has still said: how it ended is known then."""
        if self.over:
            return
        with contextlib.suppress(StateError, NotFound):  # it has just ended by itself
            self._engine.kill(self.id)
        end = time.monotonic() + _PATIENCE
        while not self.over and time.monotonic() < end:
            attend([self], end)

    def close(self) -> None:
        """Nothing of it stays, however far it came."""
        try:
            if not self.over:
                # From here on nobody listens to what it says.
                self._hooks = Hooks(lambda stream, data: None, lambda forms: None)
                self.kill()
        finally:
            self._leave()
            if not self.over:
                with contextlib.suppress(NotFound):
                    self._engine.remove(self.id, force=True)
            self._session.close()

    def _leave(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._meeting.close()

    def hang_up(self) -> None:
        """There is nothing more to do: a runner that waits for calls ends by itself."""
        if self._channel is not None:
            self._channel.close()


def attend(workers: Iterable[Worker], until: float | None) -> None:
    """Wait until something comes from any of them, or it is ``until`` (time.monotonic), and take it in."""
    poll = select.poll()
    owners: dict[int, Worker] = {}
    for worker in workers:
        for fd, events in worker.sources().items():
            poll.register(fd, events)
            owners[fd] = worker
    # Without an end too it wakes up now and then: not every interrupt is a signal that ends the waiting.
    wait = 0.25 if until is None else min(0.25, until - time.monotonic())
    for fd, _ in poll.poll(max(0.0, wait) * 1000):
        worker = owners[fd]
        if fd not in worker.sources():
            continue
        try:
            worker.ready(fd)
        except ContainersError as error:
            worker.broken = error
            worker.hang_up()
            worker.answer = None


class Marked:
    """stdout in pieces: bytes, and None where a mark stood. Half a mark at the end of a chunk waits for the next."""

    def __init__(self, mark: str) -> None:
        self._mark = f"\x1b_pyct{mark}\x1b\\".encode()
        self._held = b""

    def feed(self, data: bytes, final: bool = False) -> Iterable[bytes | None]:
        first, *others = (self._held + data).split(self._mark)
        self._held = b""
        pieces: list[bytes | None] = [first]
        for other in others:
            pieces += [None, other]
        last = pieces[-1] or b""
        if not final:
            length = next((size for size in range(min(len(self._mark) - 1, len(last)), 0, -1) if last.endswith(self._mark[:size])), 0)
            self._held = last[len(last) - length :]
            pieces[-1] = last[: len(last) - length]
        return [piece for piece in pieces if piece is None or piece]


def _size(message: Message) -> int:
    return sum(buffer.nbytes for buffer in message[1])


def _configured(config: ContainerConfig, python: str, mounts: tuple[Mount, ...]) -> ContainerConfig:
    """What was asked for, with what a Python of ours needs; it goes with whoever asked, and leaves nothing behind."""
    more: dict[str, Any] = {}
    if config.image == "host" and not config.workdir:
        more["workdir"] = "/tmp"
    if config.read_only and not any(mount.target == "/tmp" for mount in config.mounts):
        # Where nothing can be written, much of what is imported fails; this is memory of the container's own.
        mounts = (*mounts, Mount("tmpfs", "/tmp"))
        more["env"] = {"HOME": "/tmp", **config.env}
    return replace(
        config,
        command=(python, "-u", "-c", BOOT, f"{MEETING}/control"),
        entrypoint=(),
        mounts=(*config.mounts, *mounts),
        auto_remove=True,
        lifetime="kernel",
        stop_signal="SIGKILL",  # whoever waited for it is gone: nobody is asked to finish
        labels={"io.pycontainers.python": "cell", **config.labels},
        **more,
    )
