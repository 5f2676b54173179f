"""The part of a container's mounts that is made outside, by the supervisor, which is root on the host.

It works in a mount namespace of its own, so nothing of it ever shows on the host and all of it is gone with the processes.
What it makes are *detached* mounts (descriptors), which the child places by ``move_mount``: the child, root only in its own
user namespace, may neither ID-map an ext4 nor reach the host's folders.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

from ..errors import IsolationError
from ..linux import capabilities, mounts, namespaces, syscalls
from ..linux.mount_options import Options
from . import defaults

#: Layers of an overlay are given as one option string, which mount(2) limits to a page.
_OPTION_LIMIT = 4095
#: file system -> the namespace that it shows
_OWNED = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}


class Outside:
    """Detached mounts for one container.

    :ivar root: the whole root file system (every overlay in its place), as one detached tree.
    :ivar binds: index into the spec's ``mounts`` -> descriptor.
    :ivar devices: device name -> descriptor.
    """

    def __init__(self) -> None:
        self.root = -1
        self.binds: dict[int, int] = {}
        self.devices: dict[str, int] = {}

    def close(self) -> None:
        for fd in (self.root, *self.binds.values(), *self.devices.values()):
            if fd >= 0:
                os.close(fd)
        self.root, self.binds, self.devices = -1, {}, {}


def private_mounts(stage: str) -> None:
    """Enter a mount namespace of one's own, with an empty tmpfs at ``stage`` to build on.

    Propagation is slave, not private: what the host unmounts later is unmounted here too, and does not stay busy.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
    mounts.mount("tmpfs", stage, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=700,size=1m")


def prepare(spec: dict[str, Any], rootfs: dict[str, Any], stage: str, userns: int | None) -> Outside:
    """Make every detached mount that the container needs. Called after :func:`private_mounts`.

    :param rootfs: ``container.json``'s description (docs/architecture.md, Contracts).
    :param userns: user namespace whose ID map the mounts get, None for a container without one.
    :raises IsolationError: naming the mount and what the kernel said.
    """
    made = Outside()
    try:
        made.root = _root(spec, rootfs, stage, userns)
        kinds = {n["type"]: n.get("path") or "" for n in spec["linux"]["namespaces"]}
        for index, mount in enumerate(spec["mounts"]):
            if mount.get("type") in _OWNED and _is_anothers(kinds, _OWNED[mount["type"]]):
                made.binds[index] = _bind_own(mount)
            elif mount.get("type") == "bind" or {"bind", "rbind"} & set(mount.get("options") or ()):
                made.binds[index] = _bind(mount, userns)
        for name in defaults.DEVICES:
            made.devices[name] = mounts.open_tree(f"/dev/{name}")
        return made
    except BaseException:
        made.close()
        raise


def _root(spec: dict[str, Any], rootfs: dict[str, Any], stage: str, userns: int | None) -> int:
    """All overlays, one in the other, as one detached tree."""
    home = rootfs["home"]
    store = _mapped(home, f"{stage}/s", userns)
    os.chdir(stage)  # short relative names: the option string holds a page
    try:
        for index, folder in enumerate(rootfs["folders"]):
            options = _overlay_options(rootfs, index, folder, home, userns)
            target = f"m{index}"
            os.mkdir(target)
            _mount_overlay(target, options, spec, userns)
            if index:
                tree = mounts.open_tree(target)
                root = os.open("m0", os.O_PATH | os.O_CLOEXEC)
                place = mounts.make_in_root(root, folder, directory=True)
                mounts.move_mount(tree, place)
                for fd in (tree, root, place):
                    os.close(fd)
        return mounts.open_tree("m0", recursive=True)
    finally:
        os.chdir("/")
        os.close(store)


def _mapped(path: str, place: str, userns: int | None) -> int:
    """A copy of the mount at ``path``, ID-mapped, at ``place``. Not recursive: what is mounted below stays outside."""
    tree = mounts.open_tree(path)
    if userns is not None:
        mounts.set_attributes(tree, userns=userns)
    os.mkdir(place)
    mounts.move_mount(tree, place)
    return tree


def _overlay_options(rootfs: dict[str, Any], index: int, folder: str, home: str, userns: int | None) -> str:
    inside = "" if folder == "/" else folder
    lower = []
    for layer in reversed(rootfs["layers"]):
        path = layer + inside
        if folder == "/" or _is_folder(path):
            lower.append("s" + path.removeprefix(home))
    base = rootfs["base"].get(folder)
    if base and base.startswith(home + "/"):
        lower.append("s" + base.removeprefix(home))
    elif base:
        os.close(_mapped(base, f"b{index}", userns))
        lower.append(f"b{index}")
    upper = f"s{rootfs['upper'].removeprefix(home)}/{index}"
    work = f"s{rootfs['work'].removeprefix(home)}/{index}"
    # redirect_dir and metacopy would make the upper folder meaningless on its own: it becomes a layer.
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off"
    if len(options) > _OPTION_LIMIT:
        raise IsolationError(
            f"an image of {len(rootfs['layers'])} layers needs {len(options)} bytes of overlay options, the kernel takes {_OPTION_LIMIT}",
            "join steps of the Dockerfile (RUN a && b) so that it has fewer layers",
        )
    return options


def _is_folder(path: str) -> bool:
    try:
        return os.path.isdir(path) and not os.path.islink(path)
    except OSError:
        return False


def _mount_overlay(target: str, options: str, spec: dict[str, Any], userns: int | None) -> None:
    """Mount as the mapped root where there is a map.

    overlayfs keeps the mounter's credentials for its work in the upper layer. Under an ID map uid 0 has no place there, and the
    overlay would silently come up read-only: so fsuid and fsgid become the mapped root for this one call. setfsuid(2) drops the
    file-access capabilities from the effective set, and they are needed: they are raised again.

    Device nodes in it do not open: a layer may hold the host's disk, for anybody to read. Nobody inside could make a node that
    would, but for the host's own root with CAP_MKNOD, who asked for it.
    """
    bounding = spec["process"].get("capabilities", {}).get("bounding") or []
    flags = 0 if userns is None and "CAP_MKNOD" in bounding else mounts.MS_NODEV
    with as_mapped_root(spec, userns):
        mounts.mount("overlay", target, "overlay", flags, options)


@contextlib.contextmanager
def as_mapped_root(spec: dict[str, Any], userns: int | None) -> Iterator[None]:
    """Have the container's root as fsuid and fsgid: what is made under an ID map by anybody else is EOVERFLOW."""
    if userns is None:
        yield
        return
    uid, gid = (spec["linux"][kind][0]["hostID"] for kind in ("uidMappings", "gidMappings"))
    permitted = capabilities.permitted_mask()
    syscalls.setfsid(uid, gid)
    try:
        capabilities.set_caps(permitted, permitted)
        yield
    finally:
        syscalls.setfsid(0, 0)
        capabilities.set_caps(permitted, permitted)


def _is_anothers(kinds: dict[str, str], kind: str) -> bool:
    """A namespace that the container's user namespace does not own: what shows it can be mounted by its owner alone (EPERM)."""
    return "user" in kinds and (kind not in kinds or (bool(kinds[kind]) and not kinds["user"]))


def _bind_own(mount: dict[str, Any]) -> int:
    """The host's own mount of a file system, in place of a new one, with the same attributes."""
    options = Options(mount.get("options") or [])
    place = {"proc": "/proc", "sysfs": "/sys", "mqueue": "/dev/mqueue"}[mount["type"]]
    try:
        tree = mounts.open_tree(place)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise IsolationError(f"cannot bind {place}: {error.strerror}", "") from error
        tree = mounts.open_tree(place, recursive=True)  # in a user namespace what is mounted below cannot be left out
    mounts.set_attributes(tree, options.set, recursive=True)
    mounts.set_attributes(tree, propagation=mounts.MS_PRIVATE, recursive=True)
    return tree


def _bind(mount: dict[str, Any], userns: int | None) -> int:
    source, options = mount["source"], Options(mount.get("options") or [])
    try:
        tree = mounts.open_tree(source, recursive=options.recursive)
    except OSError as error:
        raise IsolationError(f"cannot bind {source}: {error.strerror}", "the source of a bind must exist on this machine") from error
    try:
        if userns is not None and options.idmap:
            mounts.set_attributes(tree, userns=userns, recursive=options.idmap == "ridmap")
        options.apply(tree)
        # A volume must not carry the container's mounts back to the host, nor the host's later ones in, unless that is asked for.
        options.apply_propagation(tree, mounts.MS_PRIVATE)
        return tree
    except OSError as error:
        os.close(tree)
        raise _cannot_map(source, error) from error


def _cannot_map(source: str, error: OSError) -> IsolationError:
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return IsolationError(
            f"the file system of {source}, or one mounted below it, cannot map owners ({error.strerror})",
            "bind a folder on ext4, xfs or btrfs, or run with --userns host",
        )
    return IsolationError(f"cannot bind {source}: {error}", "")
