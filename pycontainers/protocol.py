"""What any engine can do, as typed protocols and plain data. No policy, no I/O, no imports of other rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from .contents import Contents
from .events import Work
from .spaces import Spaces

OnOutput = Callable[[str, bytes], None]
"""Called with ``"stdout"`` or ``"stderr"`` and the bytes as they come."""


@dataclass(frozen=True)
class Port:
    """A published port: ``host_ip:host_port`` is forwarded to ``container_port``. ``host_port`` 0 means any free one."""

    container_port: int
    host_port: int = 0
    host_ip: str = "127.0.0.1"
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}->{self.container_port}/{self.protocol}"


@dataclass(frozen=True)
class Mount:
    """A ``bind`` of a host path or a fresh ``tmpfs`` at ``target``.

    ``create`` makes a missing bind source as a folder (Docker: ``-v`` does, ``--mount`` does not).
    ``options``: of a tmpfs its own (``size=64m``, ``mode=1777``, ``exec``); of a bind a propagation (``rslave``), ``z`` or ``Z``, ``bind``
    (without what is mounted below it), ``writable`` (what is mounted below a read-only one stays writable).
    """

    type: str
    target: str
    source: str = ""
    read_only: bool = False
    create: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resources:
    """Limits. None means not set. Names and units follow Docker's options and the OCI runtime spec.

    memory, memory_swap (memory plus swap, -1 unlimited), memory_reservation: bytes; memory_swappiness: 0..100;
    cpus: processors (0.5 is half of one); cpu_period, cpu_quota: microseconds (instead of cpus); cpu_shares: 2..262144 (1024 default);
    cpuset_cpus, cpuset_mems: ``0-1,3``; pids_limit: processes (-1 unlimited); blkio_weight: 10..1000;
    device_read_bps and its siblings: (device, bytes or operations a second) pairs.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    pids_limit: int | None = None
    blkio_weight: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_mems: str | None = None
    device_read_bps: tuple[tuple[str, int], ...] = ()
    device_write_bps: tuple[tuple[str, int], ...] = ()
    device_read_iops: tuple[tuple[str, int], ...] = ()
    device_write_iops: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Device:
    """A device node of this machine inside the container. ``permissions``: of ``rwm`` (read, write, mknod)."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True)
class Ulimit:
    """A resource limit of the first process (setrlimit(2)). ``name`` without RLIMIT_, lower case; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True)
class RestartPolicy:
    """What happens when the container ends by itself: ``no``, ``on-failure``, ``always``, ``unless-stopped``.

    ``retries``: at most so many restarts in a row for on-failure, 0 for any number.
    """

    name: str = "no"
    retries: int = 0


@dataclass(frozen=True)
class HealthCheck:
    """How to tell whether the container is healthy (Docker's HEALTHCHECK). Times in seconds.

    ``test``: ``("NONE",)``, ``("CMD", word, …)`` or ``("CMD-SHELL", text)``.
    ``retries`` failures in a row make it unhealthy; failures within ``start_period`` of the start do not count.
    """

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


