from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycontainers.errors import ContainersError
from pycontainers.metrics import history
from pycontainers.metrics.history import RECORD, Ring, read, read_after
from pycontainers.metrics.sample import FIELDS, Sample

HEADER = 64
counters = st.integers(0, (1 << 64) - 1)
samples = st.builds(Sample, st.floats(0, 4e9), *[counters] * (len(FIELDS) - 1))


def numbered(number: int) -> Sample:
    return Sample(time=1000.0 + number, cpu_usage=number, pids=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(samples, max_size=20))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, written: list[Sample]) -> None:
    path = str(tmp_path_factory.mktemp("ring") / "samples.ring")
    ring = Ring.create(path, 32)
    for sample in written:
        ring.append(sample)
    assert read(path) == written
    ring.close()
    assert os.path.getsize(path) == HEADER + len(written) * RECORD
    assert int.from_bytes(Path(path).read_bytes()[16:24], "little") == len(written)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 60), st.integers(0, 700))
def test_a_full_ring_keeps_the_whole_life(tmp_path_factory: pytest.TempPathFactory, capacity: int, count: int) -> None:
    path = str(tmp_path_factory.mktemp("ring") / "samples.ring")
    ring = Ring.create(path, capacity)
    for number in range(count):
        ring.append(numbered(number))
        found = read(path)
        assert len(found) <= capacity
        assert found[0] == numbered(0) and found[-1] == numbered(number)
    ring.close()
    found = read(path)
    assert [sample.time for sample in found] == sorted(sample.time for sample in found)
    assert len(found) == count if count <= capacity else len(found) >= capacity // 4
    assert os.path.getsize(path) <= HEADER + capacity * RECORD


def test_old_is_thinned_evenly_and_recent_stays_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "samples.ring")
    ring = Ring.create(path, 400)
    life = 20_000
    for number in range(life):
        ring.append(numbered(number))
    ring.close()
    times = [sample.time for sample in read(path)]
    assert all(after - before == 1.0 for before, after in pairwise(times[-100:]))
    gaps = [after - before for before, after in pairwise(times[:100])]
    # 20,000 s in some 150 to 300 records; no hole at the start, which has been thinned most often.
    assert max(gaps) < 4 * life / 150, gaps


@pytest.mark.parametrize("step", [0.0, -1.0])
def test_a_clock_that_stands_still_or_goes_back(tmp_path: Path, step: float) -> None:
    path = str(tmp_path / "samples.ring")
    ring = Ring.create(path, 16)
    for number in range(200):
        ring.append(Sample(time=1000.0 + number * step, cpu_usage=number))
    ring.close()
    found = [sample.cpu_usage for sample in read(path)]
    assert found == sorted(found) and found[0] == 0 and found[-1] == 199 and len(found) <= 16


def test_values_that_do_not_fit_are_bounded(tmp_path: Path) -> None:
    path = str(tmp_path / "samples.ring")
    ring = Ring.create(path, 8)
    ring.append(Sample(time=1.0, memory=-5, swap=1 << 70))
    assert (read(path)[0].memory, read(path)[0].swap) == (0, (1 << 64) - 1)
    ring.close()


