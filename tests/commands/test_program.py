from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import FakeEngine

from pycontainers.commands.program import main
from pycontainers.errors import BuildError
from pycontainers.protocol import ExitStatus, LogLine


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0 and "Usage: pycontainers VERB" in capsys.readouterr().out
    assert main(["run", "--help"]) == 0 and "Usage: pycontainers run" in capsys.readouterr().out
    assert main(["--version"]) == 0 and "pycontainers" in capsys.readouterr().out


def test_errors_go_to_stderr_with_docker_codes(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, text in (
        (["sotp"], 125, "hint:  did you mean stop"),
        (["run", "--memroy", "1", "host"], 125, "--memory"),
        (["run", "hots"], 125, "no image 'hots'"),
        (["logs", "none"], 1, "error: no container"),
        (["run", "-p", "x", "host"], 125, "port"),
    ):
        assert main(words) == code, words
        captured = capsys.readouterr()
        assert text in captured.err and not captured.out and "Traceback" not in captured.err


@pytest.mark.parametrize("code", [1, 7, 126, 127, 137])
def test_the_containers_own_code(engine: FakeEngine, code: int) -> None:
    engine.next_exit = ExitStatus(code)
    assert main(["run", "host"]) == code
    main(["run", "-d", "--name", "web", "host"])
    assert main(["exec", "web", "x"]) == code


def test_output_passes_untouched_into_pipes(engine: FakeEngine, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    engine.output = [("stdout", b"\x00\xff\x1b]52;c;x\x07"), ("stderr", b"e")]
    assert main(["run", "--rm", "host"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.out == b"\x00\xff\x1b]52;c;x\x07" and captured.err == b"e"


def test_a_terminal_gets_no_clipboard_escapes(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    out = Terminal(io.BytesIO(), "utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    engine.output = [("stdout", b"a\x1b]52;c;x\x07\x1b[2Kb")]
    assert main(["run", "--rm", "host"]) == 0
    assert out.buffer.getvalue() == b"a\x1b[2Kb"  # type: ignore[attr-defined]


def test_stdin_is_read_for_interactive_runs_only(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"in")
    os.close(writer)
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        main(["run", "--name", "b", "host", "cat"])
        assert engine.calls[-1][2] is None
        main(["run", "-i", "--name", "a", "host", "cat"])
        assert engine.calls[-1][2] == b"in"


def test_results_are_printed(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "-d", "--name", "web", "host"])
    assert capsys.readouterr().out.strip() == engine.find("web").id
    engine.lines = [LogLine(0, "stdout", "one"), LogLine(0, "stderr", "two")]
    main(["logs", "web"])
    assert capsys.readouterr() == ("one\n", "two\n")
    main(["ps"])
    assert "CONTAINER ID" in capsys.readouterr().out
    main(["stats", "web"])
    assert "METRIC" in capsys.readouterr().out
    main(["stop", "web"])
    assert capsys.readouterr().out == "web\n"


def test_build_prints_whole_lines(engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM host\n")
    assert main(["build", "-t", "x", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == "sha256:" + "2" * 64
    assert "#1 CACHED\n" in captured.err and "#2 | half line\n#2 | progress 100%\n#2 | <b>bold</b>\n#2 done in 0.50 s\n" in captured.err
    assert "\x1b" not in captured.err and "\r" not in captured.err
    assert main(["build", "--progress", "quiet", str(tmp_path)]) == 0 and not capsys.readouterr().err
    engine.build_error = BuildError("it broke", "mend it", line=2, column=5, source="RUN make")
    assert main(["build", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "Dockerfile:2:5: it broke" in err and "RUN make" in err and "#2 | <b>bold</b>" in err


def test_interrupt(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "run", interrupted)
    assert main(["run", "host"]) == 130


def test_nobody_reads(engine: FakeEngine, tmp_path: Path) -> None:
    """The container of a foreground run is interrupted, the program is quiet, the code is that of SIGPIPE."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from fake_engine import FakeEngine\n"
        "import pycontainers.commands.program as p\n"
        "E = FakeEngine(); E.output = [('stdout', b'y\\n' * 40000)] * 20\n"
        "p.native_engine = lambda: E\n"
        "sys.exit(p.main(['run', 'host']))\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert program.stdout is not None and program.stderr is not None
    program.stdout.readline()
    program.stdout.close()
    assert program.stderr.read() == b"" and program.wait(timeout=20) == 141
    program.stderr.close()
