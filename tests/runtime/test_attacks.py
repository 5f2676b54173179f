"""Attacks that shaped runtimes, tried against this one. Each first shows that the attempt is real."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount

pytestmark = pytest.mark.root


def image_with(engine: Any, name: str, make: Any) -> str:
    """An image on host with one more layer, whose tree ``make`` fills: anything that a hostile layer could hold."""
    base = engine.store.resolve("host")
    tree = engine.store.new_layer()
    make(Path(tree))
    layer = engine.store.commit(tree, base.chain_id)
    config = {**base.config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    image = engine.store.save_image(config, [layer], base.host)
    engine.store.tag(image.id, name)
    return name


@pytest.mark.parametrize("folder", ["proc", "sys", "dev"])
def test_link_in_the_place_of_proc_sys_or_dev_is_refused(engine: Any, remains: Any, folder: str) -> None:
    """CVE-2019-19921, CVE-2026-41579: our writes and device nodes would land where the image wants them."""
    name = image_with(engine, f"link-{folder}", lambda tree: (tree / folder).symlink_to("/etc"))
    before = remains()
    with pytest.raises(errors.IsolationError, match=f"/{folder} is a link"):
        engine.run(ContainerConfig(name, ("true",), network="none"))
    assert remains() == before


def test_links_in_mount_targets_stay_inside(engine: Any, run: Any, tmp_path: Path) -> None:
    """CVE-2024-45310 and its family: a target whose parent is a link to a folder of the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    name = image_with(engine, "link-target", lambda tree: (tree / "way").symlink_to(outside))
    assert str(outside) in run("readlink", "/way", image=name), "the link is not there: the attack is not tried"
    with pytest.raises(errors.IsolationError, match="link to nothing"):
        run("true", image=name, mounts=(Mount("tmpfs", "/way/made"),))
    assert list(outside.iterdir()) == []


def test_dangling_link_as_mount_target_does_not_create_on_the_host(engine: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    name = image_with(engine, "dangling", lambda tree: (tree / "hole").symlink_to(victim))
    with pytest.raises(errors.ContainersError):
        engine.run(ContainerConfig(name, ("true",), network="none", mounts=(Mount("bind", "/hole", "/etc/hostname"),)))
    assert not victim.exists()


def test_passwd_that_is_a_fifo_does_not_hang(engine: Any, run: Any) -> None:
    def make(tree: Path) -> None:
        (tree / "etc").mkdir()
        os.mkfifo(tree / "etc" / "passwd")

    assert run("echo", "went on", image=image_with(engine, "fifo", make)) == "went on\n"


def test_runtime_cannot_be_reached_through_proc_exe(run: Any) -> None:
    """CVE-2019-5736: a program started through /proc/self/exe, and the interpreter as it is seen from inside."""
    script = (
        "import os\n"
        "for path in ('/proc/self/exe', os.path.realpath('/proc/self/exe')):\n"
        "    try:\n        os.close(os.open(path, os.O_RDWR)); print('opened', path)\n"
        "    except OSError as error: print(error.errno)\n"
    )
    out = run("python", "-c", script)
    assert set(out.split()) <= {"26", "13", "30"} or "opened" not in out  # ETXTBSY, EACCES or EROFS


def test_exec_is_not_visible_before_it_is_confined(engine: Any) -> None:
    """A watcher inside looks at every new process while execs come: none may be ptraced or show our descriptors or program."""
    watcher = (
        "import os, time, sys\nseen = set()\nend = time.time() + 3\n"
        "print('watching', flush=True)\n"
        "while time.time() < end:\n"
        "    for pid in os.listdir('/proc'):\n"
        "        if pid.isdigit() and int(pid) != os.getpid():\n"
        "            try:\n"
        "                exe = os.readlink(f'/proc/{pid}/exe')\n"
        "                fds = len(os.listdir(f'/proc/{pid}/fd'))\n"
        "                seen.add((exe.rpartition('/')[2], fds > 4))\n"
        "            except OSError as error:\n"
        "                seen.add(('closed', error.errno in (13, 1)))\n"
        "print(sorted(seen, key=str), flush=True)\n"
    )
    info = engine.start(engine.create(ContainerConfig("host", ("python", "-c", watcher), network="none")).id)
    next(iter(engine.logs(info.id, follow=True)))
    try:
        for _ in range(60):
            engine.exec(info.id, ExecConfig(("sleep", "0.01")))
    except errors.StateError:
        pass  # a slow machine: the watcher's time is over
    engine.wait(info.id)
    line = list(engine.logs(info.id))[-1].text
    assert "'sleep'" in line, f"no exec was seen at all: {line}"
    assert "python" not in line, f"our own interpreter was seen from inside: {line}"
    assert "('sleep', True)" not in line, f"descriptors of ours were seen: {line}"


def test_working_directory_through_a_descriptor_is_refused(engine: Any) -> None:
    """CVE-2024-21626: a leaked descriptor of the host as working directory."""
    for number in range(3, 12):
        with pytest.raises(errors.ContainersError):
            engine.run(ContainerConfig("host", ("pwd",), network="none", workdir=f"/proc/self/fd/{number}"))


def test_terminal_of_the_caller_cannot_be_typed_into(run: Any) -> None:
    """CVE-2017-5226: TIOCSTI needs the caller's terminal; there is no controlling terminal inside."""
    script = "import fcntl, os\ntry:\n"
    script += "    fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, b'x'); print('typed')\nexcept OSError as e: print(e.errno)"
    assert run("python", "-c", script) in ("6\n", "5\n")


def test_keyring_is_its_own(run: Any) -> None:
    """keyctl is refused by the filter, and /proc/keys is masked."""
    out = run("python", "-c", "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(250, 0, -3, 0), ctypes.get_errno())")
    assert out == "-1 1\n"


def test_sockets_of_ours_are_not_reachable_with_the_hosts_network(run: Any, state: Any) -> None:
    """CVE-2020-15257: abstract names are reachable by whoever shares the network namespace. Ours are paths."""
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    assert not [name for name in names if name.startswith("@") and "pycontainers" in name]
    assert any(str(state.run) in name for name in names), "the launcher's socket is not there: nothing is tested"
    assert run("sh", "-c", f"ls {state.run}", network="host") == ""
