"""A notebook's kernel, or the launcher, of which every process stands still at each step boundary until the conductor lets it go on.

``python faulty.py kernel PACKAGE CODE`` and ``python -I -S faulty.py launcher PACKAGE HOME RUN``; the conductor (:mod:`.conductor`) listens
at ``RUN/faults.sock``. Supervisors, first processes and workers are forks of the launcher; the kernel of this machine says which of them
it is that speaks.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any


def listen(run: str, who: str) -> None:
    """Tell the conductor of each step, and wait for its answer. Without a conductor nothing is told."""
    from pycontainers.runtime import marks

    own: dict[str, socket.socket] = {}

    def connection(role: str) -> socket.socket | None:
        if role not in own:
            conductor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                conductor.connect(f"{run}/faults.sock")
            except OSError:
                return None
            own[role] = conductor
            marks.descriptors.append(conductor.fileno())
        return own[role]

    def tell(process: str, step: str) -> None:
        # One connection a process: two that wait on one could take each other's answer. A first process makes its own before it has
        # another root; the second process of an exec, forked inside of the container, finds the one that was made for it outside, and a
        # first process that was made ahead the one with which it will speak later.
        if later := {"exec": "inside", "ahead": "init"}.get(process):
            connection(later)
        conductor = connection("inside" if step == "inside" else process)
        if conductor is not None:
            with contextlib.suppress(OSError):
                conductor.send(f"{process}\0{step}".encode(), socket.MSG_NOSIGNAL)
                conductor.recv(1)

    tell(who, "")
    marks.listener = tell


def launcher_argv(original: Any, paths: Any) -> list[str]:
    python = original(paths)[0]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    return [python, "-I", "-S", os.path.abspath(__file__), "launcher", package, str(paths.home), str(paths.run)]


def _launcher(home: str, run: str) -> None:
    from pycontainers.linux import server
    from pycontainers.runtime import launcher

    daemonize = server.daemonize

    def tell_then() -> None:
        daemonize()
        listen(run, "launcher")

    server.daemonize = tell_then
    launcher.main(home, run)


def _kernel(code: str) -> None:
    """Run ``code``; how it ended goes to stdout as one JSON object."""
    import traceback

    import pycontainers as pc
    from pycontainers.errors import ContainersError
    from pycontainers.runtime import client

    original = client.launcher_argv
    client.launcher_argv = lambda paths: launcher_argv(original, paths)
    listen(os.environ["PYCONTAINERS_RUN"], "client")
    scope: dict[str, Any] = {"pc": pc}
    try:
        exec(code, scope)
        found = {"ok": repr(scope.get("result"))}
    except ContainersError as error:
        found = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except BaseException:
        found = {"crash": traceback.format_exc()}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def main() -> None:
    role, package, *rest = sys.argv[1:]
    sys.path.insert(0, package)
    _launcher(*rest) if role == "launcher" else _kernel(*rest)


if __name__ == "__main__":
    main()
