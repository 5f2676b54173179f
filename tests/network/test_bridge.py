"""Real bridges, links, addresses and rules, in a network namespace that stands for the host: the real host is never touched."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pycontainers.errors import NetworkError, NotFound, StateError, UsageError
from pycontainers.linux import namespaces, process, sockets
from pycontainers.paths import Paths
from pycontainers.runtime import network as client

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
    pytest.mark.skipif(not (shutil.which("ip") and shutil.which("nsenter")), reason="needs ip and nsenter to look from outside"),
]

LISTEN = """
import socket, sys
s = socket.create_server((sys.argv[1], 80)); print("ready", flush=True)
while True:
    c, peer = s.accept(); c.sendall(peer[0].encode()); c.close()
"""
CONNECT = """
import socket, sys
c = socket.create_connection((sys.argv[1], 80), float(sys.argv[2])); print(c.recv(100).decode())
"""


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Namespace:
    """A network namespace held by a sleeping process: what stands for a container."""

    def __init__(self):
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "120"])
        here = os.readlink("/proc/thread-self/ns/net")
        path = f"/proc/{self.process.pid}/ns/net"
        while os.readlink(path) == here:
            time.sleep(0.001)
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.id = os.urandom(32).hex()
        self.servers = []

    def run(self, *argv):
        return run("nsenter", f"--net=/proc/{self.process.pid}/ns/net", *argv)

    def connect(self, address, timeout=5.0):
        """Which address the server at ``address`` sees."""
        return self.run(sys.executable, "-c", CONNECT, address, str(timeout)).strip()

    def listen(self, address):
        argv = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", sys.executable, "-c", LISTEN, address]
        self.servers.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        assert self.servers[-1].stdout.readline() == "ready\n"

    def end(self):
        os.close(self.fd)
        for each in [*self.servers, self.process]:
            each.kill()
            each.communicate()


class Host:
    """The namespace that stands for the host, with state folders of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.paths = Paths(folder / "home", folder / "run").prepare()
        self.spaces = []

    def space(self):
        self.spaces.append(Namespace())
        return self.spaces[-1]

    def attach(self, space, **options):
        return client.attach(self.paths, space.id, space.fd, **options)

    def leases(self):
        folder = self.paths.networks / "bridge" / "leases"
        return {name: os.readlink(folder / name) for name in os.listdir(folder)}

    def links(self):
        return set(re.findall(r"^\d+: ([\w-]+)", run("ip", "-o", "link"), re.M)) - {"lo"}

    def helper_pid(self):
        with client.connect(self.paths) as sock:
            del sock
        with sockets.connect(self.paths.network_socket, 5) as sock:
            return sockets.receive(sock)[0]["pid"]

    def check(self):
        return client.check(self.paths)

    def end(self):
        for space in self.spaces:
            space.end()
        client.leave(self.paths)
        leave(self.paths)


def leave(paths):
    """End the launcher, too: it is in our network namespace."""
    with contextlib.suppress(OSError), sockets.connect(paths.launcher_socket, 5) as conn:
        pid = sockets.receive(conn)[0]["pid"]
        sockets.send(conn, {"op": "leave"})
        assert process.wait_gone(pid, 5)


