"""``host`` is an image: this machine's own system as a base, by an allowlist. What is not listed does not exist inside.

Listed are system folders (``/usr`` and what belongs to it), the notebook's interpreter with its packages wherever they lie, the package
manager's state, and a curated ``/etc``: copied file by file into a *skeleton*, only what everybody may read, without keys,
passwords and credentials. Homes, sockets, state and secrets are not there. A *mask* layer hides what may lie inside a listed prefix.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError
from .view import Rootfs

FORMAT = 1
#: System folders. A merged /usr has the rest as links, which the skeleton repeats.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/var/lib/dpkg")
#: Files and folders of /etc that may be inside. Never: shadow, gshadow, ssh, ssl/private, sudoers, cron, machine-id, environment, …
ETC = """
adduser.conf alternatives apt/apt.conf.d apt/preferences.d apt/sources.list apt/sources.list.d apt/trusted.gpg.d apt/keyrings
bash.bashrc bash_completion.d bindresvport.blacklist ca-certificates ca-certificates.conf debconf.conf debian_version
default/locale deluser.conf dpkg fonts gai.conf host.conf inputrc issue java-11-openjdk java-17-openjdk java-21-openjdk
ld.so.cache ld.so.conf ld.so.conf.d locale.alias locale.conf locale.gen localtime login.defs lsb-release magic magic.mime mailcap
manpath.config mime.types netconfig networks nsswitch.conf os-release pam.conf pam.d perl pip.conf pki/ca-trust pki/tls/cert.pem
pki/tls/certs profile protocols python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14 redhat-release rpc
security services skel ssl/certs ssl/openssl.cnf ssl/cert.pem terminfo timezone ucf.conf vim xattr.conf
""".split()
#: Names below an interpreter's prefix that may hold tokens or passwords: hidden.
_MASKED = ("pip.conf", "pip.ini", "etc/jupyter", "etc/ipython", "share/jupyter/runtime")
_CREDENTIALS = re.compile(rb"://[^/\s:@]*:[^/\s@]*@|://[^/\s:@]+@")
_EMPTY = {
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "var/log": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
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
_LARGEST = 4 << 20  # bytes of one file of /etc (ld.so.cache and bundles of certificates are the largest)


@dataclass(frozen=True)
class Base:
    """This machine as an image's base."""

    identity: str
    config: dict[str, Any]
    rootfs: Rootfs


@dataclass(frozen=True)
class Machine:
    """What is looked at; another root and interpreter in tests."""

    root: str = ""
    prefixes: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()

    @staticmethod
    def this() -> Machine:
        python = os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)
        prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.dirname(python)))
        return Machine("", tuple(dict.fromkeys(os.path.abspath(p) for p in prefixes)), _homes())


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
    identity = _identity(store, machine, folders)
    place = f"{store}/host/{identity}"
    if not os.path.exists(f"{place}/base.json"):
        _make(store, place, machine, folders)
    return Base(identity, _config(machine, identity, place), rootfs(store, identity))


def rootfs(store: str, identity: str) -> Rootfs:
    """The root file system of an image on this identity. :raises ImageError: its skeleton is gone."""
    place = f"{store}/host/{identity}"
    try:
        with open(f"{place}/base.json", "rb") as file:
            below = json.loads(file.read())["base"]
    except (FileNotFoundError, ValueError):
        raise ImageError(f"the host base {identity[:12]} is gone", "build the image again: FROM host") from None
    return Rootfs((f"{place}/mask",), ("/", *sorted(below)), {"/": f"{place}/skeleton", **below})


def listed(machine: Machine) -> list[str]:
    """The folders of the allowlist on this machine, without those inside another."""
    wanted = [path for path in SYSTEM if os.path.isdir(machine.root + path) and not os.path.islink(machine.root + path)]
    for prefix in machine.prefixes:
        wanted += _prefix_folders(machine, prefix)
    unique = sorted(set(wanted), key=lambda path: (path.count("/"), path))
    kept: list[str] = []
    for path in unique:
        if not any(path.startswith(outer + "/") for outer in kept):
            kept.append(path)
    return kept


def _prefix_folders(machine: Machine, prefix: str) -> list[str]:
    """A prefix wholesale; or, where it is or holds a home (or is the root), only what an installation puts there."""
    if not os.path.isdir(machine.root + prefix):
        return []
    holds_home = any(f"{home}/".startswith(prefix.rstrip("/") + "/") for home in machine.homes)
    if prefix != "/" and not holds_home:
        return [prefix]
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    parts = [f"{prefix.rstrip('/')}/{name}" for name in ("bin", f"lib/{version}", "include", f"share/{version}")]
    return [path for path in parts if os.path.isdir(machine.root + path)]


