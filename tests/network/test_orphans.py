"""A home that was deleted with its bridge still there: the next network helper takes the bridge and its rules down."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pycontainers.linux import sockets
from pycontainers.network.bridge import names, orphans
from pycontainers.paths import Paths
from pycontainers.runtime import network as client

pytestmark = pytest.mark.root


def program(folder: str, *words: str) -> None:
    env = {**os.environ, "PYCONTAINERS_HOME": f"{folder}/h", "PYCONTAINERS_RUN": f"{folder}/r"}
    subprocess.run([sys.executable, "-m", "pycontainers.commands.program", *words], env=env, check=True, timeout=60)


def end(folder: str, remove: bool) -> None:
    where = Paths(Path(folder, "h"), Path(folder, "r"))
    if remove:
        client.sweep(where, [], grace=0)
        client.remove(where)
    client.leave(where)
    with contextlib.suppress(OSError), sockets.connect(where.launcher_socket, 5) as conn:
        sockets.receive(conn)
        sockets.send(conn, {"op": "leave"})


def test_the_network_of_a_deleted_home_is_taken_down() -> None:
    first, second = (tempfile.mkdtemp(prefix="pyct-", dir="/var/tmp") for _ in range(2))
    bridge, table = names(f"{first}/h")
    try:
        program(first, "run", "--rm", "host", "true")
        assert Path(f"/sys/class/net/{bridge}/ifalias").read_text().strip() == f"{first}/h"
        assert (bridge, table) not in orphans()
        end(first, remove=False)
        shutil.rmtree(first)
        assert (bridge, table) in orphans()
        program(second, "run", "--rm", "host", "true")
        assert not Path(f"/sys/class/net/{bridge}").exists()
        if shutil.which("nft"):
            assert table not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    finally:
        end(second, remove=True)
        shutil.rmtree(second)


def test_links_of_others_are_left_alone(tmp_path: Path) -> None:
    for name, alias in (("pyctb-000000", "/no/such/home"), ("pyctb-111111", ""), ("eth0", "/gone")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ifalias").write_text(alias)
    assert orphans(str(tmp_path)) == []  # the first one's name does not belong to that home
