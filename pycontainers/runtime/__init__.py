"""From an OCI runtime spec to a supervised process."""
