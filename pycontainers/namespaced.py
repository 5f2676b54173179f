"""What ``namespaces`` gives back: the namespaces of containers beside this machine's. Plain representations only."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import NotFound, StateError, UsageError, near
from .protocol import Engine
from .spaces import KINDS, Sight, Space, Spaces
from .text import one_line, table

HOST = "this machine"
_TEXT_ROWS = 12


def said(space: Space, host: bool = False) -> str:
    """Whose namespace it is, with an icon and a word: ``● own``, ``○ this machine's``, ``◐ with db``."""
    if host:
        return "○ its own"
    if not space.number:
        return "? cannot be read"
    if space.host:
        return f"○ {HOST}'s"
    return f"◐ with {', '.join(one_line(name) for name in space.shared)}" if space.shared else "● own"


def cells(sight: Sight) -> list[list[str]]:
    return [[one_line(cell) for cell in row] for row in sight.rows]


class Namespaces:
    """``host`` and ``containers``: their namespaces by OCI type (pid, mount, network, user, uts, ipc, cgroup, time).

    :param detail: show what is visible through each as well, of ``kinds``. :param form: ``live`` or ``static``.
    """

    def __init__(
        self, engine: Engine, names: Sequence[str] = (), kinds: Sequence[str] = (), form: str = "live", detail: bool = True
    ) -> None:
        self._engine, self._names = engine, tuple(names)
        self.kinds = tuple(kind for kind in KINDS if kind in kinds) or tuple(KINDS)
        self.form, self.detail = form, detail
        self.reload()

    def reload(self) -> Namespaces:
        """Read everything anew. :raises ContainersError: a container that was named does not run any more."""
        names = self._names or tuple(info.name for info in self._engine.containers() if info.pid)
        found = []
        for name in names:
            try:
                found.append(self._engine.namespaces(name))
            except (NotFound, StateError):  # ended since the list was read
                if self._names:
                    raise
        self.containers = tuple(found)
        self.host = self._engine.namespaces()
        return self

    def __getitem__(self, name: str) -> Spaces:
        found = next((one for one in self.containers if one.name == name), None)
        if found is None:
            raise UsageError(f"no container {name!r} here", near(name, [one.name for one in self.containers]))
        return found

    @property
    def headers(self) -> tuple[str, ...]:
        return ("NAMESPACE", "OF", HOST.upper(), *[one_line(one.name) for one in self.containers])

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each kind: whose it is, by its number (inode) and a word."""
        found = []
        for kind in self.kinds:
            own = self.host.kinds[kind]
            cells = [f"{said(one.kinds[kind])} {one.kinds[kind].number or ''}".rstrip() for one in self.containers]
            found.append((kind, KINDS[kind].title, f"{said(own, host=True)} {own.number}", *cells))
        return found

    def __repr__(self) -> str:
        parts = [table(self.headers, self.rows())]
        if self.detail and self.containers:
            parts += [self._section(kind) for kind in self.kinds]
        return "\n\n".join(parts)

    def _section(self, kind: str) -> str:
        lesson = KINDS[kind]
        lines = [f"{kind}: {lesson.text} {lesson.page}(7)"]
        for one in (*self.containers, self.host):
            for sight in one.kinds[kind].sights:
                lines += ["", *_text(sight, one_line(one.name) or HOST)]
        return "\n".join(lines)


def _text(sight: Sight, of: str) -> list[str]:
    found = [f"  {of}: {sight.title}".rstrip(": ")]
    if sight.rows:
        shown = table(sight.headers, sight.rows[:_TEXT_ROWS])
        found += [f"    {line}" for line in shown.splitlines()]
    left = max(0, len(sight.rows) - _TEXT_ROWS) + sight.left
    if left:
        found.append(f"    … and {left} more")
    if sight.note:
        found.append(f"    {one_line(sight.note)}")
    return found
