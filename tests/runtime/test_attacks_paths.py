"""Links where an image or a volume may put them: what we mount, make and write must land where it is meant to."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.linux import mounts
from pycontainers.protocol import ContainerConfig, Mount
from pycontainers.runtime import confine

pytestmark = pytest.mark.root


def output(engine: Any, *command: str, image: str = "host", **config: Any) -> str:
    collected = bytearray()
    asked = ContainerConfig(image, command, network=config.pop("network", "none"), auto_remove=True, **config)
    engine.run(asked, None, lambda stream, data: collected.extend(data))
    return collected.decode()


class TestProcIsALink:
    """CVE-2019-19921, CVE-2023-27561: /proc of the image is a link, so that what we hide and freeze in /proc is elsewhere."""

    LOOK = "import os; print('frozen' if os.statvfs('/srv/sys').f_flag & os.ST_RDONLY else 'writable')"

    def attack(self, engine: Any, image_with: Any) -> str:
        name = image_with(lambda tree: (tree / "proc").symlink_to("/srv"))
        return output(engine, "python", "-c", self.LOOK, image=name)

    def test_succeeds_without_the_link_check(self, without: Any, image_with: Any) -> None:
        """Weakened twice: a masked path that leads through a link is refused as well."""
        assert self.attack(without("link_check", "exact_paths"), image_with) == "writable\n"

    def test_exact_paths_alone_refuse_it(self, without: Any, image_with: Any) -> None:
        with pytest.raises(errors.IsolationError, match="is a link"):
            self.attack(without("link_check"), image_with)

    def test_fails_here(self, engine: Any, image_with: Any, remains: Any) -> None:
        before = remains()
        with pytest.raises(errors.IsolationError, match="/proc is a link"):
            self.attack(engine, image_with)
        assert remains() == before


class TestSysIsALink:
    """CVE-2019-19921 for /sys."""

    def attack(self, engine: Any, image_with: Any) -> str:
        return output(engine, "ls", "/srv/class", image=image_with(lambda tree: (tree / "sys").symlink_to("/srv")))

    def test_succeeds_without_the_link_check(self, without: Any, image_with: Any) -> None:
        assert "net" in self.attack(without("link_check", "exact_paths"), image_with)

    def test_fails_here(self, engine: Any, image_with: Any) -> None:
        with pytest.raises(errors.IsolationError, match="/sys is a link"):
            self.attack(engine, image_with)


class TestDevIsALink:
    """CVE-2026-41579, CVE-2026-47766: our file system of device nodes is mounted where the image points."""

    def attack(self, engine: Any, image_with: Any) -> str:
        name = image_with(lambda tree: (tree / "dev").symlink_to("/srv"))
        return output(engine, "stat", "-c", "%F", "/srv/null", image=name)

    def test_succeeds_without_the_link_check(self, without: Any, image_with: Any) -> None:
        assert self.attack(without("link_check"), image_with) == "character special file\n"

    def test_fails_here(self, engine: Any, image_with: Any) -> None:
        with pytest.raises(errors.IsolationError, match="/dev is a link"):
            self.attack(engine, image_with)


class TestVolumeInProc:
    """CVE-2019-16884, CVE-2025-52881: a volume inside /proc takes what the runtime writes there; here a sysctl, which is then not set."""

    def attack(self, engine: Any, shared: Path) -> bool:
        taken = shared / "ip_unprivileged_port_start"
        taken.touch()
        (shared / "ping_group_range").touch()
        for file in (shared, *shared.iterdir()):
            file.chmod(0o777)
        output(engine, "true", mounts=(Mount("bind", "/proc/sys/net/ipv4", str(shared)),))
        return taken.read_text() != ""

    def test_succeeds_without_the_look_at_the_file_system(self, without: Any, tmp_path: Path) -> None:
        assert self.attack(without("volumes_in_proc", "redirected_sysctls"), tmp_path)

    def test_a_redirected_write_alone_is_noticed(self, without: Any, tmp_path: Path) -> None:
        with pytest.raises(errors.IsolationError, match="cross-device"):
            self.attack(without("volumes_in_proc"), tmp_path)

    def test_fails_here(self, engine: Any, tmp_path: Path) -> None:
        with pytest.raises(errors.IsolationError, match="inside /proc"):
            self.attack(engine, tmp_path)

    @pytest.mark.parametrize("target", ["/proc", "/proc/self/attr", "/way/1", "/way/self/fd"])
    def test_by_any_name(self, engine: Any, image_with: Any, target: str) -> None:
        name = image_with(lambda tree: (tree / "way").symlink_to("/proc"))
        with pytest.raises(errors.ContainersError):
            output(engine, "true", image=name, mounts=(Mount("tmpfs", target),))


class TestLabelInAFalseProc:
    """CVE-2019-16884 by exec: process 1 has chrooted to a tree with a /proc of plain files, which would take the security label."""

    def attack(self, tree: Path) -> str:
        """What the label was written to, by a process in ``tree``."""
        (tree / "proc/self/attr/apparmor").mkdir(parents=True)
        (tree / "proc/self/attr/apparmor/exec").touch()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(errors.ContainersError):
                os.chroot(tree)
                confine._label([("apparmor", "some-profile")])
            os._exit(0)
        os.waitpid(pid, 0)
        return (tree / "proc/self/attr/apparmor/exec").read_text()

    def test_succeeds_without_the_look_at_the_file_system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mounts, "filesystem", lambda fd: mounts.PROC_SUPER_MAGIC)
        assert self.attack(tmp_path) == "exec some-profile"

    def test_fails_here(self, tmp_path: Path) -> None:
        assert self.attack(tmp_path) == ""


class TestSharedMemoryOfAnother:
    """``--ipc container:A``: A's process 1 has chrooted (it may) to a tree whose dev/shm is a link to /, which would be bound into B."""

    CHROOT = (
        "import os, time\nos.makedirs('/srv/evil/dev')\nos.symlink('/', '/srv/evil/dev/shm')\nos.chroot('/srv/evil')\n"
        "print('chrooted', flush=True)\ntime.sleep(100)"
    )

    def attack(self, engine: Any, output: Any, running: Any) -> str:
        container = running(engine, "python", "-c", self.CHROOT, ipc="shareable")
        assert next(engine.logs(container, follow=True)).text == "chrooted"
        return str(output(engine, "ls", "/dev/shm", ipc=f"container:{container}"))

    def test_succeeds_by_its_path(self, without: Any, output: Any, running: Any) -> None:
        assert "etc\n" in self.attack(without("own_root_of_others"), output, running)

    def test_fails_here(self, engine: Any, output: Any, running: Any) -> None:
        assert self.attack(engine, output, running) == ""


