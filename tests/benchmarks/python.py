"""Cells and calls in containers with the notebook's Python, from a cell of a running notebook."""

from __future__ import annotations

from .house import House
from .report import in_turn

_SETUP = """
import time, numpy
data = numpy.ones(100 * 131072)  # 100 MiB
def timed(act):
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun
def magic(line, body):
    return timed(lambda: get_ipython().run_cell_magic("container", line, body))
one = pc.contained(lambda x: x)
"""


def python(house: House) -> None:
    report, kernel = house.report, house.kernel
    kernel.cell(_SETUP)
    ways = {
        "%%container python, a trivial cell": "magic('python', 'x = 1')",
        "%%container python, import numpy": "magic('python', 'import numpy')",
        "%%container python -i -o, 100 MiB in and out (numpy)": "magic('python -i data -o data', 'data += 1')",
        "a call of a pc.contained function": "timed(lambda: one(1))",
        "pc.map, 100 calls on 2 containers": "timed(lambda: pc.map(one, range(100), workers=2, progress=False))",
    }
    bars = {"%%container python, a trivial cell": 150.0}
    calls = {name: lambda code=code: kernel(code) for name, code in ways.items()}
    in_turn(calls, 1)
    report.heading(f"a Python of its own: cells and calls in containers of host, {house.runs} runs of each in turn")
    for name, found in in_turn(calls, house.runs).items():
        report.times(name, found, bars.get(name))
