"""What this machine allows, measured: each probe does the thing in a forked child of the launcher and reports the errno.

The result is kept in the run folder for this boot. ``run`` refuses with the first blocker's name and remedy when something needed
is missing; what is weaker than usual becomes a note on the container, shown by ``ps`` and ``inspect``.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from ..linux import capabilities, cgroups, holder, idmap, mounts, namespaces, process, seccomp, syscalls, trees
from . import defaults, rootfs

NEEDED, WEAKER = "needed", "weaker"
GROUPS = "control groups"


class Probe:
    """One thing that is tried. ``level`` says what a refusal means: containers cannot run, or run weaker (``note`` says how)."""

    def __init__(self, name: str, level: str, run: Callable[[str], None], remedy: str, note: str = "") -> None:
        self.name, self.level, self.run, self.remedy, self.note = name, level, run, remedy, note


def _namespace(kind: str) -> Callable[[str], None]:
    def run(home: str) -> None:
        namespaces.unshare(namespaces.KINDS[kind][0])

    return run


def _maps() -> tuple[list[idmap.Mapping], list[idmap.Mapping]]:
    """The map of a container's user namespace: onto ids that nobody on the host has; for an ordinary user, who has no others, every
    id of his own namespace onto itself."""
    if idmap.initial():
        return [(0, defaults.HOST_ID_BASE, defaults.ID_COUNT)], [(0, defaults.HOST_ID_BASE, defaults.ID_COUNT)]
    return idmap.onto_itself(idmap.pieces("uid")), idmap.onto_itself(idmap.pieces("gid"))


def _user(home: str) -> None:
    os.close(idmap.namespace_with(*_maps()))


def _stage(home: str) -> None:
    """A mount namespace of our own with an empty tmpfs as working directory."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
    _empty()


def _empty() -> None:
    mounts.mount("tmpfs", "/tmp", "tmpfs", 0, "size=1m")
    os.chdir("/tmp")


def _mount(home: str) -> None:
    _stage(home)


def _attributes(home: str) -> None:
    _stage(home)
    tree = mounts.open_tree("/tmp")
    mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY)


def _overlay_folders(home: str, userns: int | None) -> None:
    """Lower, upper and work on the file system of the store, as containers have them."""
    base = f"{home}/.probe-{os.getpid()}"
    for name in ("", "/l", "/u", "/w"):
        os.mkdir(base + name)
    try:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
        tree = mounts.open_tree(base)  # before the tmpfs: the store may lie below /tmp
        _empty()
        if userns is not None:
            mounts.set_attributes(tree, userns=userns)
        os.mkdir("s")
        os.mkdir("m")
        mounts.move_mount(tree, "s")
        if userns is not None:
            permitted = capabilities.permitted_mask()
            syscalls.setfsid(defaults.HOST_ID_BASE, defaults.HOST_ID_BASE)
            capabilities.set_caps(permitted, permitted)
        mounts.mount("overlay", "m", "overlay", 0, f"lowerdir=s/l,upperdir=s/u,workdir=s/w,{rootfs.overlay_attributes()}")
        if userns is not None:
            syscalls.setfsid(0, 0)
        os.stat("m")
        os.chdir("/")
        mounts.umount("/tmp")
    finally:
        trees.remove(base)


def _overlay(home: str) -> None:
    _overlay_folders(home, None)


def _mapped_overlay(home: str) -> None:
    _overlay_folders(home, idmap.namespace_with(*_maps()))


def _pivot(home: str) -> None:
    _stage(home)
    os.mkdir("r")
    mounts.mount("tmpfs", "r", "tmpfs", 0, "size=1m")
    os.chdir("r")
    mounts.pivot_root_here()


def _proc(home: str) -> None:
    _fresh("proc", "pid")


def _sysfs(home: str) -> None:
    _fresh("sysfs", "network")


def _fresh(kind: str, namespace: str) -> None:
    """A new instance of a file system, in a user namespace that owns what it shows."""
    ready, go = os.pipe()
    pid = namespaces.clone(namespaces.flags_of(["user", "mount", namespace]))
    if pid == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            os.setresuid(0, 0, 0)
            os.close(mounts.new_mount(kind, []))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    idmap.write_maps(pid, *_maps())
    os.write(go, b"1")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def _not_chrooted(home: str) -> None:
    """A mount namespace joined anew shows its own root. Where that is not ours we are in a chroot: pivot_root would move the chroot's
    mount alone, and a container could leave it for the machine's real root (pivot_root(2), chroot(2)).
    """
    ours = os.stat("/")
    namespaces.unshare(namespaces.CLONE_NEWNS)
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd, namespaces.CLONE_NEWNS)
    found = os.stat("/")
    if (ours.st_dev, ours.st_ino) != (found.st_dev, found.st_ino):
        raise OSError(errno.EPERM, "this process runs in a chroot")


