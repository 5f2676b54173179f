"""Rights that a process inside could gain: file capabilities, set-uid, the caller's terminal, cgroups, mounts, devices, the kernel."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from pycontainers.protocol import ContainerConfig, Mount, Resources
from pycontainers.runtime import client

pytestmark = pytest.mark.root


def capable_chown(tree: Path) -> None:
    """``chown`` with CAP_CHOWN in its *inheritable* file capabilities: capabilities(7), struct vfs_cap_data version 2."""
    (tree / "opt").mkdir()
    shutil.copy(os.path.realpath(shutil.which("chown") or ""), tree / "opt/chown")
    os.setxattr(tree / "opt/chown", "security.capability", struct.pack("<IIIII", 0x02000001, 0, 1, 0, 0))


class TestInheritableCapabilities:
    """CVE-2022-27650: inheritable capabilities of an exec turn the file capabilities of a program into rights of any user."""

    def attack(self, engine: Any, image: str, running: Any, execute: Any, **config: Any) -> str:
        container = running(engine, image=image, **config)
        return str(execute(engine, container, "sh", "-c", "/opt/chown 7:7 /opt && stat -c %u /opt", user="65534:65534"))

    def test_succeeds_when_they_are_inheritable(self, without: Any, image_with: Any, running: Any, execute: Any) -> None:
        assert self.attack(without("no_inheritable"), image_with(capable_chown), running, execute) == "7\n"

    def test_no_new_privileges_alone_would_hold(self, without: Any, image_with: Any, running: Any, execute: Any) -> None:
        weak, image = without("no_inheritable"), image_with(capable_chown)
        assert "not permitted" in self.attack(weak, image, running, execute, security_opt=("no-new-privileges",))

    def test_fails_here(self, engine: Any, image_with: Any, running: Any, execute: Any) -> None:
        assert "not permitted" in self.attack(engine, image_with(capable_chown), running, execute)

    def test_no_capability_is_inheritable_or_ambient(self, engine: Any, output: Any, running: Any, execute: Any) -> None:
        container = running(engine)
        for said in (output(engine, "cat", "/proc/self/status"), execute(engine, container, "cat", "/proc/self/status")):
            found = dict(line.split(":\t") for line in said.splitlines() if line.startswith("Cap"))
            assert found["CapInh"] == found["CapAmb"] == "0" * 16


class TestTyping:
    """CVE-2017-5226: what a container types into the terminal that it was started from (TIOCSTI) is executed by the caller's shell.

    Linux asks for CAP_SYS_ADMIN since 6.2 (dev.tty.legacy_tiocsti), before that for the terminal being one's own: a session of our
    own, no capability, and no terminal of the caller at all are three protections. The third is taken out on both sides: the
    descriptor of a terminal is handed in as stdin.
    """

    TYPE = "import fcntl\nfor c in b'reboot\\n': fcntl.ioctl(0, 0x5412, bytes([c]))"

    def attack(self, engine: Any) -> bytes:
        master, slave = pty.openpty()
        try:
            state = termios.tcgetattr(slave)
            state[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(slave, termios.TCSANOW, state)
            info = engine.create(ContainerConfig("host", ("python", "-c", self.TYPE), network="none", userns="host", auto_remove=True))
            for _ in client.start_attached(engine.paths, info.id, stdin=slave).stream():
                pass
            os.set_blocking(slave, False)
            with contextlib.suppress(BlockingIOError):
                return os.read(slave, 100)
            return b""
        finally:
            os.close(master)
            os.close(slave)

    def test_succeeds_with_all_capabilities(self, without: Any) -> None:
        assert self.attack(without("bounded_capabilities", "filter")) == b"reboot\n"

    def test_fails_here(self, engine: Any) -> None:
        assert self.attack(engine) == b""

    def test_there_is_no_terminal_inside(self, engine: Any, output: Any, running: Any, execute: Any) -> None:
        script = "import os\ntry: os.open('/dev/tty', os.O_RDWR)\nexcept OSError as e: print(e.errno)"
        container = running(engine)
        assert output(engine, "python", "-c", script) == execute(engine, container, "python", "-c", script) == "6\n"


class TestCgroups:
    """CVE-2023-25809: a cgroup that can be written from inside: limits are raised, and on v1 ``release_agent`` runs on the host.

    The attacker is root of the machine's own user namespace: with a user namespace of its own nobody owns the files.
    """

    RAISE = (
        "import glob, os\n"
        "for path in glob.glob('/sys/fs/cgroup/**/pids.max', recursive=True):\n"
        "    try: open(path, 'w').write('max')\n"
        "    except OSError as error: print(error.strerror)\n"
        "    print('limit', open(path).read().strip())\n"
    )

    def attack(self, engine: Any, output: Any) -> str:
        return str(output(engine, "python", "-c", self.RAISE, userns="host", resources=Resources(pids_limit=77)))

    def test_succeeds_when_mounted_writable(self, without: Any, output: Any) -> None:
        if not Path("/sys/fs/cgroup/pids").is_dir() and "nsdelegate" in Path("/proc/self/mountinfo").read_text():
            pytest.skip("nsdelegate: the kernel itself refuses to write limits at the root of a cgroup namespace (cgroup-v2.rst)")
        assert self.attack(without("read_only_cgroups"), output) == "limit max\n"

    def test_fails_here(self, engine: Any, output: Any) -> None:
        assert self.attack(engine, output) == "Read-only file system\nlimit 77\n"

    def test_nothing_of_the_hosts_tree_is_shown(self, engine: Any, output: Any) -> None:
        """The root of what is mounted is the container's own group: no other group lies beside it."""
        said = output(
            engine, "sh", "-c", "cat /proc/self/cgroup; find /sys/fs/cgroup -mindepth 2 -type d; ls /sys/fs/cgroup/*/release_agent"
        )
        assert "pycontainers" not in said
        assert "/release_agent\n" not in said.replace("cannot access", "")


MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, *arguments):
    if libc.mount(*arguments) == 0: print(name)
remount, bind, rec = 32, 4096, 16384
if len(sys.argv) > 1:  # a user namespace of one's own, where one has every capability
    ids = os.getuid()
    if libc.unshare(0x10000000 | 0x00020000): print('no namespace', ctypes.get_errno()); sys.exit()
    attempt('private', None, b'/', None, rec | (1 << 18), None)
for path in filter(os.path.exists, (b'/proc/sys', b'/sys', b'/sys/fs/cgroup', b'/proc/sysrq-trigger')):
    attempt('remounted ' + path.decode(), None, path, None, remount | bind | 2 | 4 | 8, None)
    if not os.statvfs(path).f_flag & 1: print('writable ' + path.decode())
for path in (b'/proc/keys', b'/proc/kcore', b'/sys/firmware', b'/proc/sys'):
    if libc.umount2(path, 2) == 0: print('uncovered ' + path.decode())
os.makedirs('/tmp/p', exist_ok=True)
attempt('a new proc', b'proc', b'/tmp/p', b'proc', 0, None)
attempt('a new sysfs', b'sysfs', b'/tmp/p', b'sysfs', 0, None)
attempt('a new cgroup', b'cgroup', b'/tmp/p', b'cgroup', 0, b'memory')
attempt('a bind of proc', b'/proc', b'/tmp/p', None, bind, None)
print('tried')
"""


class TestUncovering:
    """Masks taken off, read-only parts made writable: by mounts, or in a user namespace made inside, where one is root again."""

    def attack(self, engine: Any, output: Any, **config: Any) -> list[str]:
        return list(output(engine, "python", "-c", MOUNT, *config.pop("arguments", ()), **config).splitlines())

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_succeeds_with_all_capabilities(self, without: Any, output: Any, userns: str) -> None:
        found = self.attack(without("bounded_capabilities", "filter"), output, userns=userns)
        assert "writable /proc/sys" in found
        assert "uncovered /proc/keys" in found

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_fails_here(self, engine: Any, output: Any, userns: str) -> None:
        assert self.attack(engine, output, userns=userns) == ["tried"]

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_a_user_namespace_inside_is_refused(self, engine: Any, output: Any, userns: str) -> None:
        assert self.attack(engine, output, userns=userns, arguments=("inside",)) == ["no namespace 1"]

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_in_a_user_namespace_inside_the_mounts_stay_locked(self, without: Any, output: Any, userns: str) -> None:
        """Without the filter it can be made; what covers and freezes is locked then, mount_namespaces(7), and a new proc would have
        to show no more than the one that is there."""
        found = self.attack(without("filter"), output, userns=userns, arguments=("inside",))
        assert found[0] in ("private", "no namespace 1")
        assert not [line for line in found if line.startswith(("writable", "uncovered", "a new"))], found


class TestDevices:
    """A device node made inside is the host's disk."""

    MAKE = "import os; os.mknod('/tmp/null', 0o20666, os.makedev(1, 3)); print('made'); os.open('/tmp/null', os.O_RDWR); print('opened')"

    def test_succeeds_with_all_capabilities(self, without: Any, output: Any) -> None:
        assert output(without("bounded_capabilities", "nodev"), "python", "-c", self.MAKE, userns="host") == "made\nopened\n"

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_fails_here(self, engine: Any, output: Any, userns: str) -> None:
        assert "Operation not permitted" in output(engine, "python", "-c", self.MAKE, userns=userns)

    @pytest.mark.parametrize(("config", "said"), [({"privileged": True}, "6"), ({"cap_add": ("MKNOD",)}, "1")], ids=["all rights", "mknod"])
    def test_right_to_make_nodes_is_not_the_right_to_open_them(self, engine: Any, output: Any, config: Any, said: str) -> None:
        """The device rules of the cgroup decide: ENXIO, there is no such device, where they let through; EPERM where they do not."""
        open_it = (
            "import os\nos.mknod('/tmp/x', 0o20666, os.makedev(4000, 0))\n"
            "try: os.open('/tmp/x', os.O_RDWR)\nexcept OSError as error: print(error.errno)"
        )
        assert output(engine, "python", "-c", open_it, userns="host", **config).strip() == said

    def disks(self, engine: Any, output: Any, userns: str) -> str:
        script = (
            "import os, stat\nfor name in os.listdir('/dev'):\n    path = '/dev/' + name\n"
            "    mode = os.lstat(path).st_mode\n"
            "    if (stat.S_ISBLK(mode) or name in ('mem', 'kmsg', 'port')) and not mode & 4:\n"  # not what anybody may read
            "        try: os.open(path, os.O_RDONLY | os.O_NONBLOCK); print('opened', path)\n"
            "        except OSError: print('closed', path)\n"
        )
        return str(output(engine, "python", "-c", script, privileged=True, userns=userns))

    def test_privileged_opens_the_disks_as_root_of_this_machine(self, engine: Any, output: Any) -> None:
        assert "opened" in self.disks(engine, output, "host")

    def test_privileged_in_a_user_namespace_opens_none(self, engine: Any, output: Any) -> None:
        said = self.disks(engine, output, "auto")
        assert "closed" in said, "there is no disk to be seen: the attack is not tried"
        assert "opened" not in said

    def test_node_on_a_volume_does_not_open(self, engine: Any, output: Any, tmp_path: Path) -> None:
        os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
        (tmp_path / "null").chmod(0o666)
        said = output(engine, "cat", "/v/null", userns="host", mounts=(Mount("bind", "/v", str(tmp_path)),))
        assert "Permission denied" in said

    def from_layer(self, engine: Any, image_with: Any, output: Any, userns: str) -> str:
        """A layer is unpacked by root: a node in it is real, and with a mode of 666 anybody's."""
        image = image_with(lambda tree: os.mknod(tree / "node", 0o20666, os.makedev(1, 3)))
        return str(output(engine, "dd", "if=/node", "count=1", image=image, userns=userns))

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_node_in_a_layer_opens_without_nodev(self, without: Any, image_with: Any, output: Any, userns: str) -> None:
        assert "0+0 records in" in self.from_layer(without("nodev"), image_with, output, userns)

    @pytest.mark.parametrize("userns", ["auto", "host"])
    def test_node_in_a_layer_does_not_open(self, engine: Any, image_with: Any, output: Any, userns: str) -> None:
        assert "Permission denied" in self.from_layer(engine, image_with, output, userns)


