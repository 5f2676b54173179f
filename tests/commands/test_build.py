"""Options of ``build`` and ``pc.build`` as a BuildRequest; sets of files; what is written when an image is there."""

from __future__ import annotations

import inspect
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine

import pycontainers as pc
from pycontainers.commands import build_kinds
from pycontainers.commands.build_options import BuildOptions, build_request
from pycontainers.commands.build_output import Output, parse_output
from pycontainers.commands.declare import find
from pycontainers.errors import BuildError, ContainersError, NotFound, UsageError
from pycontainers.events import Done, Note, StepStarted
from pycontainers.protocol import BuildRequest, Ulimit

TEXT = "FROM scratch\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("SOURCE_DATE_EPOCH", "SSH_AUTH_SOCK", "TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def asked(engine: FakeEngine) -> BuildRequest:
    found: BuildRequest = [call for call in engine.calls if call[0] == "build"][-1][1]
    return found


def test_a_dockerfile_by_its_text_path_or_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t")
    (folder / "app").mkdir()
    (folder / "app" / "Dockerfile").write_bytes(b"FROM host\n# \xff\n")
    request = build_request("app", ("x",), build_args=["A=1", "TOKEN", "NOT_SET_ANYWHERE"])
    assert request.dockerfile == "FROM host\n# \udcff\n" and request.context == request.dockerfile_path.removesuffix("/Dockerfile")
    assert request.dockerfile_path == str(folder / "app" / "Dockerfile") and request.build_args == {"A": "1", "TOKEN": "t"}
    assert build_request(TEXT).context == os.fspath(folder) and build_request(TEXT).dockerfile_path == ""
    assert build_request("app/Dockerfile", context=".").context == str(folder)
    assert build_request(context="app").dockerfile.startswith("FROM host")
    assert build_request(files={"Dockerfile": "FROM x\n"}, context="").dockerfile == "FROM x\n"
    with pytest.raises(NotFound, match="Dockerfile"):
        build_request("missing")
    with pytest.raises(NotFound, match="not a folder"):
        build_request(TEXT, context="missing")
    with pytest.raises(NotFound) as caught:
        build_request(TEXT, context="https://example.com/a.git")
    assert "--build-context src=https://example.com/a.git" in caught.value.hint
    with pytest.raises(UsageError, match="needs a Dockerfile"):
        build_request(context="")


def test_every_option_reaches_the_request(command: Any, engine: FakeEngine, folder: Path) -> None:
    (folder / "lib").mkdir()
    command(
        "build -t a -t b --build-arg A=1 --label l=m --target app --no-cache --no-cache-filter one,two --no-cache-filter three --pull"
        " --platform linux/AMD64 --network none --add-host db=10.0.0.5 --shm-size 1m --ulimit nofile=10:20 --explain --host-certificates"
        " --build-context lib=lib --build-context base=docker-image://debian --build-context oci=oci-layout://x:1 --parallel 3"
        " --build-context git=https://example.com/a.git#main --cache-from type=local,src=c --cache-from host/app:cache"
        " --cache-to type=local,dest=c,mode=max --load",
        TEXT,
    )
    assert asked(engine) == BuildRequest(
        TEXT,
        str(folder),
        ("a", "b"),
        {"A": "1"},
        {"l": "m"},
        "app",
        no_cache=True,
        network="none",
        pull=True,
        platform="linux/amd64",
        no_cache_filter=("one", "two", "three"),
        contexts={
            "lib": str(folder / "lib"),
            "base": "docker-image://debian",
            "oci": f"oci-layout://{folder}/x:1",
            "git": "https://example.com/a.git#main",
        },
        cache_from=(f"type=local,src={folder}/c", "type=registry,ref=host/app:cache"),
        cache_to=(f"type=local,dest={folder}/c,mode=max",),
        explain=True,
        parallel=3,
        host_certificates=True,
        extra_hosts=("db:10.0.0.5",),
        shm_size=1 << 20,
        ulimits=(Ulimit("nofile", 10, 20),),
    )


