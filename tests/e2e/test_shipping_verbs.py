"""Every verb that brings images in, sends them out or looks after them: the real engine, a real registry, as program and in cells."""

from __future__ import annotations

import io
import os
import pty
import select
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from pycontainers.commands.declare import find, parse
from pycontainers.commands.frontend import Context
from pycontainers.engines.native import NativeEngine
from pycontainers.errors import BuildError, NotFound, RegistryError, StateError, UsageError
from pycontainers.events import Note, Transfer
from pycontainers.explored import Explored
from pycontainers.objects import Container, Image, ImageList
from pycontainers.paths import Paths
from pycontainers.results import DiskTable, Problems
from tests.commands.list_frontend import ListFrontend
from tests.images import registries

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="these images are run by root")]
RUN = "--rm --network none"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server.host


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registries.with_passwords(tmp_path_factory.mktemp("locked")) as server:
        yield server.host


@pytest.fixture(scope="module")
def rootfs(busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with nothing but a shell, as a tar."""
    path = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "cat", "echo", "uname"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        note = tarfile.TarInfo("note")
        note.size = 5
        tar.addfile(note, io.BytesIO(b"noted"))
    return path


class Verbs:
    """``verbs("pull NAME")``: what the verb returned; ``front`` keeps what it said."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine, self.front = engine, ListFrontend()

    def __call__(self, line: str, stdin: bytes | None = None, written: str | None = None) -> Any:
        words = shlex.split(line)
        verb = find(words[0])
        read = (lambda: stdin) if stdin is not None else None
        context = Context(lambda: self.engine, self.front, read, line if written is None else written)
        return verb.function(context, parse(verb, words[1:]), None)

    def phases(self) -> set[str]:
        return {event.phase for event in self.front.events if isinstance(event, Transfer)}


@pytest.fixture
def verbs(engine: NativeEngine, rootfs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Verbs]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    found = Verbs(engine)
    assert isinstance(found(f"import -c 'CMD [\"cat\", \"/note\"]' -c 'ENV PATH=/bin' -m why {rootfs} box"), Image)
    yield found
    for info in engine.images():
        engine.remove_image(info.id, force=True)


def test_import_tag_push_pull_and_run(verbs: Verbs, registry: str) -> None:
    name = f"{registry}/team/box:1"
    made = verbs("inspect box")[0]
    assert made["RepoTags"] == ["box:latest"] and made["Config"]["Cmd"] == ["cat", "/note"] and made["Comment"] == "why"
    verbs(f"tag box {name}")
    pushed = verbs(f"push {name}")
    assert pushed.startswith("sha256:") and "uploading" in verbs.phases()
    assert str(verbs(f"tags {registry}/team/box")) == "1"
    known = verbs(f"inspect {name}")[0]
    assert known["RepoDigests"] == [f"{registry}/team/box@{pushed}"] and known["Manifest"] == pushed
    assert pushed[7:19] in repr(verbs("images --digests")) and f"{registry}/team/box:1" in repr(verbs(f"images {registry}/team/box"))
    verbs("rmi -f box")
    verbs(f"rmi -f {name}")
    assert made["Id"] not in [info.id for info in verbs.engine.images()]
    verbs.front.events.clear()
    pulled = verbs(f"pull {name}")
    assert isinstance(pulled, Image) and pulled.id == made["Id"] and {"downloading", "done"} <= verbs.phases()
    assert verbs(f"run {RUN} {name}").output == "noted"
    assert str(verbs(f"pull -q {name}")) == name
    verbs(f"tag {name} {registry}/team/box:2")
    assert verbs(f"push -a {registry}/team/box").count("sha256:") == 2
    everything = verbs(f"pull -a {registry}/team/box")
    assert isinstance(everything, ImageList) and len(everything) == 2
    assert str(verbs(f"pull {registry}/team/box@{pushed}").id) == made["Id"]
    with pytest.raises(RegistryError, match="does not delete tags") as caught:
        verbs(f"tags --delete {registry}/team/box:1")
    assert f"team/box@{pushed}" in caught.value.hint
    assert pushed in verbs(f"tags --delete {registry}/team/box@{pushed}")
    with pytest.raises((NotFound, RegistryError)):
        verbs(f"pull {name}")


def test_run_pulls_what_is_missing(verbs: Verbs, registry: str) -> None:
    name = f"{registry}/pulled:1"
    verbs(f"tag box {name}")
    verbs(f"push --compression zstd {name}")
    verbs(f"rmi -f {name}")
    with pytest.raises(NotFound):
        verbs(f"run --pull never {RUN} {name}")
    verbs.front.events.clear()
    assert verbs(f"run {RUN} {name}").output == "noted"
    assert Note(f"image {name} is not here: it is pulled") in verbs.front.events
    verbs.front.events.clear()
    verbs(f"run {RUN} {name}")
    assert not verbs.front.events  # here: nobody is asked
    verbs(f"run --pull always {RUN} {name}")
    assert "exists" in verbs.phases()
    with pytest.raises(UsageError, match="sometimes"):
        verbs(f"run --pull sometimes {RUN} {name}")
    verbs(f"rmi -f {name}")
    made = verbs(f"create --network none --name lazy {name}")
    assert isinstance(made, Container)
    verbs("rm lazy")
    # What no registry has is one line, with what is near.
    verbs(f"tag box {registry}/nearby:1")
    with pytest.raises(NotFound) as caught:
        verbs(f"run {registry}/nearbx:1")
    assert (
        "did you mean" in caught.value.hint and f"{registry}/nearby:1" in caught.value.hint and "cannot be pulled" in caught.value.message
    )
    # Something else that is not found is no reason to pull.
    verbs.front.events.clear()
    with pytest.raises(NotFound, match="other"):
        verbs("run --network container:other box")
    assert not verbs.front.events


def test_a_build_pulls_its_base(verbs: Verbs, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/base:1"
    verbs(f"tag box {name}")
    verbs(f"push {name}")
    verbs(f"rmi -f {name}")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM {name}\nRUN echo more > /more\nCOPY --from={name} /note /copied\n")
    verbs.front.events.clear()
    built = verbs(f"build --network none -t built -f {dockerfile} {tmp_path}")
    assert "downloading" in verbs.phases() and verbs(f"run {RUN} built cat /more /copied").output == "more\nnoted"
    assert len([event for event in verbs.front.events if type(event).__name__ == "Done"]) == 1
    verbs.front.events.clear()
    verbs(f"build --network none -t built -f {dockerfile} {tmp_path}")
    assert not verbs.phases()
    verbs(f"build --pull --network none -t built -f {dockerfile} {tmp_path}")
    assert "exists" in verbs.phases()
    assert isinstance(built, Image)
    dockerfile.write_text(f"FROM host\nFROM {registry}/nothing:1\n")
    with pytest.raises(BuildError, match="cannot be pulled") as caught:
        verbs(f"build -f {dockerfile} {tmp_path}")
    assert caught.value.line == 2


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_save_and_load(verbs: Verbs, tmp_path: Path, form: str) -> None:
    image = verbs("inspect box")[0]["Id"]
    verbs("tag box second:2")
    said = verbs(f"save -o {tmp_path}/out --format {form} box second:2")
    assert said.startswith("saved ") and (tmp_path / "out").exists()
    verbs("rmi -f box")
    verbs("rmi -f second:2")
    loaded = verbs(f"load -i {tmp_path}/out")
    assert sorted(loaded.splitlines()) == ["Loaded image: box:latest", "Loaded image: second:2"]
    assert verbs("inspect box")[0]["Id"] == image and verbs(f"run {RUN} second:2").output == "noted"
    with pytest.raises(UsageError, match="--format"):
        verbs(f"save -o {tmp_path}/x --format zip box")
    with pytest.raises(UsageError):
        verbs("save box")  # a notebook has no stdout
    with pytest.raises(UsageError, match="does not fetch"):
        verbs("import https://example.com/x.tar y")


def test_what_stands_on_the_host_is_not_shipped_by_accident(verbs: Verbs, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM host\nRUN echo hi > /opt/hi\n")
    verbs(f"build -q --network none -t local {tmp_path}")
    with pytest.raises(StateError) as caught:
        verbs(f"save -o {tmp_path}/x.tar local")
    assert "include-host" in caught.value.hint and not (tmp_path / "x.tar").exists()


def test_login_never_shows_the_password(verbs: Verbs, locked: str, tmp_path: Path) -> None:
    user, password = registries.USER, registries.PASSWORD
    name = f"{locked}/box:1"
    verbs(f"tag box {name}")
    with pytest.raises(RegistryError):
        verbs(f"push {name}")
    verbs.front.answers[:] = [user, password]
    said = verbs(f"login {locked}")
    assert verbs.front.asked == [("Username: ", False), ("Password: ", True)] and "Login succeeded" in said and password not in said
    verbs(f"push {name}")
    assert "1" in verbs(f"tags {locked}/box")
    verbs(f"logout {locked}")
    with pytest.raises(RegistryError):
        verbs(f"pull {name}")
    assert "stands in the command" in verbs(f"login -u {user} -p {password} {locked}")
    assert "stands in the command" not in verbs(f"login -u {user} -p {password} {locked}", written="login -u x -p {secret}")
    assert "Login succeeded" in verbs(f"login -u {user} --password-stdin {locked}", stdin=password.encode() + b"\n")
    with pytest.raises(RegistryError) as caught:
        verbs(f"login -u {user} -p wrong-word {locked}")
    assert "wrong-word" not in str(caught.value)
    for line in (f"login --password-stdin {locked}", f"login -u x -p y --password-stdin {locked}"):
        with pytest.raises(UsageError):
            verbs(line, stdin=b"")
    with pytest.raises(UsageError, match="notebook"):
        verbs(f"login -u x --password-stdin {locked}")


def test_what_is_used_verified_and_pruned(verbs: Verbs, rootfs: Path) -> None:
    table = verbs("system df -v")
    assert isinstance(table, DiskTable) and table[0].kind == "Images" and table[0].total == 1 and "box:latest" in repr(table)
    assert repr(table).startswith("TYPE") and "RECLAIMABLE" in repr(table)
    assert isinstance(verbs("verify"), Problems) and repr(verbs("verify")) == "nothing is wrong"
    image = verbs.engine.store.resolve("box")
    with open(f"{image.layers[0].path}/note", "w") as file:
        file.write("other")
    found = verbs("verify")
    assert found.unrepaired and "✗ wrong" in repr(found)
    verbs("verify --repair")
    assert not verbs("verify").unrepaired
    verbs(f"import {rootfs}")  # without a name
    assert verbs("images -q -f dangling=true")
    said = verbs("system prune")
    assert "Total reclaimed space: " in said and not verbs("images -q -f dangling=true")
    assert str(verbs("prune")) == "nothing to remove"
    with pytest.raises(UsageError) as caught:
        verbs("system fd")
    assert "df" in caught.value.hint


def test_images_by_filter_and_their_history(verbs: Verbs) -> None:
    verbs("tag box other/thing:2")
    assert len(verbs("images")) == 1 and len(verbs("images").rows()) == 2
    for line, count in {
        "images box": 1, "images 'oth*/*'": 1, "images nothing": 0, "images -f reference=box:latest": 1,
        "images -f dangling=false": 1, "images -f label=x": 0, "images -f before=box": 0,
    }.items():  # fmt: skip
        assert len(verbs(line)) == count, line
    with pytest.raises(UsageError) as caught:
        verbs("images -f refrence=x")
    assert "reference" in caught.value.hint
    assert verbs("images --no-trunc -q").startswith("sha256:")
    assert "sha256:" in repr(verbs("history --no-trunc box")) and "sha256:" in str(verbs("history -q box"))


def test_explore(verbs: Verbs) -> None:
    found = verbs("explore --layer 1 box")
    assert isinstance(found, Explored) and "note" in repr(found) and "sh → busybox" in repr(found)
    with pytest.raises(NotFound, match="no layer 2"):
        verbs("explore -l 2 box")
    with pytest.raises(UsageError, match="--depth"):
        verbs("explore -d x box")


def test_the_program_on_pipes_and_on_a_terminal(verbs: Verbs, state: Paths, registry: str, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "pycontainers.commands.program"]

    def do(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*program, *words], capture_output=True, timeout=60, check=False, **options)

    saved = do("save", "box")
    assert saved.returncode == 0 and not saved.stderr and saved.stdout[257:262] == b"ustar"
    verbs("rmi -f box")
    loaded = do("load", input=saved.stdout)
    assert loaded.stdout == b"Loaded image: box:latest\n", loaded.stderr
    name = f"{registry}/program:1"
    verbs(f"tag box {name}")
    pushed = do("push", name)
    lines = pushed.stderr.decode().splitlines()
    assert pushed.returncode == 0 and any(": done, " in line for line in lines) and len(lines) < 30 and b"\r" not in pushed.stderr
    assert do("verify").returncode == 0
    refused = do("login", registry)
    assert refused.returncode == 125 and b"stdin is not a terminal" in refused.stderr
    verbs(f"rmi -f {name}")
    verbs("rmi -f box")
    shown = _on_a_terminal([*program, "pull", name])
    assert "\x1b[" in shown and f"pulled {name} in" in shown and "✓" in shown


def _on_a_terminal(words: list[str]) -> str:
    process, master = pty.fork()
    if process == 0:
        os.execv(words[0], words)
    text = b""
    while select.select([master], [], [], 60)[0]:
        try:
            text += os.read(master, 1 << 16)
        except OSError:
            break
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, text
    os.close(master)
    return text.decode()


def test_in_a_cell(verbs: Verbs, registry: str, capsys: pytest.CaptureFixture[str]) -> None:
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    shell.run_line_magic("load_ext", "pycontainers")
    try:
        name = f"{registry}/cell:1"
        shell.run_line_magic("container", f"tag box {name}")
        shell.run_line_magic("container", f"push {name} ; %container rmi -f {name}")
        pulled = shell.run_line_magic("container", f"pull {name}")
        out = capsys.readouterr().out
        assert isinstance(pulled, Image) and f"pulled {name} in" in out and "manifest: " in out and "\r" not in out
        data = shell.display_formatter.format(shell.run_line_magic("container", "system df"))[0]
        assert "<table" in data["text/html"] and "Images" in data["text/plain"]
        assert "nothing is wrong" in shell.display_formatter.format(shell.run_line_magic("container", "verify"))[0]["text/html"]
        explored = shell.display_formatter.format(shell.run_line_magic("container", f"explore {name}"))[0]
        assert "<details" in explored["text/html"] and "the biggest files" in explored["text/plain"]
    finally:
        shell.run_line_magic("unload_ext", "pycontainers")
        shell.history_manager.end_session()


def test_a_cell_asks_for_the_password_by_a_hidden_field(verbs: Verbs, locked: str, state: Paths) -> None:
    """A real kernel: the question reaches the page marked as a password, and the answer stands nowhere in what is sent back."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        asked, sent = [], []

        def answer(message: Any) -> None:
            asked.append((message["content"]["prompt"], message["content"]["password"]))
            client.input(registries.PASSWORD if message["content"]["password"] else registries.USER)

        def run(code: str, allowed: bool) -> Any:
            return client.execute_interactive(code, allow_stdin=allowed, stdin_hook=answer, output_hook=sent.append, timeout=60)

        run("%load_ext pycontainers", True)
        assert run(f"%container login {locked}", True)["content"]["status"] == "ok"
        assert asked == [("Username: ", False), ("Password: ", True)]
        assert "Login succeeded" in str(sent) and registries.PASSWORD not in str(sent)
        history = run("import IPython; print(list(get_ipython().history_manager.get_range()))", True)
        assert history["content"]["status"] == "ok" and registries.PASSWORD not in str(sent)
        refused = run(f"%container login {locked}", False)["content"]
        assert refused["ename"] == "UsageError" and "without a page" in refused["evalue"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_an_interrupted_pull_leaves_nothing_and_goes_on_next_time(verbs: Verbs, registry: str) -> None:
    name = f"{registry}/interrupted:1"
    verbs(f"tag box {name}")
    verbs(f"push {name}")
    for known in ("box", name):
        verbs(f"rmi -f {known}")
    before = [info.id for info in verbs.engine.images()]

    class Impatient(ListFrontend):
        def progress(self, work: Any, form: str = "auto", done: str = "built") -> Any:
            for event in work:
                if isinstance(event, Transfer) and event.phase in ("downloading", "unpacking"):
                    work.close()
                    raise KeyboardInterrupt

    patient, verbs.front = verbs.front, Impatient()
    with pytest.raises(KeyboardInterrupt):
        verbs(f"pull {name}")
    assert [info.id for info in verbs.engine.images()] == before
    verbs.front = patient
    assert verbs(f"run {RUN} {name}").output == "noted"
