"""Blobs being written: whole and right, or not there; gone on with where somebody was killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycontainers.errors import ImageError
from pycontainers.images import durable, ingest
from pycontainers.images.ingest import Ingest
from pycontainers.images.store import Store

DATA = os.urandom(300_000)
NAME = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def begin(store: Store, size: int = len(DATA)) -> Ingest:
    found = Ingest.begin(store, NAME, size)
    assert found is not None
    return found


def test_a_blob_has_its_name_when_it_is_whole(store: Store) -> None:
    writing = begin(store)
    assert list(writing.adopted()) == []
    for start in range(0, len(DATA), 70_000):
        assert not os.path.exists(store.blob_path(NAME))
        writing.write(DATA[start : start + 70_000])
    writing.publish()
    assert Path(store.blob_path(NAME)).read_bytes() == DATA and os.listdir(store.ingest) == []
    assert store.leased() == {store.blob_path(NAME)}
    store.prune()
    assert os.path.exists(store.blob_path(NAME)), "what is leased stays"


def test_what_is_left_is_gone_on_with(store: Store) -> None:
    first = begin(store)
    assert list(first.adopted()) == []
    first.write(DATA[:100_000])
    first.close()
    durable.sweep(store.ingest)
    second = begin(store)
    assert b"".join(second.adopted()) == DATA[:100_000] and second.offset == 100_000
    second.write(DATA[100_000:])
    second.publish()
    assert Path(store.blob_path(NAME)).read_bytes() == DATA


def test_a_killed_process_leaves_something_to_go_on_with(store: Store) -> None:
    script = (
        "import sys, os, time\nfrom pathlib import Path\nfrom pycontainers.images.ingest import Ingest\n"
        "from pycontainers.images.store import Store\nfrom pycontainers.paths import Paths\n"
        "home = Path(sys.argv[1]).parent\nw = Ingest.begin(Store(Paths(home, home)), sys.argv[2], int(sys.argv[3]))\n"
        "w.write(sys.stdin.buffer.read()); print('written', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", script, store.root, NAME, str(len(DATA))]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    child.stdin.write(DATA[:5000])
    child.stdin.close()
    assert child.stdout.readline() == b"written\n"
    assert Ingest.begin(store, NAME, len(DATA)) is None, "a living process writes it"
    assert ingest.drop_unfinished(store.ingest) == 0
    child.kill()
    child.wait()
    child.stdout.close()
    writing = begin(store)
    assert b"".join(writing.adopted()) == DATA[:5000]
    writing.close()
    assert ingest.drop_unfinished(store.ingest) == 5000 and os.listdir(store.ingest) == []


@pytest.mark.parametrize("left", [DATA[:10] + b"x" * 10, DATA + b"more"])
def test_something_else_that_was_left_is_noticed_and_forgotten(store: Store, left: bytes) -> None:
    Path(store.ingest, f"blob-{NAME[7:]}").write_bytes(left)
    writing = begin(store)
    for _ in writing.adopted():
        pass
    writing.write(DATA[writing.offset :])
    if len(left) < len(DATA):
        with pytest.raises(ImageError, match="damaged or exchanged"):
            writing.publish()
        writing.write(DATA)
    writing.publish()
    assert Path(store.blob_path(NAME)).read_bytes() == DATA


def test_too_much_and_too_little(store: Store) -> None:
    writing = begin(store, 1000)
    with pytest.raises(ImageError, match="larger than the 1000 bytes"):
        writing.write(DATA[:1001])
    assert os.fstat(writing._fd).st_size == 0
    writing.close()
    writing = begin(store)
    writing.write(DATA[:-1])
    with pytest.raises(ImageError, match=f"ends after {len(DATA) - 1} of {len(DATA)} bytes"):
        writing.publish()
    assert not os.path.exists(store.blob_path(NAME))
    writing.close()
    assert os.path.getsize(f"{store.ingest}/blob-{NAME[7:]}") == len(DATA) - 1
