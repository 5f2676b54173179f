"""Messages to whoever called: a log in the format that engines read, and stderr."""

from __future__ import annotations

import json
import os
import sys
import time

from ..errors import CommandNotExecutable, CommandNotFound, ContainersError

LEVELS = ("debug", "info", "warning", "error")


class Messages:
    """``path``: the log file, "" for stderr alone. ``json``: one object a line, as conmon and containerd read it."""

    def __init__(self, path: str = "", form: str = "text", level: str = "warning") -> None:
        self._json, self._level = form == "json", LEVELS.index(level if level != "warn" else "warning")
        self._fd = -1
        if path and path != "/dev/stderr":  # opened now: exec tells its errors from inside the container's mount namespace
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, level: str, text: str) -> None:
        """One message. In the log, and an error on stderr too; without a log everything goes there."""
        if LEVELS.index(level) < self._level:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = json.dumps({"level": level, "msg": text, "time": now})
        else:
            line = f'time="{now}" level={level} msg={json.dumps(text)}'
        if self._fd >= 0:
            os.write(self._fd, (line + "\n").encode())
            line = f"pycontainers-oci: {text}"
            if level != "error":
                return
        sys.stderr.write(line + "\n")


def line_of(error: BaseException) -> str:
    """An error in one line. For a command that cannot be executed, in the words by which engines find exit codes 126 and 127."""
    if isinstance(error, ContainersError):
        text = f"{error.message} ({error.hint})" if error.hint else error.message
        if isinstance(error, CommandNotFound):
            return f"{text}: executable file not found in $PATH or no such file or directory"
        if isinstance(error, CommandNotExecutable):
            return f"{text}: permission denied"
        return text
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return f"{type(error).__name__}: {error}"
