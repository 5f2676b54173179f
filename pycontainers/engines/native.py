"""The native engine: :class:`pycontainers.protocol.Engine` on the rooms below. No daemon: every call reads the files anew."""

from __future__ import annotations

import contextlib
import os
import signal as signals
import time
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from ..errors import IsolationError, NotFound, StateError, UsageError, near
from ..events import Work
from ..images.store import Store
from ..paths import Paths, paths
from ..protocol import (
    BuildRequest,
    Change,
    Check,
    CommitRequest,
    ContainerConfig,
    ContainerInfo,
    ExecConfig,
    ExitStatus,
    ImageHistory,
    ImageInfo,
    LogLine,
    OnOutput,
)
from ..runtime import client, freeze, logs, recover, state
from . import checks, creation, information, steps
from .folders import Folders

_ENGINE: NativeEngine | None = None


def engine() -> NativeEngine:
    """This process's engine on the user's own state folders (a new one when they were moved by the environment)."""
    global _ENGINE
    where = paths()
    if _ENGINE is None or _ENGINE.paths != where:
        _ENGINE = NativeEngine(where)
    return _ENGINE


class NativeEngine:
    """Containers by pycontainers' own runtime. Safe to use from several processes at once."""

    name = "native"

    def __init__(self, where: Paths | None = None) -> None:
        self.paths = where or paths()
        self.folders = Folders(self.paths)
        self._store: Store | None = None
        self._swept = 0.0

    # -- containers

    def create(self, config: ContainerConfig) -> ContainerInfo:
        self._begin()
        if config.replace and config.name:
            try:
                self.remove(config.name, force=True)
            except NotFound:
                pass
        return self._info(creation.create(self.paths, self.store, config))

    def start(self, container: str) -> ContainerInfo:
        self._begin()
        container_id = self._id(container)
        creation.before_start(self.paths, container_id)
        client.start(self.paths, container_id)
        return self._info(container_id)

    def run(
        self, config: ContainerConfig, stdin: bytes | None = None, on_output: OnOutput | None = None
    ) -> tuple[ContainerInfo, ExitStatus]:
        info = self.create(config)
        fd = client.body_fd(stdin) if stdin is not None else -1
        try:
            creation.before_start(self.paths, info.id)
            started = client.start(self.paths, info.id, attach=True, stdin=fd)
        except BaseException:
            # A container that never ran is of no use to anybody who asked for "run": nothing stays behind.
            self._abandon(info.id)
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        try:
            for stream, data in started.output():
                if on_output is not None:
                    on_output(stream, data)
        except BaseException:
            # An interrupt, or a reader that failed: a foreground container does not outlive its call.
            self._end_quietly(info.id)
            raise
        if started.exit is None:
            recover.sweep(str(self.paths.containers))
            return info, ExitStatus(code=None, error="its supervisor was killed: the container was ended, its exit code is unknown")
        return info, information.exit_status(started.exit)

    def exec(self, container: str, config: ExecConfig, stdin: bytes | None = None, on_output: OnOutput | None = None) -> ExitStatus:
        self._begin()
        if not config.command:
            raise UsageError("exec needs a command", "exec CONTAINER COMMAND [ARG...]")
        container_id = self._id(container)
        fd = client.body_fd(stdin) if stdin is not None else -1
        request = {"command": list(config.command), "env": config.env, "workdir": config.workdir, "user": config.user}
        started = time.time()
        try:
            found = client.run_exec(self.paths, container_id, request, fd, on_output or (lambda stream, data: None))
        finally:
            if fd >= 0:
                os.close(fd)
        return ExitStatus(code=found.get("code"), signal=found.get("signal", 0), started=started, finished=time.time())

    def stop(self, container: str, timeout: float = 10.0) -> ContainerInfo:
        self._begin()
        container_id = self._id(container)
        folder = self.folders.path(container_id)
        record = state.read(folder, "container.json") or {}
        before = self._info(container_id)
        if (
            client.signal_init(folder, _signal_number(record.get("stop_signal") or "SIGTERM"))
            and client.wait(folder, max(0.0, timeout)) is None
        ):
            client.signal_init(folder, signals.SIGKILL)
            client.wait(folder, 30)
        return self._info(container_id) if os.path.isdir(folder) else before

    def kill(self, container: str, signal: str = "SIGKILL") -> ContainerInfo:
        self._begin()
        container_id, number = self._id(container), _signal_number(signal)
        folder = self.folders.path(container_id)
        before = self._info(container_id)
        if not client.signal_init(folder, number):
            raise StateError(f"container {before.name!r} is not running", "")
        if number == signals.SIGKILL:
            client.wait(folder, 30)
        return self._info(container_id) if os.path.isdir(folder) else before

    def wait(self, container: str, timeout: float | None = None) -> ExitStatus:
        self._begin()
        info = self.find(container)
        if info.status == state.CREATED:
            raise StateError(f"container {info.name!r} was never started", f"start it: %container start {info.name}")
        found = client.wait(info.folder, timeout)
        if found is None:
            raise StateError(f"container {info.name!r} still runs after {timeout} s", "")
        return information.exit_status(found)

    def remove(self, container: str, force: bool = False) -> None:
        self._begin()
        container_id = self._id(container)
        info = self._info(container_id)
        if info.status in (state.RUNNING, state.STARTING, state.PAUSED):
            if not force:
                raise StateError(f"container {info.name!r} is running", f"stop it first, or use force: rm -f {info.name}")
            client.signal_init(info.folder, signals.SIGKILL)
            client.wait(info.folder, 30)
        self.folders.remove(container_id)

    def containers(self, all: bool = False) -> list[ContainerInfo]:
        self._begin()
        active = (state.RUNNING, state.STARTING, state.PAUSED)
        return sorted((info for info in self._infos() if all or info.status in active), key=lambda info: -info.created)

    def find(self, container: str) -> ContainerInfo:
        self._begin()
        return self._info(self._id(container))

    def oci(self, container: str) -> dict[str, Any]:
        return state.read(self.folders.path(self._id(container)), "config.json") or {}

    def logs(
        self, container: str, follow: bool = False, tail: int | None = None, since: float = 0.0, until: float = 0.0
    ) -> Iterator[LogLine]:
        folder = self.folders.path(self._id(container))

        def running() -> bool:
            now = state.read(folder, "state.json")
            return bool(now and now["status"] in (state.STARTING, state.RUNNING, state.PAUSED) and state.lives(now))

        path = f"{folder}/log"
        skip = 0
        if tail is not None:
            skip = max(0, sum(1 for _ in logs.read(path)) - max(0, tail))
        for number, (when, stream, partial, text) in enumerate(logs.read(path, follow=running if follow else None)):
            if number < skip or when < since:
                continue
            if until and when > until:
                return
            yield LogLine(when, stream, text.decode("utf-8", "replace"), partial)

    def samples(self, container: str) -> Sequence[Any]:
        from ..metrics import history

        path = f"{self.folders.path(self._id(container))}/samples.ring"
        return history.read(path) if os.path.exists(path) else []

    def prune(self) -> list[str]:
        """Remove every container that has ended, then layers and images that nothing uses. Lines that say what was done."""
        self._begin()
        said = []
        for info in self.containers(all=True):
            if info.status == state.EXITED:
                self.remove(info.id)
                said.append(f"Deleted container: {info.name}")
        return said + self.store.prune(self._images_in_use())

    # -- files

    def copy_out(
        self, container: str, source: str, target: str | BinaryIO, *, archive: bool = False, follow: bool = False
    ) -> Work[int]:
        from . import transfer

        self._begin()
        info = self.find(container)
        return transfer.copy_out(self.paths, info.id, info.name, source, target, archive=archive, follow=follow)

    def copy_in(self, container: str, source: str | BinaryIO, target: str, *, archive: bool = False, follow: bool = False) -> Work[int]:
        from . import transfer

        self._begin()
        info = self.find(container)
        return transfer.copy_in(self.paths, info.id, info.name, source, target, archive=archive, follow=follow)

    def diff(self, container: str) -> list[Change]:
        from .changes import changes

        self._begin()
        return changes(self.folders.path(self._id(container)))

    def export(self, container: str, output: BinaryIO) -> Work[int]:
        from . import transfer

        self._begin()
        info = self.find(container)
        return transfer.export(self.paths, info.id, info.name, output)

    def commit(self, container: str, request: CommitRequest) -> Work[ImageInfo]:
        from . import commit

        self._begin()
        image = yield from commit.commit(self.paths, self.store, self._id(container), request)
        return self.store.info(image)

    # -- images

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = Store(self.paths.prepare())
        return self._store

    def build(self, request: BuildRequest) -> Work[ImageInfo]:
        from ..builder import solver

        self._begin()
        image = yield from solver.build(request, self.store, steps.Runner(self.paths, self.store))
        return self.store.info(image)

    def images(self) -> list[ImageInfo]:
        return [self.store.info(image) for image in self.store.images()]

    def image(self, name: str) -> ImageInfo:
        return self.store.info(self.store.resolve(name))

    def tag(self, image: str, name: str) -> None:
        self.store.tag(self.store.resolve(image).id, name)

    def remove_image(self, name: str, force: bool = False) -> list[str]:
        return self.store.remove(name, force, self._images_in_use())

    def image_history(self, name: str) -> list[ImageHistory]:
        return self.store.history(self.store.resolve(name))

    # -- the machine

    def doctor(self) -> list[Check]:
        return checks.doctor(self.paths)

    # -- inside

    def _begin(self) -> None:
        """What every verb does first: folders, then put right what a killed process left."""
        if os.geteuid() != 0:
            raise IsolationError(
                f"containers need root on this machine, and this process is uid {os.geteuid()}",
                "start Jupyter as root (in a container of its own), or see pycontainers doctor; rootless comes with a later version",
            )
        if not self._swept:
            self.paths.prepare()
        self._swept = time.monotonic()
        containers = str(self.paths.containers)
        if recover.sweep(containers):
            checks.sweep_network(self.paths, [info.id for info in self._infos() if info.status == state.RUNNING])
        freeze.sweep(containers, str(self.paths.run))
        steps.sweep(self.folders)

    def _infos(self) -> list[ContainerInfo]:
        """All containers; one that is removed while we look is left out."""
        found = []
        for container_id in self.folders.ids():
            with contextlib.suppress(NotFound):
                found.append(self._info(container_id))
        return found

    def _info(self, container_id: str) -> ContainerInfo:
        return information.info(self.folders.path(container_id))

    def _id(self, container: str) -> str:
        """Full id of a name, an id, or an unambiguous start of one."""
        if not container:
            raise UsageError("no container named", "give a name or an id; ps -a lists them")
        if os.geteuid() != 0 or not os.path.isdir(self.paths.containers):
            self._begin()
        containers = str(self.paths.containers)
        owner = state.named(containers, container) if "/" not in container else None
        if owner and os.path.isdir(f"{containers}/{owner}"):
            return owner
        ids = self.folders.ids()
        found = [name for name in ids if name.startswith(container)] if len(container) >= 2 else []
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise UsageError(f"{container!r} is the start of {len(found)} container ids", "give more characters")
        names = [self.folders.name(name) for name in ids]
        raise NotFound(f"no container {container!r}", near(container, names) or "ps -a lists all")

    def _abandon(self, container_id: str) -> None:
        """Remove a container whose start failed or was interrupted: the start may go on without us, so it is seen to its end."""
        folder = self.folders.path(container_id)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            now = state.read(folder, "state.json")
            if now is None or now["status"] in (state.CREATED, state.EXITED):
                break
            if now["status"] == state.RUNNING:
                client.signal_init(folder, signals.SIGKILL)
                client.wait(folder, 5)
            time.sleep(0.002)
        self.folders.remove(container_id)

    def _end_quietly(self, container_id: str) -> None:
        """An interrupted ``run``: end the container now; a second within which it may clean up."""
        folder = self.folders.path(container_id)
        try:
            client.signal_init(folder, signals.SIGTERM)
            if client.wait(folder, 0.7) is None:
                client.signal_init(folder, signals.SIGKILL)
                client.wait(folder, 5)
        except (OSError, NotFound):
            pass

    def _images_in_use(self) -> set[str]:
        records = (state.read(self.folders.path(name), "container.json") for name in self.folders.ids(steps=True))
        return {record["image_id"] for record in records if record}


def _signal_number(name: str) -> int:
    text = name.upper()
    if text.isdigit():
        number = int(text)
    else:
        found = getattr(signals, text if text.startswith("SIG") else f"SIG{text}", None)
        number = int(found) if isinstance(found, signals.Signals) else 0
    if not 1 <= number <= signals.SIGRTMAX:
        raise UsageError(f"signal {name!r} is unknown", "for example SIGTERM, HUP or 9")
    return number
