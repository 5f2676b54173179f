"""A Debian or Ubuntu system as an image, without a registry: packages from a mirror, by mmdebstrap or debootstrap.

The tool verifies what it fetches by the distribution's keyring. It runs with a mount and a pid namespace of its own: it mounts
/proc and /sys into the new system, and whoever kills it (or us) must leave neither mounts nor processes. The times of all files end at the
date of the archive's state, and what differs from run to run is removed: the same packages give the same layer.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from ..errors import ImageError, NotFound, UsageError, near
from ..events import Done, Note, Transfer, Work
from ..linux import idmap, trees
from ..protocol import BootstrapRequest
from . import cleaning, durable, host, reference, suites
from .records import Layer
from .store import Image, Store
from .suites import Distribution, Release

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIANTS = ("minbase", "apt", "essential", "required", "buildd", "important", "debootstrap", "standard")
_OF_DEBOOTSTRAP = ("minbase", "buildd")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?::[a-z0-9-]+)?(?:[=/][A-Za-z0-9.+:~-]+)?\Z")
#: What the tool may see of this process's environment; maintainer scripts see the rest of theirs from the tool.
_PASSED_ON = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_UNITS = {"B": 1, "kB": 1000, "MB": 1000_000, "GB": 1000_000_000}
_FETCHED = re.compile(r"Get:\d+ .*\[([\d.,]+) (B|kB|MB|GB)\]$")
_NEEDED = re.compile(r"Need to get ([\d.,]+) (B|kB|MB|GB)")
_NEW = re.compile(r"\d+ (?:packages )?upgraded, (\d+) newly installed")
_INSTALLED = re.compile(r"Setting up |I: Configuring (?!required|the base)")
_MINE = re.compile(r"I: Retrieving (?!InRelease|Packages|Release)|I: Validating ")
_TAIL = 40
_PERIOD = 0.1


def bootstrap(store: Store, request: BootstrapRequest) -> Work[Image]:
    """See :meth:`pycontainers.protocol.Engine.bootstrap`."""
    started = time.perf_counter()
    distribution, suite = suites.parse(request.system)
    platform, architecture = _architecture(request.architecture)
    name = request.name or f"{distribution.name}:{request.system.partition(':')[2] or 'latest'}"
    reference.check_free(name)
    tool = _tool(request, distribution)
    yield Transfer("release", "downloading")
    found = suites.releases(distribution, suite, architecture, request.mirror)
    yield Transfer("release", "done")
    tree = store.new_layer()
    try:
        date = _date(found)
        yield from tool(_Job(store, request, distribution, found, architecture, tree, date))
        yield Transfer("layer", "packing")
        cleaning.clean(tree, distribution, found)
        cleaning.clamp(tree, date)
        layer = store.commit(tree, "")
    except BaseException:
        store.discard(tree)
        raise
    yield Transfer("layer", "done", layer.size, layer.size)
    image = store.save_image(_config(request, distribution, platform, date, layer), [layer], "")
    store.tag(image.id, name)
    yield Done(name, time.perf_counter() - started)
    return store.resolve(image.id)


@dataclass(frozen=True)
class _Job:
    """``architecture``: by Debian's name; ``tree``: the empty folder to fill; ``date``: unix seconds that no file may be later than."""

    store: Store
    request: BootstrapRequest
    distribution: Distribution
    releases: list[Release]
    architecture: str
    tree: str
    date: int

    @property
    def include(self) -> list[str]:
        return [f"--include={','.join(self.request.include)}"] if self.request.include else []


_Tool = Callable[[_Job], Work[None]]


def _architecture(asked: str) -> tuple[str, str]:
    """(OCI's name, Debian's). :raises UsageError: unknown."""
    word = asked.removeprefix("linux/") or host.architecture()
    word = {"x86_64": "amd64", "aarch64": "arm64", "arm64/v8": "arm64", "arm": "arm/v7"}.get(word, word)
    for oci, debian in suites.ARCHITECTURES.items():
        if word in (oci, debian):
            return oci, debian
    known = [*suites.ARCHITECTURES, *suites.ARCHITECTURES.values()]
    raise UsageError(f"{asked!r} is not an architecture of Debian", near(asked, known) or f"one of {', '.join(suites.ARCHITECTURES)}")


