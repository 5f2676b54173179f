"""Without root: the launcher first enters the user's namespaces, where it is root; from there nearly everything is the code of root.

What differs stands here and in three conditions: mounts are not ID-mapped (the kernel allows that to the file system's owner alone), so
a container's user namespace maps every id to itself in the user's; overlays keep their attributes in ``user.*`` (``userxattr``); and
with a single id there is nobody else to become.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import ContainersError, UsageError
from ..linux import executable, helper, holder, server, trees

_LIFE = "PYCONTAINERS_LIFE_FD"
_START = "import sys; sys.path.insert(0, sys.argv[2]); from pycontainers.runtime.{module} import main; main(sys.argv[3], sys.argv[4])"


def launcher_argv(python: str, package: str, home: str, run: str, module: str = "") -> list[str]:
    """How the launcher is started: the base interpreter, isolated, without site-packages. An ordinary user's goes through here."""
    module = module or ("launcher" if os.geteuid() == 0 and holder.read(run) is None else "rootless")
    return [python, "-I", "-S", "-c", _START.format(module=module), "pycontainers-launcher", package, home, run]


def main(home: str, run: str) -> None:
    """Enter, then become the launcher: executed anew from a read-only mount, since the user may own this very interpreter and a
    container's root is the user (CVE-2019-5736)."""
    listener = server.inherited_listener()
    try:
        life = holder.enter(run, _firsts(f"{home}/containers"))
        program = os.path.realpath(sys.executable)
        environment = dict(os.environ)
        environment[helper.LISTEN_FD], environment[_LIFE] = str(listener.fileno()), str(life)
        path, _ = executable.guarded(program, environment)
        for fd in (listener.fileno(), life):
            os.set_inheritable(fd, True)
        os.execve(path, launcher_argv(sys.executable, sys.argv[2], home, run, "launcher"), environment)
    except ContainersError as error:
        server.refuse(listener, error)
    except BaseException as error:
        server.fail(error)


_lives: list[int] = []


def keep_namespaces() -> None:
    """In the launcher: hold the user's namespaces for as long as this process, or a supervisor that it forked, lives."""
    life = os.environ.pop(_LIFE, "")
    if life:
        os.set_inheritable(int(life), False)
        _lives.append(int(life))


def let_go() -> None:
    """In a fork of the launcher that is not to keep them: a helper, which is no container."""
    while _lives:
        os.close(_lives.pop())


def remove(home: str, graves: list[str]) -> None:
    """Delete folders that are out of sight already: containers' graves and half-made ones. :raises UsageError: another path."""
    for grave in graves:
        folder, name = os.path.split(grave)
        if folder != f"{home}/containers" or not name.startswith((".gone-", ".new-")):
            raise UsageError(f"launcher: {grave!r} is nothing to remove")
        trees.remove(grave)


def _firsts(containers: str) -> Iterator[dict[str, Any]]:
    """First processes of containers that may live: a way back into the user's namespace when its holder was killed."""
    from . import state

    for name in os.listdir(containers) if os.path.isdir(containers) else []:
        now = state.read(f"{containers}/{name}", "state.json")
        if now is not None and now.get("init"):
            yield now["init"]
