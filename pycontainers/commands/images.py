"""``images``, ``history``, ``tag``, ``rmi``."""

from __future__ import annotations

from types import SimpleNamespace

from ..objects import Image, ImageList
from ..results import ImageSteps, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .lifecycle import each


def images(context: Context, args: SimpleNamespace, body: str | None) -> ImageList | Text:
    infos = context.engine.images()
    if args.quiet:
        return Text("\n".join(info.short_id for info in infos))
    return ImageList(Image(context.engine, info) for info in infos)


def history(context: Context, args: SimpleNamespace, body: str | None) -> ImageSteps:
    return ImageSteps(context.engine.image_history(args.image))


def tag(context: Context, args: SimpleNamespace, body: str | None) -> Image:
    context.engine.tag(args.image, args.name)
    return Image(context.engine, context.engine.image(args.name))


def remove(context: Context, args: SimpleNamespace, body: str | None) -> Text:
    lines = each(args.image, lambda name: "\n".join(context.engine.remove_image(name, args.force)))
    return Text("\n".join(filter(None, lines)))


_IMAGE = Argument("image", "name or id", completes="image")

declare(Verb("images", "List images", images, (Option(("--quiet", "-q"), "ids alone"),), group="Images"))
declare(Verb("history", "Show the steps that made an image", history, (), (_IMAGE,), group="Images"))
declare(Verb("tag", "Give an image one more name", tag, (), (_IMAGE, Argument("name", "the new name: NAME[:TAG]")), group="Images"))
declare(
    Verb(
        "rmi",
        "Remove images",
        remove,
        (Option(("--force", "-f"), "also where containers that have ended use it"),),
        (Argument("image", "name or id", "+", completes="image"),),
        group="Images",
    )
)