def test_function_and_verb_have_the_same_options() -> None:
    plural = {"build_arg": "build_args", "build_context": "contexts", "label": "labels", "secret": "secrets", "ulimit": "ulimits"}
    of_the_call = {"tag", "file", "output", "push", "load", "iidfile", "metadata_file", "progress", "quiet", "check"}
    options = {plural.get(option.dest, option.dest) for option in find("build").options} - of_the_call
    assert options == set(BuildOptions.__annotations__)
    assert set(inspect.signature(pc.build).parameters) == options | {"dockerfile", "tag", "output", "progress"}
    wrong: dict[str, Any] = {"no_cash": True}
    with pytest.raises(UsageError) as caught:
        pc.build(TEXT, **wrong)
    assert "no_cache" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"network": "bridge2"}, "did you mean bridge"),
        ({"platform": "linux/amd64,linux/arm64"}, "each by itself"),
        ({"platform": "amd64"}, "linux/amd64"),
        ({"parallel": "many"}, "--parallel 4"),
        ({"contexts": ["lib"]}, "src=./lib"),
        ({"contexts": {"lib": "nowhere"}}, "docker-image://nowhere"),
        ({"cache_to": ["dest=c"]}, "type=local,dest=FOLDER"),
        ({"files": {"../x": ""}}, "src/app.py"),
        ({"files": {"/": ""}}, "src/app.py"),
        ({"files": {"a": "", "a/b": ""}}, "rename"),
        ({"files": {"a": 1}}, "text or bytes"),
        ({"build_args": {"SOURCE_DATE_EPOCH": "yesterday"}}, "git log"),
        ({"secrets": ["src=x"]}, "id=NAME"),
        ({"secrets": ["id=x,sorce=y"]}, "did you mean source"),
        ({"secrets": ["id=x,src=missing"]}, "env=VARIABLE"),
        ({"secrets": ["id=x,env=MISSING"]}, "environment"),
        ({"secrets": ["id=x,src=a,env=B"]}, "id=NAME"),
        ({"secrets": {"x": b"x" * 600_000}}, "a word or a key"),
        ({"ssh": ["default"]}, "ssh-agent"),
        ({"ssh": ["default=missing"]}, "SSH_AUTH_SOCK"),
        ({"ulimits": "nofile=9:1"}, "nofile=1:1"),
        ({"add_host": "db"}, "db:10.0.0.5"),
        ({"cache_to": "type=local,dest="}, "dest=FOLDER"),
        ({"cache_from": "type=local,Src="}, "src=FOLDER"),
        ({"cache_from": 'type=local,src="a\nb'}, "src=FOLDER"),
        ({"shm_size": "-1"}, "--shm-size 256m"),
        ({"shm_size": 0}, "--shm-size 256m"),
        ({"labels": {"": "x"}}, "NAME=VALUE"),
        ({"labels": {"a": "x\0"}}, "remove it"),
        ({"labels": ["a=\udcff"]}, "latin-1"),
        ({"build_args": {"": "x"}}, "NAME=VALUE"),
        ({"build_args": {"A": "x\0y"}}, "remove it"),
        ({"build_args": ["A=\ud800"]}, "latin-1"),
        ({"build_args": {"A\0": "x"}}, "remove it"),
        ({"files": {"a": "\ud800"}}, "give bytes"),
        ({"files": {"a\0": ""}}, "remove it"),
        ({"files": {"\ud800": ""}}, "rename it"),
        ({"secrets": {"a": "\ud800"}}, "give bytes"),
        ({"secrets": {"a": Path("a\0")}}, "remove it"),
        ({"ssh": {"a": "a\0"}}, "remove it"),
        ({"ssh": ["a=\ud800"]}, "latin-1"),
        ({"context": "~\0/x"}, "remove it"),
        ({"contexts": {"a": Path("\ud800")}}, "latin-1"),
        ({"contexts": {"a": ""}}, "src=./lib"),
        ({"contexts": ["a="]}, "src=./lib"),
        ({"cache_from": "type=local,src=\ud800"}, "latin-1"),
        ({"target": "\ud800"}, "latin-1"),
        ({"build_args": ["\ud800"]}, "latin-1"),
        ({"build_args": ["A\0"]}, "remove it"),
        ({"secrets": {"\ud800": "x"}}, "latin-1"),
        ({"secrets": "id=\0"}, "remove it"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_hint(options: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, NotFound)) as caught:
        build_request(TEXT, **options)
    assert said in caught.value.hint


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"dockerfile": 3}, "dockerfile=3 is an int", "its path"),
        ({"dockerfile": []}, "dockerfile=[] is a list", "its path"),
        ({"dockerfile": b"FROM x\n"}, "dockerfile=b'FROM x\\n' is a bytes", "its path"),
        ({"tag": 3}, "tag=3 is an int", 'tag="app:1"'),
        ({"tag": ["a", 3]}, "tag: 3 in it is an int", 'tag="app:1"'),
        ({"tag": b"a"}, "tag=b'a' is a bytes", 'tag="app:1"'),
        ({"output": 3}, "output=3 is an int", "dest=app.tar"),
        ({"output": [None]}, "output: None in it is None", "dest=app.tar"),
        ({"output": ""}, "no destination", "a folder"),
        ({"output": "a\0"}, "output: 'a\\x00' has a NUL", "remove it"),
        ({"output": "\ud800"}, "is not UTF-8", "latin-1"),
        ({"progress": 3}, "progress=3 cannot be called", "print"),
        ({"context": 3}, "context=3 is an int", "a folder"),
        ({"context": b"x"}, "context=b'x' is a bytes", "a folder"),
        ({"files": ["a"]}, "files=['a'] is a list", "files={"),
        ({"files": {1: "a"}}, "files: the name 1 is an int", "files={"),
        ({"files": {"a": None}}, "files: the value of 'a' is None, None", "text or bytes"),
        ({"contexts": 3}, "contexts=3 is an int", "./lib"),
        ({"contexts": {"a": 3}}, "the value of 'a' is 3, an int", "./lib"),
        ({"build_args": 3}, "build_args=3 is an int", "VERSION"),
        ({"build_args": {"A": None}}, "the value of 'A' is None", "VERSION"),
        ({"labels": {"A": b"x"}}, "the value of 'A' is b'x', a bytes", "version"),
        ({"labels": [("a", "b")]}, "labels: ('a', 'b') in it is a tuple", "version"),
        ({"target": 3}, "target=3 is an int", 'target="app"'),
        ({"no_cache": "false"}, "no_cache='false' is a str", "True or False"),
        ({"no_cache_filter": 3}, "no_cache_filter=3", "stages"),
        ({"platform": 3}, "platform=3", "linux/amd64"),
        ({"network": ["none"]}, "network=['none']", "bridge"),
        ({"secrets": {"s": object()}}, "secrets: the value of 's' is an object", "src=FILE"),
        ({"secrets": ["id=a", 3]}, "secrets: 3 in it", "src=FILE"),
        ({"ssh": 3}, "ssh=3", "default"),
        ({"cache_from": {"a": "b"}}, "cache_from={'a': 'b'} is a dict", "src=FOLDER"),
        ({"cache_to": 3}, "cache_to=3 is an int", "dest=FOLDER"),
        ({"add_host": 3}, "add_host=3", "10.0.0.5"),
        ({"shm_size": [1]}, "shm_size=[1]", "128m"),
        ({"ulimits": 5}, "ulimits=5 is an int", "nofile"),
        ({"ulimits": [5]}, "ulimits: 5 in it", "nofile"),
        ({"ulimits": {"nofile": None}}, "ulimits: the value of 'nofile' is None", "nofile"),
        ({"parallel": []}, "parallel=[]", "parallel=4"),
        ({"parallel": True}, "parallel=True is a bool", "parallel=4"),
    ],
)
def test_values_of_another_kind_are_refused_in_one_line(options: dict[str, Any], said: str, hint: str, engine: FakeEngine) -> None:
    with pytest.raises(UsageError) as caught:
        pc.build(**{"dockerfile": TEXT, **options})
    assert said in caught.value.message and hint in caught.value.hint and "\n" not in caught.value.message
    assert not engine.calls


