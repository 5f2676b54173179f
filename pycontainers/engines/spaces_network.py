"""What is visible through a process's network namespace, from /proc/PID/net (proc_pid_net(5)): interfaces, addresses, routes, ports."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Sequence

from ..metrics.series import format_bytes
from ..spaces import Sight

_ROWS = 40
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")
_LISTENS = "0A"


def sights(pid: int) -> tuple[Sight, ...]:
    routes = _routes(pid)
    addresses = _addresses(pid, routes)
    rows = []
    for line in _text(pid, "dev").split("\n")[2:]:
        name, _, numbers = line.partition(":")
        name, counts = name.strip(" "), numbers.split()
        if len(counts) > 8:
            has = " ".join(addresses.get(name, []))
            rows.append((name, has, format_bytes(int(counts[0])), format_bytes(int(counts[8]))))
    ways = [(str(network) if network.prefixlen else "default", gateway, name) for network, gateway, name in routes]
    ports = _ports(pid)
    return (
        _cut("interfaces", ("NAME", "ADDRESSES", "RECEIVED", "SENT"), rows),
        _cut("routes", ("TO", "BY WAY OF", "INTERFACE"), ways, "" if ways else "No way leads out."),
        _cut("listening", ("ADDRESS", "PORT", "PROTOCOL"), ports, "" if ports else "Nothing listens."),
    )


def _cut(title: str, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], note: str = "") -> Sight:
    return Sight(title, headers, tuple(rows[:_ROWS]), max(0, len(rows) - _ROWS), note)


def _text(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/net/{name}", encoding="utf-8", errors="replace", newline="\n") as file:
            return file.read(1 << 20)
    except FileNotFoundError:
        return ""  # a kernel without IPv6


def _routes(pid: int) -> list[tuple[ipaddress.IPv4Network, str, str]]:
    """(network, gateway or "", interface), IPv4."""
    found = []
    for line in _text(pid, "route").split("\n")[1:]:
        words = line.split("\t")
        if len(words) < 8:
            continue
        name, target, gateway, mask = words[0], _address(words[1]), _address(words[2]), _address(words[7])
        found.append((ipaddress.IPv4Network((str(target), str(mask))), str(gateway) if int(gateway) else "", name))
    return found


def _addresses(pid: int, routes: list[tuple[ipaddress.IPv4Network, str, str]]) -> dict[str, list[str]]:
    """Interface -> its addresses. The kernel's table of them does not name interfaces: the route to each address's network does."""
    found: dict[str, list[str]] = {}
    for text in dict.fromkeys(_LOCAL.findall(_text(pid, "fib_trie"))):
        address = ipaddress.IPv4Address(text)
        direct = [(network, name) for network, gateway, name in routes if not gateway and network.prefixlen and address in network]
        name = "lo" if address.is_loopback else max(direct, key=lambda one: one[0].prefixlen)[1] if direct else "?"
        prefix = f"/{max(network.prefixlen for network, _ in direct)}" if direct else "/8" if address.is_loopback else ""
        found.setdefault(name, []).append(f"{text}{prefix}")
    for line in _text(pid, "if_inet6").split("\n"):
        words = line.split(" ", 5)
        if len(words) == 6:
            address6 = ipaddress.IPv6Address(bytes.fromhex(words[0]))
            found.setdefault(words[5].strip(" "), []).append(f"{address6}/{int(words[2], 16)}")
    return found


def _ports(pid: int) -> list[tuple[str, ...]]:
    found = []
    for name in ("tcp", "tcp6"):
        for line in _text(pid, name).split("\n")[1:]:
            words = line.split()
            if len(words) > 3 and words[3] == _LISTENS:
                address, _, port = words[1].partition(":")
                found.append((_printed(address), str(int(port, 16)), "tcp"))
    return sorted(set(found), key=lambda row: (int(row[1]), row[0]))


def _address(text: str) -> ipaddress.IPv4Address:
    """Eight hexadecimal digits in the machine's byte order (proc_pid_net(5))."""
    return ipaddress.IPv4Address(int(text, 16).to_bytes(4, sys.byteorder))


def _printed(text: str) -> str:
    if len(text) == 8:
        return str(_address(text))
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, 32, 8)]
    return str(ipaddress.IPv6Address(b"".join(words)))
