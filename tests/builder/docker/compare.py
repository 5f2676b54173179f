"""What two builds made, side by side: file trees, image configs, and where they failed.

A tree is merged here from overlay's folders, by no code of either side: for every path type, mode, owner, content, link, extended
attributes, hard links and time. What may differ is in :data:`EXCEPTIONS`, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: What may differ, by name, with the reason. The first group is left out everywhere, the second only by cases that name it (``but``).
EXCEPTIONS = {
    "created": "the time of a build is its own; with SOURCE_DATE_EPOCH it is compared",
    "ids": "image id and layer digests hold that time; how many layers there are is compared",
    "comment": "history's comment names the builder: buildkit.dockerfile.v0",
    "created_by": "history's wording ends with '# buildkit' there; how many entries there are, and which made no layer, is compared",
    "ArgsEscaped": "BuildKit marks each shell form so; the field is for Windows and deprecated in OCI's specification",
    "new times": "what a step wrote has the time of the step; both must be of this run of the tests, and what is older must be equal",
    "folder times": "a folder that COPY puts something into keeps its time here, so that equal files make equal layers",
    "epoch": "SOURCE_DATE_EPOCH clamps times of files here, there only with rewrite-timestamp=true: they are clamped to compare",
    "WorkingDir": "a path is as it was written there (/a/./b//c/), and clean here",
    "empty WORKDIR": "WORKDIR of a folder that is there makes an empty layer there, and none here",
}


@dataclass
class Entry:
    """One path of a tree. ``links``: all paths of the same file if there are several. ``time``: whole seconds, 0 is "now"."""

    kind: str
    mode: str
    owner: str
    content: str = ""
    links: list[str] = field(default_factory=list)
    xattrs: dict[str, str] = field(default_factory=dict)
    time: int = 0


@dataclass
class Result:
    """How a build ended. ``line`` and ``error``: where and why it failed; ``warnings``: rule and line, as the linter says them.

    ``empty``: of each layer, whether nothing is in it.
    """

    ok: bool
    line: int = 0
    error: str = ""
    tree: dict[str, Entry] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    empty: list[bool] = field(default_factory=list)
    epoch: int | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        value = json.loads(text)
        value["tree"] = {path: Entry(**entry) for path, entry in value["tree"].items()}
        return cls(**value)


_digests: dict[tuple[int, int, int, int], str] = {}


def read_tree(layers: Sequence[str], started: float, epoch: int | None = None) -> dict[str, Entry]:
    """The file system that overlay folders (lowest first) make together; times from ``started`` (or ``epoch``) on become 0."""
    started = started if epoch is None else min(started, epoch)
    tree: dict[str, Entry] = {}
    names: dict[tuple[str, int], list[str]] = {}
    for path, place, top in _walk("", [(layer, layer) for layer in reversed(layers)]):
        info = os.lstat(place)
        tree[path] = _entry(place, info, started)
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            names.setdefault((top, info.st_ino), []).append(path)
    for group in names.values():
        for path in group if len(group) > 1 else ():
            tree[path].links = sorted(group)
    return tree


def _walk(path: str, places: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Path in the tree, the real one, and the layer it is in. ``places``: the folder's own places and their layers, the top one first."""
    yield path or "/", places[0][0], places[0][1]
    found: dict[str, list[tuple[str, str]]] = {}
    closed: set[str] = set()
    for folder, layer in places:
        for name in os.listdir(folder):
            if name in closed:
                continue
            place = f"{folder}/{name}"
            info = os.lstat(place)
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:  # a whiteout
                closed.add(name)
                continue
            if not stat.S_ISDIR(info.st_mode):
                closed.add(name)
                if name in found:  # a folder above a file hides it
                    continue
            elif _opaque(place):
                closed.add(name)
            found.setdefault(name, []).append((place, layer))
    for name in sorted(found):
        if stat.S_ISDIR(os.lstat(found[name][0][0]).st_mode):
            yield from _walk(f"{path}/{name}", found[name])
        else:
            yield f"{path}/{name}", *found[name][0]


def _opaque(place: str) -> bool:
    have = os.listxattr(place, follow_symlinks=False)
    assert "trusted.overlay.redirect" not in have, f"{place} is a renamed folder: this merge does not follow"
    return any(name in have and os.getxattr(place, name) == b"y" for name in ("trusted.overlay.opaque", "user.overlay.opaque"))


def _entry(place: str, info: os.stat_result, started: float) -> Entry:
    kind, content = stat.filemode(info.st_mode)[0], ""
    if kind == "l":
        content = os.readlink(place)
    elif kind == "-":
        content = f"{info.st_size} {_digest(place, info)}" if info.st_size > 400 else _text(place)
    elif kind in "bc":
        content = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    xattrs = {
        name: os.getxattr(place, name, follow_symlinks=False).hex()
        for name in os.listxattr(place, follow_symlinks=False)
        if ".overlay." not in name
    }
    time = int(info.st_mtime)
    return Entry(
        kind, f"{stat.S_IMODE(info.st_mode):04o}", f"{info.st_uid}:{info.st_gid}", content, [], xattrs, 0 if time >= int(started) else time
    )


def _text(place: str) -> str:
    with open(place, "rb") as file:
        return repr(file.read())[1:]


