"""Namespaces of another container: joined at each start anew, with the user namespace that owns them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers import Mount
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError, IsolationError, StateError, UsageError
from pycontainers.linux import namespaces, process
from pycontainers.protocol import ContainerConfig, ContainerInfo, ExecConfig
from pycontainers.runtime import state
from pycontainers.runtime.joining import Joined

pytestmark = pytest.mark.root

KINDS = ("network", "pid", "ipc", "uts")
Make = Callable[..., ContainerInfo]


@pytest.fixture
def make(engine: NativeEngine) -> Make:
    def made(*command: str, **options: Any) -> ContainerInfo:
        config = ContainerConfig("host", command or ("sleep", "1000"), **{"network": "none", **options})
        return engine.start(engine.create(config).id)

    return made


def inside(engine: NativeEngine, container: str, *command: str) -> str:
    seen: list[bytes] = []
    engine.exec(container, ExecConfig(command), None, lambda stream, data: seen.append(data))
    return b"".join(seen).decode()


def test_everything_of_another_container(engine: NativeEngine, make: Make) -> None:
    donor = make(name="donor", ipc="shareable", hostname="donor-name")
    guest = make(name="guest", **dict.fromkeys(KINDS, "container:donor"))
    theirs, ours = namespaces.links(donor.pid), namespaces.links(guest.pid)
    assert {kind for kind in theirs if theirs[kind] == ours[kind]} == {*KINDS, "user"}
    assert inside(engine, "guest", "hostname") == "donor-name\n" and guest.hostname == "donor-name"
    assert inside(engine, "guest", "cat", "/proc/1/comm") == "sleep\n"
    assert Path(f"/proc/{guest.pid}/status").read_text().split("NSpid:")[1].split()[1] != "1"


@pytest.mark.parametrize("kind", KINDS)
def test_one_namespace_alone(engine: NativeEngine, make: Make, kind: str) -> None:
    donor = make(ipc="shareable")
    guest = make(**{kind: f"container:{donor.short_id}"})
    theirs, ours = namespaces.links(donor.pid), namespaces.links(guest.pid)
    assert {name for name in theirs if theirs[name] == ours[name]} == {kind, "user"}, "and the user namespace that owns it"


@pytest.mark.more_than_uml("nftables")
def test_a_network_is_shared_with_its_files(engine: NativeEngine, make: Make) -> None:
    donor = make("python", "-c", _SERVER, network="bridge", extra_hosts=("db:10.9.9.9",), dns=("9.9.9.9",))
    guest = make(network=f"container:{donor.name}")
    assert inside(engine, guest.id, "python", "-c", _CLIENT) == "served\n", "over the loopback of both"
    for name in ("hosts", "resolv.conf", "hostname"):
        assert inside(engine, guest.id, "cat", f"/etc/{name}") == inside(engine, donor.id, "cat", f"/etc/{name}")
    assert donor.address in inside(engine, guest.id, "cat", "/etc/hosts")
    assert guest.network == f"container:{donor.id}"


_SERVER = """import socket
with socket.create_server(("127.0.0.1", 5000)) as server:
    while True:
        server.accept()[0].sendall(b"served\\n")
"""
_CLIENT = """import socket, time
for _ in range(100):
    try:
        print(socket.create_connection(("127.0.0.1", 5000)).recv(10).decode(), end="")
        break
    except OSError:
        time.sleep(0.02)
