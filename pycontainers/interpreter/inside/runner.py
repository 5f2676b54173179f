"""The process inside: it connects to the notebook, does what that asks, and says how it went.

What goes through the connection is ours; stdout and stderr are the cell's own. A form to show is sent and then marked in stdout, so that
the notebook shows it between what was printed before and after it.
"""

from __future__ import annotations

import ast
import faulthandler
import os
import socket
import sys
import threading
import types
from typing import Any

from . import functions, wire
from .failing import failure
from .showing import Display
from .values import Packer, Unfit, said

CELL = "<cell>"


class Runner:
    """One connection. ``markup``: HTML and SVG are to be sent as well."""

    def __init__(self, conn: socket.socket, settings: dict[str, Any]) -> None:
        self._conn = conn
        self._process = os.getpid()
        self._mark = f"\x1b_pyct{settings['mark']}\x1b\\".encode()
        self._arrow, self._pickle = settings["arrow"], settings["pickle"]
        self._lock = threading.Lock()
        self.display = Display(self._show, self._clear, settings["markup"])

    def send(self, fields: dict[str, Any], buffers: Any = ()) -> None:
        with self._lock:
            wire.send(self._conn, wire.message(fields, buffers))

    def _answer(self, fields: dict[str, Any], buffers: Any = ()) -> None:
        if os.getpid() != self._process:  # a fork that has come back to here: the notebook waits for the one that it has asked
            os._exit(fields["op"] != "done")
        self.send(fields, buffers)

    def _show(self, forms: dict[str, Any]) -> None:
        data = [value if isinstance(value, bytes) else str(value).encode("utf-8", "replace") for value in forms.values()]
        size = sum(map(len, data))
        if size > wire.SHOWN:
            print(f"what is shown has {size} bytes, more than the {wire.SHOWN} that are taken: it is left out", file=sys.stderr)
            return
        self._in_place({"op": "display", "kinds": list(forms)}, data)

    def _clear(self, wait: bool) -> None:
        self._in_place({"op": "clear", "wait": wait}, ())

    def _in_place(self, fields: dict[str, Any], buffers: Any) -> None:
        _flush()
        self.send(fields, buffers)
        data = self._mark
        while data:
            data = data[os.write(1, data) :]

    # -- a cell

    def cell(self, fields: dict[str, Any], buffers: list[Any]) -> int:
        """Run the text of a cell in ``__main__``; the exit code."""
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        space = vars(main)
        try:
            received = functions.Received(fields, buffers)
            for name, tree in fields["inputs"]:
                try:
                    space[name] = received.value(tree)
                except Exception as error:
                    raise ValueError(f"{name} could not be read inside: {type(error).__name__}: {error}") from None
            self._run(fields["source"], fields["line"], space)
            self.display.figures()
        except SystemExit as end:
            code = _exit_code(end)
            if code:
                return code
        except BaseException as error:
            _flush()
            self._answer({"op": "raised", "error": failure(error)})
            return 1
        _flush()
        return self._results(fields["outputs"], space)

    def _run(self, source: str, line: int, space: dict[str, Any]) -> None:
        text = "\n" * (line - 1) + source  # lines are counted as in the whole cell
        _remember(text)
        tree = ast.parse(text, CELL)
        last: Any = None
        if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
            last = tree.body.pop()
        codes = [compile(tree, CELL, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True)]
        if last is not None:
            codes.append(compile(ast.Expression(last.value), CELL, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True))
        value: Any = None
        if any(map(_awaits, codes)):
            import asyncio

            # In one loop: the last expression may wait for a task that the lines before it have made.
            value = asyncio.run(_within(codes, space))
        else:
            for code in codes:
                value = eval(code, space)
        if value is not None:
            space["_"] = value
            self.display.display(value)

    def _results(self, names: list[str], space: dict[str, Any]) -> int:
        packer = Packer(self._arrow, self._other)
        trees = []
        for name in names:
            if name not in space:
                known = sorted(key for key in space if not key.startswith("_"))
                self._answer({"op": "unfit", "name": name, "missing": True, "why": ", ".join(known)[:500] or "no variable at all"})
                return 1
            try:
                trees.append([name, packer.tree(space[name])])
            except Unfit as error:
                self._answer({"op": "unfit", "name": name, "missing": False, "why": str(error)})
                return 1
        self._answer({"op": "done", "values": trees}, packer.buffers)
        return 0

    def _other(self, value: Any, packer: Packer) -> Any:
        if not self._pickle:
            raise Unfit(said(value))
        import pickle

        try:
            return ["pickle", packer.buffer(pickle.dumps(value, protocol=5))]
        except Exception as error:
            raise Unfit(f"{said(value)}: {error}") from None

    # -- calls of a function

    def calls(self) -> None:
        """Call one function with what comes, until nothing comes any more."""
        function: Any = None
        while True:
            try:
                fields, buffers = wire.receive(self._conn)
            except EOFError:
                return
            call = {"call": fields["call"]}
            packer, value = Packer(self._arrow, self._other), None
            try:
                received = functions.Received(fields, buffers)
                if "function" in fields:
                    function = received.value(fields["function"])
                arguments, keywords = received.value(fields["arguments"])
                value = function(*arguments, **keywords)
                self.display.figures()
            except BaseException as error:
                if isinstance(error, SystemExit):
                    error.__traceback__ = None
                _flush()
                self._answer({**call, "op": "raised", "error": failure(error)})
                continue
            _flush()
            try:
                tree = packer.tree(value)
            except Unfit as error:
                self._answer({**call, "op": "unfit", "name": "", "missing": False, "why": str(error)})
            else:
                self._answer({**call, "op": "done", "values": [["", tree]]}, packer.buffers)


def _awaits(code: types.CodeType) -> bool:
    return bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE


async def _within(codes: list[types.CodeType], space: dict[str, Any]) -> Any:
    """The value of the last of them."""
    value = None
    for code in codes:
        value = eval(code, space)
        if _awaits(code):
            value = await value
    return value


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the cell has closed it, or put something else in its place


def _exit_code(end: SystemExit) -> int:
    """What ``sys.exit`` was given, as the interpreter reads it."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _remember(text: str) -> None:
    """So that warnings and tracebacks made inside know the cell's lines."""
    import linecache

    linecache.cache[CELL] = (len(text), None, text.splitlines(True), CELL)


def main() -> None:
    faulthandler.enable()  # a crash in C says where in Python
    conn = socket.socket(socket.AF_UNIX)
    conn.connect(sys.argv[1])
    sys.argv = [""]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    settings, buffers = wire.receive(conn)
    runner = Runner(conn, settings)
    runner.display.install()
    if settings["op"] == "cell":
        sys.exit(runner.cell(settings, buffers))
    runner.calls()
