"""``build --output`` and its siblings: what becomes of an image when it is built. The image itself is in the store in any case."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from ..errors import BuildError, UsageError, near
from ..events import Done, Event, Note, Work
from ..protocol import BuildRequest, Engine, ImageInfo
from .build_kinds import checked
from .build_options import fields
from .options import Words
from .settings import several

_TYPES = ("image", "registry", "docker", "oci", "local", "tar")
_KEYS = ("type", "dest", "name", "push", "tar", "compression", "include-host")
_HINT = "a folder, or type=docker|oci|local|tar,dest=PATH, or type=registry"
Standard = Callable[[], BinaryIO]
"""stdout as a file of bytes, for ``dest=-``; raises where there is none."""


@dataclass(frozen=True)
class Output:
    """One ``--output``. ``dest``: an absolute path, ``-`` for stdout, "" for the store alone."""

    type: str
    dest: str = ""
    name: str = ""
    push: bool = False
    folder: bool = False
    compression: str = ""
    include_host: bool = False


@dataclass(frozen=True)
class Outputs:
    """Everything that is written when the build is done. ``id_file``, ``metadata_file``: paths, "" for none."""

    outputs: tuple[Output, ...] = ()
    id_file: str = ""
    metadata_file: str = ""
    standard: Standard | None = field(default=None, compare=False)


def parse_output(text: str | os.PathLike[str]) -> Output:
    """``FOLDER``, ``-`` (a tar to stdout) or ``type=…,dest=…``. :raises UsageError: a type or a destination that makes no sense."""
    text = os.fspath(text)
    if not text:
        raise UsageError("--output '' has no destination", _HINT)
    if "=" not in text:
        return Output("tar", "-") if text == "-" else _checked(Output("local", _absolute(text)), text)
    given = fields(text, "--output", _KEYS, _HINT)
    kind = given.get("type", "")
    if kind not in _TYPES:
        said = f"type {kind!r} is unknown" if kind else "there is no type"
        raise UsageError(f"--output {text!r}: {said}", near(kind, _TYPES) or _HINT)
    output = Output(
        type="image" if kind == "registry" else kind,
        dest=_absolute(given["dest"]) if given.get("dest") else "",
        name=given.get("name", ""),
        push=_flag(given, "push", text) or kind == "registry",
        folder=kind == "oci" and "tar" in given and not _flag(given, "tar", text),
        compression=given.get("compression", ""),
        include_host=_flag(given, "include-host", text),
    )
    return _checked(output, text)


def _absolute(path: str) -> str:
    return path if path == "-" else os.path.abspath(os.path.expanduser(path))


def _flag(given: dict[str, str], key: str, text: str) -> bool:
    value = given.get(key, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise UsageError(f"--output {text!r}: {key}={given[key]} is neither true nor false", f"{key}=true")
    return value in ("true", "1")


def _checked(output: Output, text: str) -> Output:
    """What would fail after a long build fails before it."""
    if "\0" in text:
        raise UsageError(f"--output {text!r} has a NUL character", _HINT)
    if output.type in ("oci", "local", "tar") and not output.dest:
        raise UsageError(f"--output {text!r} has no destination", f"type={output.type},dest=PATH")
    if output.type == "image" and output.dest:
        raise UsageError(f"--output {text!r}: an image goes into the store, not to {output.dest}", f"type=docker,dest={output.dest}")
    if output.push and output.type != "image":
        raise UsageError(f"--output {text!r}: only an image is pushed", "type=image,name=NAME,push=true")
    wants_folder = output.type == "local" or output.folder
    if wants_folder and (output.dest == "-" or (os.path.lexists(output.dest) and not os.path.isdir(output.dest))):
        raise UsageError(f"--output {text!r}: {output.dest} is not a folder", "type=tar,dest=FILE writes one file")
    if not wants_folder and output.dest not in ("", "-"):
        if os.path.isdir(output.dest):
            raise UsageError(f"--output {text!r}: {output.dest} is a folder", "name a file")
        if not os.path.isdir(os.path.dirname(output.dest)):
            raise UsageError(f"--output {text!r}: there is no folder {os.path.dirname(output.dest)}", "make it first")
    return output


def outputs(values: Words | os.PathLike[str], request: BuildRequest, *, push: bool = False) -> tuple[tuple[Output, ...], BuildRequest]:
    """The outputs that are asked for, and the request with the names that they give. ``push``: the same as one of type registry."""
    values = checked("output", values)
    given = [values] if isinstance(values, os.PathLike) else several(values)
    found = [*map(parse_output, given), *([Output("image", push=True)] if push else [])]
    names = [name for output in found if output.type in ("image", "docker", "oci") for name in output.name.split(",") if name]
    tags = tuple(dict.fromkeys([*request.tags, *names]))
    if any(output.push for output in found) and not tags:
        raise UsageError("an image without a name cannot be pushed", "-t HOST/NAME:TAG")
    return tuple(found), replace(request, tags=tags)


def build_and_write(engine: Engine, request: BuildRequest, wanted: Outputs) -> Work[ImageInfo]:
    """The build, and then each output in turn; that all is done is said last."""
    started, done = time.perf_counter(), None
    yield from _unknown_stages(request)
    with contextlib.closing(engine.build(request)) as work:
        while True:
            try:
                event = next(work)
            except StopIteration as stop:
                info: ImageInfo = stop.value
                break
            if isinstance(event, Done):
                done = event
            else:
                yield event
    for output in wanted.outputs:
        yield from _write(engine, info, request, output, wanted.standard)
    if wanted.id_file:
        _text_file(wanted.id_file, info.id, "--iidfile")
    if wanted.metadata_file:
        _text_file(wanted.metadata_file, _metadata(info, request), "--metadata-file")
    if done is not None:
        yield replace(done, seconds=time.perf_counter() - started) if wanted.outputs else done
    return info


def _unknown_stages(request: BuildRequest) -> Iterator[Note]:
    """What --no-cache-filter names and the Dockerfile has not. Docker says nothing, and takes every step from the cache."""
    if not request.no_cache_filter:
        return
    from ..builder.instructions import From, interpret
    from ..builder.parser import parse

    try:
        stages = [item.name for item in interpret(parse(request.dockerfile)) if isinstance(item, From)]
    except BuildError:
        return  # the build says so itself
    known = {name or f"stage-{index}" for index, name in enumerate(stages)}
    for name in request.no_cache_filter:
        if name not in known:
            hint = near(name, known) or f"the stages are {', '.join(sorted(known)[:20])}"
            yield Note(f"--no-cache-filter {name}: the Dockerfile has no such stage, and nothing runs anew for it; {hint}")


def _write(engine: Engine, info: ImageInfo, request: BuildRequest, output: Output, standard: Standard | None) -> Iterator[Event]:
    if output.push:
        for name in output.name.split(",") if output.name else request.tags:
            yield from _quietly_done(engine.push(name, compression=output.compression, include_host=output.include_host))
    elif output.type == "local":
        yield from _quietly_done(engine.export_folder(info.id, output.dest))
    elif output.dest:
        with _file(output, standard) as file:
            if not isinstance(file, str) and output.type == "tar":
                yield from _quietly_done(engine.export_image(info.id, file, output.compression))
                return
            form = "docker-archive" if output.type == "docker" else "oci-dir" if output.folder else "oci-archive"
            names = list(request.tags) or [info.id]
            yield from _quietly_done(engine.save(names, file, form, output.include_host, output.compression))


@contextlib.contextmanager
def _file(output: Output, standard: Standard | None) -> Iterator[str | BinaryIO]:
    """Where the output goes, in the form that the engine takes."""
    if output.dest == "-":
        if standard is None:
            raise UsageError("- means stdout, which there is none of here", "name a file")
        yield standard()
    elif output.type == "tar":
        from ..engines.transfer import whole_file

        with whole_file(output.dest) as file:
            yield file
    else:
        yield output.dest  # `save` itself gives a file its name when it is whole


def _quietly_done(work: Work[object]) -> Iterator[Event]:
    """The events of a part, without the one that says that all is done."""
    with contextlib.closing(work):
        for event in work:
            if not isinstance(event, Done):
                yield event


def _text_file(path: str, text: str, option: str) -> None:
    from ..engines.transfer import whole_file

    try:
        with whole_file(os.path.expanduser(path)) as file:
            file.write(text.encode())
    except UsageError as error:
        raise UsageError(f"{option} {error.message}", "the image is built: %container images") from None


def _metadata(info: ImageInfo, request: BuildRequest) -> str:
    """By the names that ``docker buildx build --metadata-file`` writes."""
    found = {"containerimage.config.digest": info.id, "image.name": ",".join(request.tags)}
    if info.manifest:
        found["containerimage.digest"] = info.manifest
    return json.dumps({key: value for key, value in sorted(found.items()) if value}, indent=2) + "\n"
