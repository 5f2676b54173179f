"""The functions of ``import pycontainers as pc``. Options carry Docker's names and units, as text or as Python values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any, Literal, Unpack, overload

from .commands.build_options import BuildOptions, build_request
from .commands.build_output import Outputs, build_and_write, outputs
from .commands.frontend import native_engine
from .commands.limits import LimitWords, resources_of
from .commands.options import RunOptions, container_config
from .commands.pulling import with_image
from .commands.settings import restart_policy
from .errors import BuildError, UsageError, near
from .events import Event, finish
from .objects import Container, ContainerList, Image, ImageList
from .protocol import BootstrapRequest, ContainerConfig
from .results import Events, Output, RunResult
from .wording import failed

Text = str | None
Words = str | Sequence[str] | None


@overload
def run(image: str | Image, command: Words = None, *, detach: Literal[True], **options: Unpack[RunOptions]) -> Container: ...


@overload
def run(image: str | Image, command: Words = None, *, detach: Literal[False] = False, **options: Unpack[RunOptions]) -> RunResult: ...


def run(
    image: str | Image,
    command: Words = None,
    *,
    detach: bool = False,
    input: str | bytes | None = None,
    check: bool = True,
    pull: str = "missing",
    platform: str | None = None,
    **options: Unpack[RunOptions],
) -> Container | RunResult:
    """Create a container and start it.

    With ``detach`` it runs on and a :class:`Container` is returned; else this waits for its end and returns what it wrote.

    :param memory: bytes, or text such as ``"128m"``; ``cpus``: processors (0.5 is half of one).
    :param ports: ``{8080: 80}`` (host to container), ``["8080:80"]``; loopback unless an address is given.
    :param volumes: ``{"./data": "/data"}`` or ``["./data:/data:ro"]``.
    :param input: its stdin (foreground only).
    :param check: raise for an exit code other than 0 (foreground only).
    :param pull: fetch the image from its registry: ``missing`` (where it is not here), ``always`` or ``never``; for this ``platform``.
    :raises ContainerFailed: with ``check``, when it ended badly. Other errors are those of the engine.
    """
    config = _config(image, command, options, input is not None)
    engine = native_engine()
    if detach:
        return with_image(engine, config.image, pull, platform, finish, lambda: Container.launch(engine, config))
    output, data = Output(), input.encode() if isinstance(input, str) else input
    info, exit = with_image(engine, config.image, pull, platform, finish, lambda: engine.run(config, data, output))
    result = RunResult(info.name, exit, bytes(output.stdout), bytes(output.stderr), output.truncated)
    failure = failed(info.name, exit, info.resources.memory) if check else None
    if failure is not None:
        raise failure
    return result


def create(
    image: str | Image, command: Words = None, *, pull: str = "missing", platform: str | None = None, **options: Unpack[RunOptions]
) -> Container:
    """Create a container without starting it. Options as in :func:`run`."""
    engine, config = native_engine(), _config(image, command, options)
    return Container(engine, with_image(engine, config.image, pull, platform, finish, lambda: engine.create(config)))


def pull(name: str, *, platform: str = "") -> Image:
    """Get an image from its registry and wait for it. :raises NotFound: it has none. :raises RegistryError: it cannot be asked."""
    engine = native_engine()
    return Image(engine, finish(engine.pull(name, platform))[0])


def push(name: str, *, compression: str = "", include_host: bool = False) -> str:
    """Put an image into the registry that its name tells; returns its digest there."""
    return finish(native_engine().push(name, False, compression, include_host))[0]


def save(images: str | Sequence[str], path: str | os.PathLike[str], *, format: str = "docker-archive", include_host: bool = False) -> int:
    """Write images to a file (docker-archive, oci-archive) or a folder (oci-dir). Bytes written."""
    names = [images] if isinstance(images, str) else list(images)
    return finish(native_engine().save(names, os.fspath(path), format, include_host))


def load(path: str | os.PathLike[str]) -> ImageList:
    """The images of an archive or OCI layout folder, whoever wrote it."""
    engine = native_engine()
    return ImageList(Image(engine, info) for info in finish(engine.load(os.fspath(path))))


def import_image(path: str | os.PathLike[str], name: str = "", *, changes: Sequence[str] = (), message: str = "") -> Image:
    """An image of a root file system: a tar, plain or compressed, or a folder."""
    engine = native_engine()
    return Image(engine, finish(engine.import_image(os.fspath(path), name, tuple(changes), message)))


def bootstrap(
    system: str, name: str = "", *, variant: str = "minbase", include: Sequence[str] = (), mirror: str = "", architecture: str = ""
) -> Image:
    """An image of a Debian or Ubuntu system, from its packages: ``pc.bootstrap("debian:bookworm")``."""
    engine = native_engine()
    return Image(engine, finish(engine.bootstrap(BootstrapRequest(system, name, variant, tuple(include), mirror, architecture))))


def _config(image: str | Image, command: Words, options: RunOptions, interactive: bool = False) -> ContainerConfig:
    known = RunOptions.__annotations__
    for word in options:
        if word not in known:
            raise UsageError(f"there is no option {word!r}", near(word, known) or "see: help(pycontainers.run)")
    return container_config(image.id if isinstance(image, Image) else image, command, interactive=interactive, **options)


def _with_options(function: Any, options: Any = RunOptions) -> None:
    """Show the names of all options where a notebook asks for the signature, instead of ``**options``."""
    own = [item for item in signature(function).parameters.values() if item.kind is not Parameter.VAR_KEYWORD]
    kinds = {name: getattr(kind, "__forward_arg__", kind) for name, kind in options.__annotations__.items()}
    more = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in kinds.items()]
    function.__signature__ = Signature([*own, *more])


_with_options(run)
_with_options(create)


def update(container: str | Container, *, restart: str | None = None, **limits: Unpack[LimitWords]) -> Container:
    """Other limits and another restart policy for a container, at once and for every later start: ``memory="256m"``, ``cpus=1.5``.

    :raises LimitError: a limit that makes no sense, or that this machine cannot set; nothing has changed then.
    """
    for word in limits:
        if word not in LimitWords.__annotations__:
            raise UsageError(f"there is no limit {word!r}", near(word, LimitWords.__annotations__) or "see: help(pycontainers.run)")
    name = container.id if isinstance(container, Container) else container
    engine = native_engine()
    policy = restart_policy(restart) if restart is not None else None
    return Container(engine, engine.update(name, resources_of(limits) if limits else None, policy))


def list_events(since: float = 0.0, until: float = 0.0) -> Events:
    """What happened to containers between two unix times, oldest first, in the form of Docker's event messages."""
    return Events(native_engine().events(since, until))


