"""``build``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import SimpleNamespace

from ..errors import BuildError, UsageError, near
from ..objects import Image
from ..results import Text
from .build_check import check
from .build_options import build_request
from .build_output import Outputs, build_and_write, outputs
from .declare import Argument, Option, Verb, declare
from .file_sets import inline_path
from .files import standard
from .frontend import Context

_FORMS = ("auto", "plain", "quiet", "rawjson")


def build(context: Context, args: SimpleNamespace, body: str | None) -> Image | Text:
    """The Dockerfile is the cell body, ``-f FILE``, ``-f -`` (stdin), or ``Dockerfile`` in the context."""
    if args.progress not in _FORMS:
        raise UsageError(f"--progress {args.progress!r} is unknown", near(args.progress, _FORMS) or ", ".join(_FORMS))
    folder, files, alone = _context(context, args)
    request = build_request(
        _dockerfile(context, args, body, folder, files, alone),
        tuple(args.tag),
        context.variables or {},
        context=folder,
        files=files,
        contexts=args.build_context,
        build_args=args.build_arg,
        labels=args.label,
        target=args.target,
        no_cache=args.no_cache,
        no_cache_filter=args.no_cache_filter,
        pull=args.pull,
        platform=args.platform,
        network=args.network,
        secrets=args.secret,
        ssh=args.ssh,
        cache_from=args.cache_from,
        cache_to=args.cache_to,
        add_host=args.add_host,
        shm_size=args.shm_size,
        ulimits=args.ulimit,
        explain=args.explain,
        host_certificates=args.host_certificates,
        parallel=args.parallel,
    )
    name = args.file if args.file not in (None, "-") else "Dockerfile"
    if args.check:
        try:
            return check(request, name)
        except BuildError as error:
            raise error.of_file(name) from None
    written, request = outputs(args.output, request, push=args.push)
    wanted = Outputs(written, args.iidfile or "", args.metadata_file or "", lambda: standard(context, "stdout"))
    form = "quiet" if args.quiet else args.progress
    try:
        return Image(context.engine, context.frontend.progress(build_and_write(context.engine, request, wanted), form))
    except BuildError as error:
        raise error.of_file(name) from None


def _context(context: Context, args: SimpleNamespace) -> tuple[str, dict[str, bytes], bool]:
    """(folder, "" for none; inline files; whether a set of files is the whole context)."""
    if args.context is not None and args.path is not None:
        raise UsageError(f"two contexts: --context {args.context} and {args.path}", "give one")
    folder = args.context if args.context is not None else args.path
    sets = context.files
    files: dict[str, bytes] = {}
    alone = folder is not None and sets is not None and folder in sets.sets
    if alone and os.path.isdir(folder):
        hint = f"./{folder} is the folder, --files {folder} the set"
        raise UsageError(f"{folder} is a set of files of this notebook, and a folder", hint)
    for name in [*([folder] if alone else []), *args.files]:
        if sets is None:
            raise UsageError("sets of files belong to a notebook", "in a shell, write the files into the context folder")
        files.update(sets.get(name))
    return "" if alone or folder == "-" else folder if folder is not None else ".", files, alone


def _dockerfile(
    context: Context, args: SimpleNamespace, body: str | None, folder: str, files: Mapping[str, bytes], alone: bool
) -> str | None:
    """Its text, with a newline in it, or its path; None: the ``Dockerfile`` of the inline files."""
    if body is not None and args.file is not None:
        raise UsageError("two Dockerfiles: the cell body and --file", "give one")
    if body is None and (args.file == "-" or (args.path == "-" and args.file is None)):
        body = (context.stdin() if context.stdin else sys.stdin.buffer.read()).decode("utf-8", "surrogateescape")
    if body is not None:
        return body if "\n" in body else body + "\n"
    if args.file is not None:
        if alone and (content := files.get(inline_path(args.file))) is not None:  # as of any context that is no folder of this machine
            return content.decode("utf-8", "surrogateescape") + "\n"
        return str(args.file)
    if "Dockerfile" in files:
        return None
    if not folder or (args.context is None and args.path is None):
        raise UsageError("build needs a Dockerfile", "a cell body, --file FILE, or the folder that holds one")
    return folder


_CONTEXT = "folder that COPY reads (default: the current one); a set of files (see: file); '' for none"

declare(
    Verb(
        "build",
        "Build an image from a Dockerfile",
        build,
        (
            Option(("--tag", "-t"), "name of the image: NAME[:TAG]", "NAME", many=True),
            Option(("--file", "-f"), "the Dockerfile; - is stdin", "FILE", host_path="whole", completes="file"),
            Option(
                ("--build-arg",),
                "value of an ARG: NAME=VALUE, or NAME for the notebook's variable or the environment's",
                "ARG",
                many=True,
                completes="argument",
            ),
            Option(("--context",), _CONTEXT, "FOLDER", host_path="whole", completes="folder"),
            Option(("--files",), "lay this set of files over the context (see: file)", "NAME", many=True, completes="set"),
            Option(
                ("--build-context",),
                "one more context, for --from: NAME=FOLDER, docker-image://IMAGE, oci-layout://FOLDER, or a git or http(s) address",
                "NAME=VALUE",
                many=True,
                host_path="value",
            ),
            Option(("--target",), "stop at this stage", "STAGE", completes="stage"),
            Option(("--label",), "label of the image: NAME=VALUE", "LABEL", many=True),
            Option(("--no-cache",), "run every step anew"),
            Option(("--no-cache-filter",), "run the steps of these stages anew: STAGE[,STAGE]", "STAGES", many=True, completes="stage"),
            Option(("--explain",), "say of each step why the cache was used, or was not"),
            Option(("--check",), "build nothing: say what Docker's build checks find in the Dockerfile"),
            Option(("--pull",), "fetch base images anew, also those that are here"),
            Option(("--platform",), "OS/ARCHITECTURE to build for", "PLATFORM"),
            Option(("--network",), "network of RUN steps: bridge, none or host", "NETWORK", completes="bridge|none|host"),
            Option(("--add-host",), "a name for RUN steps: NAME:IP; host-gateway is this machine", "HOST", many=True),
            Option(("--shm-size",), "size of /dev/shm in RUN steps (default 64m)", "SIZE"),
            Option(("--ulimit",), "limit of the processes of RUN steps: NAME=SOFT[:HARD]", "ULIMIT", many=True),
            Option(("--host-certificates",), "RUN steps trust the certificate authorities that this machine trusts"),
            Option(
                ("--secret",),
                "for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE",
                "SECRET",
                many=True,
                host_path="output",
            ),
            Option(
                ("--ssh",),
                "for RUN --mount=type=ssh: default (the agent of SSH_AUTH_SOCK), or ID=SOCKET",
                "AGENT",
                many=True,
                host_path="value",
                completes="default",
            ),
            Option(
                ("--output", "-o"),
                "write it also to FOLDER, or type=docker|oci|local|tar,dest=PATH; type=registry pushes it",
                "OUTPUT",
                many=True,
                host_path="output",
                completes="type=docker,dest=|type=oci,dest=|type=local,dest=|type=tar,dest=|type=registry",
            ),
            Option(("--push",), "push it when it is built: the same as --output type=registry"),
            Option(("--load",), "as Docker: here it changes nothing, an image is always kept"),
            Option(("--iidfile",), "write the image's id to this file", "FILE", host_path="whole", completes="file"),
            Option(("--metadata-file",), "write what was built to this file, as JSON", "FILE", host_path="whole", completes="file"),
            Option(
                ("--cache-from",),
                "take steps from this cache: type=local,src=FOLDER or type=registry,ref=NAME",
                "CACHE",
                many=True,
                host_path="output",
            ),
            Option(
                ("--cache-to",),
                "keep the steps there: type=local,dest=FOLDER or type=registry,ref=NAME",
                "CACHE",
                many=True,
                host_path="output",
            ),
            Option(("--parallel",), "how many steps run at a time (default: one for each processor, at least 4)", "NUMBER"),
            Option(("--progress",), "auto, plain (lines), quiet or rawjson", "FORM", default="auto", completes="|".join(_FORMS)),
            Option(("--quiet", "-q"), "the same as --progress quiet"),
        ),
        (Argument("path", "folder that COPY reads, as with docker build; - for none", "?", completes="folder", host_path="whole"),),
        body="optional",
        body_help="the Dockerfile",
        group="Images",
        details="What it all means, with examples: docs/build.md. To keep the image in a variable: %%container -o NAME build …",
        examples=("build -t visits .", "build -t visits -f Dockerfile.dev --build-arg VERSION .", "build --target page -o ./public ."),
    )
)
