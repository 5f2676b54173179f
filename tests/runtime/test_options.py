"""What each option of run does, looked at from inside and from outside."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pycontainers import Mount
from pycontainers.commands.options import container_config
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError
from pycontainers.linux import capabilities, namespaces
from pycontainers.protocol import ContainerConfig, ContainerInfo, Device, ExecConfig, HealthCheck, RestartPolicy, Ulimit
from pycontainers.runtime import defaults, state

pytestmark = pytest.mark.root


def status_of(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def mount_on(text: str, place: str) -> tuple[set[str], str, set[str]]:
    """(attributes of the mount, file system, its own options) of the last mount on ``place`` in a mountinfo (proc_pid_mountinfo(5))."""
    line = [line for line in text.splitlines() if line.split()[4] == place][-1]
    left, _, right = line.partition(" - ")
    return set(left.split()[5].split(",")), right.split()[0], set(right.split()[2].split(","))


def start(engine: NativeEngine, *command: str, **options: Any) -> ContainerInfo:
    config = ContainerConfig("host", command or ("sleep", "1000"), **{"network": "none", **options})
    return engine.start(engine.create(config).id)


@pytest.mark.parametrize(
    ("add", "drop", "wanted"),
    [
        (("NET_ADMIN", "cap_sys_time"), (), [*defaults.CAPABILITIES, "CAP_NET_ADMIN", "CAP_SYS_TIME"]),
        ((), ("CAP_CHOWN", "mknod"), [name for name in defaults.CAPABILITIES if name not in ("CAP_CHOWN", "CAP_MKNOD")]),
        (("CHOWN",), ("ALL",), ["CAP_CHOWN"]),
        ((), ("ALL",), []),
        (("ALL",), ("NET_ADMIN",), [name for name in capabilities.NUMBER if name != "CAP_NET_ADMIN"]),
        (("CHOWN",), ("CHOWN",), list(defaults.CAPABILITIES)),  # what is both dropped and added is there (moby, TweakCapabilities)
    ],
)
def test_capabilities(run: Any, add: tuple[str, ...], drop: tuple[str, ...], wanted: list[str]) -> None:
    status = status_of(run("cat", "/proc/self/status", cap_add=add, cap_drop=drop))
    last = (1 << capabilities.last() + 1) - 1
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == capabilities.mask(wanted) & last, name
    assert int(status["CapAmb"], 16) == int(status["CapInh"], 16) == 0


@pytest.mark.parametrize(
    ("option", "line", "value"),
    [
        ("no-new-privileges", "NoNewPrivs", "1"),
        ("no-new-privileges:false", "NoNewPrivs", "0"),
        ("no-new-privileges=true", "NoNewPrivs", "1"),
        ("seccomp=unconfined", "Seccomp", "0"),
        ("seccomp=builtin", "Seccomp", "2"),
        ("label=disable", "Seccomp", "2"),
    ],
)
def test_security_options(run: Any, option: str, line: str, value: str) -> None:
    assert status_of(run("cat", "/proc/self/status", security_opt=(option,)))[line] == value


def test_set_uid_programs_work_unless_new_privileges_are_refused(run: Any) -> None:
    """The set-uid bit of a copy of id(1): honoured as Docker does, and not with no-new-privileges."""
    script = "cp /usr/bin/id /usr/local/bin/ident && chmod 4755 /usr/local/bin/ident && setpriv --reuid 1000 --clear-groups ident -u"
    assert run("sh", "-c", script) == "0\n"
    assert run("sh", "-c", script, security_opt=("no-new-privileges",)) == "1000\n"


def test_open_system_paths(run: Any) -> None:
    count = "grep -cE ' /proc/| /sys/(firmware|devices)' /proc/self/mountinfo"
    assert int(run("sh", "-c", count)) > 5
    assert int(run("sh", "-c", count, security_opt=("systempaths=unconfined",)) or 0) == 0


def test_privileged_in_its_user_namespace(engine: NativeEngine, run: Any) -> None:
    script = "cat /proc/self/status; echo; cat /proc/self/mountinfo"
    status, _, table = run("sh", "-c", script, privileged=True).partition("\n\n")
    found = status_of(status)
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == (1 << capabilities.last() + 1) - 1
    assert found["Seccomp"] == "0"
    assert "rw" in mount_on(table, "/sys")[0]
    assert not [line for line in table.splitlines() if line.split()[4].startswith("/proc/")]
    info = engine.create(ContainerConfig("host", ("true",), network="none", privileged=True))
    assert any("--privileged within a user namespace" in note for note in info.notes), "what it does not give is said"
    # The machine's devices are there and stay its own root's: nobody's inside.
    disk = next((name for name in os.listdir("/sys/block") if os.path.exists(f"/dev/{name}")), None)
    if disk is not None:
        run("sh", "-c", f"test -b /dev/{disk} && head -c 1 /dev/{disk}", privileged=True)
        assert run.status.code != 0 and "Permission denied" in run.stderr


def test_privileged_without_a_user_namespace_is_root_of_the_machine(run: Any) -> None:
    bounding = status_of(Path("/proc/self/status").read_text())["CapBnd"]
    status = status_of(run("cat", "/proc/self/status", privileged=True, userns="host"))
    assert status["CapEff"] == bounding
    assert status["Uid"].split()[0] == "0"


def test_ulimits(engine: NativeEngine) -> None:
    limits = (Ulimit("nofile", 333, 444), Ulimit("core", 0, 0), Ulimit("stack", 1 << 20, -1))
    info = start(engine, ulimits=limits)
    table = {line[:26].strip(): line[26:].split() for line in Path(f"/proc/{info.pid}/limits").read_text().splitlines()}
    assert table["Max open files"][:2] == ["333", "444"]
    assert table["Max core file size"][:2] == ["0", "0"]
    assert table["Max stack size"][:2] == [str(1 << 20), "unlimited"]


def test_sysctls_of_its_own_namespaces(run: Any) -> None:
    before = Path("/proc/sys/kernel/msgmax").read_text()
    asked = {"net.ipv4.ip_default_ttl": "77", "kernel.msgmax": "9999", "fs.mqueue.msg_max": "11"}
    script = "cd /proc/sys; cat net/ipv4/ip_default_ttl kernel/msgmax fs/mqueue/msg_max"
    assert run("sh", "-c", script, sysctls=asked).split() == ["77", "9999", "11"]
    assert Path("/proc/sys/kernel/msgmax").read_text() == before != "9999\n"


def test_shared_memory(run: Any) -> None:
    assert "size=65536k" in mount_on(run("cat", "/proc/self/mountinfo"), "/dev/shm")[2]
    assert "size=12288k" in mount_on(run("cat", "/proc/self/mountinfo", shm_size=12 << 20), "/dev/shm")[2]
    assert run("sh", "-c", "ls -d /dev/shm || grep -c shm /proc/self/mountinfo", ipc="none").strip() == "0"


def test_tmpfs_has_dockers_defaults_until_their_opposites_are_asked_for(run: Any) -> None:
    attributes, kind, options = mount_on(run("cat", "/proc/self/mountinfo", mounts=(Mount("tmpfs", "/x"),)), "/x")
    assert kind == "tmpfs" and {"rw", "noexec", "nosuid", "nodev"} <= attributes
    mounted = (Mount("tmpfs", "/x", options=("exec", "size=1m", "mode=700", "uid=7")),)
    out = run("sh", "-c", "cp /bin/true /x; chmod 4755 /x/true; /x/true && stat -c '%u %a' /x && cat /proc/self/mountinfo", mounts=mounted)
    assert out.splitlines()[0] == "7 700"
    attributes, _, options = mount_on("\n".join(out.splitlines()[1:]), "/x")
    assert "noexec" not in attributes and {"nosuid", "nodev"} <= attributes and "size=1024k" in options


@pytest.fixture
def nested(tmp_path: Path) -> Any:
    """A folder of this machine with a file system mounted below it, shared as systemd shares all."""
    top = tmp_path / "top"
    (top / "below").mkdir(parents=True)
    subprocess.run(["mount", "--bind", top, top], check=True)
    subprocess.run(["mount", "--make-shared", top], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", top / "below"], check=True)
    (top / "below" / "file").write_text("below")
    yield top
    subprocess.run(["umount", "-R", top], check=True)


@pytest.mark.parametrize(
    ("options", "read_only", "seen"),
    [
        ((), False, "below rw rw"),
        ((), True, "below ro ro"),
        (("writable",), True, "below ro rw"),
        (("bind",), True, "ro ro"),
        (("bind",), False, "rw rw"),
    ],
)
def test_what_is_mounted_below_a_bind(run: Any, nested: Path, options: tuple[str, ...], read_only: bool, seen: str) -> None:
    script = (
        "cat /x/below/file 2>/dev/null; for d in /x /x/below; do touch $d/t 2>/dev/null && echo -n ' rw' || echo -n ' ro'; done;"
        "rm -f /x/t /x/below/t"
    )
    assert run("sh", "-c", script, mounts=(Mount("bind", "/x", str(nested), read_only, options=options),), userns="host").strip() == seen


def test_what_is_mounted_later_comes_in_by_rslave_alone(engine: NativeEngine, nested: Path) -> None:
    (nested / "late").mkdir()
    seen = {}
    for options in ((), ("rslave",)):
        info = start(engine, mounts=(Mount("bind", "/x", str(nested), options=options),), userns="host")
        subprocess.run(["mount", "-t", "tmpfs", "late", nested / "late"], check=True)
        seen[options] = " /x/late " in Path(f"/proc/{info.pid}/mountinfo").read_text()
        subprocess.run(["umount", nested / "late"], check=True)
    assert seen == {(): False, ("rslave",): True}


def test_a_device_of_the_machine_is_the_containers_own(run: Any) -> None:
    """A node of another number and name than any that it has: /dev/kmsg here, which only its owner may read."""
    number = os.stat("/dev/kmsg").st_rdev
    out = run("stat", "-c", "%F %t %T %u", "/dev/other/log", devices=(Device("/dev/kmsg", "/dev/other/log", "r"),))
    assert out == f"character special file {os.major(number):x} {os.minor(number):x} 0\n"
    run("sh", "-c", ": > /dev/other/log", devices=(Device("/dev/kmsg", "/dev/other/log", "r"),))
    assert run.status.code != 0 and "Operation not permitted" in run.stderr, "the device cgroup lets it be read, not written"
    assert run("sh", "-c", "ls /dev/kmsg 2>&1 | tail -1").endswith("No such file or directory\n")


def test_a_folder_of_devices(run: Any) -> None:
    """/dev/cpu or whichever folder has nodes here, under another name."""
    folders = [entry.path for entry in os.scandir("/dev") if entry.is_dir() and entry.name not in ("pts", "shm", "mqueue", "fd")]
    kinds = (stat.S_IFCHR, stat.S_IFBLK)
    nodes = {folder: [path for path in Path(folder).rglob("*") if stat.S_IFMT(path.lstat().st_mode) in kinds] for folder in folders}
    folder = next((name for name, found in nodes.items() if found), None)
    if folder is None:
        pytest.skip("no folder below /dev holds a device here")
    listed = ("find", "/dev/given", "!", "-type", "d", "-exec", "stat", "-c", "%n %t:%T", "{}", "+")
    out = run(*listed, devices=(Device(folder, "/dev/given"),))
    numbers = {node: node.lstat().st_rdev for node in nodes[folder]}
    assert set(out.splitlines()) == {
        f"/dev/given/{node.relative_to(folder)} {os.major(number):x}:{os.minor(number):x}" for node, number in numbers.items()
    }


def test_device_rules(engine: NativeEngine) -> None:
    info = start(engine, device_cgroup_rules=("c 42:* rmw",))
    rules = engine.oci(info.id)["linux"]["resources"]["devices"]
    assert {"allow": True, "type": "c", "major": 42, "access": "rwm"} in rules
    assert rules[0] == {"allow": False, "access": "rwm", "type": "a"}


def test_oom_score(engine: NativeEngine) -> None:
    info = start(engine, oom_score_adj=321)
    assert Path(f"/proc/{info.pid}/oom_score_adj").read_text() == "321\n"


def test_groups_by_name_and_number(engine: NativeEngine, run: Any) -> None:
    assert set(run("id", "-G", user="daemon", group_add=("audio", "1234")).split()) == {"1", "29", "1234"}
    info = start(engine, group_add=("1234",))
    seen: list[bytes] = []
    engine.exec(info.id, ExecConfig(("id", "-G"), user="daemon"), None, lambda stream, data: seen.append(data))
    assert set(b"".join(seen).split()) == {b"1", b"1234"}, "they are every user's, in exec as well"
    with pytest.raises(ContainersError, match="group 'nonesuch' is not in the image's /etc/group"):
        run("id", group_add=("nonesuch",))


def test_names(run: Any) -> None:
    script = "hostname; cat /proc/sys/kernel/domainname; echo $HOSTNAME; grep -c 'inside' /etc/hosts"
    assert run("sh", "-c", script, hostname="inside", domainname="example.org").split() == ["inside", "example.org", "inside", "1"]


@pytest.mark.more_than_uml("nftables")
def test_resolver_and_hosts(run: Any) -> None:
    options: dict[str, Any] = {"dns": ("9.9.9.9", "::1"), "dns_search": ("a.org", "b.org"), "dns_options": ("ndots:2", "rotate")}
    out = run("cat", "/etc/resolv.conf", network="bridge", **options)
    assert out.splitlines() == ["nameserver 9.9.9.9", "nameserver ::1", "search a.org b.org", "options ndots:2 rotate"]
    out = run("cat", "/etc/hosts", network="bridge", extra_hosts=("db:10.0.0.5", "machine:host-gateway"))
    table = dict(reversed(line.split()[:2]) for line in out.splitlines())
    assert table["db"] == "10.0.0.5"
    assert table["machine"] == run("sh", "-c", "ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'", network="bridge").strip()


@pytest.mark.parametrize(
    ("option", "kind"), [({"pid": "host"}, "pid"), ({"ipc": "host"}, "ipc"), ({"uts": "host"}, "uts"), ({"cgroupns": "host"}, "cgroup")]
)
def test_namespaces_of_the_machine(engine: NativeEngine, option: dict[str, str], kind: str) -> None:
    info = start(engine, **option)
    ours, theirs = namespaces.links("self"), namespaces.links(info.pid)
    assert theirs[kind] == ours[kind]
    assert {name for name in ours if ours[name] == theirs[name]} - {"time"} == {kind}, "and nothing else is shared (time: not by us)"


def test_processes_of_the_machine_can_be_seen_and_not_touched(run: Any) -> None:
    out = run("sh", "-c", f"cat /proc/{os.getpid()}/comm; kill -0 {os.getpid()} 2>&1; echo x > /proc/sys/kernel/hostname", pid="host")
    assert out.splitlines()[0] == Path("/proc/self/comm").read_text().strip()
    assert "not permitted" in out or "denied" in out
    assert run.status.code != 0


def test_files_of_environment_and_labels(engine: NativeEngine, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# none\nA=1\n")
    (tmp_path / "labels").write_text("x=1\n")
    files = {"env_file": [str(tmp_path / "env")], "label_file": str(tmp_path / "labels")}
    config = container_config("host", ["env"], **files, annotations={"k": "v"})  # type: ignore[arg-type]
    info = engine.create(config)
    assert info.labels["x"] == "1"
    assert "A=1" in engine.oci(info.id)["process"]["env"]
    assert engine.oci(info.id)["annotations"]["k"] == "v"


def test_what_keeps_it_is_recorded(engine: NativeEngine) -> None:
    layer = engine.store.commit(engine.store.new_layer(), "")
    of_image = {
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 7_000_000_000, "Retries": 4},
        "ExposedPorts": {"81/tcp": {}, "53/udp": {}},
        "StopSignal": "HUP",
    }
    rootfs = {"type": "layers", "diff_ids": [layer.diff_id]}
    image = {"architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "config": of_image, "rootfs": rootfs, "history": []}
    engine.store.tag(engine.store.save_image(image, [layer], "").id, "kept")

    def record(**options: Any) -> dict[str, Any]:
        return state.read(engine.create(ContainerConfig("kept", ("true",), network="none", **options)).folder, "container.json") or {}

    plain = record(restart=RestartPolicy("on-failure", 3), stop_timeout=2.5, lifetime="kernel")
    times = {"interval": 7.0, "timeout": 30.0, "start_period": 0.0, "start_interval": 5.0}
    assert plain["health"] == {"test": ["CMD-SHELL", "true"], "retries": 4, **times}
    assert plain["restart"] == {"name": "on-failure", "retries": 3} and plain["stop_timeout"] == 2.5
    assert plain["stop_signal"] == "HUP"
    assert plain["owner"]["pid"] == os.getpid(), "outside of a notebook it is whoever asks"
    assert record(health=HealthCheck(("NONE",)))["health"] is None
    assert record(health=HealthCheck((), 0, 2, 0, 0, 0))["health"] == {**plain["health"], "timeout": 2.0}
    info = engine.create(ContainerConfig("kept", ("true",), network="bridge", publish_all=True, expose=("90/tcp",)))
    assert {(port.container_port, port.protocol, port.host_port) for port in info.ports} == {(90, "tcp", 0), (81, "tcp", 0), (53, "udp", 0)}


def test_cidfile(engine: NativeEngine, tmp_path: Path) -> None:
    file = tmp_path / "id"
    info = engine.create(ContainerConfig("host", ("true",), cidfile=str(file)))
    assert file.read_text() == info.id


def test_a_layer_whose_root_hides_all_below_it(engine: Any, busybox: str) -> None:
    """A layer with ``.wh..wh..opq`` at its root; overlayfs itself heeds the mark on every folder but the roots of its layers."""
    store, layers = engine.store, []
    for number in range(2):
        tree = store.new_layer()
        Path(tree, f"file-{number}").write_text("")
        if number:
            shutil.copy(busybox, f"{tree}/busybox")
            os.setxattr(tree, "trusted.overlay.opaque", b"y")
        layers.append(store.commit(tree, layers[-1].chain_id if layers else ""))
    config = {**store.scratch().config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}
    image = store.save_image(config, layers, "")
    store.tag(image.id, "opaque-root")
    try:
        asked = ContainerConfig("opaque-root", ("/busybox", "ls", "/"), network="none", auto_remove=True)
        said = bytearray()
        engine.run(asked, None, lambda stream, data: said.extend(data))
        assert "file-1" in said.decode().split()
        assert "file-0" not in said.decode().split()
    finally:
        engine.remove_image("opaque-root", force=True)
