"""``kernel``: an image as a Jupyter kernel."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from types import SimpleNamespace

from ..errors import UsageError, near
from ..kernels import program, specs
from ..protocol import ContainerConfig
from ..results import Output, Rows, Text
from .declare import Argument, Option, Verb, declare
from .frontend import Context
from .lifecycle import each
from .options import container_config
from .pulling import with_image
from .run import PLURAL
from .run_options import PULL_OPTIONS, RUN_OPTIONS

#: what a kernel decides itself: it lives and ends with the page that uses it
_OWN = {
    "--name", "--interactive", "--tty", "--init", "--rm", "--replace", "--restart", "--lifetime", "--stop-signal", "--stop-timeout",
    "--cidfile",
}  # fmt: skip
CONTAINER_OPTIONS = tuple(
    option for option in RUN_OPTIONS if option.flags[0] not in _OWN and not option.flags[0].startswith(("--health", "--no-health"))
)
_ACTIONS = ("install", "list", "remove")
ENV = "PYCONTAINERS_KERNEL_ENV"
"""In the launcher's environment: a JSON list of ``NAME=VALUE`` for the container's."""


def kernel(context: Context, args: SimpleNamespace, body: str | None) -> Rows | Text:
    if args.what == "install":
        if len(args.image_or_kernel) != 1:
            count = len(args.image_or_kernel)
            raise UsageError(f"kernel install needs one IMAGE, not {count}", "%container kernel install IMAGE --name NAME")
        return _install(context, args, args.image_or_kernel[0])
    if args.what in ("list", "ls"):
        if args.image_or_kernel:
            raise UsageError(f"kernel list takes no argument {args.image_or_kernel[0]!r}", "%container kernel list")
        return _list()
    if args.what in ("remove", "rm", "uninstall"):
        if not args.image_or_kernel:
            raise UsageError("kernel remove needs NAME: which kernels", "see: %container kernel list")
        removed = each(args.image_or_kernel, specs.remove, lambda spec: spec.name)
        return Text("\n".join(f"removed kernel {spec.name} ({spec.folder})" for spec in removed))
    raise UsageError(f"kernel {args.what!r} is unknown", near(args.what, _ACTIONS) or "kernel install, kernel list, or kernel remove")


def config_of(args: SimpleNamespace, image: str, command: tuple[str, ...]) -> ContainerConfig:
    """The container of a kernel. Its command is whole: the image's entrypoint has no part in it, unless it is asked for."""
    words = {PLURAL.get(option.dest, option.dest): getattr(args, option.dest) for option in CONTAINER_OPTIONS}
    if words["entrypoint"] is None:
        words["entrypoint"] = ""
    return container_config(image, command, **words)


def words_of(args: SimpleNamespace) -> tuple[str, ...]:
    """The options of a container as words again: what was given, and nothing else."""
    words = []
    for option in CONTAINER_OPTIONS:
        value = getattr(args, option.dest)
        if value == option.start:
            continue
        if not option.metavar:
            words.append(option.flags[0] if value else f"{option.flags[0]}=false")
        else:
            words += [f"{option.flags[0]}={item}" for item in (value if option.many else [value])]
    return tuple(words)


def _install(context: Context, args: SimpleNamespace, image: str) -> Text:
    name = specs.check_name(args.name or _name_of(image))
    command = _command(args.command)
    if command and not any(program.PLACE in word for word in command):
        raise UsageError(f"--command {args.command!r} does not say where its connection file goes", "write {{connection_file}} there")
    config = config_of(args, image, command)
    found = None
    if not command:
        found = program.ask(context.engine, config, lambda asked, output: _run(context, args, asked, output))
        command = (found.executable, program.IPYKERNEL)
    else:
        with_image(context.engine, image, args.pull, args.platform, context.frontend.progress, lambda: context.engine.image(image))
    spec = specs.KernelSpec(name, args.display_name or f"{image} (container)", image, words_of(args), "")
    values = [word.removeprefix("--env=") for word in spec.options if _has_value(word)]
    env = {key: value for key, value in os.environ.items() if key in ("PYCONTAINERS_HOME", "PYCONTAINERS_RUN")}
    spec = specs.write(
        specs.folders(args.sys_prefix),
        spec,
        launch_words(spec, command),
        args.language,
        found is not None and found.debugger,
        {**env, ENV: json.dumps(values)} if values else env,
        # ipykernel is asked by a message on its control channel; other kernels may know SIGINT alone.
        interrupt="message" if found else "signal",
        private=bool(values),
    )
    versions = f" with Python {found.python} and ipykernel {found.ipykernel}" if found else ""
    return Text(f"installed kernel {name}: {image}{versions}\n{spec.folder}\nchoose {spec.display_name!r} in Jupyter's list of kernels")