@dataclass(frozen=True)
class ContainerConfig:
    """Everything that ``create`` and ``run`` take. Names and meanings are those of Docker's options.

    pid, ipc, uts, network: "" (its own), ``host``, or ``container:NAME``; ``health`` None takes the image's own, and so does each of its
        values that is 0 or empty.
    expose: ``80/tcp``, beside what the image exposes; ``publish_all`` publishes them on free ports. cidfile: where its id is written.
    lifetime: ``detached`` (until it ends), ``kernel`` (ends with the process that asked) or ``server`` (with its Jupyter server).
    """

    image: str
    command: tuple[str, ...] = ()
    name: str = ""
    entrypoint: tuple[str, ...] | None = None
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = "bridge"
    resources: Resources = field(default_factory=Resources)
    read_only: bool = False
    auto_remove: bool = False
    replace: bool = False
    stdin_open: bool = False
    userns: str = "auto"
    stop_signal: str = ""
    require_isolation: str = ""
    tty: bool = False
    domainname: str = ""
    group_add: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    sysctls: dict[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    shm_size: int | None = None
    init: bool = False
    oom_score_adj: int | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroupns: str = ""
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    health: HealthCheck | None = None
    stop_timeout: float | None = None
    lifetime: str = "detached"
    expose: tuple[str, ...] = ()
    publish_all: bool = False
    cidfile: str = ""


@dataclass(frozen=True)
class ExecConfig:
    """Everything that ``exec`` takes. ``tty``: on a terminal of its own; ``privileged``: with all capabilities, without seccomp."""

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    tty: bool = False
    privileged: bool = False


@dataclass(frozen=True)
class ExitStatus:
    """How a container or an exec ended.

    :param code: the exit code; 128 + signal when a signal ended it (Docker's convention); None where nobody could read it
        (its supervisor was killed).
    :param signal: the signal's number, 0 if none.
    :param oom_killed: the kernel killed a process of the container for want of memory (cgroup counter rose).
    :param error: one line when it never ran, or when the record is incomplete.
    :param started, finished: unix seconds, 0.0 where unknown.
    :param memory_peak: bytes, 0 where unknown.
    """

    code: int | None
    signal: int = 0
    oom_killed: bool = False
    error: str = ""
    hint: str = ""
    started: float = 0.0
    finished: float = 0.0
    memory_peak: int = 0


@dataclass(frozen=True)
class ContainerInfo:
    """One container as ``ps`` and ``inspect`` see it. ``status``: created, starting, running, paused, restarting, exited.

    created, started: unix seconds; started is 0.0 before the first start.
    ``health``: "" (no check), starting, healthy, unhealthy; ``restarts``: how often its policy started it again.
    """

    id: str
    name: str
    image: str
    image_id: str
    command: tuple[str, ...]
    status: str
    created: float
    pid: int
    exit: ExitStatus | None
    ports: tuple[Port, ...]
    mounts: tuple[Mount, ...]
    network: str
    address: str
    hostname: str
    labels: dict[str, str]
    resources: Resources
    notebook: str
    notes: tuple[str, ...]
    folder: str
    started: float = 0.0
    health: str = ""
    restarts: int = 0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    tty: bool = False
    lifetime: str = "detached"

    @property
    def short_id(self) -> str:
        return self.id[:12]


@dataclass(frozen=True)
class LogLine:
    """One line of a container's log: ``time`` unix seconds, ``stream`` stdout or stderr; ``text`` without the newline.

    ``partial`` says that the line was cut (longer than 16 KiB, or the process ended without a newline).
    """

    time: float
    stream: str
    text: str
    partial: bool = False


@dataclass(frozen=True)
class ImageInfo:
    """One image. ``id`` is the digest of its OCI config. ``size`` is the bytes of its own layers (a host base counts 0).

    digests: ``name@sha256:…`` as registries know it (Docker's RepoDigests); layers: diff ids, lowest first; manifest: the digest of
    the manifest that came with it, or that it was shipped with ("" for none).
    """

    id: str
    names: tuple[str, ...]
    created: float
    size: int
    host: bool
    config: dict[str, Any]
    digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    manifest: str = ""

    @property
    def short_id(self) -> str:
        return self.id.removeprefix("sha256:")[:12]


@dataclass(frozen=True)
class ImageHistory:
    """One line of ``history``: what made a layer. ``size`` bytes, 0 for steps that only change the config."""

    created: float
    created_by: str
    size: int
    empty: bool
    diff_id: str = ""


@dataclass(frozen=True)
class BuildRequest:
    """Everything that ``build`` takes. Names and meanings are those of ``docker build``'s options.

    :param context: a folder, or "" for no context. ``files``: path in the context -> content, laid over it.
    :param dockerfile_path: where the text came from ("" for a cell): errors name it, and ``<path>.dockerignore`` beside it comes first.
    :param contexts: name -> a folder, ``docker-image://NAME``, ``oci-layout://FOLDER[:TAG]`` or a git or http(s) address.
    :param secrets: id -> content. ``ssh``: id -> path of an agent's socket.
    :param pull: fetch base images anew. ``no_cache_filter``: stages whose steps all run. ``explain``: every step says why it ran or not.
    :param cache_from, cache_to: ``type=local,src=FOLDER``, ``type=registry,ref=NAME`` and their like (``dest=`` when written).
    :param epoch: SOURCE_DATE_EPOCH, unix seconds; None: not asked for. ``parallel``: steps at a time, 0 for as many as there are.
    :param host_certificates: RUN steps trust the certificate authorities that this machine trusts.
    """

    dockerfile: str
    context: str = "."
    tags: tuple[str, ...] = ()
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    network: str = "bridge"
    pull: bool = False
    dockerfile_path: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    contexts: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    ssh: dict[str, str] = field(default_factory=dict)
    platform: str = ""
    no_cache_filter: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    explain: bool = False
    epoch: int | None = None
    parallel: int = 0
    host_certificates: bool = False
    extra_hosts: tuple[str, ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()


@dataclass(frozen=True)
class BootstrapRequest:
    """Everything that ``bootstrap`` takes.

    :param system: ``debian:bookworm``, ``debian`` (its stable release), ``ubuntu:24.04``; ``name``: of the image, "" for the system's own.
    :param variant: how much is in it (mmdebstrap(1)); ``include``: packages beside that.
    :param mirror: instead of this machine's own and the distribution's; the image's apt will use it too.
    :param architecture: by OCI's or Debian's name, "" for this machine's.
    """

    system: str
    name: str = ""
    variant: str = "minbase"
    include: tuple[str, ...] = ()
    mirror: str = ""
    architecture: str = ""


@dataclass(frozen=True)
class Change:
    """One line of ``diff``: ``kind`` is A (added), C (changed) or D (deleted)."""

    kind: str
    path: str


@dataclass(frozen=True)
class CommitRequest:
    """Everything that ``commit`` takes. ``changes`` are Dockerfile instructions, such as ``CMD ["serve"]``; ``pause``: nothing of the
    container moves while its files are copied.
    """

    name: str = ""
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True


@dataclass(frozen=True)
class Check:
    """One row of ``doctor``: ``state`` is ok, weaker, or missing; ``why`` the errno or fact; ``remedy`` what would mend it."""

    name: str
    state: str
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class DiskItem:
    """One line of ``system df -v``: bytes, ``shared`` with others and ``unique`` to it; ``created`` unix seconds; ``uses`` by how many."""

    name: str
    id: str = ""
    size: int = 0
    shared: int = 0
    unique: int = 0
    created: float = 0.0
    uses: int = 0


@dataclass(frozen=True)
class DiskUsage:
    """One row of ``system df``: ``kind`` is Images, Containers, Build cache or Blobs (layers as they are shipped).

    total, active: how many there are and are in use; size, reclaimable: bytes.
    """

    kind: str
    total: int
    active: int
    size: int
    reclaimable: int
    items: tuple[DiskItem, ...] = ()


@dataclass(frozen=True)
class Problem:
    """What ``verify`` found: ``kind`` is blob, image, name, layer, cache or lease; ``what`` one line with what to do about it; ``path``
    where.
    """

    kind: str
    what: str
    path: str
    repaired: bool = False


class Pruned(list[str]):
    """Lines that say what was removed; ``reclaimed``: bytes."""

    def __init__(self, lines: Iterable[str] = (), reclaimed: int = 0) -> None:
        super().__init__(lines)
        self.reclaimed = reclaimed

    def __reduce__(self) -> tuple[type[Pruned], tuple[list[str], int]]:
        return Pruned, (list(self), self.reclaimed)


class Session(Protocol):
    """A client's end of a process in a container. ``exit`` is None until the end, and stays None where nobody could say.

    ``over``: it has ended; a session that is left before is detached from, the process goes on. ``tty``: it has a terminal.
    """

    tty: bool
    over: bool
    exit: dict[str, Any] | None

    def stream(self) -> Iterator[tuple[str, bytes]]:
        """Everything that comes until the end: (``stdout`` or ``stderr``, bytes)."""
        ...

    def sources(self) -> list[int]:
        """Descriptors to poll, for who waits for other things as well; what is readable goes to :meth:`receive`."""
        ...

    def receive(self, fd: int) -> list[tuple[str, bytes]]: ...

    def sink(self) -> int:
        """Where input goes, to be polled for writing before :meth:`offer`; -1 where none is taken."""
        ...

    def offer(self, data: bytes) -> int:
        """Give input without waiting: how many bytes were taken."""
        ...

    def feed(self, data: bytes) -> None:
        """Give input, and wait until all of it was taken: for who need not read output meanwhile."""
        ...

    def end_input(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    def close(self) -> None: ...


def exit_of(session: Session) -> ExitStatus:
    """How the process of a session that is over has ended."""
    if session.exit is None:
        return ExitStatus(code=None, error="its supervisor was killed: its exit code is unknown")
    return ExitStatus(**session.exit)


Drive = Callable[[Session], None]
"""Whoever sits at a session: passes on input and output until it is over, or returns before to detach."""


@dataclass(frozen=True)
class LogPart:
    """A stretch of a container's log: its lines, and where it begins and ends in the whole (bytes)."""

    lines: tuple[LogLine, ...]
    start: int
    end: int


class Watch(Protocol):
    """Looks again and again at what there is, for who shows it: what has not changed is not read anew. For one thread at a time."""

    def stirred(self) -> bool:
        """Whether something may have happened since this was last asked. Cheap enough to be asked several times a second."""
        ...

    def containers(self) -> list[ContainerInfo]:
        """All of them, newest first. What has not changed is the same object as the last time."""
        ...

    def images(self) -> list[ImageInfo]: ...

    def samples(self, container: str) -> Sequence[Any]:
        """What was recorded since this was last asked of it, oldest first; the first time, the newest 120. ``container`` is a full id."""
        ...

    def log(self, container: str, after: int | None = None, before: int | None = None) -> LogPart:
        """The last lines of its log (up to 64 KiB); of what lies ``before`` or ``after`` a place in it, the last or the first ones.

        :raises NotFound: it was removed.
        """
        ...


class Engine(Protocol):
    """The verbs of an engine. Containers and images are named by name, full id, or unambiguous start of an id.

    Every method raises a :class:`pycontainers.errors.ContainersError` and leaves nothing behind when it does.
    """

    name: str

    def create(self, config: ContainerConfig) -> ContainerInfo: ...

    def start(self, container: str) -> ContainerInfo: ...

    def start_attached(self, container: str, feed: bool = False, size: tuple[int, int] | None = None) -> Session:
        """Start, with its output from the first byte on; ``feed``: the session gives the input; ``size``: (rows, columns) of a terminal."""
        ...

    def run(
        self,
        config: ContainerConfig,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        drive: Drive | None = None,
        size: tuple[int, int] | None = None,
    ) -> tuple[ContainerInfo, ExitStatus]:
        """Create, start, stream until the end. KeyboardInterrupt stops the container, then goes on.

        With ``drive`` that is who passes input and output on; if it returns before the end the container runs on (code 0).
        """
        ...

    def attach(self, container: str, feed: bool = False) -> Session:
        """Output from now on, and with ``feed`` its input."""
        ...

    def exec(
        self,
        container: str,
        config: ExecConfig,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        drive: Drive | None = None,
        size: tuple[int, int] | None = None,
    ) -> ExitStatus: ...

    def exec_detached(self, container: str, config: ExecConfig) -> None: ...

    def stop(self, container: str, timeout: float | None = None, signal: str = "") -> ContainerInfo:
        """``timeout``: seconds until SIGKILL, None for the container's own (10 where it has none); ``signal`` instead of its own."""
        ...

    def kill(self, container: str, signal: str = "SIGKILL") -> ContainerInfo: ...

    def pause(self, container: str) -> ContainerInfo: ...

    def unpause(self, container: str) -> ContainerInfo: ...

    def rename(self, container: str, name: str) -> ContainerInfo: ...

    def update(self, container: str, resources: Resources | None = None, restart: RestartPolicy | None = None) -> ContainerInfo:
        """Limits that are None stay as they are. They hold at once, and for every later start."""
        ...

    def wait(self, container: str, timeout: float | None = None) -> ExitStatus: ...

    def top(self, container: str, options: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
        """(titles, rows) of its processes as this machine sees them; ``options`` are those of ps(1)."""
        ...

    def namespaces(self, container: str = "") -> Spaces:
        """The namespaces of a running container and what is visible through each; "": those of this machine, as this process sees it."""
        ...

    def events(self, since: float = 0.0, until: float = 0.0, follow: bool = False) -> Iterator[dict[str, Any]]:
        """What happened, in the form of Docker's event messages; unix seconds."""
        ...

    def remove(self, container: str, force: bool = False) -> None: ...

    def containers(self, all: bool = False) -> list[ContainerInfo]: ...

    def find(self, container: str) -> ContainerInfo: ...

    def oci(self, container: str) -> dict[str, Any]: ...

    def logs(
        self, container: str, follow: bool = False, tail: int | None = None, since: float = 0.0, until: float = 0.0
    ) -> Iterator[LogLine]: ...

    def samples(self, container: str, after: float | None = None) -> Sequence[Any]:
        """The recorded samples (:class:`pycontainers.metrics.sample.Sample`), oldest first, also after exit.

        :param after: only those behind the one of this time (unix seconds): what a view that has seen it asks for, which is cheap.
        """
        ...

    def watch(self) -> Watch:
        """For who looks at everything once a second."""
        ...

    def copy_out(
        self, container: str, source: str, target: str | BinaryIO, *, archive: bool = False, follow: bool = False
    ) -> Work[int]:
        """Copy a file or folder of a container to a path of this machine (Docker's rules), or as a tar into a file object.

        :param archive: keep owners, set-user-id bits, all attributes and devices; otherwise the files are the caller's.
        :param follow: where ``source`` is a link, copy what it leads to.
        :returns: bytes of regular files.
        """
        ...

    def copy_in(self, container: str, source: str | BinaryIO, target: str, *, archive: bool = False, follow: bool = False) -> Work[int]:
        """Copy a file or folder of this machine, or a tar (plain, gzip, bzip2, xz) from a file object, into a container.

        Files are root's inside unless ``archive``; what a tar says about owners holds. The container need not run.
        """
        ...

    def diff(self, container: str) -> list[Change]:
        """What the container has changed in its root file system, sorted by path."""
        ...

    def export(self, container: str, output: BinaryIO) -> Work[int]:
        """Write its root file system as a tar, without what is mounted over it (volumes, /proc, /sys, /dev)."""
        ...

    def commit(self, container: str, request: CommitRequest) -> Work[ImageInfo]:
        """Make an image of what the container has written, and of its settings. The container goes on."""
        ...

    def build(self, request: BuildRequest) -> Work[ImageInfo]: ...

    def bootstrap(self, request: BootstrapRequest) -> Work[ImageInfo]:
        """Make an image of a Debian or Ubuntu system from its packages, without a registry."""
        ...

    def explore(self, image: str) -> Contents:
        """What each of its layers adds, changes and removes, and what it carries in vain."""
        ...

    def images(self) -> list[ImageInfo]: ...

    def image(self, name: str) -> ImageInfo: ...

    def tag(self, image: str, name: str) -> None: ...

    def remove_image(self, name: str, force: bool = False) -> list[str]:
        """Untag, and delete when nothing names it any more. Returns lines that say what was done."""
        ...

    def image_history(self, name: str) -> list[ImageHistory]: ...

    def prune(self) -> Pruned: ...

    def prune_builds(self, all: bool = False, keep_bytes: int | None = None, until: float = 0.0) -> Pruned:
        """Remove what only the build cache keeps: finished steps' layers that no image has, and cache mounts; nothing that a build uses.

        :param all: also forget the steps whose layers an image has. :param keep_bytes: what was used longest ago goes first, until no more
            than this is left. :param until: unix seconds; what was used later stays, 0 for no such limit.
        """
        ...

    def pull(self, name: str, platform: str = "", all_tags: bool = False) -> Work[list[ImageInfo]]:
        """Get an image from its registry. ``platform``: ``linux/arm64``, "" for this machine's.

        :raises NotFound: the registry has none. :raises NetworkError: it cannot be reached.
        """
        ...

    def push(self, name: str, all_tags: bool = False, compression: str = "", include_host: bool = False) -> Work[list[str]]:
        """Put an image into its registry; returns the digest of each tag.

        :param compression: gzip or zstd; "" keeps layers as they came, and takes gzip for those made here.
        :param include_host: make an image on ``host`` whole, with this machine's system as layers of its own.
        """
        ...

    def save(
        self,
        names: Sequence[str],
        output: str | BinaryIO,
        format: str = "docker-archive",
        include_host: bool = False,
        compression: str = "",
    ) -> Work[int]:
        """Write images to a file: ``docker-archive``, ``oci-archive``, or the folder ``oci-dir``. Returns the bytes written."""
        ...

    def load(self, source: str | BinaryIO, platform: str = "") -> Work[list[ImageInfo]]:
        """Images of any archive (told by its content), or of an OCI layout's folder."""
        ...

    def import_image(
        self, source: str | BinaryIO, name: str = "", changes: Sequence[str] = (), message: str = "", platform: str = ""
    ) -> Work[ImageInfo]:
        """A root file system (tar, plain or compressed, or a folder) as an image of one layer."""
        ...

    def export_image(self, name: str, output: BinaryIO, compression: str = "") -> Work[int]:
        """An image's root file system as one tar (``gzip`` or ``zstd``: compressed). Returns the bytes written."""
        ...

    def export_folder(self, name: str, folder: str) -> Work[int]:
        """An image's root file system into a folder, made if it is missing: files there are replaced, others stay.

        Everything belongs to the caller, without set-user-id bits; devices are left out, and said. Returns bytes of regular files.
        """
        ...

    def tags(self, repository: str) -> list[str]: ...

    def login(self, registry: str, user: str, password: str) -> str:
        """Check the credentials with the registry and keep them; one line that says where."""
        ...

    def logout(self, registry: str) -> str: ...

    def delete_remote(self, name: str) -> str:
        """Delete an image in its registry; returns its digest."""
        ...

    def system_df(self) -> list[DiskUsage]: ...

    def verify(self, repair: bool = False) -> Work[list[Problem]]:
        """Look at everything in the image store: digests, records, and each layer against its tar; with ``repair`` put it right."""
        ...

    def doctor(self) -> list[Check]: ...