def test_a_secret_of_another_kind_is_not_shown() -> None:
    wrong: dict[str, Any] = {"s": ["hunter2"]}
    with pytest.raises(UsageError) as caught:
        build_request(TEXT, secrets=wrong)
    assert "hunter2" not in str(caught.value)


def test_every_option_has_a_kind() -> None:
    assert set(build_kinds._KINDS) == {*BuildOptions.__annotations__, "dockerfile", "tag", "output"}


def test_what_gives_its_words_once_and_bytes_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags: Any = (name for name in "ab")
    labels: Any = (f"{name}=1" for name in "cd")
    request = build_request(TEXT, tags, labels=labels, build_args=iter(["A=1"]))
    assert (request.tags, request.labels, request.build_args) == (("a", "b"), {"c": "1", "d": "1"}, {"A": "1"})
    assert build_request(TEXT, labels="a=b=c").labels == {"a": "b=c"}
    monkeypatch.setenv("TOKEN", "\udcff")
    assert build_request(TEXT, secrets="id=TOKEN").secrets == {"TOKEN": b"\xff"}
    with pytest.raises(UsageError, match="TOKEN='\\\\udcff' is not UTF-8"):
        build_request(TEXT, build_args=["TOKEN"])
    with pytest.raises(NotFound, match="Dockerfile"):
        build_request("a\0")
    with pytest.raises(NotFound, match="Dockerfile"):
        build_request("~\0/a")
    assert build_request(TEXT, secrets={"a": "x\0"}, files={"a": "x\0"}).secrets == {"a": b"x\0"}


