"""Copies in a user namespace with a single id: owners that cannot be given are recorded, and kept from stage to stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builder.placing import make

CODE = """
import sys
from pathlib import Path
from pycontainers.builder.archives import marked
from pycontainers.builder.context import Context, ImageSource, select
from pycontainers.linux import owners
from tests.builder.placing import Image
top = Path(sys.argv[1])
image = Image(top / "image")
context = Context(str(top / "context"))
image.copy(context, "d", to="/one/", chown="5:6", chmod="4711")
image.copy(ImageSource(image.view), "one", to="/two/")
image.copy(ImageSource(image.view), "two", to="/three/", chown="7:8")
image.copy(None, items=marked(select(context, "t.tar")), to="/four/")
image.copy(context, "d/f", to="/one/new")
for path in ("/one/f", "/two/f", "/three/f", "/four/f", "/one", "/two", "/two/sub"):
    print(path, *(owners.recorded(image.view.lookup(path).path) or ("-",)))
"""


def test_owners_are_recorded(tmp_path):
    make(tmp_path / "context", "d/f", "d/sub/g")
    subprocess.run(["tar", "-C", tmp_path / "context/d", "--owner=33", "--group=44", "-cf", tmp_path / "context/t.tar", "f"], check=True)
    made = subprocess.run(["unshare", "-Ur", sys.executable, "-c", CODE, tmp_path], text=True, capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    if "unshare" in made.stderr:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == ["/one/f 5 6", "/two/f 5 6", "/three/f 7 8", "/four/f 33 44", "/one 5 6", "/two -", "/two/sub 5 6"]