def test_a_new_ring_replaces_the_old_one(tmp_path: Path) -> None:
    path = str(tmp_path / "samples.ring")
    first = Ring.create(path, 8)
    first.append(numbered(1))
    second = Ring.create(path, 8)
    assert read(path) == [] and os.listdir(tmp_path) == ["samples.ring"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    first.append(numbered(2))  # the old writer writes to a file that nobody sees any more
    assert read(path) == []
    first.close()
    second.close()


def test_torn_and_truncated_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "samples.ring"
    ring = Ring.create(str(path), 8)
    for number in range(5):
        ring.append(numbered(number))
    ring.close()
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[HEADER + 2 * RECORD + 20] ^= 1
    path.write_bytes(torn)
    assert read(path) == [numbered(0), numbered(1), numbered(3), numbered(4)]
    for length in range(HEADER, len(whole)):
        path.write_bytes(whole[:length])
        assert read(path) == [numbered(n) for n in range((length - HEADER) // RECORD)]
    path.write_bytes(whole + b"\0" * RECORD)
    assert len(read(path)) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are less than its header"),
        (b"\x89PNG" + b"\0" * 100, "it begins with"),
        (b"PYCTRING\x01\x00" + b"\0" * 100, "version 1"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "samples.ring"
    path.write_bytes(content)
    with pytest.raises(ContainersError, match=message) as caught:
        read(path)
    assert str(path) in caught.value.message and caught.value.hint


@given(st.binary(max_size=400))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("ring") / "samples.ring"
    for data in (content, history._HEADER.pack(history.MAGIC, history.VERSION, RECORD, 9, 9).ljust(64, b"\0") + content):
        path.write_bytes(data)
        try:
            assert read(path) == []
        except ContainersError:
            assert data is content


def test_capacity_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Ring.create(str(tmp_path / "samples.ring"), 7)
    assert not os.listdir(tmp_path)


WRITER = """
import sys
from pycontainers.metrics.history import Ring
from pycontainers.metrics.sample import Sample
ring = Ring.create(sys.argv[1], 64)
number = 0
while True:
    ring.append(Sample(time=1000.0 + number, cpu_usage=number, memory=number * 7, net_tx=number * 3))
    number += 1
"""


def test_readers_while_a_writer_writes_and_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "samples.ring"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as writer:
        try:
            until = time.monotonic() + 5
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.01)
            last, reads = 0, 0
            until = time.monotonic() + 1
            while time.monotonic() < until:
                found = read(path)
                reads += 1
                if found:
                    assert found[0].cpu_usage == 0 and len(found) <= 64
                    assert all(s.memory == s.cpu_usage * 7 and s.net_tx == s.cpu_usage * 3 for s in found)
                    assert found[-1].cpu_usage >= last, "what was seen once does not vanish"
                    last = found[-1].cpu_usage
            assert last > 1000 and reads > 20
        finally:
            writer.kill()
    assert read(path)[-1].cpu_usage >= last


def test_a_full_disk_leaves_the_ring_readable(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the kernel refuses the write in the same place."""
    script = """
import resource, signal, sys
from pycontainers.metrics.history import Ring, RECORD, read
from pycontainers.metrics.sample import Sample
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ring = Ring.create(sys.argv[1], 8)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 + 5 * RECORD + 10,) * 2)
refused = 0
for number in range(9):
    try:
        ring.append(Sample(time=float(number), pids=number))
    except OSError:
        refused += 1
assert refused == 4, refused
assert [s.pids for s in read(sys.argv[1])] == [0, 1, 2, 3, 4]
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "samples.ring")], check=True)


def test_interval_is_dense_at_first() -> None:
    ages = [0.0, 1.9, 2.0, 9.9, 10.0, 1e6]
    assert [history.interval(age) for age in ages] == [0.1, 0.1, 0.25, 0.25, 1.0, 1.0]


def test_a_record_of_an_older_program_is_read(tmp_path: Path) -> None:
    """Its container runs on through an upgrade: what an older supervisor writes has fewer fields."""
    body = struct.pack("<Qd18Q", 1, 5.0, *range(1, 19))
    path = tmp_path / "samples.ring"
    head = struct.pack("<8sHHIQ", b"PYCTRING", 2, len(body) + 4, 8, 1).ljust(HEADER, b"\0")
    path.write_bytes(head + body + struct.pack("<I", zlib.crc32(body)))
    (found,) = read(path)
    assert (found.time, found.cpu_usage, found.oom_kills, found.pressure) == (5.0, 1, 18, 0)
    assert read_after(path, 4.0) == [found] and read_after(path, 5.0) == []
    assert history.newest(path, 0, 5) == [(1, found)]


def test_who_follows_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "samples.ring")
    ring = Ring.create(path, 64)
    seen: list[Sample] = []
    whole = []
    plain = history.read
    monkeypatch.setattr(history, "read", lambda path: whole.append(path) or plain(path))
    for number in range(500):  # thinned again and again under the reader
        ring.append(numbered(number))
        if number % 3 == 0:
            seen += read_after(path, seen[-1].time if seen else 0.0)
    assert seen == [numbered(number) for number in range(499)]
    assert len(whole) <= 1, "only at the first time the file was read whole"
    ring.append(Sample(time=3.0))  # a clock that was set back
    assert read_after(path, 1499.0) == [Sample(time=3.0)]
    assert [sample.time for sample in read_after(path, 1490.5)] == [1491.0 + n for n in range(9)]
    ring.close()
