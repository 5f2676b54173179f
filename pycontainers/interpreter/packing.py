"""Values of the notebook on their way into a container: plain where that can say them, functions by what they are made of, else by pickle.

Nothing that goes in can harm the notebook, whatever form it has.
"""

from __future__ import annotations

import dis
import functools
import importlib.util
import inspect
import marshal
import pickle
import pickletools
import site
import sys
import sysconfig
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .inside.values import Packer, Tree, Unfit, said

_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")


class Parcel:
    """The values of one message: :meth:`tree` for each, then ``fields`` and ``buffers`` for the message.

    :param arrow: the container's Python has pyarrow. :param pickled: pickle what is no function, even where the plain form has a place.
    """

    def __init__(self, arrow: bool = True, pickled: bool = False) -> None:
        self._packer = Packer(arrow, self._other)
        self._pickled = pickled
        self._functions: list[dict[str, Any]] = []
        self._spaces: list[dict[str, Any]] = []
        self._known: dict[int, int] = {}
        self._rooms: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is an object's own as long as the object lives
        self.files: set[str] = set()
        """The files that functions of this parcel come from: tracebacks may show their lines."""

    @property
    def fields(self) -> dict[str, Any]:
        return {"functions": self._functions, "spaces": self._spaces}

    @property
    def buffers(self) -> list[Any]:
        return self._packer.buffers

    def tree(self, value: Any, name: str) -> Tree:
        """:param name: what the value is called, for errors. :raises UsageError: it cannot go."""
        try:
            if self._pickled and not isinstance(value, types.FunctionType | types.ModuleType):
                return self._pickle(value)
            return self._packer.tree(value)
        except Unfit as error:
            hint = "put it into a module that the container has, or send what it is made of"
            raise UsageError(f"{name} cannot be sent into a container: {error}", hint) from None

    def _other(self, value: Any, packer: Packer) -> Tree:
        value = getattr(value, "__contained__", value)  # a function that runs in a container where it is called from here
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__, []]
        if isinstance(value, types.FunctionType) and not _found_by_name(value):
            return ["function", self._function(value)]
        if type(value) is functools.partial:
            return ["partial", *[packer.part(part) for part in (value.func, value.args, value.keywords)]]
        return self._pickle(value)

    def _pickle(self, value: Any) -> Tree:
        kind = value if isinstance(value, type) else type(value)
        if not comes_along(kind.__module__):
            raise Unfit(f"class {kind.__qualname__} is defined in {_where(kind.__module__)}, which is not inside")
        try:
            data = pickle.dumps(value, protocol=5)  # what Python 3.8 reads
        except Exception as error:  # pickling runs the value's own code
            raise Unfit(f"{said(value)}: {error}") from None
        if b"__main__" in data and any(argument == "__main__" for _, argument, _ in pickletools.genops(data)):
            raise Unfit(f"{said(value)} holds something that is defined in this notebook, which is not inside")
        return ["pickle", self._packer.buffer(data)]

    def _function(self, function: types.FunctionType) -> int:
        if id(function) in self._known:
            return self._known[id(function)]
        index = self._known[id(function)] = len(self._functions)
        told: dict[str, Any] = {}
        self._functions.append(told)
        self._kept.append(function)
        code = function.__code__
        self.files.add(code.co_filename)
        source, line = _source(function)
        told.update(
            name=function.__name__,
            qualname=function.__qualname__,
            module=function.__module__ or "__main__",
            magic=importlib.util.MAGIC_NUMBER.hex(),
            code=self._packer.buffer(marshal.dumps(code)),
            source=source,
            line=line,
            file=code.co_filename,
            space=self._space(function),
            closure=[self._cell(cell, code.co_freevars[place]) for place, cell in enumerate(function.__closure__ or ())],
            defaults=self._packer.part(function.__defaults__),
            kwdefaults=self._packer.part(function.__kwdefaults__),
        )
        return index

    def _cell(self, cell: Any, name: str) -> Tree:
        try:
            value = cell.cell_contents
        except ValueError:
            return ["empty"]
        return self._named(name, value)

    def _named(self, name: str, value: Any) -> Tree:
        try:
            return self._packer.part(value)
        except Unfit as error:
            raise Unfit(f"it uses {name}, and {error}") from None

    def _space(self, function: types.FunctionType) -> int:
        """The global names of a function's module, as far as any function here uses them."""
        namespace = function.__globals__
        index = self._rooms.get(id(namespace))
        if index is None:
            index = self._rooms[id(namespace)] = len(self._spaces)
            self._spaces.append({"name": str(namespace.get("__name__", "__main__")), "values": []})
            self._kept.append(namespace)
        values = self._spaces[index]["values"]
        there = {name for name, _ in values}
        for name, attributes in _names(function.__code__):
            if name in there or name not in namespace:
                continue
            there.add(name)
            value, pair = namespace[name], [name, None]
            values.append(pair)
            pair[1] = self._module(value, attributes) if isinstance(value, types.ModuleType) else self._named(name, value)
        return index

    @staticmethod
    def _module(module: types.ModuleType, attributes: set[str]) -> Tree:
        parts = [name for name in sys.modules if name.startswith(module.__name__ + ".") and set(name.split(".")[1:]) <= attributes]
        return ["module", module.__name__, sorted(parts)]


def _names(code: types.CodeType) -> Iterator[tuple[str, set[str]]]:
    """The global names that a function uses, those of functions within it too, each with the attributes that are asked for anywhere."""
    attributes = set(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)
    for name in dict.fromkeys(step.argval for step in dis.get_instructions(code) if step.opname in _GLOBALS):
        yield name, attributes


def _found_by_name(function: types.FunctionType) -> bool:
    """Whether the container's Python can import it: a function of a module that comes along."""
    if not function.__module__ or "<" in function.__qualname__ or not comes_along(function.__module__):
        return False
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is function


def _source(function: types.FunctionType) -> tuple[str, int]:
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return "", 0
    text = textwrap.dedent("".join(lines))
    return (text, first) if text.lstrip().startswith(("def ", "@")) else ("", 0)


def comes_along(module: str) -> bool:
    """Whether a module is the interpreter's own or an installed package, and so inside; a file beside the notebook is not."""
    if module == "__main__":
        return False
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None:
        return False
    if spec.origin in ("built-in", "frozen"):
        return True
    paths = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(Path(path).is_relative_to(folder) for path in paths for folder in _installed())


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [
        paths["stdlib"],
        paths["platstdlib"],
        paths["purelib"],
        paths["platlib"],
        site.getusersitepackages(),
        *site.getsitepackages(),
    ]
    return tuple(dict.fromkeys(folders))


def _where(module: str) -> str:
    return "this notebook" if module == "__main__" else f"module {module}"
