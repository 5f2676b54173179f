"""Registries (OCI distribution specification 1.1, Docker's registry API): :class:`.client.Registry`, :mod:`.login`, :mod:`.credentials`."""