class TestSetUidFileSeenFromTheHost:
    """CVE-2021-41091: on disk, what root inside wrote belongs to root. An accomplice on the host, who is nobody, runs it there."""

    def attack(self, engine: Any, running: Any, execute: Any, mode: int | None = None) -> int:
        """The effective user of the accomplice's process, or -1 where he does not reach the file. ``mode``: of our folder."""
        container = running(engine)
        execute(engine, container, "sh", "-c", "cp $(command -v id) /tmp/id && chmod 4755 /tmp/id")
        found = [path for path in Path(engine.find(container).folder, "upper").glob("*/tmp/id") if path.stat().st_mode & 0o4000]
        assert found, "the set-uid file is not there: the attack is not tried"
        ours = engine.paths.containers
        before = ours.stat().st_mode & 0o777
        ours.chmod(before if mode is None else mode)
        engine.paths.home.parent.chmod(0o711)  # of the test; on a real machine this is /var/lib
        try:
            done = subprocess.run([found[0], "-u"], user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=True)
        except PermissionError:
            return -1
        finally:
            engine.paths.home.parent.chmod(0o700)
            ours.chmod(before)
        return int(done.stdout)

    def test_succeeds_when_folders_can_be_passed_through(self, engine: Any, running: Any, execute: Any) -> None:
        assert self.attack(engine, running, execute, mode=0o711) == 0

    def test_fails_here(self, engine: Any, running: Any, execute: Any) -> None:
        assert self.attack(engine, running, execute) == -1


KERNEL = """
import os
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/fs/binfmt_misc/register', '/proc/sysrq-trigger', '/proc/sys/kernel/modprobe',
             '/sys/kernel/uevent_helper', '/sys/kernel/mm/ksm/run', '/proc/irq/0/smp_affinity', '/proc/acpi/wakeup', '/proc/mtrr'):
    try:
        fd = os.open(path, os.O_WRONLY); print('opened', path)
    except OSError as error: pass
for path in ('/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/kmsg', '/dev/mem', '/dev/kmsg', '/sys/firmware/dmi/tables/DMI'):
    try:
        if os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 64): print('read', path)
    except OSError as error: pass
print('tried')
"""


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_files_by_which_the_kernel_runs_programs_or_tells_secrets(engine: Any, output: Any, userns: str) -> None:
    found = output(engine, "python", "-c", KERNEL, userns=userns).splitlines()
    assert found == ["tried"]


def test_those_files_are_open_without_masks(without: Any, output: Any) -> None:
    found = output(without("masks"), "python", "-c", KERNEL, userns="host").splitlines()
    assert "opened /proc/sys/kernel/core_pattern" in found
    assert "read /proc/keys" in found


def test_keyring_is_its_own(engine: Any, output: Any) -> None:
    """keyctl is refused by the filter, and /proc/keys is masked."""
    script = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(250, 0, -3, 0), ctypes.get_errno())"
    assert output(engine, "python", "-c", script) == "-1 1\n"
