"""One Dockerfile with its context, and both ways to build it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import BuildError, ContainersError
from pycontainers.events import Note
from pycontainers.protocol import BuildRequest

from .compare import Result, docker_failure, docker_warnings, our_warnings, read_tree
from .engine import Engine

#: The time of every file of a context that does not say its own: 2021-03-04 05:06:07 UTC.
TIME = 1614834367


_SYNTAX = re.compile(r"^# *syntax *=.*")


@dataclass(frozen=True)
class File:
    """A node of a context. ``link``: the target of a symbolic link; ``same``: the path of which this is a hard link."""

    content: str | bytes = ""
    mode: int = 0o644
    link: str = ""
    same: str = ""
    time: int = TIME
    owner: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    kind: str = "file"


def folder(mode: int = 0o755, **more: Any) -> File:
    return File(mode=mode, kind="folder", **more)


def link(target: str) -> File:
    return File(link=target, kind="link")


Files = Mapping[str, "File | str | bytes"]


@dataclass(frozen=True)
class Case:
    """``features``: what of the language it is about. ``fails``: both must fail. ``quick``: also in the short run of ``make test``.

    :param before: name -> Dockerfile, built first on the same context; the names stand for these images in ``dockerfile``.
    :param contexts: name -> files, a named context; or text: an address.
    :param peer: ``docker``, or ``buildah`` for what this Docker Engine does not know: then trees are compared, and no configs.
    :param but: paths of the tree and parts of the config that may differ here, each with the reason.
    """

    name: str
    dockerfile: str
    files: Files = field(default_factory=dict)
    features: str = ""
    fails: bool = False
    quick: bool = False
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    ssh: bool = False
    contexts: Mapping[str, Files | str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)
    filename: str = "Dockerfile"
    platform: str = ""
    epoch: int | None = None
    peer: str = "docker"
    but: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Dockerfiles are written into the case after a line break that is not theirs."""
        return self.dockerfile.removeprefix("\n")

    def key(self) -> str:
        """Names what Docker is asked: equal as long as nothing of the case changes."""
        asked = {name: value for name, value in vars(self).items() if name not in ("features", "quick", "but")}
        return hashlib.sha256(repr(asked).encode()).hexdigest()[:16]


def lay_out(place: Path, files: Files) -> None:
    """Write a context. Times of folders are set last, so that what is written into them does not change them."""
    place.mkdir(parents=True)
    nodes = {path: node if isinstance(node, File) else File(node) for path, node in files.items()}
    for path, node in nodes.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if node.kind == "folder":
            target.mkdir(exist_ok=True)
        elif node.kind == "link":
            target.symlink_to(node.link)
        elif node.kind == "fifo":
            os.mkfifo(target)
        elif node.same:
            target.hardlink_to(place / node.same)
        else:
            target.write_bytes(node.content.encode() if isinstance(node.content, str) else node.content)
        if node.kind != "link" and not node.same:
            os.chown(target, *node.owner)
            target.chmod(node.mode)
            for name, value in node.xattrs.items():
                os.setxattr(target, name, value)
    for above, folders, names in os.walk(place, topdown=False):
        for name in [*names, *folders]:
            full = Path(above, name)
            node = nodes.get(str(full.relative_to(place)), File())
            os.utime(full, (node.time, node.time), follow_symlinks=False)
    os.utime(place, (TIME, TIME))


def _result(case: Case, layers: list[str], config: dict[str, Any], since: float, warnings: list[str], seconds: float) -> Result:
    return Result(
        True,
        0,
        "",
        read_tree(layers, since, case.epoch),
        config,
        [not os.listdir(layer) for layer in layers],
        case.epoch,
        warnings,
        seconds,
    )


