"""Kernels of an ordinary user, started by a client that writes a connection file and executes the kernelspec (as VS Code does)."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from .conftest import Somebody, wait_for


@pytest.fixture(scope="module")
def packages(installation: str) -> str:
    """ipykernel and what it needs, where everybody can read it: it is not installed for that interpreter."""
    place = Path(f"{installation}/packages")
    wanted, seen = ["ipykernel"], set()
    while wanted:
        name = wanted.pop()
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        if name in seen:
            continue
        seen.add(name)
        wanted += [re.split(r"[ ;<>=!~\[(]", text)[0] for text in found.requires or () if "extra ==" not in text]
        for file in found.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), place / file)
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    return str(place)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("ranges", "user"), [(True, 1000), (False, 0)], ids=["another user inside", "one id"])
def test_a_kernel_of_an_ordinary_user(people: Callable[..., Somebody], packages: str, ranges: bool, user: int) -> None:
    somebody = people(ranges=ranges)
    somebody.tidy()
    if somebody.do(f"{somebody.base}/venv/bin/python", "-c", f"import sys; sys.path.append({packages!r}); import zmq").returncode:
        pytest.skip("the compiled packages here are of another Python than the user's")
    options = ["--network=none", f"--volume={packages}:/packages:ro", "--env=PYTHONPATH=/packages", "--env=HOME=/tmp", f"--user={user}"]
    file, document = write_connection_file(f"{somebody.home}/connection.json", key=b"secret")
    os.chmod(file, 0o644)
    launch = [f"{somebody.base}/venv/bin/python", "-P", "-m", "pycontainers.commands.kernel_launcher", *options, file]
    with subprocess.Popen(somebody.command(*launch, "host", "python3", "@ipykernel@"), stderr=subprocess.PIPE, text=True) as process:
        client = BlockingKernelClient()
        try:
            client.load_connection_info(document)
            client.start_channels()
            wait_for(lambda: process.poll() is not None or ready(client), 60)
            assert process.poll() is None
            assert run(client, "import os; print(os.getuid(), os.listdir('/sys/class/net'))") == f"{user} ['lo']\n"
            client.execute("import time; time.sleep(100)")
            wait_for(lambda: client.get_iopub_msg(timeout=10)["msg_type"] == "execute_input")
            client.control_channel.send(client.session.msg("interrupt_request"))
            wait_for(lambda: client.get_shell_msg(timeout=20)["content"].get("ename") == "KeyboardInterrupt")
            client.shutdown()
            assert process.wait(30) == 0
        finally:
            client.stop_channels()
            process.send_signal(signal.SIGTERM)
            print(process.stderr.read() if process.stderr else "")
    assert somebody("ps", "-aq") == "" and os.listdir(f"{somebody.run_folder}/pycontainers/kernels") == []


def ready(client: BlockingKernelClient) -> bool:
    """A client that did not start its kernel takes silence for its death."""
    try:
        client.wait_for_ready(timeout=5)
    except RuntimeError:
        return False
    return True


def run(client: BlockingKernelClient, code: str) -> str:
    said: list[str] = []

    def output(message: dict[str, Any]) -> None:
        said.append(message["content"].get("text") or message["content"].get("evalue") or "")

    client.execute_interactive(code, timeout=30, output_hook=output)
    return "".join(said)
