"""Leases: links in a folder that several helpers and supervisors may work on."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from pycontainers.errors import NetworkError
from pycontainers.network.addresses import Leases
from pycontainers.network.leases import free

SUBNET = ipaddress.IPv4Network("10.99.0.0/29")  # five addresses to lease


@pytest.fixture
def two(tmp_path: Path) -> tuple[Leases, Leases]:
    return Leases(f"{tmp_path}/leases", SUBNET), Leases(f"{tmp_path}/leases", SUBNET)


def test_two_helpers_of_one_folder(two: tuple[Leases, Leases]) -> None:
    ours, theirs = two
    assert ours.take("a") != theirs.take("b")
    assert set(ours.all().values()) == set(theirs.all().values()) == {"a", "b"}
    assert free(theirs.folder, "a")
    assert set(ours.all().values()) == {"b"}
    assert not free(ours.folder, "a")


def test_an_address_is_given_back_by_who_has_it(two: tuple[Leases, Leases]) -> None:
    ours, _ = two
    first, second, third = (str(ours.take(name)) for name in ("a", "b", "a"))
    assert free(ours.folder, "a", second) == [first, third]  # that address is another's by now: what it has is looked for
    first, third = (str(ours.take("a")) for _ in range(2))
    assert free(ours.folder, "a", but=third) == [first]
    assert free(ours.folder, "a", third) == [third]
    assert set(ours.all().values()) == {"b"}


def test_what_is_no_lease_is_left_alone(two: tuple[Leases, Leases]) -> None:
    ours, _ = two
    for name in ("x", "10.99.0", "::1"):
        os.symlink("a", f"{ours.folder}/{name}")
    Path(ours.folder, "10.99.0.2").touch()
    assert str(ours.take("a")) == "10.99.0.3"
    assert free(ours.folder, "a") == ["10.99.0.3"]
    assert ours.sweep(set(), grace=0) == [] and len(os.listdir(ours.folder)) == 4
    assert free(f"{ours.folder}/nowhere", "a") == []


def test_a_sweep_of_what_another_helper_gave(two: tuple[Leases, Leases]) -> None:
    ours, theirs = two
    ours.take("a")
    theirs.take("b")
    assert ours.sweep({"a"}, grace=0) == ["b"] and list(ours.all().values()) == ["a"]


def test_all_addresses_are_given_once_and_then_refused(two: tuple[Leases, Leases]) -> None:
    ours, theirs = two
    taken = [helper.take(f"{number}") for number, helper in enumerate((ours, theirs, ours, theirs, ours))]
    assert len(set(taken)) == 5 and SUBNET.network_address + 1 not in taken
    with pytest.raises(NetworkError, match="5 containers"):
        theirs.take("one more")
    free(ours.folder, "2")
    assert theirs.take("one more") == taken[2]


@pytest.mark.parametrize(("seconds", "freed"), [(-5, False), (-90, True), (5, False), (90, True)])
def test_an_old_lease_is_swept_also_when_the_clock_was_set_back(two: tuple[Leases, Leases], seconds: float, freed: bool) -> None:
    ours, _ = two
    lease = f"{ours.folder}/{ours.take('a')}"
    moment = os.lstat(lease).st_mtime + seconds
    os.utime(lease, (moment, moment), follow_symlinks=False)
    assert ours.sweep(set(), grace=30) == (["a"] if freed else [])
