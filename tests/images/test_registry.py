"""Against Debian's docker-registry, with skopeo as the other client."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pycontainers.errors import ImageError, NotFound, RegistryError, UsageError
from pycontainers.images import descriptor, manifest, reference
from pycontainers.images.descriptor import Descriptor, Platform
from pycontainers.images.registry import credentials, login, transport
from pycontainers.images.registry.client import Registry
from pycontainers.images.registry.credentials import Credentials

from .registries import PASSWORD, USER, Image, Server, TokenServer, docker_registry, image, keys, settings, with_passwords

AMD64 = Platform.parse("linux/amd64")
Client = Callable[..., Registry]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with docker_registry(place / "plain") as found:
        yield found


@pytest.fixture(scope="module")
def guarded(place: Path) -> Iterator[Server]:
    with with_passwords(place / "passwords") as found:
        yield found


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    found = TokenServer(tmp_path / "tokens")
    yield found
    found.close()


@pytest.fixture
def by_token(tmp_path: Path, tokens: TokenServer) -> Iterator[Server]:
    with docker_registry(tmp_path / "by-token", tokens.auth()) as found:
        yield found


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = []

    def make(name: str, **words: object) -> Registry:
        environ = words.pop("environ", {})
        made.append(Registry(name, settings(tmp_path, **environ), **words))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def push(registry: Registry, held: Image, *names: str) -> list[int]:
    """As `ship` does, one blob after the other; what `sent` was told."""
    told: list[int] = []
    for blob in (*held.manifest.layers, held.manifest.config):
        if not registry.has(blob):
            registry.put(blob, lambda blob=blob: held.open(blob), told.append)
            assert told[-1] == blob.size
    registry.finish(held.manifest, names)
    return told


def pull(registry: Registry, platform: Platform = AMD64) -> Image:
    found = registry.manifest(platform)
    blobs = {found.config.digest: registry.config(found)}
    for blob in found.layers:
        with registry.open(blob) as reader:
            blobs[blob.digest] = reader.read()
        assert manifest.digest(blobs[blob.digest]) == blob.digest
    return Image(found, blobs)


def skopeo(*words: str, creds: str = "") -> str:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed (Debian: apt-get install skopeo)")
    options = [f"--creds={creds}"] if creds else ["--no-creds"] if words[0] == "inspect" else []
    done = subprocess.run(["skopeo", "--insecure-policy", words[0], *options, *words[1:]], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


# -- what we push others pull, and the other way


@pytest.mark.parametrize("docker", [False, True])
def test_what_we_push_skopeo_pulls(server: Server, client: Client, tmp_path: Path, docker: bool) -> None:
    held, name = image(docker=docker), f"{server.host}/ours/{'docker' if docker else 'oci'}:1"
    push(client(name), held)
    raw = skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}")
    assert raw.encode() == held.manifest.raw
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/copy")
    for digest, data in held.blobs.items():
        assert (tmp_path / "copy" / digest.removeprefix("sha256:")).read_bytes() == data


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_what_skopeo_pushes_we_pull(server: Server, client: Client, tmp_path: Path, form: str) -> None:
    name = f"{server.host}/theirs/{form}:1"
    _layout(tmp_path / "layout", image())
    skopeo("copy", "--dest-tls-verify=false", "--format", form, f"oci:{tmp_path}/layout:1", f"docker://{name}")
    registry = client(name)
    found = pull(registry)
    raw = skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}")
    assert found.manifest.raw == raw.encode()
    assert registry.resolved == found.manifest.descriptor
    assert found.manifest.media_type == (descriptor.OCI_MANIFEST if form == "oci" else descriptor.DOCKER_MANIFEST)
    manifest.config(found.blobs[found.manifest.config.digest], len(found.manifest.layers))


def _layout(folder: Path, held: Image) -> None:
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for digest, data in (*held.blobs.items(), (held.manifest.digest, held.manifest.raw)):
        (folder / "blobs" / digest.replace(":", "/")).write_bytes(data)
    row = held.manifest.descriptor.json() | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [row]}))


def test_podman_pulls_what_we_push(server: Server, client: Client, tmp_path: Path) -> None:
    if not shutil.which("podman") or os.geteuid():
        pytest.skip("podman and root are needed (Debian: apt-get install podman)")
    held, name = image(), f"{server.host}/ours/podman:1"
    push(client(name), held)
    with tempfile.TemporaryDirectory(prefix="pyct-", dir="/var/tmp") as run:  # podman wants its name short
        own = ["podman", f"--root={tmp_path}/root", f"--runroot={run}", "--storage-driver=vfs"]
        done = subprocess.run([*own, "pull", "-q", "--tls-verify=false", name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == held.manifest.config.hex


def test_a_large_layer_goes_in_one_request_and_comes_back(server: Server, client: Client) -> None:
    held = image(size=5 << 20, layers=1)
    registry = client(f"{server.host}/ours/large:1")
    told = push(registry, held)
    assert told == sorted(told[:-2]) + told[-2:] and len(told) > 20
    assert pull(registry).blobs == held.blobs
    layer = held.manifest.layers[0]
    assert server.requests("PATCH") and len([path for path in server.requests("PATCH") if "/ours/large/" in path]) == 1
    with registry.open(layer, 3 << 20) as reader:
        assert reader.read() == held.blobs[layer.digest][3 << 20 :]


def test_an_empty_blob_and_one_at_the_border(server: Server, client: Client) -> None:
    registry = client(f"{server.host}/ours/sizes:1")
    for size in (0, 1, 2, (1 << 20) - 1, 1 << 20, (1 << 20) + 1):
        data = os.urandom(size)
        blob = Descriptor(descriptor.OCI_LAYER, manifest.digest(data), size)
        registry.put(blob, lambda data=data: io.BytesIO(data), lambda _: None)
        assert registry.has(blob)
        assert registry.open(blob).read() == data


def test_what_is_there_is_not_sent(server: Server, client: Client) -> None:
    held = image()
    push(client(f"{server.host}/ours/twice:1"), held)
    before = len(server.requests("POST"))
    registry = client(f"{server.host}/ours/twice:2")
    assert push(registry, held) == []
    assert len(server.requests("POST")) == before
    assert sorted(registry.tags()) == ["1", "2"]


def test_a_blob_is_taken_from_another_repository(server: Server, client: Client) -> None:
    held = image()
    push(client(f"{server.host}/ours/first:1"), held)
    first = reference.parse(f"{server.host}/ours/first:1")
    elsewhere = [reference.parse("ghcr.io/a/b"), reference.parse(f"{server.host}/ours/unknown"), first]
    registry = client(f"{server.host}/ours/second:1", origins=lambda blob: elsewhere)
    assert push(registry, held) == []
    assert registry.mounted == set(held.blobs)
    assert pull(client(f"{server.host}/ours/second:1")).blobs == held.blobs


def test_several_names_and_one_of_another_repository(server: Server, client: Client) -> None:
    held, base = image(), f"{server.host}/ours/names"
    push(client(f"{base}:1"), held, f"{base}:a", f"{base}:b")
    assert sorted(client(base).tags()) == ["a", "b"]
    with pytest.raises(UsageError, match="is not in"):
        client(f"{base}:1").finish(held.manifest, [f"{base}2:a"])


def test_a_digest_pins_whatever_the_tag_means(server: Server, client: Client) -> None:
    old, new, base = image(), image(), f"{server.host}/ours/pinned"
    push(client(f"{base}:1"), old)
    push(client(f"{base}:1"), new)
    assert client(f"{base}:1").manifest(AMD64).digest == new.manifest.digest
    registry = client(f"{base}:1@{old.manifest.digest}")
    assert pull(registry).blobs == old.blobs
    assert registry.resolved == old.manifest.descriptor
    push(client(f"{base}@{old.manifest.digest}"), old)


def test_the_platform_is_chosen_from_an_index(server: Server, client: Client) -> None:
    base = f"{server.host}/ours/platforms"
    both = {name: image(architecture=name) for name in ("amd64", "arm64")}
    rows = []
    for name, held in both.items():
        registry = client(f"{base}@{held.manifest.digest}")
        push(registry, held)
        rows.append(held.manifest.descriptor.json() | {"platform": {"os": "linux", "architecture": name}})
    raw = json.dumps({"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": rows}).encode()
    url = f"http://{server.host}/v2/ours/platforms/manifests/1"
    asked = urllib.request.Request(url, raw, {"Content-Type": descriptor.OCI_INDEX}, method="PUT")
    assert urllib.request.urlopen(asked, timeout=10).status == 201
    for name, held in both.items():
        registry = client(f"{base}:1")
        assert pull(registry, Platform.parse(name)).manifest == held.manifest
        assert registry.resolved and registry.resolved.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    with pytest.raises(NotFound, match=r"no image of .*ours/platforms:1 for linux/s390x") as caught:
        client(f"{base}:1").manifest(Platform.parse("s390x"))
    assert "linux/amd64, linux/arm64" in caught.value.hint


def test_tags_come_page_by_page(server: Server, client: Client) -> None:
    held, base = image(layers=1), f"{server.host}/ours/many"
    push(client(f"{base}:1"), held, *(f"{base}:v{number}" for number in range(120)))
    assert sorted(client(base).tags()) == sorted(f"v{number}" for number in range(120))


def test_what_is_not_there_is_named(server: Server, client: Client) -> None:
    with pytest.raises(NotFound, match=r"ours/nothing:1 does not exist"):
        client(f"{server.host}/ours/nothing:1").manifest(AMD64)
    with pytest.raises(NotFound, match="does not exist"):
        client(f"{server.host}/ours/nothing").tags()
    with pytest.raises(NotFound, match="blob"):
        client(f"{server.host}/ours/nothing").open(Descriptor(descriptor.OCI_LAYER, "sha256:" + "0" * 64, 3))


def test_deleting(server: Server, client: Client) -> None:
    held, base = image(), f"{server.host}/ours/deleted"
    push(client(f"{base}:1"), held)
    with pytest.raises(RegistryError, match="does not delete tags") as caught:  # distribution 2.8 cannot
        client(f"{base}:1").delete()
    assert held.manifest.digest in caught.value.hint
    client(f"{base}:1").manifest(AMD64)
    assert client(f"{base}@{held.manifest.digest}").delete() == held.manifest.digest
    with pytest.raises(NotFound):
        client(f"{base}:1").manifest(AMD64)


def test_deleting_where_it_is_switched_off(place: Path, client: Client) -> None:
    with docker_registry(place / "kept", delete=False) as server:
        held = image()
        push(client(f"{server.host}/a:1"), held)
        with pytest.raises(RegistryError, match="does not allow this"):
            client(f"{server.host}/a@{held.manifest.digest}").delete()


def test_a_manifest_whose_blobs_are_missing_is_refused_with_the_registry_s_words(server: Server, client: Client) -> None:
    with pytest.raises(RegistryError, match=r"400 Bad Request.*blob unknown"):
        client(f"{server.host}/ours/half:1").finish(image().manifest)


def test_content_that_is_not_what_its_descriptor_says(server: Server, client: Client) -> None:
    registry = client(f"{server.host}/ours/wrong:1")
    for data, size in ((b"x" * 10, 20), (b"x" * (2 << 20), 3 << 20)):
        blob = Descriptor(descriptor.OCI_LAYER, manifest.digest(data), size)
        with pytest.raises(ImageError, match=r"ends .* before its size"):
            registry.put(blob, lambda data=data: io.BytesIO(data), lambda _: None)
    for size in (1000, 2 << 20):
        blob = Descriptor(descriptor.OCI_LAYER, "sha256:" + "1" * 64, size)
        with pytest.raises(RegistryError, match="digest"):
            registry.put(blob, lambda size=size: io.BytesIO(b"x" * size), lambda _: None)
        assert not registry.has(blob)


def test_many_threads_at_once(server: Server, client: Client) -> None:
    held, registry = image(size=300_000, layers=8), client(f"{server.host}/ours/threads:1")
    errors: list[Exception] = []

    def work(blob: Descriptor) -> None:
        try:
            if not registry.has(blob):
                registry.put(blob, lambda: held.open(blob), lambda _: None)
            assert registry.open(blob).read() == held.blobs[blob.digest]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(blob,)) for blob in held.manifest.layers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


# -- passwords


def test_a_password(guarded: Server, client: Client) -> None:
    held, name = image(), f"{guarded.host}/private/a:1"
    known = Credentials(USER, PASSWORD)
    push(client(name, credentials=known), held)
    assert pull(client(name, credentials=known)).blobs == held.blobs
    assert skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}", creds=f"{USER}:{PASSWORD}").encode() == held.manifest.raw
    with pytest.raises(RegistryError, match=r"denies anonymous access to .*private/a:1") as caught:
        client(name).manifest(AMD64)
    assert f"%container login {guarded.host}" in caught.value.hint
    with pytest.raises(RegistryError, match="denies alice access") as caught:
        client(name, credentials=Credentials(USER, "not-the-password")).manifest(AMD64)
    assert "not-the-password" not in str(caught.value)


def test_login_and_logout(guarded: Server, client: Client, tmp_path: Path) -> None:
    name, own = f"{guarded.host}/private/b:1", settings(tmp_path)
    file = tmp_path / ".docker" / "config.json"
    with pytest.raises(RegistryError, match=f"refuses user {USER} with this password") as caught:
        login.login(guarded.host, USER, "wrong-password", own)
    assert "wrong-password" not in str(caught.value)
    assert not file.exists()
    said = login.login(guarded.host, USER, PASSWORD, own)
    assert said[0] == f"Login succeeded: {USER} at {guarded.host}" and "unencrypted" in said[1]
    assert PASSWORD not in "".join(said)
    assert file.stat().st_mode & 0o777 == 0o600
    push(client(name), image())
    # skopeo reads the same file.
    assert "1" in skopeo("list-tags", "--tls-verify=false", f"--authfile={file}", f"docker://{name.removesuffix(':1')}")
    assert "Removed" in login.logout(guarded.host, own)[0]
    assert "There was no login" in login.logout(guarded.host, own)[0]
    with pytest.raises(RegistryError, match="anonymous"):
        client(name).manifest(AMD64)


def test_login_where_nobody_is_asked_and_where_there_is_nothing(server: Server, tmp_path: Path) -> None:
    said = login.login(server.host, USER, PASSWORD, settings(tmp_path))
    assert "was not checked" in said[1]
    with pytest.raises(RegistryError, match=r"127.0.0.1:1: connection refused\n"):
        login.login("127.0.0.1:1", USER, PASSWORD, settings(tmp_path))


# -- tokens


def test_tokens(by_token: Server, tokens: TokenServer, client: Client) -> None:
    known = Credentials(USER, PASSWORD)
    held, name = image(), f"{by_token.host}/private/a:1"
    push(client(name, credentials=known), held)
    assert [one["scope"] for one in tokens.asked] == [["repository:private/a:pull,push"]]
    assert pull(client(name, credentials=known)).blobs == held.blobs
    assert tokens.asked[-1]["scope"] == ["repository:private/a:pull"]
    with pytest.raises(RegistryError, match=r"denies anonymous access to .*\(repository:private/a:pull\)"):
        client(name).manifest(AMD64)
    with pytest.raises(RegistryError, match="denies alice access"):
        client(name, credentials=Credentials(USER, "not-the-password")).manifest(AMD64)


def test_everybody_may_pull_what_is_public(by_token: Server, tokens: TokenServer, client: Client) -> None:
    held, name = image(), f"{by_token.host}/public/a:1"
    push(client(name, credentials=Credentials(USER, PASSWORD)), held)
    tokens.field = "access_token"
    assert pull(client(name)).blobs == held.blobs
    assert tokens.asked[-1]["authorization"] == ""
    with pytest.raises(RegistryError, match="denies anonymous access"):
        push(client(name), image())


def test_a_token_for_two_repositories_mounts(by_token: Server, tokens: TokenServer, client: Client) -> None:
    known, held = Credentials(USER, PASSWORD), image()
    push(client(f"{by_token.host}/private/a:1", credentials=known), held)
    first = reference.parse(f"{by_token.host}/private/a:1")
    registry = client(f"{by_token.host}/private/b:1", credentials=known, origins=lambda blob: [first])
    assert push(registry, held) == []
    assert tokens.asked[-1]["scope"] == ["repository:private/b:pull,push", "repository:private/a:pull"]


def test_a_token_that_expired_is_renewed(by_token: Server, tokens: TokenServer, client: Client) -> None:
    registry = client(f"{by_token.host}/private/a:1", credentials=Credentials(USER, PASSWORD))
    tokens.shift = 300 + 58  # the registry forgives 60 seconds: it takes it for two more, while we think that it lives for 300
    push(registry, image())
    time.sleep(2.5)
    tokens.shift = 0
    push(registry, image(size=2 << 20))
    assert len(tokens.asked) == 2
    tokens.shift = 300 + 120
    with pytest.raises(RegistryError, match="denies alice access"):  # refused again with one that is fresh
        registry.tags()
    assert len(tokens.asked) == 3


def test_login_keeps_a_refresh_token_in_place_of_the_password(
    by_token: Server, tokens: TokenServer, client: Client, tmp_path: Path
) -> None:
    said = login.login(by_token.host, USER, PASSWORD, settings(tmp_path))
    assert "a token is stored" in said[1]
    text = (tmp_path / ".docker" / "config.json").read_text()
    assert "a-refresh-token" in text and PASSWORD not in text
    held = image()
    push(client(f"{by_token.host}/private/a:1"), held)
    assert tokens.asked[-1]["method"] == "POST" and tokens.asked[-1]["grant_type"] == ["refresh_token"]
    tokens.refresh_tokens.clear()
    with pytest.raises(RegistryError, match="denies alice access") as caught:
        client(f"{by_token.host}/private/a:1").manifest(AMD64)
    assert "a-refresh-token" not in str(caught.value)


def test_login_refused_by_a_token_server(by_token: Server, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=f"refuses user {USER}"):
        login.login(by_token.host, USER, "wrong-password", settings(tmp_path))
    assert not (tmp_path / ".docker").exists()


# -- TLS


def test_a_private_authority(place: Path, client: Client, tmp_path: Path) -> None:
    own = keys(place / "keys")
    with docker_registry(place / "tls", tls=f"{{certificate: {own.certificate}, key: {own.key}}}") as server:
        held, name = image(), f"{server.host}/a:1"
        with pytest.raises(RegistryError, match="certificate is not trusted"):
            client(name).tags()
        for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            if variable == "SSL_CERT_FILE":  # read by OpenSSL itself, from the process's own environment
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv(variable, str(own.authority))
                    push(client(name), held)
            else:
                push(client(name, environ={variable: str(own.authority)}), held)
        folder = tmp_path / ".config" / "docker" / "certs.d" / server.host
        folder.mkdir(parents=True)
        shutil.copy(own.authority, folder / "ca.crt")
        assert pull(client(name)).blobs == held.blobs
        (folder / "ca.crt").write_text("nonsense")
        with pytest.raises(RegistryError, match=r"certificate authority .*ca.crt cannot be used"):
            client(name).tags()


def test_a_client_certificate(place: Path, client: Client, tmp_path: Path) -> None:
    own = keys(place / "keys2")
    both = f"{{certificate: {own.certificate}, key: {own.key}, clientcas: [{own.authority}]}}"
    with docker_registry(place / "mutual", tls=both) as server:
        folder = tmp_path / ".config" / "containers" / "certs.d" / server.host
        folder.mkdir(parents=True)
        shutil.copy(own.authority, folder / "ca.crt")
        with pytest.raises(RegistryError, match=r"no TLS|connection broke|reset"):
            client(f"{server.host}/a:1").tags()
        shutil.copy(own.certificate, folder / "client.cert")
        with pytest.raises(RegistryError, match="no key beside it"):
            client(f"{server.host}/a:1").tags()
        shutil.copy(own.key, folder / "client.key")
        push(client(f"{server.host}/a:1"), image())


def test_insecure_means_that_nobody_is_verified(place: Path, client: Client, recwarn: pytest.WarningsRecorder) -> None:
    own = keys(place / "keys3")
    with docker_registry(place / "insecure", tls=f"{{certificate: {own.certificate}, key: {own.key}}}") as server:
        push(client(f"{server.host}/a:1", environ={"PYCONTAINERS_INSECURE_REGISTRIES": server.host}), image())
    assert not [one for one in recwarn if "InsecureRequest" in str(one.category)]


def test_credentials_are_never_shown() -> None:
    shown = repr(Credentials(USER, PASSWORD, "identity-token", "registry-token"))
    assert shown == "Credentials(username='alice')"
    assert credentials.server("docker.io") == "https://index.docker.io/v1/"


def test_a_name_that_nobody_has_is_asked_for_once_and_a_resolver_that_is_away_again() -> None:
    found = {code: transport.broken(socket.gaierror(code, "")) for code in (socket.EAI_NONAME, socket.EAI_AGAIN)}
    assert [found[code].refused for code in found] == [True, False] and {one.reason for one in found.values()} == {"its name is not known"}
