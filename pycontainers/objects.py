"""What a user holds: Container, Image, Stats, Logs. Plain representations only; the notebook adds rich ones by type at load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, overload

from .errors import ContainersError, NotFound
from .events import finish
from .metrics.series import format_bytes, to_columns
from .protocol import (
    CommitRequest,
    ContainerConfig,
    ContainerInfo,
    Engine,
    ExecConfig,
    ExitStatus,
    ImageInfo,
    LogLine,
    Port,
    Resources,
    RestartPolicy,
    Session,
)
from .results import Changes, ImageSteps, Logs, Output, Rows, RunResult
from .text import ago, one_line, table
from .wording import ports_text, status_text

if TYPE_CHECKING:
    from .explored import Explored
    from .namespaced import Namespaces
    from .terminals import Terminal
    from .usage import Stats


class Container:
    """One container. Attributes are read anew each time; ``with`` removes it at the end."""

    def __init__(self, engine: Engine, info: ContainerInfo) -> None:
        self._engine = engine
        self._info = info

    @classmethod
    def launch(cls, engine: Engine, config: ContainerConfig) -> Container:
        """Create and start. What cannot be started does not stay behind (a port in use, a command that is not in the image)."""
        info = engine.create(config)
        try:
            return cls(engine, engine.start(info.id))
        except BaseException:
            try:
                engine.remove(info.id, force=True)
            except ContainersError:
                pass  # the reason why it did not start is what the user needs to read
            raise

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def id(self) -> str:
        """64 hexadecimal digits; never changes."""
        return self._info.id

    @property
    def short_id(self) -> str:
        return self._info.short_id

    @property
    def known(self) -> ContainerInfo:
        """What was last read, without reading again."""
        return self._info

    def reload(self) -> Container:
        """Read everything anew. :raises NotFound: it was removed."""
        self._info = self._engine.find(self.id)
        return self

    def inspect(self) -> ContainerInfo:
        """Everything that the engine knows about it, read now."""
        return self.reload()._info

    @property
    def name(self) -> str:
        return self.inspect().name

    @property
    def image(self) -> str:
        return self.inspect().image

    @property
    def status(self) -> str:
        """created, starting, running, paused, restarting or exited."""
        return self.inspect().status

    @property
    def ports(self) -> tuple[Port, ...]:
        return self.inspect().ports

    @property
    def labels(self) -> dict[str, str]:
        return self.inspect().labels

    @property
    def address(self) -> str:
        """Its IP address, "" without a network."""
        return self.inspect().address

    @property
    def exit_code(self) -> int | None:
        """None while it runs, or where nobody could read it."""
        exit = self.inspect().exit
        return exit.code if exit else None

    def start(self) -> Container:
        self._info = self._engine.start(self.id)
        return self

    def stop(self, timeout: float | None = None, signal: str = "") -> Container:
        """Send its stop signal (or ``signal``), and SIGKILL after ``timeout`` seconds (None: its own, else 10)."""
        self._info = self._engine.stop(self.id, timeout, signal)
        return self

    def restart(self, timeout: float | None = None) -> Container:
        """Stop it if it runs, and start it."""
        if self.status in ("running", "paused", "restarting"):
            self.stop(timeout)
        return self.start()

    def pause(self) -> Container:
        """Freeze all its processes (cgroup freezer)."""
        self._info = self._engine.pause(self.id)
        return self

    def unpause(self) -> Container:
        self._info = self._engine.unpause(self.id)
        return self

    def rename(self, name: str) -> Container:
        self._info = self._engine.rename(self.id, name)
        return self

    def update(self, resources: Resources | None = None, restart: RestartPolicy | None = None) -> Container:
        """Other limits, at once and for every later start; what is None in ``resources`` stays. ``pc.update`` takes words."""
        self._info = self._engine.update(self.id, resources, restart)
        return self

    def terminal(self, *command: str) -> Terminal:
        """A process on a terminal of its own, a shell where none is named: where a page shows it, one types into it."""
        from .terminals import in_container

        return in_container(self._engine, self.id, ExecConfig(command))

    def namespaces(self, *kinds: str) -> Namespaces:
        """Its namespaces, and what is visible through each (``pid``, ``network``, …; all where none is named)."""
        from .namespaced import Namespaces

        return Namespaces(self._engine, [self.name], kinds)

    def top(self, *options: str) -> Rows:
        """Its processes, as this machine sees them. ``options``: those of ps(1)."""
        return Rows(*self._engine.top(self.id, options))

    def attach(self, *, stdin: bool = False) -> Session:
        """Its output from now on, and with ``stdin`` its input."""
        return self._engine.attach(self.id, stdin)

    @property
    def health(self) -> str:
        """starting, healthy or unhealthy; "" without a health check."""
        return self.inspect().health

    def kill(self, signal: str = "SIGKILL") -> Container:
        self._info = self._engine.kill(self.id, signal)
        return self

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait for its end. ``timeout`` in seconds."""
        return self._engine.wait(self.id, timeout)

    def remove(self, force: bool = False) -> None:
        """Remove it with its files; ``force`` ends it first."""
        self._engine.remove(self.id, force)

    def exec(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, object] | None = None,
        workdir: str = "",
        user: str = "",
        input: str | bytes | None = None,
        check: bool = False,
    ) -> RunResult:
        """Run a command inside and wait for it. ``input`` is its stdin.

        :raises ContainerFailed: with ``check``, when its exit code is not zero.
        """
        import shlex

        words = tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)
        config = ExecConfig(words, {key: str(value) for key, value in (env or {}).items()}, workdir, user)
        output = Output()
        exit = self._engine.exec(self.id, config, input.encode() if isinstance(input, str) else input, output)
        result = RunResult(self._info.name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)
        return result.check() if check else result

    @overload
    def logs(self, *, follow: Literal[False] = False, tail: int | None = None, since: float = 0.0, until: float = 0.0) -> Logs: ...

    @overload
    def logs(self, *, follow: Literal[True], tail: int | None = None, since: float = 0.0, until: float = 0.0) -> Iterator[LogLine]: ...

    def logs(self, *, follow: bool = False, tail: int | None = None, since: float = 0.0, until: float = 0.0) -> Logs | Iterator[LogLine]:
        """What it wrote so far; with ``follow`` an iterator that goes on until it ends. ``since``, ``until``: unix seconds."""
        lines = self._engine.logs(self.id, follow, tail, since, until)
        return lines if follow else Logs(lines)

    def stats(self) -> Stats:
        """What it used, over its whole life as far as the record reaches; also after it has ended."""
        from .usage import Stats

        return Stats(self._engine, self.id)

    def history(self) -> Any:
        """The recorded samples, also after the end: a pandas DataFrame with the time of each (UTC) as index; where pandas is not
        installed a dict of lists of equal length, in which ``time`` is in unix seconds. The columns: :func:`.metrics.series.to_columns`.
        """
        info = self.inspect()
        columns = to_columns(list(self._engine.samples(info.id)), info.resources.cpus)
        try:
            from pandas import DataFrame, to_datetime  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            return columns
        # By nanoseconds: from seconds pandas 3 would keep no more than these.
        index = to_datetime([round(moment * 1e9) for moment in columns.pop("time")], unit="ns", utc=True)
        return DataFrame(columns, index=index.rename("time"))

    def copy_out(self, source: str, target: str | PathLike[str] | BinaryIO, *, archive: bool = False, follow: bool = False) -> int:
        """Copy a file or folder of it to this machine (as ``cp``), or as a tar into a file object. Bytes of files.

        :param archive: keep owners, set-user-id bits and all attributes. :param follow: where ``source`` is a link, what it leads to.
        """
        place = fspath(target) if isinstance(target, str | PathLike) else target
        return finish(self._engine.copy_out(self.id, source, place, archive=archive, follow=follow))

    def copy_in(self, source: str | PathLike[str] | BinaryIO, target: str, *, archive: bool = False, follow: bool = False) -> int:
        """Copy a file or folder of this machine into it (as ``cp``), or a tar from a file object. Bytes of files."""
        place = fspath(source) if isinstance(source, str | PathLike) else source
        return finish(self._engine.copy_in(self.id, place, target, archive=archive, follow=follow))

    def diff(self) -> Changes:
        """What it has changed in its root file system, sorted by path."""
        return Changes(self._engine.diff(self.id))

    def export(self, output: BinaryIO) -> int:
        """Write its root file system as a tar, without what is mounted over it. Bytes of files."""
        return finish(self._engine.export(self.id, output))

    def commit(self, name: str = "", *, author: str = "", message: str = "", changes: Sequence[str] = (), pause: bool = True) -> Image:
        """Make an image of what it has written. ``changes``: Dockerfile instructions; ``pause``: nothing in it moves meanwhile."""
        return Image(self._engine, finish(self._engine.commit(self.id, CommitRequest(name, author, message, tuple(changes), pause))))

    def oci(self) -> dict[str, Any]:
        """Its OCI runtime specification, as the runtime was given it."""
        return self._engine.oci(self.id)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.remove(force=True)
        except NotFound:
            pass  # already gone (`--rm`, or removed inside the block): what was asked for holds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        try:
            info = self.inspect()
        except NotFound:
            return f"<Container {one_line(self._info.name)} {self.short_id}: removed>"
        return f"<Container {one_line(info.name)} {info.short_id}: {one_line(info.image)}, {status_text(info)}>"


