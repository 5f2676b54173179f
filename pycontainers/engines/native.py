"""The native engine: :class:`pycontainers.protocol.Engine` on the rooms below. No daemon: every call reads the files anew."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from ..contents import Contents
from ..errors import NotFound, StateError, UsageError
from ..events import Work
from ..images.store import Store
from ..linux import signals
from ..paths import Paths, paths
from ..protocol import (
    BootstrapRequest,
    BuildRequest,
    Change,
    Check,
    CommitRequest,
    ContainerConfig,
    ContainerInfo,
    Drive,
    ExecConfig,
    ExitStatus,
    ImageHistory,
    ImageInfo,
    LogLine,
    OnOutput,
    Pruned,
    Resources,
    RestartPolicy,
    Watch,
)
from ..runtime import changes, client, freeze, journal, logs, recover, state
from ..runtime.marks import mark
from ..runtime.session import Executed, Session
from ..spaces import Spaces
from . import checks, creation, ending, information, inside, naming, processes, steps
from .folders import Folders
from .refusals import in_one_line
from .shipping import Shipping, written

_ENGINE: NativeEngine | None = None


def engine() -> NativeEngine:
    """This process's engine on the user's own state folders (a new one when they were moved by the environment)."""
    global _ENGINE
    where = paths()
    if _ENGINE is None or _ENGINE.paths != where:
        _ENGINE = NativeEngine(where)
    return _ENGINE


@in_one_line
class NativeEngine(Shipping):
    """Containers by pycontainers' own runtime. Safe to use from several processes at once."""

    name = "native"

    def __init__(self, where: Paths | None = None) -> None:
        self.paths = where or paths()
        self.folders = Folders(self.paths)
        self._swept = 0.0

    # -- containers

    def create(self, config: ContainerConfig) -> ContainerInfo:
        self._begin()
        if config.replace and config.name:
            try:
                self.remove(config.name, force=True)
            except NotFound:
                pass
        info = self._info(creation.create(self.paths, self.store, config))
        self._journal("create", info)
        return info

    def start(self, container: str) -> ContainerInfo:
        self._begin()
        container_id = self._id(container)
        creation.before_start(self.paths, container_id)
        client.start(self.paths, container_id)
        return self._info(container_id)

    def start_attached(self, container: str, feed: bool = False, size: tuple[int, int] | None = None) -> Session:
        self._begin()
        container_id = self._id(container)
        creation.before_start(self.paths, container_id)
        return client.start_attached(self.paths, container_id, feed=feed, size=size)

    def run(
        self,
        config: ContainerConfig,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        drive: Drive | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[ContainerInfo, ExitStatus]:
        info = self.create(config)
        fd = client.body_fd(stdin) if stdin is not None else -1
        try:
            creation.before_start(self.paths, info.id)
            feed = drive is not None and config.stdin_open
            session = client.start_attached(self.paths, info.id, stdin=fd, feed=feed, size=size)
        except BaseException:
            # A container that never ran is of no use to anybody who asked for "run": nothing stays behind.
            self._abandon(info.id)
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        try:
            with session:
                drive(session) if drive is not None else _pass_on(session, on_output)
        except BaseException:
            # An interrupt, or a reader that failed: a foreground container does not outlive its call.
            ending.quietly(self.paths, info.id)
            raise
        mark("client", "ended")
        if session.exit is None and not session.over:
            return info, ExitStatus(code=0)  # detached from: it runs on
        if session.exit is None:
            recover.sweep(str(self.paths.containers))
            return info, ExitStatus(code=None, error="its supervisor was killed: the container was ended, its exit code is unknown")
        return info, information.exit_status(session.exit)

    def attach(self, container: str, feed: bool = False) -> Session:
        self._begin()
        info = self.find(container)
        if info.status == state.PAUSED:
            raise StateError(f"container {info.name!r} is paused", f"unpause it first: %container unpause {info.name}")
        session = client.attach(self.paths, info.id, feed=feed)
        if session is None:
            raise StateError(f"container {info.name!r} is not running", f"start it: %container start {info.name}")
        return session

    def exec(
        self,
        container: str,
        config: ExecConfig,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        drive: Drive | None = None,
        size: tuple[int, int] | None = None,
    ) -> ExitStatus:
        self._begin()
        container_id = self._id(container)
        fd = client.body_fd(stdin) if stdin is not None else -1
        started = time.time()
        try:
            session, record = self._execute(container, container_id, config, fd, drive is not None, size)
        finally:
            if fd >= 0:
                os.close(fd)
        with session:
            drive(session) if drive is not None else _pass_on(session, on_output)
        mark("client", "exec ended")
        found = session.exit or {}
        self._journal_exec("exec_die", record, exitCode=found.get("code", "unknown"))
        error = "" if session.exit or not session.over else "the worker of this exec was killed: its exit code is unknown"
        return ExitStatus(code=found.get("code"), signal=found.get("signal", 0), started=started, finished=time.time(), error=error)

    def exec_detached(self, container: str, config: ExecConfig) -> None:
        self._begin()
        self._execute(container, self._id(container), config, -1, False, None)[0].close()

    def _execute(
        self, called: str, container_id: str, config: ExecConfig, stdin: int, feed: bool, size: tuple[int, int] | None
    ) -> tuple[Executed, dict[str, Any]]:
        """The session, and the container's record."""
        if not config.command:
            raise UsageError("exec needs a command", "exec CONTAINER COMMAND [ARG...]")
        request = {
            "called": called,
            "command": list(config.command),
            "env": config.env,
            "workdir": config.workdir,
            "user": config.user,
            "tty": config.tty,
            "privileged": config.privileged,
            "size": size,
        }
        session = client.run_exec(self.paths, container_id, request, stdin=stdin, feed=feed)
        record = state.read(self.folders.path(container_id), "container.json") or {"id": container_id}  # removed meanwhile
        self._journal_exec(f"exec_start: {' '.join(config.command)}", record)
        return session, record

    def stop(self, container: str, timeout: float | None = None, signal: str = "") -> ContainerInfo:
        message = {"op": "stop", "timeout": timeout, "signal": signals.number(signal) if signal else None}
        return self._ended(container, message, f"stop container {container}")

    def kill(self, container: str, signal: str = "SIGKILL") -> ContainerInfo:
        number = signals.number(signal)
        self._begin()
        container_id = self._id(container)
        before = self._info(container_id)
        if client.ask(self.paths, container_id, {"op": "kill", "signal": number}) is None:
            raise StateError(f"container {before.name!r} is not running", "")
        if number == 9:
            client.wait(self.folders.path(container_id), 30)
        return self._again(before)

    def pause(self, container: str) -> ContainerInfo:
        return self._asked(container, {"op": "pause"})

    def unpause(self, container: str) -> ContainerInfo:
        return self._asked(container, {"op": "unpause"})

    def rename(self, container: str, name: str) -> ContainerInfo:
        return self._changed(container, {"op": "rename", "name": naming.check(name)})

    def update(self, container: str, resources: Resources | None = None, restart: RestartPolicy | None = None) -> ContainerInfo:
        """Limits that are None stay as they are. They hold at once, and for every later start."""
        message: dict[str, Any] = {"op": "update"}
        if resources is not None:
            message["limits"] = {name: value for name, value in asdict(resources).items() if value not in (None, ())}
        if restart is not None:
            message["restart"] = asdict(restart)
        return self._changed(container, message)

    def wait(self, container: str, timeout: float | None = None) -> ExitStatus:
        """The next end of it; of one that has ended, its last."""
        self._begin()
        info = self.find(container)
        if info.status == state.CREATED:
            raise StateError(f"container {info.name!r} was never started", f"start it: %container start {info.name}")
        found = client.wait_exit(self.paths, info.id, timeout)
        if found is None:
            raise StateError(f"container {info.name!r} still runs after {timeout} s", "")
        return information.exit_status(found)

    def top(self, container: str, options: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
        info = self.find(container)
        if info.status not in (state.RUNNING, state.PAUSED):
            raise StateError(f"container {info.name!r} is not running", f"start it: %container start {info.name}")
        return processes.top(self.oci(container)["linux"]["cgroupsPath"], info.pid, options)

    def namespaces(self, container: str = "") -> Spaces:
        from . import spaces

        info = self.find(container) if container else None
        if info is not None and info.status not in (state.RUNNING, state.PAUSED):
            raise StateError(f"container {info.name!r} is not running", f"start it: %container start {info.name}")
        others = {one.name: one.pid for one in self.containers() if one.pid}
        return spaces.of(info.name, info.pid, others) if info is not None else spaces.of("", 0, others)

    def events(self, since: float = 0.0, until: float = 0.0, follow: bool = False) -> Iterator[dict[str, Any]]:
        self._begin()
        return journal.read(str(self.paths.home), since=since, until=until, follow=(lambda: True) if follow else None)

    def remove(self, container: str, force: bool = False) -> None:
        self._begin()
        container_id = self._id(container)
        info = self._info(container_id)
        if info.status in state.ACTIVE:
            if not force:
                raise StateError(f"container {info.name!r} is {info.status}", f"stop it first, or use force: rm -f {info.name}")
            ending.by_force(self.paths, container_id)
        mark("client", "removing")
        if os.path.isdir(info.folder):
            self.folders.remove(container_id)
            self._journal("destroy", info)

    def containers(self, all: bool = False) -> list[ContainerInfo]:
        self._begin()
        return sorted((info for info in self._infos() if all or info.status in state.ACTIVE), key=lambda info: -info.created)

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

    def samples(self, container: str, after: float | None = None) -> Sequence[Any]:
        from ..metrics import history

        path = f"{self.folders.path(self._id(container))}/samples.ring"
        try:
            return history.read(path) if after is None else history.read_after(path, after)
        except FileNotFoundError:  # not started yet, or removed meanwhile
            return []

    def watch(self) -> Watch:
        from .watching import Watch

        return Watch(self.paths, self.folders, self.containers, self.images)

    def prune(self) -> Pruned:
        """Remove every container that has ended, then layers and images that nothing uses. Lines that say what was done."""
        self._begin()
        said, size = [], 0
        for info in self.containers(all=True):
            if info.status == state.EXITED:
                size += written(info.folder) or 0
                self.remove(info.id)
                said.append(f"Deleted container: {info.name}")
        images = self._prune_images()
        return Pruned([*said, *images], size + images.reclaimed)

    def _prune_images(self) -> Pruned:
        if inside.needed():
            found: Pruned = inside.call(self.paths, "_prune_images")
            return found
        return self.store.prune(self._images_in_use)

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
        if inside.needed():
            return list(inside.call(self.paths, "diff", container))
        return changes(self.folders.path(self._id(container)))

    def export(self, container: str, output: BinaryIO) -> Work[int]:
        from . import transfer

        self._begin()
        info = self.find(container)
        return transfer.export(self.paths, info.id, info.name, output)

    def commit(self, container: str, request: CommitRequest) -> Work[ImageInfo]:
        from . import commit

        self._begin()
        if inside.needed():
            committed: ImageInfo = yield from inside.work(self.paths, "commit", container, request)
            return committed
        image = yield from commit.commit(self.paths, self.store, self._id(container), request)
        return self.store.info(image)

    # -- images

    @functools.cached_property
    def store(self) -> Store:
        return Store(self.paths.prepare())

    def build(self, request: BuildRequest) -> Work[ImageInfo]:
        from . import building

        self._begin()
        if inside.needed():
            return (yield from building.build_inside(self.paths, request))
        image = yield from building.build(self.paths, request, building.Shipping(self.pull, self.load, self.origins))
        return self.store.info(image)

    def bootstrap(self, request: BootstrapRequest) -> Work[ImageInfo]:
        from ..images import bootstrap

        self._begin()
        if inside.needed():
            made: ImageInfo = yield from inside.work(self.paths, "bootstrap", request)
            return made
        image = yield from bootstrap.bootstrap(self.store, request)
        return self.store.info(image)

    def explore(self, image: str) -> Contents:
        from ..images import contents

        self._begin()
        if inside.needed():
            found: Contents = inside.call(self.paths, "explore", image)
            return found
        return contents.contents(self.store.resolve(image))

    def images(self) -> list[ImageInfo]:
        return [self.store.info(image) for image in self.store.images()]

    def image(self, name: str) -> ImageInfo:
        return self.store.info(self.store.resolve(name))

    def tag(self, image: str, name: str) -> None:
        self.store.tag(self.store.resolve(image).id, name)

    def remove_image(self, name: str, force: bool = False) -> list[str]:
        if inside.needed():
            return list(inside.call(self.paths, "remove_image", name, force))
        return self.store.remove(name, force, self._images_in_use)

    def image_history(self, name: str) -> list[ImageHistory]:
        return self.store.history(self.store.resolve(name))

    # -- the machine

    def doctor(self) -> list[Check]:
        return checks.doctor(self.paths)

    # -- inside

    def _begin(self) -> None:
        """What every verb does first: folders, then put right what a killed process left."""
        if not self._swept:
            self.paths.prepare()
        self._swept = time.monotonic()
        containers = str(self.paths.containers)
        if recover.sweep(containers):
            checks.sweep_network(self.paths, [info.id for info in self._infos() if info.status in state.ACTIVE])
        freeze.sweep(containers, str(self.paths.run))
        steps.sweep(self.folders)
        if os.geteuid() != 0:
            client.clear(self.paths)

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
        if not os.path.isdir(self.paths.containers):
            self._begin()
        return self.folders.find(container)

    def _asked(self, container: str, message: dict[str, Any]) -> ContainerInfo:
        """Ask a living container's supervisor. :raises StateError: it does not run."""
        self._begin()
        info = self.find(container)
        if client.ask(self.paths, info.id, message) is None:
            raise StateError(f"container {info.name!r} is not running", f"start it: %container start {info.name}")
        return self._info(info.id)

    def _changed(self, container: str, message: dict[str, Any]) -> ContainerInfo:
        """A change that holds for living and ended containers alike, made by whoever holds the container's lock."""
        self._begin()
        container_id = self._id(container)
        folder = self.folders.path(container_id)
        deadline = time.monotonic() + 10
        while client.ask(self.paths, container_id, message) is None:
            lock = state.lock(folder)
            if lock is not None:
                try:
                    changes.apply(folder, message)
                finally:
                    os.close(lock)
                break
            if time.monotonic() > deadline:
                raise StateError(f"container {container!r} is being worked on by another command", "try again")
            time.sleep(0.002)  # it is about to start, or to end
        return self._info(container_id)

    def _ended(self, container: str, message: dict[str, Any], what: str) -> ContainerInfo:
        """Ask for its end, and wait for it as long as that may take."""
        self._begin()
        before = self.find(container)
        seconds = ending.patience(message.get("timeout"), state.read(before.folder, "container.json") or {})
        asked = client.ask(self.paths, before.id, message) is not None
        if not asked and before.status in state.ACTIVE and self._again(before).status in state.ACTIVE:
            raise StateError(f"{what}: it cannot be asked (was its run folder deleted?)", f"end it: %container rm -f {before.name}")
        if asked and client.wait(before.folder, seconds) is None:
            raise StateError(f"{what}: it does not end", "its processes hang in the kernel (uninterruptible sleep)?")
        mark("client", "stopped")
        return self._again(before)

    def _again(self, before: ContainerInfo) -> ContainerInfo:
        try:
            return self._info(before.id)
        except NotFound:  # --rm: what it was is all that can be said
            return before

    def _journal(self, action: str, info: ContainerInfo) -> None:
        journal.record(str(self.paths.home), action, info.id, {**info.labels, "image": info.image, "name": info.name})

    def _journal_exec(self, action: str, record: dict[str, Any], **attributes: object) -> None:
        """By us: the worker stands inside the container, where no path of ours means what it should."""
        journal.record(str(self.paths.home), action, record["id"], journal.of(record, **attributes))

    def _abandon(self, container_id: str) -> None:
        """Remove a container whose start failed or was interrupted: the start may go on without us, so it is seen to its end."""
        ending.by_force(self.paths, container_id)
        self.folders.remove(container_id)

    def _images_in_use(self) -> set[str]:
        records = (state.read(self.folders.path(name), "container.json") for name in self.folders.ids(steps=True))
        return {record["image_id"] for record in records if record}


def _pass_on(session: Session, on_output: OnOutput | None) -> None:
    for stream, data in session.stream():
        if on_output is not None:
            on_output(stream, data)