"""


def test_shared_memory_is_one(engine: NativeEngine, make: Make) -> None:
    donor = make(ipc="shareable", shm_size=3 << 20)
    guest = make(ipc=f"container:{donor.id}")
    inside(engine, donor.id, "sh", "-c", "echo from the donor > /dev/shm/file")
    assert inside(engine, guest.id, "cat", "/dev/shm/file") == "from the donor\n"
    assert "size=3072k" in Path(f"/proc/{guest.pid}/mountinfo").read_text()
    own = make()
    assert inside(engine, own.id, "ls", "/dev/shm") == ""


def test_ipc_that_is_not_shareable_is_not_shared(engine: NativeEngine, make: Make) -> None:
    donor = make(name="private-donor")
    with pytest.raises(UsageError, match="does not share its IPC") as caught:
        make(ipc="container:private-donor")
    assert "--ipc shareable" in caught.value.hint and donor.name in caught.value.hint


def test_it_is_found_anew_at_each_start(engine: NativeEngine, make: Make) -> None:
    donor = make(name="again", pid="")
    guest = make(network="container:again")
    engine.stop(guest.id, 0)
    engine.stop(donor.id, 0)
    with pytest.raises(StateError, match="'again', whose network namespace this one shares, is not running") as caught:
        engine.start(guest.id)
    assert caught.value.hint == "start it first: start again"
    donor, guest = engine.start(donor.id), engine.start(guest.id)
    assert namespaces.links(donor.pid)["network"] == namespaces.links(guest.pid)["network"]
    assert json.dumps(engine.oci(guest.id)).count(f"/proc/{donor.pid}/ns/") == 2, "network and user, as the specification says"
    engine.remove(donor.id, force=True)
    engine.stop(guest.id, 0)
    with pytest.raises(StateError, match="was removed"):
        engine.start(guest.id)


def test_a_guest_of_a_guest(engine: NativeEngine, make: Make) -> None:
    first = make(name="first")
    make(name="second", network="container:first")
    third = make(network="container:second")
    assert namespaces.links(third.pid)["network"] == namespaces.links(first.pid)["network"]
    joins = (state.read(third.folder, "container.json") or {})["joins"]
    assert joins == {"network": first.id, "user": first.id}, "it depends on the owner alone"


def test_two_user_namespaces_cannot_be_joined(engine: NativeEngine, make: Make) -> None:
    one, two = make(name="one"), make(name="two", ipc="shareable")
    with pytest.raises(UsageError, match="are of two user namespaces"):
        make(network="container:one", ipc="container:two")
    guest = make(network="container:one", ipc="container:two", userns="host")
    links = namespaces.links(guest.pid)
    assert (links["network"], links["ipc"]) == (namespaces.links(one.pid)["network"], namespaces.links(two.pid)["ipc"])
    assert links["user"] == namespaces.links("self")["user"]


def test_who_joins_a_container_without_a_user_namespace_has_none(engine: NativeEngine, make: Make) -> None:
    make(name="rooted", userns="host")
    guest = make(network="container:rooted")
    assert namespaces.links(guest.pid)["user"] == namespaces.links("self")["user"]
    assert any("root inside is root outside" in note for note in guest.notes)
    with pytest.raises(IsolationError, match="full isolation was asked for"):
        make(network="container:rooted", require_isolation="full")


def test_the_hosts_network_of_another_is_the_hosts(engine: NativeEngine, make: Make) -> None:
    make(name="on-host", network="host")
    guest = make(network="container:on-host")
    assert guest.network == "host" and namespaces.links(guest.pid)["network"] == namespaces.links("self")["network"]


def test_a_bind_out_of_another_root(engine: NativeEngine, make: Make) -> None:
    """``-v /proc/PID/root/…``: what is mounted in another mount namespace can be bound, too."""
    donor = make(mounts=(Mount("tmpfs", "/given"),))
    inside(engine, donor.id, "sh", "-c", "echo deep > /given/file; chmod 644 /given/file")
    guest = make(mounts=(Mount("bind", "/taken", f"/proc/{donor.pid}/root/given"),), userns="host")
    assert inside(engine, guest.id, "cat", "/taken/file") == "deep\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "container:nonesuch"}, "no container 'nonesuch'"),
        ({"network": "container:"}, "network 'container:' does not exist"),
        ({"network": "nonsense"}, "network 'nonsense' does not exist"),
        ({"pid": "nonsense"}, "--pid 'nonsense' is unknown"),
        ({"ipc": "hots"}, "--ipc 'hots' is unknown"),
        ({"uts": "private:x"}, "--uts 'private:x' is unknown"),
        ({"cgroupns": "container:x"}, "--cgroupns 'container:x' is unknown"),
        ({"uts": "host", "hostname": "x"}, "--hostname and --uts host contradict each other"),
        ({"init": True, "pid": "host"}, "--init and --pid host contradict each other"),
        ({"shm_size": 1 << 20, "ipc": "host"}, "--shm-size and --ipc host contradict each other"),
        ({"network": "container:x", "hostname": "y"}, "--hostname and --network container:x contradict each other"),
        ({"network": "container:x", "dns": ("9.9.9.9",)}, "--dns and --network container:x contradict each other"),
        ({"network": "container:x", "extra_hosts": ("a:1.1.1.1",)}, "--add-host and --network container:x contradict each other"),
    ],
)
def test_what_contradicts_itself(engine: NativeEngine, remains: Any, options: dict[str, Any], message: str) -> None:
    before = remains()
    with pytest.raises(ContainersError) as caught:
        engine.create(ContainerConfig("host", ("true",), **options))
    assert message in caught.value.message and "\n" not in caught.value.message and caught.value.hint
    assert remains() == before


def test_this_machines_loopback_is_not_joined(make: Make) -> None:
    """A listener on this machine's loopback is out of reach of who shares another container's network."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        donor = make()
        script = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)"
        guest = make("python", "-c", script, network=f"container:{donor.id}")
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.accept()
        assert guest.network.startswith("container:")


@pytest.fixture
def donor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a container's place, as its state file names it."""
    with subprocess.Popen(["sleep", "1000"]) as found:
        (tmp_path / "owner").mkdir()
        state.write(str(tmp_path / "owner"), "container.json", {"name": "donor"})
        state.write(str(tmp_path / "owner"), "state.json", {"status": state.RUNNING, "init": process.identity(found.pid)})
        yield found
        found.kill()


def wanting(kind: str) -> dict[str, Any]:
    return {"linux": {"namespaces": [{"type": kind, "path": f"/proc/0/ns/{kind}"}]}, "mounts": []}


def test_a_pid_that_was_given_to_somebody_else_is_not_joined(tmp_path: Path, donor: subprocess.Popen[bytes]) -> None:
    now = state.read(str(tmp_path / "owner"), "state.json")
    assert now is not None
    Joined({"ipc": "owner"}, str(tmp_path)).into(spec := wanting("ipc"))
    assert spec["linux"]["namespaces"][0]["path"] == f"/proc/{donor.pid}/ns/ipc"
    now["init"]["start"] -= 1  # he who had it before
    state.write(str(tmp_path / "owner"), "state.json", now)
    with pytest.raises(StateError, match="'donor', whose ipc namespace this one shares, is not running"):
        Joined({"ipc": "owner"}, str(tmp_path))


@pytest.mark.parametrize("fails", [False, True], ids=["opened", "not opened"])
def test_an_owner_that_ends_while_it_is_joined_is_an_error(tmp_path: Path, donor: subprocess.Popen[bytes], fails: bool) -> None:
    """Its pid may be somebody else's by the time that the path is opened."""
    before = os.listdir("/proc/self/fd")
    with Joined({"pid": "owner"}, str(tmp_path)):
        pass
    joined = Joined({"pid": "owner"}, str(tmp_path))
    with pytest.raises(StateError, match="'donor', whose pid namespace this one shares, is not running"), joined:
        donor.kill()
        donor.wait()
        if fails:
            os.open(f"/proc/{donor.pid}/ns/pid", os.O_RDONLY)
    assert os.listdir("/proc/self/fd") == before
