"""The way out of an ordinary user's network: his bridge lies in a network namespace of his own, and nobody lets him connect that to the
machine's links. pasta or slirp4netns, started as him, turn its packets into sockets of his. Standard library only.

One for each user, started when a container with the bridge network needs it, ended with the holder of his namespaces.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Any

from ..linux import files, helper, holder, process

if TYPE_CHECKING:
    from ..paths import Paths

FILE = "wayout.json"
INSTALL = "as root: apt-get install passt, or slirp4netns"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_READY_SECONDS = 10.0


def ensure(paths: Paths) -> str:
    """Have a way out; cheap when there is one. Only outside of the user's namespaces: pasta has to be in none of them.

    :returns: what is used ("pasta", "slirp4netns"); "" with root, who needs none, and where nothing works (:func:`explain` says why).
    """
    run = str(paths.run)
    held = holder.alive(run)
    if held is None:
        return ""
    if (known := _current(run, held)) and known["program"]:
        return str(known["program"])
    import subprocess  # only here: the network helper, which explains, stays small

    with helper.locked(f"{run}/locks/wayout.lock", time.monotonic() + _READY_SECONDS):
        known = _read(run)
        if known and process.alive(known["identity"] or {}):
            if known["holder"] == held["holder"]:
                return str(known["program"])
            process.send_signal(known["identity"], signal.SIGKILL)  # of namespaces whose holder was killed
        said = []
        for program, start in (("pasta", _pasta), ("slirp4netns", _slirp4netns)):
            if not _installed(program):
                continue
            try:
                identity = process.identity(start(run, int(held["holder"]["pid"])))
            except (OSError, subprocess.TimeoutExpired) as error:
                said.append(f"{program}: {error}")
                continue
            holder.tell_way_out(run, identity)
            _write(run, {"program": program, "identity": identity, "holder": held["holder"], "why": ""})
            return program
        why = "; ".join(said) or "neither pasta nor slirp4netns is installed"
        _write(run, {"program": "", "identity": None, "holder": held["holder"], "why": why})
    return ""


def explain(run: str) -> list[str]:
    """One line about the way out of this user's bridge; none with root."""
    held = holder.alive(run)
    if held is None:
        return []
    known = _current(run, held)
    if known is None:
        return ["no way out of the bridge: it is not started"]
    return [f"the way out is {known['program']}"] if known["program"] else [f"no way out of the bridge: {known['why']}"]


def _current(run: str, held: dict[str, Any]) -> dict[str, Any] | None:
    """What is kept of these namespaces' way out, if it still lives."""
    known = _read(run)
    if known is None or known["holder"] != held["holder"]:
        return None
    return known if not known["program"] or process.alive(known["identity"]) else None


def _read(run: str) -> dict[str, Any] | None:
    try:
        with open(f"{run}/{FILE}", "rb") as file:
            found = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and {"program", "identity", "holder", "why"} <= set(found) else None


def _write(run: str, data: dict[str, Any]) -> None:
    files.replace(f"{run}/{FILE}", json.dumps(data).encode())


def _installed(program: str) -> bool:
    return any(os.access(f"{folder}/{program}", os.X_OK) for folder in _PATH.split(":"))


def _pasta(run: str, pid: int) -> int:
    """It goes into the background when it is ready. The gateway's address does not lead to this machine's loopback, and no port of ours
    is opened by it, in no direction: published ports have a forwarder of their own.
    """
    import subprocess

    pid_file = f"{run}/pasta.pid"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(pid_file)
    argv = "pasta --config-net --quiet --no-map-gw --mtu 1500 --tcp-ports none --udp-ports none --tcp-ns none --udp-ns none".split()
    argv += ["--pid", pid_file, "--userns", f"/proc/{pid}/ns/user", "--netns", f"/proc/{pid}/ns/net"]
    said = f"{run}/pasta.log"
    with open(said, "wb") as log:  # a pipe would be kept open by what goes into the background
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": _PATH}, cwd="/", timeout=_READY_SECONDS, check=False
        )
    if done.returncode:
        raise OSError(done.returncode, f"exit code {done.returncode}: {_last_line(said)}")
    with open(pid_file, encoding="utf-8") as file:
        return int(file.read())


def _slirp4netns(run: str, pid: int) -> int:
    """It stays in the foreground and writes a byte when it is ready."""
    import subprocess

    reader, writer = os.pipe2(os.O_CLOEXEC)
    argv = "slirp4netns --configure --mtu=65520 --disable-host-loopback --netns-type=path".split()
    argv += [f"--ready-fd={writer}", f"--userns-path=/proc/{pid}/ns/user", f"/proc/{pid}/ns/net", "tap0"]
    said = f"{run}/slirp4netns.log"
    with open(said, "wb") as log, os.fdopen(reader, "rb") as ready:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": _PATH}, cwd="/", pass_fds=[writer], start_new_session=True
        )
        os.close(writer)
        waiting = select.poll()
        waiting.register(ready, select.POLLIN)
        if not waiting.poll(_READY_SECONDS * 1000):
            child.kill()
            child.wait()
            raise OSError(errno.ETIMEDOUT, f"not ready after {_READY_SECONDS:g} s: {_last_line(said)}")
        if not ready.read(1):
            raise OSError(child.wait(), f"exit code {child.returncode}: {_last_line(said)}")
    return child.pid


def _last_line(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip() and "to syslog" not in line]
    return lines[-1] if lines else "it said nothing"
