"""What EXPOSE takes: ``[address:][host port:]port[-port][/protocol]``. Docker reads the first two and drops them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .parser import Raw

PROTOCOLS = ("tcp", "udp", "sctp")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


@dataclass(frozen=True)
class Port:
    """One word of EXPOSE. ``protocol`` as written ("" for none); ``published`` says that there is an address or a host port."""

    first: int
    last: int
    protocol: str
    published: bool


def read(text: str) -> Port:
    """:raises ValueError: with what is wrong."""
    before, _, rest = text.rpartition(":")
    address, _, host = before.rpartition(":")
    port, _, protocol = rest.partition("/")
    if protocol.lower() not in ("", *PROTOCOLS):
        raise ValueError(f"the protocol {protocol[:40]!r} is none of {', '.join(PROTOCOLS)}")
    first, last = _ports(port)
    if host:
        host_first, host_last = _ports(host)
        if first != last and host_last - host_first != last - first:
            raise ValueError("the ranges differ in size")
    if address:
        import ipaddress  # hardly ever: not on the way of every build

        try:
            ipaddress.ip_address(address[1:-1] if address[0] == "[" and address[-1] == "]" else address)
        except ValueError:
            raise ValueError(f"{address[:80]!r} is no address") from None
    return Port(first, last, protocol, bool(address or host))


def _ports(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not 0 <= first <= last <= 65535:
        raise ValueError("ports are numbers up to 65535")
    return first, last


def ports(raw: Raw, word: str, text: str) -> list[str]:
    """``8000/tcp, …`` of one word. ``word`` is that word as written, ``text`` with its variables replaced. :raises BuildError:"""
    try:
        port = read(text)
    except ValueError as error:
        raise raw.error(f"invalid port {text[:80]!r}: {error}", "for example: EXPOSE 8080, 53/udp or 8000-8010",
                        offset=max(raw.arguments.find(word), 0)) from None
    protocol = port.protocol.lower() or "tcp"
    return [f"{number}/{protocol}" for number in range(port.first, port.last + 1)]
