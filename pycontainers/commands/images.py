"""``images``, ``history``, ``tag``, ``rmi``, ``bootstrap``, ``explore``."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from types import SimpleNamespace

from ..errors import NotFound, UsageError, near
from ..explored import Explored
from ..objects import Image, ImageList
from ..protocol import BootstrapRequest, ImageInfo
from ..results import ImageSteps, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .lifecycle import each

_FILTERS = ("dangling", "reference", "label", "before", "since")


def images(context: Context, args: SimpleNamespace, body: str | None) -> ImageList | Text:
    infos = context.engine.images()
    tests = [_filter(context, text) for text in args.filter]
    if args.repository is not None:
        tests.append(_named(args.repository))
    infos = [info for info in infos if all(test(info) for test in tests)]
    if args.quiet:
        return Text("\n".join(dict.fromkeys(info.id if args.no_trunc else info.short_id for info in infos)))
    found = ImageList(Image(context.engine, info) for info in infos)
    found.digests, found.full = args.digests, args.no_trunc
    return found


def _filter(context: Context, text: str) -> Callable[[ImageInfo], bool]:
    """``dangling=true``, ``reference=deb*``, ``label=KEY[=VALUE]``, ``before=IMAGE``, ``since=IMAGE`` (Docker's)."""
    name, equals, value = text.partition("=")
    if name not in _FILTERS or not equals:
        raise UsageError(f"--filter {text!r} is unknown", near(name, _FILTERS) or f"one of {', '.join(f'{one}=…' for one in _FILTERS)}")
    if name == "reference":
        return _named(value)
    if name == "label":
        key, has_value, wanted = value.partition("=")
        return lambda info: (
            key in (labels := (info.config.get("config") or {}).get("Labels") or {}) and (not has_value or labels[key] == wanted)
        )
    if name == "dangling":
        if value not in ("true", "false", "1", "0"):
            raise UsageError(f"--filter dangling={value!r} is neither true nor false", "")
        return lambda info: (not info.names) == (value in ("true", "1"))
    moment = context.engine.image(value).created
    return (lambda info: info.created < moment) if name == "before" else (lambda info: info.created > moment)


def _named(pattern: str) -> Callable[[ImageInfo], bool]:
    """By a name, or a pattern of the shell, with or without its tag."""

    def test(info: ImageInfo) -> bool:
        for name in info.names:
            repository, _, tag = name.rpartition(":")
            if "/" in tag or not repository:
                repository = name
            if any(fnmatch.fnmatchcase(one, pattern) for one in (name, repository)):
                return True
        return False

    return test


def history(context: Context, args: SimpleNamespace, body: str | None) -> ImageSteps | Text:
    found = ImageSteps(context.engine.image_history(args.image))
    if args.quiet:
        return Text("\n".join(step.diff_id or "<none>" for step in reversed(found)))
    found.full = args.no_trunc
    return found


def tag(context: Context, args: SimpleNamespace, body: str | None) -> Image:
    context.engine.tag(args.image, args.name)
    return Image(context.engine, context.engine.image(args.name))


def remove(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    lines = each(args.image, lambda name: "\n".join(context.engine.remove_image(name, args.force)))
    return Text("\n".join(filter(None, lines)))


def bootstrap(context: Context, args: SimpleNamespace, body: str | None) -> Image:
    include = tuple(package.strip() for text in args.include for package in text.split(",") if package.strip())
    request = BootstrapRequest(args.system, args.tag or "", args.variant, include, args.mirror or "", args.arch or "")
    form = "quiet" if args.quiet else "auto"
    return Image(context.engine, context.frontend.progress(context.engine.bootstrap(request), form, "bootstrapped"))


def explore(context: Context, args: SimpleNamespace, body: str | None) -> Explored:
    contents = context.engine.explore(args.image)
    layer = _number(args.layer, "--layer") if args.layer is not None else None
    if layer is not None and not 1 <= layer <= len(contents.layers):
        raise NotFound(f"image {args.image!r} has no layer {layer}", f"it has {len(contents.layers)}, counted from 1, the lowest")
    return Explored(contents, layer, _number(args.depth, "--depth"), _number(args.top, "--top"))


def _number(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise UsageError(f"{option} {text!r} is not a number", "1 or more")
    return int(text)


_IMAGE = Argument("image", "name or id", completes="image")
_QUIET = Option(("--quiet", "-q"), "ids alone")
_FULL = Option(("--no-trunc",), "full ids and commands")


def _declare(verbs: Sequence[Verb]) -> None:
    for verb in verbs:
        declare(verb)


_declare(
    [
        Verb(
            "images",
            "List images",
            images,
            (
                _QUIET,
                Option(("--all", "-a"), "as Docker: here it changes nothing, steps of a build are no images"),
                Option(("--digests",), "with the digests that registries know them by"),
                Option(
                    ("--filter", "-f"),
                    "dangling=true|false, reference=PATTERN, label=KEY[=VALUE], before=IMAGE, since=IMAGE",
                    "FILTER",
                    many=True,
                ),
                _FULL,
            ),
            (Argument("repository", "only those of this name: NAME[:TAG], or a pattern", "?"),),
            group="Images",
            examples=("images 'deb*'", "images -q -f dangling=true"),
        ),
        Verb("history", "Show the steps that made an image", history, (_QUIET, _FULL), (_IMAGE,), group="Images"),
        Verb("tag", "Give an image one more name", tag, (), (_IMAGE, Argument("name", "the new name: NAME[:TAG]")), group="Images"),
        Verb(
            "rmi",
            "Remove images",
            remove,
            (Option(("--force", "-f"), "also where containers that have ended use it"),),
            (Argument("image", "name or id", "+", completes="image"),),
            group="Images",
        ),
        Verb(
            "bootstrap",
            "Make an image of a Debian or Ubuntu system from its packages, without a registry",
            bootstrap,
            (
                Option(("--tag", "-t"), "name of the image (default: the system's own, debian:bookworm)", "NAME"),
                Option(
                    ("--variant",),
                    "how much is in it: apt, minbase (default), buildd, important, standard; see mmdebstrap(1)",
                    "VARIANT",
                    default="minbase",
                    completes="minbase|apt|essential|required|buildd|important|debootstrap|standard",
                ),
                Option(("--include",), "packages beside that: NAME[,NAME]", "PACKAGES", many=True),
                Option(("--mirror",), "fetch from here; the image's own apt will, too", "URL"),
                Option(("--arch",), "another architecture than this machine's (needs qemu-user-static)", "ARCH"),
                Option(("--quiet", "-q"), "say nothing meanwhile"),
            ),
            (Argument("system", "debian:SUITE or ubuntu:SUITE, by name or number: debian:bookworm, debian:12, ubuntu:24.04"),),
            group="Images",
            details="By mmdebstrap, or by debootstrap where only that is installed. Packages come from where this machine's own apt gets\n"
            "them, if that has the release, and are verified by the distribution's keyring. The same packages give the same image.",
            examples=("bootstrap debian:bookworm -t debian", "bootstrap ubuntu:24.04 --include ca-certificates,curl"),
        ),
        Verb(
            "explore",
            "Show what each layer of an image adds, changes and removes, and what is wasted",
            explore,
            (
                Option(("--layer", "-l"), "list the files of this layer, counted from 1", "NUMBER"),
                Option(("--depth", "-d"), "how deep that list goes", "NUMBER", default="3"),
                Option(("--top",), "how many of the biggest and the wasted files", "NUMBER", default="10"),
            ),
            (_IMAGE,),
            group="Images",
            details="Wasted is what every copy of the image carries and no container sees: files that a later layer removes or rewrites.",
            examples=("explore visits", "explore --layer 3 visits"),
        ),
    ]
)
