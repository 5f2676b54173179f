"""The context: .dockerignore to the letter, files laid over it, and no way out of its folder."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from pathlib import Path

import pytest

from pycontainers.builder.context import Context, digest, select
from pycontainers.builder.ignore import path_matcher
from pycontainers.builder.sources import CopyError
from pycontainers.errors import BuildError, NotFound, UsageError
from tests.builder.placing import Image, make


def seen(folder: Path, dockerfile: str = "", files: dict[str, bytes] | None = None) -> list[str]:
    """Every path that ``COPY . /`` would bring."""
    context = Context(str(folder) if folder else "", dockerfile, files)
    item, = select(context, "/")
    return sorted(entry.relative for entry in item.source.entries(item.node) if entry.relative)


@pytest.mark.parametrize(("patterns", "names", "kept"), [
    # the examples of https://docs.docker.com/build/concepts/context/#dockerignore-files
    ("# comment\n*/temp*\n*/*/temp*\ntemp?", "somedir/temporary.txt somedir/subdir/temporary.txt tempa temp x/keep",
     "somedir somedir/subdir temp x x/keep"),
    ("*.md\n!README.md", "a.md README.md d/b.md", "README.md d d/b.md"),
    ("*.md\n!README*.md\nREADME-secret.md", "a.md README.md README-secret.md README-x.md", "README-x.md README.md"),
    ("*.md\nREADME-secret.md\n!README*.md", "a.md README.md README-secret.md", "README-secret.md README.md"),
    ("**/*.go", "a.go d/b.go d/e/c.go d/x", "d d/e d/x"),
    ("*\n!Dockerfile\n!src", "Dockerfile src/a/b other/x", "Dockerfile src src/a src/a/b"),
    # an excluded folder is there if something in it is included again, and only then
    ("a\n!a/b/c", "a/x a/b/c a/b/d z", "a a/b a/b/c z"),
    ("a\n!a/b/c", "a/x a/b/d z", "z"),
    ("*\n!**/keep", "a/b/keep a/b/no c/no keep", "a a/b a/b/keep keep"),
    ("*\n!a/*/c", "a/x/c a/y/d a/c b/x/c", "a a/x a/x/c"),
    ("a/**\n!a/b", "a/b/c a/d", "a a/b a/b/c"),
    ("a\n!a/b\na/b/c", "a/b/c a/b/d", "a a/b a/b/d"),
    # a "!" of what nothing excludes says nothing of what is in it (Docker 28)
    ("[ab]/?\nc/?\n!a\n!a*/x", "a/a a/b/c a/xy b/c c/d", "a a/xy b c"),
    ("**/[^a]/*.txt\n!/?", "a/c.txt a/b/c.txt b/c.txt", "a a/b a/c.txt b"),
    # how the lines are read
    ("\ufeffa\r\n\r\n  b  \r\n#c\n #d", "a b #c #d x", "#c x"),
    ("/a\n//b/\n./c/.\n!  ./c/d", "a/x b c/d c/e", "c c/d"),
    ("a\u2028b", "a b a\u2028b", "a b"),  # no line ends there
    ("**foo\n**/bar", "xfoo d/yfoo foo bar xbar d/bar", "d xbar"),
    ("a**", "a ab/c b", "b"),
    ("**", "a b/c", ""),
    (".", "a", "a"),
    ("\\#x\n\\!y\na\\*", "#x !y z a* ab", "ab z"),
    ("[a-c]x\n[^d]y", "ax dx dy ay", "dx dy"),
    ("[[]a\n[\\]]b\n[a&&b~~|]c\n[\\-x]d", "[a ]b |c &c xc -d xd \\d", "\\d xc"),
])
def test_dockerignore_in_a_folder(tmp_path, patterns, names, kept):
    make(tmp_path, *names.split())
    (tmp_path / ".dockerignore").write_text(patterns + "\n.dockerignore\n", newline="")
    assert " ".join(seen(tmp_path)) == kept


def naive(pattern: str, path: str) -> bool:
    """What a pattern means, told as simply as possible: only for short ones."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        if not rest:
            return True
        return naive(rest, path) or any(naive(rest, path[at + 1:]) for at, char in enumerate(path) if char == "/")
    if pattern.startswith("*"):
        return naive(pattern[1:], path) or (path[:1] not in ("", "/") and naive(pattern, path[1:]))
    one = path[:1] not in ("", "/") if pattern[0] == "?" else path[:1] == pattern[0]
    return one and naive(pattern[1:], path[1:])