def _tool(request: BootstrapRequest, distribution: Distribution) -> _Tool:
    """Who does it here. Everything that can be known to fail is refused before anything is fetched."""
    if request.variant not in VARIANTS:
        hint = near(request.variant, VARIANTS) or f"one of {', '.join(VARIANTS)}"
        raise UsageError(f"bootstrap knows no variant {request.variant!r}", hint)
    for package in request.include:
        if not _PACKAGE.match(package):
            raise UsageError(f"{package!r} is not the name of a package", "--include curl,ca-certificates")
    found = {name: _which(name) for name in ("mmdebstrap", "debootstrap")}
    if not any(found.values()):
        raise NotFound(
            "neither mmdebstrap nor debootstrap is installed",
            "apt-get install mmdebstrap; or %container import the tar of a root file system",
        )
    if not os.path.exists(distribution.keyring):
        hint = f"apt-get install {distribution.package}"
        raise NotFound(f"{distribution.keyring} is missing: nothing from its mirrors can be verified", hint)
    if idmap.single():
        # Measured: as root of a single id tar(1) cannot give files to others (EINVAL), and fakeroot(1) does not cover for that.
        hint = "subordinate ids (apt-get install uidmap), or root; or %container import the tar of a root file system"
        raise NotFound("bootstrap needs more than the single id that this user has", hint)
    if found["mmdebstrap"]:
        return _mmdebstrap
    if not idmap.initial() or os.geteuid() != 0:
        raise NotFound("debootstrap works for root alone, and mmdebstrap is not installed", "apt-get install mmdebstrap")
    if request.variant not in _OF_DEBOOTSTRAP:
        hint = f"apt-get install mmdebstrap; or one of {', '.join(_OF_DEBOOTSTRAP)}"
        raise UsageError(f"variant {request.variant} needs mmdebstrap", hint)
    return _debootstrap


def _date(found: list[Release]) -> int:
    """When this state of the archive was made, or what SOURCE_DATE_EPOCH says."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isascii() and text.isdigit() else max(release.date for release in found)


# -- the tools


def _mmdebstrap(job: _Job) -> Work[None]:
    distribution = job.distribution
    # Debian's keys become those of the image's apt by its own package; for the others apt is told here, and in the image by its sources.
    debian = distribution.name == "debian"
    signed, keyring = ("", [f"--keyring={distribution.keyring}"]) if debian else (f"[signed-by={distribution.keyring}] ", [])
    lines = [f"deb {signed}{release.mirror} {release.suite} {distribution.components}" for release in job.releases]
    words = [
        "mmdebstrap", "--verbose", "--mode=root", "--format=directory", f"--variant={job.request.variant}",
        f"--architectures={job.architecture}", *job.include, *keyring, job.releases[0].suite, job.tree, *lines,
    ]  # fmt: skip
    with _Process(job, words) as process:
        yield from _watch(process)


def _debootstrap(job: _Job) -> Work[None]:
    main, *updates = job.releases
    extra = [release.suite for release in updates if release.mirror == main.mirror]
    if len(extra) < len(updates):
        yield Note("debootstrap fetches from one server, so security updates are not in it: apt-get upgrade inside, or install mmdebstrap")
    words = [
        "debootstrap", f"--variant={job.request.variant}", f"--arch={job.architecture}", "--force-check-gpg",
        f"--keyring={job.distribution.keyring}", f"--components={','.join(job.distribution.components.split())}", *job.include,
        *([f"--extra-suites={','.join(extra)}"] if extra else []), main.suite, job.tree, main.mirror,
    ]  # fmt: skip
    with _Process(job, words) as process:
        yield from _watch(process)


class _Process:
    """The tool, in namespaces that end with it. Left early it is killed, with all its children, and waited for."""

    def __init__(self, job: _Job, words: list[str]) -> None:
        self.tool = words[0]
        self._folder = f"{job.store.ingest}/{durable.fresh_name()}"  # for its temporary files; a sweep removes it where nobody else could
        self._words, self._date = words, job.date

    def __enter__(self) -> _Process:
        durable.make_folder(self._folder, 0o755)
        fresh_proc = ["--mount-proc"] if _proc_can_be_mounted() else []
        # Two steps: the tool and all that it starts die with unshare(1), and that dies with whoever waits for it here.
        guard = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child=KILL"]
        environment = {
            "PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TMPDIR": self._folder, "SOURCE_DATE_EPOCH": str(self._date),
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        }  # fmt: skip
        try:
            self._process = subprocess.Popen(
                [*guard, *fresh_proc, *self._words], env=environment, cwd="/", umask=0o022, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except BaseException:
            trees.remove(self._folder)
            raise
        return self

    def lines(self) -> Iterator[str]:
        """What it says until its end."""
        for line in self._said:
            yield line.decode("utf-8", "replace").rstrip("\n")

    @property
    def _said(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def wait(self) -> int:
        return self._process.wait()

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with self._said as said:
            while said.read(1 << 16):
                pass  # its children hold it open: at its end, none of them is left
        self._process.wait()
        trees.remove(self._folder)


def _proc_can_be_mounted() -> bool:
    """Where an outer container covers parts of /proc the kernel refuses a fresh one (mount_namespaces(7), locked mounts)."""
    test = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    return subprocess.run(test, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _watch(process: _Process) -> Work[None]:
    """The tool's lines as events, at most ten a second. :raises ImageError: it failed; with its own word for why."""
    tail: list[str] = []
    needed = fetched = installed = packages = 0
    shown, item = 0.0, "packages"
    for line in process.lines():
        tail = [*tail, line][-_TAIL:]
        before, was = (needed, fetched, installed), item
        if (found := _NEEDED.match(line)) is not None:
            needed += _bytes(found)
            shown = 0.0
        elif (found := _NEW.match(line)) is not None:
            packages += int(found[1])
        elif needed and (found := _FETCHED.match(line)) is not None:
            fetched, item = fetched + _bytes(found), "packages"
        elif line.startswith("I: extracting archives"):
            yield Transfer("install", "unpacking", 0, packages, unit="packages")
        elif _INSTALLED.match(line):
            installed, item = installed + 1, "install"
        elif _MINE.match(line):
            packages += line.startswith("I: Retrieving ")
        if item != was and needed:  # where the one ends and the other begins is told, however little time lies between two lines
            yield _progress(was, *before, packages)
            shown = 0.0
        now = time.monotonic()
        if (needed, fetched, installed) != before and now - shown >= _PERIOD:
            shown = now
            yield _progress(item, needed, fetched, installed, packages)
    if (code := process.wait()) != 0:
        raise _failure(process.tool, code, tail)
    if needed:
        yield Transfer("packages", "done", needed, needed)
    yield Transfer("install", "done", installed, installed, unit="packages")


