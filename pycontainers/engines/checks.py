"""``doctor``: what of all this works on this machine, why not, and what would mend it. And sweeping the network's leftovers."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any

from ..errors import ContainersError
from ..linux import cgroups, holder
from ..network import wayout
from ..paths import Paths
from ..protocol import Check
from ..runtime import client, isolation, network


def doctor(paths: Paths) -> list[Check]:
    """One row per thing that containers use, measured now."""
    rows = [Check("kernel", "ok", f"Linux {platform.release()} on {platform.machine()}")]
    if os.geteuid() == 0:
        rows.append(Check("root", "ok", "uid 0"))
    paths.prepare()
    rows += _isolation(paths)
    if os.geteuid() == 0:
        rows += _cgroups() + _network(paths)
    elif holder.alive(str(paths.run)):  # else what was refused stands there already, and nothing more can be tried
        rows += _rootless(paths) + _cgroups() + _network(paths) + _way_out(paths)
    return rows + _notebook() + _disk(paths)


def _isolation(paths: Paths) -> list[Check]:
    try:
        probes = client.isolation(paths, fresh=True)
    except ContainersError as error:
        return [Check("launcher", "missing", error.message, error.hint)]
    rows = [Check("launcher", "ok", "answers")]
    for probe in probes:
        if probe["name"] == isolation.GROUPS:
            continue  # has rows of its own
        weaker = "missing" if probe["level"] == "needed" else "weaker"
        rows.append(
            Check(
                probe["name"],
                weaker if probe["errno"] else "ok",
                "; ".join(filter(None, (probe["why"], probe["errno"] and probe["note"]))),
                probe["remedy"] if probe["errno"] else "",
            )
        )
    return rows


def _rootless(paths: Paths) -> list[Check]:
    """How an ordinary user's containers have their ids."""
    found = holder.read(str(paths.run)) or {"uids": [], "why": ""}
    count = sum(found["uids"])
    if count > 1:
        return [Check("ids inside", "ok", f"{count}, of them {count - 1} subordinate ones (newuidmap)")]
    why, _, remedy = found["why"].partition(": as root: ")
    return [Check("ids inside", "weaker", f"one, yours: {why}", f"as root: {remedy}" if remedy else "see user_namespaces(7)")]


def _cgroups() -> list[Check]:
    layout = cgroups.layout()
    rows = [
        Check(
            "cgroups",
            "ok" if layout.writable else "missing",
            f"{layout.version}{'' if layout.writable else ': ' + layout.why}",
            "" if layout.writable else _way_in() or "mount the cgroup tree writable (docker: --privileged)",
        )
    ]
    rows += _delegated() if layout.writable else []
    for name, works, why in cgroups.check():
        rows.append(
            Check(f"limit {name}", "ok" if works else "weaker", why, "" if works else "run without this limit, or on a kernel that has it")
        )
    return rows


def _delegated() -> list[Check]:
    """Which controllers this user was given, where an administrator may give less than all."""
    if os.geteuid() == 0:
        return []
    remedy = _way_in() or "docs/cgroups.md: Without root"
    return [Check(f"cgroup {name}", "weaker", why, remedy) for name, why in cgroups.delegation().missing.items()]


def _way_in() -> str:
    command = cgroups.delegation().way_in
    return f"start the server by: {' '.join(command[:-1])} …" if command else ""


def _network(paths: Paths) -> list[Check]:
    try:
        facts: dict[str, Any] = network.check(paths)
    except (ContainersError, OSError) as error:
        message = error.message if isinstance(error, ContainersError) else str(error)
        return [Check("bridge network", "weaker", message, getattr(error, "hint", "") or "run with --network none or host")]
    state = "ok" if facts["net_admin"] else "weaker"
    where = f"{facts['bridge']} {facts['subnet']}" if facts["exists"] else "made at the first start that needs it"
    rows = [
        Check(
            "bridge network",
            state,
            where if facts["net_admin"] else "CAP_NET_ADMIN is missing",
            "" if facts["net_admin"] else "run with --network none or host",
        )
    ]
    if facts["nftables"]:
        rows.append(Check("way out (NAT)", "weaker", facts["nftables"], "a kernel with nf_tables and nft_masq"))
    elif facts["dropping"]:
        rows.append(
            Check(
                "way out (NAT)",
                "weaker",
                f"other rules drop forwarded packets: {', '.join(map(str, facts['dropping']))}",
                "allow forwarding for the bridge in those rules",
            )
        )
    else:
        rows.append(Check("way out (NAT)", "ok", "nftables, table of its own"))
    return rows


def _way_out(paths: Paths) -> list[Check]:
    """An ordinary user's bridge has no link to the outside; what stands in for one is started to see whether it works."""
    program = wayout.ensure(paths)
    why = "; ".join(wayout.explain(str(paths.run)))
    return [Check("way out (user mode)", "ok" if program else "weaker", program or why, "" if program else wayout.INSTALL)]


def _notebook() -> list[Check]:
    from importlib.util import find_spec

    there = find_spec("jupyter_server_proxy") is not None
    return [
        Check(
            "links to ports",
            "ok" if there else "weaker",
            "jupyter-server-proxy is installed"
            if there
            else "jupyter-server-proxy is not installed: links work only in a browser on this machine",
            "" if there else "pip install jupyter-server-proxy",
        )
    ]


def _disk(paths: Paths) -> list[Check]:
    usage = shutil.disk_usage(paths.home)
    enough = usage.free > 1 << 30
    return [
        Check(
            "disk",
            "ok" if enough else "weaker",
            f"{usage.free / (1 << 30):.1f} GiB free below {paths.home}",
            "" if enough else "free some space, or move the store with PYCONTAINERS_HOME",
        )
    ]


def sweep_network(paths: Paths, alive: list[str]) -> None:
    """Free addresses and links of containers that are gone."""
    try:
        network.sweep(paths, alive)
    except (ContainersError, OSError):
        pass  # without a network helper there is nothing that could have been left