def _homes() -> tuple[str, ...]:
    import pwd

    return tuple({entry.pw_dir for entry in pwd.getpwall() if entry.pw_dir.count("/") >= 1 and (entry.pw_uid >= 1000 or entry.pw_uid == 0)})


# -- identity


def _identity(store: str, machine: Machine, folders: list[str]) -> str:
    """Digest of what is installed: package manager, interpreter, its packages, and what of /etc comes along.

    Reading all that takes some milliseconds; the answer is kept with the times of the files that it came from.
    """
    stamp = _stamp(machine, folders)
    kept = f"{store}/host/current-{hashlib.sha256(repr((machine.prefixes, folders)).encode()).hexdigest()[:16]}.json"
    try:
        with open(kept, "rb") as file:
            found = json.loads(file.read())
        if found["stamp"] == stamp:
            return str(found["identity"])
    except (FileNotFoundError, ValueError, KeyError):
        pass
    digest = hashlib.sha256(repr((FORMAT, sys.version, folders, machine.prefixes, ETC)).encode())
    for path in (*_package_files(machine), *_etc_files(machine)):
        digest.update(path.encode())
        digest.update(_read(machine.root + path) or b"")
    for folder in _site_packages(machine):
        names = [name for name in sorted(os.listdir(folder)) if name.endswith((".dist-info", ".egg-info"))]
        digest.update(repr((folder, names)).encode())
    identity = digest.hexdigest()[:32]
    _write(kept, {"stamp": stamp, "identity": identity})
    return identity


def _stamp(machine: Machine, folders: list[str]) -> str:
    times = []
    for path in (
        *_package_files(machine),
        "/etc",
        *(f"/etc/{name}" for name in ETC),
        *(p.removeprefix(machine.root) for p in _site_packages(machine)),
    ):
        try:
            found = os.stat(machine.root + path)
            times.append((path, found.st_mtime_ns, found.st_size))
        except OSError:
            continue
    return hashlib.sha256(repr((FORMAT, sys.version, times)).encode()).hexdigest()


def _package_files(machine: Machine) -> list[str]:
    names = ("/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite", "/lib/apk/db/installed")
    return [name for name in names if os.path.isfile(machine.root + name)]


def _site_packages(machine: Machine) -> list[str]:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    found = [f"{machine.root}{prefix}/lib/{version}/site-packages" for prefix in machine.prefixes]
    return [path for path in dict.fromkeys(found) if os.path.isdir(path)]


# -- skeleton and mask


def _make(store: str, place: str, machine: Machine, folders: list[str]) -> None:
    """Put the skeleton together aside and rename it: a reader sees a whole one or none; of two makers the first wins."""
    building = f"{store}/ingest/{secrets.token_hex(8)}-{os.getpid()}-{_start_time()}"
    skeleton, mask = f"{building}/skeleton", f"{building}/mask"
    os.makedirs(skeleton, mode=0o755)
    os.mkdir(mask, 0o755)
    try:
        for name, mode in _EMPTY.items():
            os.makedirs(f"{skeleton}/{name}", exist_ok=True)
            os.chmod(f"{skeleton}/{name}", mode)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"{machine.root}/{name}"):
                os.symlink(os.readlink(f"{machine.root}/{name}"), f"{skeleton}/{name}")
        for name, target in (("var/run", "/run"), ("var/lock", "/run/lock"), ("etc/mtab", "/proc/self/mounts")):
            os.symlink(target, f"{skeleton}/{name}")
        for folder in folders:
            _mount_point(skeleton, folder)
        _copy_etc(machine, f"{skeleton}/etc")
        _write_users(machine, f"{skeleton}/etc")
        _mask(machine, mask, folders, skeleton)
        _write(f"{building}/base.json", {"base": {folder: machine.root + folder for folder in folders}})
        try:
            os.rename(building, place)
        except OSError:
            if not os.path.exists(f"{place}/base.json"):
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _start_time() -> int:
    from ..linux import process

    return process.start_time(os.getpid())


