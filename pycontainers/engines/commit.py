"""``commit``: what a container has written becomes a layer, and with its settings an image. The container goes on."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from typing import Any

from ..builder import instructions
from ..builder.parser import parse
from ..builder.plan import Plan
from ..builder.stage import StageState
from ..errors import BuildError, StateError, UsageError
from ..events import Done, Progress, Work
from ..images import layers, reference
from ..images.store import Image, Store
from ..images.view import Rootfs
from ..linux import trees
from ..paths import Paths
from ..protocol import CommitRequest
from ..runtime import defaults, state
from .folders import drop_mount_points
from .transfer import Session

#: Instructions of --change. The others would have to run something.
_ALLOWED = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
_WAIT = 10.0


def commit(paths: Paths, store: Store, container_id: str, request: CommitRequest) -> Work[Image]:
    """See :meth:`pycontainers.protocol.Engine.commit`."""
    started = time.perf_counter()
    folder = f"{paths.containers}/{container_id}"
    record, spec = state.read(folder, "container.json"), state.read(folder, "config.json")
    if record is None or spec is None:
        raise StateError(f"container {container_id[:12]} was removed meanwhile", "")
    if request.name:
        reference.check_free(request.name)
    image = _image(store, record)
    stage = StageState(image, Plan((), {}, frozenset(), ()), {})
    stage.config["config"] = _settings(image.config.get("config") or {}, record, spec)
    for text in request.changes:
        change(stage, text)
    tree = store.new_layer()
    try:
        yield from _fill(paths, store, folder, record, tree, request.pause)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"created": now, "created_by": " ".join(record["command"]), "author": request.author, "comment": request.message}
        entry: dict[str, Any] = {key: value for key, value in said.items() if value}
        stage.config["history"] = [*(image.config.get("history") or []), entry]
        if os.listdir(tree):
            stage.layers.append(store.commit(tree, stage.chain_id))
        else:
            entry["empty_layer"] = True
            store.discard(tree)
    except BaseException as error:
        store.discard(tree)
        if isinstance(error, FileNotFoundError) and not os.path.isdir(folder):
            raise StateError(f"container {record['name']!r} was removed meanwhile", "") from None
        raise
    stage.created = now
    if request.author:
        stage.config["author"] = request.author
    made = store.save_image(stage.finished(), stage.layers, stage.host)
    if request.name:
        store.tag(made.id, request.name)
    yield Done(request.name or made.id.removeprefix("sha256:")[:12], time.perf_counter() - started)
    return store.resolve(made.id)


def _image(store: Store, record: dict[str, Any]) -> Image:
    """What the container stands on, also when its name has gone to another image, or this machine's base has moved on."""
    roots = record["rootfs"]
    if record["image_id"].startswith("host:"):
        stack = Rootfs(tuple(roots["layers"]), tuple(roots["folders"]), roots["base"])
        return Image(record["image_id"], store.resolve("host").config, (), record["image_id"].removeprefix("host:"), stack)
    return store.resolve(record["image_id"]) if record["image_id"] else store.scratch()


def _settings(image: dict[str, Any], record: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """The image's ``config`` with what was asked for when the container was created, as Docker's commit."""
    found = dict(image)
    words, entrypoint = list(record["command"]), list(image.get("Entrypoint") or [])
    if words != [*entrypoint, *(image.get("Cmd") or [])]:
        if not entrypoint or words[: len(entrypoint)] != entrypoint:
            found.pop("Entrypoint", None)
            entrypoint = []
        found["Cmd"] = words[len(entrypoint) :]
    process, known = spec["process"], image.get("Env") or []
    ours = [f"PATH={defaults.PATH}", f"HOSTNAME={spec.get('hostname')}", *["TERM=xterm"] * bool(process.get("terminal"))]
    found["Env"] = [item for item in process["env"] if item in known or item not in ours]
    user = process["user"].get("username") or "0"
    if user != "0" or image.get("User"):
        found["User"] = user
    if process["cwd"] != "/" or image.get("WorkingDir"):
        found["WorkingDir"] = process["cwd"]
    ports: dict[str, Any] = {f"{port['container_port']}/{port['protocol']}": {} for port in record["ports"]}
    if ports or image.get("ExposedPorts"):
        found["ExposedPorts"] = {**(image.get("ExposedPorts") or {}), **ports}
    if record["labels"]:
        found["Labels"] = record["labels"]
    if record["stop_signal"] != (image.get("StopSignal") or "SIGTERM"):
        found["StopSignal"] = record["stop_signal"]
    return found


def change(stage: StageState, text: str) -> None:
    """Apply one ``--change``, a Dockerfile instruction. :raises UsageError:"""
    try:
        parsed = parse(text)
        raw = parsed.instructions[0]
        if raw.keyword not in _ALLOWED or len(parsed.instructions) > 1:
            raise UsageError(f"--change {text!r} is not possible in a commit", f"one of {', '.join(_ALLOWED)}")
        (item,) = instructions.interpret(parsed)
        if isinstance(item, instructions.Workdir):
            stage.set_workdir(item.raw, item.path)
        else:
            stage.apply(item)
    except BuildError as error:
        raise UsageError(f"--change {text!r}: {error.message.partition(': ')[2] or error.message}", error.hint) from None


def _fill(paths: Paths, store: Store, folder: str, record: dict[str, Any], tree: str, pause: bool) -> Work[None]:
    """Copy the upper folders while nothing moves, then join them in ``tree``."""
    roots = record["rootfs"]
    workshop = f"{os.path.dirname(tree)}/upper"
    os.mkdir(workshop, 0o700)
    guard = None
    with contextlib.ExitStack() as stack:
        now = state.read(folder, "state.json")
        if now is None or now["status"] in (state.CREATED, state.EXITED):
            stack.callback(os.close, state.lock_within(folder, _WAIT))  # nobody starts or removes it meanwhile
        elif pause:
            guard = stack.enter_context(Session(paths, record["id"], "freeze"))
        for index in range(len(roots["folders"])):
            os.mkdir(f"{workshop}/{index}")
            for done in layers.copy_upper(f"{roots['upper']}/{index}", f"{workshop}/{index}"):
                yield Progress(record["name"], done)
        if guard is not None and guard.ready:
            guard.check()  # else the container has moved, and what was copied need not belong together
        drop_mount_points(folder, roots["folders"], workshop)
    below = Rootfs(tuple(roots["layers"]), tuple(roots["folders"]), roots["base"])
    places = {place: f"{workshop}/{index}" for index, place in enumerate(roots["folders"])}
    store.merge_uppers(places, tree, below)
    trees.remove(workshop)