@pytest.fixture
def host(tmp_path):
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    made = Host(tmp_path)
    try:
        run("ip", "link", "set", "lo", "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        yield made
    finally:
        made.end()
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def outside(host):
    """A machine on the other side of the host: 198.51.100.2, which knows no way to containers."""
    space = host.space()
    run("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns", str(space.process.pid))
    run("ip", "address", "add", "198.51.100.1/24", "dev", "out0")
    run("ip", "link", "set", "out0", "up")
    space.run("ip", "address", "add", "198.51.100.2/24", "dev", "eth0")
    space.run("ip", "link", "set", "eth0", "up")
    return space


def test_attach_makes_a_link_that_works(host):
    space = host.space()
    reply = host.attach(space)
    assert reply["interface"] == "eth0"
    assert (reply["address"], reply["prefix"], reply["gateway"]) == ("10.89.0.2", 16, "10.89.0.1")
    assert reply["mac"] == "02:42:0a:59:00:02"
    assert host.leases() == {"10.89.0.2": space.id}
    found = json.loads(space.run("ip", "-j", "address"))
    assert {item["ifname"] for item in found if "UP" in item["flags"]} == {"lo", "eth0"}
    assert json.loads(space.run("ip", "-j", "route", "show", "default"))[0]["gateway"] == "10.89.0.1"
    with subprocess.Popen([sys.executable, "-c", LISTEN, "10.89.0.1"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "ready\n"
        assert space.connect("10.89.0.1") == "10.89.0.2"
        server.kill()


def test_links_do_not_talk_of_themselves(host):
    """No IPv6 address, of which each would tell all others: duplicate address detection, router solicitations, multicast listeners."""
    spaces = [host.space() for _ in range(3)]
    for space in spaces:
        host.attach(space)
    time.sleep(1.5)  # detection begins within a second (RFC 4862, 5.4.2)
    assert "inet6" not in run("ip", "-6", "address", "show", "scope", "link") + spaces[0].run("ip", "-6", "address", "show", "dev", "eth0")
    for space in spaces:
        line = next(line for line in space.run("cat", "/proc/net/dev").splitlines() if "eth0" in line)
        assert line.split()[10] == "0", "packets were sent that nobody had asked for"


def test_containers_reach_each_other(host):
    first, second = host.space(), host.space()
    address = host.attach(first)["address"]
    host.attach(second)
    first.listen(address)
    assert second.connect(address) == "10.89.0.3"


def test_the_way_out_is_masqueraded_and_there_is_no_way_in(host, outside):
    space = host.space()
    reply = host.attach(space)
    assert reply["notes"] == ["net.ipv4.ip_forward was 0 and is 1 now"]
    outside.listen("198.51.100.2")
    assert space.connect("198.51.100.2") == "198.51.100.1"
    space.listen(reply["address"])
    outside.run("ip", "route", "add", "10.89.0.0/16", "via", "198.51.100.1")
    with pytest.raises(subprocess.CalledProcessError):
        outside.connect(reply["address"], 0.5)
    # The same with our rules away: it is they that keep the outside out.
    run("nft", "flush", "ruleset")
    assert outside.connect(reply["address"]) == "198.51.100.2"


def test_rules_and_bridge_are_mended(host, outside):
    outside.listen("198.51.100.2")
    first = host.space()
    host.attach(first)
    run("nft", "flush", "ruleset")
    second = host.space()
    host.attach(second)
    assert second.connect("198.51.100.2") == "198.51.100.1"
    run("ip", "link", "delete", host.check()["bridge"])
    third = host.space()
    host.attach(third)
    assert third.connect("198.51.100.2") == "198.51.100.1"
    assert sorted(host.leases().values()) == sorted([first.id, second.id, third.id])


def test_rules_of_others_stay(host):
    run("nft", "add table ip other; add chain ip other forward { type filter hook forward priority 0; policy drop; }")
    notes = host.attach(host.space())["notes"]
    assert any("'other forward' drops forwarded packets" in note for note in notes)
    assert host.check()["dropping"] == ["other forward"]
    client.detach(host.paths, host.spaces[0].id)
    client.remove(host.paths)
    assert run("nft", "list", "tables").split("\n") == ["table ip other", ""]


def test_detach_and_going_round(host):
    spaces = [host.space() for _ in range(3)]
    assert [host.attach(space)["address"] for space in spaces] == ["10.89.0.2", "10.89.0.3", "10.89.0.4"]
    client.detach(host.paths, spaces[2].id)
    client.detach(host.paths, spaces[2].id)
    assert len(host.leases()) == 2
    assert host.attach(host.space())["address"] == "10.89.0.5", "an address just given back is not given away at once"


def test_detach_without_a_network_starts_no_helper(host):
    client.detach(host.paths, "a" * 64)
    assert client.sweep(host.paths, []) == {"leases": [], "links": []}
    assert not host.paths.network_socket.exists()


def test_restart_of_a_container_replaces_its_link(host):
    before = host.space()
    first = host.attach(before)
    again = host.space()
    again.id = before.id
    address = host.attach(again)["address"]
    assert address != first["address"] and host.leases() == {address: again.id}
    assert "eth0" not in before.run("ip", "-o", "link")


def test_sigkill_between_requests(host):
    spaces = [host.space() for _ in range(4)]
    addresses = []
    for space in spaces:
        addresses.append(host.attach(space)["address"])
        pid = host.helper_pid()
        os.kill(pid, signal.SIGKILL)
        assert process.wait_gone(pid, 5)
    assert len(set(addresses)) == 4
    for space in spaces[1:]:
        space.end()
    host.spaces = spaces[:1]
    swept = client.sweep(host.paths, [spaces[0].id], grace=0)
    assert sorted(swept["leases"]) == sorted(space.id for space in spaces[1:])
    assert host.leases() == {addresses[0]: spaces[0].id}
    assert host.links() == {host.check()["bridge"], f"pyct{spaces[0].id[:8]}"}


def test_sigkill_in_the_middle(host):
    """Whatever an attach had made when its helper was killed, the next sweep finds it."""
    host.attach(host.space())
    broken = 0
    for step in range(25):
        space = host.space()
        pid = host.helper_pid()
        timer = threading.Timer(0.0002 * step, os.kill, (pid, signal.SIGKILL))
        timer.start()
        try:
            host.attach(space)
        except Exception:
            broken += 1
        timer.join()
        assert process.wait_gone(pid, 5)
    assert broken, "every attach was faster than its kill: the test shows nothing"
    client.sweep(host.paths, [], grace=0)
    assert host.leases() == {}
    assert host.links() == {host.check()["bridge"]}
    assert host.attach(host.space())["address"]


def test_sweep_keeps_the_young_and_the_alive(host):
    young, alive = host.space(), host.space()
    host.attach(young)
    host.attach(alive)
    assert client.sweep(host.paths, [alive.id]) == {"leases": [], "links": []}
    assert client.sweep(host.paths, [alive.id], grace=0)["leases"] == [young.id]
    assert list(host.leases().values()) == [alive.id]


def test_exhaustion(host, monkeypatch):
    monkeypatch.setenv(client.SUBNETS_VARIABLE, "10.123.45.0/29")
    spaces = [host.space() for _ in range(5)]
    addresses = {host.attach(space)["address"] for space in spaces}
    assert addresses == {f"10.123.45.{n}" for n in range(2, 7)}
    late = host.space()
    with pytest.raises(NetworkError, match=r"no free address in 10\.123\.45\.0/29"):
        host.attach(late)
    assert "eth0" not in late.run("ip", "-o", "link")
    client.detach(host.paths, spaces[1].id)
    assert host.attach(late)["address"] == "10.123.45.3"


def test_a_subnet_in_use_is_passed_over(host):
    run("ip", "link", "add", "dummy7", "type", "veth", "peer", "name", "dummy8")
    run("ip", "address", "add", "10.89.3.1/24", "dev", "dummy7")
    run("ip", "link", "set", "dummy7", "up")
    run("ip", "link", "set", "dummy8", "up")
    run("ip", "route", "add", "10.90.128.0/17", "dev", "dummy7")
    run("ip", "route", "add", "default", "dev", "dummy7")
    assert host.attach(host.space())["gateway"] == "10.91.0.1"
    client.leave(host.paths)
    assert host.attach(host.space())["gateway"] == "10.91.0.1", "remembered"


def test_two_helpers_race(host):
    """Two helpers of one home (an old one finishes while a new one starts): no address twice, one bridge."""
    twin = Paths(host.paths.home, host.folder / "run2").prepare()
    work = {paths.run: [host.space() for _ in range(12)] for paths in (host.paths, twin)}
    for paths in (host.paths, twin):
        client.connect(paths).close()
    addresses, failures = [], []

    def attach(paths):
        for space in work[paths.run]:
            try:
                addresses.append(client.attach(paths, space.id, space.fd)["address"])
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=attach, args=(paths,)) for paths in (host.paths, twin)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.leave(twin)
    leave(twin)
    assert not failures
    assert len(set(addresses)) == 24
    assert len([name for name in host.links() if name.startswith("pyctb-")]) == 1


def test_remove(host):
    space = host.space()
    host.attach(space)
    with pytest.raises(StateError, match="in use by 1 container"):
        client.remove(host.paths)
    client.detach(host.paths, space.id)
    assert client.remove(host.paths) is True
    assert client.remove(host.paths) is False
    assert host.links() == set()
    assert run("nft", "list", "tables") == ""
    assert not (host.paths.networks / "bridge").exists()
    assert host.attach(host.space())["address"] == "10.89.0.2"


def test_requests_that_make_no_sense(host):
    space = host.space()
    with pytest.raises(UsageError, match="host's own network namespace"):
        client.attach(host.paths, space.id, os.open("/proc/thread-self/ns/net", os.O_RDONLY))
    with pytest.raises(UsageError, match="not the id"):
        client.attach(host.paths, "../../etc/passwd", space.fd)
    with pytest.raises(NotFound, match="nowhere"):
        host.attach(space, network="nowhere")
    with open("/dev/null") as file, pytest.raises(NetworkError):
        client.attach(host.paths, space.id, file.fileno())
    assert host.leases() == {}


def test_without_the_right(host):
    """A helper without CAP_NET_ADMIN says which right is missing and leaves nothing behind. The launcher has what its starter had."""
    start = "import sys; from pathlib import Path; from pycontainers.paths import Paths; from pycontainers.runtime import client; "
    start += "client.connect(Paths(Path(sys.argv[1]), Path(sys.argv[2]))).close()"
    unprivileged = "setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"
    run(*unprivileged, sys.executable, "-c", start, str(host.paths.home), str(host.paths.run))
    space = host.space()
    with pytest.raises(NetworkError, match="CAP_NET_ADMIN"):
        host.attach(space)
    assert client.check(host.paths)["net_admin"] is False
    assert host.leases() == {}
    assert host.links() == set()


def test_check_changes_nothing(host):
    found = host.check()
    assert found["nftables"] == ""
    assert found["net_admin"] is True
    assert (found["exists"], found["leases"], found["ip_forward"]) == (False, 0, False)
    assert host.links() == set()
    assert run("nft", "list", "tables") == ""
    assert not (host.paths.networks / "bridge").exists()


def test_the_helper_stays_small():
    """What it loads beside what it shares with the launcher."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pycontainers.runtime.launcher; shared = {*sys.modules}; "
        "import pycontainers.network.helper; print(*sorted({*sys.modules} - shared))"
    )
    loaded = run(sys.executable, "-I", "-S", "-c", program, str(Path(client.__file__).parents[2])).split()
    assert [name for name in loaded if not name.startswith("pycontainers.network.")] == ["ipaddress"]
