"""Docker's config.json and podman's auth.json: what is found in which order, how it is written; helper programs are real ones."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from pycontainers.errors import RegistryError, UsageError
from pycontainers.images.registry import credentials, login
from pycontainers.images.registry.credentials import Credentials


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / ".docker").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "run" / "containers").mkdir(parents=True)
    return tmp_path


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "XDG_RUNTIME_DIR": f"{home}/run", "PATH": f"{home}/bin:{os.environ['PATH']}", **more}


def docker(home: Path, **said: Any) -> Path:
    path = home / ".docker" / "config.json"
    path.write_text(json.dumps(said))
    return path


def podman(home: Path, auths: dict[str, Any]) -> Path:
    path = home / "run" / "containers" / "auth.json"
    path.write_text(json.dumps({"auths": auths}))
    return path


STORE = r"""#!/bin/sh
# A docker-credential-helper that keeps its secrets in files, named by the server with its slashes and colons replaced.
cd "$(dirname "$0")/../kept-%s" || exit 1
echo "$1" >> ../asked
case $1 in
get) read -r server; name=$(echo "$server" | tr /: __)
     [ -f "$name" ] && cat "$name" || { echo "credentials not found in native keychain"; exit 1; } ;;
store) cat > new; name=$(sed 's/.*"ServerURL": "\([^"]*\)".*/\1/' new | tr /: __); mv new "$name" ;;
erase) read -r server; rm -f "$(echo "$server" | tr /: __)" ;;
esac
"""


def helper(home: Path, name: str, text: str = STORE) -> Path:
    (home / f"kept-{name}").mkdir(exist_ok=True)
    program = home / "bin" / f"docker-credential-{name}"
    program.write_text(text.replace("%s", name))
    program.chmod(0o755)
    return home / f"kept-{name}"


def answer(folder: Path, server: str, user: str, secret: str) -> None:
    (folder / server.replace("/", "_").replace(":", "_")).write_text(json.dumps({"ServerURL": server, "Username": user, "Secret": secret}))


# -- finding


@pytest.mark.parametrize("key", ["r.example.com", "https://r.example.com", "https://r.example.com/v1/", "r.example.com/v2/"])
def test_a_key_as_docker_and_others_write_it(home: Path, key: str) -> None:
    docker(home, auths={key: auth("u", "p:w"), "example.com": auth("x", "x"), "r.example.com:5000": auth("y", "y")})
    assert credentials.find("r.example.com", environ=environ(home)) == Credentials("u", "p:w")
    assert credentials.find("r.example.com:5000", environ=environ(home)) == Credentials("y", "y")
    assert credentials.find("s.example.com", environ=environ(home)) is None


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub(home: Path, key: str) -> None:
    docker(home, auths={key: auth("u", "p")})
    assert credentials.find("docker.io", "library/debian", environ(home)) == Credentials("u", "p")


def test_helpers_before_the_store_before_the_file(home: Path) -> None:
    answer(helper(home, "one"), "a.io", "from", "helper")
    answer(helper(home, "all"), "a.io", "from", "store")
    answer(home / "kept-all", "b.io", "from", "store")
    auths = {name: auth("from", "file") for name in ("a.io", "b.io", "c.io")}
    docker(home, credHelpers={"a.io": "one"}, credsStore="all", auths=auths)
    assert credentials.find("a.io", environ=environ(home)) == Credentials("from", "helper")
    assert credentials.find("b.io", environ=environ(home)) == Credentials("from", "store")
    assert credentials.find("c.io", environ=environ(home)) is None  # with a store the file's own are not asked, as with Docker
    docker(home, auths=auths)
    assert credentials.find("a.io", environ=environ(home)) == Credentials("from", "file")


def test_a_helper_s_token(home: Path) -> None:
    answer(helper(home, "one"), "https://index.docker.io/v1/", "<token>", "identity")
    docker(home, credsStore="one")
    assert credentials.find("docker.io", environ=environ(home)) == Credentials(identity_token="identity")


def test_tokens_and_padding_in_the_file(home: Path) -> None:
    identity = auth("u", "") | {"identitytoken": "i"}
    docker(home, auths={"a.io": auth("u", "p\0\0"), "b.io": identity, "c.io": {"registrytoken": "r"}, "d.io": {}})
    assert credentials.find("a.io", environ=environ(home)) == Credentials("u", "p")
    assert credentials.find("b.io", environ=environ(home)) == Credentials("u", identity_token="i")
    assert credentials.find("c.io", environ=environ(home)) == Credentials(registry_token="r")
    assert credentials.find("d.io", environ=environ(home)) is None


def test_podman_s_file_comes_after_docker_s(home: Path) -> None:
    podman(home, {"a.io": auth("p", "podman"), "b.io": auth("p", "podman")})
    docker(home, auths={"a.io": auth("d", "docker")})
    assert credentials.find("a.io", environ=environ(home)) == Credentials("d", "docker")
    assert credentials.find("b.io", environ=environ(home)) == Credentials("p", "podman")
    (home / "other.json").write_text(json.dumps({"auths": {"b.io": auth("o", "other")}}))
    assert credentials.find("b.io", environ=environ(home, REGISTRY_AUTH_FILE=f"{home}/other.json")) == Credentials("o", "other")


def test_podman_s_longest_path_wins(home: Path) -> None:
    podman(home, {"q.io": auth("host", "x"), "q.io/org": auth("org", "x"), "q.io/org/repo": auth("repo", "x"), "q.io/or": auth("no", "x")})
    for path, user in (("org/repo", "repo"), ("org/other", "org"), ("org/repo/deep", "repo"), ("elsewhere/a", "host"), ("", "host")):
        found = credentials.find("q.io", path, environ(home))
        assert found and found.username == user, path


def test_docker_config_names_another_folder(home: Path) -> None:
    (home / "config.json").write_text(json.dumps({"auths": {"a.io": auth("u", "p")}}))
    assert credentials.find("a.io", environ=environ(home, DOCKER_CONFIG=str(home))) == Credentials("u", "p")


@pytest.mark.parametrize(
    "text",
    [
        *('{"auths": []}', '{"credHelpers": 1}', "[]", "{secret-word"),
        *('{"auths": {"a.io": {"auth": "secret-word"}}}', '{"auths": {"a.io": {"auth": 1}}}'),
    ],
)
def test_a_malformed_file_is_named_and_not_shown(home: Path, text: str) -> None:
    path = docker(home)
    path.write_text(text)
    with pytest.raises(RegistryError) as caught:
        credentials.find("a.io", environ=environ(home))
    assert str(path) in caught.value.message and "secret-word" not in str(caught.value)


def test_helpers_that_fail(home: Path) -> None:
    docker(home, credsStore="gone")
    with pytest.raises(RegistryError, match="docker-credential-gone is not installed"):
        credentials.find("a.io", environ=environ(home))
    helper(home, "bad", "#!/bin/sh\nprintf 'no key\\033[2J ring'; exit 3\n")
    docker(home, credsStore="bad")
    with pytest.raises(RegistryError, match=r"docker-credential-bad get failed \(3\): no key ring"):
        credentials.find("a.io", environ=environ(home))
    for said in ("secret-word", '{"Username": "u", "Secret": 5}', '["secret-word"]'):
        helper(home, "odd", f"#!/bin/sh\ncat >/dev/null\necho '{said}'\n")
        docker(home, credsStore="odd")
        with pytest.raises(RegistryError, match="its answer is malformed") as caught:
            credentials.find("a.io", environ=environ(home))
        assert "secret-word" not in str(caught.value)
    docker(home, credsStore="../../bin/sh")
    with pytest.raises(RegistryError, match="names a credential helper"):
        credentials.find("a.io", environ=environ(home))


# -- keeping


def test_what_is_kept_is_found_and_the_rest_of_the_file_stays(home: Path) -> None:
    path = docker(home, HttpHeaders={"X": "y"}, auths={"b.io": auth("b", "b")}, unknown=[1])
    path.chmod(0o644)
    assert credentials.keep("a.io", Credentials("u", "p"), environ(home)) == str(path)
    said = json.loads(path.read_text())
    assert said == {"HttpHeaders": {"X": "y"}, "auths": {"b.io": auth("b", "b"), "a.io": auth("u", "p")}, "unknown": [1]}
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["config.json"]
    assert credentials.find("a.io", environ=environ(home)) == Credentials("u", "p")
    assert credentials.forget("a.io", environ(home)) and not credentials.forget("a.io", environ(home))
    assert json.loads(path.read_text())["auths"] == {"b.io": auth("b", "b")}


def test_docker_hub_is_kept_under_docker_s_name(home: Path) -> None:
    credentials.keep("docker.io", Credentials("u", "p"), environ(home))
    path = home / ".docker" / "config.json"
    assert list(json.loads(path.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    assert credentials.forget("docker.io", environ(home))
    assert credentials.find("docker.io", environ=environ(home)) is None


def test_a_store_keeps_it_and_the_file_does_not(home: Path) -> None:
    folder = helper(home, "all")
    path = docker(home, credsStore="all")
    assert credentials.keep("a.io:5000", Credentials("u", "pass-word"), environ(home)) == "docker-credential-all"
    assert "pass-word" not in path.read_text() and len(os.listdir(folder)) == 1
    assert credentials.find("a.io:5000", environ=environ(home)) == Credentials("u", "pass-word")
    assert credentials.forget("a.io:5000", environ(home))
    assert os.listdir(folder) == []


def test_a_store_that_fails_shows_no_password(home: Path) -> None:
    helper(home, "bad", "#!/bin/sh\ncat; cat >&2; exit 1\n")
    path = docker(home, credsStore="bad")
    before = path.read_text()
    with pytest.raises(RegistryError, match="store failed") as caught:
        credentials.keep("a.io", Credentials("u", "pass-word"), environ(home))
    assert "pass-word" not in str(caught.value) and path.read_text() == before


def test_a_malformed_file_is_not_written_over(home: Path) -> None:
    path = docker(home)
    path.write_text("{half")
    for act in (lambda: credentials.keep("a.io", Credentials("u", "p"), environ(home)), lambda: credentials.forget("a.io", environ(home))):
        with pytest.raises(RegistryError, match="not valid JSON"):
            act()
    assert path.read_text() == "{half"


def test_a_link_is_followed(home: Path) -> None:
    real = home / "elsewhere.json"
    real.write_text('{"x": 1}')
    (home / ".docker" / "config.json").symlink_to(real)
    credentials.keep("a.io", Credentials("u", "p"), environ(home))
    assert (home / ".docker" / "config.json").is_symlink()
    assert json.loads(real.read_text()) == {"x": 1, "auths": {"a.io": auth("u", "p")}}


def test_many_at_once_lose_nothing(home: Path) -> None:
    hosts = [f"r{number}.io" for number in range(20)]
    threads = [threading.Thread(target=credentials.keep, args=(host, Credentials("u", host), environ(home))) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(json.loads((home / ".docker" / "config.json").read_text())["auths"]) == sorted(hosts)


def test_docker_reads_what_we_keep(home: Path) -> None:
    """Docker's own command line lists no credentials, but it takes them away, by its own name for the key."""
    credentials.keep("a.io", Credentials("u", "p"), environ(home))
    try:
        done = subprocess.run(["docker", "logout", "a.io"], env=environ(home), capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("docker is not installed (Debian: apt-get install docker.io)")
    assert "Removing login credentials for a.io" in done.stdout, done.stderr
    assert credentials.find("a.io", environ=environ(home)) is None


# -- names of registries


@pytest.mark.parametrize("text", ["", "docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_s_names(text: str) -> None:
    assert login.check_host(text) == "docker.io"


def test_names_of_registries() -> None:
    for text in ("ghcr.io", "localhost:5000", "https://r.example.com/", "[::1]:5000"):
        assert login.check_host(text) == text.removeprefix("https://").rstrip("/")
    for text in ("a/b", "r.io/path", "user@r.io", "a b", "myregistry", "r.io:x"):
        with pytest.raises(UsageError):
            login.check_host(text)
