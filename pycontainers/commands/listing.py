"""``ps``, ``inspect``, ``port``, ``top``: what there is."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from ..errors import ContainersError, NotFound, UsageError, near
from ..objects import Container, ContainerList
from ..protocol import ImageInfo
from ..results import Document, Rows, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context


def ps(context: Context, args: SimpleNamespace, body: str | None) -> ContainerList | Text:
    infos = context.engine.containers(args.all)
    if args.quiet:
        return Text("\n".join(info.id if args.no_trunc else info.short_id for info in infos))
    found = ContainerList(Container(context.engine, info) for info in infos)
    found.full = args.no_trunc
    return found


def inspect(context: Context, args: SimpleNamespace, body: str | None) -> Document:
    """Containers or images, by whichever of the two knows the name."""
    if args.type not in ("", "container", "image"):
        raise UsageError(f"--type {args.type!r} is unknown", "container or image")
    return Document([_inspect(context, name, args.oci, args.type) for name in args.name])


def _inspect(context: Context, name: str, oci: bool, kind: str) -> dict[str, Any]:
    if oci:
        return context.engine.oci(name)
    if kind != "image":
        with contextlib.suppress(NotFound):
            return asdict(context.engine.find(name))
    if kind != "container":
        with contextlib.suppress(NotFound):
            return image_document(context.engine.image(name))
    raise NotFound(f"no container or image {name!r}", near(name, names(context)) or "see: %container ps -a and %container images")


def image_document(info: ImageInfo) -> dict[str, Any]:
    """An image by Docker's field names. ``Host``: it stands on this machine's own system."""
    config = info.config
    created = str(config.get("created") or "")
    return {
        "Id": info.id,
        "RepoTags": list(info.names),
        "RepoDigests": list(info.digests),
        "Comment": str(((config.get("history") or [{}])[-1]).get("comment") or ""),
        "Created": created,
        "Author": config.get("author") or "",
        "Config": config.get("config") or {},
        "Architecture": config.get("architecture") or "",
        "Variant": config.get("variant") or "",
        "Os": config.get("os") or "",
        "Size": info.size,
        "RootFS": {"Type": "layers", "Layers": list(info.layers or (config.get("rootfs") or {}).get("diff_ids") or [])},
        "Manifest": info.manifest,
        "Host": info.host,
    }


def names(context: Context) -> list[str]:
    """Every name that a verb could mean."""
    try:
        images = [name for info in context.engine.images() for name in info.names]
        return [info.name for info in context.engine.containers(True)] + images
    except ContainersError:
        return []


def port(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    info = context.engine.find(args.container)
    lines = [f"{port.container_port}/{port.protocol} -> {port.host_ip}:{port.host_port}" for port in info.ports]
    if args.port is not None:
        number, _, protocol = args.port.partition("/")
        wanted = f"{number}/{protocol or 'tcp'}"
        lines = [line.split(" -> ")[1] for line in lines if line.startswith(f"{wanted} ")]
        if not lines:
            raise NotFound(f"container {info.name} does not publish port {wanted}", f"see: %container port {info.name}")
    return Text("\n".join(lines))


def top(context: Context, args: SimpleNamespace, body: str | None) -> Rows:
    return Rows(*context.engine.top(args.container, args.options))


declare(
    Verb(
        "ps",
        "List containers",
        ps,
        (
            Option(("--all", "-a"), "also those that have ended or never started"),
            Option(("--quiet", "-q"), "ids alone"),
            Option(("--no-trunc",), "full ids and commands"),
        ),
        examples=("ps -a",),
    )
)
declare(
    Verb(
        "inspect",
        "Show everything about containers or images",
        inspect,
        (
            Option(("--oci",), "the container's OCI runtime specification"),
            Option(("--type",), "only a container, or only an image, of this name", "TYPE", default="", completes="container|image"),
        ),
        (Argument("name", "container or image", "+", completes="container"),),
        examples=("inspect --oci web",),
    )
)
declare(
    Verb(
        "port",
        "List the published ports of a container",
        port,
        (),
        (
            Argument("container", "name or id", completes="container"),
            Argument("port", "only this port: PORT[/PROTO]", "?"),
        ),
    )
)
declare(
    Verb(
        "top",
        "List the processes of a container",
        top,
        (),
        (
            Argument("container", "name or id", completes="running"),
            Argument("options", "options of ps(1), instead of -ef", "rest"),
        ),
        details="The processes are shown as this machine sees them: with its own pids and users.",
        examples=("top web", "top web -o pid,comm"),
    )
)
