"""A lock on a whole file that ends with whoever holds it, and about which one can ask without taking it.

An open file description lock (fcntl_locking(2)): it belongs to an open file as flock(2)'s does, is inherited by forks, and lasts until the
last descriptor is closed. flock(2) cannot be asked: it can only be tried, which for that moment refuses somebody else, or be looked up in
/proc/locks, which waits for a grace period of all processors (locks_start in fs/locks.c takes a percpu_rw_semaphore for writing: some ten
milliseconds) and holds up everybody's locks meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

# struct flock (of 64 bits in these calls, also on machines of 32): type, whence, start, length (0: to the end, wherever that is), pid.
_RECORD = struct.Struct("hhqqi0q")
_WHOLE = _RECORD.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def take(fd: int) -> bool:
    """Lock the file ``fd``, open for writing; False when it is locked already. Closing the last copy of ``fd`` gives it back.

    :raises OSError: the file system has no locks (ENOLCK).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def held(path: str) -> bool:
    """Whether somebody has locked the file at ``path``. :raises FileNotFoundError: there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found: int = _RECORD.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE))[0]
        return found != fcntl.F_UNLCK
    finally:
        os.close(fd)
