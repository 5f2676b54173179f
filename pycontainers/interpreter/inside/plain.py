"""Values as trees and buffers, and back: what knows how stands in ``WRITERS``, ``FOREIGN`` and ``READERS``, which ``values`` fills."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Tree = Any
WRITERS: dict[type, Callable[[Packer, Any], Tree]] = {}
FOREIGN: dict[Any, Callable[[Packer, Any], Tree]] = {}
"""By (top module, name) of the type: none of these modules is imported before a value of theirs is met."""
READERS: dict[Any, Callable[..., Any]] = {}


class Unfit(TypeError):
    """The plain form has no place for a value; the text is what it is."""


class Packer:
    """Values into trees. ``buffers`` fills as :meth:`tree` is called.

    :param arrow: the other side has pyarrow.
    :param other: ``(value, packer) -> tree`` for what the plain form has no place for; raises Unfit.
    """

    def __init__(self, arrow: bool = True, other: Callable[[Any, Packer], Tree] | None = None) -> None:
        self.buffers: list[Any] = []
        self.arrow = arrow and _has("pyarrow")
        self._other = other

    def tree(self, value: Any) -> Tree:
        """:raises Unfit: no place for it, or for what is in it. It may also contain itself."""
        known = len(self.buffers)
        try:
            return self.part(value)
        except RecursionError:
            del self.buffers[known:]
            raise Unfit("it contains itself, or is nested too deeply") from None
        except BaseException:
            del self.buffers[known:]
            raise

    def buffer(self, data: Any) -> int:
        self.buffers.append(data)
        return len(self.buffers) - 1

    def part(self, value: Any) -> Tree:
        kind = type(value)
        writer = WRITERS.get(kind)
        if writer is None:
            writer = FOREIGN.get((kind.__module__.partition(".")[0], kind.__name__))
        found = writer(self, value) if writer is not None else NotImplemented
        if found is not NotImplemented:
            return found
        if self._other is not None:
            return self._other(value, self)
        raise Unfit(said(value))


def said(value: Any) -> str:
    """What a value is: ``an object``, ``a sklearn.linear_model.LinearRegression``."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _has(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    from importlib.util import find_spec

    return find_spec(name) is not None


class Unpacker:
    """Trees into values. :meth:`value` raises anything for what makes no sense; who does not trust the sender expects that.

    :param read: ``(kind, tree, unpacker) -> value`` for kinds that are not part of the plain form; None refuses them.
    :param limit: of an untrusted sender, the bytes that tables may have in memory, where that is more than a few times what came.
    """

    def __init__(self, buffers: list[Any], read: Callable[[str, Tree, Unpacker], Any] | None = None, limit: int | None = None) -> None:
        self.buffers, self.limit, self.tables = buffers, limit, 0
        self._read = read
        self._used: set[int] = set()

    def value(self, tree: Tree) -> Any:
        if tree is None or isinstance(tree, (bool, int, float, str)):
            return tree
        kind = tree[0]
        reader = READERS.get(kind)
        if reader is not None:
            return reader(self, *tree[1:])
        if self._read is None:
            raise ValueError(f"{str(kind)[:40]!r} is no kind of plain value")
        return self._read(kind, tree, self)

    def buffer(self, index: int) -> Any:
        if type(index) is not int or index < 0:
            raise ValueError("a buffer that is not there")
        if self.limit is not None and index in self._used:
            raise ValueError("a buffer that stands for two values")  # or for a million: each would be a copy
        self._used.add(index)
        return self.buffers[index]
