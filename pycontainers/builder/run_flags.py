"""``RUN --mount=…``: the fields as they are written, and the mount that they mean once the variables are known.

https://docs.docker.com/reference/dockerfile/#run---mount. Fields are CSV (a value with a comma in it is quoted, with the field).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import BuildError, near
from .flags import boolean, size
from .parser import Flag, Raw

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
ALIASES = {
    "src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite",
}
KEYS = ("type", "target", "source", "from", "id", "sharing", "readonly", "readwrite", "required", "mode", "uid", "gid", "size", "env")
_FIELD = re.compile(r'"((?:[^"]|"")*)"|[^",\r\0]*')
_TEXTS = frozenset({"target", "source", "from", "id", "env"})
_NUMBERED = frozenset({"cache", "secret", "ssh"})
"""Types whose mounts have an owner and a mode of their own."""

_MOST_MODE, _MOST_ID = 0o7777, (1 << 32) - 2  # all 32 bits set mean "none" to chown(2)
_SECRETS = "/run/secrets"


@dataclass(frozen=True)
class RunMount:
    """One ``RUN --mount``. Texts are as written: the solver expands them; "" and None are what was not given.

    :param type: bind, cache, tmpfs, secret or ssh. ``origin``: the value of ``from``, a stage, a named context or an image.
    :param id: of a cache, a secret or an agent. ``sharing``: shared, private or locked. ``size``: bytes, of a tmpfs.
    :param mode, uid, gid: numbers. ``env``: the variable that holds a secret. ``required``: a missing secret or agent is an error.
    """

    type: str
    flag: Flag
    target: str = ""
    source: str = ""
    origin: str = ""
    id: str = ""
    sharing: str = "shared"
    read_only: bool = False
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    env: str = ""


def mounts(raw: Raw, expand: Callable[[str], str] | None = None) -> tuple[RunMount, ...]:
    """The mounts of a RUN, in order.

    :param expand: replaces variables in the values. Without it they stay as they are, and what depends on one (``uid=$UID``) is left
        unchecked and at its default: so it is at first; a step that is to run asks again.
    :raises BuildError: at the flag, for whatever Docker refuses.
    """
    return tuple(_mount(raw, flag, expand) for flag in raw.flags if flag.name == "mount")


def _mount(raw: Raw, flag: Flag, expand: Callable[[str], str] | None) -> RunMount:
    reader = _Fields(raw, flag)
    for written in _csv(raw, flag):
        key, equals, value = written.partition("=")
        key = key.lower()
        if key == "from" and re.search(r"\$.", value):
            raise raw.error(f"variables are not allowed in from={value}", "name a stage: FROM image:$VERSION AS name, then from=name",
                            flag=flag)
        if equals and expand is not None and key != "from":
            value = expand(value)
        reader.take(key, value if equals else None, written, unknown=expand is None and "$" in value)
    return reader.made()


def _csv(raw: Raw, flag: Flag) -> list[str]:
    """RFC 4180, as Go's encoding/csv reads it: a quote is around a whole field, or doubled within one."""
    text, found, at = flag.value or "", [], 0
    while (field := _FIELD.match(text, at)) is not None:
        found.append(field[0] if field[1] is None else field[1].replace('""', '"'))
        at = field.end() + 1
        if text[field.end():at] != ",":
            break
    if not text or at <= len(text):
        raise raw.error(f"RUN --mount={text[:80]} is not a list of fields", "for example: --mount=type=cache,target=/root/.cache",
                        flag=flag)
    return found


