"""RUN --mount of ordinary users, with ranges and with a single id: caches, what is bound, secrets, agents, scripts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Somebody

DOCKERFILE = """\
FROM host AS made
RUN mkdir /srv/m && echo m > /srv/m/m
FROM host
RUN --mount=type=cache,target=/c,mode=0750 echo x >> /c/f; stat -c '%a' /c; wc -l < /c/f
RUN --mount=target=/ctx --mount=from=made,source=/srv/m,target=/m cat /ctx/in /m/m; touch /ctx/no 2>/dev/null || echo read-only
RUN --mount=source=sub,target=/s,rw echo changed > /s/f; cat /s/f
RUN --mount=type=secret,id=key,mode=0440 --mount=type=secret,id=key,env=KEY \\
    stat -c '%a' /run/secrets/key; cat /run/secrets/key; echo " $KEY"
RUN --mount=type=tmpfs,target=/t stat -f -c %T /t
RUN <<SCRIPT
#!/usr/bin/env python3
import sys
print(sys.argv)
SCRIPT
"""


def test_mounts(somebody: Somebody) -> None:
    folder = f"{somebody.home}/mounts"
    os.makedirs(f"{folder}/sub", exist_ok=True)
    for name, text in (("Dockerfile", DOCKERFILE), ("in", "of the context\n"), ("sub/f", "f\n"), ("key", "sesame")):
        Path(folder, name).write_text(text)
    Path(folder, ".dockerignore").write_text("key\nDockerfile\n")
    said = somebody("build", "--progress", "plain", "--network", "none", "--secret", f"id=key,src={folder}/key", folder) + somebody.stderr
    lines = re.findall(r"^#\d+ \| (.*)$", said, re.MULTILINE)
    assert lines == ["750", "1", "of the context", "m", "read-only", "changed", "440", "sesame sesame", "tmpfs", "['/dev/pipes/SCRIPT']"]
    assert Path(folder, "sub/f").read_text() == "f\n"
    assert os.listdir(f"{somebody.home}/state/images/ingest") == []


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs ssh-agent (apt-get install openssh-client)")
def test_an_agent(somebody: Somebody) -> None:
    """His own agent, which answers to him alone."""
    place, folder = f"{somebody.home}/agent", f"{somebody.home}/agents"
    os.makedirs(folder, exist_ok=True)
    Path(folder, "Dockerfile").write_text("FROM host\nRUN --mount=type=ssh ssh-add -l\n")
    with subprocess.Popen(somebody.command("ssh-agent", "-D", "-a", place), stdout=subprocess.DEVNULL) as agent:
        try:
            while not os.path.exists(place):
                time.sleep(0.01)
            key = f"{somebody.home}/key"
            assert somebody.do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of-the-test", "-f", key).returncode == 0
            assert somebody.do("env", f"SSH_AUTH_SOCK={place}", "ssh-add", "-q", key).returncode == 0
            said = somebody("build", "--progress", "plain", "--network", "none", "--ssh", f"default={place}", folder) + somebody.stderr
            assert "of-the-test" in said
        finally:
            agent.terminate()
