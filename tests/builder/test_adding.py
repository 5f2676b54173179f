"""ADD and COPY in whole builds: what the language says reaches the files."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat

import pytest

from pycontainers.errors import BuildError
from pycontainers.events import StepFinished
from tests.builder.placing import make
from tests.builder.test_archives import entry, pack
from tests.builder.test_downloads import DATE, server
from tests.builder.test_git import served

__all__ = ["served", "server"]  # fixtures


def cached(builder) -> list[bool]:
    return [event.cached for event in builder.events if isinstance(event, StepFinished)]


def test_an_address(builder, look, server):
    url = server.give("/a/app.bin", b"data", ETag='"1"', Last_Modified=DATE)
    digest = hashlib.sha256(b"data").hexdigest()
    text = f"FROM scratch\nARG base={server.url}\nADD $base/a/app.bin /x/\nADD --chmod=755 --chown=3:4 --checksum=sha256:{digest} {url} /y"
    image = builder(text)
    assert look.files(image) == ["/x/", "/x/app.bin", "/y"]
    found = [look.status(image, path) for path in ("/x/app.bin", "/y")]
    assert [(stat.S_IMODE(one.st_mode), one.st_mtime) for one in found] == [(0o600, 1445412480), (0o755, 1445412480)]
    assert os.geteuid() or (found[1].st_uid, found[1].st_gid) == (3, 4)
    assert builder(text).id == image.id and all(cached(builder)) and builder.left_over() == []
    server.give("/a/app.bin", b"changed", ETag='"2"')
    with pytest.raises(BuildError, match=r"Dockerfile:4:.*has sha256"):
        builder(text)
    assert look.content(builder(text.rpartition("\n")[0]), "/x/app.bin") == "changed"


def test_an_archive_at_an_address_is_unpacked_on_request(builder, look, server):
    url = server.give("/t.tgz", gzip.compress(pack(entry("d/a", b"1"))))
    image = builder(f"FROM scratch\nADD {url} /x/\nADD --unpack=true {url} /y/\nADD --unpack=false {url} /z/\nADD --unpack {url} /w")
    assert look.files(image) == ["/w/", "/w/d/", "/w/d/a", "/x/", "/x/t.tgz", "/y/", "/y/d/", "/y/d/a", "/z/", "/z/t.tgz"]


def test_a_checksum_is_expanded_and_only_for_addresses(builder, look, server):
    url, digest = server.give("/app.bin", b"data"), hashlib.sha256(b"data").hexdigest()
    image = builder(f"FROM scratch\nARG sum={digest}\nADD --checksum=sha256:$sum {url} /x")
    assert look.content(image, "/x") == "data"
    builder.file("a", "data")
    with pytest.raises(BuildError, match=r"Dockerfile:2:.*--checksum is for addresses, and a is none"):
        builder(f"FROM scratch\nADD --checksum=sha256:{digest} a /x")


def test_a_local_archive(builder, look):
    builder.file("t.tgz", gzip.compress(pack(entry("d/a", b"1"))))
    image = builder("FROM scratch\nADD t.tgz /x\nADD --unpack=false t.tgz /y/\nCOPY t.tgz /z/\nADD . /all/")
    assert look.files(image) == ["/all/", "/all/t.tgz", "/x/", "/x/d/", "/x/d/a", "/y/", "/y/t.tgz", "/z/", "/z/t.tgz"]


def test_a_repository(builder, look, served):
    text = f"FROM scratch\nADD {served.daemon}/app.git#v1 /src\nADD --keep-git-dir=true {served.http}/app.git#main /git\n"
    text += f"ADD --checksum={served.first} {served.daemon}/app.git#v1:docs /docs/"
    image = builder(text)
    assert look.content(image, "/src/README") == "README" and look.content(image, "/git/README") == "second"
    assert look.content(image, "/docs/index") == "docs/index"
    assert "/git/.git/HEAD" in look.files(image) and "/src/.git/" not in look.files(image)
    assert builder.left_over() == []
    builder(f"FROM scratch\nADD {served.http}/app.git#v1 /src")
    assert all(cached(builder))  # it is the content that counts


def test_contexts_by_name(builder, look, served, server, tmp_path):
    make(tmp_path / "other", "a", "sub/b")
    server.give("/t.tar", pack(entry("in", b"tar")))
    contexts = {"folder": str(tmp_path / "other"), "repo": f"{served.daemon}/app.git#v1:docs", "tar": f"{server.url}/t.tar"}
    image = builder("FROM scratch\nCOPY --from=folder sub /f/\nCOPY --from=repo index /r/\nCOPY --from=tar in /t/", contexts=contexts)
    assert look.files(image) == ["/f/", "/f/b", "/r/", "/r/index", "/t/", "/t/in"] and builder.left_over() == []
    with pytest.raises(BuildError, match=r"Dockerfile:2:.*context folder"):
        builder("FROM scratch\nCOPY --from=folder sub /f/", contexts={"folder": str(tmp_path / "nowhere")})


def test_flags_of_copy(builder, look):
    for name in ("a/b/c.py", "a/b/c.txt", "a/d.py", "top"):
        builder.file(name)
    image = builder("FROM scratch\nCOPY --parents a/**/*.py /p/\nCOPY --exclude=**/*.py a /e/\nCOPY --link --chmod=u=rwX,go=rX a/b /l/m/\n"
                    "COPY --parents --exclude=**/c.* ./a/./b a/./d.py /q/")
    assert look.files(image) == ["/e/", "/e/b/", "/e/b/c.txt", "/l/", "/l/m/", "/l/m/c.py", "/l/m/c.txt", "/p/", "/p/a/", "/p/a/b/",
                                 "/p/a/b/c.py", "/p/a/d.py", "/q/", "/q/b/", "/q/d.py"]
    builder.file("a/d.py", "other")  # no step but the first and the last reads it
    builder("FROM scratch\nCOPY --exclude=**/*.py a /e/")
    first = builder("FROM scratch\nCOPY --exclude=**/*.py a /e/")
    builder.file("a/b/c.py", "other")
    assert builder("FROM scratch\nCOPY --exclude=**/*.py a /e/").id == first.id and all(cached(builder))


def test_files_given_with_the_build(builder, look, tmp_path):
    builder.file("a", "disk")
    builder.file(".dockerignore", "*\n")
    files = {"a": b"given", "deep/b": b"2"}
    image = builder("FROM scratch\nCOPY . /x/", files=files)
    assert look.files(image) == ["/x/", "/x/a", "/x/deep/", "/x/deep/b"] and look.content(image, "/x/a") == "given"
    assert look.files(builder("FROM scratch\nCOPY deep/b /", context="", files=files)) == ["/b"]
    with pytest.raises(BuildError, match="nothing is not in the build context"):
        builder("FROM scratch\nCOPY nothing /", context="", files=files)


def test_the_dockerfiles_own_list_of_what_to_leave_out(builder, look, tmp_path):
    for name in ("a", "b"):
        builder.file(name)
    builder.file(".dockerignore", "a\n.dockerignore")
    (tmp_path / "my.Dockerfile.dockerignore").write_text("b\n.dockerignore")
    assert look.files(builder("FROM scratch\nCOPY . /", dockerfile_path=str(tmp_path / "my.Dockerfile"))) == ["/a"]
    assert look.files(builder("FROM scratch\nCOPY . /")) == ["/b"]


def test_source_date_epoch(builder, look, server):
    builder.file("a/b")
    url = server.give("/f", b"1", Last_Modified=DATE)
    image = builder(f"FROM scratch\nCOPY a /x/\nADD {url} /y\nWORKDIR /w", epoch=1_000_000_000)
    assert {look.status(image, path).st_mtime for path in look.files(image)} == {1_000_000_000}


def test_a_command_cannot_reach_what_was_fetched(builder):
    with pytest.raises(BuildError, match="cannot have the id pycontainers:downloads"):
        builder("FROM scratch\nARG own=downloads\nRUN --mount=type=cache,target=/c,id=pycontainers:$own true")
