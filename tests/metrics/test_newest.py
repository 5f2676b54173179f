from __future__ import annotations

from pathlib import Path

from pycontainers.metrics.history import RECORD, Ring, newest, read
from pycontainers.metrics.sample import Sample


def numbered(number: int) -> Sample:
    return Sample(time=1000.0 + number, cpu_usage=number)


def test_only_what_is_new_is_given(tmp_path: Path) -> None:
    path = str(tmp_path / "samples.ring")
    assert newest(path, 0, 10) == []
    ring = Ring.create(path, 40)
    seen, after = [], 0
    for number in range(200):  # over many thinnings
        ring.append(numbered(number))
        for sequence, sample in newest(path, after, 16):
            seen.append(sample)
            after = sequence
    assert seen == [numbered(number) for number in range(200)]
    assert [sample for _, sample in newest(path, 0, 5)] == read(path)[-5:] and newest(path, after, 5) == []
    ring.close()
    # Started anew, its numbers begin at 1 again.
    ring = Ring.create(path, 40)
    ring.append(numbered(7))
    assert newest(path, after, 5) == [(1, numbered(7))]
    ring.close()


def test_what_is_torn_or_foreign_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "samples.ring"
    ring = Ring.create(str(path), 40)
    for number in range(3):
        ring.append(numbered(number))
    ring.close()
    data = bytearray(path.read_bytes())
    data[64 + RECORD + 20] ^= 1
    path.write_bytes(data)
    assert [sample for _, sample in newest(str(path), 0, 5)] == [numbered(0), numbered(2)]
    path.write_bytes(b"something else that is long enough for a header, and is none at all of ours")
    assert newest(str(path), 0, 5) == []
