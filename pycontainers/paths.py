"""Where state lives. Two roots: ``home`` (survives a reboot) and ``run`` (sockets, locks; never on a network file system)."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ContainersError


@dataclass(frozen=True)
class Paths:
    """The folders of one user's state. Every room asks here and nowhere else."""

    home: Path
    run: Path

    @property
    def containers(self) -> Path:
        """One folder per container, named by its full id."""
        return self.home / "containers"

    @property
    def images(self) -> Path:
        """The image store: ``blobs/sha256``, ``refs``, ``snapshots``, ``cache``, ``host``."""
        return self.home / "images"

    @property
    def networks(self) -> Path:
        """Address leases, one folder per network."""
        return self.home / "networks"

    @property
    def locks(self) -> Path:
        return self.run / "locks"

    @property
    def launcher_socket(self) -> Path:
        return self.run / "launcher.sock"

    @property
    def network_socket(self) -> Path:
        return self.run / "network.sock"

    def prepare(self) -> Paths:
        """Make the folders, private to their user (0700).

        What lies in a container's upper folder has the owners and modes that were given inside: a set-uid file of root that an
        unprivileged user of the machine could reach would make him root (CVE-2021-41091).
        """
        try:
            self.home.mkdir(mode=0o711, parents=True, exist_ok=True)
            private_folder(self.run)
            for folder in (self.containers, self.images, self.networks):
                folder.mkdir(mode=0o700, exist_ok=True)
                if folder.stat().st_mode & 0o077:
                    folder.chmod(0o700)  # made by an earlier version
            self.locks.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            hint = "PYCONTAINERS_HOME and PYCONTAINERS_RUN move the state to folders that can be written"
            raise ContainersError(f"{error.filename}: {error.strerror}", hint) from None
        return self


def private_folder(path: Path) -> None:
    """Make ``path`` as a 0700 folder of this user, and refuse one that somebody else prepared (a /tmp squatter)."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ContainersError(
            f"{path} is not a private folder of uid {os.geteuid()} (owner {found.st_uid}, mode {found.st_mode & 0o7777:o})",
            "remove it, or set XDG_RUNTIME_DIR to a folder of your own with mode 0700",
        )


def paths(environ: Mapping[str, str] | None = None) -> Paths:
    """The folders of this user.

    Root: ``/var/lib/pycontainers`` and ``/run/pycontainers``; others by the XDG base directory specification.
    ``PYCONTAINERS_HOME`` moves ``home``, ``PYCONTAINERS_RUN`` moves ``run`` (tests, several users of one account).
    """
    env = os.environ if environ is None else environ
    uid = os.geteuid()
    if uid == 0:
        home, run = Path("/var/lib/pycontainers"), Path("/run/pycontainers")
    else:
        data = env.get("XDG_DATA_HOME") or os.path.join(env.get("HOME", "/"), ".local/share")
        home = Path(data) / "pycontainers"
        runtime = env.get("XDG_RUNTIME_DIR")
        run = Path(runtime) / "pycontainers" if runtime else Path(tempfile.gettempdir()) / f"pycontainers-{uid}"
    if env.get("PYCONTAINERS_HOME"):
        home = Path(env["PYCONTAINERS_HOME"]).absolute()
    if env.get("PYCONTAINERS_RUN"):
        run = Path(env["PYCONTAINERS_RUN"]).absolute()
    return Paths(home, run)
