"""Programs that run from a read-only copy of their mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pycontainers.linux import executable, mounts, namespaces

pytestmark = pytest.mark.root


def run(fd: int, name: str) -> str:
    """What the program, a shell, says about its own file."""
    script = "readlink /proc/$$/exe; stat -f -c %T /proc/$$/exe >/dev/null; chmod u+s /proc/$$/exe 2>&1 | sed 's/.*: //'; ls -l /proc/$$/fd"
    program = f"/proc/{os.getpid()}/fd/{fd}{name}"
    return subprocess.run(["sh", "-c", script], executable=program, capture_output=True, text=True, check=True).stdout


def test_program_on_the_root_mount_keeps_its_name_and_cannot_be_changed() -> None:
    real = os.path.realpath("/bin/sh")
    fd, name = executable.read_only(real)
    try:
        lines = run(fd, name).splitlines()
    finally:
        os.close(fd)
    assert name == real == lines[0]  # $ORIGIN of its libraries stays what it is
    assert lines[1] == "Read-only file system"
    assert not [line for line in lines if f" {fd} ->" in line], "the descriptor is not left open in the program"


def test_program_on_another_mount_is_found_there(tmp_path: Path) -> None:
    shell, reader, writer = os.path.realpath("/bin/sh"), *os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            mounts.mount("", "/", "", mounts.MS_REC | mounts.MS_SLAVE)
            mounts.mount("tmpfs", str(tmp_path), "tmpfs", 0, "size=8m")
            (tmp_path / "bin").mkdir()
            shutil.copy(shell, tmp_path / "bin" / "sh")
            fd, name = executable.read_only(str(tmp_path / "bin" / "sh"))
            environment: dict[str, str] = {}
            executable.guarded(str(tmp_path / "bin" / "sh"), environment)
            os.write(writer, f"{name}\n{run(fd, name)}\n{environment}".encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert said.startswith("/bin/sh\n/bin/sh\nRead-only file system\n"), said
    assert f"{{'LD_LIBRARY_PATH': '{tmp_path}/lib'}}" in said


def test_without_privilege_the_program_itself_is_run() -> None:
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        os._exit(executable.guarded("/bin/sh", {}) != ("/bin/sh", -1))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
