"""Images in and out: ``pull``, ``push``, ``tags``, ``login``, ``logout``; ``save``, ``load``, ``import``."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import BinaryIO

from ..errors import UsageError
from ..metrics.series import format_bytes
from ..objects import Image, ImageList
from ..results import Text
from .declare import Argument, Option, Verb, declare
from .files import standard
from .frontend import Context

_FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_COMPRESSIONS = ("gzip", "zstd")


def _form(args: SimpleNamespace) -> str:
    return "quiet" if args.quiet else "auto"


def pull(context: Context, args: SimpleNamespace, body: str | None) -> Image | ImageList | Text:
    work = context.engine.pull(args.name, args.platform or "", args.all_tags)
    found = context.frontend.progress(work, _form(args), "pulled")
    if args.quiet:
        return Text("\n".join((info.names or (info.id,))[0] for info in found))
    images = ImageList(Image(context.engine, info) for info in found)
    return images if args.all_tags else images[0]


def push(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    work = context.engine.push(args.name, args.all_tags, _compression(args), args.include_host)
    return Text("\n".join(context.frontend.progress(work, _form(args), "pushed")))


def _compression(args: SimpleNamespace) -> str:
    if args.compression and args.compression not in _COMPRESSIONS:
        raise UsageError(f"--compression {args.compression!r} is unknown", " or ".join(_COMPRESSIONS))
    return args.compression or ""


def tags(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    if args.delete:
        return Text(f"Deleted: {context.engine.delete_remote(args.repository)}")
    return Text("\n".join(context.engine.tags(args.repository)))


def login(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    """The password is asked for where none is given; in whatever way it comes, it is never shown."""
    front, said = context.frontend, []
    if args.password is not None and args.password_stdin:
        raise UsageError("--password and --password-stdin contradict each other", "leave one of them out")
    if args.password_stdin and context.stdin is None:
        raise UsageError("--password-stdin reads a program's stdin, which a notebook does not have", "leave it out: the cell asks")
    if args.password_stdin and args.username is None:
        raise UsageError("--password-stdin needs --username", "login -u NAME --password-stdin < FILE")
    if args.password and args.password in context.written:
        said.append("WARNING: the password stands in the command, and so in its history: leave -p out, and it is asked for")
    user = args.username if args.username is not None else front.ask("Username: ").strip()
    if args.password_stdin:
        assert context.stdin is not None
        password = context.stdin().decode("utf-8", "replace").rstrip("\r\n")
    else:
        password = args.password if args.password is not None else front.ask("Password: ", hidden=True)
    return Text("\n".join([*said, context.engine.login(args.registry or "docker.io", user, password)]))


def logout(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    return Text(context.engine.logout(args.registry or "docker.io"))


def save(context: Context, args: SimpleNamespace, body: str | None) -> Text | None:
    if args.format not in _FORMATS:
        raise UsageError(f"--format {args.format!r} is unknown", ", ".join(_FORMATS))
    plain = args.output in (None, "-")
    output: str | BinaryIO = standard(context, "stdout") if plain else os.path.expanduser(args.output)
    work = context.engine.save(args.image, output, args.format, args.include_host, _compression(args))
    size = context.frontend.progress(work, "quiet" if plain else _form(args), "saved")
    return None if plain else Text(f"saved {format_bytes(size)} to {args.output}")


def load(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    source: str | BinaryIO = standard(context, "stdin") if args.input in (None, "-") else os.path.expanduser(args.input)
    found = context.frontend.progress(context.engine.load(source, args.platform or ""), _form(args), "loaded")
    lines = list(dict.fromkeys(f"Loaded image: {name}" for info in found for name in info.names))
    return Text("\n".join([*lines, *(f"Loaded image ID: {info.id}" for info in found if not info.names)]))


def import_image(context: Context, args: SimpleNamespace, body: str | None) -> Image:
    if "://" in args.source:
        raise UsageError(f"import does not fetch {args.source}", "fetch it first: curl -L URL | pycontainers import - NAME")
    source: str | BinaryIO = standard(context, "stdin") if args.source == "-" else os.path.expanduser(args.source)
    work = context.engine.import_image(source, args.name or "", tuple(args.change), args.message, args.platform or "")
    return Image(context.engine, context.frontend.progress(work, _form(args), "imported"))


_PLATFORM = Option(("--platform",), "for this platform: linux/arm64", "PLATFORM")
_QUIET = Option(("--quiet", "-q"), "say nothing meanwhile")
_ALL_TAGS = Option(("--all-tags", "-a"), "every tag of the repository")
_COMPRESSION = Option(("--compression",), "how layers are compressed that are not yet: gzip or zstd", "KIND", completes="gzip|zstd")
_HOST = Option(("--include-host",), "an image on host: with this machine's system as layers of its own")
_NAME = "NAME[:TAG] or NAME@DIGEST, with its registry's host before it: localhost:5000/app:1"
_REGISTRY = Argument("registry", "HOST[:PORT] (default: docker.io)", "?")

declare(
    Verb(
        "pull",
        "Get an image from a registry",
        pull,
        (_ALL_TAGS, _PLATFORM, _QUIET),
        (Argument("name", _NAME, completes="image"),),
        group="Images",
        details="Layers that are here already are not fetched again. A download that breaks off is gone on with.",
        examples=("pull debian:bookworm", "pull --platform linux/arm64 ghcr.io/a/b@sha256:…"),
    )
)
declare(
    Verb(
        "push",
        "Put an image into its registry",
        push,
        (_ALL_TAGS, _COMPRESSION, _HOST, _QUIET),
        (Argument("name", _NAME, completes="image"),),
        group="Images",
        details="Where it goes is its name: tag it first. What the registry has already is not sent. An image on host is this machine's,\n"
        "and is refused unless --include-host makes it whole.",
        examples=("tag visits localhost:5000/visits:1", "push localhost:5000/visits:1"),
    )
)
declare(
    Verb(
        "tags",
        "List the tags that a registry has of a repository, or delete one there",
        tags,
        (Option(("--delete", "-d"), "delete this image in the registry: NAME:TAG or NAME@DIGEST"),),
        (Argument("repository", "the repository: localhost:5000/app"),),
        group="Images",
        details="A registry that cannot delete a tag alone says so: by its digest it deletes the manifest, with every tag that names it.\n"
        "Many have deleting switched off. Images here stay: see rmi.",
        examples=("tags localhost:5000/visits", "tags --delete localhost:5000/visits@sha256:…"),
    )
)
declare(
    Verb(
        "login",
        "Log in to a registry, for pull and push",
        login,
        (
            Option(("--username", "-u"), "user; asked for if not given", "NAME"),
            Option(("--password", "-p"), "password or token; better left out: it is asked for, and shown nowhere", "PASSWORD"),
            Option(("--password-stdin",), "read the password from stdin"),
        ),
        (_REGISTRY,),
        group="Images",
        details="Kept where Docker keeps it (~/.docker/config.json), by its credential helper if one is set there.",
        examples=("login ghcr.io -u ann",),
    )
)
declare(Verb("logout", "Forget the credentials of a registry", logout, (), (_REGISTRY,), group="Images"))
declare(
    Verb(
        "save",
        "Write images to a file that others can load",
        save,
        (
            Option(("--output", "-o"), "file to write, or folder; - or nothing is stdout", "FILE", host_path="whole", completes="file"),
            Option(
                ("--format",),
                "docker-archive (default), oci-archive or oci-dir (a folder)",
                "FORMAT",
                default="docker-archive",
                completes="|".join(_FORMATS),
            ),
            _COMPRESSION,
            _HOST,
            _QUIET,
        ),
        (Argument("image", "name or id", "+", completes="image"),),
        group="Images",
        examples=("save -o visits.tar visits", "save --format oci-archive --compression zstd -o both.tar web db"),
    )
)
declare(
    Verb(
        "load",
        "Read images that save, docker or skopeo wrote",
        load,
        (
            Option(("--input", "-i"), "file or folder to read; - or nothing is stdin", "FILE", host_path="whole", completes="file"),
            _PLATFORM,
            _QUIET,
        ),
        group="Images",
        details="docker-archive, oci-archive (also compressed as a whole) and OCI layout folders are told by what is in them.",
        examples=("load -i visits.tar",),
    )
)
declare(
    Verb(
        "import",
        "Make an image of a root file system",
        import_image,
        (
            Option(("--change", "-c"), "Dockerfile instruction to apply: CMD, ENV, …", "INSTRUCTION", many=True),
            Option(("--message", "-m"), "why it was made", "TEXT", default=""),
            _PLATFORM,
            _QUIET,
        ),
        (
            Argument("source", "a tar (plain, gzip, zstd, …), a folder, or - for a tar on stdin", completes="file", host_path="whole"),
            Argument("name", "name of the image: NAME[:TAG]", "?"),
        ),
        group="Images",
        examples=("import -c 'CMD [\"sh\"]' rootfs.tar.zst mine:1",),
    )
)
