"""The part of a container's mounts that is made outside, by the supervisor, which is root on the host.

It works in a mount namespace of its own, so nothing of it ever shows on the host and all of it is gone with the processes.
What it makes are *detached* mounts (descriptors), which the child places by ``move_mount``: the child, root only in its own
user namespace, may neither ID-map an ext4 nor reach the host's folders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from ..errors import IsolationError
from ..linux import capabilities, idmap, mounts, namespaces, syscalls
from ..linux.mount_options import Options
from . import defaults

#: Layers of an overlay are given as one option string, which mount(2) limits to a page.
_OPTION_LIMIT = 4095
#: file system -> the namespace that it shows
_OWNED = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
_DEVICE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
PROPAGATION = {
    prefix + word: (flag, bool(prefix))
    for word, flag in (
        ("private", mounts.MS_PRIVATE),
        ("slave", mounts.MS_SLAVE),
        ("shared", mounts.MS_SHARED),
        ("unbindable", mounts.MS_UNBINDABLE),
    )
    for prefix in ("", "r")
}


class Device:
    """A device node: ``format`` (stat.S_IFCHR …), ``number`` (as st_rdev), who may use it. ``fd``: the host's own, to be bound, or -1."""

    __slots__ = ("fd", "format", "gid", "mode", "number", "path", "uid")

    def __init__(self, asked: dict[str, Any]) -> None:
        self.path = os.path.normpath(asked["path"])
        if asked["type"] not in _DEVICE_TYPES:
            raise IsolationError(f"linux.devices: {self.path} is of type {asked['type']!r}", f"one of {', '.join(_DEVICE_TYPES)}")
        self.format = _DEVICE_TYPES[asked["type"]]
        self.number = os.makedev(asked.get("major", 0), asked.get("minor", 0)) if asked["type"] != "p" else 0
        self.mode = 0o666 if asked.get("fileMode") is None else asked["fileMode"]
        self.uid, self.gid = asked.get("uid") or 0, asked.get("gid") or 0
        self.fd = -1

    def make(self, folder: int, name: str) -> bool:
        """mknod in ``folder``. False where that is refused (a device cgroup further out): the host's own has to do."""
        before = os.umask(0)
        try:
            os.mknod(name, self.format | self.mode, self.number, dir_fd=folder)
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=folder, follow_symlinks=False)
        except PermissionError:
            return False
        except FileExistsError:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_IFMT(found.st_mode) != self.format or found.st_rdev != self.number:
                raise IsolationError(f"linux.devices: {self.path} is something else in the image", "remove it from the image") from None
        finally:
            os.umask(before)
        return True


class Outside:
    """Detached mounts for one container.

    :ivar root: the whole root file system (every overlay in its place), as one detached tree.
    :ivar binds: index into the spec's ``mounts`` -> descriptor. :ivar cgroups: name under /sys/fs/cgroup -> the container's own folder
        there, where no cgroup namespace would show it. :ivar devices: every node of the container.
    """

    def __init__(self) -> None:
        self.root = -1
        self.binds: dict[int, int] = {}
        self.cgroups: dict[str, int] = {}
        self.devices: list[Device] = []

    def close(self) -> None:
        for fd in (self.root, *self.binds.values(), *self.cgroups.values(), *(device.fd for device in self.devices)):
            if fd >= 0:
                os.close(fd)
        self.root, self.binds, self.cgroups, self.devices = -1, {}, {}, []


def early_binds(spec: dict[str, Any]) -> dict[int, int]:
    """Binds that are to share what is mounted later with the host: taken before :func:`private_mounts`, after which they only receive."""
    return {index: _open_source(mount, Options(mount.get("options") or [])) for index, mount in shared_binds(spec)}


