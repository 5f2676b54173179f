"""Part of the package build: the terminal's JavaScript library, from npm into one file of the package.

``js/`` has the names and the lockfile (each package with its sha512); npm gets exactly those, runs none of their scripts, and esbuild
makes one file. It is not in git, and it is in each wheel and source archive. Without Node.js, npm or network the build goes on without
it: then the terminal is the one that sends whole lines. ``python hatch_build.py`` makes it for a checkout by hand.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by hand: there is no build around us
    BuildHookInterface = object

SECONDS = 120.0
"""A registry that does not answer must not hold up an installation for longer."""
_CI = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1", "--fetch-retry-mintimeout=1000",
       "--fetch-timeout=20000")  # fmt: skip
_INPUTS = ("package.json", "package-lock.json", "xterm.js")
_LICENSED = ("xterm", "addon-fit")


class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]
    """Runs for wheels, source archives and editable installs."""

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        why = bundle(Path(self.root))
        if why:
            self.app.display_warning(f"terminals will send whole lines, their library could not be bundled: {why}")


def bundle(root: Path) -> str:
    """Make ``xterm.js`` and ``xterm.css`` where they are missing or made of something else. Returns why not, "" when they are there."""
    source, target = root / "js", root / "pycontainers/notebook/widgets"
    if not (source / "package-lock.json").exists():
        return "" if (target / "xterm.js").exists() else "js/package-lock.json is missing"
    digest = hashlib.sha256(b"\0".join((source / name).read_bytes() for name in _INPUTS)).hexdigest()
    first = f"// made by hatch_build.py of {digest[:32]}\n"
    made = target / "xterm.js"
    if made.exists() and (target / "xterm.css").exists() and made.read_text(encoding="utf-8").startswith(first):
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm (on Debian and Ubuntu: apt-get install npm)"
    with tempfile.TemporaryDirectory(prefix="pycontainers-js-") as folder:
        place = Path(folder)
        for name in _INPUTS:
            shutil.copy(source / name, place / name)
        for command in (["ci", *_CI], ["run", "build"]):
            why = _run([npm, *command], place)
            if why:
                return why
        modules = place / "node_modules/@xterm"
        licences = "".join(f"/*! @xterm/{name}\n{(modules / name / 'LICENSE').read_text(encoding='utf-8')}*/\n" for name in _LICENSED)
        _write(target / "xterm.css", (modules / "xterm/css/xterm.css").read_text(encoding="utf-8"))
        _write(made, first + licences + (place / "out/xterm.js").read_text(encoding="utf-8"))
    return ""


def _run(command: list[str], place: Path) -> str:
    """Why it failed, "" when it did not."""
    try:
        done = subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return "" if done.returncode == 0 else f"npm {command[1]}: {lines[0] if lines else f'exit code {done.returncode}'}"


def _write(path: Path, text: str) -> None:
    """Whole or not at all: another build may be under way."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


if __name__ == "__main__":
    found = bundle(Path(__file__).parent)
    sys.exit(f"error: {found}" if found else 0)
