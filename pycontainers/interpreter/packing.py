"""Values of the notebook on their way into a container: plain where that can say them, functions by what they are made of, else by pickle.

Nothing that goes in can harm the notebook, whatever form it has.
"""

from __future__ import annotations
import __future__

import dis
import functools
import importlib.util
import io
import marshal
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import sources
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
        self._classes: list[dict[str, Any]] = []
        self._spaces: list[dict[str, Any]] = []
        self._known: dict[int, int] = {}
        self._rooms: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is an object's own as long as the object lives
        self.files: set[str] = set()
        """The files that functions of this parcel come from: tracebacks may show their lines."""

    @property
    def fields(self) -> dict[str, Any]:
        return {"functions": self._functions, "classes": self._classes, "spaces": self._spaces}

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
        if isinstance(value, type) and not comes_along(value.__module__):
            return ["class", self._class(value)]
        with_it: dict[int, Any] = {}
        file = io.BytesIO()
        try:
            _Pickler(file, with_it).dump(value)
        except Exception as error:  # pickling runs the value's own code
            raise Unfit(f"{said(value)}: {error}") from None
        needed = [[item.__module__, item.__qualname__, self._definition(item)] for item in with_it.values()]
        return ["pickle", self._packer.buffer(file.getbuffer()), needed]

    def _definition(self, item: Any) -> Tree:
        if "." in item.__qualname__:
            raise Unfit(f"{item.__qualname__} is defined within something else, where nobody can look for it")
        return ["class", self._class(item)] if isinstance(item, type) else ["function", self._function(item)]

    def _class(self, kind: type) -> int:
        """A class that is defined here, by its text: what it was made of otherwise cannot travel."""
        if id(kind) in self._known:
            return self._known[id(kind)]
        text, line, file, postponed = sources.of_class(kind)
        if not text:
            where = "this notebook" if kind.__module__ == "__main__" else f"module {kind.__module__}"
            raise Unfit(f"class {kind.__qualname__} is defined in {where}, and its text cannot be found")
        index = self._known[id(kind)] = len(self._classes)
        told: dict[str, Any] = {
            "name": kind.__name__,
            "source": text,
            "line": line,
            "file": file,
            "module": kind.__module__,
            "postponed": postponed,
        }
        self._classes.append(told)
        self._kept.append(kind)
        self.files.add(file)
        namespace = vars(sys.modules[kind.__module__])
        code = compile(text, file, "exec", __future__.annotations.compiler_flag if postponed else 0, dont_inherit=True)
        told["bases"] = [["class", self._class(base)] for base in kind.__bases__ if not comes_along(base.__module__)]
        told["space"] = self._space(namespace, code)
        return index

    def _function(self, function: types.FunctionType) -> int:
        if id(function) in self._known:
            return self._known[id(function)]
        index = self._known[id(function)] = len(self._functions)
        told: dict[str, Any] = {}
        self._functions.append(told)
        self._kept.append(function)
        code = function.__code__
        self.files.add(code.co_filename)
        source, line = sources.of_function(function)
        told.update(
            name=function.__name__,
            qualname=function.__qualname__,
            module=function.__module__ or "__main__",
            magic=importlib.util.MAGIC_NUMBER.hex(),
            code=self._packer.buffer(marshal.dumps(code)),
            source=source,
            line=line,
            file=code.co_filename,
            space=self._space(function.__globals__, code),
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

    def _space(self, namespace: dict[str, Any], code: types.CodeType) -> int:
        """The global names of a module, as far as any function or class here uses them."""
        index = self._rooms.get(id(namespace))
        if index is None:
            index = self._rooms[id(namespace)] = len(self._spaces)
            self._spaces.append({"name": str(namespace.get("__name__", "__main__")), "values": []})
            self._kept.append(namespace)
        values = self._spaces[index]["values"]
        there = {name for name, _ in values}
        for name, attributes in _names(code):
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


class _Pickler(pickle.Pickler):
    """``with_it`` gets the classes and functions that pickle names and the other side does not have."""

    def __init__(self, file: io.BytesIO, with_it: dict[int, Any]) -> None:
        super().__init__(file, protocol=5)  # what Python 3.8 reads
        self._with_it = with_it

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, type | types.FunctionType) and not comes_along(item.__module__):
            self._with_it[id(item)] = item
        return NotImplemented


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