def _has_value(word: str) -> bool:
    """``--env=TOKEN=abc``: perhaps a secret. A command line is everybody's to read (proc_pid_cmdline(5)), an environment is not."""
    return word.startswith("--env=") and word.count("=") > 1


def launch_words(spec: specs.KernelSpec, command: tuple[str, ...]) -> list[str]:
    """What Jupyter executes. ``-P``: nothing is imported from the folder of a notebook."""
    options = [word for word in spec.options if not _has_value(word)]
    launcher = [sys.executable, "-P", "-m", "pycontainers.commands.kernel_launcher", f"--kernel={spec.name}", *options]
    return [*launcher, "{connection_file}", spec.image, *command]


def _run(context: Context, args: SimpleNamespace, config: ContainerConfig, output: Output) -> int | None:
    def progress(work: object) -> object:
        return context.frontend.progress(work, "auto", "pulled")  # type: ignore[arg-type]

    image = config.image
    _, exit = with_image(context.engine, image, args.pull, args.platform, progress, lambda: context.engine.run(config, None, output))
    return exit.code


def _command(text: str | None) -> tuple[str, ...]:
    """``--command`` as words, with our own mark for the connection file in place of Jupyter's."""
    if text is None:
        return ()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--command {text!r}: {error}", "quote it as for a shell") from None
    return tuple(re.sub(r"\{?\{connection_file\}\}?", program.PLACE, word) for word in words)


def _name_of(image: str) -> str:
    """``registry.example/data:1.2`` → ``data-1.2``; ``data:latest`` → ``data``."""
    last = image.rpartition("/")[2].partition("@")[0].removesuffix(":latest")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._") or "container"


def _list() -> Rows:
    rows = []
    for spec in specs.found():
        options = ["=".join(word.split("=")[:2]) + "=…" if _has_value(word) else shlex.quote(word) for word in spec.options]
        rows.append([spec.name, spec.display_name, spec.image, " ".join(options), spec.folder])
    empty = "no kernels in containers; make one: %container kernel install IMAGE --name NAME"
    return Rows(("NAME", "DISPLAY NAME", "IMAGE", "OPTIONS", "FOLDER"), rows, empty)


declare(
    Verb(
        "kernel",
        "Make an image a Jupyter kernel: its notebooks run in a container",
        kernel,
        (
            Option(("--name",), "name of the kernel (install; default: that of the image)", "NAME"),
            Option(("--display-name",), "name in Jupyter's list of kernels", "TEXT"),
            Option(("--sys-prefix",), "install for this Python (a virtual environment), not for this user"),
            Option(("--command",), "how the image's kernel is started, where it is not ipykernel", "COMMAND"),
            Option(("--language",), "language of its notebooks, with --command", "NAME", default="python"),
            *PULL_OPTIONS,
            *CONTAINER_OPTIONS,
        ),
        (
            Argument("what", "install, list or remove", completes="install|list|remove"),
            Argument("image or kernel", "an image (install), or kernels (remove)", "*", completes="install=image,remove=kernel"),
        ),
        group="Jupyter",
        details="The kernel's container is made when a notebook starts it and is removed when that ends; the options are those of run.\n"
        "In -v, a relative folder is one beside the notebook: -v .:/data -w /data. It is reached over sockets, also with --network none.",
        examples=(
            "kernel install data --name data --memory 4g --network none -v .:/data -w /data",
            "kernel install r-image --language R --command 'R --slave -e IRkernel::main() --args {{connection_file}}'",
            "kernel list",
            "kernel remove data",
        ),
    )
)
