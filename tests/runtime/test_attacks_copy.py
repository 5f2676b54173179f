"""CVE-2018-15664: while ``cp`` works, a process inside exchanges a folder on its way and a link to a folder of the host.

And CVE-2019-14271: what cp loads while it stands in the container's root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers import errors

pytestmark = pytest.mark.root

SWAP = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
os.makedirs('/srv/a')
for place in ('/srv/a/file', '/srv/a/new'):
    open(place, 'w').write('of the container')
os.symlink(sys.argv[1], '/srv/link')
print('swapping', flush=True)
while True:
    libc.renameat2(-100, b'/srv/a', -100, b'/srv/link', 2)  # RENAME_EXCHANGE
"""
ROUNDS = 150


@pytest.fixture
def host() -> Iterator[Path]:
    """A folder of the host with a file that must be neither read nor written."""
    folder = Path(tempfile.mkdtemp(prefix="pyct-host-", dir="/var/tmp"))
    folder.chmod(0o777)
    (folder / "file").write_text("of the host")
    (folder / "file").chmod(0o666)
    yield folder
    shutil.rmtree(folder)


def finished(work: Any) -> bool:
    """Run a transfer to its end; whether it was refused."""
    try:
        with contextlib.suppress(StopIteration):
            while True:
                next(work)
    except errors.ContainersError:
        return False
    return True


class TestSwappedLink:
    def swapping(self, engine: Any, running: Any, host: Path) -> str:
        container = str(running(engine, "python", "-c", SWAP, str(host)))
        assert next(engine.logs(container, follow=True)).text == "swapping"
        return container

    def read(self, engine: Any, running: Any, host: Path, tmp_path: Path) -> set[str]:
        """What was copied out of the folder that is exchanged."""
        container, found = self.swapping(engine, running, host), set()
        for _ in range(ROUNDS):
            if finished(engine.copy_out(container, "/srv/a/file", str(tmp_path / "copy"))):
                found.add((tmp_path / "copy").read_text())
        return found

    def write(self, engine: Any, running: Any, host: Path, tmp_path: Path) -> int:
        """How often something was copied in; what matters is what then lies in ``host``."""
        container, done = self.swapping(engine, running, host), 0
        (tmp_path / "new").write_text("written")
        for _ in range(ROUNDS):
            done += finished(engine.copy_in(container, str(tmp_path / "new"), "/srv/a/new"))
            if (host / "new").exists():
                break
        return done

    def test_reading_succeeds_by_path_on_the_host(self, without: Any, running: Any, host: Path, tmp_path: Path) -> None:
        assert "of the host" in self.read(without("copies_inside"), running, host, tmp_path)

    def test_reading_fails_here(self, engine: Any, running: Any, host: Path, tmp_path: Path) -> None:
        assert self.read(engine, running, host, tmp_path) == {"of the container"}

    def test_writing_succeeds_by_path_on_the_host(self, without: Any, running: Any, host: Path, tmp_path: Path) -> None:
        self.write(without("copies_inside"), running, host, tmp_path)
        assert (host / "new").read_text() == "written"

    def test_writing_fails_here(self, engine: Any, running: Any, host: Path, tmp_path: Path) -> None:
        assert self.write(engine, running, host, tmp_path) > 0, "nothing was ever copied: the race was not run"
        assert os.listdir(host) == ["file"]
        assert (host / "file").read_text() == "of the host"
