"""``%%container python`` and ``pc.map`` in a real kernel with the real engine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.root


class Kernel:
    """``run(cell)`` -> (outputs, reply)."""

    def __init__(self, manager: Any, client: Any) -> None:
        self.manager, self.client = manager, client

    def run(self, cell: str, meanwhile: Any = None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        outputs: list[dict[str, Any]] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] in ("stream", "display_data", "execute_result", "error", "update_display_data"):
                outputs.append({"kind": message["msg_type"], **message["content"]})
                if meanwhile is not None:
                    meanwhile(outputs)

        reply = self.client.execute_interactive(cell, timeout=90, output_hook=hook)
        return outputs, reply["content"]


@pytest.fixture(scope="module")
def kernel(state: Any) -> Iterator[Kernel]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environ.pop("JPY_SESSION_NAME", None)
    manager, client = start_new_kernel(env=environ)
    try:
        found = Kernel(manager, client)
        found.run("%load_ext pycontainers\nimport pycontainers as pc\nn = 20")
        yield found
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def printed(outputs: list[dict[str, Any]], name: str = "stdout") -> str:
    return "".join(output["text"] for output in outputs if output["kind"] == "stream" and output["name"] == name)


def test_in_out_and_what_is_shown(kernel: Kernel) -> None:
    line = "-i n \\\n -i twice -o result -o words --out how"
    cell = f"%%container python {line}\nprint('in')\nresult = twice(n)\nwords = ['a', (1, 2)]\nresult + 1"
    kernel.run("def twice(x):\n    return x * 2")
    for _ in range(2):  # it can be run again
        outputs, reply = kernel.run(cell)
        assert reply["status"] == "ok" and printed(outputs) == "in\n"
        assert [output["data"] for output in outputs if output["kind"] == "display_data"] == [{"text/plain": "41"}]
    outputs, _ = kernel.run("print(result, words, how.output, how.exit_code)")
    assert printed(outputs) == "40 ['a', (1, 2)] in\n 0\n"


def test_classes_and_functions_of_cells_go_in_and_their_lines_are_shown(kernel: Kernel) -> None:
    kernel.run(
        "from dataclasses import dataclass\n@dataclass\nclass Shape:\n    side: int\n    def area(self):\n        return self.side ** 2 / n"
    )
    kernel.run("@dataclass\nclass Shape:\n    side: int\n    def area(self):\n        return self.side ** 2")  # the newest counts
    outputs, _ = kernel.run("%%container python -i shape -o area\narea = shape.area()", None)
    assert "no variable 'shape'" in "\n".join(outputs[-1]["traceback"])
    kernel.run("shape = Shape(3)\nfail = pc.contained(lambda shape: shape.side / 0)")
    outputs, _ = kernel.run("%%container python -i shape -o area\narea = shape.area(), Shape(1).side")
    assert not outputs, outputs
    outputs, _ = kernel.run("print(area)")
    assert printed(outputs) == "(9, 1)\n"
    outputs, reply = kernel.run("fail(shape)")
    text = "\n".join(outputs[-1]["traceback"])
    assert reply["ename"] == "ZeroDivisionError" and "cell of this notebook" in text and "----> 2 fail" in text


def test_an_error_is_a_proper_error_with_lines_of_the_whole_cell(kernel: Kernel) -> None:
    outputs, reply = kernel.run("%%container python \\\n --memory 256m\nx = 0\n1 / x")
    assert reply["status"] == "error" and reply["ename"] == "ZeroDivisionError" and reply["evalue"] == "division by zero"
    assert "----> 4 1 / x" in "\n".join(outputs[-1]["traceback"])
    outputs, reply = kernel.run("%%container python\nx = (")
    text = "\n".join(outputs[-1]["traceback"])
    assert reply["ename"] == "SyntaxError" and "----> 2 x = (" in text and "magics.py" not in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-i m", "no variable 'm'"),
        ("-o 1x", "not the name of a variable"),
        ("--timeout soon", "length of time"),
        ("--timeout 0", "no time at all"),
        ("-it", "%container terminal NAME"),
        ("--memry 2g", "did you mean --memory"),
        ("--name x", "no option --name"),
        ("--image nothing-here --pull never", "nothing-here"),
        ("-i kernel_lock", "cannot be sent"),
    ],
)
def test_what_makes_no_sense_is_one_line(kernel: Kernel, line: str, words: str) -> None:
    kernel.run("import threading\nkernel_lock = threading.Lock()")
    outputs, reply = kernel.run(f"%%container python {line}\n1")
    assert reply["status"] == "error" and words in "\n".join(outputs[-1]["traceback"]) and len(outputs[-1]["traceback"]) <= 2


def test_completion_of_variables_options_and_images(kernel: Kernel) -> None:
    kernel.run("my_frame = my_model = 1")
    for text, wanted in (
        ("%%container python -i my_frame,my_m", "my_frame,my_model"),
        ("%%container python --time", "--timeout"),
        ("%%container python --image ho", "host"),
    ):
        kernel.client.complete(text, len(text))
        end = time.monotonic() + 30
        while True:
            reply = kernel.client.get_shell_msg(timeout=max(0.1, end - time.monotonic()))
            if reply["msg_type"] == "complete_reply":
                break
        assert wanted in reply["content"]["matches"]


def test_a_map_has_a_bar_that_is_drawn_again(kernel: Kernel) -> None:
    outputs, reply = kernel.run("found = pc.map(lambda x: (__import__('time').sleep(0.15), x)[1], range(4), workers=2)\nfound")
    shown = [output["data"] for output in outputs if "display_data" in output["kind"]]
    assert reply["status"] == "ok" and len(shown) >= 2 and "<lambda>: 4 of 4" in shown[-1]["text/plain"]
    assert 'aria-valuenow="4"' in shown[-1]["text/html"] and "&lt;lambda&gt;" in shown[-1]["text/html"]
    assert outputs[-1]["data"]["text/plain"] == "[0, 1, 2, 3]"


def test_the_stop_button_ends_it_within_a_second_and_leaves_nothing(kernel: Kernel, remains: Any) -> None:
    before = remains()
    moments: list[float] = []

    def stop(outputs: list[dict[str, Any]]) -> None:
        if not moments and "begun" in printed(outputs):
            moments.append(time.monotonic())
            kernel.manager.interrupt_kernel()

    took = 9.0
    for _ in range(3):  # other tests may have had the processors
        moments.clear()
        _, reply = kernel.run("%%container python\nimport time\nprint('begun')\nwhile True:\n    time.sleep(0.1)", stop)
        assert reply["status"] == "error" and reply["ename"] == "KeyboardInterrupt"
        took = min(took, time.monotonic() - moments[0])
        if took < 1.0:
            break
    assert took < 1.0 and remains() == before
    assert printed(kernel.run("print('alive')")[0]) == "alive\n"
