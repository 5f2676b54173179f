"""Published ports over real sockets: everything arrives, nothing blocks, half-closes and resets go through."""

import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pycontainers.errors import PortInUse, UsageError
from pycontainers.network import ports, relay
from pycontainers.protocol import Port

MEGABYTE = 1 << 20


@contextlib.contextmanager
def relaying(bound, address="127.0.0.1", limit=None):
    """The relay in a forked process, as a supervisor runs it; ends by closing the control pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(writer)
            if limit:
                relay.CONNECTIONS = limit
            relay.serve(bound, address, reader)
            code = 0
        finally:
            os._exit(code)
    os.close(reader)
    ports.close(bound)
    try:
        yield pid
    finally:
        os.close(writer)
        end = time.monotonic() + 5
        while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
            time.sleep(0.005)
        if done == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert done == (pid, 0), "the relay failed, or did not end with its control pipe"


@pytest.fixture
def server():
    """A TCP listener, the stand-in for the container."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.settimeout(10)
        yield listener


def published(server, protocol="tcp"):
    return ports.bind([Port(server.getsockname()[1], 0, "127.0.0.1", protocol)])


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.settimeout(10)
    return sock


def accept(server):
    sock, _ = server.accept()
    sock.settimeout(10)
    return sock


def read_all(sock):
    parts = []
    while part := sock.recv(MEGABYTE):
        parts.append(part)
    return b"".join(parts)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def eventually(predicate, seconds=5):
    end = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < end
        time.sleep(0.01)


def at_rest(pid):
    """Its descriptors when it waits for somebody: before, it may not have opened all that it needs."""
    eventually(lambda: "poll" in Path(f"/proc/{pid}/wchan").read_text())
    return descriptors(pid)


def test_both_ways_and_half_close(server):
    bound = published(server)
    port = bound[0][0].host_port
    with relaying(bound) as pid:
        idle = at_rest(pid)
        with connect(port) as client, accept(server) as inside:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(inside) == b"question"
            inside.sendall(b"answer after your end")
            inside.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"answer after your end"
        with connect(port) as client, accept(server) as inside:
            inside.sendall(b"banner")
            inside.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"banner"
            client.sendall(b"still speaking")
            client.shutdown(socket.SHUT_WR)
            assert read_all(inside) == b"still speaking"
        eventually(lambda: descriptors(pid) == idle)


def test_much_data_both_ways_at_once_with_a_slow_reader(server):
    data = os.urandom(24 * MEGABYTE)
    bound = published(server)

    def inside():
        with accept(server) as sock:
            sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
            sender.start()
            time.sleep(0.3)  # both windows and both pipes are full by now
            found.append(hashlib.sha256(read_all(sock)).digest())
            sender.join()

    found = []
    thread = threading.Thread(target=inside)
    thread.start()
    with relaying(bound), connect(bound[0][0].host_port) as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_all(client) == data
        sender.join()
        thread.join()
    assert found == [hashlib.sha256(data).digest()]


