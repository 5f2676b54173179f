"""Widgets. The live stats view is the first."""
