"""The namespaces of an ordinary user: one user namespace in which he is root, kept open by a process that does nothing.

Without root everything that containers need is allowed in a user namespace of one's own (user_namespaces(7)). It must outlive the
launcher, and a new launcher must *join* it: from a second one, the first one's containers cannot be entered (setns(2) is EPERM
between siblings). The *holder* keeps it, together with a mount namespace and a network namespace that belong to it: ``/bin/sh``,
reading a pipe whose other end is held by launcher and supervisors. When the last of them has gone it ends, and takes the way out
of its network (pasta, slirp4netns) along.

A holder that was killed does not cut containers off: their own user namespaces lie inside (ioctl_ns(2), NS_GET_PARENT).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import time
from collections.abc import Iterable
from typing import Any

from ..errors import IsolationError
from . import files, namespaces, process
from .helper import locked
from .idmap import Mapping, pieces
from .mounts import MS_REC, MS_SLAVE, mount

FILE = "holder.json"
_NS_GET_PARENT, _NS_GET_OWNER_UID = 0xB702, 0xB704  # ioctl_ns(2)
_FIONREAD = 0x541B
_PATIENCE = 5.0  # seconds: it has a line to read. Less than those within which a helper has to greet
_IDS = 65536  # as many as a container has

# Each line is a reason to look again (empty), or "PID START" of the way out, ended with us. A pid alone may mean somebody else by then.
_SCRIPT = """\
while read -r line; do [ -n "$line" ] && last=$line; done
set -- $last
[ $# = 2 ] || exit 0
read -r stat <"/proc/$1/stat" || exit 0
pid=$1 start=$2
set -- ${stat##*) }
shift 19
[ "$1" = "$start" ] && kill -9 "$pid"
"""


def read(folder: str) -> dict[str, Any] | None:
    """What is known about the user's namespaces: ``{"holder": identity, "uids", "gids", "why"}``.

    ``uids`` and ``gids`` are the sizes of the pieces that the map consists of, which a map inside it has to keep to; ``why``: why there
    is a single id and no more.
    """
    try:
        with open(f"{folder}/{FILE}", "rb") as file:
            found = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and "holder" in found else None


def alive(folder: str) -> dict[str, Any] | None:
    """The same, None when the holder has gone."""
    found = read(folder)
    return found if found is not None and process.alive(found["holder"]) else None


def name(found: dict[str, Any]) -> str:
    """What tells one holder from another."""
    return f"{found['holder']['pid']}-{found['holder']['start']}"


def enter(folder: str, firsts: Iterable[dict[str, Any]] = (), timeout: float = 10.0) -> int:
    """Make this process root of the user's namespaces (user and mount); they are made when there are none.

    Only for a single-threaded process. It stays in the network namespace that it is in: ports are bound there, and ``--network
    host`` means that one.

    :param folder: a private folder (0700) of this user. :param firsts: identities of first processes of containers that may live.
    :returns: a descriptor; the namespaces stay as long as somebody holds it or a copy.
    :raises IsolationError: user namespaces are refused here; the hint says what would change that.
    """
    with locked(f"{folder}/locks/holder.lock", time.monotonic() + timeout):
        known = read(folder)
        if known is not None:
            life = _join(known["holder"])
            if life is not None:
                return life
        return _make(folder, _living(firsts))


def join(folder: str) -> int:
    """:func:`enter`, where there is something to join. :raises IsolationError: nobody holds namespaces."""
    known = read(folder)
    life = _join(known["holder"]) if known is not None else None
    if life is None:
        raise IsolationError("the user's namespaces have gone", "try again: the next start makes new ones")
    return life


def join_network(folder: str) -> None:
    """Move this single-threaded process into the user's network namespace too: where the bridge is.

    :raises IsolationError: nobody holds one.
    """
    namespace = open_namespace(folder, "net")
    try:
        if not _same_user_namespace(namespace):
            found = alive(folder)
            if found is None:
                raise IsolationError("the user's namespaces have gone", "try again")
            _set(int(found["holder"]["pid"]), ("user", "mnt"))
        namespaces.setns(namespace, namespaces.CLONE_NEWNET)
    finally:
        os.close(namespace)


def open_namespace(folder: str, kind: str) -> int:
    """A descriptor of one of the holder's namespaces: "user", "mnt", "net". :raises IsolationError: nobody holds one."""
    found = alive(folder)
    try:
        if found is None:
            raise FileNotFoundError
        return os.open(f"/proc/{found['holder']['pid']}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IsolationError("the user's namespaces have gone", "try again: the next start makes new ones") from None


def tell_way_out(folder: str, identity: dict[str, Any]) -> None:
    """Let the holder end this process with itself."""
    found = alive(folder)
    if found is not None:
        life = os.open(f"/proc/{found['holder']['pid']}/fd/0", os.O_WRONLY | os.O_CLOEXEC)
        os.write(life, f"{identity['pid']} {identity['start']}\n".encode())
        os.close(life)


def _same_user_namespace(namespace: int) -> bool:
    """Whether our user namespace owns it (NS_GET_USERNS)."""
    owner = fcntl.ioctl(namespace, 0xB701)
    try:
        return os.path.samestat(os.fstat(owner), os.stat("/proc/self/ns/user"))
    finally:
        os.close(owner)


# -- joining


def _join(holder: dict[str, Any]) -> int | None:
    """Join the holder's namespaces; the descriptor that keeps them. None when it has gone."""
    pidfd = process.open_pidfd(holder)
    if pidfd is None:
        return None
    pid = int(holder["pid"])
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return None
        life = os.open(f"/proc/{pid}/fd/0", os.O_WRONLY | os.O_CLOEXEC)
        try:
            heard = _heard(life, pidfd, pid)
        except IsolationError:
            os.close(life)
            raise
        if not heard:
            os.close(life)
            return None
        _set(pid, ("user", "mnt"))
        return life
    except (FileNotFoundError, ProcessLookupError):
        return None
    finally:
        os.close(pidfd)


def _heard(life: int, pidfd: int, pid: int) -> bool:
    """Whether the holder reads on with our end open: it may just have seen the last one closed, and be about to end.

    :raises IsolationError: it does neither: somebody has stopped it.
    """
    os.write(life, b"\n")
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.ended(pidfd, 0.002):
            return False
        if struct.unpack("i", fcntl.ioctl(life, _FIONREAD, b"\0" * 4))[0] == 0:
            return not process.ended(pidfd, 0.0)
    raise IsolationError(f"the process that keeps the user's namespaces (pid {pid}) does not answer", f"if it is stopped: kill -CONT {pid}")


def _set(pid: int, kinds: tuple[str, ...]) -> None:
    flags = {"user": namespaces.CLONE_NEWUSER, "mnt": namespaces.CLONE_NEWNS, "net": namespaces.CLONE_NEWNET}
    fds = [(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), flags[kind]) for kind in kinds]
    for fd, flag in fds:  # user first: it gives the right to join the others
        if flag != namespaces.CLONE_NEWUSER or not os.path.samestat(os.fstat(fd), os.stat("/proc/self/ns/user")):  # once is enough: EINVAL
            namespaces.setns(fd, flag)
        os.close(fd)


def _living(firsts: Iterable[dict[str, Any]]) -> int | None:
    """The user's namespace as an ancestor of a living container's: for when the holder alone was killed."""
    for first in firsts:
        if not process.alive(first):
            continue
        try:
            current = os.open(f"/proc/{first['pid']}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        while True:
            try:
                parent = fcntl.ioctl(current, _NS_GET_PARENT)
            except OSError:  # EPERM: above ours, so it is none of ours
                os.close(current)
                break
            if os.path.samestat(os.fstat(parent), os.stat("/proc/self/ns/user")):
                os.close(parent)
                owner = struct.unpack("I", fcntl.ioctl(current, _NS_GET_OWNER_UID, b"\0" * 4))[0]
                if owner == os.geteuid():
                    return current
                os.close(current)
                break
            os.close(current)
            current = parent
    return None


# -- making


def _make(folder: str, existing: int | None) -> int:
    """A holder in new namespaces (in an existing user namespace, when containers live in it), and join them."""
    if existing is not None:
        pid, life, why = *_hold(existing), (read(folder) or {}).get("why", "")
    else:
        pid, life, why = _mapped()
    try:
        _release(pid)
        identity = process.identity(pid[0])
        data = json.dumps({"holder": identity, "uids": pieces("uid", pid[0]), "gids": pieces("gid", pid[0]), "why": why}).encode()
        files.replace(f"{folder}/{FILE}", data)
        again = _join(identity)
        if again is None:
            raise IsolationError("the process that holds the user's namespaces has ended at once", "is there a /bin/sh?")
        os.close(again)
        return life
    except BaseException:
        os.close(life)
        raise


def _mapped() -> tuple[tuple[int, int], int, str]:
    """(holder that waits for its go-ahead, life, why only one id): with subordinate ids where they can be had, else with one."""
    uids, gids, why = subordinate()
    if not why:
        pid, life = _hold(None)
        why = _newidmap("newuidmap", pid[0], uids) or _newidmap("newgidmap", pid[0], gids)
        if not why:
            return pid, life, ""
        os.close(pid[1])  # it ends: half a map is no map
        os.close(life)
        os.waitpid(pid[0], 0)
    pid, life = _hold(None)
    try:
        # Without a privilege in the parent a process may map its own ids alone, and the group only when setgroups(2) is given up:
        # membership may also take rights away (user_namespaces(7), "/proc/pid/setgroups").
        for name, text in (("setgroups", "deny"), ("gid_map", f"0 {os.getegid()} 1"), ("uid_map", f"0 {os.geteuid()} 1")):
            fd = os.open(f"/proc/{pid[0]}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
    except OSError as error:
        os.close(pid[1])
        os.close(life)
        raise refused(error) from None
    return pid, life, why


def _hold(existing: int | None) -> tuple[tuple[int, int], int]:
    """Fork a holder that waits for its map: ((pid, pipe that lets it go on), the end of its life pipe)."""
    lifeline, life = os.pipe2(os.O_CLOEXEC)
    waits, go = os.pipe2(os.O_CLOEXEC)
    tells, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        for fd in (life, go, tells):
            os.close(fd)
        _become_holder(existing, lifeline, waits, tell)
    for fd in (lifeline, waits, tell):
        os.close(fd)
    with os.fdopen(tells, "rb") as file:
        answer = file.read(4)
    number = struct.unpack("i", answer)[0] if len(answer) == 4 else errno.EIO
    if number:
        os.close(go)
        os.close(life)
        os.waitpid(pid, 0)
        raise refused(OSError(number, os.strerror(number)))
    return (pid, go), life


def _become_holder(existing: int | None, lifeline: int, waits: int, tell: int) -> None:
    """In the child. Never returns."""
    try:
        os.setsid()
        if existing is not None:
            namespaces.setns(existing, namespaces.CLONE_NEWUSER)
            namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
        else:
            namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
        mount("", "/", "", MS_REC | MS_SLAVE)
        os.dup2(lifeline, 0)
        os.write(tell, struct.pack("i", 0))
        os.close(tell)
    except OSError as error:
        os.write(tell, struct.pack("i", error.errno or errno.EIO))
        os._exit(1)
    try:
        if os.read(waits, 1) != b"1":
            os._exit(1)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.chdir("/")
        os.execve("/bin/sh", ["pycontainers-holder", "-c", _SCRIPT], {})
    finally:
        os._exit(1)


def _release(pid: tuple[int, int]) -> None:
    os.write(pid[1], b"1")
    os.close(pid[1])


# -- subordinate ids


def subordinate(etc: str = "/etc") -> tuple[list[Mapping], list[Mapping], str]:
    """(map of users, map of groups, why there are none): root is the user himself, what follows comes from subuid(5), subgid(5)."""
    import pwd

    uid, gid = os.geteuid(), os.getegid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    maps = []
    for file, own in (("subuid", uid), ("subgid", gid)):
        found: list[Mapping] = [(0, own, 1)]
        for first, count in _ranges(f"{etc}/{file}", (name, str(uid))):
            inside = found[-1][0] + found[-1][2]
            if inside < _IDS:
                found.append((inside, first, min(count, _IDS - inside)))
        if len(found) == 1:
            remedy = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
            return [], [], f"{name} has no range in {etc}/{file}: as root: {remedy}"
        maps.append(found)
    if not (_program("newuidmap") and _program("newgidmap")):
        return [], [], "newuidmap is not installed: as root: apt-get install uidmap (shadow-utils elsewhere)"
    return maps[0], maps[1], ""


def _ranges(path: str, names: tuple[str, ...]) -> list[tuple[int, int]]:
    rows = (line.strip().split(":") for line in _lines(path))
    return [(int(row[1]), int(row[2])) for row in rows if len(row) == 3 and row[0] in names and row[1].isdigit() and row[2].isdigit()]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _program(name: str) -> str:
    folders = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
    return next((f"{folder}/{name}" for folder in folders if os.access(f"{folder}/{name}", os.X_OK)), "")


def _newidmap(name: str, pid: int, maps: list[Mapping]) -> str:
    """Run newuidmap(1) or newgidmap(1), which have the privilege that we lack. What it said, "" when it worked."""
    arguments = [name, str(pid), *(str(number) for row in maps for number in row)]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, writer, 2), (os.POSIX_SPAWN_DUP2, writer, 1)]
    child = os.posix_spawn(_program(name), arguments, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, file_actions=actions)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read(2000).decode("utf-8", "replace").strip().partition("\n")[0]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "" if code == 0 else f"{name} refused (exit code {code}): {said.removeprefix(name + ': ') or 'it said nothing'}"


# -- refusals


def refused(error: OSError) -> IsolationError:
    """Why this machine gives an ordinary user no namespaces, and what would change that."""
    message = "this machine lets an ordinary user make no user namespace"
    if error.errno == errno.ENOSPC or _number("/proc/sys/user/max_user_namespaces") == 0:
        limit = _number("/proc/sys/user/max_user_namespaces")
        return IsolationError(f"{message}: user.max_user_namespaces is {limit}", "as root: sysctl user.max_user_namespaces=15000")
    if _number("/proc/sys/kernel/unprivileged_userns_clone") == 0:
        return IsolationError(f"{message}: kernel.unprivileged_userns_clone is 0", "as root: sysctl kernel.unprivileged_userns_clone=1")
    if _number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1:
        return IsolationError(
            f"{message}: AppArmor forbids it (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns for this interpreter",
        )
    if any(line.split() == ["Seccomp:", "2"] for line in _lines("/proc/self/status")):
        return IsolationError(
            f"{message} ({error.strerror}): a seccomp filter is active, as in Docker's and Kubernetes' default profiles",
            "start the outer container with --security-opt seccomp=unconfined (Kubernetes: seccompProfile: Unconfined)",
        )
    if error.errno == errno.EPERM and _chrooted():
        return IsolationError(f"{message}: this process runs in a chroot (user_namespaces(7))", "start outside of the chroot")
    return IsolationError(f"{message}: {error.strerror}", "a kernel with CONFIG_USER_NS; or start Jupyter as root")


def _number(path: str) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdigit() else None


def _chrooted() -> bool:
    """Whether the mount of our root is not at "/": mountinfo then shows no line for it (proc(5))."""
    return not any(line.split()[4] == "/" for line in _lines("/proc/self/mountinfo"))
