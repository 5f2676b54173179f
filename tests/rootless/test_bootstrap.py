"""bootstrap as an ordinary user: the same image as root's with subordinate ids, and an honest word with a single id."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from pycontainers.errors import ContainersError
from pycontainers.events import finish
from pycontainers.images import bootstrap, suites
from pycontainers.images.store import Store
from pycontainers.paths import Paths
from pycontainers.protocol import BootstrapRequest

pytestmark = pytest.mark.skipif(not shutil.which("mmdebstrap", path=bootstrap.PATH), reason="needs mmdebstrap (apt-get install mmdebstrap)")


@pytest.mark.timeout(400)
def test_the_same_image_as_roots(people: Callable[..., Any], state: Paths) -> None:
    try:
        suites.releases(suites.DISTRIBUTIONS["debian"], "bookworm", "amd64")
    except ContainersError as error:
        pytest.skip(f"no mirror of Debian's answers here: {error.message}")
    somebody = people()
    somebody("bootstrap", "-q", "--variant", "essential", "-t", "mine", "debian:bookworm")
    mine = json.loads(somebody("inspect", "--type", "image", "mine"))[0]
    store = Store(state)
    roots = finish(bootstrap.bootstrap(store, BootstrapRequest("debian:bookworm", "roots", variant="essential")))
    try:
        assert mine["Id"] == roots.id
    finally:
        store.remove("roots")
    said = somebody("run", "--rm", "--network", "none", "mine", "sh", "-c", 'stat -c "%U:%G %a" /var/mail; cat /etc/debian_version')
    assert said.splitlines()[0] == "root:mail 2775" and said.splitlines()[1].startswith("12.")
    assert "explore" in somebody("help", "explore") and "bootstrap debian:bookworm" in somebody("explore", "mine")
    somebody("rmi", "mine")
    assert not os.listdir(f"{somebody.home}/state/images/ingest")


def test_a_single_id_is_not_enough(people: Callable[..., Any]) -> None:
    somebody = people(ranges=False)
    somebody("bootstrap", "debian:bookworm", code=1)
    assert "single id" in somebody.stderr and "uidmap" in somebody.stderr
