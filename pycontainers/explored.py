"""What ``explore`` gives back: an image's layers, what they add, change and remove, what is wasted. Plain representations only."""

from __future__ import annotations

from collections.abc import Iterator

from .contents import Contents, FileChange, shown
from .metrics.series import format_bytes
from .text import one_line, table

KINDS = {"A": "added", "C": "changed", "D": "removed"}
SIGNS = {"A": "+", "C": "~", "D": "−"}
_ROWS = 400  # of a tree as text


class Node:
    """A path of a tree: ``change`` where a layer does something with it, None where it only holds something.

    size: bytes of it and all below; counts: how many below and here are added, changed, removed.
    """

    __slots__ = ("change", "children", "counts", "name", "number", "size")

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.change: FileChange | None = None
        self.children: dict[str, Node] = {}
        self.size = 0
        self.counts = {"A": 0, "C": 0, "D": 0}

    @property
    def folder(self) -> bool:
        return bool(self.children) or (self.change is not None and self.change.type == "folder")

    @property
    def kind(self) -> str:
        """A, C or D; "" for a folder that only holds something."""
        return self.change.kind if self.change is not None else ""

    def sorted(self) -> list[Node]:
        """Its children, folders first, then by name."""
        return sorted(self.children.values(), key=lambda node: (not node.folder, node.name))


class Tree:
    """Changes as a tree. ``nodes``: all of it by number; the first is "/"."""

    def __init__(self, changes: Iterator[FileChange]) -> None:
        self.nodes = [Node("/", 0)]
        for change in changes:
            node = self.nodes[0]
            self._count(node, change)
            for part in change.path.split("/")[1:]:
                below = node.children.get(part)
                if below is None:
                    below = node.children[part] = Node(part, len(self.nodes))
                    self.nodes.append(below)
                node = below
                self._count(node, change)
            node.change = change

    @staticmethod
    def _count(node: Node, change: FileChange) -> None:
        node.size += change.size
        node.counts[change.kind] += 1

    def walk(self, depth: int) -> Iterator[tuple[int, Node]]:
        """(depth from 1, node) of everything not deeper than ``depth``, in the order of a listing."""
        waiting = [(1, node) for node in reversed(self.nodes[0].sorted())]
        while waiting:
            level, node = waiting.pop()
            yield level, node
            if level < depth:
                waiting += [(level + 1, below) for below in reversed(node.sorted())]


class Explored:
    """The contents of an image. ``layer``: the one whose files are shown (from 1), None for the overview alone."""

    layer_headers = ("LAYER", "SIZE", "ADDED", "CHANGED", "REMOVED", "HIDES", "CREATED BY")
    biggest_headers = ("SIZE", "LAYER", "PATH")
    wasted_headers = ("WASTED", "TIMES", "PATH")
    tree_headers = ("", "SIZE", "PATH")

    def __init__(self, contents: Contents, layer: int | None = None, depth: int = 3, top: int = 10) -> None:
        self.contents, self.layer, self.depth, self.top = contents, layer, depth, top
        self._trees: dict[int | None, Tree] = {}

    def tree(self, layer: int | None) -> Tree:
        """Of one layer's changes, or of what all of them together leave (None)."""
        if layer not in self._trees:
            self._trees[layer] = Tree(self.contents.files(layer))
        return self._trees[layer]

    @property
    def title(self) -> str:
        return one_line(", ".join(self.contents.names)) or self.contents.id.removeprefix("sha256:")[:12]

    @property
    def summary(self) -> str:
        """``3 layers, 160.9 MiB · 90 % of it is seen, 16.3 MiB are wasted``."""
        found, count = self.contents, len(self.contents.layers)
        base = " on this machine's own system" if found.host else ""
        waste = f"{format_bytes(found.wasted_size)} are wasted" if found.wasted_size else "nothing is wasted"
        percent = min(99, int(found.efficiency * 100)) if found.wasted_size else 100
        return f"{count} layer{'s' if count != 1 else ''}{base}, {format_bytes(found.size)} · {percent} % of it is seen, {waste}"

    def layer_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                str(layer.number), format_bytes(layer.size), *(str(layer.count(kind)) for kind in "ACD"),
                format_bytes(layer.hidden) if layer.hidden else "", one_line(layer.created_by),
            )
            for layer in self.contents.layers
        ]  # fmt: skip

    def biggest_rows(self) -> list[tuple[str, ...]]:
        numbers = {id(change): layer.number for layer in self.contents.layers for change in layer.changes}
        return [(format_bytes(change.size), str(numbers[id(change)]), shown(change.path)) for change in self.contents.biggest(self.top)]

    def wasted_rows(self) -> list[tuple[str, ...]]:
        return [(format_bytes(waste.size), str(waste.times), shown(waste.path)) for waste in self.contents.wasted[: self.top]]

    def tree_rows(self, layer: int | None) -> list[tuple[str, ...]]:
        """A listing to the depth that was asked for, at most 400 rows; the last says what was left out."""
        rows: list[tuple[str, ...]] = []
        left = 0
        for level, node in self.tree(layer).walk(self.depth):
            if len(rows) < _ROWS:
                rows.append((SIGNS.get(node.kind, " "), format_bytes(node.size) if node.size else "", f"{'  ' * (level - 1)}{label(node)}"))
            else:
                left += 1
        return [*rows, ("", "", f"… and {left} more")] if left else rows

    def __repr__(self) -> str:
        parts = [f"{self.title}: {self.summary}", _short(self.layer_headers, self.layer_rows())]
        if self.layer is not None:
            rows = self.tree_rows(self.layer)
            text = "\n".join(f"{sign} {size:>10}  {path}" for sign, size, path in rows)
            return "\n\n".join([*parts, f"layer {self.layer}: + added, ~ changed, − removed\n{text}" if rows else "it changes nothing"])
        parts.append("the biggest files\n" + table(self.biggest_headers, self.biggest_rows()))
        if self.contents.wasted:
            parts.append("carried, and seen by nobody\n" + table(self.wasted_headers, self.wasted_rows()))
        return "\n\n".join(parts)


def label(node: Node) -> str:
    """A node in a listing: its name, with what it is where that is not a plain file."""
    name = shown(node.name)
    if node.change is not None and node.change.type == "link":
        return f"{name} → {shown(node.change.target)}"
    if node.folder:
        count = sum(node.counts.values()) - (node.change is not None)
        return f"{name}/" + (f"  ({count})" if count else "")
    kind = node.change.type if node.change is not None else ""
    return f"{name}  ({kind})" if kind in ("pipe", "socket", "device") else name


def _short(headers: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table whose last column is cut: commands are as long as their writers liked."""
    return table(headers, [(*row[:-1], row[-1] if len(row[-1]) <= 72 else row[-1][:71] + "…") for row in rows])
