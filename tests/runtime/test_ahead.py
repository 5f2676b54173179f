"""A first process that was made ahead of need meets hostile images; what can be made ahead ends where something else comes in between."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import IsolationError
from pycontainers.linux import cgroups
from pycontainers.protocol import Mount
from pycontainers.runtime import defaults, pattern

from .test_spares import first_process, gone

#: Tests that need one: on cgroup v2 a first process is born in its group, and nothing is made ahead.
ahead = [pytest.mark.root, pytest.mark.skipif(cgroups.layout().version == "v2", reason="nothing is made ahead on cgroup v2")]


def needs_ahead(test: Any) -> Any:
    for mark in ahead:
        test = mark(test)
    return test


@needs_ahead
@pytest.mark.parametrize("place", ["/proc/keys", "/proc/interrupts", "/proc/irq", "/proc/acpi"])
def test_no_volume_is_laid_over_what_is_hidden_already(engine: NativeEngine, image_with: Any, run: Any, tmp_path: Path, place: str) -> None:
    """What hides a file of proc is another file system: by that alone nobody sees that a volume on it lies inside /proc, uncovers it, and
    redirects what is written there. A link of the image leads the way."""
    if not os.path.exists(place):
        pytest.skip(f"this kernel has no {place}")
    run("true")
    source = tmp_path / "volume"
    source.mkdir() if os.path.isdir(place) else source.touch()
    image = image_with(lambda tree: os.symlink(place, os.path.join(tree, "way")))
    first = first_process(engine)
    with pytest.raises(IsolationError, match="lies inside /proc"):
        run("true", image=image, mounts=(Mount("bind", "/way", str(source)),))
    assert gone(first), "another than the one made ahead was asked"


@needs_ahead
@pytest.mark.parametrize("top", ["/proc", "/sys", "/dev"])
def test_an_image_whose_folder_is_a_link_is_refused(engine: NativeEngine, image_with: Any, run: Any, remains: Any, top: str) -> None:
    def hostile(tree: Path) -> None:
        (tree / "elsewhere").mkdir()
        os.symlink("/elsewhere", os.path.join(tree, top.lstrip("/")))

    run("true")
    image = image_with(hostile)
    before, first = remains(), first_process(engine)
    with pytest.raises(IsolationError, match=f"{top} is a link in the image"):
        run("true", image=image)
    assert gone(first)
    assert run("echo", "again") == "again\n"
    assert remains() == before


@needs_ahead
def test_an_image_that_brings_a_proc_of_its_own(engine: NativeEngine, image_with: Any, run: Any, tmp_path: Path) -> None:
    """Where something lies is asked of the kernel's proc, never of what an image has in its place."""

    def hostile(tree: Path) -> None:
        (tree / "proc/self/fd").mkdir(parents=True)
        for number in range(64):
            os.symlink("/innocent", tree / f"proc/self/fd/{number}")
        os.symlink("/proc/keys", tree / "way")

    (tmp_path / "volume").touch()
    run("true")
    image = image_with(hostile)
    first = first_process(engine)
    assert run("sh", "-c", "readlink /proc/self/fd/0; stat -f -c %T /proc", image=image) == "/dev/null\nproc\n"
    assert gone(first)
    first_process(engine)
    with pytest.raises(IsolationError, match="lies inside /proc"):
        run("true", image=image, mounts=(Mount("bind", "/way", str(tmp_path / "volume")),))


@needs_ahead
def test_nothing_of_the_last_container_is_in_the_next(engine: NativeEngine, run: Any) -> None:
    run("sh", "-c", "echo secret > /dev/shm/a; echo secret > /dev/a; echo secret > /a", hostname="first")
    first_process(engine)
    assert run("sh", "-c", "cat /dev/shm/a /dev/a /a 2>/dev/null; ls /dev/shm; hostname", hostname="second") == "second\n"


# -- what a pattern is


def spec_of(**linux: Any) -> dict[str, Any]:
    namespaces = [{"type": kind} for kind in ("user", "pid", "network", "ipc", "mount", "uts", "cgroup")]
    hidden = {"maskedPaths": defaults.MASKED_PATHS, "readonlyPaths": defaults.READONLY_PATHS}
    return {"mounts": list(defaults.MOUNTS), "linux": {"namespaces": namespaces, **hidden, **linux}}


def places(found: pattern.Pattern | None) -> list[str]:
    assert found is not None
    return [mount["destination"] for _, mount in found.ready]


def test_all_that_shows_the_namespaces_can_be_made_ahead() -> None:
    found = pattern.of(spec_of())
    assert places(found) == ["/proc", "/dev", "/dev/pts", "/sys", "/dev/mqueue", "/dev/shm"]
    assert found is not None and "/proc/keys" in found.masked and "/sys/firmware" not in found.masked
    assert "/proc/sys" not in found.frozen, "it is frozen after the sysctls are written"
    assert pattern.Pattern(*found.data).data == found.data


def test_it_ends_where_something_else_comes_in_between() -> None:
    spec = spec_of()
    spec["mounts"].insert(3, {"destination": "/x", "type": "bind", "source": "/tmp", "options": ["rbind"]})
    assert places(pattern.of(spec)) == ["/proc", "/dev", "/dev/pts"]


def test_what_shows_the_namespace_of_another_is_not_in_it() -> None:
    spec = spec_of()
    spec["linux"]["namespaces"] = [kind for kind in spec["linux"]["namespaces"] if kind["type"] != "network"]
    assert places(pattern.of(spec)) == ["/proc", "/dev", "/dev/pts"], "the machine's network shows in /sys"


def with_hooks(spec: dict[str, Any]) -> None:
    spec["hooks"] = {"createRuntime": [{"path": "/x"}]}


def joining(spec: dict[str, Any]) -> None:
    spec["linux"]["namespaces"][1]["path"] = "/proc/1/ns/pid"


def with_clocks(spec: dict[str, Any]) -> None:
    spec["linux"]["timeOffsets"] = {"monotonic": {"secs": 1}}


def with_devices(spec: dict[str, Any]) -> None:
    spec["linux"]["devices"] = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]


def with_its_own_dev(spec: dict[str, Any]) -> None:
    spec["mounts"].insert(0, {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]})


@pytest.mark.parametrize("change", [with_hooks, joining, with_clocks, with_devices, with_its_own_dev])
def test_who_needs_a_first_process_of_its_own(change: Callable[[dict[str, Any]], None]) -> None:
    spec = spec_of()
    change(spec)
    assert pattern.of(spec) is None


@pytest.mark.parametrize("path", ["/", "/proc"])
def test_what_freezes_all_of_proc_comes_before_what_hides_in_it(path: str) -> None:
    found = pattern.of(spec_of(readonlyPaths=["/proc/irq", path]))
    assert found is not None and found.frozen == found.masked == []
