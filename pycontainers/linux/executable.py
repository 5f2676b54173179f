"""Run a program from a read-only copy of its mount, so that nobody can change the file through ``/proc/PID/exe``.

A process that is inside a container while it still executes our interpreter hands out a way to that file which no mount namespace
closes (CVE-2019-5736: ``/proc/self/exe`` as the command, then write to it). "Text file busy" is no protection: it ends with the
last process that runs the file, and it never held for chmod(2), which makes the host's interpreter setuid.

The way through ``/proc/PID/exe`` leads over the mount that the program was executed from. A detached copy of that mount, read-only,
costs two system calls and no memory: the page cache stays shared, which a copy of the interpreter in a sealed memfd would not.
"""

from __future__ import annotations

import os
import stat

from . import mounts


def read_only(path: str) -> tuple[int, str]:
    """``(descriptor, name)``: a detached read-only copy of the mount on which ``path`` lies, and its path below that copy.

    Execute ``/proc/PID/fd/DESCRIPTOR`` + name, with the descriptor open until then: the running program keeps the mount. ``name``
    is ``path`` itself where the program lies on the mount of ``/``; elsewhere it is shorter, and ``$ORIGIN`` of the dynamic loader
    (ld.so(8)) with it.

    :param path: absolute and without links (:func:`os.path.realpath`).
    :raises OSError: mounts cannot be copied here (EPERM without CAP_SYS_ADMIN, ENOSYS before Linux 5.12), or no such file.
    """
    wanted = os.stat(path)
    parts = path.split("/")
    refused: OSError | None = None
    for count in range(1, len(parts) + 1):
        # From "/" on: the first folder below which the very same file is found, without what is mounted on top, is on its mount.
        # A user namespace's mounts are locked to what covers them and cannot be copied without (EINVAL): a folder further down can.
        folder, name = "/".join(parts[:count]) or "/", "".join("/" + part for part in parts[count:])
        try:
            tree = mounts.open_tree(folder)
        except OSError as error:
            refused = error
            continue
        try:
            found = os.stat(f"/proc/self/fd/{tree}{name}")
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino) and stat.S_ISREG(found.st_mode):
                mounts.set_attributes(tree, mounts.MOUNT_ATTR_RDONLY)
                return tree, name
        except FileNotFoundError:
            pass  # on a mount further down
        except BaseException:
            os.close(tree)
            raise
        os.close(tree)
    raise refused or FileNotFoundError(2, "no such file on any mount", path)


def guarded(program: str, environment: dict[str, str]) -> tuple[str, int]:
    """``(path to execute, descriptor to close afterwards)`` for ``program`` from a read-only copy of its mount.

    The path goes through this process's descriptor, not the child's: nothing of the host is left open in what is executed. Where
    mounts cannot be copied it is ``program`` itself and -1; containers do not run there either (:mod:`pycontainers.runtime.isolation`).
    """
    try:
        fd, name = read_only(program)
    except OSError:
        return program, -1
    if name != program:  # libraries that are found relative to the program
        environment["LD_LIBRARY_PATH"] = f"{os.path.dirname(os.path.dirname(program))}/lib"
    return f"/proc/{os.getpid()}/fd/{fd}{name}", fd