def get(name: str) -> Container:
    """A container by name, id, or unambiguous start of an id. :raises NotFound: there is none."""
    engine = native_engine()
    return Container(engine, engine.find(name))


def ps(all: bool = False) -> ContainerList:
    """Running containers; with ``all`` those that have ended or never started as well."""
    engine = native_engine()
    return ContainerList(Container(engine, info) for info in engine.containers(all))


def get_image(name: str) -> Image:
    """An image by name or id. :raises NotFound: there is none."""
    engine = native_engine()
    return Image(engine, engine.image(name))


def list_images() -> ImageList:
    """All images of the store."""
    engine = native_engine()
    return ImageList(Image(engine, info) for info in engine.images())


def build(
    dockerfile: str | os.PathLike[str] | None = None,
    tag: str | Sequence[str] = (),
    *,
    output: str | os.PathLike[str] | Sequence[str] = (),
    progress: Callable[[Event], object] | None = None,
    **options: Unpack[BuildOptions],
) -> Image:
    """Build an image and wait for it: ``pc.build("FROM host\\nCOPY app.py /\\n", "app", files={"app.py": text})``.

    :param dockerfile: its text (contains a newline), or the path of the file or of a folder that holds one; None: the ``Dockerfile``
        among ``files``, or in ``context``.
    :param context: the folder that COPY reads ("" is none); the Dockerfile's own folder, or the current one for text, if not given.
    :param files: inline files, path -> text or bytes, laid over the context. ``contexts``: more of them by name, for ``--from``.
    :param secrets: id -> text or bytes, or a path object for that file's content.
    :param output: what is written beside: a folder, or ``"type=docker,dest=app.tar"`` (docker, oci, local, tar; ``type=registry`` pushes).
    :param progress: called with each event (:mod:`pycontainers.events`) as it comes.
    :raises BuildError: with the line that is wrong or failed.
    """
    engine = native_engine()
    if progress is not None and not callable(progress):
        raise UsageError(f"progress={progress!r} cannot be called", "a function that takes an event: progress=print")
    request = build_request(dockerfile, () if tag is None or tag == "" else tag, None, **options)
    written, request = outputs(output, request)
    try:
        return Image(engine, finish(build_and_write(engine, request, Outputs(written)), progress))
    except BuildError as error:
        raise error.of_file(os.path.relpath(request.dockerfile_path) if request.dockerfile_path else error.file) from None


_with_options(build, BuildOptions)
