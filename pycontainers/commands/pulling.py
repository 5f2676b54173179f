"""``--pull``: an image that is not here is fetched before it is run, as with Docker. Shared by the verbs and by ``pc.run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import ContainersError, NotFound, RegistryError, UsageError
from ..events import Note, Work
from ..images import reference
from ..protocol import Engine, ImageInfo

T = TypeVar("T")
POLICIES = ("missing", "always", "never")


def with_image(
    engine: Engine,
    name: str,
    policy: str | None,
    platform: str | None,
    follow: Callable[[Work[list[ImageInfo]]], object],
    call: Callable[[], T],
) -> T:
    """``call()``, which needs the image ``name``; that is pulled as the policy says. ``follow`` runs the pull, and shows it.

    Where the image is here, nothing is looked up beside what ``call`` does itself.

    :raises NotFound: no image here, and none in its registry, or the registry cannot be asked.
    """
    policy = policy or "missing"
    if policy not in POLICIES:
        raise UsageError(f"--pull {policy!r} is unknown", ", ".join(POLICIES))
    if policy == "always" or (policy == "missing" and platform and not _fits(engine, name, platform)):
        if not _in_a_registry(name):
            return call()
        follow(engine.pull(name, platform or ""))
        return call()
    try:
        return call()
    except NotFound as error:
        if policy == "never" or not _missing(engine, name) or not _in_a_registry(name):
            raise
        original, near = error, error.hint if error.hint.startswith("did you mean") else ""
    try:
        follow(_told(engine, name, platform or "", near))
    except (NotFound, RegistryError) as error:
        raise NotFound(f"{original.message} here, and it cannot be pulled: {error.message}", near or error.hint) from None
    return call()


def _told(engine: Engine, name: str, platform: str, near: str) -> Work[list[ImageInfo]]:
    """Says at once what is done, and what may have been meant: a registry that cannot be reached takes its time."""
    yield Note(f"image {name} is not here{f' ({near})' if near else ''}: it is pulled")
    return (yield from engine.pull(name, platform))


def _missing(engine: Engine, name: str) -> bool:
    """Whether it is the image that was not found, and not something else that was asked for."""
    try:
        engine.image(name)
    except NotFound:
        return True
    except ContainersError:
        pass
    return False


def _in_a_registry(name: str) -> bool:
    try:
        return not reference.reserved(reference.parse(name))
    except UsageError:
        return False


def _fits(engine: Engine, name: str, platform: str) -> bool:
    """Whether the image that is here is for this platform. True where there is none: that is found out later."""
    try:
        config = engine.image(name).config
    except ContainersError:
        return True
    mine = "/".join(filter(None, (config.get("os"), config.get("architecture"), config.get("variant"))))
    return mine.startswith(platform) or platform.startswith(mine)