def _progress(item: str, needed: int, fetched: int, installed: int, packages: int) -> Transfer:
    if item == "packages":
        return Transfer("packages", "downloading", min(fetched, needed), needed)
    return Transfer("install", "installing", installed, max(packages, installed), unit="packages")


def _bytes(found: re.Match[str]) -> int:
    return round(float(found[1].replace(",", "")) * _UNITS[found[2]])


def _failure(tool: str, code: int, tail: list[str]) -> ImageError:
    """The first thing that apt, dpkg or the tool complained of says more than that the tool failed in the end."""
    said = [line.removeprefix("E: ") for line in tail if line.startswith(("E: ", "dpkg: error", "E:"))]
    useful = [line for line in said if not line.startswith((tool, "apt-get ", "setup failed", "run_chroot failed"))] or said or tail[-1:]
    why = useful[0] if useful else f"it ended with code {code}"
    hint = "a package's name: see packages.debian.org" if "Unable to locate package" in why else ""
    if "NO_PUBKEY" in why or "not signed" in why:
        hint = "the keyring of this machine is older than the release: apt-get install --only-upgrade debian-archive-keyring"
    if not hint and code < 0:
        hint = "it was killed"
    return ImageError(f"{tool}: {why}", hint)


def _config(request: BootstrapRequest, distribution: Distribution, platform: str, date: int, layer: Layer) -> dict[str, Any]:
    created = datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    architecture, _, variant = platform.partition("/")
    words = [f"bootstrap {request.system}", f"--variant {request.variant}", *[f"--include {package}" for package in request.include]]
    return {
        "architecture": architecture,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "created": created,
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["bash" if distribution.name == "debian" else "/bin/bash"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "history": [{"created": created, "created_by": " ".join(words), "comment": "pycontainers"}],
    }


def _which(name: str) -> str | None:
    return shutil.which(name, path=PATH)
