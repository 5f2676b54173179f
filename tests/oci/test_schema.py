"""What we write has the form that the specification's schemas give it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pycontainers.protocol import ContainerConfig, Device, Mount, Resources, Ulimit

pytestmark = pytest.mark.root
#: Debian's golang-github-opencontainers-specs-dev (1.0.2)
PUBLISHED = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")
#: state-schema.json and features-schema.json of 1.2 in short
STATE = {
    "type": "object",
    "required": ["ociVersion", "id", "status", "bundle"],
    "properties": {
        "ociVersion": {"type": "string", "pattern": r"^1\.\d+\.\d+"},
        "id": {"type": "string", "minLength": 1},
        "status": {"enum": ["creating", "created", "running", "stopped", "paused"]},
        "pid": {"type": "integer", "minimum": 0},
        "bundle": {"type": "string", "pattern": "^/"},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
WORDS = {"type": "array", "items": {"type": "string"}}
ENABLED = {"type": "object", "properties": {"enabled": {"type": "boolean"}}}
FEATURES = {
    "type": "object",
    "required": ["ociVersionMin", "ociVersionMax"],
    "additionalProperties": False,
    "properties": {
        "ociVersionMin": {"type": "string"},
        "ociVersionMax": {"type": "string"},
        "hooks": WORDS,
        "mountOptions": WORDS,
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "potentiallyUnsafeConfigAnnotations": WORDS,
        "linux": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "namespaces": {"type": "array", "items": {"enum": "cgroup ipc mount network pid time user uts".split()}},
                "capabilities": {"type": "array", "items": {"pattern": "^CAP_[A-Z_]+$"}},
                "cgroup": {"type": "object", "additionalProperties": {"type": "boolean"}},
                "seccomp": {
                    "type": "object",
                    "properties": {"enabled": {"type": "boolean"}, "actions": WORDS, "operators": WORDS, "archs": WORDS},
                },
                "apparmor": ENABLED,
                "selinux": ENABLED,
                "intelRdt": ENABLED,
                "mountExtensions": {"type": "object", "properties": {"idmap": ENABLED}},
            },
        },
    },
}


def check(what: Any, schema: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    errors = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in jsonschema.Draft7Validator(schema).iter_errors(what)]
    assert not errors, errors[:5]


def published(name: str) -> dict[str, Any]:
    """A published schema whose references to its neighbours are put in their place."""
    if not (PUBLISHED / "defs-linux.json").exists():
        pytest.skip(f"the neighbours of {name} are not installed here")

    def resolve(text: str, here: str) -> Any:
        file, _, pointer = text.partition("#")
        found = json.loads((PUBLISHED / (file or here)).read_text())
        for part in filter(None, pointer.split("/")):
            found = found[part]
        return expand(found, file or here)

    def expand(node: Any, here: str) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolve(node["$ref"], here)
            return {key: expand(value, here) for key, value in node.items() if key not in ("id", "$id")}
        return [expand(value, here) for value in node] if isinstance(node, list) else node

    result: dict[str, Any] = expand(json.loads((PUBLISHED / name).read_text()), name)
    return result


def test_state(oci: Any) -> None:
    bundle = oci.bundle(lambda spec: spec.update(annotations={"a": "b"}), "sleep 1000")
    oci.create("c", bundle)
    for step in ("", "start", "pause", "resume", "kill"):
        if step:
            oci(step, "c", *(["KILL"] if step == "kill" else []))
        check(oci.state("c"), STATE)
    for state in json.loads(oci("list", "-f", "json").out):
        check(state, STATE)


def test_features(oci: Any) -> None:
    check(json.loads(oci("features").out), FEATURES)


@pytest.mark.parametrize(
    "config",
    [
        ContainerConfig("host", ("true",)),
        ContainerConfig("host", ("true",), privileged=True, network="host", pid="host", userns="host", tty=True),
        ContainerConfig(
            "host",
            ("true",),
            resources=Resources(memory=64 << 20, cpus=0.5, pids_limit=50, cpuset_cpus="0"),
            mounts=(Mount("bind", "/x", "/tmp", True), Mount("tmpfs", "/y")),
            devices=(Device("/dev/null", "/dev/zilch"),),
            ulimits=(Ulimit("nofile", 10, 20),),
            sysctls={"net.ipv4.ip_forward": "1"},
            cap_add=("NET_ADMIN",),
        ),
    ],
    ids=["plain", "privileged", "much"],
)
def test_the_engines_own_spec(engine: Any, config: ContainerConfig) -> None:
    """What the launcher is handed is a runtime-spec, to be run by any runtime."""
    info = engine.create(config)
    spec = engine.oci(info.id)
    newer = [{"type": "time"}]  # since 1.1
    spec["linux"]["namespaces"] = [kind for kind in spec["linux"]["namespaces"] if kind not in newer]
    check(spec, published("config-schema.json"))


def test_the_spec_to_start_from(oci: Any, tmp_path: Path) -> None:
    for words in ([], ["--rootless"]):
        oci("spec", *words, "--bundle", str(tmp_path), "--file", f"{len(words)}.json")
        check(json.loads((tmp_path / f"{len(words)}.json").read_text()), published("config-schema.json"))
