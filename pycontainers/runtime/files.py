"""The worker that reads and writes a container's files: ``cp`` and ``export``.

Forked by the launcher for one client. It enters the container's own user and mount namespace, or, where the container does not run,
mounts its root as a start would; then it makes that its root. So owners, mounts, volumes and what is read-only are what the
container sees, no link leads out of it (CVE-2018-15664), and the process that could follow one is nobody outside.

What this module imports is loaded before anything is entered; afterwards nothing is (CVE-2019-14271). The launcher imports it only in
the forked child: an archive's code is of no use to supervisors, which are forks too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import stat
import sys
import time
from typing import Any

from ..errors import ContainersError, NotFound, StateError
from ..images import unpack
from ..images.pack import Packer
from ..linux import idmap, mounts, namespaces, process, sockets, syscalls
from . import rootfs, state

_WAIT = 10.0  # seconds for a container that is about to start or to end
_LINKS = 40  # as the kernel (ELOOP)
_OVERLAY = 0x794C7630
#: f_type (statfs(2)) of what holds no files to copy: proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf
_KERNEL = {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11}


def main(home: str, run: str, container: str, purpose: str, conn: socket.socket, userns: int | None) -> None:
    """Serve one client until it closes the connection. Never raises; whatever was entered, mounted or locked goes with the process.

    ``purpose``: ``copy`` (what the container sees) or ``export`` (its root file system alone).
    """
    try:
        os.setsid()
        os.umask(0)
        idmap.set_groups([])  # before anything is entered: whether they can be set at all is asked of this machine's /proc
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a descriptor for each level of a tree
        folder = f"{home}/containers/{container}"
        worker = Worker(home, folder, f"{run}/stage", userns)
        worker.enter(export=purpose == "export")
        sockets.send(conn, {"ready": True})
        while True:
            message, fds = sockets.receive(conn)
            if message is None:
                return
            try:
                sockets.send(conn, worker.do(message, fds))
            except (ContainersError, OSError) as error:
                sockets.reply_error(conn, _told(error))
            finally:
                sockets.close_all(fds)
    except BaseException as error:
        sockets.reply_error(conn, error)


class Worker:
    """One container's files, once :meth:`enter` has returned."""

    def __init__(self, home: str, folder: str, stage: str, userns: int | None) -> None:
        self.home, self.folder, self.stage, self.userns = home, folder, stage, userns
        self.name = os.path.basename(folder)[:12]
        self.root = -1
        self.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.others: dict[str, int] = {}
        self.dev = -1  # st_dev of its /dev

    # -- into the container

    def enter(self, export: bool) -> None:
        """:raises StateError: it is being started, ended or removed, and does not come to rest."""
        deadline = time.monotonic() + _WAIT
        while True:
            spec, now = state.read(self.folder, "config.json"), state.read(self.folder, "state.json")
            record = state.read(self.folder, "container.json")
            if spec is None or record is None:
                raise NotFound(f"no container {self.name}", "it was removed meanwhile")
            if now and now["status"] in (state.RUNNING, state.PAUSED) and self._join(spec, record, now, export):
                break
            if state.lock(self.folder) is not None:  # kept open until this process ends: nobody starts what is mounted here
                self._mount(spec, record, export)
                break
            if time.monotonic() > deadline:
                raise StateError(f"container {self.name} is being worked on by another command", "try again")
            time.sleep(0.005)
        if spec["linux"].get("uidMappings"):
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # an id change may have made us dumpable again
        os.fchdir(self.root)
        os.chroot(".")
        sys.meta_path.clear()  # from here on an import would run the container's code: it fails instead (CVE-2019-14271)
        try:
            self.dev = os.stat("/dev", follow_symlinks=False).st_dev
        except OSError:
            pass
        if self.dev == os.fstat(self.root).st_dev:
            self.dev = -1

    def _join(self, spec: dict[str, Any], record: dict[str, Any], now: dict[str, Any], export: bool) -> bool:
        """The namespaces of the first process; False when it has just ended."""
        pidfd = process.open_pidfd(now["init"]) if now.get("init") else None
        if pidfd is None:
            return False
        try:
            self.root = os.open(f"/proc/{now['init']['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            user = namespaces.CLONE_NEWUSER if spec["linux"].get("uidMappings") else 0
            if export:
                # Copies of the overlays alone can only be made by who owns the mount namespace and stands in it.
                namespaces.setns(pidfd, namespaces.CLONE_NEWNS)
                os.fchdir(self.root)
                self._overlays_alone(record["rootfs"]["folders"])
                if user:
                    namespaces.setns(pidfd, user)
            else:
                # All at once through the pidfd: user first decides rights (setns(2)).
                namespaces.setns(pidfd, user | namespaces.CLONE_NEWNS)
        except (ProcessLookupError, FileNotFoundError):
            return False
        finally:
            os.close(pidfd)
        return True

    def _overlays_alone(self, folders: list[str]) -> None:
        """What is mounted over the root stays out, and what lies below it is seen: as in an image."""
        self.root = mounts.open_tree(".")
        for place in folders:
            if place == "/":
                continue
            try:
                found = mounts.open_in_root(os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), place)
            except OSError:
                continue
            if file_system(found) == _OVERLAY:  # else a volume lies over the whole of it
                self.others[place.lstrip("/")] = mounts.open_tree("", at=found)
            os.close(found)

    def _mount(self, spec: dict[str, Any], record: dict[str, Any], export: bool) -> None:
        """As a start does it: the overlays, and for ``copy`` the volumes and files that are bound over them."""
        rootfs.private_mounts(self.stage)
        wanted = [m for m in spec["mounts"] if m["type"] == "bind" and not _below_kernel(m["destination"])]
        made = rootfs.prepare(spec | {"mounts": [] if export else wanted}, record["rootfs"] | {"home": self.home}, self.stage, self.userns)
        os.mkdir(f"{self.stage}/r")
        mounts.move_mount(made.root, f"{self.stage}/r")
        points: list[str] = []
        for index, tree in made.binds.items():
            folder = stat.S_ISDIR(os.fstat(tree).st_mode)
            with rootfs.as_mapped_root(spec, self.userns):
                place = mounts.make_in_root(made.root, wanted[index]["destination"], directory=folder, made=points)
            mounts.move_mount(tree, place)
        if points:
            state.add_made(self.folder, points)
        if spec["root"].get("readonly"):
            for place in record["rootfs"]["folders"]:
                mounts.set_attributes(mounts.open_in_root(made.root, place), mounts.MOUNT_ATTR_RDONLY)
        self.root = made.root
        if self.userns is not None:
            namespaces.setns(self.userns, namespaces.CLONE_NEWUSER)

    # -- what a client asks

    def do(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        if message["op"] == "stat":
            return self._stat(message["path"])
        if message["op"] == "pack":
            return self._pack(message, fds[0])
        if message["op"] == "unpack":
            return self._unpack(message, fds[0])
        packer = Packer(self.others)
        return _sent(packer, packer.content(self.root), fds[0])

    def _stat(self, path: str) -> dict[str, Any]:
        """``kind`` of what is at ``path`` (folder, file, link, special; "" nothing); ``real`` and ``real_kind`` where it is a link: the
        path that it leads to, and what is there."""
        kind, _ = self._kind(path, follow=False)
        real_kind, real = self._kind(path, follow=True) if kind == "link" else (kind, path)
        return {"kind": kind, "real_kind": real_kind, "real": real}

    def _kind(self, path: str, follow: bool) -> tuple[str, str]:
        try:
            parent, name, real = self._locate(path, follow)
        except (FileNotFoundError, NotADirectoryError):
            return "", path
        try:
            return _kind(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode), real
        except (FileNotFoundError, NotADirectoryError):
            return "", real
        finally:
            os.close(parent)

    def _pack(self, message: dict[str, Any], fd: int) -> dict[str, Any]:
        path = message["path"]
        parent, name, _ = self._locate(path, message["follow"])
        packer = Packer(empty=self._is_kernel)
        is_folder = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)  # missing: an error, not an empty archive
        if not is_folder:
            self._refuse_kernel(parent, path)
            return _sent(packer, packer.item(parent, name, message["name"]), fd)
        folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        self._refuse_kernel(folder, path)
        return _sent(packer, packer.item(folder, ".", message["name"]) if message["name"] else packer.content(folder), fd)

    def _unpack(self, message: dict[str, Any], fd: int) -> dict[str, Any]:
        folder = self._folder(message["path"], os.O_RDONLY)
        self._refuse_kernel(folder, message["path"])
        if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
            what = "container rootfs" if file_system(folder) == _OVERLAY else "mounted volume"
            raise StateError(f"{what} is marked read-only: nothing can be copied to {message['path']}", "")
        unpacker = unpack.Unpacker(
            folder, proc=self.proc, name=message["name"], resolve=unpack.IN_ROOT if message["links"] else unpack.BENEATH,
            owners=message["owners"], all=True, devices=True,
        )  # fmt: skip
        with os.fdopen(os.dup(fd), "rb", 1 << 16) as file:
            for _ in unpacker.extract(file):
                pass
        return {"bytes": unpacker.bytes, "notes": unpacker.notes[:20]}

    def _locate(self, path: str, follow: bool) -> tuple[int, str, str]:
        """The folder of the entry at ``path`` (a descriptor), its name there (``.``: the folder itself), and the path that is meant."""
        for _ in range(_LINKS):
            folder, _, name = path.rstrip("/").rpartition("/")
            if name in ("", ".", "..") or path.endswith("/"):  # a slash at the end asks for a folder, and follows (path_resolution(7))
                return self._folder(path), ".", path
            parent = self._folder(folder)
            if not follow:
                return parent, name, path
            try:
                target = os.readlink(name, dir_fd=parent)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    os.close(parent)
                    raise
                return parent, name, path
            os.close(parent)
            path = target if target.startswith("/") else f"{folder}/{target}"
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def _folder(self, path: str, flags: int = os.O_PATH) -> int:
        """The root is ours, so links stay inside. (RESOLVE_IN_ROOT gives up on a ``..`` while anybody renames: a way to keep us out.)"""
        return mounts.openat2(self.root, path.lstrip("/") or ".", flags | os.O_DIRECTORY, unpack.IN_ROOT)

    def _is_kernel(self, folder: int) -> bool:
        return file_system(folder) in _KERNEL or os.fstat(folder).st_dev == self.dev

    def _refuse_kernel(self, folder: int, path: str) -> None:
        if self._is_kernel(folder):
            raise StateError(f"{path} is the kernel's or a device's, not a file to copy", "read or write it inside: exec CONTAINER COMMAND")


def _sent(packer: Packer, pieces: Any, fd: int) -> dict[str, Any]:
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
    except BrokenPipeError:
        pass  # the client has had enough, and knows why
    return {"bytes": packer.bytes, "notes": [f"{packer.closed} files of this machine are not readable and left out"] * bool(packer.closed)}


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "special")


def _below_kernel(path: str) -> bool:
    return any(path == top or path.startswith(top + "/") for top in ("/proc", "/sys", "/dev"))


def file_system(fd: int) -> int:
    """f_type of struct statfs (statfs(2)): its first word."""
    buffer = (ctypes.c_long * 32)()
    if syscalls.libc.fstatfs(fd, ctypes.byref(buffer)) < 0:
        raise syscalls.fail("fstatfs")
    return int(buffer[0])


def _told(error: ContainersError | OSError) -> ContainersError:
    if isinstance(error, ContainersError):
        return error
    what = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    return ContainersError(f"{error.strerror or error}{what}", "")
