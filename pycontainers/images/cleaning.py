"""What makes a bootstrapped system an image: nothing of this machine or this run in it, and set up as containers want it.

The same is done to Docker's Debian images, under the same file names.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..linux import trees

if TYPE_CHECKING:  # that one speaks HTTP, which takes longer to import than a build takes
    from .suites import Distribution, Release

_REMOVED = """
etc/.pwd.lock etc/passwd- etc/group- etc/shadow- etc/gshadow- etc/apt/sources.list etc/apt/apt.conf.d/99mmdebstrap
var/log/dpkg.log var/log/alternatives.log var/log/bootstrap.log var/log/fontconfig.log
var/cache/ldconfig/aux-cache var/cache/debconf/config.dat-old var/cache/debconf/templates.dat-old var/lib/dbus/machine-id
var/lib/dpkg/status-old var/lib/dpkg/available-old var/lib/dpkg/diversions-old var/lib/dpkg/statoverride-old
var/lib/dpkg/lock var/lib/dpkg/lock-frontend var/lib/dpkg/triggers/Lock
""".split()
_DPKG = """\
# What is unpacked in a container is made anew after a power cut, not recovered.
force-unsafe-io
"""
_APT = """\
# Downloaded packages and indexes would only make the image larger.
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Apt::AutoRemove::SuggestsImportant "false";
"""


def clean(tree: str, distribution: Distribution, found: list[Release]) -> None:
    """Remove what is this machine's or this run's alone, and set up what every container wants."""
    folder = _Folder(tree)
    for path in ("dev", "run", "tmp", "var/tmp", "var/cache/apt", "var/lib/apt/lists", "var/log/apt"):
        folder.empty(path, keep=("lock",) if path == "run" else ("archives",) if path == "var/cache/apt" else ())
    for path in _REMOVED:
        folder.remove(path)
    for path in ("etc/hostname", "etc/resolv.conf", "etc/machine-id"):
        folder.write(path, b"", 0o644)  # the runtime mounts its own there
    for path in ("var/log/lastlog", "var/log/faillog", "var/log/wtmp", "var/log/btmp"):
        folder.truncate(path)
    if folder.is_folder("etc/apt/sources.list.d"):
        folder.write(f"etc/apt/sources.list.d/{distribution.name}.sources", _sources(distribution, found).encode(), 0o644)
        folder.write("etc/apt/apt.conf.d/docker-clean", _APT.encode(), 0o644)
    folder.write("etc/dpkg/dpkg.cfg.d/docker-apt-speedup", _DPKG.encode(), 0o644)
    # invoke-rc.d(8): 101 forbids it. A package that is installed while an image is built must not start its service.
    folder.write("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n", 0o755)


def _sources(distribution: Distribution, found: list[Release]) -> str:
    """The servers that everybody reaches, or those of --mirror: an image that is shipped names nothing of this machine."""
    parts = []
    for address in dict.fromkeys(release.official for release in found):
        names = " ".join(release.suite for release in found if release.official == address)
        parts.append(
            f"Types: deb\nURIs: {address}\nSuites: {names}\nComponents: {distribution.components}\nSigned-By: {distribution.keyring}\n"
        )
    return "\n".join(parts)


class _Folder:
    """Changes below one folder by descriptors: a link in it is never followed, whatever a package has made."""

    def __init__(self, root: str) -> None:
        self._root = root

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        *folders, name = path.split("/")
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in folders:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd, name
        finally:
            os.close(fd)

    def is_folder(self, path: str) -> bool:
        try:
            with self._parent(path) as (fd, name):
                return stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(path) as (fd, name):
            if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                trees.remove(f"/proc/self/fd/{fd}/{name}")
            else:
                os.unlink(name, dir_fd=fd)

    def empty(self, path: str, keep: tuple[str, ...] = ()) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(f"{path}/x") as (fd, _):
            for name in os.listdir(fd):
                if name not in keep:
                    self.remove(f"{path}/{name}")

    def truncate(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(path) as (fd, name):
            os.close(os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd))

    def write(self, path: str, data: bytes, mode: int) -> None:
        """Left out where its folder is missing."""
        self.remove(path)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self._parent(path) as (fd, name):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=fd)
            with os.fdopen(file, "wb") as out:
                os.fchmod(file, mode)
                out.write(data)


def clamp(tree: str, date: int) -> None:
    """No time is later than ``date`` (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    for _, folders, files, fd in os.fwalk(tree, topdown=False, follow_symlinks=False):
        for name in (*folders, *files):
            if os.lstat(name, dir_fd=fd).st_mtime > date:
                os.utime(name, (date, date), dir_fd=fd, follow_symlinks=False)
    os.utime(tree, (date, date))
