"""One limit as a row: which file takes it, what is written, and how it is put back. Shared by :mod:`.v1` and :mod:`.v2`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from . import files


def whole(text: str) -> str:
    """What restores a file of one value: the value. An empty one (a cpuset that follows its parent) is written as a newline:
    the kernel ignores a write of nothing."""
    return text.strip() or "\n"


class Setting(NamedTuple):
    """One limit.

    :param controller: by its v1 name, "" for files of the core.
    :param choices: (file, what is written) pairs, of which the first file that exists is taken.
    :param option: the user's option, ``given``: the user's own figure; both for messages.
    :param asked: False for a default that nobody asked for: it is left out where this kernel has no such file.
    :param before: from the file's text to what restores it.
    """

    controller: str
    choices: tuple[tuple[str, str], ...]
    option: str
    given: Any
    asked: bool = True
    before: Callable[[str], str] = whole


def one(controller: str, name: str, value: object, option: str, given: Any = None, asked: bool = True) -> list[Setting]:
    """The row of a file with one value; none where ``value`` is None."""
    return [] if value is None else [Setting(controller, ((name, str(value)),), option, value if given is None else given, asked)]


def line(key: str, unset: str) -> Callable[[str], str]:
    """For a file with one line a key (``8:0 rbps=…``): that line as it is now, ``unset`` where there is none."""

    def before(text: str) -> str:
        return next((found for found in text.splitlines() if found.split(" ", 1)[0] == key), unset)

    return before


def device(row: dict[str, Any]) -> str:
    """``major:minor`` of an OCI object about a block device."""
    return f"{int(row['major'])}:{int(row['minor'])}"


def processors(cpu: dict[str, Any]) -> str:
    """``--cpus`` as it was given, from quota and period."""
    return f"{(cpu.get('quota') or 0) / (cpu.get('period') or 100000):g}"


def bandwidth_option(cpu: dict[str, Any]) -> tuple[str, Any]:
    """(option, figure) for messages: Docker's ``--cpus`` is a quota of the kernel's own period."""
    if cpu.get("period") == 100000 and (cpu.get("quota") or 0) > 0:  # as to_oci writes it
        return "--cpus", processors(cpu)
    return "--cpu-quota", cpu.get("quota")


def swap_total(memory: dict[str, Any]) -> tuple[int | None, bool]:
    """(memory plus swap in bytes, whether it was asked for).

    Exactly twice the memory is what :func:`.limits.to_oci` writes when only ``--memory`` is given, as Docker does: a default, which is
    left out on a kernel that does not account swap. Memory without a limit needs swap without one.
    """
    limit, swap = memory.get("limit"), memory.get("swap")
    if swap is None:
        return (-1, False) if limit is not None and limit < 0 else (None, False)
    return swap, limit is None or swap != 2 * limit


def pids_max(limit: int | None) -> object:
    return None if limit is None else "max" if limit <= 0 else limit


def rdma(resources: dict[str, Any]) -> list[Setting]:
    """The same file in both versions (rdma.rst)."""
    rows = []
    for name, limits in (resources.get("rdma") or {}).items():
        pairs = (("hca_handle", limits.get("hcaHandles")), ("hca_object", limits.get("hcaObjects")))
        text = " ".join([name, *(f"{key}={value}" for key, value in pairs if value is not None)])
        rows.append(Setting("rdma", (("rdma.max", text),), "rdma", text, True, line(name, f"{name} hca_handle=max hca_object=max")))
    return rows


NO_DISK = "the kernel knows no such disk (a partition is limited through its whole disk)"


class Refused(Exception):
    """A row that the kernel refused."""

    def __init__(self, row: Setting, name: str, error: OSError) -> None:
        self.row, self.name, self.error = row, name, error


class Transaction:
    """Settings that are all made, or none.

    The kernel checks each file against others (memory against memory plus swap, quota against period and burst, a child against its
    parent), so a write may be refused (EINVAL) until another one is made, and which comes first depends on what is set now. So: whatever
    is refused waits, and is tried again as long as others get through. Every pair of valid states can be crossed like that, since each
    of these rules compares two figures: one of the two orders never breaks it.

    :param fresh: the group was made just now and is removed when something is refused: what it has is not read first.
    """

    __slots__ = ("_done", "_fresh")

    def __init__(self, fresh: bool = False) -> None:
        self._done: list[tuple[str, str]] = []
        self._fresh = fresh

    def apply(self, rows: list[tuple[Setting, str]]) -> None:
        """Write each row in its folder. :raises Refused: the first that cannot be written; what was written before it still stands."""
        waiting = rows
        while waiting:
            refused = []
            for row, folder in waiting:
                found = self._write(row, folder)
                if found is not None:
                    refused.append(((row, folder), found))
            if len(refused) == len(waiting):
                raise refused[0][1]
            waiting = [pair for pair, _ in refused]

    def _write(self, row: Setting, folder: str) -> Refused | None:
        """None when it is written; the refusal when another row may have to come first."""
        name, value = row.choices[-1]
        for choice in row.choices[:-1]:
            if os.path.exists(f"{folder}/{choice[0]}"):
                name, value = choice
                break
        path = f"{folder}/{name}"
        try:
            old = "" if self._fresh else row.before(files.read(path))
            files.write(path, value)
        except OSError as error:
            if error.errno == errno.ENOENT and not row.asked:
                return None
            refusal = Refused(row, name, error)
            if error.errno == errno.EINVAL:
                return refusal
            raise refusal from None
        if not self._fresh:
            self._done.append((path, old))
        return None

    def undo(self) -> None:
        """Put everything back, as far as the kernel lets us (memory in use meanwhile may be more than the old limit)."""
        waiting = self._done[::-1]
        while waiting:
            refused = []
            for path, old in waiting:
                try:
                    _put_back(path, old)
                except OSError:
                    refused.append((path, old))
            if len(refused) == len(waiting):
                break
            waiting = refused
        self._done = []


def _put_back(path: str, old: str) -> None:
    try:
        files.write(path, old)
    except OSError as error:
        # A v2 cpuset that was never set follows its parent; with processes in it, it takes no empty list any more (validate_change in
        # kernel/cgroup/cpuset.c). What the parent has is the same then, as long as that stays.
        if error.errno != errno.ENOSPC or old != "\n":
            raise
        folder, name = os.path.split(path)
        files.write(path, files.read(f"{os.path.dirname(folder)}/{name}.effective").strip())
