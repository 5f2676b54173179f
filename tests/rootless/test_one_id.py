"""With a single id: changes of owner and user are answered as done, owners recorded, and package managers work."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from .conftest import Somebody

NONE = ("--network", "none")


@pytest.fixture
def single(people: Callable[..., Somebody]) -> Iterator[Somebody]:
    found = people(ranges=False)
    found.tidy()
    yield found
    found.tidy()


def shell(somebody: Somebody, script: str, *options: str, code: int = 0) -> str:
    return somebody("run", "--rm", *NONE, *options, "host", "sh", "-c", script, code=code)


def python(somebody: Somebody, script: str) -> str:
    return somebody("run", "--rm", *NONE, "host", "python3", "-c", script)


def test_without_the_agent_it_fails(single: Somebody) -> None:
    """What all of this is for: the kernel refuses an id that is not mapped."""
    shell(single, "touch /srv/x; chown 33 /srv/x", "--security-opt", f"seccomp={_open_profile(single)}", code=1)
    assert "Invalid argument" in single.stderr


def _open_profile(somebody: Somebody) -> str:
    """A profile that has a listener already keeps it: nothing of ours is put into it. Nobody listens there, and nothing is handed over."""
    path = f"{somebody.folder}/open.json"
    with open(path, "w", encoding="ascii") as file:
        file.write('{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nobody", "syscalls": []}')
    return path


def test_owners_are_recorded(single: Somebody) -> None:
    script = (
        "import os\n"
        "os.makedirs('/srv/d'); open('/srv/d/f', 'w').close(); os.symlink('f', '/srv/d/l'); os.mkfifo('/srv/d/p')\n"
        "show = lambda p: os.getxattr(p, 'user.pycontainers.owner').decode()\n"
        "os.chown('/srv/d', 1000, 1001); os.chown('/srv/d/l', 5, 6); print(show('/srv/d'), show('/srv/d/f'))\n"
        "os.lchown('/srv/d/l', 7, 7); os.chown('/srv/d/p', 7, 7); print(show('/srv/d/f'))\n"
        "os.chdir('/srv/d'); os.chown('f', -1, 9); print(show('f'))\n"
        "fd = os.open('/srv', os.O_RDONLY); os.chown('d/../d/f', 8, -1, dir_fd=fd); print(show('f'))\n"
        "fd = os.open('f', os.O_RDWR); os.fchown(fd, 0, 0); print(os.listxattr('f'))\n"
        "try: os.chown('/srv/none', 1, 1)\nexcept OSError as error: print(error.strerror)\n"
        "try: os.chown('/proc/self/none', 1, 1)\nexcept OSError as error: print(error.strerror)\n"
    )
    assert python(single, script).splitlines() == ["1000:1001 5:6", "5:6", "5:9", "8:9", "[]", *["No such file or directory"] * 2]


def test_a_chroot_inside_is_respected(single: Somebody) -> None:
    script = (
        "import os\n"
        "os.makedirs('/srv/r/etc'); open('/srv/r/etc/f', 'w').close(); os.symlink('/etc/f', '/srv/r/link'); open('/etc/f', 'w').close()\n"
        "if not os.fork():\n    os.chroot('/srv/r'); os.chdir('/'); os.chown('/link', 4, 4); os._exit(0)\n"
        "os.wait(); print(os.getxattr('/srv/r/etc/f', 'user.pycontainers.owner').decode(), os.listxattr('/etc/f'))\n"
    )
    assert python(single, script) == "4:4 []\n"


def test_who_has_become_somebody_hears_so(single: Somebody) -> None:
    script = (
        "import os\n"
        "os.setgroups([5, 6]); os.setresgid(7, 7, 8); os.setresuid(1, 2, 3)\n"
        "print(os.getresuid(), os.getresgid(), os.getgroups(), os.getuid(), os.geteuid())\n"
        "for call in (lambda: os.setuid(0), lambda: os.setgroups([]), lambda: os.setgid(0)):\n"
        "    try: call()\n    except PermissionError: print('refused')\n"
        "os.seteuid(3); print(os.geteuid(), flush=True)\n"
        "if not os.fork(): os.execvp('id', ['id', '-u'])\n"
        "os.wait(); os.execvp('id', ['id', '-ru'])\n"
    )
    lines = python(single, script).splitlines()
    assert lines == ["(1, 2, 3) (7, 7, 8) [5, 6] 1 2", "refused", "refused", "refused", "3", "3", "1"]


def test_user_option(single: Somebody) -> None:
    found = shell(single, "id -u; id -g; grep -h CapEff /proc/self/status; touch /tmp/mine && echo written", "--user", "1000:33")
    assert found.split() == ["1000", "33", "CapEff:", "0000000000000000", "written"]
    name = single("run", "-d", *NONE, "host", "sleep", "60").strip()
    assert single("exec", "--user", "33", name, "id", "-u") == "33\n"
    assert single("exec", name, "sh", "-c", "id -u; touch /srv/x && chown 5 /srv/x && echo given") == "0\ngiven\n"


def test_device_nodes_are_answered_as_made(single: Somebody) -> None:
    assert shell(single, "mknod /srv/null c 1 3 && mknod /srv/p p && stat -c %F /srv/null /srv/p") == "regular empty file\nfifo\n"


def test_tar_keeps_owners_as_root_does(single: Somebody) -> None:
    script = (
        "cd /tmp && mkdir a && echo x > a/f && tar --owner=33 --group=44 -cf a.tar a && mkdir b && tar -xpf a.tar -C b --same-owner && "
        "python3 -c \"import os; print(os.getxattr('/tmp/b/a/f', 'user.pycontainers.owner').decode())\""
    )
    # /tmp is a folder of the root file system, on the disk
    assert shell(single, script) == "33:44\n"


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is missing: not a Debian machine")
def test_dpkg_installs(single: Somebody) -> None:
    """A package whose script makes a user, and gives and becomes him."""
    root = f"{single.home}/package"
    os.makedirs(f"{root}/DEBIAN")
    os.makedirs(f"{root}/opt/pyct-tried")
    with open(f"{root}/opt/pyct-tried/data", "w", encoding="ascii") as file:
        file.write("data\n")
    with open(f"{root}/DEBIAN/control", "w", encoding="ascii") as file:
        file.write("Package: pyct-tried\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: tried\n")
    with open(f"{root}/DEBIAN/postinst", "w", encoding="ascii") as file:
        file.write(
            "#!/bin/sh\nset -e\ngroupadd --system tried\nuseradd --system --gid tried tried\nchown -R tried:tried /opt/pyct-tried\n"
            "su -s /bin/sh tried -c 'echo became $(id -un)'\n"
        )
    os.chmod(f"{root}/DEBIAN/postinst", 0o755)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, f"{single.home}/tried.deb"], check=True, capture_output=True)
    name = single("run", "-d", *NONE, "-v", f"{single.home}/tried.deb:/tried.deb:ro", "host", "sleep", "100").strip()
    said = single("exec", name, "dpkg", "-i", "/tried.deb")
    assert "became tried" in said
    assert single("exec", name, "dpkg-query", "-W", "-f", "${Status}", "pyct-tried") == "install ok installed"
    assert single("exec", name, "dpkg", "-r", "pyct-tried")
