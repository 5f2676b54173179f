"""How many of many are done, as words: for a bar in a notebook, and for a line on a terminal."""

from __future__ import annotations

import time

from ..text import one_line


class Count:
    """Called with how many are done, how many of these failed, and how many there are."""

    def __init__(self, name: str) -> None:
        self.name = one_line(name)
        self.done = self.failed = self.count = 0
        self._began = time.monotonic()

    def __call__(self, done: int, failed: int, count: int) -> None:
        self.done, self.failed, self.count = done, failed, count

    def text(self, ended: bool) -> str:
        """``✓ fit: 8 of 8, in 3.2 s``; an icon and words, for who sees no colours."""
        passed = time.monotonic() - self._began
        mark = "…" if not ended else "✗" if self.failed else "✓" if self.done == self.count else "■"
        words = [f"{mark} {self.name}: {self.done} of {self.count}"]
        if self.failed:
            words.append(f"{self.failed} failed")
        if ended:
            words.append(("in " if self.done == self.count else "stopped after ") + f"{passed:.1f} s")
        elif self.done and passed > 2:
            words.append(f"about {passed / self.done * (self.count - self.done):.0f} s left")
        return ", ".join(words)
