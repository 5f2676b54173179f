"""A small engine in memory that keeps the protocol: what is above it is tested without isolating anything."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field, replace
from typing import Any

from pycontainers.errors import NameInUse, NotFound, RegistryError, near
from pycontainers.events import Done, Note, StepFinished, StepOutput, StepStarted
from pycontainers.metrics.sample import Sample
from pycontainers.protocol import (
    BuildRequest,
    Check,
    ContainerConfig,
    ContainerInfo,
    DiskUsage,
    ExecConfig,
    ExitStatus,
    ImageHistory,
    ImageInfo,
    LogLine,
    LogPart,
    Pruned,
)
from pycontainers.spaces import KINDS, Sight, Space, Spaces


def sample(time: float, **values: Any) -> Sample:
    """A sample with everything at zero but what is given."""
    return Sample(time, **{name: int(value) for name, value in values.items()})


class FakeSession:
    """Over as soon as its input has ended."""

    def __init__(self, tty: bool) -> None:
        self.tty, self.over, self.exit = tty, False, None
        self.fed = bytearray()

    def sources(self) -> list[int]:
        return []

    def stream(self) -> Any:
        return iter(())

    def sink(self) -> int:
        return -1

    def offer(self, data: bytes) -> int:
        self.fed += data
        return len(data)

    def feed(self, data: bytes) -> None:
        self.offer(data)

    def end_input(self) -> None:
        self.over = True

    def resize(self, rows: int, columns: int) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class FakeEngine:
    name: str = "fake"
    calls: list[Any] = field(default_factory=list)
    boxes: dict[str, ContainerInfo] = field(default_factory=dict)
    pictures: dict[str, ImageInfo] = field(default_factory=dict)
    recorded: list[Any] = field(default_factory=list)
    happened: list[dict[str, Any]] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)
    output: list[tuple[str, bytes]] = field(default_factory=list)
    next_exit: ExitStatus = field(default_factory=lambda: ExitStatus(0))
    build_error: Exception | None = None
    checks: list[Check] = field(default_factory=lambda: [Check("user namespace", "ok"), Check("time", "missing", "EPERM", "run as root")])

    def create(self, config: ContainerConfig) -> ContainerInfo:
        self.calls.append(("create", config))
        if any(info.name == config.name for info in self.boxes.values()) and not config.replace:
            raise NameInUse(f"the name {config.name!r} is in use", "--replace")
        if config.image != "host" and config.image not in {*self.pictures, *[info.id for info in self.pictures.values()]}:
            raise NotFound(f"no image {config.image!r}", near(config.image, ["host", *self.pictures]))
        ident = hashlib.sha256(f"{config.name}{len(self.calls)}".encode()).hexdigest()
        info = ContainerInfo(
            ident,
            config.name or f"made_{len(self.calls)}",
            config.image,
            "sha256:" + "1" * 64,
            config.command,
            "created",
            time.time(),
            0,
            None,
            config.ports,
            config.mounts,
            config.network,
            "10.0.0.2",
            config.hostname or ident[:12],
            config.labels,
            config.resources,
            "",
            (),
            "/nowhere",
        )
        self.boxes[ident] = info
        return info

    def _set(self, container: str, **changes: Any) -> ContainerInfo:
        info = replace(self.find(container), **changes)
        self.boxes[info.id] = info
        return info

    def start(self, container: str) -> ContainerInfo:
        self.calls.append(("start", container))
        return self._set(container, status="running", pid=1, exit=None)

    def run(
        self, config: ContainerConfig, stdin: bytes | None = None, on_output: Any = None, drive: Any = None, size: Any = None
    ) -> tuple[ContainerInfo, ExitStatus]:
        info = self.create(config)
        if drive is not None:
            session = FakeSession(config.tty)
            drive(session)
            stdin, on_output = bytes(session.fed), None
        self.calls.append(("run", config, stdin))
        for stream, data in self.output if on_output else []:
            on_output(stream, data)
        if stdin and on_output:
            on_output("stdout", stdin)
        info = self._set(info.id, status="exited", exit=self.next_exit)
        if config.auto_remove:
            del self.boxes[info.id]
        return info, self.next_exit

    def exec(
        self,
        container: str,
        config: ExecConfig,
        stdin: bytes | None = None,
        on_output: Any = None,
        drive: Any = None,
        size: Any = None,
    ) -> ExitStatus:
        self.find(container)
        self.calls.append(("exec", container, config, stdin))
        for stream, data in self.output:
            on_output(stream, data)
        return self.next_exit

    def stop(self, container: str, timeout: float | None = None, signal: str = "") -> ContainerInfo:
        self.calls.append(("stop", container, timeout))
        return self._set(container, status="exited", exit=ExitStatus(143, 15, finished=time.time()))

    def kill(self, container: str, signal: str = "SIGKILL") -> ContainerInfo:
        self.calls.append(("kill", container, signal))
        return self._set(container, status="exited", exit=ExitStatus(137, 9))

    def wait(self, container: str, timeout: float | None = None) -> ExitStatus:
        return self.find(container).exit or self.next_exit

    def remove(self, container: str, force: bool = False) -> None:
        self.calls.append(("remove", container, force))
        del self.boxes[self.find(container).id]

    def containers(self, all: bool = False) -> list[ContainerInfo]:
        return [info for info in self.boxes.values() if all or info.status == "running"]

    def find(self, container: str) -> ContainerInfo:
        for info in self.boxes.values():
            if container == info.name or info.id.startswith(container):
                return info
        raise NotFound(f"no container {container!r}", near(container, [info.name for info in self.boxes.values()]))

    def namespaces(self, container: str = "") -> Spaces:
        """Each container has namespaces of its own, but its network, which is this machine's."""
        info = self.find(container) if container else None
        first = 100 * (1 + list(self.boxes).index(info.id)) if info else 0
        kinds = {}
        for place, kind in enumerate(KINDS, 1):
            host = info is None or kind == "network"
            sights = (Sight("what", ("A", "B"), (("<b>x</b>", "\x1b[31my"), (container or "host", kind)), left=3, note="a note"),)
            kinds[kind] = Space(kind, place if host else first + place, host, (), sights)
        return Spaces(info.name if info else "", info.pid if info else 1, kinds)

    def oci(self, container: str) -> dict[str, Any]:
        return {"ociVersion": "1.2.0", "hostname": self.find(container).hostname}

    def logs(self, container: str, follow: bool = False, tail: int | None = None, since: float = 0.0, until: float = 0.0) -> Any:
        self.find(container)
        self.calls.append(("logs", container, follow, tail, since, until))
        return iter(self.lines if tail is None else self.lines[-tail:] if tail else [])

    def samples(self, container: str, after: float | None = None) -> list[Any]:
        self.find(container)
        return [sample for sample in self.recorded if after is None or sample.time > after]

    def events(self, since: float = 0.0, until: float = 0.0, follow: bool = False) -> Any:
        return iter([event for event in self.happened if event["timeNano"] / 1e9 >= since])

    def top(self, container: str, options: Any = ()) -> tuple[list[str], list[list[str]]]:
        self.find(container)
        return ["UID", "PID", "CMD"], [["root", "1", "sleep 1"]]

    def watch(self) -> FakeWatch:
        return FakeWatch(self)

    def build(self, request: BuildRequest) -> Any:
        self.calls.append(("build", request))

        def work() -> Any:
            yield Note("a note")
            yield StepStarted(1, 2, "", "FROM host")
            yield StepFinished(1, 0.0, True)
            yield StepStarted(2, 2, "app", "RUN make\x1b]52;c;ZXZpbA==\x07")
            yield StepOutput(2, "stdout", b"half ")
            yield StepOutput(2, "stdout", b"line\nprogress 1%\rprogress 100%\n<b>bold</b>")
            if self.build_error:
                raise self.build_error
            yield StepFinished(2, 0.5, False)
            yield Done(", ".join(request.tags), 0.6)
            info = ImageInfo("sha256:" + "2" * 64, request.tags, time.time(), 4096, True, {"Cmd": ["sh"]})
            self.pictures.update(dict.fromkeys(request.tags, info))
            return info

        return work()

    def export_folder(self, name: str, folder: str) -> Any:
        self.calls.append(("export_folder", name, folder))
        yield Done(folder, 0.1)
        return 0

    def images(self) -> list[ImageInfo]:
        return list(self.pictures.values())

    def image(self, name: str) -> ImageInfo:
        for key, info in self.pictures.items():
            if name == key or info.id.removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
                return info
        raise NotFound(f"no image {name!r}", near(name, self.pictures))

    def pull(self, name: str, platform: str = "", all_tags: bool = False) -> Any:
        def work() -> Any:
            yield Note(f"asked for {name}")
            raise RegistryError("registry docker.io: its name is not known", "check the network")

        return work()

    def tag(self, image: str, name: str) -> None:
        self.pictures[name] = self.image(image)

    def remove_image(self, name: str, force: bool = False) -> list[str]:
        self.image(name)
        del self.pictures[name]
        return [f"untagged {name}"]

    def image_history(self, name: str) -> list[ImageHistory]:
        return [ImageHistory(0.0, "FROM host", 0, True), ImageHistory(time.time(), "RUN <script>", 2048, False, "sha256:" + "3" * 64)]

    def prune(self) -> Pruned:
        return Pruned()

    def prune_builds(self, all: bool = False, keep_bytes: int | None = None, until: float = 0.0) -> Pruned:
        self.calls.append(("prune_builds", all, keep_bytes, until))
        return Pruned(["cache mount /root/.cache"], 3 << 20)

    def system_df(self) -> list[DiskUsage]:
        return [DiskUsage("Images", 1, 0, 10, 10, ()), DiskUsage("Build cache", 2, 0, 4 << 20, 4 << 20, ())]

    def doctor(self) -> list[Check]:
        return self.checks


class FakeWatch:
    """Tells what the engine has."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.looks = 0

    def stirred(self) -> bool:
        return False

    def containers(self) -> list[ContainerInfo]:
        self.looks += 1
        return sorted(self.engine.boxes.values(), key=lambda info: -info.created)

    def images(self) -> list[ImageInfo]:
        return list({info.id: info for info in self.engine.pictures.values()}.values())

    def samples(self, container: str) -> list[Any]:
        found, self.engine.recorded = self.engine.recorded, []
        return found

    def log(self, container: str, after: int | None = None, before: int | None = None) -> LogPart:
        self.engine.find(container)
        lines = self.engine.lines
        if before is not None:
            return LogPart(tuple(lines[max(0, before - 2) : before]), max(0, before - 2), before)
        start = max(0, len(lines) - 2) if after is None else after
        return LogPart(tuple(lines[start:]), start, len(lines))
