"""A cell in a container of its own: variables go in, output comes out as it is written, results come back at the end."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ..errors import ContainersError
from ..protocol import ContainerConfig, Engine, ExitStatus
from . import failures
from .inside.values import Tree, Unpacker
from .packing import Parcel
from .worker import Hooks, Worker, attend

LIMIT = 1 << 29
"""Bytes of results in one message, unless somebody asks for more."""


@dataclass(frozen=True)
class Settings:
    """How values travel. ``python``: the interpreter inside; ``pickled``: any object may come back; ``markup``: HTML and SVG are shown too.

    arrow: the Python inside has pyarrow, as far as is known here; timeout: seconds for a cell or call, None for no end; limit: bytes that
    come back at most.
    """

    python: str
    arrow: bool = False
    timeout: float | None = None
    pickled: bool = False
    markup: bool = False
    limit: int = LIMIT


@dataclass(frozen=True)
class Cell:
    """``source`` is its text, whose first line is numbered ``line``; ``outputs`` are names of its variables at the end."""

    source: str
    line: int = 1
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def first_message(worker: Worker, settings: Settings, op: str) -> dict[str, Any]:
    """What the runner is told before anything else."""
    here = find_spec("pyarrow") is not None
    return {"op": op, "mark": worker.mark, "arrow": here, "pickle": settings.pickled, "markup": settings.markup}


def run(engine: Engine, config: ContainerConfig, cell: Cell, settings: Settings, hooks: Hooks) -> tuple[str, ExitStatus, dict[str, Any]]:
    """(name of the container, how it ended, values of ``outputs``).

    :raises ContainedError: what the cell raised. :raises ContainerFailed: it was ended. An interrupt ends the container and goes on.
    """
    parcel = Parcel(settings.arrow, settings.pickled)
    inputs = [[name, parcel.tree(value, name)] for name, value in cell.inputs.items()]
    with _started(engine, config, settings, hooks) as worker:
        task = {"source": cell.source, "line": cell.line, "inputs": inputs, "outputs": list(cell.outputs), **parcel.fields}
        worker.ask({**first_message(worker, settings, "cell"), **task}, parcel.buffers)
        while not worker.over and not worker.broken:
            until = worker.deadline(settings.timeout)
            if until is not None and time.monotonic() >= until:
                worker.kill()
                raise failures.timed_out("the cell", settings.timeout or 0.0, worker.exit)
            attend([worker], until)
        if worker.broken:
            raise worker.broken
        return worker.name, worker.exit, _outcome(worker, cell, settings, parcel.files)


@contextmanager
def _started(engine: Engine, config: ContainerConfig, settings: Settings, hooks: Hooks) -> Iterator[Worker]:
    worker = Worker(engine, config, settings.python, settings.limit, hooks)
    try:
        yield worker
    finally:
        worker.close()


def _outcome(worker: Worker, cell: Cell, settings: Settings, files: set[str]) -> dict[str, Any]:
    failure = failures.ended("the cell", worker.exit, worker.memory)
    if worker.answer is not None:
        fields, buffers = worker.answer
        op = fields.get("op")
        if op == "raised":
            raise failures.raised(fields.get("error"), cell.source, cell.line, files)
        if op == "unfit":
            raise failures.unfit(str(fields.get("name")), fields.get("missing") is True, str(fields.get("why")))
        if op == "done" and failure is None:
            found = values(fields, buffers, settings.pickled, settings.limit)
            if set(found) == set(cell.outputs):
                return found
    if failure is not None:
        raise failure
    if cell.outputs:
        raise ContainersError(f"the cell ended before it gave back {', '.join(cell.outputs)}", "its Python ended early: os._exit?")
    return {}


def values(fields: dict[str, Any], buffers: list[memoryview], pickled: bool, limit: int = LIMIT) -> dict[str, Any]:
    """The values of a message from inside, by name. :raises ContainersError: they make no sense."""
    unpacker = Unpacker(buffers, _unpickled if pickled else None, limit)
    try:
        return {str(name): unpacker.value(tree) for name, tree in fields["values"]}
    except ContainersError:
        raise
    except Exception as error:  # whatever a tree that nobody should have written leads to
        raise ContainersError(
            f"what came back cannot be read: {type(error).__name__}: {str(error)[:300]}",
            "the container's libraries write what those here do not read, or code inside has written to the notebook's connection",
        ) from None


def _unpickled(kind: str, tree: Tree, unpacker: Unpacker) -> Any:
    """By ``--pickle``: whoever asked for it trusts what runs inside."""
    if kind != "pickle":
        raise ValueError(f"{kind[:40]!r} is no kind of value")
    return pickle.loads(unpacker.buffer(tree[1]))
