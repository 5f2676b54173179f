"""What a COPY means: wildcards, --parents, --exclude; and how it lands: --link, --chmod, owners, times."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from pycontainers.builder.context import Context, ImageSource, digest, select
from pycontainers.builder.copying import CopyError, parse_mode, parse_owner
from pycontainers.builder.ignore import PatternError
from pycontainers.errors import ContainersError
from tests.builder.placing import Image, make

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(str(make(tmp_path / "context", "a/b/c/d/foo", "a/b/c/d/e/bay", "a/b2/c/d/e/bar", "a/b/c2/d/e/baz", "a/b/c2/d/e2/baz",
                            "top.txt", "top.md", "a/link -> b", "lone/")))


@pytest.fixture
def image(tmp_path) -> Image:
    return Image(tmp_path / "image")


def files(made: dict[str, str]) -> str:
    return " ".join(path for path, what in made.items() if what != "/")


@pytest.mark.parametrize(("pattern", "to", "expected"), [
    ("a/b/c/d/foo", "/", "/a/b/c/d/foo"),
    ("./a/b/c/d", "/out/", "/out/a/b/c/d/e/bay /out/a/b/c/d/foo"),
    ("/a/b/c/d/.", "/out", "/out/a/b/c/d/e/bay /out/a/b/c/d/foo"),
    ("/a/b/./c/d", "/out/", "/out/c/d/e/bay /out/c/d/foo"),
    ("/a/./b/./c", "/out/", "/out/b/c/d/e/bay /out/b/c/d/foo"),
    ("/a/./*/c", "/out/", "/out/b/c/d/e/bay /out/b/c/d/foo /out/b2/c/d/e/bar"),
    ("/a/b*/./c/**/e", "/out/", "/out/c/d/e/bar /out/c/d/e/bay"),
    ("/a/b/c*/./d/**/baz", "/out/", "/out/d/e/baz /out/d/e2/baz"),
    ("**/ba*", "/", "/a/b/c/d/e/bay /a/b/c2/d/e/baz /a/b/c2/d/e2/baz /a/b2/c/d/e/bar"),
    ("*.txt", "/out/", "/out/top.txt"),
    ("a/b2/./", "/out/", "/out/c/d/e/bar"),
    ("a/link/./c2", "/out/", "/out/c2/d/e/baz /out/c2/d/e2/baz"),  # links before the pivot are followed
    ("a/link/c2", "/out/", ""),  # after it they are not
    ("lone", "/x/", ""),
    ("../../a/b2", "/", "/a/b2/c/d/e/bar"),
])
def test_parents(context, image, pattern, to, expected):
    made = image.copy(context, pattern, to=to, parents=True)
    assert files(made) == expected
    assert pattern != "lone" or made == {"/x": "/", "/x/lone": "/"}


def test_parents_of_several_sources_meet(context, image):
    made = image.copy(context, "a/b/c*/./d/**/baz", "a/b*/./c/**/bar", to="/out/", parents=True)
    assert files(made) == "/out/c/d/e/bar /out/d/e/baz /out/d/e2/baz"


@needs_root
def test_parents_that_are_new_are_as_in_the_source(context, image, tmp_path):
    (tmp_path / "context/a").chmod(0o711)
    (tmp_path / "context/a/b").chmod(0o700)
    image.copy(context, "top.txt", to="/a/")
    image.copy(context, "a/b/c/d/foo", parents=True)
    assert [stat.S_IMODE(image.view.lookup(path).stat.st_mode) for path in ("/a", "/a/b")] == [0o755, 0o700]
    image.copy(ImageSource(image.view), "a/b/c/d/foo", to="/x/", parents=True, chown="3:4", chmod="u=rwx,go=")
    found = image.view.lookup("/x/a/b").stat
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (3, 4, 0o700)


@pytest.mark.parametrize(("patterns", "exclude", "options", "expected"), [
    (["a"], ["**/ba*"], {}, "/x/b/c/d/foo /x/link"),
    (["a"], ["b*"], {}, "/x/link"),
    (["a/b"], ["*/d/e*", "!*/d/e2"], {}, "/x/c/d/foo /x/c2/d/e2/baz"),
    (["top.*"], ["*.md"], {}, "/x/top.md /x/top.txt"),  # named, not found in a folder
    (["."], ["a", "*.md"], {}, "/x/top.txt"),
    (["a*"], ["*"], {}, ""),
    (["a/./**/ba*"], ["**/baz"], {"parents": True}, "/x/b/c/d/e/bay /x/b2/c/d/e/bar"),
    (["a/b"], ["a/b/c2", "a/b/c/d/foo"], {"parents": True}, "/x/a/b/c/d/e/bay"),
    (["a"], ["a", "!a/b/c2/d/e"], {"parents": True}, "/x/a/b/c2/d/e/baz"),
    (["a/b/c2"], ["  d/e/ ", " ", "/d/e2"], {}, "/x/d/e2/baz"),
])
def test_exclude(context, image, patterns, exclude, options, expected):
    assert files(image.copy(context, *patterns, to="/x/", exclude=exclude, **options)) == expected


def test_what_is_excluded_does_not_count(context, tmp_path):
    def value():
        return digest(select(context, "a", exclude=["**/foo"])[0])
    before = value()
    (tmp_path / "context/a/b/c/d/foo").write_text("else")
    assert value() == before
    (tmp_path / "context/a/b/c/d/e/bay").write_text("else")
    assert value() != before != digest(select(context, "a")[0])


@pytest.mark.parametrize(("pattern", "exclude"), [
    ("a[", ()), ("[-a]", ()), ("[a-]", ()), ("[a\\", ()), ("[^]", ()), ("[", ()),
    ("[z-a]", ()), ("a", ["!"]), ("a", ["[]"]), ("x*\\", ()),
])
def test_malformed_patterns(context, pattern, exclude):
    with pytest.raises(PatternError):
        select(context, pattern, exclude=exclude)


def test_wildcards_follow_no_link_on_their_way(context):
    assert [item.node.real for item in select(context, "a/*/c2")] == ["/a/b/c2"]
    assert [item.node.real for item in select(context, "a/link/c2")] == ["/a/b/c2"]
    assert [(item.name, item.node.real) for item in select(context, "a/l*")] == [("link", "/a/b")]


# -- --link


def test_link_makes_the_same_layer_whatever_is_below(context, tmp_path):
    bare = Image(tmp_path / "bare").copy(context, "a/b2", to="/lib/x/", link=True)
    other = Image(tmp_path / "other", make(tmp_path / "base", "usr/lib/x/old", "lib -> usr/lib"))
    (tmp_path / "base/usr").chmod(0o700)
    assert other.copy(context, "a/b2", to="/lib/x/", link=True) == bare == {
        "/lib": "/", "/lib/x": "/", "/lib/x/c": "/", "/lib/x/c/d": "/", "/lib/x/c/d/e": "/", "/lib/x/c/d/e/bar": "a/b2/c/d/e/bar",
    }
    assert other.view.lookup("/lib/x/old") is None
    followed = Image(tmp_path / "followed", tmp_path / "base").copy(context, "a/b2", to="/lib/x/")
    assert "/usr/lib/x/c/d/e/bar" in followed and "/lib" not in followed


def test_link_over_a_file(context, tmp_path):
    image = Image(tmp_path / "image", make(tmp_path / "base", "opt"))
    with pytest.raises(CopyError, match="/opt is not a folder"):
        image.copy(context, "top.txt", to="/opt/")
    assert files(image.copy(context, "top.txt", to="/opt/", link=True)) == "/opt/top.txt"


def test_link_looks_nobody_up(context, image):
    with pytest.raises(CopyError, match="'alice' cannot be looked up with --link"):
        image.copy(context, "top.txt", chown="alice", link=True)


# -- modes, owners, times


@pytest.mark.parametrize("text", [
    "755", "0644", "4755", "1777", "0", "u+x", "go-w", "a+X", "a=rX", "u=rw,g=r,o=r", "u+rwX,go=r", "g=u", "o=g-w", "+x", "+w", "-r", "=r",
    "u+s,g+s", "+t", "ug+rw,o-rwx", "u=rwx,go=u-w", "a-x+X", "=", "u=", "g+s-x", "uo+t", "u=s", "o=t", "go=",
])
@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o124, 0o4711, 0o2775, 0o1777, 0])
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR])
def test_modes_as_chmod_has_them(tmp_path, text, mode, kind):
    path = tmp_path / "x"
    path.mkdir() if kind == stat.S_IFDIR else path.touch()
    path.chmod(mode)
    subprocess.run(["chmod", "--", text, path], check=True, umask=0o022, stderr=subprocess.DEVNULL)
    expected = stat.S_IMODE(path.stat().st_mode)
    if text.isdigit() and kind == stat.S_IFDIR:
        expected = int(text, 8)  # GNU's chmod keeps a folder's set-id bits; BuildKit sets what is written
    assert oct(parse_mode(text)(kind | mode)) == oct(expected)


@pytest.mark.parametrize("text", ["", "888", "77777", "u+q", "u", "u+x,", ",", "u~x", "u+ug", "x+u", "-755", "0o755", "7 5", "²", "u+x\n"])
def test_modes_that_are_none(text):
    with pytest.raises(CopyError, match="is not a mode"):
        parse_mode(text)


@needs_root
def test_chmod_is_for_files_and_folders_and_not_for_links(context, image, tmp_path):
    image.copy(context, "a", to="/x/", chmod="u=rwX,go=")
    modes = {path: stat.S_IMODE(image.view.lookup(path).stat.st_mode) for path in ("/x", "/x/b", "/x/b/c/d/foo", "/x/link")}
    assert modes == {"/x": 0o755, "/x/b": 0o700, "/x/b/c/d/foo": 0o600, "/x/link": 0o777}


@pytest.mark.parametrize(("text", "expected"), [
    ("7", (7, 7)), ("7:8", (7, 8)), (":9", (0, 9)), ("alice", (1001, 1002)), ("alice:staff", (1001, 50)), ("3:staff", (3, 50)),
    ("70000:80000", (70000, 80000)), ("alice:4", (1001, 4)), ("4294967294", (4294967294, 4294967294)), ("root", (0, 0)),
])
def test_owners(tmp_path, text, expected):
    base = make(tmp_path / "base", "etc/")
    (base / "etc/passwd").write_text("bad line\nroot:x:0:0::/:\nalice:x:1001:1002::/:/bin/sh\n")
    (base / "etc/group").write_text("x\nstaff:x:50:alice\n")
    assert parse_owner(Image(tmp_path / "image", base).view, text) == expected


@pytest.mark.parametrize("text", ["nobody", "1:nobody", "4294967295", "99999999999999999999", "²", "a\nb", "-1"])
def test_owners_that_are_none(image, text):
    with pytest.raises(ContainersError):
        parse_owner(image.view, text)


def test_passwd_that_leads_out_of_the_image(tmp_path):
    (tmp_path / "outside").write_text("eve:x:0:0::/:\n")
    base = make(tmp_path / "base", f"etc/passwd -> /../../../../../../..{tmp_path}/outside")
    with pytest.raises(ContainersError, match="'eve' is not in the image"):
        parse_owner(Image(tmp_path / "image", base).view, "eve")


def test_no_time_is_later_than_the_epoch(context, image, tmp_path):
    os.utime(tmp_path / "context/top.txt", ns=(0, 5_000_000_007))
    image.copy(context, ".", to="/x/", epoch=1000, inline=[("doc", b"text")])
    times = [path.lstat().st_mtime_ns for path in Path(image.layers[-1]).rglob("*")]
    assert len(times) > 15 and set(times) == {5_000_000_007, 1_000_000_000_000}


# -- how a copy ends


def test_a_copy_that_is_cancelled(context, image):
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        image.copy(context, "a", to="/x/", check=check)
    assert len(calls) == 4


def test_a_file_that_goes_is_an_error_in_words(context, image, tmp_path):
    items = select(context, "top.txt")
    (tmp_path / "context/top.txt").unlink()
    with pytest.raises(CopyError, match=r"top\.txt"):
        image.copy(None, items=items, to="/x/")


def test_hard_links_stay_within_their_source(context, image, tmp_path):
    os.link(tmp_path / "context/a/b/c/d/foo", tmp_path / "context/a/b2/foo")
    image.copy(context, "a", to="/x/")
    one, other = (image.view.lookup(path).stat for path in ("/x/b/c/d/foo", "/x/b2/foo"))
    assert one.st_ino == other.st_ino and one.st_nlink == 2
    image.copy(context, "a/b/c/d/foo", "a/b2/foo", to="/y/")  # of one name: the second replaces the first
    assert image.view.lookup("/y/foo").stat.st_nlink == 1


@needs_root
def test_recorded_owners_of_a_user_are_no_attribute_of_the_file(context, image, tmp_path):
    os.setxattr(tmp_path / "context/top.txt", "user.pycontainers.owner", b"5:6")
    image.copy(context, "top.txt", to="/x/")
    assert os.listxattr(f"{image.layers[-1]}/x/top.txt") == []


def test_long_names_and_deep_folders(tmp_path, image):
    """A name as long as the kernel takes it, and folders nested sixty times."""
    path = tmp_path / "deep" / "/".join(["n" * 20] * 60)
    path.mkdir(parents=True)
    (path / ("x" * 255)).write_text("end")
    made = image.copy(Context(str(tmp_path / "deep")), "/", to="/")
    assert "end" in made.values()
