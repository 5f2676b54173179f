"""Files that are there as a whole or not at all."""

from __future__ import annotations

import os

from . import syscalls


def replace(path: str, data: bytes, mode: int = 0o600, folder: int | None = None, fleeting: bool = False) -> None:
    """Put ``data`` in the place of ``path`` by rename(2): readers see the old or the new file, never a part of one.

    Not fsynced: this holds against a death at any moment, not against a power cut.

    :param folder: a descriptor of the folder that ``path`` is relative to.
    :param fleeting: worth nothing after a power cut: the two change places, and the old one is deleted. When a file is renamed onto
        another, ext4 starts to write it out, and has blocks to free when it is deleted soon after (auto_da_alloc, ext4(5)).
    :raises OSError: the old file is as it was then, and nothing lies beside it.
    """
    where, _, name = path.rpartition("/")
    temporary = f"{where}/.{name}.{os.getpid()}" if where else f".{name}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    try:
        try:
            os.fchmod(fd, mode)  # whatever the umask is
            view = memoryview(data)
            while view:  # a disk that becomes full takes a part, and refuses the rest only when it is given again (write(2))
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        if fleeting and folder is None and os.path.exists(path):
            try:
                syscalls.exchange(temporary, path)
            except OSError:
                pass  # a file system that cannot, or removed meanwhile
            else:
                os.unlink(temporary)
                return
        os.rename(temporary, path, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise
