"""``pycontainers-oci``: the command line by which engines drive an OCI runtime (runtime-spec; a superset of runc's and crun's)."""
