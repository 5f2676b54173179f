"""What verbs give back that is no container and no image: what was written, tables, documents. Plain representations only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .metrics.series import format_bytes
from .protocol import Change, Check, DiskItem, DiskUsage, ExitStatus, ImageHistory, LogLine, Problem
from .text import ago, clean, one_line, table
from .wording import event_attributes, event_text, exit_text, failed, line_text, timestamp

_CAPTURE_LIMIT = 64 << 20


class Logs(list[LogLine]):
    """Lines of a log. ``str()`` and ``in`` treat it as the text; as a list it holds LogLine with time and stream."""

    timestamps = False

    def __str__(self) -> str:
        return "".join(line_text(line, self.timestamps) for line in self)

    def __repr__(self) -> str:
        return clean(str(self)).rstrip("\n")

    def __contains__(self, item: object) -> bool:
        return item in str(self) if isinstance(item, str) else super().__contains__(item)


class Output:
    """Collects what a process writes, up to 64 MiB; an ``OnOutput`` that may pass everything on as well."""

    def __init__(self, onward: Any = None) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.truncated = False
        self._onward = onward

    def __call__(self, stream: str, data: bytes) -> None:
        kept = self.stderr if stream == "stderr" else self.stdout
        room = _CAPTURE_LIMIT - len(kept)
        kept += data[: max(0, room)]
        self.truncated = self.truncated or len(data) > room
        if self._onward is not None:
            self._onward(stream, data)


@dataclass(frozen=True)
class RunResult:
    """How a foreground ``run`` or an ``exec`` ended, and what it wrote (at most 64 MiB of each stream)."""

    name: str
    exit: ExitStatus
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False

    @property
    def exit_code(self) -> int | None:
        return self.exit.code

    @property
    def output(self) -> str:
        """What was written to stdout, as text."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def errors(self) -> str:
        """What was written to stderr, as text."""
        return self.stderr.decode("utf-8", "replace")

    def check(self) -> RunResult:
        """This result. :raises ContainerFailed: the exit code is not zero."""
        failure = failed(self.name, self.exit)
        if failure is not None:
            raise failure
        return self

    def __repr__(self) -> str:
        return f"<RunResult {one_line(self.name)}: {exit_text(self.exit)}, {len(self.stdout)} bytes of output>"


class Rows(list[list[str]]):
    """A table whose titles are not known before: what ``top`` shows. ``empty``: what is said where there are no rows."""

    def __init__(self, titles: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
        super().__init__(list(row) for row in rows)
        self.headers, self.empty = tuple(titles), empty

    def rows(self) -> list[tuple[str, ...]]:
        return [tuple(row) for row in self]

    def __repr__(self) -> str:
        return table(self.headers, self.rows()) if self or not self.empty else self.empty


class Events(list[dict[str, Any]]):
    """What happened, oldest first; each in the form of Docker's event messages."""

    headers = ("TIME", "TYPE", "EVENT", "NAME", "ID", "ATTRIBUTES")

    def rows(self) -> list[tuple[str, ...]]:
        return [_event_row(event) for event in self]

    def __repr__(self) -> str:
        return "\n".join(event_text(event) for event in self)


def _event_row(event: dict[str, Any]) -> tuple[str, ...]:
    actor = event.get("Actor") or {}
    name = one_line(str((actor.get("Attributes") or {}).get("name", "")))
    more = one_line(event_attributes(actor, without=("name",)))
    kind, action = one_line(str(event.get("Type"))), one_line(str(event.get("Action")))
    return timestamp(event.get("timeNano", 0) / 1e9), kind, action, name, str(actor.get("ID", ""))[:12], more


class ImageSteps(list[ImageHistory]):
    """What made an image, newest first. ``full``: commands are not cut, layers by their whole diff id."""

    headers = ("CREATED", "CREATED BY", "SIZE", "LAYER")
    full = False

    def rows(self) -> list[tuple[str, ...]]:
        return [(ago(step.created), self._command(step), format_bytes(step.size), self._layer(step)) for step in reversed(self)]

    def _command(self, step: ImageHistory) -> str:
        text = one_line(step.created_by)
        return text if self.full or len(text) <= 72 else text[:71] + "…"

    def _layer(self, step: ImageHistory) -> str:
        return "" if step.empty else step.diff_id if self.full else step.diff_id.removeprefix("sha256:")[:12]

    def __repr__(self) -> str:
        return table(self.headers, self.rows())


class Changes(list[Change]):
    """What a container has changed: the lines of ``diff``."""

    headers = ("", "PATH")

    def rows(self) -> list[tuple[str, ...]]:
        return [(change.kind, one_line(change.path)) for change in self]

    def __repr__(self) -> str:
        return "\n".join(f"{change.kind} {one_line(change.path)}" for change in self)


class Checks(list[Check]):
    """What works on this machine and what does not: the table of ``doctor``."""

    headers = ("", "CHECK", "STATE", "WHY", "REMEDY")
    icons = {"ok": "✓", "weaker": "△", "missing": "✗"}

    def rows(self) -> list[tuple[str, ...]]:
        return [(self.icons.get(check.state, "?"), check.name, check.state, check.why, check.remedy) for check in self]

    def __repr__(self) -> str:
        return table(self.headers, self.rows())


class Problems(list[Problem]):
    """What is wrong in the image store."""

    headers = ("", "KIND", "WHAT", "WHERE")

    @property
    def unrepaired(self) -> int:
        return sum(not problem.repaired for problem in self)

    def rows(self) -> list[tuple[str, ...]]:
        marks = {True: "✓ repaired", False: "✗ wrong"}
        return [(marks[problem.repaired], problem.kind, one_line(problem.what), one_line(problem.path)) for problem in self]

    def __repr__(self) -> str:
        return table(self.headers, self.rows()) if self else "nothing is wrong"


class DiskTable(list[DiskUsage]):
    """What is taken up on the disk: ``system df``. ``verbose``: each thing by itself below it."""

    headers = ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE")
    item_headers = ("NAME", "ID", "CREATED", "SIZE", "SHARED", "UNIQUE", "USED BY")

    def __init__(self, usage: Iterable[DiskUsage] = (), verbose: bool = False) -> None:
        super().__init__(usage)
        self.verbose = verbose

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (row.kind, str(row.total), str(row.active), format_bytes(row.size), f"{format_bytes(row.reclaimable)}{_percent(row)}")
            for row in self
        ]

    def items(self) -> list[tuple[str, list[tuple[str, ...]]]]:
        """(title, rows) of each kind that lists what it is made of."""
        return [(row.kind, [_item_row(item) for item in row.items]) for row in self if row.items]

    def __repr__(self) -> str:
        parts = [table(self.headers, self.rows())]
        if self.verbose:
            parts += [f"{title}\n{table(self.item_headers, rows)}" for title, rows in self.items()]
        return "\n\n".join(parts)


def _percent(row: DiskUsage) -> str:
    return f" ({row.reclaimable * 100 // row.size}%)" if row.size else ""


def _item_row(item: DiskItem) -> tuple[str, ...]:
    sizes = (format_bytes(size) for size in (item.size, item.shared, item.unique))
    return item.name or "<none>", item.id.removeprefix("sha256:")[:12], ago(item.created), *sizes, str(int(item.uses))


class Document:
    """Data shown as indented JSON: what ``inspect`` returns. ``data`` holds it."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __repr__(self) -> str:
        return clean(json.dumps(self.data, indent=2, ensure_ascii=False, default=str))


class Text(str):
    """Text whose representation is itself: help pages, lists of lines."""

    def __repr__(self) -> str:
        return clean(str(self))
