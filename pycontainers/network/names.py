"""Names: the files that tell a container who it is and whom to ask. Standard library only."""

from __future__ import annotations

import ipaddress

_LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
#: systemd-resolved's own upstream list, used when /etc/resolv.conf names only the stub that listens on the host's loopback
_UPSTREAM = "/run/systemd/resolve/resolv.conf"


def hosts(hostname: str, network: str) -> str:
    """/etc/hosts: loopback; with the host's network also this machine's own file; a bridge adds the address when it is known."""
    if network == "host":
        return _read("/etc/hosts") or _LOOPBACK
    return _LOOPBACK + (f"127.0.1.1\t{hostname}\n" if network == "none" else "")


def resolv_conf(network: str) -> tuple[str, list[str]]:
    """(/etc/resolv.conf, notes). Name servers on the host's loopback cannot be reached from a container's own network.

    Then the upstream servers of systemd-resolved are taken; where there are none, a note says that names do not resolve.
    """
    if network == "none":
        return "", []
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
