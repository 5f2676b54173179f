"""What launcher and network helper greet with, and their clients expect: other code, or another Python, replaces both."""

from __future__ import annotations

from ..version import stamp

VERSION = stamp("linux", "runtime", "network", "metrics")
