"""Words to the smaller settings of a container: ulimits, devices, restart policy, health check, hosts, lengths of time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import LimitError, UsageError, near
from ..protocol import Device, HealthCheck, RestartPolicy, Ulimit

#: setrlimit(2)'s names without RLIMIT_; Docker's list and ``as``
ULIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
RESTARTS = ("no", "on-failure", "always", "unless-stopped")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)")
_SHORTEST = 0.001  # seconds: Docker's least length of a health check's times


def several(value: str | Iterable[Any] | None) -> tuple[Any, ...]:
    """One word stands for a list of one."""
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def seconds(value: str | float, option: str) -> float:
    """Seconds of ``1m30s``, ``500ms``, ``1.5h`` (Go's durations), or of a plain number. :raises UsageError:"""
    text = str(value).strip()
    parts = _PART.findall(text)
    if "".join(number + unit for number, unit in parts) == text and parts:
        return float(sum(float(number) * _UNITS[unit] for number, unit in parts))
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise UsageError(f"{option} {value!r} is not a length of time", f"for example {option} 30s, 1m30s or 500ms")
    return found


def time_limit(value: str | float, option: str) -> float:
    """Seconds after which something is ended. :raises UsageError: none, or no length of time."""
    found = seconds(value, option)
    if not found:
        raise UsageError(f"{option} {value!r} leaves no time at all", f"for example {option} 30s; without {option} there is no end")
    return found


def ulimit_list(ulimits: Iterable[str | Ulimit] | Mapping[str, Any] | str | None) -> tuple[Ulimit, ...]:
    """``["nofile=1024:2048"]``, ``{"nofile": 1024}``, ``{"nofile": (1024, 2048)}`` or Ulimit objects; the last of a name counts."""
    if isinstance(ulimits, Mapping):
        pairs = {name: value if isinstance(value, tuple | list) else (value,) for name, value in ulimits.items()}
        ulimits = [f"{name}={':'.join(map(str, value))}" for name, value in pairs.items()]
    found = [item if isinstance(item, Ulimit) else parse_ulimit(item) for item in several(ulimits)]
    return tuple({item.name: item for item in found}.values())


def parse_ulimit(text: str) -> Ulimit:
    """``nofile=1024[:2048]``, soft and hard; -1 is unlimited. :raises LimitError:"""
    name, equals, values = text.partition("=")
    numbers = values.split(":")
    if not equals or len(numbers) > 2 or not all(re.fullmatch(r"-1|\d{1,19}", number) for number in numbers):
        raise LimitError(f"--ulimit {text!r} is not NAME=SOFT[:HARD]", "for example --ulimit nofile=1024:2048; -1 is unlimited")
    if name not in ULIMITS:
        raise LimitError(f"--ulimit {text!r}: there is no limit {name!r}", near(name, ULIMITS) or f"one of {', '.join(ULIMITS)}")
    soft, hard = int(numbers[0]), int(numbers[-1])
    if hard != -1 and (soft > hard or soft == -1):
        raise LimitError(f"--ulimit {text!r}: the soft limit is above the hard one", f"for example --ulimit {name}={hard}:{hard}")
    return Ulimit(name, soft, hard)


def device_list(devices: Iterable[str | Device] | str | None) -> tuple[Device, ...]:
    return tuple(item if isinstance(item, Device) else parse_device(item) for item in several(devices))


def parse_device(text: str) -> Device:
    """``/dev/a[:/dev/b][:rwm]``. Whether it exists, the engine says. :raises UsageError:"""
    source, _, rest = text.partition(":")
    hint = "--device PATH[:PATH_INSIDE][:rwm], for example --device /dev/fuse"
    target, permissions = source, "rwm"
    words = rest.split(":") if rest else []
    if words and not _is_access(words[-1]) and not words[-1].startswith("/"):
        raise UsageError(f"--device {text!r}: {words[-1]!r} is neither a path nor of r, w and m", hint)
    if words and _is_access(words[-1]):
        permissions = words.pop()
    if words:
        target = words.pop()
    if words or not source.startswith("/") or not target.startswith("/"):
        raise UsageError(f"--device {text!r} is not a device", hint)
    target = os.path.normpath(target)
    if target == "/":
        raise UsageError(f"--device {text!r}: the path inside cannot be /", hint)
    return Device(os.path.normpath(source), target, permissions)


def _is_access(word: str) -> bool:
    return bool(word) and set(word) <= set("rwm") and len(set(word)) == len(word)


def restart_policy(value: str | RestartPolicy | None) -> RestartPolicy:
    """``no``, ``on-failure[:N]``, ``always``, ``unless-stopped``. :raises UsageError:"""
    if isinstance(value, RestartPolicy):
        return value
    name, colon, times = (value or "no").partition(":")
    if name not in RESTARTS:
        raise UsageError(f"--restart {value!r} is not a policy", near(name, RESTARTS) or "no, on-failure[:N], always or unless-stopped")
    if colon and name != "on-failure":
        raise UsageError(f"--restart {value!r}: only on-failure takes a number of attempts", "for example --restart on-failure:3")
    if colon and not (times.isdigit() and len(times) < 10):
        raise UsageError(f"--restart {value!r}: {times!r} is not a number of attempts", "for example --restart on-failure:3")
    return RestartPolicy(name, int(times or 0))


def health_check(words: Mapping[str, Any]) -> HealthCheck | None:
    """``--health-cmd`` and its siblings among ``words``. What is not given is 0 or empty: then the image's own counts.

    :raises UsageError: a time or number that cannot be read, or both ``--no-healthcheck`` and a check.
    """
    given: dict[str, Any] = {name: value for name, value in words.items() if name.startswith("health_") and value is not None}
    if words.get("no_healthcheck"):
        if given:
            option = "--" + next(iter(given)).replace("_", "-")
            raise UsageError(f"--no-healthcheck and {option} contradict each other", "leave one of them out")
        return HealthCheck(("NONE",))
    if not given:
        return None
    command = given.pop("health_cmd", None)
    test = () if not command else ("CMD-SHELL", command) if isinstance(command, str) else ("CMD", *map(str, command))
    times = {name.removeprefix("health_"): _time(name, value) for name, value in given.items() if name != "health_retries"}
    retries = given.get("health_retries", 0)
    if not str(retries).isdigit():
        raise UsageError(f"--health-retries {retries!r} is not a number of failures", "for example --health-retries 3")
    return HealthCheck(test, **{"interval": 0.0, "timeout": 0.0, "start_interval": 0.0, **times}, retries=int(retries))


def _time(name: str, value: str | float) -> float:
    option = "--" + name.replace("_", "-")
    found = seconds(value, option)
    if 0 < found < _SHORTEST:
        raise UsageError(f"{option} {value} is less than 1ms", f"for example {option} 30s")
    return found


def host_list(values: Iterable[str] | Mapping[str, str] | str | None) -> tuple[str, ...]:
    """``--add-host NAME:IP`` or ``NAME=IP``, as ``NAME:IP``; ``host-gateway`` stands for this machine. :raises UsageError:"""
    if isinstance(values, Mapping):
        values = [f"{name}:{address}" for name, address in values.items()]
    found = []
    for text in several(values):
        name, mark, address = text.partition("=") if "=" in text else text.partition(":")
        if not mark or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise UsageError(f"--add-host {text!r} is not NAME:IP", "for example --add-host db:10.0.0.5 or host:host-gateway")
        address = address.strip("[]")
        if address != "host-gateway":
            check_address(address, f"--add-host {text!r}", "for example --add-host db:10.0.0.5 or host:host-gateway")
        found.append(f"{name}:{address}")
    return tuple(found)


def check_address(address: str, what: str, hint: str) -> None:
    import ipaddress  # 6 ms at import: only when addresses are given

    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"{what}: {address!r} is not an IP address", hint) from None


def label_files(paths: Iterable[str] | str | None) -> list[str]:
    """The ``NAME=VALUE`` lines of ``--label-file``; empty lines and ``#`` comments are none. :raises UsageError:"""
    lines: list[str] = []
    for path in several(paths):
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"--label-file {path}: {reason}", "a text file with NAME=VALUE lines") from None
        lines += [line.lstrip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return lines