class _Fields:
    """Takes the fields one after the other; later ones see the type that earlier ones gave (so ``type`` comes first, as in Docker)."""

    def __init__(self, raw: Raw, flag: Flag) -> None:
        self.raw, self.flag = raw, flag
        self.mount = RunMount("bind", flag)
        self.given: set[str] = set()
        self.type_known = True

    def error(self, message: str, hint: str) -> BuildError:
        return self.raw.error(f"RUN --mount: {message}", hint, flag=self.flag)

    def take(self, written_key: str, value: str | None, written: str, *, unknown: bool) -> None:
        key = ALIASES.get(written_key, written_key)
        if key not in KEYS:
            names = (*KEYS, *ALIASES)
            hint = near(written_key[:40], names) or f"the keys are {', '.join(names)}"
            raise self.error(f"unknown key {written_key[:40]!r} in {written[:80]!r}", hint)
        if value is None and key not in ("readonly", "readwrite", "required"):
            raise self.error(f"{written_key} has no value", f"write {written_key}=VALUE")
        self.given.add(key)
        if key == "type":
            self.type_known = not unknown
        if not unknown or key in _TEXTS:
            getattr(self, f"_{key}", self._text)(key, value or "", value is None)

    def _set(self, **values: Any) -> None:
        self.mount = replace(self.mount, **values)

    def _text(self, key: str, value: str, bare: bool) -> None:
        self._set(**{"origin" if key == "from" else key: value})

    def _type(self, key: str, value: str, bare: bool) -> None:
        self._set(type=self._one_of(key, value, TYPES))

    def _sharing(self, key: str, value: str, bare: bool) -> None:
        self._set(sharing=self._one_of(key, value, SHARING))

    def _one_of(self, key: str, value: str, values: tuple[str, ...]) -> str:
        if value.lower() not in values:
            raise self.error(f"{key}={value[:40]} is not known", near(value[:40], values) or f"it must be one of {', '.join(values)}")
        return value.lower()

    def _boolean(self, key: str, value: str, bare: bool) -> bool:
        try:
            return bare or boolean(value)
        except ValueError:
            raise self.error(f"{key}={value[:40]} is neither true nor false", f"write {key}, or {key}=false") from None

    def _readonly(self, key: str, value: str, bare: bool) -> None:
        self._set(read_only=self._boolean(key, value, bare))

    def _readwrite(self, key: str, value: str, bare: bool) -> None:
        self._set(read_only=not self._boolean(key, value, bare))

    def _required(self, key: str, value: str, bare: bool) -> None:
        self._only(key, "secret", "ssh")
        self._set(required=self._boolean(key, value, bare))

    def _size(self, key: str, value: str, bare: bool) -> None:
        self._only(key, "tmpfs")
        try:
            self._set(size=size(value))
        except ValueError:
            raise self.error(f"size={value[:40]} is not a size", "for example: size=64m") from None

    def _only(self, key: str, *types: str) -> None:
        if self.type_known and self.mount.type not in types:
            hint = f"it belongs to type={' and type='.join(types)}, which must come before it"
            raise self.error(f"{key} is not for type={self.mount.type}", hint)

    def _mode(self, key: str, value: str, bare: bool) -> None:
        self._number(key, value, 8)

    def _uid(self, key: str, value: str, bare: bool) -> None:
        self._number(key, value, 10)

    def _gid(self, key: str, value: str, bare: bool) -> None:
        self._number(key, value, 10)

    def _number(self, key: str, value: str, base: int) -> None:
        digits = "[0-7]" if base == 8 else "[0-9]"
        if not re.fullmatch(f"{digits}{{1,40}}", value):
            raise self.error(f"{key}={value[:40]} is not a number", f"for example: {key}={'0755' if base == 8 else '1000'}")
        if int(value, base) > (_MOST_MODE if base == 8 else _MOST_ID):
            raise self.error(f"{key}={value[:40]} is too great", f"at most {'07777' if base == 8 else _MOST_ID}; "
                             f"for example: {key}={'0755' if base == 8 else '1000'}")
        self._set(**{key: int(value, base)})

    def made(self) -> RunMount:
        mount = self.mount
        if not {"readonly", "readwrite"} & self.given:
            self._set(read_only=mount.type not in ("cache", "tmpfs"))
        if not self.type_known:
            return self.mount
        if mount.type not in _NUMBERED and (wrong := sorted({"mode", "uid", "gid"} & self.given)):
            raise self.error(f"{wrong[0]} is not for type={mount.type}", "it belongs to type=cache, secret and ssh")
        if "sharing" in self.given and mount.type != "cache":
            raise self.error(f"sharing is not for type={mount.type}", "it belongs to type=cache")
        if "env" in self.given and mount.type != "secret":
            raise self.error(f"env is not for type={mount.type}", "it belongs to type=secret")
        if mount.type == "secret":
            self._check_secret(mount)
        return self.mount

    def _check_secret(self, mount: RunMount) -> None:
        if mount.origin:
            raise self.error("a secret has no from", "it is given to the build: --secret id=…")
        if not (mount.source or mount.target or mount.id):
            raise self.error("a secret has neither id nor target", "for example: type=secret,id=token")
        if mount.source and mount.id:
            raise self.error("a secret has both source and id", "keep id")
        id = mount.id or mount.source
        name = posixpath.basename(id.rstrip("/"))
        if id and not mount.target and not mount.env and (name in ("", ".", "..") or "\0" in name):
            raise self.error(f"a secret with the id {id[:80]!r} has no place in {_SECRETS}", "say where: target=/run/secrets/token")
        # BuildKit's place for an id with folders in it. The id itself stays what --secret names.
        self._set(id=id, target=f"{_SECRETS}/{name}" if "/" in id and not mount.target and not mount.env else mount.target)