class ContainerList(list[Container]):
    """Containers as ``ps`` lists them."""

    full = False
    headers = ("CONTAINER ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NOTEBOOK")

    def rows(self) -> list[tuple[str, ...]]:
        """The cells of the table, as read when the list was made."""
        rows: list[tuple[str, ...]] = []
        for info in (container.known for container in self):
            command = " ".join(info.command)
            if not self.full and len(command) > 24:
                command = command[:23] + "…"
            ident = info.id if self.full else info.short_id
            rows.append(
                (ident, info.name, info.image, command, ago(info.created), status_text(info), ports_text(info.ports), info.notebook)
            )
        return rows

    def __repr__(self) -> str:
        notes = [f"{one_line(item.known.name)}: {one_line(note)}" for item in self for note in item.known.notes]
        return "\n".join([table(self.headers, self.rows()), *notes])


class Image:
    """One image."""

    def __init__(self, engine: Engine, info: ImageInfo) -> None:
        self._engine = engine
        self._info = info

    @property
    def known(self) -> ImageInfo:
        """What was last read, without reading again."""
        return self._info

    def inspect(self) -> ImageInfo:
        self._info = self._engine.image(self._info.id)
        return self._info

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def short_id(self) -> str:
        return self._info.short_id

    @property
    def names(self) -> tuple[str, ...]:
        return self.inspect().names

    @property
    def size(self) -> int:
        """Bytes of its own layers (a host base counts 0)."""
        return self._info.size

    @property
    def config(self) -> dict[str, Any]:
        """Its OCI image configuration."""
        return self._info.config

    def tag(self, name: str) -> None:
        self._engine.tag(self.id, name)

    def remove(self, force: bool = False) -> list[str]:
        return self._engine.remove_image(self.id, force)

    def history(self) -> ImageSteps:
        return ImageSteps(self._engine.image_history(self.id))

    def explore(self) -> Explored:
        """What each of its layers adds, changes and removes, and what it carries in vain."""
        from .explored import Explored

        return Explored(self._engine.explore(self.id))

    def __repr__(self) -> str:
        return f"<Image {one_line(', '.join(self._info.names) or '<none>')} {self.short_id}: {format_bytes(self._info.size)}>"


class ImageList(list[Image]):
    """Images as ``images`` lists them: a row for each name."""

    full = False
    digests = False

    @property
    def headers(self) -> tuple[str, ...]:
        return ("NAME", *(("DIGEST",) if self.digests else ()), "IMAGE ID", "CREATED", "SIZE", "BASE")

    def rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for info in (image.known for image in self):
            for name in info.names or ("<none>",):
                digest = ((_digest(info, name),) if self.full else (_digest(info, name)[:19],)) if self.digests else ()
                ident = info.id if self.full else info.short_id
                base = "this machine" if info.host else ""
                rows.append((name, *digest, ident, ago(info.created), format_bytes(info.size), base))
        return rows

    def __repr__(self) -> str:
        return table(self.headers, self.rows())


def _digest(info: ImageInfo, name: str) -> str:
    """What a registry knows this name's image by, ``<none>`` where none has told."""
    repository, _, tag = name.rpartition(":")
    repository = name if "/" in tag or not repository else repository
    return next((digest.partition("@")[2] for digest in info.digests if digest.partition("@")[0] == repository), "<none>")
