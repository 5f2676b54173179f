"""SIGKILL of whoever builds: the next build works, keeps the steps that were finished, and nothing is left of the killed one.

``PYCONTAINERS_KILLS=200`` kills at that many random moments (``make test-kills``); a few are in the default suite.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.events import StepFinished, finish
from pycontainers.images.verify import verify
from pycontainers.paths import Paths
from pycontainers.protocol import BuildRequest

KILLS = int(os.environ.get("PYCONTAINERS_KILLS", "8"))
TEXT = """\
FROM host AS one
ENV T={0}
RUN --mount=type=cache,target=/c echo {0} > /c/f; echo first > /first
RUN --mount=type=secret,id=key sleep .2; cat /run/secrets/key > /second
FROM host AS two
ENV T={0}
COPY . /copied
RUN --mount=target=/ctx cp -r /ctx /made; sleep .1
FROM scratch
COPY --from=one /second /
COPY --from=two /made /made
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for number in range(200):
        (tmp_path / str(number)).write_text(str(number) * 100)
    return tmp_path


def begin(state: Paths, text: str, context: Path) -> subprocess.Popen[bytes]:
    """A process that builds, as a notebook's kernel does."""
    script = (
        "import sys, pycontainers.engines.native as native\nfrom pathlib import Path\nfrom pycontainers.paths import Paths\n"
        "from pycontainers.protocol import BuildRequest\n"
        "engine = native.NativeEngine(Paths(Path(sys.argv[1]), Path(sys.argv[2])))\nprint(flush=True)\n"
        "request = BuildRequest(sys.argv[3], sys.argv[4], network='none', secrets={'key': b'k'})\n"
        "for event in engine.build(request): print(event, flush=True)\n"
    )
    words = [sys.executable, "-c", script, str(state.home), str(state.run), text, str(context)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.timeout(max(180, KILLS * 10))
def test_at_any_moment(state: Paths, engine: NativeEngine, context: Path, remains: Callable[[], dict[str, list[str]]]) -> None:
    finish(engine.build(BuildRequest(TEXT.format("warm"), str(context), network="none", secrets={"key": b"k"})))
    before = remains()
    chance = random.Random(int(os.environ.get("PYCONTAINERS_SEED", time.time())))
    for number in range(KILLS):
        text = TEXT.format(f"{time.time_ns()}")
        process = begin(state, text, context)
        time.sleep(chance.uniform(0, 0.8))
        process.kill()
        assert process.stdout is not None
        told = process.stdout.read().decode()
        process.wait()
        process.stdout.close()
        done = [line for line in told.splitlines() if line.startswith("StepFinished")]
        events: list[Any] = list(engine.build(BuildRequest(text, str(context), network="none", secrets={"key": b"k"})))
        cached = {event.index for event in events if isinstance(event, StepFinished) and event.cached}
        finished = {int(line.partition("index=")[2].partition(",")[0]) for line in done}
        assert finished <= cached, f"{number}: {sorted(finished - cached)} had finished, and ran again"
        assert os.listdir(engine.store.ingest) == [] and os.listdir(f"{state.run}/steps") == []
        assert [name for name in os.listdir(state.containers) if len(name) == 64] == []
    deadline = time.monotonic() + 5
    while remains() != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert remains() == before
    assert finish(verify(engine.store)) == []