def test_patterns_against_a_naive_reading_of_them():
    chance = random.Random(5)
    for _ in range(4000):
        pattern = "".join(chance.choice(["a", "b", "/", "*", "**", "?", "**/"]) for _ in range(chance.randint(1, 5)))
        path = "".join(chance.choice("ab/") for _ in range(chance.randint(1, 7)))
        if "***" in pattern or (pattern.startswith("**") and not any(char in pattern[2:] for char in "*?")):
            continue  # the first has no meaning that is written down, the second is a suffix
        assert path_matcher(pattern)(path) == naive(pattern, path), (pattern, path)


def test_the_dockerfiles_own_list_comes_first(tmp_path):
    make(tmp_path, "a", "b", "docker/c", **{".dockerignore": "a"})
    (tmp_path / "docker/app.Dockerfile.dockerignore").write_text("b\n")
    own = seen(tmp_path, str(tmp_path / "docker/app.Dockerfile"))
    assert "b" not in own and "a" in own
    assert "a" not in seen(tmp_path, str(tmp_path / "docker/other"))
    (tmp_path / "docker/app.Dockerfile.dockerignore").write_text("\n\n[")
    with pytest.raises(BuildError, match=r"app\.Dockerfile\.dockerignore line 3: malformed"):
        Context(str(tmp_path), str(tmp_path / "docker/app.Dockerfile"))


