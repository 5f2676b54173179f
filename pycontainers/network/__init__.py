"""Bridges, addresses, links and ports, through pyroute2 in a helper process of its own."""
