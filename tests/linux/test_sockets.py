"""Messages, descriptors and errors over SOCK_SEQPACKET."""

import fcntl
import os
import socket
import stat

import pytest

from pycontainers.errors import ContainersError, HelperError, NotFound
from pycontainers.linux import sockets


@pytest.fixture
def pair():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.settimeout(5)
        right.settimeout(5)
        yield left, right


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_messages_keep_their_borders(pair):
    sockets.send(pair[0], {"a": 1})
    sockets.send(pair[0], {"b": "ü"})
    assert sockets.receive(pair[1]) == ({"a": 1}, [])
    assert sockets.receive(pair[1]) == ({"b": "ü"}, [])


def test_end_of_stream(pair):
    pair[0].close()
    assert sockets.receive(pair[1]) == (None, [])


def test_reset_is_an_end(pair):
    sockets.send(pair[0], {"unread": 1})
    pair[1].close()
    assert sockets.receive(pair[0]) == (None, [])


def test_descriptors_are_close_on_exec(pair):
    sockets.send(pair[0], {}, [0, 1, 2])
    _, fds = sockets.receive(pair[1])
    assert len(fds) == 3
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in fds)
    sockets.close_all(fds)


def test_too_many_descriptors_leave_none_open(pair):
    sockets.send(pair[0], {}, [0] * 8)
    before = open_descriptors()
    with pytest.raises(HelperError, match="more than 3 descriptors"):
        sockets.receive(pair[1], max_fds=3)
    assert open_descriptors() == before


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_nonsense_leaves_no_descriptor_open(pair, data):
    sockets.widen(pair[0])
    socket.send_fds(pair[0], [data], [0])
    before = open_descriptors()
    with pytest.raises(HelperError):
        sockets.receive(pair[1])
    assert open_descriptors() == before


def test_large_messages(pair):
    text = "x" * (sockets.LIMIT - 100)
    sockets.send(pair[0], {"text": text})
    assert sockets.receive(pair[1])[0] == {"text": text}
    with pytest.raises(HelperError, match="200011 bytes"):
        sockets.send(pair[0], {"text": "x" * sockets.LIMIT})


def test_errors_travel(pair):
    sockets.reply_error(pair[0], NotFound("no container x", "see ps"))
    reply, _ = sockets.receive(pair[1])
    with pytest.raises(NotFound, match="no container x") as caught:
        sockets.raise_error(reply)
    assert caught.value.hint == "see ps"


@pytest.mark.parametrize("name", ["Nonsense", "near", "Iterable", "__builtins__", 3])
def test_unknown_errors_are_ours(name):
    with pytest.raises(ContainersError, match="text") as caught:
        sockets.raise_error({"error": name, "message": "text"})
    assert type(caught.value) is ContainersError


def test_a_long_path(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    path = folder / "some.sock"
    with sockets.listen(path) as listener, sockets.connect(path, 1) as client:
        server, _ = listener.accept()
        with server:
            sockets.send(client, {"a": 1})
            assert sockets.receive(server)[0] == {"a": 1}
            assert sockets.peer_credentials(server) == (os.getpid(), os.geteuid(), os.getegid())
    assert os.listdir(folder) == ["some.sock"]


def test_listen_is_private_and_replaces_only_the_dead(tmp_path):
    path = tmp_path / "x.sock"
    first = sockets.listen(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(HelperError, match="in use"):
        sockets.listen(path)
    first.close()
    with pytest.raises(ConnectionRefusedError):
        sockets.connect(path, 1)
    with sockets.listen(path):
        sockets.connect(path, 1).close()


def test_full_backlog_times_out(tmp_path):
    path = tmp_path / "x.sock"
    with sockets.listen(path, backlog=0), sockets.connect(path, 1), pytest.raises(TimeoutError):
        sockets.connect(path, 0.05)
