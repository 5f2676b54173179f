"""Cells in containers of an ordinary user, with subordinate ids and with a single one; also where the user inside is another."""

from __future__ import annotations

import pytest

from .conftest import Somebody

CODE = """
import os
from pathlib import Path
print("inside", os.getuid())
Path("/tmp/x").write_text("written")
sorted(os.listdir("/.pycontainers"))
"""
CALLS = """
import pycontainers as pc
def double(x):
    if x == 2:
        raise ValueError("two")
    return x * 2
found = pc.map(double, range(4), workers=2, errors="keep")
print([repr(item) for item in found])
"""


@pytest.mark.parametrize("user", ["root", "another"])
def test_a_cell_and_calls(somebody: Somebody, user: str) -> None:
    if user == "another" and not somebody.subordinate():
        pytest.skip("there is no other user with a single id")
    options = ["--read-only", "--timeout", "60", *(["--user", "1000"] if user == "another" else [])]
    printed = somebody("python", *options, input=CODE)
    assert printed == f"inside {1000 if user == 'another' else 0}\n['code', 'run']\n"
    somebody("python", *options, input="1 / 0", code=1)
    assert "ZeroDivisionError" in somebody.stderr and "----> 1 1 / 0" in somebody.stderr
    done = somebody.do(f"{somebody.base}/venv/bin/python", "-P", "-c", CALLS)
    assert done.stdout == "['0', '2', \"ValueError('two')\", '6']\n", done.stderr
    assert somebody("ps", "-aq") == ""
