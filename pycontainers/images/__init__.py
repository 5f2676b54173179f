"""Images: references, the OCI store, layers, and this machine as the image ``host``."""
