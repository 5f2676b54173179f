"""Platforms by containerd's rules, and descriptors that nobody vouches for."""

from __future__ import annotations

import os

import pytest

from pycontainers.errors import ImageError, UsageError
from pycontainers.images.descriptor import OCI_LAYER, Descriptor, Platform

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/arm/6", "linux/arm/v6"),
        ("Linux/RISCV64", "linux/riscv64"),
        ("i386", "linux/386"),
    ],
)
def test_platforms_that_mean_the_same_are_equal(text: str, normal: str) -> None:
    assert str(Platform.parse(text)) == normal
    assert Platform.parse(str(Platform.parse(text))) == Platform.parse(text)


@pytest.mark.parametrize("text", ["", "linux/", "/amd64", "linux/arm/v7/x", "linux amd64", "linux/am\nd64"])
def test_what_is_no_platform_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="is not valid"):
        Platform.parse(text)


def test_the_own_platform_is_this_machines() -> None:
    machine = os.uname().machine
    assert Platform.own() == Platform.parse(machine) == Platform.parse("linux")


def test_what_a_machine_runs_is_ordered() -> None:
    assert [str(one) for one in Platform.parse("linux/arm/v7").runs()] == ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]
    assert [str(one) for one in Platform.parse("linux/amd64/v2").runs()] == ["linux/amd64/v2", "linux/amd64", "linux/386"]
    assert [str(one) for one in Platform.parse("arm64").runs()][:3] == ["linux/arm64", "linux/arm/v8", "linux/arm/v7"]
    assert [str(one) for one in Platform.parse("s390x").runs()] == ["linux/s390x"]


def test_a_descriptor_survives_json() -> None:
    said = {"mediaType": f"{OCI_LAYER}+zstd", "digest": DIGEST, "size": 3, "annotations": {"a": "b"}}
    found = Descriptor.parse(said, "layer 1")
    assert found.json() == said
    assert (found.compression, found.short, found.hex) == ("zstd", "ab" * 6, "ab" * 32)
    assert hash(found) == hash(Descriptor.parse(dict(said), "layer 2"))


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": True},
        {"size": 1.0},
        {"size": "3"},
        {"size": 1 << 63},
        {"size": None},
        {"digest": None},
        {"digest": "sha256:" + "AB" * 32},
        {"digest": "sha256:" + "ab" * 31},
        {"digest": DIGEST + "\n"},
        {"digest": "sha256:../../../../etc/passwd"},
        {"digest": "sha512:" + "ab" * 64},
        {"mediaType": None},
        {"mediaType": "x"},
        {"mediaType": "a/b\r\nX: y"},
        {"annotations": {"a": 1}},
        {"annotations": []},
        {"platform": "linux"},
        {"platform": {"os": 1}},
    ],
)
def test_a_malformed_descriptor_is_refused_by_name(change: dict) -> None:
    said = {"mediaType": OCI_LAYER, "digest": DIGEST, "size": 3} | change
    with pytest.raises(ImageError, match="layer 7"):
        Descriptor.parse(said, "layer 7")


def test_another_algorithm_is_told_from_nonsense() -> None:
    with pytest.raises(ImageError, match="sha512 are not supported"):
        Descriptor.parse({"mediaType": OCI_LAYER, "digest": "sha512:" + "ab" * 64, "size": 3}, "layer 1")
