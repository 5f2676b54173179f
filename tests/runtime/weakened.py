"""The launcher with protections taken out, by name, for tests that first show that an attack is real.

A test that says "this fails here" proves little by itself: the attack may be mistyped. So each attack is run twice: against this
launcher, started for a run folder of its own and lacking the protection that the attack is about, where it must succeed; and
against the real one. Run as ``python -I -S weakened.py PACKAGE HOME RUN NAME...``; each function here takes one protection out.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


def replace(module: Any, name: str, new: Any) -> None:
    """Patch what exists: a protection that was renamed must not leave a test that weakens nothing."""
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__}.{name} is gone: the weakened launcher no longer takes it out")
    setattr(module, name, new)


def nothing() -> None:
    """The real one, as a process of its own."""


def read_only_interpreter() -> None:
    """An ordinary user's launcher is executed anew by its own path (a launcher of root is started by the client: see the test)."""
    from pycontainers.linux import executable

    replace(executable, "guarded", lambda program, environment: (program, -1))


# -- names and paths


def link_check() -> None:
    """/proc, /sys and /dev may be links of the image."""
    from pycontainers.runtime import inside

    replace(inside, "_refuse_link", lambda root, target: None)


def exact_paths() -> None:
    """A path to be masked or frozen that leads through a link is passed over."""
    from pycontainers.runtime import inside

    original = inside._open_exact

    def passed_over(path: str) -> int | None:
        try:
            return original(path)
        except Exception:
            return None

    replace(inside, "_open_exact", passed_over)


def volumes_in_proc() -> None:
    """Volumes may be mounted inside /proc."""
    from pycontainers.runtime import inside

    replace(inside, "PROC_SUPER_MAGIC", -1)


def redirected_sysctls() -> None:
    """A sysctl is written to whatever lies at its path."""
    from pycontainers.runtime import inside

    replace(inside, "open_sysctl", lambda key: os.open("/proc/sys/" + key.replace(".", "/"), os.O_WRONLY | os.O_CLOEXEC))


def resolution_in_root() -> None:
    """Mount points are made the old way: each folder is looked at, then made by its path, which follows what lies there by then.

    And no first process is made ahead: such a one has nothing of the machine's left that a path could lead to.
    """
    from pycontainers.linux import mounts
    from pycontainers.runtime import pattern

    replace(pattern, "of", lambda spec: None)

    def make_in_root(root: int, path: str, *, directory: bool, mode: int = 0o755, made: list[str] | None = None) -> int:
        place = f"/proc/self/fd/{root}"
        parts = path.strip("/").split("/")
        for index, part in enumerate(parts):
            place += "/" + part
            if os.path.islink(place):
                raise OSError(40, "mount point goes through a link")
            if not os.path.lexists(place):
                if directory or index < len(parts) - 1:
                    os.makedirs(place, mode, exist_ok=True)
                else:
                    os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
        return os.open(place, os.O_PATH | os.O_CLOEXEC)

    replace(mounts, "make_in_root", make_in_root)


def own_root_of_others() -> None:
    """What lies in another container's root is looked for by a path of the host."""
    from pycontainers.linux import mounts
    from pycontainers.runtime import rootfs

    replace(rootfs, "_open_elsewhere", lambda pid, path, recursive: mounts.open_tree(f"/proc/{pid}/root{path}", recursive=recursive))


def null_check() -> None:
    """What covers a masked file is whatever /dev/null leads to."""
    from pycontainers.linux import mounts
    from pycontainers.runtime import inside

    def mask(path: str) -> None:
        place = inside._open_exact(path)
        if place is not None and not os.path.isdir(path):
            mounts.move_mount(mounts.open_tree("/dev/null"), place)

    replace(inside, "mask", mask)


def console_by_descriptor() -> None:
    """The console is bound from the path of the container's terminal, as runc did; the terminal itself is one of the host's."""
    from pycontainers.linux import mounts, pty
    from pycontainers.runtime import inside

    master, terminal = os.openpty()

    def bind_console(terminal: int) -> None:
        os.close(os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        mounts.move_mount(mounts.open_tree("/dev/pts/0"), os.open("/dev/console", os.O_PATH | os.O_CLOEXEC))

    replace(pty, "open_inside", lambda *arguments: (os.dup(master), os.dup(terminal)))
    replace(inside, "bind_console", bind_console)


# -- descriptors and working directories


def leak() -> None:
    """Not a protection but the bug behind CVE-2024-21626: all that we fork holds the host's root folder open, as descriptor 99."""
    os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), 99, inheritable=True)


def closed_descriptors() -> None:
    """Descriptors stay open up to, and over, execve."""
    from pycontainers.runtime import exec, init

    replace(init, "only_descriptor", lambda fd: fd)
    replace(exec, "only_descriptors", lambda fds, preserved: fds)


def reachable_directory() -> None:
    """The working directory is entered without a look at where it leads."""
    from pycontainers.runtime import confine

    replace(confine, "enter_cwd", os.chdir)


# -- credentials and visibility


def not_dumpable() -> None:
    """Our processes inside can be looked into."""
    from pycontainers.linux import syscalls
    from pycontainers.runtime import confine

    execve = confine._exec

    def dumpable(*arguments: Any) -> None:
        syscalls.libc.prctl(syscalls.PR_SET_DUMPABLE, 1, 0, 0, 0)
        execve(*arguments)

    replace(confine, "_exec", dumpable)


