"""``--chmod``: octal, or symbolic as chmod(1) has it (POSIX): ``u+rwX,go=r``."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable

from .sources import CopyError

Mode = Callable[[int], int]
"""st_mode of a file → its permission bits, set-id and sticky ones included."""

_UMASK = 0o022  # who is not named in a symbolic mode gets nothing that this forbids; a constant, for a build must not depend on ours
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}


def parse_mode(text: str) -> Mode:
    """:raises CopyError: it is neither."""
    if text and all(char in "01234567" for char in text):
        value = int(text, 8)
        if value <= 0o7777 and len(text) <= 8:
            return lambda _: value
    elif text and all(_CLAUSE.match(clause) for clause in text.split(",")):
        return lambda mode: _apply(text, mode)
    raise CopyError(f"--chmod={text} is not a mode", "in octal, for example --chmod=755, or as chmod takes it: --chmod=u+rwX,go=rX")


def made_mode(text: str) -> int:
    """Permission bits of the folders that a destination needs and the image lacks. ``--chmod`` counts for them where it is octal, less
    the umask, as BuildKit does it: mkdir(2) gets the number.
    """
    return int(text, 8) & 0o777 & ~_UMASK if text and all(char in "01234567" for char in text) else 0o755


def _apply(text: str, mode: int) -> int:
    bits, folder = stat.S_IMODE(mode), stat.S_ISDIR(mode)
    for clause in text.split(","):
        who, actions = clause[: len(clause) - len(clause.lstrip("ugoa"))], clause.lstrip("ugoa")
        named = "ugo" if not who or "a" in who else who
        reach = sum(_WHO[one] for one in set(named))
        allowed = reach if who else reach & ~_UMASK
        for sign, letters in _ACTION.findall(actions):
            wanted = _wanted(letters, bits, folder) & allowed
            if sign == "+":
                bits |= wanted
            elif sign == "-":
                bits &= ~wanted
            else:
                # A folder keeps its set-id bits unless they are named: chmod(1) of GNU and BSD.
                cleared = reach & 0o1777 if folder and "s" not in letters else reach
                bits = bits & ~cleared | wanted
    return bits


def _wanted(letters: str, bits: int, folder: bool) -> int:
    if letters in ("u", "g", "o") and letters:
        three = bits >> {"u": 6, "g": 3, "o": 0}[letters] & 7
        return three << 6 | three << 3 | three
    wanted = 0
    for letter in letters:
        wanted |= _BITS.get(letter, 0)
        if letter == "X" and (folder or bits & 0o111):
            wanted |= 0o111
        if letter == "s":
            wanted |= 0o6000
        if letter == "t":
            wanted |= 0o1000
    return wanted
