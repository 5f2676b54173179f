"""COPY without a Dockerfile: select, fill, and what the layer has then."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from pycontainers.builder.context import select
from pycontainers.builder.copying import CopyWork, fill
from pycontainers.images.view import Rootfs, View


class Image:
    """Layers in plain folders, one for each copy."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        self.folder, self.layers = folder, [str(base)] if base else []
        (folder / "nothing").mkdir(parents=True)

    @property
    def view(self) -> View:
        return View(Rootfs(tuple(self.layers), ("/",), {"/": str(self.folder / "nothing")}))

    def copy(self, source, *patterns: str, to: str = "/", parents=False, exclude=(), chown="", chmod="", epoch=None, link=False, inline=(),
             items=None, check=lambda: None) -> dict[str, str]:
        """What is in the new layer, path → what it is."""
        found = items or [item for pattern in patterns for item in select(source, pattern, parents=parents, exclude=exclude)]
        tree = tempfile.mkdtemp(dir=self.folder)
        os.chmod(tree, 0o755)
        fill(self.view, tree, CopyWork(tuple(found), tuple(inline), to, chown, chmod, epoch, link), check)
        self.layers.append(tree)
        return listing(tree)


def listing(tree: str) -> dict[str, str]:
    found = {}
    for folder, _, _ in os.walk(tree):
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            what = {stat.S_IFDIR: "/", stat.S_IFLNK: "->", stat.S_IFREG: "", stat.S_IFIFO: "|"}.get(kind, "?")
            if kind == stat.S_IFREG:
                what = Path(path).read_bytes().decode("utf-8", "replace")
            if kind == stat.S_IFLNK:
                what += os.readlink(path)
            found[path.removeprefix(tree)] = what
    return dict(sorted(found.items()))


def make(folder: Path, *names: str, **contents: str | bytes) -> Path:
    """Files, each with its path as content; names that end with a slash are folders; "a -> b" is a link."""
    for name in names:
        if " -> " in name:
            name, target = name.split(" -> ")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(target)
        elif name.endswith("/"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    for name, content in contents.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder
