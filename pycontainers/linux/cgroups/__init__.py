"""Control groups: one small face over v1, v2 and hybrid machines. Standard library only; no policy."""

from __future__ import annotations

from .group import Group, check, create, enter, open
from .layout import Layout, layout

__all__ = ["Group", "Layout", "check", "create", "enter", "layout", "open"]
