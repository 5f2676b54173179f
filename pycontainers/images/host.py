"""``host`` is an image: this machine's own system as a base, by an allowlist. What is not listed does not exist inside.

Listed are system folders (``/usr`` and what belongs to it), the notebook's interpreter with its packages wherever they lie, the package
manager's state, and a curated ``/etc``: copied file by file into a *skeleton*, only what everybody may read, without keys,
passwords and credentials. Homes, sockets, state and secrets are not there. A *mask* layer hides what may lie inside a listed prefix.

The list stands in :data:`SYSTEM`, :func:`listed` and :data:`.curated.ETC`; what is hidden in it in :data:`HIDDEN`, :data:`INSTALLED`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError
from ..linux import trees
from . import curated, durable, layers
from .view import Rootfs

FORMAT = 3
#: System folders. A merged /usr has the rest as links, which the skeleton repeats.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/var/lib/dpkg")
#: Names at the top of an interpreter's prefix that may hold tokens or passwords. Hidden whether they are there now or not: what is
#: put there later must not show either.
HIDDEN = """
.aws .azure .bash_history .cache .condarc .config .docker .env .envrc .git .git-credentials .gnupg .ipython .jupyter .kube .local .netrc
.npmrc .pypirc .python_history .ssh condarc condarc.d pip.conf pip.ini
""".split()
#: The same further down: only where the folder above is there, which the whiteout needs.
_HIDDEN_BELOW = ("etc/ipython", "etc/jupyter", "etc/pip.conf", "share/jupyter/runtime")
#: What an installation puts into a virtual environment. One made in a project's own folder has data and secrets beside these:
#: everything else is hidden there.
INSTALLED = ("bin", "include", "lib", "lib32", "lib64", "libexec", "man", "pyvenv.cfg", "sbin", "share")
_EMPTY = {
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "var/log": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/lib/apt": 0o755,
    "var/lib/apt/lists": 0o755,
    "var/lib/misc": 0o755,
    "var/local": 0o755,
    "var/mail": 0o755,
    "var/opt": 0o755,
    "var/spool": 0o755,
    "run": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "media": 0o755,
    "opt": 0o755,
    "srv": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "dev": 0o755,
    "etc": 0o755,
    "root": 0o700,
}
_FLAT = ("alternatives", "ssl/certs", "fonts", "bash_completion.d")


@dataclass(frozen=True)
class Base:
    """This machine as an image's base."""

    identity: str
    config: dict[str, Any]
    rootfs: Rootfs


@dataclass(frozen=True)
class Machine:
    """What is looked at; another root and interpreter in tests. ``sites``: folders of packages, wherever they lie."""

    root: str = ""
    prefixes: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()

    @staticmethod
    def this() -> Machine:
        found = [sys.prefix, sys.base_prefix, sys.exec_prefix, *_link_prefixes(sys.executable)]
        found += _link_prefixes(getattr(sys, "_base_executable", "") or sys.executable)
        # A prefix may be reached through a link (/opt/venv -> /data/venv): programs use both spellings.
        prefixes = [spelling for prefix in found for spelling in (os.path.abspath(prefix), os.path.realpath(prefix))]
        return Machine("", tuple(dict.fromkeys(prefixes)), _homes(), _sites())


def _link_prefixes(program: str) -> list[str]:
    """The prefix of each ``bin/python`` on the way from link to link (uv's and pyenv's links to links must not dangle inside)."""
    found = []
    for _ in range(40):
        folder = os.path.dirname(program)
        if os.path.basename(folder) == "bin":
            found.append(os.path.dirname(folder))
        if not os.path.islink(program):
            break
        program = os.path.join(folder, os.readlink(program))
    return found


