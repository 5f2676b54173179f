"""Names: the files that tell a container who it is and whom to ask. Standard library only."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

HOST_GATEWAY = "host-gateway"
"""Docker's word for this machine in ``--add-host NAME:host-gateway``."""
#: resolv.conf(5): domain is an older form of search
_KIND = {"domain": "search"}
_LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
#: systemd-resolved's own upstream list, used when /etc/resolv.conf names only the stub that listens on the host's loopback
_UPSTREAM = "/run/systemd/resolve/resolv.conf"


def hosts(hostname: str, network: str, extra: Sequence[str] = ()) -> str:
    """/etc/hosts: loopback; with the host's network also this machine's own file; a bridge adds the address when it is known.

    :param extra: ``NAME:IP`` lines of the user's; ``host-gateway`` as address is this machine (on a bridge known at the start only).
    """
    text = _read("/etc/hosts") or _LOOPBACK if network == "host" else _LOOPBACK
    if network == "none":
        text += f"127.0.1.1\t{hostname}\n"
    for line in extra:
        name, _, address = line.partition(":")
        if address == HOST_GATEWAY:
            address = "127.0.0.1" if network == "host" else ""
        if address:
            text += f"{address}\t{name}\n"
    return text


def gateway_hosts(network: str, extra: Sequence[str]) -> list[str]:
    """The names in ``extra`` that stand for this machine, whose address on a bridge is known at the start only."""
    return [line.partition(":")[0] for line in extra if network not in ("host", "none") and line.partition(":")[2] == HOST_GATEWAY]


def resolv_conf(
    network: str, servers: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """(/etc/resolv.conf, notes). What is given replaces what this machine's file says of the same kind; a search of ``.`` is none.

    Name servers on the host's loopback cannot be reached from a container's own network: then the upstream servers of
    systemd-resolved are taken; where there are none, a note says that names do not resolve.
    """
    if network == "none" and not servers:
        return "", []
    text, notes = ("", []) if network == "none" else _of_machine(network)
    given = {
        "nameserver": list(servers),
        "search": [" ".join(search)] if search and tuple(search) != (".",) else [],
        "options": [" ".join(options)] if options else [],
    }
    replaced = {word for word, values in (("nameserver", servers), ("search", search), ("options", options)) if values}
    kept = [line for line in text.splitlines() if not (line.split() and _KIND.get(line.split()[0], line.split()[0]) in replaced)]
    lines = kept + [f"{word} {value}" for word, values in given.items() for value in values]
    return "".join(line + "\n" for line in lines), [] if servers else notes


def _of_machine(network: str) -> tuple[str, list[str]]:
    text = _read("/etc/resolv.conf")
    if network == "host":
        return text, []
    kept, servers = _without_loopback(text)
    if servers:
        return kept, []
    kept, servers = _without_loopback(_read(_UPSTREAM))
    if servers:
        return kept, []
    return kept, ["names do not resolve: /etc/resolv.conf of this machine has no name server outside its loopback"]


def _without_loopback(text: str) -> tuple[str, list[str]]:
    lines, servers = [], []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                if ipaddress.ip_address(words[1].partition("%")[0]).is_loopback:
                    continue
            except ValueError:
                continue
            servers.append(words[1])
        lines.append(line)
    return "".join(line + "\n" for line in lines), servers


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