def test_many_at_once(server):
    bound = published(server)
    port = bound[0][0].host_port

    def inside():
        for _ in range(200):
            sock = accept(server)
            threading.Thread(target=lambda sock=sock: (sock.sendall(read_all(sock)[::-1]), sock.close())).start()

    threading.Thread(target=inside, daemon=True).start()
    with relaying(bound) as pid:
        idle = at_rest(pid)
        clients = [connect(port) for _ in range(200)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
            client.shutdown(socket.SHUT_WR)
        assert [read_all(client) for client in clients] == [(b"%d" % number)[::-1] for number in range(200)]
        for client in clients:
            client.close()
        eventually(lambda: descriptors(pid) == idle)


def test_a_stuck_client_does_not_hold_up_others(server):
    bound = published(server)
    port = bound[0][0].host_port
    with relaying(bound), connect(port) as stuck, accept(server) as inside:
        inside.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                inside.send(b"x" * MEGABYTE)
        with connect(port) as other, accept(server) as second:
            other.sendall(b"hello")
            assert second.recv(10) == b"hello"
        assert stuck.fileno() > 0


def test_more_than_the_limit_wait(server):
    bound = published(server)
    port = bound[0][0].host_port
    with relaying(bound, limit=2):
        clients = [connect(port) for _ in range(4)]
        inside = [accept(server), accept(server)]
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
        server.settimeout(10)
        clients[0].close()
        inside[0].close()
        inside.append(accept(server))
        for sock in clients + inside:
            sock.close()


@pytest.mark.parametrize("side", ["client", "inside"])
def test_a_reset_goes_through(server, side):
    bound = published(server)
    with relaying(bound) as pid:
        idle = at_rest(pid)
        client = connect(bound[0][0].host_port)
        inside = accept(server)
        client.sendall(b"x")
        inside.recv(1)
        dead, other = (client, inside) if side == "client" else (inside, client)
        dead.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dead.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        other.close()
        eventually(lambda: descriptors(pid) == idle)


def test_a_reset_after_a_half_close_is_seen(server):
    bound = published(server)
    with relaying(bound) as pid:
        idle = at_rest(pid)
        client = connect(bound[0][0].host_port)
        inside = accept(server)
        client.shutdown(socket.SHUT_WR)
        assert inside.recv(1) == b""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        eventually(lambda: descriptors(pid) == idle)
        inside.close()


def test_data_before_a_reset_arrives(server):
    data = os.urandom(48_000)
    bound = published(server)
    with relaying(bound), connect(bound[0][0].host_port) as client:
        inside = accept(server)
        client.sendall(b"a request that nobody reads")
        time.sleep(0.05)
        inside.sendall(data)
        inside.close()  # with unread data this is a reset
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(MEGABYTE):
                found += part
        assert found == data


def test_nobody_inside_is_a_refusal(server):
    bound = published(server)
    server.close()
    with relaying(bound):
        for _ in range(3):
            # The reset may come before connect has returned.
            with pytest.raises(ConnectionResetError), connect(bound[0][0].host_port) as client:
                client.recv(1)


def test_udp_answers_find_their_client():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        inside.bind(("127.0.0.1", 0))
        inside.settimeout(10)
        bound = published(inside, "udp")
        target = ("127.0.0.1", bound[0][0].host_port)
        with relaying(bound):
            clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
            for number, client in enumerate(clients):
                client.settimeout(10)
                client.sendto(b"%d" % number, target)
            seen = [inside.recvfrom(100) for _ in clients]
            assert len({sender for _, sender in seen}) == 5
            for data, sender in reversed(seen):
                inside.sendto(b"re:" + data, sender)
            assert [client.recvfrom(100) for client in clients] == [(b"re:%d" % n, target) for n in range(5)]
            clients[0].sendto(b"", target)
            assert inside.recvfrom(100)[0] == b"", "an empty datagram is one, too"
            for client in clients:
                client.close()


def test_udp_forgets_idle_clients_and_survives_refusals(monkeypatch):
    monkeypatch.setattr(relay, "UDP_SECONDS", 0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        inside.bind(("127.0.0.1", 0))
        bound = published(inside, "udp")
        target = ("127.0.0.1", bound[0][0].host_port)
        address = inside.getsockname()
        inside.close()
        with relaying(bound) as pid:
            idle = at_rest(pid)
            for _ in range(5):
                client.sendto(b"nobody there", target)
                time.sleep(0.01)
            assert descriptors(pid) == idle + 1
            eventually(lambda: descriptors(pid) == idle)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(address)
                again.settimeout(5)
                client.sendto(b"now", target)
                assert again.recv(100) == b"now"


def test_udp_limit():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        inside.bind(("127.0.0.1", 0))
        inside.settimeout(5)
        bound = published(inside, "udp")
        with relaying(bound, limit=3) as pid:
            open_files = []
            for number in range(10):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.sendto(b"%d" % number, ("127.0.0.1", bound[0][0].host_port))
                    assert inside.recv(100) == b"%d" % number
                open_files.append(descriptors(pid))
            assert open_files[-1] <= open_files[0] + 2


def test_busy_port_names_its_holder_and_leaves_none_bound():
    program = "import socket,sys;s=socket.create_server(('127.0.0.1',0));print(s.getsockname()[1],flush=True);sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        port = int(other.stdout.readline())
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(PortInUse, match=rf"127.0.0.1:{port}/tcp is in use by python[\w.]* \(pid {other.pid}\)") as caught:
            ports.bind([Port(80), Port(80, port)])
        assert "-p 0:80" in caught.value.hint
        assert len(os.listdir("/proc/self/fd")) == before
        other.communicate("")


def test_free_port_is_reported():
    bound = ports.bind([Port(80), Port(53, 0, "127.0.0.1", "udp"), Port(80, 0, "::1")])
    assert [port.host_port for port, _ in bound] == [sock.getsockname()[1] for _, sock in bound]
    assert all(port.host_port > 0 for port, _ in bound)
    ports.close(bound)


@pytest.mark.parametrize(
    ("port", "error"),
    [
        (Port(80, 8080, "192.0.2.77"), PortInUse), (Port(80, 8080, "localhost.invalid-name"), UsageError),
        (Port(0, 8080), UsageError), (Port(80, 70000), UsageError), (Port(80, 8080, "127.0.0.1", "sctp"), UsageError),
    ],
)
def test_what_cannot_be_bound(port, error):
    with pytest.raises(error):
        ports.bind([port])


def test_much_passes_whole(server):
    """How fast is for the benchmarks to say."""
    total = 512 * MEGABYTE
    bound = published(server)
    pid = os.fork()
    if pid == 0:
        try:
            with accept(server) as sock:
                block = b"x" * MEGABYTE
                for _ in range(total // MEGABYTE):
                    sock.sendall(block)
        finally:
            os._exit(0)
    buffer = bytearray(MEGABYTE)
    with relaying(bound), connect(bound[0][0].host_port) as client:
        received = 0
        while count := client.recv_into(buffer):
            received += count
    os.waitpid(pid, 0)
    assert received == total