def slow() -> None:
    """Not a protection: the time between the last step and execve, long enough for anybody to look."""
    import time

    from pycontainers.runtime import confine

    execve = confine._exec

    def late(*arguments: Any) -> None:
        time.sleep(0.3)
        execve(*arguments)

    replace(confine, "_exec", late)


def no_inheritable() -> None:
    """Capabilities are inheritable as well as permitted (CVE-2022-27650)."""
    from pycontainers.linux import capabilities
    from pycontainers.runtime import confine

    original = capabilities.set_caps

    def set_caps(effective: int, permitted: int, inheritable: int = 0) -> None:
        try:
            original(effective, permitted, permitted)
        except PermissionError:  # more than the bounding set: an earlier step than the last one
            original(effective, permitted, inheritable)

    replace(confine.capabilities, "set_caps", set_caps)


def bounded_capabilities() -> None:
    """The container keeps every capability."""
    from pycontainers.linux import capabilities
    from pycontainers.runtime import confine

    original = confine.Confinement.__init__

    def init(self: Any, process: dict[str, Any], program: bytes | None) -> None:
        original(self, process, program)
        self.bounding = self.effective = self.permitted = capabilities.permitted_mask()

    replace(confine.Confinement, "__init__", init)


def filter() -> None:
    """No system call is filtered."""
    from pycontainers.runtime import launcher

    replace(launcher.Launcher, "_program", lambda self, *rest: None)


# -- what is read from an image


def parsed_passwd() -> None:
    """Users are looked up by the C library, whose name service loads modules that the image names (CVE-2019-14271)."""
    import pwd

    from pycontainers.runtime import users

    def resolve(spec: str, *rest: Any) -> tuple[int, int, list[int], str]:
        try:
            found = pwd.getpwnam(spec or "root")
        except KeyError:
            return 0, 0, [], "/"
        return found.pw_uid, found.pw_gid, [], found.pw_dir

    replace(users, "resolve", resolve)


def loaded_codecs() -> None:
    """A codec is looked up after the image's root was entered: Python imports it from there."""
    from pycontainers.runtime import users

    original = users.read_in_root

    def read(path: str) -> str:
        with contextlib.suppress(LookupError):
            b"x".decode("cp037")
        return original(path)

    resolve = users.resolve
    replace(users, "resolve", lambda spec, *rest: resolve(spec, read))


# -- mounts


def read_only_cgroups() -> None:
    """The container's cgroups are mounted writable."""
    from pycontainers.linux import mounts
    from pycontainers.runtime import inside

    original = inside.Builder._cgroup
    new_mount = mounts.new_mount

    def cgroup(self: Any, *rest: Any) -> None:
        mounts.new_mount = lambda kind, options, bits=0, source="": new_mount(kind, options, bits & ~mounts.MOUNT_ATTR_RDONLY, source)
        try:
            original(self, *rest)
        finally:
            mounts.new_mount = new_mount

    replace(inside.Builder, "_cgroup", cgroup)


def nodev() -> None:
    """Device nodes of an image's layers open."""
    from pycontainers.linux import mounts

    replace(mounts, "MS_NODEV", 0)


def masks() -> None:
    """Nothing is masked or made read-only."""
    from pycontainers.runtime import inside

    replace(inside, "mask", lambda path: None)
    replace(inside, "freeze", lambda path: None)


# -- copies


def copies_inside() -> None:
    """Files are copied from outside of the container, by paths that are looked at first, as Docker did (CVE-2018-15664)."""
    import time

    from pycontainers.images import unpack
    from pycontainers.linux import mounts
    from pycontainers.runtime import files, state

    def enter(self: Any, export: bool) -> None:
        self.root = os.open(f"/proc/{(state.read(self.folder, 'state.json') or {})['init']['pid']}/root", os.O_PATH | os.O_DIRECTORY)

    def open_in_root(root: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
        place = f"/proc/self/fd/{root}"
        for part in path.strip("/").split("/"):
            place += "/" + part
            if os.path.islink(place):
                raise OSError(40, "goes through a link")
        time.sleep(0.001)
        return os.open(place, flags, mode)

    replace(files.Worker, "enter", enter)
    replace(mounts, "open_in_root", open_in_root)
    replace(unpack, "BENEATH", 0)


# -- sockets


def peer_check() -> None:
    """Whoever reaches a socket of ours is served."""
    from pycontainers.linux import sockets

    replace(sockets, "peer_uid", lambda sock: 0)


def socket_by_path() -> None:
    """The launcher listens under an abstract name as well, as containerd's shims did."""
    import socket

    from pycontainers.runtime import launcher

    original = launcher.Launcher.run

    def run(self: Any) -> None:
        second = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        second.bind("\0" + self.path)
        second.listen()
        self.watch(second.fileno(), lambda: self.greet(second.accept()[0]))
        original(self)

    replace(launcher.Launcher, "run", run)


def main() -> None:
    package, home, run, *names = sys.argv[1:]
    sys.path.insert(0, package)
    from pycontainers.runtime import launcher, rootless

    for name in names:
        globals()[name]()
    if os.geteuid() == 0:
        launcher.main(home, run)
        return
    # An ordinary user's launcher enters his namespaces first, where it is root, and is then executed anew.
    replace(rootless, "launcher_argv", lambda *arguments: [sys.executable, "-I", "-S", *sys.argv])
    rootless.main(home, run)


if __name__ == "__main__":
    main()
