"""A container whose program is an init system: several services, its own boot, and a shutdown by its own signal."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers import api
from pycontainers.linux import cgroups
from pycontainers.protocol import ContainerConfig, ExecConfig, Mount

pytestmark = pytest.mark.root

#: busybox init (init(8) of busybox): TERM, USR1 and USR2 shut down, CTRL-ALT-DEL restarts
INITTAB = """\
::sysinit:/etc/boot
::respawn:/etc/service one
::respawn:/etc/service two
::shutdown:/etc/down
"""
SERVICE = '#!/bin/sh\necho "$1 $$" >>/var/log/services\nexec sleep 1000\n'
BOOT = "#!/bin/sh\nmkdir -p /var/log\nmount -t tmpfs tmpfs /run 2>/dev/null\necho booted >>/var/log/services\n"
DOWN = "#!/bin/sh\necho down >>/var/log/services\n"


def furnish(root: Path) -> None:
    for name, text in (("inittab", INITTAB), ("service", SERVICE), ("boot", BOOT), ("down", DOWN)):
        path = root / "etc" / name
        path.write_text(text)
        path.chmod(0o755)


def until(what: Callable[[], Any], message: str = "") -> Any:
    end = time.monotonic() + 40
    while not (found := what()):
        assert time.monotonic() < end, message or what
        time.sleep(0.05)
    return found


@pytest.fixture
def system(rootfs: Path, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    shutil.copytree(rootfs, root, symlinks=True)
    furnish(root)
    return root


def told(root: Path) -> list[list[str]]:
    log = root / "var/log/services"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


def test_busybox_init_in_a_bundle(oci: Any, system: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["root"]["path"] = str(system)
        spec["process"]["args"] = ["/bin/init"]
        spec["process"]["env"].append("container=oci")

    name = oci.running("", change)
    until(lambda: len(told(system)) >= 3, "it boots and starts both services")
    assert sorted(row[0] for row in told(system)[:3]) == ["booted", "one", "two"]
    victim = next(row[1] for row in told(system) if row[0] == "one")
    assert oci("exec", name, "kill", victim).code == 0
    until(lambda: [row[0] for row in told(system)].count("one") == 2, "a service that ended is started again")
    assert oci("kill", name, "USR2").code == 0  # poweroff
    until(lambda: oci.state(name)["status"] == "stopped", "it shuts down by its own signal")
    assert told(system)[-1] == ["down"]


def test_busybox_init_by_the_engine(engine: Any, rootfs: Path, tmp_path: Path) -> None:
    """The same as an image; stop sends the signal that the image names, and its shutdown runs."""
    root = tmp_path / "context"
    shutil.copytree(rootfs, root / "root", symlinks=True)
    furnish(root / "root")
    (root / "Dockerfile").write_text('FROM scratch\nCOPY root /\nSTOPSIGNAL SIGUSR2\nCMD ["/bin/init"]\n')
    image = api.build(str(root), "os-busybox")
    info = engine.start(engine.create(ContainerConfig(str(getattr(image, "id", image)), network="none")).id)
    rows: list[list[str]] = []

    def look() -> bool:
        found = bytearray()
        engine.exec(info.id, ExecConfig(("cat", "/var/log/services")), None, lambda _, data: found.extend(data))
        rows[:] = [line.split() for line in found.decode().splitlines()]
        return len(rows) >= 3

    until(look)
    assert sorted(row[0] for row in rows[:3]) == ["booted", "one", "two"]
    engine.stop(info.id, timeout=20)
    status = engine.wait(info.id)
    assert status.signal != signal.SIGKILL, "it ended by itself, before the grace period was over"


def output(engine: Any, container: str, *command: str) -> str:
    found = bytearray()
    engine.exec(container, ExecConfig(command), None, lambda _, data: found.extend(data))
    return found.decode()


def test_runit_on_the_host_image(engine: Any) -> None:
    if not shutil.which("runsvdir"):
        pytest.skip("runit is missing (Debian: apt-get install runit)")
    service = "mkdir -p /srv/sv/$s; printf '#!/bin/sh\\necho '$s'\\nexec sleep 1000\\n' >/srv/sv/$s/run; chmod +x /srv/sv/$s/run"
    script = f"for s in one two; do {service}; done; exec runsvdir /srv/sv"
    info = engine.start(engine.create(ContainerConfig("host", ("sh", "-c", script), network="none", stop_signal="SIGHUP")).id)
    status = until(lambda: (text := output(engine, info.id, "sv", "status", "/srv/sv/one", "/srv/sv/two")).count("run: ") == 2 and text)
    assert "/srv/sv/one: (pid" in status
    engine.stop(info.id, timeout=20)
    assert engine.wait(info.id).code == 111, "runsvdir(8): HUP ends every service, then itself"
    assert sorted(line.text for line in engine.logs(info.id)) == ["one", "two"]


def test_systemd_on_the_host_image(engine: Any) -> None:
    """With what docs/cgroups.md says that it needs; shut down by SIGRTMIN+3 (systemd(1))."""
    systemd = "/lib/systemd/systemd"
    if not os.path.exists(systemd):
        pytest.skip("this machine, whose system is the image, has no systemd (Debian: apt-get install systemd)")
    where = cgroups.layout()
    if where.version != "v2" and not any("name=systemd" in tree.controllers for tree in where.trees):
        pytest.skip("there is no v2 tree with controllers and no name=systemd hierarchy here")
    config = ContainerConfig(
        "host",
        (systemd, "--unit=basic.target"),
        network="none",
        env={"container": "oci"},
        mounts=tuple(Mount("tmpfs", place) for place in ("/run", "/run/lock", "/tmp")),
        security_opt=("writable-cgroups=true",),
        stop_signal="SIGRTMIN+3",
    )
    info = engine.start(engine.create(config).id)
    until(lambda: output(engine, info.id, "systemctl", "is-active", "basic.target").strip() == "active")
    assert output(engine, info.id, "systemctl", "is-active", "systemd-journald.service", "dbus.socket").split()[0] == "active"
    assert "/init.scope" in output(engine, info.id, "cat", "/proc/1/cgroup")
    engine.stop(info.id, timeout=20)
    assert engine.wait(info.id).code == 0, "it shut down by itself"
