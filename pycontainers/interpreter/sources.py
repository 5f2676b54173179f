"""The text that functions and classes were made of, also where that is a cell of a notebook."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import textwrap
import types

CELL_FILE = re.compile(r"ipykernel_\d+/\d+\.py$|^<ipython-input")
"""What ipykernel and IPython call the text of a cell."""


def of_function(function: types.FunctionType) -> tuple[str, int]:
    """(text from its first line on, the number of that line); ("", 0) for a lambda, and where there is none."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        return "", 0
    text = textwrap.dedent("".join(lines))
    return (text, first) if text.lstrip().startswith(("def ", "@")) else ("", 0)


def of_class(kind: type) -> tuple[str, int, str, bool]:
    """(text with its decorators, number of its first line, file, whether annotations are left as text there) of a class at the top of a
    module or a cell; an empty text where there is none.
    """
    if "." in kind.__qualname__:
        return "", 0, "", False
    names = [name for name in reversed(linecache.cache) if CELL_FILE.search(name)] if kind.__module__ == "__main__" else []
    try:
        names.append(inspect.getsourcefile(kind) or "")
    except (TypeError, OSError):
        pass  # the module of a notebook has no file
    for name in filter(None, names):
        lines = linecache.getlines(name)
        try:
            body = ast.parse("".join(lines)).body
        except SyntaxError:  # a cell with magics, or one that never ran
            continue
        for part in reversed(body):
            if isinstance(part, ast.ClassDef) and part.name == kind.__name__:
                first = min([part.lineno, *[decorator.lineno for decorator in part.decorator_list]])
                return "".join(lines[first - 1 : part.end_lineno]), first, name, any(map(_postpones, body))
    return "", 0, "", False


def _postpones(part: ast.stmt) -> bool:
    """``from __future__ import annotations``"""
    return isinstance(part, ast.ImportFrom) and part.module == "__future__" and any(name.name == "annotations" for name in part.names)