def _mount_point(skeleton: str, folder: str) -> None:
    current = skeleton
    for part in folder.strip("/").split("/"):
        current = f"{current}/{part}"
        if not os.path.isdir(current):
            os.mkdir(current, 0o755)
        elif stat.S_IMODE(os.stat(current).st_mode) & 0o011 != 0o011:
            os.chmod(current, 0o711)  # an interpreter inside /root must be reachable for every user of the container; the folder is empty


def _copy_etc(machine: Machine, target: str) -> None:
    for path in _etc_files(machine):
        source, place = machine.root + path, target + path.removeprefix("/etc")
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(source):
            os.symlink(os.readlink(source), place)
            continue
        data = _read(source)
        if data is not None:
            with open(place, "xb") as file:
                file.write(data)
            os.chmod(place, 0o755 if os.stat(source).st_mode & 0o111 else 0o644)
    if os.path.islink(f"{target}/localtime") is False and os.path.exists(f"{machine.root}/etc/localtime") is False:
        os.symlink("/usr/share/zoneinfo/Etc/UTC", f"{target}/localtime")


def _etc_files(machine: Machine) -> list[str]:
    """Paths (``/etc/…``) of everything that the allowlist lets through: regular files and links, nothing closed to others."""
    found = []
    for name in ETC:
        path = f"{machine.root}/etc/{name}"
        if os.path.islink(path) or os.path.isfile(path):
            found.append(path)
        elif os.path.isdir(path):
            for folder, folders, names in os.walk(path):
                folders.sort()
                found += [f"{folder}/{name}" for name in sorted([*names, *(f for f in folders if os.path.islink(f"{folder}/{f}"))])]
    return [path.removeprefix(machine.root) for path in found if _may_pass(path)]


def _may_pass(path: str) -> bool:
    if os.path.basename(path).startswith(("auth.conf", "shadow", "gshadow")):
        return False
    found = os.lstat(path)
    return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o004) and found.st_size <= _LARGEST)


def _read(path: str) -> bytes | None:
    """A file's content without what looks like credentials: lines with a user in a URL go; a private key makes the file None."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return None
    if b"PRIVATE KEY" in data:
        return None
    if _CREDENTIALS.search(data):
        data = b"".join(line for line in data.splitlines(keepends=True) if not _CREDENTIALS.search(line))
    return data


def _write_users(machine: Machine, target: str) -> None:
    """passwd and group with system accounts alone: no people, no password hashes, no full names."""
    rows = {"passwd": ["root:x:0:0:root:/root:/bin/sh"], "group": ["root:x:0:"]}
    for name, kept in rows.items():
        for line in (_read(f"{machine.root}/etc/{name}") or b"").decode("utf-8", "replace").splitlines():
            row = line.split(":")
            if len(row) < 4 or not row[2].isdigit() or not (0 < int(row[2]) < 1000 or row[0] in ("nobody", "nogroup")):
                continue
            kept.append(":".join([row[0], "x", row[2], row[3], "", *row[5:7]]) if name == "passwd" else f"{row[0]}:x:{row[2]}:")
        with open(f"{target}/{name}", "w", encoding="utf-8") as file:
            file.write("\n".join(kept) + "\n")


def _mask(machine: Machine, mask: str, folders: list[str], skeleton: str) -> None:
    """Whiteouts for what may hold secrets inside listed folders: dot files at the top of a prefix, configuration of pip and Jupyter."""
    places = {*machine.prefixes, "/usr", "/usr/local", *folders}
    for place in sorted(places):
        inside = next((f for f in folders if place == f or place.startswith(f + "/")), None)
        if inside is None or not os.path.isdir(machine.root + place):
            continue
        names = [name for name in os.listdir(machine.root + place) if name.startswith(".")]
        for name in [*names, *_MASKED]:
            if os.path.lexists(f"{machine.root}{place}/{name}"):
                _whiteout(mask, f"{place}/{name}", inside, machine, skeleton)


def _whiteout(mask: str, path: str, folder: str, machine: Machine, skeleton: str) -> None:
    """A whiteout device and its parents, each with the attributes of what it covers: the newest layer's are what is seen."""
    current, inside = mask, ""
    for part in path.strip("/").split("/")[:-1]:
        current, inside = f"{current}/{part}", f"{inside}/{part}"
        if not os.path.isdir(current):
            os.mkdir(current)
            found = os.stat((machine.root if f"{inside}/".startswith(f"{folder}/") else skeleton) + inside)
            os.chown(current, found.st_uid, found.st_gid)
            os.chmod(current, stat.S_IMODE(found.st_mode))
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


def _write(path: str, data: dict[str, Any]) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.rename(temporary, path)