def shared_binds(spec: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Index and mount of each bind that is to share what is mounted later with the host."""
    found = [(index, mount) for index, mount in enumerate(spec.get("mounts") or []) if "shared" in "".join(mount.get("options") or [])]
    return [(i, m) for i, m in found if Options(m["options"]).propagation == mounts.MS_SHARED and _is_bind(m)]


def private_mounts(stage: str) -> None:
    """Enter a mount namespace of one's own, with an empty tmpfs at ``stage`` to build on.

    Propagation is slave, not private: what the host unmounts later is unmounted here too, and does not stay busy.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
    mounts.mount("tmpfs", stage, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=700,size=1m")


def prepare(
    spec: dict[str, Any],
    roots: dict[str, Any],
    stage: str,
    userns: int | None,
    early: dict[int, int] | None = None,
    cgroups: dict[str, str] | None = None,
) -> Outside:
    """Make every detached mount that the container needs, but for :func:`devices`. Called after :func:`private_mounts`.

    :param roots: ``container.json``'s description (docs/architecture.md, Contracts), or ``{"path": folder}``. ``volatile``: what is written
        there need not outlast a power cut; without it the kernel writes out the *whole* file system below when an overlay is unmounted.
    :param userns: user namespace whose ID map the mounts get, None for mounts that show owners as they are on disk.
    :param early: :func:`early_binds`. :param cgroups: name -> the container's own cgroup folder, for :attr:`Outside.cgroups`.
    :raises IsolationError: naming the mount and what the kernel said.
    """
    made = Outside()
    made.binds.update(early or {})
    try:
        made.root = _folder(spec, roots["path"]) if "path" in roots else _root(spec, roots, stage, userns)
        linux = spec["linux"]
        kinds = {n["type"]: n.get("path") or "" for n in linux["namespaces"]}
        for index, mount in enumerate(spec.get("mounts") or []):
            shows = _OWNED.get(mount.get("type") or "")
            if shows and _is_anothers(kinds, shows):
                made.binds[index] = _bind_own(mount)
            elif _is_bind(mount):
                made.binds[index] = _bind(mount, linux, userns, made.binds.get(index))
        if "cgroup" not in kinds:
            made.cgroups = {name: mounts.open_tree(folder) for name, folder in (cgroups or {}).items()}
        return made
    except BaseException:
        made.close()
        raise


def devices(linux: dict[str, Any], stage: str) -> list[Device]:
    """The nodes that every container has, and those of ``linux.devices``. In a user namespace, where mknod is refused, both are bound."""
    mapped = any(namespace["type"] == "user" for namespace in linux["namespaces"])
    always = [{"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor} for name, (major, minor) in defaults.DEVICES.items()]
    asked = {device.path: device for device in map(Device, linux.get("devices") or [])}
    nodes = {device.path: device for device in map(Device, always)} | asked
    if mapped and asked:
        _made_outside(list(asked.values()), linux, stage)
    for device in nodes.values():
        if mapped and device.fd < 0:
            try:
                device.fd = mounts.open_tree(device.path)
            except OSError as error:
                why = f"linux.devices: {device.path} of this machine cannot be bound: {error.strerror}"
                raise IsolationError(why, "in a user namespace no node can be made") from None
    return list(nodes.values())


def _made_outside(devices: list[Device], linux: dict[str, Any], stage: str) -> None:
    """Nodes of our own, of the container's users: the host's would be nobody's inside. Left to the host's where we may not make any."""
    users, groups = ([(m["containerID"], m["hostID"], m["size"]) for m in linux.get(kind) or []] for kind in ("uidMappings", "gidMappings"))
    place = f"{stage}/d"
    os.mkdir(place)
    folder = mounts.new_mount("tmpfs", [("mode", "755"), ("size", "64k")], mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC)
    mounts.move_mount(folder, place)
    try:
        for index, device in enumerate(devices):
            owners = device.uid, device.gid
            try:
                device.uid, device.gid = idmap.outside(users, device.uid), idmap.outside(groups, device.gid)
            except KeyError:
                continue  # it belongs to nobody of the container
            if device.make(folder, str(index)):
                device.fd = mounts.open_tree(f"{place}/{index}")
            device.uid, device.gid = owners
    finally:
        os.close(folder)


def _folder(spec: dict[str, Any], path: str) -> int:
    """A plain folder as the root, with what is mounted below it."""
    try:
        tree = mounts.open_tree(path, recursive=True)
    except OSError as error:
        raise IsolationError(f"root.path {path}: {error.strerror}", "a folder with a root file system") from None
    wanted = spec["linux"].get("rootfsPropagation") or "rprivate"
    if wanted not in PROPAGATION:
        raise IsolationError(f"linux.rootfsPropagation {wanted!r} does not exist", f"one of {', '.join(PROPAGATION)}")
    if PROPAGATION[wanted][0] not in (mounts.MS_SLAVE, mounts.MS_SHARED):  # those go on receiving what the host mounts there
        mounts.set_attributes(tree, propagation=mounts.MS_PRIVATE, recursive=True)
    return tree


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
    try:
        tree = mounts.open_tree(path)
    except OSError as error:
        if error.errno != errno.EINVAL or idmap.initial():
            raise
        # What is mounted below is locked to it in a user namespace (mount_namespaces(7)), and overlayfs takes no folder with such mounts.
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            below = [line.split()[4] for line in file if line.split()[4].startswith(path.rstrip("/") + "/")]
        raise IsolationError(
            f"{path} cannot be part of a container: this machine has {below[0] if below else 'something'} mounted below it",
            "an ordinary user cannot leave that out: unmount it, use an image of its own, or start Jupyter as root",
        ) from None
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
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work},{overlay_attributes()}"
    if rootfs.get("volatile"):
        options += ",volatile"
    if len(options) > _OPTION_LIMIT:
        raise IsolationError(
            f"an image of {len(rootfs['layers'])} layers needs {len(options)} bytes of overlay options, the kernel takes {_OPTION_LIMIT}",
            "join steps of the Dockerfile (RUN a && b) so that it has fewer layers",
        )
    return options


def overlay_attributes() -> str:
    """redirect_dir and metacopy would make the upper folder meaningless on its own: it becomes a layer. In a user namespace
    overlayfs keeps its marks in ``user.*`` (``trusted.*`` belongs to the first one; without it removing a lower folder is EIO) and
    has neither, but for redirect_dir=off, which it takes for a wish to follow old ones and refuses.
    """
    return "redirect_dir=off,metacopy=off,index=off" if idmap.initial() else "index=off,userxattr"


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


def _is_bind(mount: dict[str, Any]) -> bool:
    return mount.get("type") == "bind" or not {"bind", "rbind"}.isdisjoint(mount.get("options") or ())


def _open_source(mount: dict[str, Any], options: Options) -> int:
    parts = mount["source"].split("/")
    try:
        if parts[:2] == ["", "proc"] and parts[3:4] == ["root"] and parts[2].isdigit():
            return _open_elsewhere(parts[2], "/" + "/".join(parts[4:]), options.recursive)
        return mounts.open_tree(mount["source"], recursive=options.recursive)
    except OSError as error:
        why = f"cannot bind {mount['source']}: {error.strerror}"
        raise IsolationError(why, "the source of a bind must exist on this machine") from error


def _open_elsewhere(pid: str, path: str, recursive: bool) -> int:
    """A mount of another mount namespace: open_tree(2) copies those of the caller's own alone, so it is entered for that one call."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(theirs, namespaces.CLONE_NEWNS)
        try:
            return mounts.open_tree(path, recursive=recursive)
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNS)
            os.chdir("/")
    finally:
        os.close(own)
        os.close(theirs)


def _bind(mount: dict[str, Any], linux: dict[str, Any], userns: int | None, tree: int | None) -> int:
    options = Options(mount.get("options") or [])
    if tree is None:
        tree = _open_source(mount, options)
    try:
        if options.idmap or mount.get("uidMappings"):
            _map_owners(tree, mount, options, linux, userns)
        options.apply(tree)
        # A volume must not carry the container's mounts back to the host, nor the host's later ones in, unless that is asked for.
        options.apply_propagation(tree, mounts.MS_PRIVATE)
        return tree
    except OSError as error:
        os.close(tree)
        raise _cannot_map(mount["source"], error) from error


def _map_owners(tree: int, mount: dict[str, Any], options: Options, linux: dict[str, Any], userns: int | None) -> None:
    """By the mount's own map, else by the container's, of which ``userns`` is a namespace kept ready."""
    kept = userns if not mount.get("uidMappings") else None
    own = mount if mount.get("uidMappings") else linux
    if kept is None:
        maps = [[(m["containerID"], m["hostID"], m["size"]) for m in own.get(kind) or []] for kind in ("uidMappings", "gidMappings")]
        if not all(maps):
            raise IsolationError(f"mounts: {mount['destination']} is to be ID-mapped and has no map", "give it uidMappings and gidMappings")
        userns = idmap.namespace_with(maps[0], maps[1])
    try:
        mounts.set_attributes(tree, userns=userns, recursive=options.idmap == "ridmap")
    finally:
        if kept is None and userns is not None:
            os.close(userns)


def _cannot_map(source: str, error: OSError) -> IsolationError:
    if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM):
        return IsolationError(
            f"the file system of {source}, or one mounted below it, cannot map owners ({error.strerror})",
            "bind a folder on ext4, xfs or btrfs, or run with --userns host",
        )
    return IsolationError(f"cannot bind {source}: {error}", "")