def _digest(place: str, info: os.stat_result) -> str:
    key = (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
    if key not in _digests:
        with open(place, "rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return _digests[key]


def differences(ours: Result, docker: Result) -> list[str]:
    """One line each: what, ours, Docker's. Empty when both are the same but for the exceptions."""
    if ours.ok != docker.ok:
        return [f"ours {_ending(ours)}; Docker {_ending(docker)}"]
    if not ours.ok:
        # Docker tells no line for what it learns while it loads or fetches.
        return [] if docker.line in (0, ours.line) else [f"line of the error: ours {_ending(ours)}; Docker {_ending(docker)}"]
    found = []
    for path in sorted(ours.tree.keys() | docker.tree.keys()):
        mine, other = ours.tree.get(path), docker.tree.get(path)
        if mine is None or other is None:
            sides = (("ours", mine), ("Docker", other))
            found += [f"{path}: only {side} has it: {asdict(entry)}" for side, entry in sides if entry is not None]
        elif mine != other:
            if mine.kind == other.kind == "d" and not other.time:  # "folder times"
                mine.time = 0
            left, right = asdict(mine), asdict(other)
            found += [f"{path}: {name}: ours {left[name]!r}, Docker {right[name]!r}" for name in left if left[name] != right[name]]
    if not docker.config:  # a peer that gives a tree alone
        return found
    found += [
        f"warning {warning}: {'only ours' if warning in ours.warnings else 'only Docker'}"
        for warning in sorted({*ours.warnings} ^ {*docker.warnings})
    ]
    mine, other = _comparable(ours, docker.epoch), _comparable(docker, docker.epoch)
    for name in sorted(mine.keys() | other.keys()):
        if mine.get(name) != other.get(name):
            found += [f"config {name}: {line}" for line in _apart(mine.get(name), other.get(name))]
    return found


def _apart(mine: Any, other: Any) -> list[str]:
    """What differs between two values, members of dictionaries one by one."""
    if isinstance(mine, dict) and isinstance(other, dict):
        return [
            f"{key}: ours {mine.get(key)!r}, Docker {other.get(key)!r}"
            for key in sorted(mine.keys() | other.keys())
            if mine.get(key) != other.get(key)
        ]
    return [f"ours {mine!r}, Docker {other!r}"]


def _ending(result: Result) -> str:
    return "succeeds" if result.ok else f"fails in line {result.line}: {result.error[:200]}"


def _comparable(result: Result, epoch: int | None) -> dict[str, Any]:
    """An image config as one flat dictionary, without what :data:`EXCEPTIONS` leaves out. What is empty is as good as missing."""
    config = result.config
    inner = dict(config.get("config") or {})
    inner.pop("ArgsEscaped", None)
    if inner.get("WorkingDir"):
        inner["WorkingDir"] = posixpath.normpath(inner["WorkingDir"])
    found = {f"config.{name}": value for name, value in inner.items() if value not in ("", None, [], {})}
    found |= {
        name: value
        for name, value in config.items()
        if name not in ("config", "created", "history", "rootfs", "moby.buildkit.buildinfo.v1") and value not in ("", None)
    }
    # "empty WORKDIR": such a layer counts as none.
    history = [(entry, not entry.get("empty_layer")) for entry in config.get("history", [])]
    made = iter(result.empty)
    history = [
        (entry, layer and not (next(made, False) and entry.get("created_by", "").startswith("WORKDIR "))) for entry, layer in history
    ]
    found["history"] = ["layer" if layer else "no layer" for _, layer in history]
    found["rootfs"] = (config["rootfs"]["type"], len(config["rootfs"]["diff_ids"]) == len(result.empty))
    if epoch is not None:
        found["created"] = (config.get("created"), [entry.get("created") for entry in config.get("history", [])][1:])
    return found


def left_out(but: Mapping[str, str], line: str) -> bool:
    """Is it a difference that a case names? ``but`` has paths of the tree and ``config NAME``; a path ending with ``*`` names all below."""
    return any(line.startswith((f"{name}:", f"{name};", f"{name} ")) or (name.endswith("*") and line.startswith(name[:-1])) for name in but)


def history(config: dict[str, Any]) -> list[str]:
    """Who made each layer, without the builder's own mark."""
    return [entry.get("created_by", "").removesuffix(" # buildkit") for entry in config.get("history", [])]


_PLACE = re.compile(r"^[^\s:]+:(\d+)$", re.MULTILINE)
_MARK = re.compile(r"^\s*(\d+) \| >>> ", re.MULTILINE)
_WARNING = re.compile(r"^(?:#\d+ WARN:|(?:\x1b\[0m)? -) (\w+): .*\(line (\d+)\)$", re.MULTILINE)


def docker_failure(output: str) -> tuple[int, str]:
    """Line (0 where none is told) and message of a failed ``docker buildx build --progress plain``."""
    error = next((line for line in reversed(output.splitlines()) if line.startswith("ERROR:")), output.strip()[-200:])
    if mark := _MARK.search(output):
        return int(mark.group(1)), error
    told = _PLACE.search(output) or re.search(r"parse error on line (\d+)", error)
    return (int(told.group(1)) if told else 0), error


def our_warnings(notes: list[str]) -> list[str]:
    """Those notes of a build that are a linter's."""
    return sorted({f"{found[1]} {found[2]}" for note in notes if (found := re.fullmatch(r"(\w+): .*\(line (\d+)\)", note, re.DOTALL))})


def docker_warnings(output: str) -> list[str]:
    return sorted({f"{rule} {line}" for rule, line in _WARNING.findall(output)})
