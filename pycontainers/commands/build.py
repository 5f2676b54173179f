"""``build``."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from ..errors import UsageError
from ..objects import Image
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .options import build_request, read_dockerfile


def build(context: Context, args: SimpleNamespace, body: str | None) -> Image:
    """The Dockerfile is the cell body, ``-f FILE``, ``-f -`` (stdin), or ``Dockerfile`` in the context folder."""
    if args.context is not None and args.path is not None:
        raise UsageError(f"two contexts: --context {args.context} and {args.path}", "give one")
    folder = args.context if args.context is not None else args.path
    if body is not None and args.file is not None:
        raise UsageError("two Dockerfiles: the cell body and --file", "give one")
    if body is not None:
        text = body
    elif args.file == "-":
        text = (context.stdin() if context.stdin else sys.stdin.buffer.read()).decode("utf-8", "replace")
    elif args.file is not None:
        text = read_dockerfile(args.file)[1]
    elif folder is None:
        raise UsageError("build needs a Dockerfile", "a cell body, --file FILE, or the folder that holds one")
    else:
        text = read_dockerfile(folder)[1]
    request = build_request(
        text if "\n" in text else text + "\n",
        tuple(args.tag),
        context="." if folder is None else folder,
        build_args=args.build_arg,
        labels=args.label,
        target=args.target,
        no_cache=args.no_cache,
        network=args.network,
        pull=args.pull,
    )
    if args.progress not in ("auto", "plain", "quiet"):
        raise UsageError(f"--progress {args.progress!r} is unknown", "auto, plain or quiet")
    form = "quiet" if args.quiet else args.progress
    return Image(context.engine, context.frontend.progress(context.engine.build(request), form))


declare(
    Verb(
        "build",
        "Build an image from a Dockerfile",
        build,
        (
            Option(("--tag", "-t"), "name of the image: NAME[:TAG]", "NAME", many=True),
            Option(("--file", "-f"), "the Dockerfile; - is stdin", "FILE", host_path="whole", completes="file"),
            Option(("--build-arg",), "value of an ARG: NAME=VALUE, or NAME for this process's own value", "ARG", many=True),
            Option(("--context",), "folder that COPY reads (default: the current one)", "FOLDER", host_path="whole", completes="folder"),
            Option(("--progress",), "auto, plain (lines) or quiet", "FORM", default="auto", completes="auto|plain|quiet"),
            Option(("--quiet", "-q"), "the same as --progress quiet"),
            Option(("--pull",), "fetch base images anew, also those that are here"),
            Option(("--no-cache",), "run every step anew"),
            Option(("--target",), "stop at this stage", "STAGE"),
            Option(("--label",), "label of the image: NAME=VALUE", "LABEL", many=True),
            Option(("--network",), "network of RUN steps: bridge, none or host", "NETWORK", completes="bridge|none|host"),
        ),
        (Argument("path", "folder that COPY reads, as with docker build", "?", completes="folder", host_path="whole"),),
        body="optional",
        body_help="the Dockerfile",
        group="Images",
        examples=("build -t visits .", "build -t visits -f Dockerfile.dev ."),
    )
)
