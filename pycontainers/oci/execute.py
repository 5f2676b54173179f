"""exec: a further process in a container, from an OCI process or from the container's own with what the options change.

The work is :mod:`pycontainers.runtime.exec`'s; here it is put together from the command line.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..errors import StateError, UsageError
from ..linux import cgroups, namespaces, syscalls
from ..runtime.exec import Exec, Target
from . import bundle, console
from .lifecycle import Caller, compiled, write_pid
from .store import CREATED, PAUSED, RUNNING, Container


def execute(caller: Caller, container: Container, command: list[str]) -> int:
    """The exit code of the process, 0 when detached. :raises ContainersError: it could not be executed."""
    options = caller.options
    status = container.status()
    if status == PAUSED and not options.get("ignore-paused"):
        raise StateError(f"cannot exec in a paused container: {container.id}", "resume it first, or --ignore-paused")
    if status not in (CREATED, RUNNING, PAUSED):
        raise StateError(f"cannot exec in a container that is {status}: {container.id}", "start it first")
    spec = container.spec()
    wanted = _process(spec["process"], options, command)
    bundle.process(wanted, "process", caller.messages)
    terminal, detached = bool(wanted.get("terminal")), bool(options.get("detach"))
    console.check(options.get("console-socket") or "", terminal=terminal, detached=detached)
    return _Work(caller, container, spec, wanted).run(detached)


def _process(base: dict[str, Any], options: dict[str, Any], command: list[str]) -> dict[str, Any]:
    if options.get("process"):
        try:
            with open(options["process"], encoding="utf-8") as file:
                found: dict[str, Any] = json.load(file)
        except (OSError, ValueError) as error:
            raise UsageError(f"--process {options['process']}: {error}", "a file with an OCI process") from None
    else:
        if not command:
            raise UsageError("exec needs a command or --process", "pycontainers-oci exec ID COMMAND …")
        found = dict(base, args=command, terminal=False)
        found.pop("consoleSize", None)
    for key in ("capabilities", "rlimits", "apparmorProfile", "selinuxLabel", "oomScoreAdj"):
        if found.get(key) is None and base.get(key) is not None:
            found[key] = base[key]  # what an exec does not say is as for the first process
    found["terminal"] = bool(found.get("terminal") or options.get("tty"))
    found["env"] = [*(found.get("env") or []), *options.get("env", [])]
    if options.get("cwd"):
        found["cwd"] = options["cwd"]
    if options.get("user"):
        uid, _, gid = options["user"].partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise UsageError(f"--user {options['user']!r} is not UID[:GID]", "numbers: a runtime knows no names")
        found["user"] = {"uid": int(uid), "gid": int(gid or 0)}
    if options.get("additional-gids"):
        found["user"] = (found.get("user") or {}) | {"additionalGids": [int(number) for number in options["additional-gids"]]}
    if options.get("cap"):
        caps = dict(found.get("capabilities") or {})
        for kind in ("bounding", "effective", "permitted"):
            caps[kind] = [*(caps.get(kind) or []), *options["cap"]]
        found["capabilities"] = caps
    if options.get("no-new-privs"):
        found["noNewPrivileges"] = True
    for option, field in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.get(option):
            found[field] = options[option]
    return found


class _Work:
    """One exec. What is reached by a path of the host is opened here, before the container is entered."""

    def __init__(self, caller: Caller, container: Container, spec: dict[str, Any], wanted: dict[str, Any]) -> None:
        self._options = options = caller.options
        init = container.state["init"]["pid"]
        theirs, ours = namespaces.links(init), namespaces.links()  # a bundle may share any of them with whoever calls us
        target = Target(
            spec,
            container.state["init"],
            called=container.id,
            about=caller.about(container),
            kinds=[kind for kind, link in theirs.items() if link != ours.get(kind)],
            groups=_groups(container.state.get("cgroup") or "", options.get("cgroup") or [""]),
            keyring="" if container.state.get("caller_keyring") else f"_ses.{container.id[:12]}",
        )
        self._exec = Exec(target, wanted, compiled(container, spec), preserved=options.get("preserve-fds", 0))
        self._taker = console.connect(options["console-socket"]) if options.get("console-socket") else None
        self._pid_file = options.get("pid-file") or ""
        where = os.path.dirname(os.path.abspath(self._pid_file)) if self._pid_file else ""
        self._pid_folder = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if where else -1

    def run(self, detached: bool) -> int:
        if not detached:
            console.hold_signals()
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        work = self._exec
        work.start([])  # it inherits our own stdio
        if self._taker is not None:
            console.send(self._taker, work.console)
            work.console = -1
        if self._pid_file:
            write_pid(os.path.basename(self._pid_file), work.pid, self._pid_folder)
        if detached:
            return 0
        console.Foreground(os.pidfd_open(work.pid), work.console).wait()
        return int(work.wait()["code"])


def _groups(path: str, places: list[str]) -> list[cgroups.Group]:
    """The container's group, or those of ``--cgroup`` below it."""
    found = []
    for below in places if path else []:
        place = below.rpartition(":")[2].strip("/")
        if ".." in place.split("/"):
            raise UsageError(f"--cgroup {below!r} leads out of the container's group")
        group = cgroups.open(f"{path}/{place}" if place else path)
        if not group.paths:
            raise UsageError(f"--cgroup {below!r} does not exist", "the process makes its groups itself")
        found.append(group)
    return found
