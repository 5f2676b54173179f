"""A real helper for the tests: ``python -I -S helper_program.py ROOT PATH VERSION IDLE [fail]``."""

import os
import sys

sys.path.insert(0, sys.argv[1])

from pycontainers.errors import PortInUse
from pycontainers.linux import server, sockets


class Echo(server.Server):
    def handle(self, conn, message, fds):
        if message.get("op") == "refuse":
            raise PortInUse("port 80 is in use", "take another")
        if message.get("op") == "bug":
            raise ZeroDivisionError("oops")
        texts = [os.read(fd, 100).decode() for fd in fds]
        sockets.send(conn, {"echo": message, "texts": texts, "pid": os.getpid(), "env": sorted(os.environ), "cwd": os.getcwd()})
        return True


def main():
    _, _, path, version, idle, *rest = sys.argv
    server.daemonize()
    if rest:
        server.fail(RuntimeError("no such luck"))
    Echo(server.inherited_listener(), "echo", version, path, float(idle)).run()


main()
