"""Locks that can be asked about: by whom they are held, how they end, and that nobody notices a question."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pycontainers.linux import locks


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def test_one_of_two_has_it_and_the_question_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = opened(path), opened(path)
    assert not locks.held(str(path))
    assert locks.take(first) and locks.held(str(path))
    assert not locks.take(second), "two open files of one process have the same lock"
    os.close(second)  # as it is not with F_SETLK, whose lock ends when the process closes any descriptor of the file
    assert locks.held(str(path))
    os.close(first)
    assert not locks.held(str(path))


def test_it_lasts_until_the_last_copy_is_closed_and_no_longer_than_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    fd = opened(path)
    assert locks.take(fd)
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    os.close(fd)
    assert locks.held(str(path)), "a fork holds what its parent held"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not locks.held(str(path))


def test_nobody_is_refused_because_somebody_asks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    pid = os.fork()
    if pid == 0:
        while True:
            locks.held(str(path))
    try:
        for _ in range(20_000):
            fd = opened(path)
            assert locks.take(fd)
            os.close(fd)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        locks.held(str(tmp_path / "lock"))
