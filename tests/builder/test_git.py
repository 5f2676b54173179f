"""ADD of a repository: real repositories, served on this machine by git's own daemon and by plain http."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pycontainers.builder import git, remote
from pycontainers.builder.context import Context, digest, select
from pycontainers.builder.copying import CopyError, CopyItem
from pycontainers.errors import NotFound
from tests.builder.placing import Image, make

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
            "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"], "GIT_ALLOW_PROTOCOL": "file:git:http"}


def run(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, env=IDENTITY, check=True, text=True, capture_output=True).stdout.strip()


class Repositories:
    """``top``: a folder of bare repositories; ``daemon`` and ``http``: where they are served."""

    def __init__(self, top: Path, daemon: str, http: str) -> None:
        self.top, self.daemon, self.http = top, daemon, http

    def work(self, name: str) -> Path:
        folder = self.top.parent / f"{name}-work"
        folder.mkdir()
        run(folder, "init", "-q", "-b", "main")
        return folder

    def commit(self, folder: Path, message: str = "x") -> str:
        run(folder, "add", "-A")
        run(folder, "commit", "-q", "--allow-empty", "-m", message)
        return run(folder, "rev-parse", "HEAD")

    def publish(self, folder: Path, name: str) -> None:
        bare = self.top / f"{name}.git"
        if not bare.exists():
            run(self.top, "clone", "-q", "--bare", str(folder), bare.name)
        run(folder, "push", "-q", "--force", "--all", str(bare))
        run(folder, "push", "-q", "--force", "--tags", str(bare))
        run(bare, "update-server-info")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    top = tmp_path_factory.mktemp("git") / "top"
    top.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    daemon = subprocess.Popen(["git", "daemon", "--export-all", f"--base-path={top}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr",
                               str(top)], stderr=subprocess.DEVNULL, env=IDENTITY)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(top))

        def log_message(self, *_):
            pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for _ in range(100):
        with socket.socket() as tried:
            if not tried.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.05)
    made = Repositories(top, f"git://127.0.0.1:{port}", f"http://127.0.0.1:{server.server_port}")
    folder = make(made.work("app"), "README", "docs/index", "docs/deep/page", "run.sh", "docs/up -> ../../../../etc/passwd")
    (folder / "run.sh").chmod(0o755)
    made.first = made.commit(folder)
    run(folder, "tag", "-a", "v1", "-m", "annotated")
    run(folder, "tag", "light")
    run(folder, "checkout", "-q", "-b", "feature/x")
    (folder / "README").write_text("of the branch")
    made.branch = made.commit(folder)
    run(folder, "checkout", "-q", "main")
    (folder / "README").write_text("second")
    made.second = made.commit(folder)
    made.publish(folder, "app")
    yield made
    server.shutdown()
    server.server_close()
    daemon.terminate()
    daemon.wait()


@pytest.fixture
def clone(tmp_path):
    count = iter(range(1000))

    def run(url: str, **options) -> remote.Fetched:
        folder = tmp_path / f"ingest{next(count)}"
        folder.mkdir()
        return remote.clone(url, str(folder), **{"checksum": "", "keep_git_dir": False, "check": lambda: None, **options})
    return run


def files(got: remote.Fetched) -> dict[str, str]:
    found = {}
    for entry in got.source.entries(got.node):
        if os.path.isfile(entry.node.path) and not os.path.islink(entry.node.path):
            found[entry.relative] = Path(entry.node.path).read_text()
    return found


@pytest.mark.parametrize("way", ["daemon", "http"])
@pytest.mark.parametrize(("ref", "commit", "readme"), [
    ("", "second", "second"), ("#main", "second", "second"), ("#v1", "first", "README"), ("#light", "first", "README"),
    ("#feature/x", "branch", "of the branch"), ("#refs/heads/feature/x", "branch", "of the branch"), ("?tag=v1", "first", "README"),
    ("?branch=feature/x", "branch", "of the branch"), ("?ref=light", "first", "README"), ("#{first}", "first", "README"),
    ("?checksum={branch}", "branch", "of the branch"), ("#tags/v1", "first", "README"),
])
def test_refs(served, clone, way, ref, commit, readme):
    ref = ref.replace("{first}", served.first).replace("{branch}", served.branch)
    got = clone(f"{getattr(served, way)}/app.git{ref}")
    assert got.key == f"git:{getattr(served, commit)}::0" and got.name == "app"
    assert files(got) == {"README": readme, "docs/deep/page": "docs/deep/page", "docs/index": "docs/index", "run.sh": "run.sh"}


def test_how_it_lands(served, clone, tmp_path):
    got = clone(f"{served.daemon}/app.git#v1")
    image = Image(tmp_path / "image")
    item = CopyItem(got.name, got.node, got.source)
    made = image.copy(None, items=[item], to="/src")
    assert made["/src/docs/up"] == "->../../../../etc/passwd" and "/src/.git" not in made and made["/src/README"] == "README"
    assert image.view.lookup("/src/run.sh").stat.st_mode & 0o777 == 0o755 and image.view.lookup("/src/README").stat.st_uid == 0
    assert digest(item) == digest(CopyItem(got.name, clone(f"{served.http}/app.git#{served.first}").node, got.source))


def test_a_folder_of_it(served, clone):
    for address in ("#v1:docs", "#:docs/", "?subdir=docs", "?ref=main&subdir=/docs"):
        assert files(clone(f"{served.daemon}/app.git{address}")) == {"index": "docs/index", "deep/page": "docs/deep/page"}
    with pytest.raises(CopyError, match="'nowhere' is not in what app has"):
        clone(f"{served.daemon}/app.git#:nowhere")
    with pytest.raises(CopyError, match="is not in what app has"):
        clone(f"{served.daemon}/app.git#:docs/up")  # a link out of it
    with pytest.raises(CopyError, match="leads out of the repository"):
        clone(f"{served.daemon}/app.git#:docs/../..")


def test_the_git_folder_is_kept_on_request(served, clone):
    for got in (clone(f"{served.daemon}/app.git#v1", keep_git_dir=True), clone(f"{served.http}/app.git?keep-git-dir=1&ref=v1")):
        folder = Path(got.node.path)
        assert run(folder, "-c", "safe.directory=*", "rev-parse", "HEAD") == served.first
        assert run(folder, "-c", "safe.directory=*", "status", "--porcelain") == "" and not (folder / ".git/hooks").exists()
        assert got.key.endswith("::1")


def test_checksums(served, clone):
    clone(f"{served.daemon}/app.git#main", checksum=served.second)
    clone(f"{served.daemon}/app.git#v1", checksum=served.first[:10])
    with pytest.raises(CopyError, match=f"has commit {served.second}, not {served.first}"):
        clone(f"{served.daemon}/app.git#main", checksum=served.first)
    with pytest.raises(CopyError, match="not sha256"):
        clone(f"{served.daemon}/app.git#main", checksum="sha256:" + "0" * 64)
    with pytest.raises(CopyError, match="has commit"):
        clone(f"{served.daemon}/app.git?ref=main&checksum={served.first}")


@pytest.mark.parametrize(("address", "message"), [
    ("/app.git#nothing", "has no branch or tag 'nothing'"), ("/nothing.git", "not found|denied|access"),
    ("/app.git#" + "0" * 40, "has no commit 0000"), ("/app.git?what=1", "'what' in the address"), ("/app.git?ref=a&ref=b", "there twice"),
    ("/app.git?ref=main#v1", "names several: main, v1"), ("/app.git?submodules=maybe", "neither true nor false"),
    ("/app.git#--upload-pack=touch /tmp/x", "is not a branch"), ("/app.git#+refs/heads/*", "is not a branch"),
    ("/app.git#a..b", "is not a branch"), ("/app.git?ref=-x", "is not a branch"),
])
def test_what_is_refused(served, clone, address, message):
    with pytest.raises(CopyError, match=message):
        clone(served.daemon + address)


@pytest.mark.parametrize("address", [
    "ssh://-oProxyCommand=touch%20x/app.git", "git@-oProxyCommand=x:app.git", "git://-x/app.git", "https:///app.git",
    "git://host name/app.git",
])
def test_addresses_that_would_be_options(clone, address):
    with pytest.raises(CopyError, match="not the address of a repository"):
        clone(address)


@pytest.mark.parametrize(("text", "kind"), [
    ("https://host/x.git", "git"), ("https://host/x.git#a:b", "git"), ("http://host/x.git?ref=a", "git"), ("https://host/x", "http"),
    ("https://host/x.git/info", "http"), ("git@host:x", "git"), ("user@host.example:a/b.git", "git"), ("git://host/x", "git"),
    ("ssh://git@host/x", "git"), ("HTTPS://host/x", "http"), ("./git@host", ""), ("a.git", ""), ("file:///x.git", ""), ("ext::sh -c x", ""),
    ("ftp://host/x.git", ""), ("https://host/x?y=.git", "http"), ("dir/x@y:z", ""), ("", ""), ("https:/host/x.git", ""), ("::ext", ""),
])
def test_what_is_an_address(text, kind):
    assert remote.kind(text) == kind


def test_a_password_is_never_shown(served, clone):
    with pytest.raises(CopyError) as caught:
        clone(served.http.replace("//", "//me:s3cret@") + "/nothing.git")
    assert "s3cret" not in str(caught.value)


# -- what a repository may not do


def test_submodules_come_along_and_their_git_files_do_not(served, clone):
    inner = make(served.work("inner"), "lib")
    served.commit(inner)
    served.publish(inner, "inner")
    outer = make(served.work("outer"), "own")
    run(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"{served.daemon}/inner.git", "vendor/inner")
    run(outer, "config", "-f", ".gitmodules", "submodule.vendor/inner.url", "../inner.git")
    served.commit(outer)
    served.publish(outer, "outer")
    for way in (served.daemon, served.http):
        got = clone(f"{way}/outer.git")
        assert files(got).keys() == {".gitmodules", "own", "vendor/inner/lib"}
    assert files(clone(f"{served.daemon}/outer.git?submodules=false")).keys() == {".gitmodules", "own"}


@pytest.mark.parametrize("url", [
    "{top}/secret.git", "file://{top}/secret.git", "ext::sh -c 'touch {top}/pwned' %G", "--upload-pack=touch {top}/pwned",
])
def test_submodules_by_other_ways(served, clone, url):
    if not (served.top / "secret.git").exists():
        secret = make(served.work("secret"), "secret")
        served.commit(secret)
        served.publish(secret, "secret")
    name = f"bad{len(list(served.top.iterdir()))}"
    bad = make(served.work(name), "own")
    run(bad, "update-index", "--add", "--cacheinfo", f"160000,{served.first},sub")
    for key, value in (("path", "sub"), ("url", url.replace("{top}", str(served.top))), ("update", "!touch pwned")):
        run(bad, "config", "-f", ".gitmodules", f"submodule.sub.{key}", value)
    run(bad, "add", ".gitmodules", "own")
    run(bad, "commit", "-q", "-m", "x")
    served.publish(bad, name)
    with pytest.raises(CopyError):
        clone(f"{served.daemon}/{name}.git")
    assert not (served.top / "pwned").exists()


def test_nothing_of_a_repository_is_run(served, clone, tmp_path):
    """Hooks, filters, attributes, and configuration that lies in it."""
    evil = make(served.work("evil"), "f", ".git-hooks/post-checkout", **{".gitattributes": "* filter=evil\n"})
    (evil / ".git-hooks/post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    (evil / ".git-hooks/post-checkout").chmod(0o755)
    make(evil, "hooks/")
    command = f"touch {tmp_path}/pwned"
    (evil / "config").write_text(f'[core]\n\tfsmonitor = {command}\n\thooksPath = .git-hooks\n[filter "evil"]\n\tsmudge = {command}\n')
    (evil / "HEAD").write_text("ref: refs/heads/main\n")
    served.commit(evil)
    served.publish(evil, "evil")
    assert "f" in files(clone(f"{served.daemon}/evil.git"))
    assert not (tmp_path / "pwned").exists()


def test_configuration_and_keys_of_this_user_are_not_used(served, clone, tmp_path, monkeypatch):
    home = make(tmp_path / "home", ".ssh/id_rsa")
    (home / ".gitconfig").write_text(f'[url "{served.daemon}/nothing"]\n\tinsteadOf = {served.daemon}/app\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {tmp_path}/pwned")
    assert clone(f"{served.daemon}/app.git").name == "app"
    with pytest.raises(CopyError):
        clone("git@127.0.0.1:app.git")
    assert not (tmp_path / "pwned").exists()


def test_a_cancelled_clone_ends_at_once(clone):
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise KeyboardInterrupt
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        threading.Timer(0.3, asked.set).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            clone(f"git://127.0.0.1:{mute.getsockname()[1]}/app.git", check=check)
    assert time.monotonic() - began < 1


def test_without_git_it_is_said(served, clone, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CopyError, match="git is not installed"):
        clone(f"{served.daemon}/app.git")


def test_a_kept_git_folder_has_no_password(served, clone):
    inner = make(served.work("deepest"), "i")
    served.commit(inner)
    served.publish(inner, "deepest")
    middle = make(served.work("middle"), "m")
    run(middle, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"{served.daemon}/deepest.git", "sub")
    run(middle, "config", "-f", ".gitmodules", "submodule.sub.url", "../deepest.git")
    served.commit(middle)
    served.publish(middle, "middle")
    outer = make(served.work("outermost"), "o")
    run(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"{served.daemon}/middle.git", "sub")
    run(outer, "config", "-f", ".gitmodules", "submodule.sub.url", "../middle.git")
    served.commit(outer)
    served.publish(outer, "outermost")
    got = clone(served.http.replace("//", "//user:T0KEN@") + "/outermost.git", keep_git_dir=True)
    top = Path(got.node.path)
    assert (top / "sub/sub/i").exists()
    for path in top.rglob("*"):
        assert not path.is_file() or b"T0KEN" not in path.read_bytes(), path
    for folder, name in ((top, "outermost"), (top / "sub", "middle"), (top / "sub/sub", "deepest")):
        assert run(folder, "remote", "get-url", "origin") == f"{served.http}/{name}.git"
    assert run(top, "config", "submodule.sub.url") == f"{served.http}/middle.git"


# -- named contexts


def test_named_contexts(served, tmp_path):
    count = iter(range(100))

    def fresh() -> str:
        folder = tmp_path / f"ingest{next(count)}"
        folder.mkdir()
        return str(folder)

    def names(text: str) -> list[str]:
        source, _ = remote.of(text, fresh, lambda: None)
        return [item.name for item in select(source, "*")]
    make(tmp_path / "folder", "a", "b", ".dockerignore")
    (tmp_path / "folder/.dockerignore").write_text("b\n.dockerignore")
    assert names(str(tmp_path / "folder")) == ["a"] and isinstance(remote.of(str(tmp_path / "folder"), fresh, lambda: None)[0], Context)
    source, key = remote.of(f"{served.daemon}/app.git#v1:docs", fresh, lambda: None)
    assert [item.name for item in select(source, "[di]*")] == ["deep", "index"] and key == f"git:{served.first}:docs:0"
    subprocess.run(["tar", "-C", tmp_path / "folder", "-czf", served.top / "t.tar.gz", "a"], check=True)
    source, key = remote.of(f"{served.http}/t.tar.gz", fresh, lambda: None)
    assert [item.name for item in select(source, "*")] == ["a"] and key.startswith("sha256:")
    (served.top / "plain").write_text("x")
    assert names(f"{served.http}/plain") == ["plain"]
    (served.top / "other").write_text("x")
    assert remote.of(f"{served.http}/plain", fresh, lambda: None)[1] != remote.of(f"{served.http}/other", fresh, lambda: None)[1]
    for text in (str(tmp_path / "nowhere"), "ftp://x/y", "github.com.example/x"):
        with pytest.raises(NotFound):
            remote.of(text, fresh, lambda: None)


def test_parsing():
    parsed = git.parse("git@github.com:foo/bar.git#v1:sub/dir")
    assert (parsed.remote, parsed.name, parsed.ref, parsed.subdir) == ("git@github.com:foo/bar.git", "bar", "v1", "sub/dir")
    parsed = git.parse("HTTPS://u:p@host/a/b.git?tag=v1&submodules=0&keep-git-dir")
    assert (parsed.remote, parsed.ref, parsed.submodules, parsed.keep_git_dir) == ("https://u:p@host/a/b.git", "refs/tags/v1", False, True)


def test_ssh_offers_no_key_of_this_user_but_an_agents(clone, tmp_path, monkeypatch):
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    for agent in ("", "/run/agent socket"):
        with pytest.raises(CopyError):
            clone("git@host.example:a/b.git#main", ssh=agent)
        words = (tmp_path / "words").read_text().splitlines()
        assert words[:2] == ["-F", "none"] and {"BatchMode=yes", "IdentityFile=none", f"IdentityAgent={agent or 'none'}"} <= set(words)
        assert words[-2:] == ["git@host.example", "git-upload-pack 'a/b.git'"]
