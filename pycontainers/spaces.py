"""Namespaces as data: which a process is in, and what is visible through each. What they are for stands here too, in a sentence each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Lesson:
    """``title`` for people, ``text``: one sentence, ``page``: its manual page, ``options``: what changes it for a container."""

    title: str
    text: str
    page: str
    options: str

    @property
    def url(self) -> str:
        return f"https://man7.org/linux/man-pages/man7/{self.page}.7.html"


#: OCI type -> what it is, in the order in which they are shown
KINDS = {
    "pid": Lesson(
        "processes",
        "Processes are counted anew: the first is number 1, and those outside have no number inside, so they cannot even be named.",
        "pid_namespaces",
        "--pid host, --pid container:NAME",
    ),
    "mount": Lesson(
        "file systems",
        "A tree of mounts of its own: the image is its root, and a disk that is mounted outside does not appear inside.",
        "mount_namespaces",
        "-v and --mount put folders of this machine into it",
    ),
    "network": Lesson(
        "interfaces, ports",
        "Interfaces, addresses, routes, ports and firewall rules of its own: port 80 is free in each of them.",
        "network_namespaces",
        "--network none, host, or container:NAME",
    ),
    "user": Lesson(
        "ids and rights",
        "Ids are mapped: root inside is an ordinary id outside, and its capabilities hold for what this namespace owns.",
        "user_namespaces",
        "--userns host, --cap-add, --cap-drop",
    ),
    "uts": Lesson("host name", "A host name of its own.", "uts_namespaces", "--hostname, --uts host, --uts container:NAME"),
    "ipc": Lesson(
        "shared memory",
        "Shared memory, semaphores and message queues of its own: processes outside cannot open them by their key.",
        "ipc_namespaces",
        "--ipc shareable, host, or container:NAME; --shm-size",
    ),
    "cgroup": Lesson(
        "control group",
        "Its own control group looks like the root of all: what stands above it, and who else is there, is not seen.",
        "cgroup_namespaces",
        "--cgroupns host",
    ),
    "time": Lesson(
        "clocks",
        "The clocks that count since the machine's start may be shifted; the time of day is the same everywhere.",
        "time_namespaces",
        "",
    ),
}


@dataclass(frozen=True)
class Sight:
    """A table of what is visible. ``left``: how many rows more there are; ``note``: what it means, or why it cannot be seen."""

    title: str
    headers: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left: int = 0
    note: str = ""


@dataclass(frozen=True)
class Space:
    """One namespace. ``number``: its inode, by which the kernel tells namespaces apart (0: unknown).

    host: it is that of whoever asks (this machine's); shared: names of other running containers that are in it.
    """

    kind: str
    number: int
    host: bool
    shared: tuple[str, ...] = ()
    sights: tuple[Sight, ...] = ()


@dataclass(frozen=True)
class Spaces:
    """All namespaces of a container's first process, or of this process for this machine (``name`` is "" then)."""

    name: str
    pid: int
    kinds: dict[str, Space] = field(default_factory=dict)