def _groups(home: str) -> None:
    """The launcher's own look: its client may be in another part of the tree."""
    where = cgroups.layout()
    if not where.writable:
        raise OSError(errno.EACCES, where.why)


def _seccomp(home: str) -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.load(seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))


_PRIVILEGE = "run as root with CAP_SYS_ADMIN: in Docker --privileged, in Kubernetes securityContext.privileged"
_UNMASK = "run where /proc is not masked (docker: --security-opt systempaths=unconfined)"
_STORE = "put the store on ext4, xfs or tmpfs with PYCONTAINERS_HOME"
PROBES = [
    Probe("mount namespace", NEEDED, _mount, _PRIVILEGE),
    Probe("own root", NEEDED, _not_chrooted, "start outside of the chroot, or enter it with pivot_root"),
    Probe("mount attributes (Linux 5.12)", NEEDED, _attributes, "a kernel of 5.12 or newer; under seccomp, allow mount_setattr"),
    Probe("pid namespace", NEEDED, _namespace("pid"), _PRIVILEGE),
    Probe("uts namespace", NEEDED, _namespace("uts"), _PRIVILEGE),
    Probe("ipc namespace", NEEDED, _namespace("ipc"), _PRIVILEGE),
    Probe("network namespace", NEEDED, _namespace("network"), _PRIVILEGE),
    Probe("overlay", NEEDED, _overlay, _STORE),
    Probe("pivot_root", NEEDED, _pivot, _PRIVILEGE),
    Probe("seccomp filter", NEEDED, _seccomp, "a kernel with CONFIG_SECCOMP_FILTER"),
]
#: Root's: what is missing of these lets containers go without a user namespace.
OF_ROOT = [
    Probe("user namespace", WEAKER, _user, "sysctl user.max_user_namespaces > 0", "no user namespace: root inside is root outside"),
    Probe(
        "ID-mapped overlay (Linux 5.19)",
        WEAKER,
        _mapped_overlay,
        "a kernel of 5.19 or newer and a store on ext4, xfs or btrfs",
        "no ID-mapped overlay: root inside is root outside",
    ),
    Probe("proc in a user namespace", WEAKER, _proc, _UNMASK, "proc cannot be mounted in a user namespace: root inside is root outside"),
]
#: An ordinary user's: a container has a user namespace of its own or does not run, since without one its root would reach the launcher.
OF_USER = [
    Probe("user namespace of a container", NEEDED, _user, "sysctl user.max_user_namespaces: two for each container"),
    Probe("fresh proc", WEAKER, _proc, _UNMASK, "the machine's own /proc is shown: processes outside are visible, and out of reach"),
    Probe("fresh sysfs", WEAKER, _sysfs, _UNMASK, "the machine's own /sys is shown, read-only"),
    Probe(GROUPS, WEAKER, _groups, "docs/cgroups.md: Without root"),  # the container says itself what it lacks
]
ALWAYS = [
    Probe(
        "cgroup namespace",
        WEAKER,
        _namespace("cgroup"),
        "a kernel of 4.6 or newer",
        "no cgroup namespace: the container sees its cgroup's path",
    ),
    Probe(
        "time namespace",
        WEAKER,
        _namespace("time"),
        "a kernel of 5.6 or newer with CONFIG_TIME_NS",
        "no time namespace: uptime inside is the host's",
    ),
]


def probes() -> list[Probe]:
    return [*PROBES, *(OF_ROOT if idmap.initial() else OF_USER), *ALWAYS]


def probe(home: str) -> list[dict[str, Any]]:
    """Run every probe in a child of its own (forks this process: only for the launcher). [{name, level, errno, why, remedy, note}]."""
    return [_run(what, home) for what in probes()]


def _run(what: Probe, home: str) -> dict[str, Any]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        answer: tuple[int, str] = (0, "")
        try:
            what.run(home)
        except OSError as error:
            answer = (error.errno or errno.EIO, str(error.strerror))
        except BaseException as error:
            answer = (errno.EIO, f"{type(error).__name__}: {error}")
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    number, why = json.loads(data) if data else (errno.EIO, "the probe was killed")
    if number:
        why = f"{errno.errorcode.get(number, number)}: {why}"
    return {"name": what.name, "level": what.level, "errno": number, "why": why, "remedy": what.remedy, "note": what.note}


def stamp(run: str) -> str:
    """What a kept result holds for: this boot, in this user namespace with these capabilities; without root, in that of this holder."""
    held = holder.read(run)
    where = f"{os.readlink('/proc/self/ns/user')}/{capabilities.permitted_mask():x}" if held is None else holder.name(held)
    return f"6/{process.boot_id()}/{where}"
