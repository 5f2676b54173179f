"""Kernelspecs: the folders in which Jupyter looks for kernels. Ours carry what they are in ``metadata.pycontainers``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import NotFound, StateError, UsageError, near

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OURS = "pycontainers"
#: A box with a prompt: Jupyter shows it in its launcher, on light and dark.
_LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><g fill="none" stroke-linejoin="round" stroke-linecap="round">
<path d="M32 5 56 18v28L32 59 8 46V18z" fill="#1f77b4" stroke="#155d8f" stroke-width="2"/>
<path d="M8 18l24 13 24-13M32 31v28" stroke="#fff" stroke-opacity=".55" stroke-width="2"/>
<path d="M14 31l6 6-6 1M24 45l5 3" stroke="#fff" stroke-width="3.4"/>
<path d="M20 11.500l24 13" stroke="#fff" stroke-opacity=".55" stroke-width="2"/></g></svg>
"""


@dataclass(frozen=True)
class KernelSpec:
    """One of our kernels. ``folder``: where its kernel.json lies; ``options``: those of its container, as words."""

    name: str
    display_name: str
    image: str
    options: tuple[str, ...]
    folder: str


def check_name(name: str) -> str:
    """:raises UsageError: Jupyter takes no such name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not the name of a kernel", "letters, digits, and . _ - between them: --name data")
    return name.lower()  # Jupyter finds kernels by their names in lower case


def folders(sys_prefix: bool = False) -> str:
    """Where kernels are installed: the user's own data folder, or this Python's (a virtual environment)."""
    if sys_prefix:
        return os.path.join(sys.prefix, "share", "jupyter", "kernels")
    from jupyter_core.paths import jupyter_data_dir

    return os.path.join(jupyter_data_dir(), "kernels")


def write(
    place: str,
    spec: KernelSpec,
    argv: Sequence[str],
    language: str,
    debugger: bool,
    env: Mapping[str, str],
    interrupt: str = "message",
    private: bool = False,
) -> KernelSpec:
    """Put a kernelspec into the folder ``place``; one of ours of this name is replaced, and stays where the new one cannot be written.

    :param interrupt: ``message`` on the control channel, or ``signal`` to the process that keeps the container, which passes it on.
    :param private: nobody else on this machine may read it: it holds values of variables.
    :raises StateError: another kernel has the name. :raises UsageError: the folder cannot be written.
    """
    folder = os.path.join(place, spec.name)
    if os.path.lexists(folder) and _read(folder, spec.name) is None:
        raise StateError(f"kernel {spec.name!r} is there, and is not of a container ({folder})", "choose another name: --name NAME")
    document = {
        "argv": list(argv),
        "display_name": spec.display_name,
        "language": language,
        "interrupt_mode": interrupt,
        "env": dict(env),
        "metadata": {"debugger": debugger, _OURS: {"image": spec.image, "options": list(spec.options)}},
    }
    made = ""
    try:
        os.makedirs(place, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f".{spec.name}-", dir=place)
        os.chmod(made, 0o700 if private else 0o755)
        for name, text in (("kernel.json", json.dumps(document, indent=1) + "\n"), ("logo-svg.svg", _LOGO)):
            with open(os.path.join(made, name), "w", encoding="utf-8") as file:
                file.write(text)
        if os.path.lexists(folder):
            os.rename(folder, f"{made}.old")
        os.rename(made, folder)
        _delete(f"{made}.old")
    except OSError as error:
        if made:
            shutil.rmtree(made, ignore_errors=True)
        hint = "JUPYTER_DATA_DIR names another folder, --sys-prefix this Python's"
        raise UsageError(f"{error.filename or place}: {error.strerror}", hint) from None
    return KernelSpec(spec.name, spec.display_name, spec.image, spec.options, folder)


def found() -> list[KernelSpec]:
    """Our kernels in all folders where Jupyter looks, by name; the first of a name is the one that it starts."""
    from jupyter_core.paths import jupyter_path

    specs: dict[str, KernelSpec] = {}
    for place in [*jupyter_path("kernels"), folders(sys_prefix=True)]:
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                spec = _read(os.path.join(place, name), name)
                if spec is not None:
                    specs.setdefault(name, spec)
    return [specs[name] for name in sorted(specs)]


def remove(name: str) -> KernelSpec:
    """:raises NotFound: none of ours has this name. :raises StateError: it may not be removed."""
    known = {spec.name: spec for spec in found()}
    if name not in known:
        raise NotFound(f"no kernel {name!r} of a container", near(name, known) or "see: %container kernel list")
    spec = known[name]
    try:
        _delete(spec.folder)
    except OSError as error:
        hint = f"whose folder it is may: rm -r {spec.folder}"
        raise StateError(f"kernel {name!r} cannot be removed: {error.filename}: {error.strerror}", hint) from None
    return spec


def _delete(folder: str) -> None:
    """A kernelspec's folder, or the link to one."""
    if os.path.islink(folder):
        os.unlink(folder)
    elif os.path.lexists(folder):
        shutil.rmtree(folder)


def _read(folder: str, name: str) -> KernelSpec | None:
    """The kernel of this folder where it is one of ours."""
    try:
        with open(os.path.join(folder, "kernel.json"), encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
        ours = document["metadata"][_OURS]
        options = tuple(str(word) for word in ours["options"])
        return KernelSpec(name, str(document["display_name"]), str(ours["image"]), options, folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None