class Docker:
    """Docker's side. Times from ``since`` on are those of this run."""

    def __init__(self, engine: Engine, since: float) -> None:
        self.engine, self.since = engine, since
        self.last: list[str] = []

    def build(self, case: Case, place: Path, values: Mapping[str, str], agent: Path | None) -> Result:
        """``place`` holds the context and more; ``values`` are build arguments of the whole run (where the web server is)."""
        for name, text in case.before.items():
            (place / "before").write_text(text.removeprefix("\n"))
            self.engine("buildx", "build", "-t", name, "-f", self.engine.inside(place / "before"), self.engine.inside(place / "context"))
        tag, dockerfile = f"case-{case.name}", place / "context" / case.filename
        if _SYNTAX.match(case.text):
            # No hub is reached: its frontend is the daemon's own. Another directive in this place keeps those that follow it directives.
            dockerfile = place / case.filename
            dockerfile.write_text(_SYNTAX.sub("# escape=\\\\", case.text))
        command = ["buildx", "build", "--progress", "plain", "-t", tag, "-f", self.engine.inside(dockerfile)]
        for name, value in {**values, **case.build_args}.items():
            command += ["--build-arg", f"{name}={value}"]
        for name, value in case.labels.items():
            command += ["--label", f"{name}={value}"]
        for name in case.secrets:
            command += ["--secret", f"id={name},src={self.engine.inside(place / 'secrets' / name)}"]
        for name, value in case.contexts.items():
            where = value if isinstance(value, str) else self.engine.inside(place / "contexts" / name)
            command += ["--build-context", f"{name}={where}"]
        command += ["--target", case.target] if case.target else []
        command += ["--platform", case.platform] if case.platform else []
        command += ["--ssh", f"default={self.engine.inside(agent)}"] if case.ssh and agent else []
        command += ["--build-arg", f"SOURCE_DATE_EPOCH={case.epoch}"] if case.epoch is not None else []
        command += ["--allow", "network.host"] if "--network=host" in case.text else []
        command.append(self.engine.inside(place / "context"))
        self.last = command
        started = time.time()
        done = self.engine(*command, check=False)
        seconds, warnings = time.time() - started, docker_warnings(done.stderr)
        if done.returncode:
            line, error = docker_failure(done.stderr)
            return Result(False, line, error, warnings=warnings, seconds=seconds)
        return _result(case, self.engine.layers(tag), self.engine.config(tag), self.since, warnings, seconds)

    def warnings(self) -> list[str]:
        """Those of the last Dockerfile, asked for by themselves: a build may be over before the client has read them all."""
        told = json.loads(self.engine(*self.last, "--call", "check,format=json", check=False).stdout or "{}").get("warnings") or []
        return sorted({f"{one['ruleName']} {one['location']['ranges'][0]['start']['line']}" for one in told})


class Buildah:
    """What stands in for Docker's side where a case says so: a tree, out of a tar of the whole."""

    def __init__(self, engine: Engine, since: float) -> None:
        self.engine, self.since = engine, since

    def build(self, case: Case, place: Path, values: Mapping[str, str], agent: Path | None) -> Result:
        tar, tree, dockerfile, context = (place / name for name in ("out.tar", "out", f"context/{case.filename}", "context"))
        started = time.time()
        options = ["--isolation", "chroot", "--layers=false", "-f", self.engine.inside(dockerfile)]
        done = self.engine.buildah("build", *options, "-o", f"type=tar,dest={self.engine.inside(tar)}", self.engine.inside(context))
        if done.returncode:
            return Result(False, 0, done.stderr.strip()[-300:], seconds=time.time() - started)
        tree.mkdir()
        subprocess.run(["tar", "--numeric-owner", "--xattrs", "-xpf", str(tar), "-C", str(tree)], check=True)
        return Result(True, 0, "", read_tree([str(tree)], self.since), seconds=time.time() - started)


class Ours:
    """Our side."""

    def __init__(self, engine: NativeEngine, since: float) -> None:
        self.engine, self.since = engine, since

    def build(self, case: Case, place: Path, values: Mapping[str, str], agent: Path | None) -> Result:
        context = place / "context"
        tag = f"case-{case.name}"
        secrets = {name: value.encode() for name, value in case.secrets.items()}
        contexts = {name: value if isinstance(value, str) else str(place / "contexts" / name) for name, value in case.contexts.items()}
        request = BuildRequest(
            case.text,
            str(context),
            (tag,),
            {**values, **case.build_args},
            dict(case.labels),
            case.target,
            secrets=secrets,
            contexts=contexts,
            dockerfile_path=str(context / case.filename),
            platform=case.platform,
            epoch=case.epoch,
            ssh={"default": str(agent)} if case.ssh and agent else {},
        )
        notes: list[str] = []
        started = time.time()
        try:
            for name, text in case.before.items():
                self._work(BuildRequest(text.removeprefix("\n"), str(context), (name,)), [])
            self._work(request, notes)
        except BuildError as error:
            return Result(False, error.line, f"{error} ({error.hint})", seconds=time.time() - started)
        except ContainersError as error:
            return Result(False, 0, f"{type(error).__name__}: {error} ({error.hint})", seconds=time.time() - started)
        seconds = time.time() - started
        image = self.engine.store.resolve(tag)
        return _result(case, list(image.rootfs.layers), image.config, self.since, our_warnings(notes), seconds)

    def _work(self, request: BuildRequest, notes: list[str]) -> None:
        for event in self.engine.build(request):
            if isinstance(event, Note):
                notes.append(event.text)


def prepare(case: Case, place: Path) -> None:
    """Everything that a case's build reads, below ``place``."""
    shutil.rmtree(place, ignore_errors=True)
    lay_out(place / "context", {**case.files, case.filename: case.text})
    (place / "secrets").mkdir()
    for name, text in case.secrets.items():
        (place / "secrets" / name).write_text(text)
    for name, value in case.contexts.items():
        if not isinstance(value, str):
            lay_out(place / "contexts" / name, value)
