"""Kernelspecs: what is written, whose they are, and that an image without a kernel is told by one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pycontainers.commands.complete import candidates
from pycontainers.commands.declare import Verb, find, parse
from pycontainers.commands.frontend import Context
from pycontainers.commands.kernel import CONTAINER_OPTIONS, ENV, words_of
from pycontainers.errors import ImageError, NotFound, StateError, UsageError
from pycontainers.kernels import program, specs
from pycontainers.notebook import display, html
from pycontainers.protocol import ContainerConfig, ExitStatus

SAID = b'["pycontainers", "3.12.1", "7.1.0", true]\n'


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PATH", "")
    return tmp_path / "data/kernels"


class Engine:
    """Runs nothing: says what an image's Python would."""

    def __init__(self, out: bytes = SAID, err: bytes = b"") -> None:
        self.out, self.err = out, err
        self.asked: list[ContainerConfig] = []

    def run(self, config: ContainerConfig, stdin: Any, output: Any) -> tuple[Any, ExitStatus]:
        self.asked.append(config)
        output("stdout", self.out)
        output("stderr", self.err)
        return None, ExitStatus(0)

    def image(self, name: str) -> str:
        return name


def kernel(*words: str, engine: Any = None) -> Any:
    verb = find("kernel")
    context = Context(lambda: engine or Engine(), SimpleNamespace(progress=lambda work, *_: list(work)))  # type: ignore[arg-type]
    return verb.function(context, parse(verb, words), None)


def test_installed_listed_completed_removed(data: Path) -> None:
    words = ["--memory", "4g", "--network", "none", "-v", ".:/data", "-e", "A=b c", "--read-only"]
    engine = Engine()
    said = kernel("install", "data:latest", *words, engine=engine)
    assert "Python 3.12.1 and ipykernel 7.1.0" in said
    document = json.loads((data / "data/kernel.json").read_text())
    assert document["interrupt_mode"] == "message" and document["metadata"]["debugger"] is True
    # A variable's value stands where nobody else can read it: not in a command line.
    assert document["env"][ENV] == '["A=b c"]' and (data / "data").stat().st_mode & 0o077 == 0
    options = ["--read-only", "--volume=.:/data", "--network=none", "--memory=4g"]
    at = document["argv"].index("{connection_file}")
    assert sorted(document["argv"][5:at]) == sorted(options)
    assert document["argv"][at:] == ["{connection_file}", "data:latest", "python3", program.IPYKERNEL]
    assert (data / "data/logo-svg.svg").read_text().startswith("<svg")
    # what was asked for is what the question was asked with, but for what a question does not need
    (asked,) = engine.asked
    assert asked.read_only and asked.env["A"] == "b c" and asked.resources.memory == 4 << 30 and asked.network == "none"
    assert [row[:3] for row in kernel("list")] == [["data", "data:latest (container)", "data:latest"]]
    assert candidates(["kernel", "remove"], "d", lambda kind: []) == ["data"]
    assert candidates(["kernel", "install"], "vi", lambda kind: ["visits"]) == ["visits"]
    assert "--env=A=…" in kernel("list")[0][3] and "b c" not in repr(kernel("list"))
    kernel("install", "other", "--name", "data")  # re-running a cell is normal
    assert [row[2] for row in kernel("list")] == ["other"]
    assert sorted(path.name for path in data.iterdir()) == ["data"]
    assert str(kernel("remove", "data")).startswith("removed kernel data")
    assert kernel("list") == []


def test_options_survive_as_words() -> None:
    verb = Verb("kernel", "", lambda *_: None, CONTAINER_OPTIONS)
    words = ["-e", "A=1", "-e", "B", "-p", "8080:80", "--cpus", "0.5", "--init-not"][:-1] + ["--entrypoint", "", "--userns=host"]
    args = parse(verb, words)
    again = parse(verb, words_of(args))
    assert vars(again) == vars(args)


def test_kernels_of_others_stay(data: Path) -> None:
    (data / "python3").mkdir(parents=True)
    (data / "python3/kernel.json").write_text('{"argv": [], "display_name": "x", "language": "python"}')
    with pytest.raises(StateError, match="not of a container"):
        kernel("install", "data", "--name", "python3")
    with pytest.raises(NotFound):
        kernel("remove", "python3")
    assert kernel("list") == [] and (data / "python3/kernel.json").exists()
    (data / "odd").mkdir()
    for text in ("[]", '{"metadata": 3}', "{", '{"metadata": {"pycontainers": {"image": 1}}}'):
        (data / "odd/kernel.json").write_text(text)
        assert kernel("list") == []


@pytest.mark.parametrize(
    ("out", "err", "reason"),
    [
        (b"", b"Traceback:\nModuleNotFoundError: No module named 'ipykernel'\n", "No module named 'ipykernel'"),
        (b"", b"", "it says nothing"),
        (b'["pycontainers", 1]\n["x"]\n{}\n7\n\xff\n', b"", "it says nothing"),
    ],
)
def test_an_image_without_a_kernel_is_told(data: Path, out: bytes, err: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match="image data has no kernel") as caught:
        kernel("install", "data", engine=Engine(out, err))
    assert reason in caught.value.message and "pip install ipykernel" in caught.value.hint
    assert not data.exists()


def test_other_kernels_by_their_command(data: Path) -> None:
    kernel("install", "r", "--language", "R", "--command", "R --slave -e 'IRkernel::main()' --args {{connection_file}}")
    document = json.loads((data / "r/kernel.json").read_text())
    assert document["language"] == "R" and document["argv"][-5:] == ["R", "--slave", "-e", "IRkernel::main()", "--args", program.PLACE][-5:]
    assert program.command(["R", program.PLACE]) == ("R", "/run/jupyter-kernel/connection.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["install"], "needs one IMAGE"),
        (["install", "a", "--name", "a/b"], "not the name of a kernel"),
        (["install", "a", "--name", "../x"], "not the name of a kernel"),
        (["install", "a", "--command", "R"], "where its connection file goes"),
        (["install", "a", "--memory", "much"], "much"),
        (["remove"], "needs NAME"),
        (["list", "x"], "takes no argument"),
        (["isntall", "a"], "unknown"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kernel(*words)


def test_names_of_images_become_names_of_kernels() -> None:
    from pycontainers.commands.kernel import _name_of

    assert [_name_of(name) for name in ("data:latest", "registry.example:5000/a/data:1.2", "data@sha256:00", "ü")] == [
        "data", "data-1.2", "data", "container",
    ]  # fmt: skip
    assert specs.check_name("Data") == "data"


def test_a_list_of_none_says_how_one_is_made() -> None:
    text = "no kernels in containers; make one: %container kernel install IMAGE --name NAME"
    assert repr(kernel("list")) == text and display.rows(kernel("list")) == f"<p>{html.muted(text)}</p>"
