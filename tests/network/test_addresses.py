"""Leases: links in a folder that several helpers may work on; what one keeps in memory never hides what another did."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from pycontainers.errors import NetworkError
from pycontainers.network.addresses import Leases

SUBNET = ipaddress.IPv4Network("10.99.0.0/29")  # five addresses to lease


@pytest.fixture
def two(tmp_path: Path) -> tuple[Leases, Leases]:
    return Leases(tmp_path / "leases", SUBNET), Leases(tmp_path / "leases", SUBNET)


def test_another_helpers_lease_is_seen(two: tuple[Leases, Leases]) -> None:
    ours, theirs = two
    assert ours.take("a") != theirs.take("b")
    assert set(ours.all().values()) == set(theirs.all().values()) == {"a", "b"}
    assert theirs.take("a") == ours.take("a")  # the one that it has
    assert theirs.free("a")
    assert set(ours.all().values()) == {"b"}
    assert not ours.free("a")


def test_a_change_within_the_same_tick_is_found_when_it_counts(two: tuple[Leases, Leases]) -> None:
    """The folder's time is set back after the other's change: as if both had happened within one tick of the clock."""
    ours, theirs = two
    ours.take("a")
    before = os.stat(ours.folder).st_mtime_ns
    stolen = theirs.take("b")
    os.utime(ours.folder, ns=(before, before))
    assert "b" not in ours.all().values()  # the case is the one that is meant
    assert ours.take("c") != stolen
    os.utime(ours.folder, ns=(ours._seen, ours._seen))
    assert ours.free("b") == [stolen]
    assert sorted(os.listdir(ours.folder)) == sorted(str(address) for address in ours.all())


def test_a_sweep_reads_the_folder_itself(two: tuple[Leases, Leases]) -> None:
    ours, theirs = two
    ours.take("a")
    before = os.stat(ours.folder).st_mtime_ns
    theirs.take("b")
    os.utime(ours.folder, ns=(before, before))
    assert ours.sweep(set(), grace=0) and not os.listdir(ours.folder)


def test_all_addresses_are_given_once_and_then_refused(two: tuple[Leases, Leases]) -> None:
    ours, theirs = two
    taken = [helper.take(f"{number}") for number, helper in enumerate((ours, theirs, ours, theirs, ours))]
    assert len(set(taken)) == 5 and SUBNET.network_address + 1 not in taken
    with pytest.raises(NetworkError, match="5 containers"):
        theirs.take("one more")
    ours.free("2")
    assert theirs.take("one more") == taken[2]
