"""Manifests, indexes and configs from people who may mean harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pycontainers.errors import ContainersError, ImageError, NotFound
from pycontainers.images import descriptor, manifest
from pycontainers.images.descriptor import Descriptor, Platform

DIGEST = "sha256:" + "ab" * 32
CONFIG = {"mediaType": descriptor.OCI_CONFIG, "digest": DIGEST, "size": 2}
LAYER = {"mediaType": descriptor.OCI_LAYER + "+gzip", "digest": DIGEST, "size": 3}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": descriptor.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}


def one(platform: str | None, number: int = 0, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": descriptor.OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": 9, **more}
    if platform:
        found["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return found


def index(*rows: dict[str, Any]) -> manifest.Index:
    found = manifest.parse(json.dumps({"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": rows}).encode())
    assert isinstance(found, manifest.Index)
    return found


def test_a_manifest_of_ours_reads_back() -> None:
    made = manifest.make(Descriptor.parse(CONFIG, ""), [Descriptor.parse(LAYER, "")], {"ä": "ö"})
    assert manifest.parse(made.raw, descriptor.OCI_MANIFEST) == made
    assert manifest.make(made.config, made.layers, made.annotations).raw == made.raw


@pytest.mark.parametrize("sent", [None, "", "application/json", f"{descriptor.OCI_MANIFEST}; charset=utf-8", descriptor.OCI_MANIFEST])
def test_the_type_comes_from_header_or_field(sent: str | None) -> None:
    assert manifest.parse(json.dumps(IMAGE).encode(), sent).media_type == descriptor.OCI_MANIFEST
    without = {name: value for name, value in IMAGE.items() if name != "mediaType"}
    assert manifest.parse(json.dumps(without).encode(), sent).media_type == descriptor.OCI_MANIFEST


def test_docker_s_manifest_without_a_field_is_what_it_was_sent_as() -> None:
    without = {name: value for name, value in IMAGE.items() if name != "mediaType"}
    assert manifest.parse(json.dumps(without).encode(), descriptor.DOCKER_MANIFEST).media_type == descriptor.DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("change", "sent", "word"),
    [
        ({"manifests": []}, None, "at once"),
        ({"manifests": None}, None, "at once"),
        ({}, descriptor.OCI_INDEX, "sent as"),
        ({"mediaType": descriptor.OCI_INDEX}, None, "content is not"),
        ({"mediaType": descriptor.OCI_INDEX}, descriptor.OCI_INDEX, "content is not"),
        ({"mediaType": None}, descriptor.DOCKER_LIST, "content is not"),
        ({"mediaType": 1}, None, "not a string"),
        ({"mediaType": "text/html"}, None, "not one of a container image"),
        ({"mediaType": None}, "text/html", "not one of a container image"),
        ({"schemaVersion": 1}, None, "schema 1"),
        ({"fsLayers": []}, None, "schema 1"),
        ({}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        ({"schemaVersion": "2"}, None, "schemaVersion"),
        ({"schemaVersion": 2.5}, None, "schemaVersion"),
        ({"layers": {}}, None, "layers"),
        ({"layers": [LAYER, 3]}, None, "layer 2"),
        ({"layers": [LAYER | {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}]}, None, "distributed"),
        ({"layers": [LAYER | {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}]}, None, "distributed"),
        ({"layers": [LAYER | {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}]}, None, "not a layer"),
        ({"config": CONFIG | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}}, None, "no container image"),
        ({"config": CONFIG | {"size": 9 << 20}}, None, "too large"),
        ({"config": None}, None, "config"),
        ({"annotations": {"a": {}}}, None, "annotations"),
    ],
)
def test_confusion_is_refused(change: dict, sent: str | None, word: str) -> None:
    with pytest.raises(ImageError, match=word):
        manifest.parse(json.dumps(IMAGE | change).encode(), sent)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"schemaVersion": 2, "schemaVersion": 2, "manifests": []}',
        b'{"schemaVersion": 2, "manifests": [], "annotations": {"a": "\\ud800"}}',
        b'{"schemaVersion": NaN}',
        b"[" * 100000,
        b'{"schemaVersion": ' + b"9" * 10000 + b"}",
        b" " * (4 << 20) + b"{}",
    ],
)
def test_what_is_no_json_object_is_one_line(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        manifest.parse(data)
    assert len(caught.value.message) < 300


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([CONFIG, LAYER, DIGEST, 2]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_names = ["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "rootfs", "history", "os", "fsLayers"]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(_names), _json, max_size=6), st.booleans())
def test_whatever_the_document_is_the_answer_is_a_value_or_an_error_of_ours(said: dict, base: bool) -> None:
    data = json.dumps((IMAGE | said) if base else said).encode()
    for read in (manifest.parse, manifest.config):
        try:
            read(data)
        except ContainersError as error:
            assert "\n" not in error.message and len(error.message) < 400


def test_the_best_platform_is_chosen() -> None:
    found = index(
        one("linux/386", 1), one("linux/arm/v6", 2), one("linux/amd64", 3), one("linux/arm64/v8", 4), one("linux/arm/v7", 5), one(None, 6)
    )
    for wanted, number in (("amd64", 3), ("arm64", 4), ("armhf", 5), ("linux/arm/v6", 2), ("i386", 1), ("s390x", 6)):
        assert int(found.choose(Platform.parse(wanted)).hex, 16) == number, wanted


def test_a_lower_platform_is_taken_and_a_higher_one_never() -> None:
    assert index(one("linux/arm/v6", 2)).choose(Platform.parse("linux/arm/v7")).hex.endswith("2")
    assert index(one("linux/386", 2)).choose(Platform.parse("amd64")).hex.endswith("2")
    with pytest.raises(NotFound, match="no image for linux/arm/v6"):
        index(one("linux/arm/v7", 2)).choose(Platform.parse("linux/arm/v6"))


def test_attestations_are_no_images_and_what_there_is_is_named() -> None:
    attestation = one("unknown/unknown", 1, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    with pytest.raises(NotFound) as caught:
        index(attestation, one("linux/s390x", 2), one("windows/amd64", 3)).choose(Platform.parse("amd64"))
    assert "there is linux/s390x, windows/amd64" in caught.value.hint


# -- configs

GOOD: dict[str, Any] = {"architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]}}
GOOD["rootfs"] = {"type": "layers", "diff_ids": [DIGEST]}


def test_nulls_are_left_out() -> None:
    said = GOOD | {"author": None, "config": {"Env": ["A=b"], "Cmd": None, "Entrypoint": None, "Labels": None, "Own": None}}
    found = manifest.config(json.dumps(said).encode(), 1)
    assert found["config"] == {"Env": ["A=b"], "Own": None}
    assert "author" not in found


@pytest.mark.parametrize(
    "change",
    [
        {"os": "windows"},
        {"os": 1},
        {"config": []},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": [1]}},
        {"config": {"Env": ["A=b\0c"]}},
        {"config": {"Cmd": [None]}},
        {"config": {"User": 0}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Volumes": []}},
        {"config": {"StopTimeout": "1"}},
        {"config": {"Healthcheck": {"Test": "x"}}},
        {"config": {"Healthcheck": {"Interval": 1.5}}},
        {"history": {}},
        {"history": [1]},
        {"history": [{"empty_layer": "yes"}]},
        {"history": [{"created_by": 1}]},
        {"rootfs": None},
        {"rootfs": {"type": "layers", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]}},
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "vmdk", "diff_ids": [DIGEST]}},
        {"rootfs": {"type": "layers", "diff_ids": DIGEST}},
    ],
)
def test_a_config_with_a_wrong_type_is_refused(change: dict) -> None:
    manifest.config(json.dumps(GOOD).encode(), 1)
    with pytest.raises(ImageError, match=r"config|the image"):
        manifest.config(json.dumps(GOOD | change).encode(), 1)
