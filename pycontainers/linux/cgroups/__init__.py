"""Control groups: one small face over v1, v2 and hybrid machines. Standard library only; no policy."""

from __future__ import annotations

from .delegated import Delegation, delegation
from .group import Group, enter
from .layout import Layout, layout
from .making import check, create, open

__all__ = ["Delegation", "Group", "Layout", "check", "create", "delegation", "enter", "layout", "open"]