class TestNullIsALink:
    """CVE-2025-31133: what covers masked files is bound from /dev/null; a volume on /dev has a link there, to a file to be written."""

    WRITE = "import os; open('/proc/keys', 'w').write('taken-over'); print(os.uname().nodename)"

    def attack(self, engine: Any, shared: Path) -> str:
        (shared / "null").symlink_to("/proc/sys/kernel/hostname")  # any file of /proc/sys would do; this one is the container's own
        return output(engine, "python", "-c", self.WRITE, userns="host", mounts=(Mount("bind", "/dev", str(shared)),))

    def test_succeeds_without_the_check(self, without: Any, tmp_path: Path) -> None:
        assert self.attack(without("null_check"), tmp_path) == "taken-over\n"

    def test_fails_here(self, engine: Any, tmp_path: Path) -> None:
        with pytest.raises(errors.IsolationError, match="not the null device"):
            self.attack(engine, tmp_path)

    def test_proc_sys_is_not_writable_otherwise(self, engine: Any) -> None:
        script = "open('/proc/sys/kernel/hostname', 'w')"
        assert "Read-only file system" in output(engine, "python", "-c", script, userns="host")


class TestConsoleFromALink:
    """CVE-2025-52565: /dev/console is bound from /dev/pts/N before anything is masked; a volume on /dev/pts has a link there."""

    WRITE = "import os; open('/dev/console', 'w').write('taken-over'); print(os.uname().nodename)"

    def attack(self, engine: Any, output: Any, shared: Path) -> str:
        for name in ("0", "1", "ptmx"):
            (shared / name).symlink_to("/proc/sys/kernel/hostname")
        config = {"tty": True, "userns": "host", "mounts": (Mount("bind", "/dev/pts", str(shared)),)}
        return str(output(engine, "python", "-c", self.WRITE, **config))

    def test_succeeds_by_the_path_of_the_terminal(self, without: Any, output: Any, tmp_path: Path) -> None:
        assert self.attack(without("console_by_descriptor"), output, tmp_path) == "taken-over\r\n"

    def test_fails_here(self, engine: Any, output: Any, tmp_path: Path) -> None:
        with pytest.raises(errors.IsolationError, match="terminal"):
            self.attack(engine, output, tmp_path)

    def test_link_in_the_place_of_the_console_is_refused(self, engine: Any, output: Any, tmp_path: Path) -> None:
        (tmp_path / "console").symlink_to("/proc/sys/kernel/hostname")
        (tmp_path / "pts").mkdir()
        with pytest.raises(errors.IsolationError):
            output(engine, "true", tty=True, userns="host", mounts=(Mount("bind", "/dev", str(tmp_path)),))

    def test_exec_takes_no_terminal_from_elsewhere(self, engine: Any, running: Any, execute: Any, tmp_path: Path) -> None:
        """An exec opens a terminal of the running container, whose /dev/pts is a volume with a file in the place of ptmx."""
        (tmp_path / "ptmx").write_text("not a terminal")
        container = running(engine, mounts=(Mount("bind", "/dev/pts", str(tmp_path)),))
        with pytest.raises(errors.ContainersError):
            execute(engine, container, "true", tty=True)


SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
folder, link = sys.argv[1].encode(), sys.argv[2].encode()
print("swapping", flush=True)
while True:
    libc.renameat2(-100, folder, -100, link, 2)  # RENAME_EXCHANGE: there is always something at both names
"""


@pytest.fixture
def swapper() -> Iterator[Path]:
    """A shared folder in which somebody exchanges ``a``, a folder, and a link to ``../outside`` (by its full path), without a pause."""
    base = Path(tempfile.mkdtemp(prefix="pyct-race-", dir="/var/tmp"))  # open to all: the attack must not fail for want of rights
    shared, outside = base / "shared", base / "outside"
    base.chmod(0o755)
    for folder in (shared, outside, shared / "a"):
        folder.mkdir()
        folder.chmod(0o777)
    (shared / "link").symlink_to(outside)
    process = subprocess.Popen([sys.executable, "-c", SWAP, shared / "a", shared / "link"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield shared
    process.kill()
    process.wait()
    process.stdout.close()
    shutil.rmtree(base)


class TestMakeRace:
    """CVE-2024-45310: a folder of a shared volume becomes a link between our look and our mkdir, and we make files on the host."""

    def attack(self, engine: Any, shared: Path, starts: int) -> bool:
        """So many starts, each with a mount point that must be made below the folder that is exchanged, until one goes wrong."""
        for number in range(starts):
            mounts = (Mount("bind", "/shared", str(shared)), Mount("tmpfs", f"/shared/a/made-{number}"))
            try:
                output(engine, "true", mounts=mounts)
            except errors.ContainersError:
                pass  # the link was there: refused
            if os.listdir(shared.parent / "outside"):
                return True
        return False

    def test_succeeds_when_folders_are_made_by_path(self, without: Any, swapper: Path) -> None:
        assert self.attack(without("resolution_in_root"), swapper, 500)

    def test_fails_here(self, engine: Any, swapper: Path) -> None:
        assert not self.attack(engine, swapper, 60)
        # The two are exchanged while we look, too: each may be the link just when it is its turn.
        looks = (os.listdir(folder) for _ in range(1000) for folder in swapper.iterdir() if not folder.is_symlink())
        assert any(looks), "no mount point was ever made: the race was not run"


def test_links_in_mount_targets_stay_inside(engine: Any, image_with: Any, tmp_path: Path) -> None:
    """The same without a race: a target whose parent is a link to a folder of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    name = image_with(lambda tree: (tree / "way").symlink_to(outside))
    assert str(outside) in output(engine, "readlink", "/way", image=name), "the link is not there: the attack is not tried"
    with pytest.raises(errors.IsolationError, match="link to nothing"):
        output(engine, "true", image=name, mounts=(Mount("tmpfs", "/way/made"),))
    assert list(outside.iterdir()) == []


def test_dangling_link_as_mount_target_does_not_create_on_the_host(engine: Any, image_with: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    name = image_with(lambda tree: (tree / "hole").symlink_to(victim))
    with pytest.raises(errors.ContainersError):
        output(engine, "true", image=name, mounts=(Mount("bind", "/hole", "/etc/hostname"),))
    assert not victim.exists()


@pytest.mark.parametrize("target", ["hosts", "hostname", "resolv.conf"])
def test_our_files_in_etc_are_not_written_through_links(engine: Any, image_with: Any, tmp_path: Path, target: str) -> None:
    """The image's /etc/hosts is a link to a file of the host, which we bind over: the one inside is covered, the host's is not."""
    victim = tmp_path / "victim"
    victim.write_text("as it was")

    def make(tree: Path) -> None:
        (tree / "etc").mkdir()
        (tree / "etc" / target).symlink_to(victim)

    with pytest.raises(errors.IsolationError, match="link to nothing"):
        output(engine, "true", image=image_with(make))
    assert victim.read_text() == "as it was"


def test_etc_that_is_a_link_to_the_hosts(engine: Any, image_with: Any, tmp_path: Path) -> None:
    victim = tmp_path / "etc"
    victim.mkdir()
    with pytest.raises(errors.IsolationError, match="link to nothing"):
        output(engine, "true", image=image_with(lambda tree: (tree / "etc").symlink_to(victim)))
    assert list(victim.iterdir()) == []
