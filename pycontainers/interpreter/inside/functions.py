"""What the notebook sends beside plain values, made again inside: its functions, modules by name, and what only pickle can say."""

from __future__ import annotations
import __future__

import ast
import functools
import importlib
import importlib.util
import marshal
import pickle
import sys
import types
from typing import Any

from .values import Tree, Unpacker

_POSTPONED = __future__.annotations.compiler_flag
"""What annotations name need not be here."""


class Received:
    """The values of one message from the notebook.

    :param fields: ``functions`` and ``classes`` are definitions, ``spaces`` the global names that they share.
    """

    def __init__(self, fields: dict[str, Any], buffers: list[Any]) -> None:
        self._definitions = fields.get("functions") or []
        self._class_definitions = fields.get("classes") or []
        self._spaces = fields.get("spaces") or []
        self._classes: dict[int, Any] = {}
        self._making: set[int] = set()
        self._globals: dict[int, dict[str, Any]] = {}
        self._made: dict[int, Any] = {}
        self._unpacker = Unpacker(buffers, self._read)

    def value(self, tree: Tree) -> Any:
        return self._unpacker.value(tree)

    def _read(self, kind: str, tree: Tree, unpacker: Unpacker) -> Any:
        if kind == "pickle":
            for module, name, definition in tree[2]:  # what it names, and no module here has
                setattr(_module(module), name, self.value(definition))
            return pickle.loads(unpacker.buffer(tree[1]))
        if kind == "class":
            return self._class(tree[1])
        if kind == "module":
            for name in tree[2]:  # parts of a package that the notebook has imported, and its functions take for there
                importlib.import_module(name)
            return importlib.import_module(tree[1])
        if kind == "partial":
            function, arguments, keywords = (self.value(part) for part in tree[1:])
            return functools.partial(function, *arguments, **keywords)
        if kind == "function":
            return self._function(tree[1])
        raise ValueError(f"{kind!r} is no kind of value")

    def _function(self, index: int) -> Any:
        if index in self._made:
            return self._made[index]
        told = self._definitions[index]
        space = self._space(told["space"])
        if told["magic"] == importlib.util.MAGIC_NUMBER.hex():
            code = marshal.loads(self._unpacker.buffer(told["code"]))
            cells = tuple(types.CellType() for _ in told["closure"])
            made: Any = types.FunctionType(code, space, told["name"], None, cells)
        else:
            made, cells = _from_source(told, space), ()
        self._made[index] = made  # before what it refers to: that may be itself
        made.__qualname__, made.__module__ = told["qualname"], told["module"]
        made.__defaults__ = self.value(told["defaults"])
        made.__kwdefaults__ = self.value(told["kwdefaults"])
        for cell, tree in zip(cells, told["closure"]):
            if tree != ["empty"]:
                cell.cell_contents = self.value(tree)
        return made

    def _space(self, index: int) -> dict[str, Any]:
        if index in self._globals:
            return self._globals[index]
        told = self._spaces[index]
        # As in the notebook, all that is defined in one module shares its names; what asks for a class's module finds it.
        space = self._globals[index] = vars(_module(told["name"]))
        # Classes come last: what stands in them may use any of the others while they are made.
        for name, tree in sorted(told["values"], key=_is_class):
            if not (_is_class([name, tree]) and tree[1] in self._making):
                space[name] = self.value(tree)
        return space

    def _class(self, index: int) -> Any:
        if index in self._classes:
            return self._classes[index]
        told = self._class_definitions[index]
        self._making.add(index)
        bases = [self.value(base) for base in told["bases"]]
        space = self._space(told["space"])
        if index not in self._classes:  # what it uses may have needed it first
            space.update((base.__name__, base) for base in bases)
            tree = ast.parse(told["source"])
            ast.increment_lineno(tree, told["line"] - 1)
            exec(compile(tree, told["file"], "exec", _POSTPONED if told["postponed"] else 0, dont_inherit=True), space)
            self._classes[index] = space[told["name"]]
        self._making.discard(index)
        return self._classes[index]


def _module(name: str) -> types.ModuleType:
    """A module that is here, or an empty one of this name, in packages that are as empty."""
    parent = name.rpartition(".")[0]
    if parent:
        _module(parent)
    return sys.modules.setdefault(name, types.ModuleType(name))


def _is_class(pair: Any) -> bool:
    return isinstance(pair[1], list) and pair[1][:1] == ["class"]


def _from_source(told: dict[str, Any], space: dict[str, Any]) -> Any:
    """Another Python than the notebook's cannot read its bytecode, but the text that it was made of."""
    if not told["source"] or told["closure"]:
        raise ValueError(
            f"function {told['name']!r} cannot come along: this image has another Python than the notebook, "
            "and only a plain def without names of a function around it can be read anew"
        )
    tree = ast.parse(told["source"])
    definition: Any = tree.body[0]
    definition.decorator_list = []
    ast.increment_lineno(tree, told["line"] - 1)
    names: dict[str, Any] = {}
    exec(compile(tree, told["file"], "exec", _POSTPONED, dont_inherit=True), space, names)
    return names[definition.name]
