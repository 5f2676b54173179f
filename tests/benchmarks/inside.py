"""How fast it is inside: processor, memory, file reads against bare, TCP over the bridge against Docker's. Intervals of 30 pairs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from .house import House
from .report import in_turn

PAIRS = 30
_FILE_SIZE = 64 << 20
#: The interpreter itself, not the virtual environment's link, and nothing of the user's site in it: the same inside and outside.
_PYTHON = [os.path.realpath(sys._base_executable), "-I", "-S", "-c"]  # type: ignore[attr-defined]

_WORK = """
import json, sys, time
def cpu():
    x = 1
    for i in range(500000):
        x = (x * 31 + i) & 0xFFFFFFFF
source, target = bytearray(b"x") * (64 << 20), bytearray(64 << 20)
def memory():
    for _ in range(2):
        target[:] = source
buffer = bytearray(1 << 20)
def read():
    for _ in range(2):
        with open(sys.argv[1], "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
found = {}
for work in (cpu, memory, read):
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    found[work.__name__] = min(times)  # who is interrupted by others for a moment measures them, not the container
print(json.dumps(found))
"""

_SERVER = """
import socket
server = socket.create_server(("", 5000))
buffer = bytearray(1 << 20)
while True:
    conn, _ = server.accept()
    total = 0
    while got := conn.recv_into(buffer):
        total += got
    conn.sendall(b"%20d" % total)
    conn.close()
"""
_CLIENT = """
import socket, sys, time
for attempt in range(200):
    try:
        conn = socket.create_connection((sys.argv[1], 5000), 5)
        break
    except OSError:
        time.sleep(0.02)
block = bytes(1 << 18)
rates = []
for _ in range(5):
    begun, sent = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.1:
        conn.sendall(block)
        sent += len(block)
    rates.append(sent / (time.perf_counter() - begun))
conn.shutdown(socket.SHUT_WR)
assert int(conn.recv(20, socket.MSG_WAITALL)) >= sent
print(max(rates[1:]))
"""


def inside(house: House) -> None:
    report, kernel = house.report, house.kernel
    context = house.state.folder / "inside"
    context.mkdir()
    data = context / "data"
    data.write_bytes(os.urandom(1 << 20) * (_FILE_SIZE >> 20))
    kernel(f"cell.build({str(context)!r}, 'FROM host\\nCOPY data /data\\n', 'bench-inside')")

    def ours() -> dict[str, float]:
        command = [*_PYTHON, _WORK, "/data"]
        return dict(json.loads(kernel(f"cell.run_text('bench-inside', {command!r}, network='none')")))

    def bare() -> dict[str, float]:
        return dict(json.loads(subprocess.run([*_PYTHON, _WORK, str(data)], capture_output=True, check=True).stdout))

    calls = {"ours": ours, "bare": bare}
    in_turn(calls, 1)
    found = in_turn(calls, PAIRS)
    report.heading(f"inside against bare: speed, {PAIRS} pairs in turn, one program on the same interpreter")
    names = {"cpu": "processor (a loop)", "memory": "memory bandwidth (copies of 64 MB)", "read": "file reads (64 MB, cached)"}
    for work, name in names.items():
        # Speed is work by time: the ratio of speeds is that of the times turned round.
        report.interval(name, [run[work] for run in found["bare"]], [run[work] for run in found["ours"]], above=0.95)


def tcp(house: House) -> None:
    """One stream from container to container over the bridge; on both sides the machine's own python in the small root."""
    report, docker = house.report, house.docker
    report.heading(f"TCP over the bridge, container to container: speed, {PAIRS} pairs in turn")
    if docker.refusal:
        report.note("without docker there is nothing to compare with")
        return
    prefix = os.path.dirname(os.path.dirname(_PYTHON[0]))
    folders = [folder for folder in dict.fromkeys(("/usr", "/lib", "/lib64", prefix)) if os.path.isdir(folder)]
    volumes = [f"{folder}:{folder}:ro" for folder in folders]
    kernel = house.kernel
    kernel.cell(f"server = pc.run({house.image!r}, {[*_PYTHON, _SERVER]!r}, detach=True, network='bridge', volumes={volumes!r})")
    address = kernel("cell.engine().find(server.id).address")
    options = [word for volume in volumes for word in ("-v", volume)]
    server = docker("run", "-d", *options, docker.image, *_PYTHON, _SERVER)
    theirs = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", server)
    time.sleep(1)

    def ours_once() -> float:
        command = [*_PYTHON, _CLIENT, address]
        return float(kernel(f"cell.run_text({house.image!r}, {command!r}, network='bridge', volumes={volumes!r})"))

    def docker_once() -> float:
        return float(docker("run", "--rm", *options, docker.image, *_PYTHON, _CLIENT, theirs))

    calls = {"ours": ours_once, "docker": docker_once}
    in_turn(calls, 1)
    found = in_turn(calls, PAIRS)
    for name, rates in found.items():
        report.figure(name, sorted(rates)[len(rates) // 2] / 1e9, "GB/s")
    report.interval("ours / docker", found["ours"], found["docker"], above=0.95)
    kernel("cell.remove_all()")
    docker("rm", "-f", server)
