"""CVE-2020-15257: a container that shares the host's network talks to the sockets of the runtime, which obeys whoever reaches it.

Abstract names belong to the network namespace. Ours are paths in a folder of their own; and who asks is checked, for the case that
the folder is handed into a container as a volume.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pycontainers.protocol import Mount

pytestmark = pytest.mark.root

CONNECT = """
import json, socket, sys
names = {line.split()[-1] for line in open('/proc/net/unix') if len(line.split()) > 7}
names = {name for name in names if sys.argv[1] in name} | set(sys.argv[2:])
for name in sorted(names):
    for address in (name, '\\0' + name.lstrip('@')):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(5)
            try:
                sock.connect(address)
                answer = json.loads(sock.recv(10000))
                print('hello', answer['hello']) if 'hello' in answer else print('refused:', answer['message'])
            except OSError as error:
                pass
print('tried', len(names))
"""


class TestHostsNetwork:
    """The attacker is root of the machine's user namespace, so that the check of who asks does not hold him up."""

    def attack(self, engine: Any, output: Any) -> str:
        return str(output(engine, "python", "-c", CONNECT, str(engine.paths.run), network="host", userns="host"))

    def test_succeeds_with_an_abstract_name(self, without: Any, output: Any) -> None:
        assert "hello launcher" in self.attack(without("socket_by_path"), output)

    def test_fails_here(self, engine: Any, output: Any) -> None:
        said = self.attack(engine, output)
        assert said.startswith("tried"), said
        assert said != "tried 0\n", "the launcher's socket was not among the names: the attack is not tried"

    def test_no_socket_of_ours_has_an_abstract_name(self, engine: Any, running: Any) -> None:
        running(engine)
        names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
        assert [name for name in names if str(engine.paths.run) in name], "no socket of ours at all: nothing is tested"
        assert not [name for name in names if name.startswith("@") and "pycontainers" in name]


class TestSocketInAVolume:
    """Somebody hands our socket into a container, whose root may then open it and is nobody outside."""

    def attack(self, engine: Any, output: Any) -> str:
        with tempfile.TemporaryDirectory(prefix="pyct-socket-", dir=engine.paths.home.parent) as folder:
            os.link(engine.paths.launcher_socket, f"{folder}/launcher")
            mounts = (Mount("bind", "/shared", folder),)
            return str(output(engine, "python", "-c", CONNECT, "none of these", "/shared/launcher", mounts=mounts))

    def test_succeeds_without_the_look_at_the_peer(self, without: Any, output: Any) -> None:
        weak = without("peer_check")
        output(weak, "true")
        assert "hello launcher" in self.attack(weak, output)

    def test_fails_here(self, engine: Any, output: Any) -> None:
        output(engine, "true")
        assert "may not use the launcher" in self.attack(engine, output)
