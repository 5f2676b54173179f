"""``apt-get install`` in a build, for root and for both kinds of ordinary user, by the way out that each has; what was used is said."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError
from pycontainers.events import StepOutput, finish
from pycontainers.images import bootstrap, suites
from pycontainers.linux import owners
from pycontainers.paths import Paths
from pycontainers.protocol import BootstrapRequest, BuildRequest

from .conftest import Somebody

pytestmark = pytest.mark.skipif(not shutil.which("mmdebstrap", path=bootstrap.PATH), reason="needs mmdebstrap (apt-get install mmdebstrap)")
#: A package that makes a group of its own and gives it a program.
DOCKERFILE = """\
FROM packages-base
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends openssh-client >/dev/null
RUN stat -c 'owner %U:%G' /usr/bin/ssh-agent; ssh -V 2>&1
"""


@pytest.fixture(scope="module")
def archive(state: Paths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A small Debian, where everybody may read it."""
    try:
        suites.releases(suites.DISTRIBUTIONS["debian"], "bookworm", "amd64")
    except ContainersError as error:
        pytest.skip(f"no mirror of Debian's answers here: {error.message}")
    engine = NativeEngine(state)
    finish(engine.bootstrap(BootstrapRequest("debian:bookworm", "packages-base", variant="apt")))
    path = Path("/var/tmp") / f"pyct-packages-{os.getpid()}.tar"
    finish(engine.save(["packages-base"], str(path), "docker-archive"))
    path.chmod(0o644)
    yield str(path)
    path.unlink()
    engine.remove_image("packages-base", force=True)


@pytest.mark.timeout(400)
def test_root(archive: str, engine: NativeEngine) -> None:
    said = b"".join(event.data for event in engine.build(BuildRequest(DOCKERFILE, "")) if isinstance(event, StepOutput))
    assert b"owner root:_ssh" in said and b"OpenSSH" in said


@pytest.mark.timeout(400)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "one id"])
def test_an_ordinary_user(archive: str, people: Callable[..., Somebody], ranges: bool) -> None:
    somebody = people(ranges=ranges)
    somebody("load", "-q", "-i", archive)
    folder = f"{somebody.home}/packages"
    os.makedirs(folder, exist_ok=True)
    Path(folder, "Dockerfile").write_text(DOCKERFILE)
    said = somebody("build", "--progress", "plain", folder) + somebody.stderr
    assert "OpenSSH" in said and ("owner root:_ssh" in said) is ranges
    assert "the way out is pasta" in said or "the way out is slirp4netns" in said
    assert ("one id:" in said) is not ranges
    if not ranges:  # the file is this user's own, and the layer knows whose it should be
        (agent,) = Path(somebody.home, "state/images/snapshots").glob("*/diff/usr/bin/ssh-agent")
        assert os.getxattr(agent, owners.ATTRIBUTE).startswith(b"0:1")
    somebody.tidy()