@pytest.mark.parametrize("inside", [True, False])
def test_patterns_of_a_dockerfile_that_are_no_regular_file(tmp_path, inside):
    context, docker = make(tmp_path / "context", "a", "b"), tmp_path / ("context" if inside else "docker")
    docker.mkdir(exist_ok=True)
    (tmp_path / "secret").write_text("[secret\n")
    patterns = docker / "D.dockerignore"

    def refused(match: str) -> None:
        with pytest.raises(UsageError, match=match) as caught:
            seen(context, str(docker / "D"))
        assert "secret" not in str(caught.value)
        patterns.unlink()

    os.mkfifo(patterns)
    refused("not a regular file")
    patterns.symlink_to("/dev/zero")
    refused("leads out of the context")
    patterns.symlink_to(tmp_path / "secret")
    refused("leads out of the context")
    with open(patterns, "wb") as file:
        file.truncate((1 << 20) + 1)
    refused("larger than 1 MiB")
    with open(context / ".dockerignore", "wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        seen(context)


def test_patterns_of_a_dockerfile_may_be_a_link_in_the_context(tmp_path):
    make(tmp_path, "a", "b", "docker/D.dockerignore -> ../patterns")
    (tmp_path / "patterns").write_text("b\npatterns\ndocker\n")
    assert seen(tmp_path, str(tmp_path / "docker/D")) == ["a"]


def test_a_list_that_is_a_link_is_read_inside_the_folder_only(tmp_path):
    (tmp_path / "outside").write_text("a")
    folder = make(tmp_path / "context", "a", ".dockerignore -> ../outside")
    assert seen(folder) == [".dockerignore", "a"]


# -- files that are laid over it


def test_laid_files_shadow_what_is_there_and_are_never_excluded(tmp_path):
    folder = make(tmp_path, "a", "d/x", "d/y", "gone/z", "link -> d", "file", **{".dockerignore": "*\n!file"})
    files = {"a": b"mine", "d/x": b"mine too", "new/deep/er": b"1", "gone": b"now a file", "link/in": b"no link any more",
             "file/below": b"2"}
    assert seen(folder, files=files) == [
        "a", "d", "d/x", "file", "file/below", "gone", "link", "link/in", "new", "new/deep", "new/deep/er",
    ]
    made = Image(tmp_path.parent / "image").copy(Context(str(folder), files=files), "/")
    assert made["/a"] == "mine" and made["/link"] == "/" and made["/gone"] == "now a file" and made["/link/in"] == "no link any more"
    assert (tmp_path / "a").read_text() == "a" and (tmp_path / "link").is_symlink()


def test_without_a_folder_there_are_only_the_laid_files():
    files = {"app.py": b"print()", "data/x": b"1", ".dockerignore": b"data"}
    assert seen(None, files=files) == [".dockerignore", "app.py", "data", "data/x"]
    context = Context("", files=files)
    assert [item.name for item in select(context, "*.py")] == ["app.py"] and context.find("/nothing") is None
    assert seen(None) == []


def test_a_laid_list_of_patterns_counts(tmp_path):
    assert seen(make(tmp_path, "a", "b"), files={".dockerignore": b"a"}) == [".dockerignore", "b"]


def test_laid_files_count_by_content(tmp_path):
    def value(content):
        return digest(select(Context(str(tmp_path), files={"a": content}), "/")[0])
    assert value(b"1") == value(b"1") != value(b"2")
    (tmp_path / "a").write_bytes(b"2")
    (tmp_path / "a").chmod(0o644)
    tmp_path.chmod(0o755)
    assert digest(select(Context(str(tmp_path)), "/a")[0]) == digest(select(Context("", files={"a": b"2"}), "/a")[0])


@pytest.mark.parametrize("name", ["../a", "a/../../b", "", ".", "d/", "/", "a\0b"])
def test_names_that_are_none(name):
    with pytest.raises(UsageError, match="not the name of a file"):
        Context("", files={name: b""})


def test_a_laid_file_with_another_below_it():
    with pytest.raises(UsageError, match="'a' is a file"):
        Context("", files={"a": b"", "a/b": b""})


def test_no_such_folder(tmp_path):
    with pytest.raises(NotFound, match="not a folder"):
        Context(str(tmp_path / "nowhere"))


# -- attacks


@pytest.fixture
def hostile(tmp_path) -> Path:
    make(tmp_path / "outside", "secret", "d/secret")
    return make(tmp_path / "context", "d/e/f", "up -> ../outside/secret", f"absolute -> {tmp_path}/outside/secret", "folder -> ../outside",
                "d/up -> ../../outside", "loop -> loop", "inside -> d/e/f", "root -> /d/e", "magic -> /proc/self/root")


@pytest.mark.parametrize("pattern", ["up", "absolute", "folder/secret", "folder/d", "d/up/secret", "d/../../outside/secret",
                                     "../outside/secret", "magic/etc/passwd", "d/e/../../../../../etc/passwd"])
def test_links_lead_nowhere_outside(hostile, pattern):
    assert select(Context(str(hostile)), pattern) == []


@pytest.mark.parametrize("pattern", ["up*", "loop*"])
def test_a_wildcard_that_meets_a_link_to_nothing_says_so(hostile, pattern):
    with pytest.raises(Exception, match=r"which is not there|more than 40 links"):
        select(Context(str(hostile)), pattern)


def test_links_are_copied_as_links_and_followed_inside(hostile, tmp_path):
    image = Image(tmp_path / "image")
    made = image.copy(Context(str(hostile)), "/")
    assert made["/up"] == "->../outside/secret" and made["/magic"] == "->/proc/self/root" and "secret" not in made.values()
    assert image.copy(Context(str(hostile)), "inside", "root", to="/x/") == {"/x": "/", "/x/f": "d/e/f", "/x/inside": "d/e/f"}


def test_a_folder_that_becomes_a_link_before_it_is_read(hostile, tmp_path):
    context = Context(str(hostile))
    file, folder = select(context, "d/e/f") + select(context, "d")
    (hostile / "d").rename(hostile / "was")
    (hostile / "d").symlink_to("was")
    for item in (file, folder):
        with pytest.raises((OSError, CopyError)):
            digest(item)
        with pytest.raises(CopyError):
            Image(tmp_path / item.name).copy(None, items=[item], to="/x/")


def test_links_swapped_in_all_the_time(tmp_path):
    """Somebody replaces a folder by a link to the outside, over and over, while it is digested and copied."""
    make(tmp_path / "outside", "f", "e/f")
    (tmp_path / "outside/e/f").write_text("secret")
    (tmp_path / "outside/f").write_text("secret")
    folder = make(tmp_path / "context", "d/e/f", "d/f")
    (tmp_path / "context/evil").symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(folder / "d", folder / "kept")
            os.rename(folder / "evil", folder / "d")
            os.rename(folder / "d", folder / "evil")
            os.rename(folder / "kept", folder / "d")
            time.sleep(0.0002)

    thread = threading.Thread(target=swap)
    thread.start()
    taken = met = 0
    try:
        context = Context(str(folder))
        end = time.monotonic() + 20
        for number in itertools.count():
            if (number >= 300 and taken and met) or time.monotonic() > end:  # both happen in the end, on a busy machine, too
                break
            try:
                items = select(context, "d")
                met += not items
                for item in items:
                    digest(item)
                    made = Image(tmp_path / f"image{number}").copy(context, items=[item], to="/x/")
                    assert "secret" not in made.values()
                    taken += 1
            except (OSError, CopyError):
                met += 1
    finally:
        stop.set()
        thread.join()
    assert taken
    assert met
