"""Sets of files that cells have written: contexts of builds without a folder."""

from __future__ import annotations

import posixpath
import re

from ..errors import NotFound, UsageError, near

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class FileSets:
    """Named sets of files: path -> content. A set comes with its first file and goes with its last."""

    def __init__(self) -> None:
        self.sets: dict[str, dict[str, bytes]] = {}

    def put(self, name: str, path: str, content: bytes) -> str:
        """Add a file or replace it; returns its path as it is called in the context. :raises UsageError: no name, no path."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not the name of a set of files", "letters, digits, '_', '.' and '-': file app src/main.py")
        path = inline_path(path)
        files = self.sets.get(name, {})
        # A path that is a folder of another one: said now, and not by the build.
        if clash := next((other for other in files if other.startswith(path + "/") or path.startswith(other + "/")), ""):
            raise UsageError(f"{path} and {clash} cannot both be files of {name}", f"file --rm {name} {clash}")
        self.sets.setdefault(name, {})[path] = content
        return path

    def get(self, name: str) -> dict[str, bytes]:
        """:raises NotFound: no such set."""
        if name not in self.sets:
            hint = near(name, self.sets) or "%%container file NAME PATH writes a file of one"
            raise NotFound(f"there is no set of files {name!r} in this notebook", hint)
        return self.sets[name]

    def one(self, name: str, path: str) -> bytes:
        """:raises NotFound: no such set, no such file in it."""
        files = self.get(name)
        if inline_path(path) not in files:
            raise NotFound(f"there is no file {path} in {name}", near(path, files) or f"it has {', '.join(sorted(files))}")
        return files[inline_path(path)]

    def remove(self, name: str, path: str | None = None) -> list[str]:
        """Forget one file, or the whole set; returns the paths."""
        files = self.get(name)
        if path is None:
            return sorted(self.sets.pop(name))
        self.one(name, path)
        del files[inline_path(path)]
        if not files:
            del self.sets[name]
        return [inline_path(path)]


def inline_path(name: str) -> str:
    """A path below the context, cleaned. :raises UsageError: it leads out, or to nothing."""
    path = posixpath.normpath(name.lstrip("/") or ".")
    if "\0" in name or path in (".", "..") or path.startswith("../") or name.endswith("/"):
        raise UsageError(f"{name!r} is not the path of a file in the context", "for example src/app.py")
    return path
