"""Restart policies, as Docker has them (moby, restartmanager): when a container that has ended starts again, and after what pause."""

from __future__ import annotations

from typing import Any

FIRST, LONGEST = 0.1, 60.0
"""Seconds of the first pause, which doubles with each restart, and of the longest."""

STABLE = 10.0
"""A container that ran for so many seconds begins with the first pause again."""


class Restart:
    """One container's policy at work. ``count``: restarts so far."""

    def __init__(self, policy: dict[str, Any] | None) -> None:
        self.count = 0
        self._pause = 0.0
        self.set(policy)

    def set(self, policy: dict[str, Any] | None) -> None:
        self.name: str = (policy or {}).get("name") or "no"
        self.retries: int = (policy or {}).get("retries") or 0

    def after(self, code: int, seconds: float) -> float | None:
        """The pause before the next start, None when there is none. ``code``: its exit code; ``seconds``: how long it ran."""
        if self.name == "no" or (self.name == "on-failure" and (code == 0 or 0 < self.retries <= self.count)):
            return None
        self._pause = FIRST if seconds >= STABLE or not self._pause else min(2 * self._pause, LONGEST)
        self.count += 1
        return self._pause