def _sites() -> tuple[str, ...]:
    """Package folders of the interpreter that runs: its own, Debian's dist-packages, and the user's when it is in use."""
    import site

    folders = [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(os.path.abspath(folder) for folder in folders if folder in sys.path and os.path.isdir(folder))


def architecture() -> str:
    """This machine's architecture by its name in OCI images."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def base(store: str, machine: Machine | None = None) -> Base:
    """This machine's base; the skeleton is made at first use. Later calls cost a few stats.

    :raises ImageError: the store lies inside a listed folder (an overlay cannot have itself as its lower layer).
    """
    machine = machine or Machine.this()
    folders = listed(machine)
    for folder in folders:
        if f"{os.path.realpath(store)}/".startswith(os.path.realpath(machine.root + folder) + "/"):
            raise ImageError(f"the store {store} lies inside {folder}, which is part of the host image", "move it with PYCONTAINERS_HOME")
    identity, etc = _identity(store, machine, folders)
    place = f"{store}/host/{identity}"
    if not os.path.exists(f"{place}/base.json"):
        _make(store, place, machine, folders, etc or curated.etc(machine.root))
    return Base(identity, _config(machine, identity, place), rootfs(store, identity))


def rootfs(store: str, identity: str) -> Rootfs:
    """The root file system of an image on this identity. :raises ImageError: its skeleton is gone."""
    place = f"{store}/host/{identity}"
    try:
        with open(f"{place}/base.json", "rb") as file:
            below = json.loads(file.read())["base"]
    except (FileNotFoundError, ValueError):
        raise ImageError(f"the host base {identity[:12]} is gone", "build the image again: FROM host") from None
    layers_ = tuple(path for path in (f"{place}/folders", f"{place}/mask") if os.path.isdir(path))
    return Rootfs(layers_, ("/", *sorted(below)), {"/": f"{place}/skeleton", **below})


def listed(machine: Machine) -> list[str]:
    """The folders of the allowlist on this machine, without those inside another."""
    wanted = [path for path in SYSTEM if os.path.isdir(machine.root + path) and not os.path.islink(machine.root + path)]
    for prefix in machine.prefixes:
        wanted += _prefix_folders(machine, prefix)
    wanted += [folder for folder in machine.sites if os.path.isdir(machine.root + folder)]
    unique = sorted(set(wanted), key=lambda path: (path.count("/"), path))
    kept: list[str] = []
    for path in unique:
        if not any(path.startswith(outer + "/") for outer in kept):
            kept.append(path)
    return kept


def _prefix_folders(machine: Machine, prefix: str) -> list[str]:
    """A prefix wholesale; or, where other things live beside the installation, only what an installation puts there."""
    if not os.path.isdir(machine.root + prefix):
        return []
    if not _shared(machine, prefix):
        return [prefix]
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    parts = [f"{prefix.rstrip('/')}/{name}" for name in ("bin", f"lib/{version}", "include", f"share/{version}")]
    return [path for path in parts if os.path.isdir(machine.root + path)]


def _shared(machine: Machine, prefix: str) -> bool:
    """Whether ``prefix`` is or holds a home, or is a folder at the top of the system (``/opt``, ``/srv``)."""
    holds_home = any(f"{home}/".startswith(prefix.rstrip("/") + "/") for home in machine.homes)
    return holds_home or (prefix.count("/") < 2 and prefix != "/usr")


def _homes() -> tuple[str, ...]:
    import pwd

    people = [entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid >= 1000 or entry.pw_uid == 0]
    homes = [*people, os.environ.get("HOME", "")]
    # nobody's home and the like are "/" or do not exist: they are no homes that a prefix could hold.
    return tuple(dict.fromkeys(spelling for home in homes if home.strip("/") for spelling in (home.rstrip("/"), os.path.realpath(home))))


# -- identity


def _identity(store: str, machine: Machine, folders: list[str]) -> tuple[str, curated.Etc]:
    """Digest of what is installed: package manager, interpreter, its packages, and what of /etc comes along; and the latter.

    Reading all that takes some milliseconds; the answer is kept with the times of the files that it came from.
    """
    stamp = _stamp(machine, folders)
    kept = f"{store}/host/current-{hashlib.sha256(repr((machine.prefixes, folders)).encode()).hexdigest()[:16]}.json"
    try:
        with open(kept, "rb") as file:
            found = json.loads(file.read())
        if found["stamp"] == stamp:
            return str(found["identity"]), {}
    except (FileNotFoundError, ValueError, KeyError):
        pass
    durable.sweep(f"{store}/ingest")  # a machine that only runs containers never begins a layer: what a kill left goes here
    digest = hashlib.sha256(repr((FORMAT, sys.version, folders, machine.prefixes, curated.ETC)).encode())
    for path in _package_files(machine):
        with open(machine.root + path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    etc = curated.etc(machine.root)
    for path, content in etc.items():
        digest.update(path.encode(errors="surrogateescape"))
        digest.update(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
    digest.update(repr(sorted(_masked(machine, folders))).encode())
    for folder in _site_packages(machine):
        names = [name for name in sorted(os.listdir(machine.root + folder)) if name.endswith((".dist-info", ".egg-info"))]
        digest.update(repr((folder, names)).encode())
    identity = digest.hexdigest()[:32]
    durable.write(f"{store}/ingest", kept, json.dumps({"stamp": stamp, "identity": identity}).encode())
    return identity, etc


def _stamp(machine: Machine, folders: list[str]) -> str:
    """Digest of the times of everything that the identity is made from: a few hundred stats."""
    paths = [*_package_files(machine), *_site_packages(machine), "/", "/etc", "/etc/passwd", "/etc/group", "/usr/local", *machine.prefixes]
    for path in (*machine.prefixes, *folders):
        paths += [os.path.dirname(f"{path}/{name}") for name in _HIDDEN_BELOW]
    for name in curated.ETC:
        paths.append(f"/etc/{name}")
        if name in _FLAT:  # many links, none of them edited in place: the folder's own time tells
            continue
        for folder, _, names in os.walk(f"{machine.root}/etc/{name}"):
            inside = folder.removeprefix(machine.root)
            paths += [inside, *(f"{inside}/{entry}" for entry in names)]
    times = []
    for path in dict.fromkeys(paths):
        try:
            found = os.lstat(machine.root + path)
        except OSError:
            continue
        times.append((path, found.st_mtime_ns, found.st_ctime_ns, found.st_size))
    return hashlib.sha256(repr((FORMAT, sys.version, times)).encode()).hexdigest()


def _package_files(machine: Machine) -> list[str]:
    names = ("/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite", "/lib/apk/db/installed")
    return [name for name in names if os.path.isfile(machine.root + name)]


def _site_packages(machine: Machine) -> list[str]:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = [f"{prefix.rstrip('/')}/lib/{version}/site-packages" for prefix in machine.prefixes]
    return [path for path in dict.fromkeys([*found, *machine.sites]) if os.path.isdir(machine.root + path)]


# -- skeleton and mask


def _make(store: str, place: str, machine: Machine, folders: list[str], etc: curated.Etc) -> None:
    """Put the skeleton together aside, sync, and rename it: a reader sees a whole one or none; of two makers the first wins."""
    building = f"{store}/ingest/{durable.fresh_name()}"
    skeleton, mask = f"{building}/skeleton", f"{building}/mask"
    for folder, mode in ((building, 0o711), (skeleton, 0o755), (mask, 0o755)):
        durable.make_folder(folder, mode)
    try:
        for name, mode in _EMPTY.items():
            _folders(skeleton, name)
            os.chmod(f"{skeleton}/{name}", mode)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"{machine.root}/{name}"):
                os.symlink(os.readlink(f"{machine.root}/{name}"), f"{skeleton}/{name}")
        for name, target in (("var/run", "/run"), ("var/lock", "/run/lock"), ("etc/mtab", "/proc/self/mounts")):
            os.symlink(target, f"{skeleton}/{name}")
        for folder in folders:
            _mount_point(skeleton, folder)
        _copy_etc(machine, f"{skeleton}/etc", etc)
        _write_users(f"{skeleton}/etc", etc)
        _copy_venv_marks(machine, skeleton, folders)
        for path in _masked(machine, folders):
            _whiteout(mask, path, folders, machine, skeleton)
        if os.stat(machine.root or "/").st_uid != os.geteuid():
            durable.make_folder(f"{building}/folders", 0o755)
            for folder in folders:
                _folders(f"{building}/folders", os.path.dirname(folder))
                _copy_folders(machine.root + folder, f"{building}/folders{folder}", folder in _DATABASE)
        data = json.dumps({"base": {folder: machine.root + folder for folder in folders}}).encode()
        durable.write(f"{store}/ingest", f"{building}/base.json", data)
        durable.sync_file_system(building)
        try:
            os.rename(building, place)
            durable.sync_folder(f"{store}/host")
        except OSError:
            if not os.path.exists(f"{place}/base.json"):
                raise
    finally:
        trees.remove(building)


#: The package manager's own files, which it locks and replaces by way of a hard link: these come along as copies. Not what it keeps of
#: each package (info), which is much and which it only adds to.
_DATABASE = ("/var/lib/dpkg",)


def _copy_folders(source: str, target: str, files: bool = False) -> None:
    """The folders of a tree, without what is in them, as our own.

    An ordinary user's overlay cannot copy up what belongs to an id that his namespace does not have (EOVERFLOW), such as the machine's
    root; and making a file in a folder copies the folder up. overlayfs takes a folder's attributes from the newest layer that has it,
    and its content from all: with these in between, everything may be added, hidden and removed. Only a file that belongs to the
    machine cannot be changed in place. ``files``: copy those as well.
    """
    try:
        os.mkdir(target)
        entries = list(os.scandir(source))
    except OSError:
        return  # closed to us, or gone meanwhile
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _copy_folders(entry.path, f"{target}/{entry.name}", files and entry.name != "info")
        elif files and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):  # closed to us (locks are): an empty one will do
                open(f"{target}/{entry.name}", "xb").close()
                shutil.copy2(entry.path, f"{target}/{entry.name}")
    found = os.stat(source)
    os.chmod(target, stat.S_IMODE(found.st_mode) | 0o700)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def outdated(store: str, age: float) -> list[str]:
    """Identities of bases that no state of this machine has had for ``age`` seconds."""
    current, found = set(), []
    for entry in os.scandir(f"{store}/host"):
        if entry.name.startswith("current-"):
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError), open(entry.path, "rb") as file:
                current.add(json.loads(file.read())["identity"])
        elif time.time() - entry.stat().st_mtime > age:
            found.append(entry.name)
    return sorted(set(found) - current)


def _folders(root: str, path: str) -> str:
    """``root/path`` with its missing parents, 0755 whatever the umask."""
    current = root
    for part in path.strip("/").split("/"):
        current = f"{current}/{part}"
        if not os.path.isdir(current):
            durable.make_folder(current, 0o755)
    return current


def _mount_point(skeleton: str, folder: str) -> None:
    _folders(skeleton, folder)
    current = skeleton
    for part in folder.strip("/").split("/"):
        current = f"{current}/{part}"
        mode = stat.S_IMODE(os.stat(current).st_mode)
        if mode & 0o011 != 0o011:
            os.chmod(current, mode | 0o011)  # an interpreter inside /root must be reachable for every user; nothing else is in there


def _copy_etc(machine: Machine, target: str, etc: curated.Etc) -> None:
    for path, content in etc.items():
        if path in curated.USERS:
            continue
        name = path.removeprefix("/etc/")
        place = f"{_folders(target, os.path.dirname(name)) if '/' in name else target}/{os.path.basename(name)}"
        if isinstance(content, str):
            os.symlink(content, place)
            continue
        with open(place, "xb") as file:
            file.write(content)
        os.chmod(place, 0o755 if os.lstat(machine.root + path).st_mode & 0o111 else 0o644)
    if not os.path.lexists(f"{target}/localtime"):
        os.symlink("/usr/share/zoneinfo/Etc/UTC", f"{target}/localtime")


def _copy_venv_marks(machine: Machine, skeleton: str, folders: list[str]) -> None:
    """``pyvenv.cfg`` makes a virtual environment one: where a prefix is listed in parts, it comes along as a file."""
    for prefix in machine.prefixes:
        data = curated.content(machine.root, f"{prefix.rstrip('/')}/pyvenv.cfg")
        place = f"{skeleton}{prefix.rstrip('/')}/pyvenv.cfg"
        if isinstance(data, bytes) and _shared(machine, prefix) and os.path.isdir(os.path.dirname(place)) and not os.path.exists(place):
            with open(place, "xb") as file:
                file.write(data)
            os.chmod(place, 0o644)


def _write_users(target: str, etc: curated.Etc) -> None:
    """passwd and group with system accounts alone: no people, no password hashes, no full names."""
    rows = {"passwd": ["root:x:0:0:root:/root:/bin/sh"], "group": ["root:x:0:"]}
    for name, kept in rows.items():
        content = etc.get(f"/etc/{name}", b"")
        for line in (content if isinstance(content, bytes) else b"").decode("utf-8", "replace").splitlines():
            row = line.split(":")
            if len(row) < 4 or not row[2].isdigit() or not (0 < int(row[2]) < 1000 or row[0] in ("nobody", "nogroup")):
                continue
            kept.append(":".join([row[0], "x", row[2], row[3], "", *row[5:7]]) if name == "passwd" else f"{row[0]}:x:{row[2]}:")
        with open(f"{target}/{name}", "w", encoding="utf-8") as file:
            file.write("\n".join(kept) + "\n")
        os.chmod(f"{target}/{name}", 0o644)


def _masked(machine: Machine, folders: list[str]) -> list[str]:
    """Paths inside the listed folders that get a whiteout, none of them below another."""
    needed = (*machine.prefixes, *machine.sites)  # an environment may lie below a hidden name of another: /opt/conda/.envs/x
    wanted = {"/usr/local/etc"} if os.path.isdir(f"{machine.root}/usr/local") else set()
    for place in {*machine.prefixes, "/usr", "/usr/local", *folders}:
        source = machine.root + place
        if not os.path.isdir(source) or not any(place == folder or place.startswith(folder + "/") for folder in folders):
            continue
        names = {*HIDDEN, *(name for name in os.listdir(source) if name.startswith("."))}
        if os.path.isfile(f"{source}/pyvenv.cfg"):
            names |= set(os.listdir(source)) - set(INSTALLED)
        names |= {name for name in _HIDDEN_BELOW if _real_folder(source, os.path.dirname(name))}
        wanted |= {f"{place}/{name}" for name in names if not any(f"{p}/".startswith(f"{place}/{name}/") for p in needed)}
    kept: list[str] = []
    for path in sorted(wanted, key=lambda path: (path.count("/"), path)):
        if not any(path.startswith(outer + "/") for outer in kept):
            kept.append(path)
    return kept


def _real_folder(source: str, inside: str) -> bool:
    """A folder reached without a link: the mask's own parents would replace a link (``lib64 -> lib``) by a folder."""
    return os.path.isdir(f"{source}/{inside}") and os.path.realpath(f"{source}/{inside}") == f"{os.path.realpath(source)}/{inside}"


def _whiteout(mask: str, path: str, folders: list[str], machine: Machine, skeleton: str) -> None:
    """A whiteout device and its parents, each with the attributes of what it covers: the newest layer's are what is seen."""
    current, inside = mask, ""
    for part in path.strip("/").split("/")[:-1]:
        current, inside = f"{current}/{part}", f"{inside}/{part}"
        if not os.path.isdir(current):
            os.mkdir(current)
            listed_here = any(f"{inside}/".startswith(f"{folder}/") for folder in folders)
            layers.copy_attributes(os.stat((machine.root if listed_here else skeleton) + inside), current)
    os.mknod(f"{mask}{path}", stat.S_IFCHR | 0o000, 0)


def _config(machine: Machine, identity: str, place: str) -> dict[str, Any]:
    bins = [f"{prefix}/bin" for prefix in machine.prefixes if prefix not in ("/usr", "/") and os.path.isdir(f"{machine.root}{prefix}/bin")]
    path = ":".join(dict.fromkeys([*bins, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]))
    shell = "bash" if os.path.exists(f"{machine.root}/usr/bin/bash") or os.path.exists(f"{machine.root}/bin/bash") else "sh"
    return {
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Env": [f"PATH={path}", "LANG=C.UTF-8"],
            "Cmd": [shell],
            "WorkingDir": "/",
            "Labels": {"io.pycontainers.host": identity},
        },
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    }
