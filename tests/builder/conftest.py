"""A real store in a temporary folder, and a runner that runs commands for real, in the layer folder itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from pycontainers.builder.solver import build
from pycontainers.events import Event
from pycontainers.images.store import Image, Store
from pycontainers.images.view import View
from pycontainers.paths import Paths
from pycontainers.protocol import BuildRequest


class HereRunner:
    """Runs a step's command on this machine with the layer folder as its working directory: what it writes is the layer."""

    def __init__(self) -> None:
        self.calls: list[dict] = []

    def run(self, command, rootfs, tree, cancellation) -> Generator[tuple[str, bytes], None, int]:
        seen = {name: getattr(command, name) for name in ("argv", "env", "cwd", "user", "network", "mounts", "files")}
        self.calls.append(seen | {"tree": tree})
        with subprocess.Popen(command.argv, cwd=tree, env=command.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True) as process, cancellation.ending(lambda: os.killpg(process.pid, 9)):
            try:
                while data := os.read(process.stdout.fileno(), 65536):
                    yield "stdout", data
            except GeneratorExit:
                os.killpg(process.pid, 9)
                raise
        cancellation.check()
        return process.returncode


class Builder:
    """Builds from text and a folder, keeps the events."""

    def __init__(self, store: Store, context: Path) -> None:
        self.store, self.context, self.runner, self.events = store, context, HereRunner(), []

    def __call__(self, dockerfile: str, **options) -> Image:
        options.setdefault("context", str(self.context))
        self.events: list[Event] = []
        work = build(BuildRequest(dockerfile, **options), self.store, self.runner)
        while True:
            try:
                self.events.append(next(work))
            except StopIteration as stop:
                return stop.value

    def file(self, path: str, content: str | bytes = "x", mode: int = 0o644) -> Path:
        target = self.context / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        return target

    def left_over(self) -> list[str]:
        return os.listdir(f"{self.store.root}/ingest")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    context = tmp_path / "context"
    context.mkdir()
    return Builder(Store(Paths(tmp_path / "home", tmp_path / "run")), context)


def files(image: Image) -> list[str]:
    """Every path in the image, folders with a trailing slash."""
    view, found, pending = View(image.rootfs), [], [""]
    while pending:
        folder = pending.pop()
        for name in view.listdir(folder or "/"):
            node = view.lookup(f"{folder}/{name}")
            if os.path.isdir(node.path) and not os.path.islink(node.path):
                found.append(f"{folder}/{name}/")
                pending.append(f"{folder}/{name}")
            else:
                found.append(f"{folder}/{name}")
    return sorted(found)


def content(image: Image, path: str) -> str:
    return View(image.rootfs).read(path).decode()


def status(image: Image, path: str) -> os.stat_result:
    return View(image.rootfs).lookup(path).stat


@pytest.fixture
def look():
    """files, content and status of an image, as one object."""
    class Look:
        pass
    Look.files, Look.content, Look.status = staticmethod(files), staticmethod(content), staticmethod(status)
    return Look
