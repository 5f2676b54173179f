"""What of this machine's ``/etc`` may be inside the image ``host``: by name, and without keys, passwords and credentials.

Only what everybody may read here is taken at all. The filters are a second line behind the list of names: people put tokens into
files that are no place for them.
"""

from __future__ import annotations

import errno
import os
import re
import stat

#: Files and folders of /etc that may be inside. Never: shadow, gshadow, ssh, ssl/private, sudoers, cron, machine-id, environment, …
ETC = """
adduser.conf alternatives apt/apt.conf.d apt/preferences.d apt/sources.list apt/sources.list.d apt/trusted.gpg.d apt/keyrings
bash.bashrc bash_completion.d bindresvport.blacklist ca-certificates ca-certificates.conf debconf.conf debian_version
default/locale deluser.conf dpkg fonts gai.conf host.conf inputrc issue java-11-openjdk java-17-openjdk java-21-openjdk
ld.so.cache ld.so.conf ld.so.conf.d locale.alias locale.conf locale.gen localtime login.defs lsb-release magic magic.mime mailcap
manpath.config mime.types netconfig nsswitch.conf os-release pam.conf pam.d perl pip.conf pki/ca-trust pki/tls/cert.pem
pki/tls/certs profile protocols python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14 redhat-release rpc
security services skel ssl/certs ssl/openssl.cnf ssl/cert.pem terminfo timezone ucf.conf vim xattr.conf
""".split()
#: Names in /etc/skel that hold credentials in a home.
_PRIVATE = (".git-credentials", ".netrc", ".npmrc", ".pypirc")
_CREDENTIALS = re.compile(rb"(?<=://)[^/\s@\"']*@")
_UNCLEAR = re.compile(rb"://[^\s@]*:[^\s@]*@")  # a password with a slash in it, perhaps: the line goes
_ASSIGNED = re.compile(rb"(?i)(?:passw(?:or)?d|secret|token|api_?key|credential)\w*[\"']?\s*[=:]\s*[\"']?[^\s\"'\[]")
#: Files of /etc in which people assign variables and passwords: such lines go.
_ASSIGNING = ("/etc/profile", "/etc/bash.bashrc", "/etc/skel/", "/etc/default/", "/etc/pip.conf", "/etc/apt/", "/etc/security/")
USERS = ("/etc/passwd", "/etc/group")  # never copied: rebuilt from their system accounts
Etc = dict[str, bytes | str]
_LARGEST = 4 << 20  # bytes of one file of /etc (ld.so.cache and bundles of certificates are the largest)


def etc(root: str) -> Etc:
    """What of /etc may be inside, by path: a link's target, or a file's bytes."""
    pairs = ((path, content(root, path)) for path in (*_etc_files(root), *USERS))
    return {path: data for path, data in pairs if data is not None}


def _etc_files(root: str) -> list[str]:
    """Paths (``/etc/…``) of everything that the allowlist lets through: regular files and links, nothing closed to others."""
    found = []
    for name in ETC:
        path = f"{root}/etc/{name}"
        if os.path.islink(path) or os.path.isfile(path):
            found.append(path)
        elif os.path.isdir(path):
            for folder, folders, names in os.walk(path):
                folders.sort()
                links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
                found += [f"{folder}/{name}" for name in sorted([*names, *links])]
    return [path.removeprefix(root) for path in found if _may_pass(path)]


def _may_pass(path: str) -> bool:
    name = os.path.basename(path)
    if name.startswith(("auth.conf", "shadow", "gshadow")) or (name in _PRIVATE and "/skel/" in path):
        return False
    found = os.lstat(path)
    return stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o004) and found.st_size <= _LARGEST)


def content(root: str, path: str) -> bytes | str | None:
    """What of ``path`` may be inside: a link's target, a file's bytes without credentials; None for one that is closed or a key."""
    try:
        fd = os.open(root + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return os.readlink(root + path) if error.errno == errno.ELOOP else None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = file.read()
    return None if b"PRIVATE KEY" in data else _without_credentials(path, data)


def _without_credentials(path: str, data: bytes) -> bytes:
    """User and password leave a URL, which stays; a line that assigns a password goes. A shell's stays as ``:``, so that its ``if``
    keeps a body.
    """
    if b"://" in data and b"@" in data:
        data = _CREDENTIALS.sub(b"", data)
    assigning = path.startswith(_ASSIGNING)
    if not ((b"@" in data and _UNCLEAR.search(data)) or (assigning and _ASSIGNED.search(data))):
        return data
    shell = path.startswith(("/etc/profile", "/etc/bash.bashrc", "/etc/skel/"))
    kept = []
    for line in data.splitlines(keepends=True):
        secret = _UNCLEAR.search(line) or (assigning and _ASSIGNED.search(line))  # also behind a "#": it was in use once
        if not secret:
            kept.append(line)
        elif shell:
            kept.append(b":\n")
    return b"".join(kept)
