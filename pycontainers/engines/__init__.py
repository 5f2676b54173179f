"""Engines: the native one, later adapters to existing ones."""
