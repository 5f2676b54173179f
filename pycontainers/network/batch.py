"""Netlink in batches: many messages in one send, their acknowledgements read back in order.

A plain netlink(7) socket does a whole interface in one round trip, and it can be opened inside another network namespace: a socket
belongs to the namespace in which it was made. What is in the messages: :mod:`.messages`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence

from ..errors import NetworkError
from ..linux import namespaces
from . import messages

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x300, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLM_F_ACK_TLVS, _NLMSGERR_ATTR_MSG = 0x200, 1
_HEADER = struct.Struct("=IHHII")


class NetlinkError(OSError):
    """The kernel refused one message of a batch. ``position`` counts from 0; ``detail`` is its own word for it, if any."""

    def __init__(self, number: int, what: str, detail: str, position: int = 0) -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}{f' ({detail})' if detail else ''}")
        self.detail, self.position = detail, position


class Netlink:
    """One netlink socket in the current network namespace."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self.sock.settimeout(10)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.bind((0, 0))
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
            self.sock.setsockopt(_SOL_NETLINK, option, 1)
        self._sequence = 0

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, body: bytes, kind: int, flags: int) -> bytes:
        """A whole message with the next sequence number."""
        self._sequence += 1
        return messages.message(kind, flags | NLM_F_REQUEST, self._sequence, body)

    def send(self, parts: Sequence[tuple[str, bytes, bool]]) -> list[NetlinkError | None]:
        """Send ``(what it does, encoded message, whether it asks for an ACK)`` at once; one result for each part.

        The kernel goes on after a message that fails (``netlink_rcv_skb``), so each result stands for itself.
        """
        index = {_HEADER.unpack_from(data)[3]: number for number, (_, data, _) in enumerate(parts)}
        waiting = {_HEADER.unpack_from(data)[3] for _, data, wants in parts if wants}
        results: list[NetlinkError | None] = [None] * len(parts)
        self.sock.sendto(b"".join(data for _, data, _ in parts), (0, 0))
        while waiting:
            for kind, flags, sequence, payload in self._read():
                if kind == NLMSG_ERROR and sequence in index:
                    number = index[sequence]
                    error = _error(payload, flags, parts[number][0], number)
                    results[number] = results[number] or error
                    waiting.discard(sequence)
                    if error is not None and not parts[number][2]:
                        # A refused end of a nftables batch: what follows is not executed and not acknowledged.
                        waiting.clear()
        return results

    def run(self, parts: Sequence[tuple[str, bytes]]) -> None:
        """Send messages that all ask for an ACK; raises the first :class:`NetlinkError`.

        One that speaks of IPv6 to a kernel without it is no error: EAFNOSUPPORT.
        """
        for error in self.send([(what, data, True) for what, data in parts]):
            if error is not None and error.errno != errno.EAFNOSUPPORT:
                raise error

    def ask(self, what: str, body: bytes, kind: int) -> bytes:
        """One request with one answer, without its header."""
        self.sock.sendto(self.encode(body, kind, 0), (0, 0))
        while True:
            for reply_kind, flags, sequence, payload in self._read():
                if sequence != self._sequence:
                    continue
                if reply_kind == NLMSG_ERROR:
                    raise _error(payload, flags, what, 0) or OSError(errno.EPROTO, what)
                return payload

    def dump(self, what: str, body: bytes, kind: int) -> list[bytes]:
        """All objects of a kind, each without its header."""
        self.sock.sendto(self.encode(body, kind, NLM_F_DUMP), (0, 0))
        found: list[bytes] = []
        while True:
            for reply_kind, flags, sequence, payload in self._read():
                if sequence != self._sequence:
                    continue
                if reply_kind == NLMSG_ERROR:
                    raise _error(payload, flags, what, 0) or OSError(errno.EPROTO, what)
                if reply_kind == NLMSG_DONE:
                    return found
                found.append(payload)

    def _read(self) -> list[tuple[int, int, int, bytes]]:
        """The messages of one datagram: ``(type, flags, sequence, payload)``."""
        data, sender = self.sock.recvfrom(1 << 18)
        if sender[0] != 0:
            return []  # any process may send to our port id; only the kernel's is 0 (netlink(7))
        parts, offset = [], 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            parts.append((kind, flags, sequence, data[offset + 16 : offset + length]))
            offset += (max(length, 16) + 3) & ~3
        return parts


def _error(payload: bytes, flags: int, what: str, position: int) -> NetlinkError | None:
    """The error in an NLMSG_ERROR, None when it is an acknowledgement."""
    (number,) = struct.unpack_from("=i", payload)
    if number == 0:
        return None
    detail, offset = "", 20  # error and header of the refused message; NETLINK_CAP_ACK leaves its payload away
    while flags & _NLM_F_ACK_TLVS and offset + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, offset)
        if kind & 0x3FFF == _NLMSGERR_ATTR_MSG:
            detail = payload[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (max(length, 4) + 3) & ~3
    return NetlinkError(-number, what, detail, position)


def inside(namespace: int, protocol: int = NETLINK_ROUTE) -> Netlink:
    """A netlink socket of the network namespace behind the descriptor ``namespace``.

    Only for a single-threaded process: setns(2) moves the calling thread. One that could not come back would change the rules
    of a container in place of the host's, so the process ends at once.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            namespaces.setns(namespace, namespaces.CLONE_NEWNET)
        except OSError as error:
            raise NetworkError(f"the network namespace cannot be entered: {error.strerror}") from None
        try:
            return Netlink(protocol)
        finally:
            try:
                namespaces.setns(home, namespaces.CLONE_NEWNET)
            except OSError:
                os._exit(70)
    finally:
        os.close(home)
