"""Attacks that shaped runtimes, tried against this one. Each first shows that the attempt is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root


def test_terminal_of_the_caller_cannot_be_typed_into(run: Any) -> None:
    """CVE-2017-5226: TIOCSTI needs the caller's terminal; there is no controlling terminal inside."""
    script = "import fcntl, os\ntry:\n"
    script += "    fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, b'x'); print('typed')\nexcept OSError as e: print(e.errno)"
    assert run("python", "-c", script) in ("6\n", "5\n")


def test_keyring_is_its_own(run: Any) -> None:
    """keyctl is refused by the filter, and /proc/keys is masked."""
    out = run("python", "-c", "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(250, 0, -3, 0), ctypes.get_errno())")
    assert out == "-1 1\n"


def test_sockets_of_ours_are_not_reachable_with_the_hosts_network(run: Any, state: Any) -> None:
    """CVE-2020-15257: abstract names are reachable by whoever shares the network namespace. Ours are paths."""
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    assert not [name for name in names if name.startswith("@") and "pycontainers" in name]
    assert any(str(state.run) in name for name in names), "the launcher's socket is not there: nothing is tested"
    assert run("sh", "-c", f"ls {state.run}", network="host") == ""
