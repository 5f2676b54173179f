"""Hooks of an OCI runtime spec (config.md, POSIX-platform Hooks): programs that take part in a container's life.

Each gets the container's state on its standard input. ``prestart``, ``createRuntime``, ``poststart`` and ``poststop`` run outside, as the
runtime itself would; ``createContainer`` (before pivot_root) and ``startContainer`` (before execve) run in the container's namespaces.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from typing import Any

from ..errors import ContainersError
from ..linux import namespaces, syscalls

CREATE = ("prestart", "createRuntime", "createContainer")
EVERY = (*CREATE, "startContainer", "poststart", "poststop")
_OUTPUT = 4096  # bytes of what a failing hook wrote that are told


def state(spec: dict[str, Any], about: dict[str, Any], status: str, pid: int) -> dict[str, Any]:
    """The state that a hook gets (runtime.md, State). ``about``: the container's ``id`` and ``bundle``."""
    found = {"ociVersion": spec.get("ociVersion", "1.2.0"), "id": about["id"], "status": status, "pid": pid, "bundle": about["bundle"]}
    if not pid:
        del found["pid"]
    return found | ({"annotations": spec["annotations"]} if spec.get("annotations") else {})


def has(spec: dict[str, Any], *kinds: str) -> bool:
    hooks = spec.get("hooks") or {}
    return any(hooks.get(kind) for kind in kinds)


def run(spec: dict[str, Any], kind: str, about: dict[str, Any], *, mount_namespace: int | None = None, inside: bool = False) -> None:
    """All hooks of one kind, in their order. ``about``: the state object (:func:`state`).

    :param mount_namespace: a descriptor of the one in which they run, where that is not the caller's.
    :param inside: they run in the container's namespaces and get nothing of our environment.
    :raises ContainersError: of the first that fails, with its exit status and the end of what it wrote.
    """
    text = json.dumps(about).encode()
    for index, hook in enumerate((spec.get("hooks") or {}).get(kind) or []):
        environment = dict(item.partition("=")[::2] for item in hook.get("env") or [])
        if hook.get("env") is None and not inside:
            environment = dict(os.environ)  # as runc and crun: such hooks look for programs in PATH
        why = _run(hook, environment, text, mount_namespace)
        if why:
            raise ContainersError(f"hooks.{kind}[{index}] {hook['path']}: {why}", "the hook is the caller's own program")


def _run(hook: dict[str, Any], environment: dict[str, str], text: bytes, mount_namespace: int | None) -> str:
    """"" or what went wrong."""
    stdin, feed = os.pipe2(os.O_CLOEXEC)
    output, sink = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _execute(hook, environment, stdin, sink, mount_namespace)
    os.close(stdin)
    os.close(sink)
    os.set_blocking(feed, False)
    deadline = time.monotonic() + hook["timeout"] if hook.get("timeout") else None
    told = b""
    poll = select.poll()
    poll.register(feed, select.POLLOUT)
    poll.register(output, select.POLLIN)
    pidfd = os.pidfd_open(pid)
    poll.register(pidfd, select.POLLIN)
    try:
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = dict(poll.poll(left))
            if not ready:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"did not end within {hook['timeout']} s"
            if feed in ready:
                text = _feed(feed, text)
                if not text:
                    poll.unregister(feed)
                    os.close(feed)
                    feed = -1
            if output in ready:
                chunk = os.read(output, 65536)
                told = (told + chunk)[-_OUTPUT:]
                if not chunk:
                    poll.unregister(output)
            if pidfd in ready:  # not when its pipe closes: something that it left in the background may hold that
                break
    finally:
        for fd in (feed, output, pidfd):
            if fd >= 0:
                os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not code:
        return ""
    said = told.decode("utf-8", "replace").strip().replace("\n", " ")
    return f"{f'exit status {code}' if code > 0 else f'killed by signal {-code}'}{f': {said}' if said else ''}"


def _feed(fd: int, text: bytes) -> bytes:
    try:
        return text[os.write(fd, text) :]
    except BlockingIOError:
        return text
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        return b""  # a hook need not read its input


def _execute(hook: dict[str, Any], environment: dict[str, str], stdin: int, sink: int, mount_namespace: int | None) -> None:
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if mount_namespace is not None:
            namespaces.setns(mount_namespace, namespaces.CLONE_NEWNS)
            os.chdir("/")
        os.dup2(stdin, 0)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        syscalls.close_range(3)
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    except OSError as error:
        os.write(2, f"{hook['path']}: {error.strerror}".encode())
    finally:
        os._exit(127)
