"""What Jupyter executes to start a kernel of ours, with the options of its container, a connection file, the image and a command.

It keeps the kernel's container and passes its connections on; whatever it prints is in the Jupyter server's log.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from ..errors import ContainersError
from ..kernels import connection, life, program
from ..paths import paths
from .declare import Argument, Option, Verb, parse
from .frontend import native_engine
from .kernel import CONTAINER_OPTIONS, ENV, config_of

_ARGUMENTS = (
    Argument("connection", "the connection file that Jupyter wrote"),
    Argument("image", "name or id"),
    Argument("command", "the kernel's own words", "rest"),
)


def main(words: Sequence[str] | None = None) -> int:
    """Keep one kernel; returns its exit code."""
    verb = Verb("kernel", "keep a kernel", lambda *_: None, (Option(("--kernel",), "its name", "NAME"), *CONTAINER_OPTIONS), _ARGUMENTS)
    try:
        args = parse(verb, list(sys.argv[1:] if words is None else words))
        args.env += json.loads(os.environ.pop(ENV, "[]"))
        document = connection.read(args.connection)
        config = config_of(args, args.image, program.command(args.command))
        return life.keep(native_engine(), paths().prepare(), config, args.kernel or "unnamed", document, _write)
    except ContainersError as error:
        _write("\n".join(error._render_traceback_()).replace("%container ", "pycontainers ") + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