def test_stages_of_no_cache_filter_that_are_not_there(engine: FakeEngine) -> None:
    events: list[Any] = []
    text = "FROM scratch AS build\nFROM scratch\n"
    pc.build(text, no_cache_filter=["Build,stage-1", "bulid"], progress=events.append)
    notes = [event.text for event in events if isinstance(event, Note) and "filter" in event.text]
    assert len(notes) == 1 and "--no-cache-filter bulid" in notes[0] and "did you mean build?" in notes[0]
    assert asked(engine).no_cache_filter == ("build", "stage-1", "bulid")


def test_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "key").write_bytes(b"of the file\n")
    monkeypatch.setenv("TOKEN", "of the environment")
    words = ["id=a,src=key", "id=b,env=TOKEN", "type=env,id=TOKEN", "id=key", "type=file,id=c,source=key", "type=env,id=d,src=TOKEN"]
    assert build_request(TEXT, secrets=words).secrets == {
        "a": b"of the file\n",
        "b": b"of the environment",
        "TOKEN": b"of the environment",
        "key": b"of the file\n",
        "c": b"of the file\n",
        "d": b"of the environment",
    }
    assert build_request(TEXT, secrets={"a": "text", "b": b"bytes", "c": folder / "key"}).secrets["c"] == b"of the file\n"
    assert build_request(TEXT, variables={"TOKEN": "of the notebook"}, secrets="id=TOKEN").secrets == {"TOKEN": b"of the notebook"}


def test_an_agent_is_taken_and_a_key_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind("agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", "agent")
        assert build_request(TEXT, ssh=["default", "other=agent"]).ssh == {"default": f"{folder}/agent", "other": f"{folder}/agent"}
    (folder / "id_ed25519").write_text("a key")
    with pytest.raises(UsageError) as caught:
        build_request(TEXT, ssh="default=id_ed25519")
    assert "ssh-add" in caught.value.hint


def test_the_epoch_of_environment_and_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_request(TEXT).epoch is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert build_request(TEXT).epoch == 7 and build_request(TEXT).build_args == {"SOURCE_DATE_EPOCH": "7"}
    assert build_request(TEXT, build_args=["SOURCE_DATE_EPOCH=0"]).epoch == 0


def test_arguments_from_the_variables_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "environment")
    variables = {"VERSION": 3, "WHERE": Path("/x"), "TOKEN": [1], "LIST": [1]}
    request = build_request(TEXT, (), variables, build_args=["VERSION", "WHERE", "TOKEN", "NOWHERE"])
    assert request.build_args == {"VERSION": "3", "WHERE": "/x", "TOKEN": "environment"}
    with pytest.raises(UsageError, match="LIST is a list"):
        build_request(TEXT, (), variables, build_args=["LIST"])


def test_dockerfile_and_context_of_the_verb(command: Any, engine: FakeEngine, folder: Path) -> None:
    (folder / "app").mkdir()
    (folder / "app" / "Dockerfile").write_text("FROM a\n")
    (folder / "Dockerfile.dev").write_text("FROM dev\n")
    command("build app")
    assert asked(engine).dockerfile == "FROM a\n" and asked(engine).context == f"{folder}/app"
    command("build -f Dockerfile.dev app")
    request = asked(engine)
    assert (request.dockerfile, request.context, request.dockerfile_path) == ("FROM dev\n", f"{folder}/app", f"{folder}/Dockerfile.dev")
    command("build --context ''", TEXT)
    assert asked(engine).context == ""
    command("build -", "FROM cell")
    assert asked(engine).context == "" and asked(engine).dockerfile == "FROM cell\n"


