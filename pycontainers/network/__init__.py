"""Bridges, addresses, links and ports; links and rules through a helper process of its own."""
