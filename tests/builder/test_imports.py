"""What a build that fetches nothing does not pay for."""

from __future__ import annotations

import subprocess
import sys


def test_a_build_without_addresses_does_not_import_http():
    slow = {"urllib3", "http.client", "pycontainers.builder.git"}
    code = f"import sys, pycontainers.builder.solver; print(*sorted({slow} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=True, text=True, capture_output=True).stdout.strip() == ""