def test_an_error_names_its_dockerfile(command: Any, engine: FakeEngine, folder: Path) -> None:
    engine.build_error = BuildError("it broke", "mend it", line=2, column=5, source="RUN make \x1b[2J")
    (folder / "Dockerfile.dev").write_text(TEXT)
    with pytest.raises(BuildError) as caught:
        command("build -f Dockerfile.dev .")
    shown = caught.value._render_traceback_()
    assert shown == ["error: Dockerfile.dev:2:5: it broke", "     2 | RUN make  [2J", "             ^", "hint:  mend it"]
    with pytest.raises(BuildError, match=r"^Dockerfile.dev:2:5"):
        pc.build("Dockerfile.dev")
    with pytest.raises(BuildError, match=r"^Dockerfile:2:5"):
        pc.build(TEXT)
    long = BuildError("no", line=1, column=500, source="x" * 499 + "HERE" + "y" * 500)._render_traceback_()
    assert len(long[1]) < 200 and long[1][long[2].index("^") :].startswith("HERE")


# -- outputs


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("out", Output("local", "{folder}/out")),
        ("-", Output("tar", "-")),
        ("type=docker,dest=a.tar", Output("docker", "{folder}/a.tar")),
        ("type=oci,dest=a.tar,compression=zstd,include-host=true", Output("oci", "{folder}/a.tar", compression="zstd", include_host=True)),
        ("type=oci,dest=layout,tar=false", Output("oci", "{folder}/layout", folder=True)),
        ("type=registry", Output("image", push=True)),
        ("type=image,name=x,push=true", Output("image", name="x", push=True)),
        ("type=docker", Output("docker")),
    ],
)
def test_outputs(text: str, output: Output, folder: Path) -> None:
    from dataclasses import replace

    assert parse_output(text) == replace(output, dest=output.dest.replace("{folder}", str(folder)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("type=dokcer,dest=x", "did you mean docker"),
        ("dest=x", "type=docker|oci|local|tar"),
        ("type=tar", "type=tar,dest=PATH"),
        ("type=image,dest=x", "type=docker,dest="),
        ("type=tar,dest=nowhere/x", "make it first"),
        ("type=docker,dest=.", "name a file"),
        ("type=local,dest=-", "type=tar"),
        ("file", "type=tar"),
        ("type=tar,dest=x,push=true", "type=image"),
        ("type=oci,dest=x,tar=perhaps", "tar=true"),
    ],
)
def test_outputs_that_make_no_sense(text: str, said: str, folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(UsageError) as caught:
        parse_output(text)
    assert said in caught.value.hint


def test_ids_and_metadata(command: Any, engine: FakeEngine, folder: Path) -> None:
    command("build -t visits --iidfile id --metadata-file meta.json", TEXT)
    ident = "sha256:" + "2" * 64
    assert (folder / "id").read_text() == ident
    assert json.loads((folder / "meta.json").read_text()) == {"containerimage.config.digest": ident, "image.name": "visits"}
    with pytest.raises(UsageError, match="--iidfile"):
        command("build --iidfile nowhere/id", TEXT)
    with pytest.raises(UsageError, match="without a name"):
        command("build --push", TEXT)
    events: list[Any] = []
    pc.build(TEXT, "visits", progress=events.append)
    assert isinstance(events[-1], Done) and next(event.text for event in events if isinstance(event, StepStarted)) == "FROM host"


def test_raw_json(engine: FakeEngine, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    from pycontainers.commands.program import main

    (folder / "Dockerfile").write_text(TEXT)
    assert main(["build", "--progress", "rawjson", "."]) == 0
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in found][:3] == ["Note", "StepStarted", "StepFinished"] and found[-1]["event"] == "Done"
    assert found[4]["data"] == "half " and found[4]["index"] == 2


# -- sets of files


@pytest.fixture
def sets(command: Any) -> Any:
    """Sets of files, as the commands of one notebook share them."""
    from pycontainers.commands.file_sets import FileSets

    command.files = FileSets()
    return command.files


def test_a_set_is_a_context_or_laid_over_one(command: Any, engine: FakeEngine, sets: Any, folder: Path) -> None:
    assert str(command("file app src/main.py", "print(1)\n")) == "app: src/main.py, 9 B"
    command("file app Dockerfile", "FROM set\n")
    command("file more src/main.py", "print(2)\n")
    command("build --context app")
    assert asked(engine).context == "" and asked(engine).dockerfile == "FROM set\n"
    assert asked(engine).files == {"src/main.py": b"print(1)\n", "Dockerfile": b"FROM set\n"}
    command("build --files app --files more", TEXT)
    assert asked(engine).context == str(folder) and asked(engine).dockerfile == TEXT and asked(engine).files["src/main.py"] == b"print(2)\n"
    command("file app other.Dockerfile", "FROM other")
    command("build app -f ./other.Dockerfile")
    assert asked(engine).dockerfile == "FROM other\n"
    (folder / "app").mkdir()
    with pytest.raises(UsageError) as caught:
        command("build --context app", TEXT)
    assert "./app" in caught.value.hint and "--files app" in caught.value.hint
    command("build --context ./app", TEXT)
    assert asked(engine).context == f"{folder}/app" and not asked(engine).files
    with pytest.raises(NotFound) as missing:
        command("build --files ap", TEXT)
    assert "did you mean app" in missing.value.hint


def test_sets_are_listed_shown_and_removed(command: Any, sets: Any) -> None:
    command("file app a.py", "one\n")
    command("file app b/c.py", "two")
    assert list(command("file").rows()) == [("app", "a.py", "4 B"), ("app", "b/c.py", "3 B")]
    assert str(command("file app ./b/c.py")) == "two" and command("file app").rows()[1][1] == "b/c.py"
    assert str(command("file --rm app a.py")) == "a.py" and sets.sets == {"app": {"b/c.py": b"two"}}
    command("file --rm app b/c.py")
    assert not sets.sets
    for line, body in (("file app", "x"), ("file a/b c", "x"), ("file app ..", "x"), ("file --rm", None), ("file app d/", "x")):
        with pytest.raises(UsageError):
            command(line, body)
    command("file app a", "x")
    with pytest.raises(UsageError, match="cannot both"):
        command("file app a/b", "x")
    for line in ("file none", "file app b", "file --rm app b"):
        with pytest.raises(NotFound):
            command(line)


def test_a_shell_has_no_sets(command: Any) -> None:
    for line in ("file", "build --files app ."):
        with pytest.raises(UsageError, match="belong to a notebook"):
            command(line)


# -- the cache


def test_the_build_cache_is_shown_and_pruned(command: Any, engine: FakeEngine) -> None:
    assert [row.kind for row in command("builder du")] == ["Build cache"]
    assert str(command("builder prune -af --keep-storage 2g")) == "cache mount /root/.cache\nTotal reclaimed space: 3.0 MiB"
    assert engine.calls[-1] == ("prune_builds", True, 2 << 30, 0.0)
    command("builder prune --filter until=24h")
    assert abs(engine.calls[-1][3] - (time.time() - 86400)) < 5 and engine.calls[-1][1:3] == (False, None)
    for line in ("builder prnue", "builder prune --filter label=x", "builder prune --keep-storage much", "builder"):
        with pytest.raises(UsageError):
            command(line)


# -- checks


def test_a_dockerfile_is_checked_and_not_built(command: Any, engine: FakeEngine, folder: Path) -> None:
    assert str(command("build --check", "FROM scratch\nCOPY a /a\n")) == "Check complete, no warnings found."
    (folder / "Dockerfile.dev").write_text("FROM scratch as one\nCMD run \x1b[2J it\n")
    with pytest.raises(ContainersError, match="2 warnings in Dockerfile") as caught:
        command("build --check -f Dockerfile.dev .")
    assert "Dockerfile.dev:1: FromAsCasing" in caught.value.done and "     2 | CMD run  it\n" in caught.value.done
    assert "# check=skip=" in caught.value.hint and "https://docs.docker.com/" in caught.value.done
    with pytest.raises(BuildError, match=r"^Dockerfile.dev:2:1"):
        (folder / "Dockerfile.dev").write_text("FROM scratch\nCOPPY a /a\n")
        command("build --check -f Dockerfile.dev .")
    assert not engine.calls
