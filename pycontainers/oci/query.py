"""What can be asked: list, ps, events, features, and a spec to start from. Each returns text or what becomes JSON."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ..linux import capabilities, cgroups, namespaces
from ..linux.mount_options import WORDS
from ..metrics.sample import Sampler
from ..runtime import defaults, hooks
from .store import Container

OCI_LEAST, OCI_MOST = "1.0.0", "1.2.1"


def listing(found: list[Container], form: str, *, quiet: bool) -> str:
    states = [container.oci_state() for container in found]
    if quiet:
        return "".join(f"{state['id']}\n" for state in states)
    if form == "json":
        return json.dumps(states) + "\n" if states else "null\n"
    rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    rows += [tuple(str(state[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")) for state in states]
    return table(rows)


def table(rows: list[Any]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)


def processes(container: Container, form: str) -> str:
    pids = container.group.pids()
    if form == "json":
        return json.dumps(pids) + "\n"
    rows = [("UID", "PID", "PPID", "TIME", "CMD")]
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            with open(f"/proc/{pid}/cmdline", "rb") as raw:
                command = raw.read().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
            seconds = (int(fields[11]) + int(fields[12])) // os.sysconf("SC_CLK_TCK")
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            continue  # it has just ended
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        rows.append((str(uid), str(pid), fields[1], clock, command))
    return table(rows)


def statistics(container: Container) -> dict[str, Any]:
    """In the form of runc's ``events --stats``; what this machine does not count is 0."""
    sample = Sampler(container.group).read(None)
    total = {"total": sample.cpu_usage, "kernel": sample.cpu_system, "user": sample.cpu_user}
    data = {
        "cpu": {
            "usage": total,
            "throttling": {"throttledPeriods": sample.throttled_periods, "throttledTime": sample.throttled},
        },
        "memory": {
            "usage": {"limit": sample.memory_limit, "usage": sample.memory, "max": container.group.peak(), "failcnt": 0},
            "swap": {"usage": sample.swap, "limit": 0, "failcnt": 0},
        },
        "pids": {"current": sample.pids, "limit": sample.pids_limit},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": 0, "minor": 0, "op": "Read", "value": sample.block_read},
                {"major": 0, "minor": 0, "op": "Write", "value": sample.block_write},
            ]
        },
        "hugetlb": {},
        "intel_rdt": {},
    }
    return {"type": "stats", "id": container.id, "data": data}


def seconds(text: str) -> float:
    """``5s``, ``500ms``, ``2m``, ``5``."""
    number = text.rstrip("hms")
    return float(number) * {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}[text[len(number) :]]


def wait(interval: float) -> None:
    time.sleep(interval)


def features() -> dict[str, Any]:
    """The object of features.md."""
    from ..linux import seccomp

    layout = cgroups.layout()
    return {
        "ociVersionMin": OCI_LEAST,
        "ociVersionMax": OCI_MOST,
        "hooks": list(hooks.EVERY),
        "mountOptions": WORDS,
        "linux": {
            "namespaces": sorted(namespaces.KINDS),
            "capabilities": [f"CAP_{name}" for name in capabilities.NAMES[: capabilities.last() + 1]],
            "cgroup": {
                "v1": layout.version in ("v1", "hybrid"),
                "v2": layout.version in ("v2", "hybrid"),
                "systemd": False,
                "systemdUser": False,
                "rdma": False,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": os.path.isdir("/sys/kernel/security/apparmor")},
            "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"io.pycontainers.version": _version()},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def _version() -> str:
    from ..version import __version__

    return __version__


def spec(*, rootless: bool) -> dict[str, Any]:
    """A config.json to start from: a shell in ``rootfs``, with what a container gets by default."""
    caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    mounts = [dict(mount) for mount in defaults.MOUNTS]
    found: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [f"PATH={defaults.PATH}", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "container",
        "mounts": mounts,
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in kinds],
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
        },
    }
    if rootless:
        linux = found["linux"]
        linux["namespaces"] = [{"type": kind} for kind in ("user", *(kind for kind in kinds if kind != "network"))]
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
        for mount in mounts:
            mount["options"] = [option for option in mount["options"] if not option.startswith(("gid=", "uid="))]
            if mount["destination"] == "/sys":
                mount.update(type="none", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
    return found
