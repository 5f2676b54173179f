"""The words of an OCI mount's ``options`` (runtime-spec, config.md "Linux mount options"; mount(8)): what each asks of the kernel."""

from __future__ import annotations

from . import mounts
from .mounts import (
    MOUNT_ATTR_ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
)

#: word -> (bits to set, bits to clear). A way of atime replaces the other two (mount_setattr(2)); relatime is no bit at all.
_ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "atime": (0, MOUNT_ATTR_ATIME),
    "relatime": (0, MOUNT_ATTR_ATIME),
    "norelatime": (0, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MOUNT_ATTR_ATIME),
}
_PROPAGATION = {
    "private": mounts.MS_PRIVATE,
    "slave": mounts.MS_SLAVE,
    "shared": mounts.MS_SHARED,
    "unbindable": mounts.MS_UNBINDABLE,
}
#: Flags of the superblock that fsconfig(2) takes by name (fs/fs_context.c, common_set_sb_flag and common_clear_sb_flag)
_SUPERBLOCK = {"sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"}
#: Nothing to do: what is so already, and words for mount(8) or the kernel's own use
_NOTHING = {"defaults", "remount", "silent", "loud", "acl", "noacl", "iversion", "noiversion"}

#: Every word that is understood here rather than handed to the file system (for ``features``)
WORDS = sorted(
    {"bind", "rbind", "tmpcopyup", "idmap", "ridmap"}
    | set(_ATTRIBUTES)
    | {f"r{word}" for word in _ATTRIBUTES}
    | set(_PROPAGATION)
    | {f"r{word}" for word in _PROPAGATION}
    | _SUPERBLOCK
    | _NOTHING
)


class Options:
    """Parsed options of one mount.

    ``set``, ``clear``: MOUNT_ATTR bits of the mount itself; ``set_below``, ``clear_below``: of it and all below (words with r).
    ``propagation``: MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE or 0 where nothing is said; with ``propagation_below``.
    ``bind``; ``recursive``: rbind. ``copy_up``: tmpcopyup. ``idmap``: "", "idmap" or "ridmap". ``data``: for the file system.
    """

    __slots__ = (
        "bind",
        "clear",
        "clear_below",
        "copy_up",
        "data",
        "idmap",
        "propagation",
        "propagation_below",
        "recursive",
        "set",
        "set_below",
    )

    def __init__(self, words: list[str]) -> None:
        self.set = self.clear = self.set_below = self.clear_below = self.propagation = 0
        self.bind = self.recursive = self.copy_up = self.propagation_below = False
        self.idmap = ""
        self.data: list[tuple[str, str]] = []
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        below = word[1:] if word.startswith("r") else ""
        if word in _ATTRIBUTES:
            on, off = _ATTRIBUTES[word]
            self.set, self.clear = self.set & ~off | on, self.clear & ~on | off
        elif below in _ATTRIBUTES:
            on, off = _ATTRIBUTES[below]
            self.set_below, self.clear_below = self.set_below & ~off | on, self.clear_below & ~on | off
        elif word in _PROPAGATION or below in _PROPAGATION:
            self.propagation = _PROPAGATION.get(word) or _PROPAGATION[below]
            self.propagation_below = word not in _PROPAGATION
        elif word in ("bind", "rbind"):
            self.bind, self.recursive = True, word == "rbind"
        elif word == "tmpcopyup":
            self.copy_up = True
        elif word in ("idmap", "ridmap"):
            self.idmap = word
        elif word not in _NOTHING:
            key, _, value = word.partition("=")
            self.data.append((key, value))

    def apply(self, tree: int) -> None:
        """Set all attributes on a mount that exists (a bind). First what holds for all below, then what the top alone has.

        :raises OSError: EPERM for a bit that is locked by a user namespace further up (mount_namespaces(7)).
        """
        if self.set_below or self.clear_below:
            _set(tree, self.set_below, self.clear_below, True)
        if self.set or self.clear:
            _set(tree, self.set, self.clear, False)

    def apply_propagation(self, tree: int, default: int = 0) -> None:
        wanted = self.propagation or default
        if wanted:
            mounts.set_attributes(tree, propagation=wanted, recursive=self.propagation_below or not self.propagation)


def _set(tree: int, on: int, off: int, recursive: bool) -> None:
    # A way of atime is one value of three: the mask is cleared as a whole (EINVAL otherwise).
    if on & MOUNT_ATTR_ATIME:
        off |= MOUNT_ATTR_ATIME
    mounts.set_attributes(tree, on, clear=off, recursive=recursive)
