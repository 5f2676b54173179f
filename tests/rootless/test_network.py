"""An ordinary user's network: between containers, out through pasta or slirp4netns, in through published ports."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from .conftest import Somebody, wait_for

SERVER = (
    "import socket, threading\n"
    "s = socket.create_server(('0.0.0.0', {port}))\nprint('up', flush=True)\n"
    "while True:\n    c, a = s.accept(); c.sendall(b'from ' + a[0].encode()); c.close()\n"
)
CLIENT = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); print(s.recv(99).decode())"
WORLD = "198.51.100.2"  # TEST-NET-2 (RFC 5737): nobody else's


@pytest.fixture(scope="module")
def world() -> Iterator[int]:
    """A machine out there, behind a link of this one: the port of its server."""
    name = f"pyctw{secrets.token_hex(3)}"
    peer = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    inside = ["nsenter", f"--net=/proc/{peer.pid}/ns/net"]
    server = None
    try:
        wait_for(lambda: subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=False).returncode == 0)
        commands = [
            ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(peer.pid)],
            ["ip", "addr", "add", "198.51.100.1/30", "dev", name],
            ["ip", "link", "set", name, "up"],
            [*inside, "ip", "addr", "add", f"{WORLD}/30", "dev", "eth0"],
            [*inside, "ip", "link", "set", "eth0", "up"],
        ]
        for command in commands:
            subprocess.run(command, check=True)
        server = subprocess.Popen([*inside, sys.executable, "-c", SERVER.format(port=9000)], stdout=subprocess.PIPE)
        assert server.stdout is not None and server.stdout.readline() == b"up\n"
        yield 9000
    finally:
        subprocess.run(["ip", "link", "del", name], check=False)
        for process in (server, peer):
            if process is not None:
                process.kill()
                process.wait()


@pytest.fixture(params=["pasta", "slirp4netns", "neither"])
def way(request: pytest.FixtureRequest, people: Callable[..., Somebody]) -> Iterator[tuple[Somebody, str]]:
    """A user on a machine with one of the two programs, or with none."""
    if request.param != "neither":
        if not shutil.which(request.param):
            pytest.skip(f"{request.param} is missing (package {'passt' if request.param == 'pasta' else request.param})")
        if not _has_tun():
            pytest.skip("this machine has no /dev/net/tun")
    hidden = [name for name in ("pasta", "pasta.avx2", "slirp4netns") if not name.startswith(request.param)]
    found = people(without=tuple(hidden))
    yield found, request.param
    for line in found("ps", "-aq").split():
        found("rm", "-f", line, code=None)


def _has_tun() -> bool:
    with contextlib.suppress(OSError), open("/dev/net/tun", "rb"):
        return True
    return False


@pytest.mark.more_than_uml("nftables")
def test_the_way_out_is_there_and_said(way: tuple[Somebody, str], world: int) -> None:
    somebody, program = way
    name = somebody("run", "-d", "host", "sleep", "60").strip()
    notes = " ".join(somebody.inspect(name)["notes"])
    done = somebody("exec", name, "python3", "-c", CLIENT, WORLD, str(world), code=None)
    if program == "neither":
        assert "neither pasta nor slirp4netns" in notes
        assert done == ""
    else:
        assert f"the way out is {program}" in notes
        assert done == "from 198.51.100.1\n"  # the user's own socket on this machine


def test_this_machines_loopback_is_not_reached(way: tuple[Somebody, str]) -> None:
    """Neither by the gateway of the way out nor by any other address that the container sees."""
    somebody, _ = way
    reached = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    conn, _ = server.accept()
                    if conn.recv(5) == b"probe":
                        reached.set()
                    conn.close()

        threading.Thread(target=accept, daemon=True).start()
        with socket.create_connection(("127.0.0.1", port)) as check:
            check.sendall(b"probe")
        assert reached.wait(5)  # the attempt would be noticed
        reached.clear()
        script = (
            "import socket, struct, sys\n"
            "routes = [line.split() for line in open('/proc/net/route')][1:]\n"
            "gateways = {socket.inet_ntoa(struct.pack('<I', int(r[2], 16))) for r in routes} - {'0.0.0.0'}\n"
            "for address in {*gateways, *sys.argv[2:], '127.0.0.1'}:\n"
            "    try:\n        s = socket.create_connection((address, int(sys.argv[1])), 2); s.sendall(b'probe'); s.close()\n"
            "    except OSError: pass\n"
        )
        outer = subprocess.run(["ip", "-4", "route", "show", "default"], capture_output=True, text=True, check=False).stdout.split()
        somebody("run", "--rm", "host", "python3", "-c", script, str(port), "10.0.2.2", "10.0.2.3", *outer[2:3])
        assert not reached.is_set()


def test_published_port_and_its_source(way: tuple[Somebody, str]) -> None:
    somebody, _ = way
    name = somebody("run", "-d", "-p", "8000", "host", "python3", "-u", "-c", SERVER.format(port=8000)).strip()
    wait_for(lambda: "up" in somebody("logs", name))
    port = somebody.inspect(name)["ports"][0]["host_port"]
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        answer = client.recv(99).decode()
    address = somebody.inspect(name)["address"]
    assert answer == f"from {address.rpartition('.')[0].rpartition('.')[0]}.0.1"  # the bridge's own, as with root


def test_containers_reach_each_other(way: tuple[Somebody, str]) -> None:
    somebody, _ = way
    name = somebody("run", "-d", "host", "python3", "-u", "-c", SERVER.format(port=8000)).strip()
    wait_for(lambda: "up" in somebody("logs", name))
    address = somebody.inspect(name)["address"]
    assert somebody("run", "--rm", "host", "python3", "-c", CLIENT, address, "8000").startswith("from 10.")


def test_network_host_is_this_machines(mapped: Somebody) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=lambda: server.accept()[0].sendall(b"the machine itself"), daemon=True).start()
        assert mapped("run", "--rm", "--network", "host", "host", "python3", "-c", CLIENT, "127.0.0.1", str(port)) == "the machine itself\n"
        # /sys is the machine's then, with its cgroups in it: none of it may be written (CVE-2023-25809)
        look = "find /sys -writable -type f 2>/dev/null | head -3; mkdir /sys/fs/cgroup/x"
        assert mapped("run", "--rm", "--network", "host", "host", "sh", "-c", look, code=1) == ""
        assert "Read-only file system" in mapped.stderr


@pytest.mark.more_than_uml("nftables")
def test_the_way_out_ends_with_the_last_container(people: Callable[..., Somebody]) -> None:
    if not (shutil.which("pasta") and _has_tun()):
        pytest.skip("pasta (package passt) or /dev/net/tun is missing")
    somebody = people()
    somebody("run", "--rm", "host", "true")
    assert any("pasta" in line or "passt" in line for line in somebody.processes().values())
    somebody.leave()
    wait_for(lambda: not somebody.processes())


@pytest.mark.more_than_uml("nftables")
def test_a_replaced_launcher_brings_its_way_out(people: Callable[..., Somebody], world: int) -> None:
    """An upgrade: the old launcher leaves when the next command asks, and with it, if nothing runs, the namespaces and their way out."""
    if not (shutil.which("pasta") and _has_tun()):
        pytest.skip("pasta (package passt) or /dev/net/tun is missing")
    somebody = people()
    somebody("run", "--rm", "host", "true")
    before = somebody.holder["holder"]
    newest = f"{somebody.base}/venv/lib"
    script = f"touch $(find {newest} -path '*pycontainers/linux/*.py' | head -1)"  # its greeting carries the time of its newest file
    subprocess.run(["sh", "-c", script], check=True)
    assert somebody("run", "--rm", "host", "python3", "-c", CLIENT, WORLD, str(world)) == "from 198.51.100.1\n"
    assert somebody.holder["holder"] != before
