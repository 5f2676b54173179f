"""The containers' folders: which there are, and removing one. The steps of builds have some of their own, hidden from users."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from ..errors import NotFound, UsageError, near
from ..paths import Paths
from ..runtime import client, recover, state

STEP = "step.json"


class Folders:
    """All containers of one user."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.root = str(paths.containers)
        self._plain: set[str] = set()  # ids of no build step: a folder says so from its beginning to its end

    def path(self, container_id: str) -> str:
        return f"{self.root}/{container_id}"

    def ids(self, steps: bool = False) -> list[str]:
        """Full ids; with ``steps`` those of build steps as well."""
        found = [name for name in os.listdir(self.root) if len(name) == 64 and not name.startswith(".")]
        return found if steps else [name for name in found if self._is_plain(name)]

    def steps(self) -> list[str]:
        """Full ids of the containers of build steps."""
        found = self.ids(steps=True)
        self._plain.intersection_update(found)
        return [name for name in found if not self._is_plain(name)]

    def _is_plain(self, container_id: str) -> bool:
        if container_id in self._plain:
            return True
        if os.path.exists(f"{self.path(container_id)}/{STEP}"):
            return False
        self._plain.add(container_id)
        return True

    def name(self, container_id: str) -> str:
        return str((state.read(self.path(container_id), "container.json") or {}).get("name", ""))

    def find(self, container: str) -> str:
        """Full id of a name, an id, or an unambiguous start of one. :raises NotFound: there is none."""
        if not container:
            raise UsageError("no container named", "give a name or an id; ps -a lists them")
        owner = state.named(self.root, container) if "/" not in container else None
        if owner and os.path.isdir(self.path(owner)):
            return owner
        if len(container) == 64 and container.isalnum() and os.path.isdir(self.path(container)) and self._is_plain(container):
            return container
        ids = self.ids()
        found = [name for name in ids if name.startswith(container)] if len(container) >= 2 else []
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise UsageError(f"{container!r} is the start of {len(found)} container ids", "give more characters")
        names = [self.name(name) for name in ids]
        raise NotFound(f"no container {container!r}", near(container, names) or "ps -a lists all")

    def remove(self, container_id: str) -> None:
        """Delete a container that does not run; nothing when it is gone. :raises StateError: somebody works on it."""
        folder = self.path(container_id)
        if not os.path.isdir(folder):
            return
        lock = state.lock_within(folder, 10)
        try:
            # A supervisor killed a moment ago: while its first process was dying, with the lock in its hands, no sweep could do this.
            recover.put_right(self.root, container_id)
            # Supervisor and starter killed together, by want of memory, before state.json told of this.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.paths.run}/containers/{container_id}.sock")
            state.remove_folder(self.root, container_id, self.name(container_id))
        finally:
            os.close(lock)
        if os.geteuid() != 0:
            client.clear(self.paths)


def drop_mount_points(folder: str, places: Sequence[str], uppers: str) -> None:
    """Remove from ``uppers/<n>`` what the runtime had to make in the image (/etc/hosts in ``FROM scratch``): it is nobody's work.

    :param places: the folder of the root file system that each upper folder belongs to.
    """
    for path in reversed((state.read(folder, "made.json") or {}).get("made", [])):
        inside = [place for place in places if place != "/" and path.startswith(place + "/")]
        place = max(inside, key=len, default="")
        found = f"{uppers}/{list(places).index(place or '/')}{path.removeprefix(place)}"
        try:
            if os.path.isdir(found) and not os.path.islink(found):
                os.rmdir(found)
            elif os.path.getsize(found) == 0:
                os.unlink(found)
        except OSError:
            continue  # something was put there: that is somebody's work
