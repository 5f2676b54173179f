"""COPY: Docker's rules for destinations, owners and modes; the context's borders; .dockerignore."""

from __future__ import annotations

import os
import socket
import stat
import tarfile
import threading
import time

import pytest

from pycontainers.builder.archives import marked
from pycontainers.builder.context import Context, digest, glob, select
from pycontainers.builder.ignore import Ignore
from pycontainers.builder.sources import CopyError
from pycontainers.errors import BuildError
from pycontainers.images.view import View
from tests.builder.placing import Image, make

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")


def copy(builder, *lines: str):
    return builder("FROM scratch\n" + "\n".join(lines))


@pytest.mark.parametrize(("line", "expected"), [
    ("COPY a.txt /x", ["/x"]),
    ("COPY a.txt /x/", ["/x/", "/x/a.txt"]),
    ("COPY a.txt /x/y/z.txt", ["/x/", "/x/y/", "/x/y/z.txt"]),
    ("COPY a.txt b.txt /x/", ["/x/", "/x/a.txt", "/x/b.txt"]),
    ("COPY ?.txt /x", ["/x"]),
    ("COPY nothing* /x/", []),
    ("COPY *.txt /x/", ["/x/", "/x/a.txt", "/x/b.txt"]),
    ("COPY ?.txt .", ["/a.txt", "/b.txt"]),
    ("COPY [^a].txt [b-c].txt /x/", ["/x/", "/x/b.txt"]),
    ("COPY nothing* a.txt /x/", ["/x/", "/x/a.txt"]),
    ("COPY d /x", ["/x/", "/x/e/", "/x/e/f", "/x/g"]),
    ("COPY d/ /x/", ["/x/", "/x/e/", "/x/e/f", "/x/g"]),
    ("COPY d/* /x/", ["/x/", "/x/f", "/x/g"]),
    ("COPY */e /x", ["/x/", "/x/f"]),
    ('COPY ["with space", "/x y"]', ["/x y"]),
    ("WORKDIR /w\nCOPY a.txt .", ["/w/", "/w/a.txt"]),
    ("WORKDIR /w\nCOPY a.txt sub/b", ["/w/", "/w/sub/", "/w/sub/b"]),
    ("COPY a.txt /x/\nCOPY b.txt /x", ["/x/", "/x/a.txt", "/x/b.txt"]),
    ("COPY . /", ["/a.txt", "/b.txt", "/d/", "/d/e/", "/d/e/f", "/d/g", "/with space"]),
    ("ADD a.txt /x", ["/x"]),
    ("COPY <<one <<two /x/\n1\none\n2\ntwo", ["/x/", "/x/one", "/x/two"]),
])
def test_destinations(builder, look, line, expected):
    for name in ("a.txt", "b.txt", "d/e/f", "d/g", "with space"):
        builder.file(name)
    assert look.files(copy(builder, line)) == expected


def test_modes_times_and_owners(builder, look):
    source = builder.file("d/run.sh", mode=0o750)
    (builder.context / "d").chmod(0o700)
    os.utime(source, ns=(0, 1_600_000_000_123_456_789))
    image = copy(builder, "COPY d /p/q", "COPY --chmod=4711 d /r")
    found = look.status(image, "/p/q/run.sh")
    assert stat.S_IMODE(found.st_mode) == 0o750 and found.st_mtime_ns == 1_600_000_000_123_456_789
    # A new destination is a new folder, whatever the source's is like: so does BuildKit.
    assert stat.S_IMODE(look.status(image, "/p").st_mode) == 0o755 and stat.S_IMODE(look.status(image, "/p/q").st_mode) == 0o755
    assert stat.S_IMODE(look.status(image, "/r/run.sh").st_mode) == 0o4711


def test_a_folders_time_is_its_sources(builder, look):
    """As BuildKit: of the folder that is copied, new or there already, too; folders on the way to it are of the build's time."""
    builder.file("d/f")
    os.utime(builder.context / "d", (1_500_000_000, 1_500_000_000))
    image = copy(builder, "COPY d /new/d", "WORKDIR /w", "COPY d /w")
    assert [int(look.status(image, path).st_mtime) for path in ("/new/d", "/w")] == [1_500_000_000] * 2
    assert look.status(image, "/new").st_mtime > 1_700_000_000


def test_an_octal_mode_is_that_of_new_folders_too(builder, look):
    """Less the umask; a symbolic one is not, nor of what is there: so does BuildKit."""
    builder.file("d/f")
    image = copy(builder, "WORKDIR /there", "COPY --chmod=2772 d /p/q", "COPY --chmod=700 d/f /o/", "COPY --chmod=go= d /s",
                 "COPY --chmod=700 d /there")
    modes = {path: stat.S_IMODE(look.status(image, path).st_mode) for path in ("/p", "/p/q", "/p/q/f", "/o", "/s", "/there")}
    assert modes == {"/p": 0o750, "/p/q": 0o750, "/p/q/f": 0o2772, "/o": 0o700, "/s": 0o755, "/there": 0o755}


@needs_root
def test_owner_is_root_unless_chown_says_otherwise(builder, look):
    os.chown(builder.file("a"), 12, 34)
    builder.file("etc/passwd", "root:x:0:0::/:/bin/sh\nalice:x:1001:1002::/:/bin/sh\n")
    builder.file("etc/group", "staff:x:50:alice\n")
    image = copy(builder, "COPY etc /etc", "COPY a /zero", "COPY --chown=alice a /n/named", "COPY --chown=alice:staff a /both",
                 "COPY --chown=7 a /seven", "COPY --chown=1:2 a /pair")
    owners = {path: (look.status(image, path).st_uid, look.status(image, path).st_gid) for path in
              ("/zero", "/n", "/n/named", "/both", "/seven", "/pair")}
    assert owners == {"/zero": (0, 0), "/n": (1001, 1002), "/n/named": (1001, 1002), "/both": (1001, 50),
                      "/seven": (7, 7), "/pair": (1, 2)}
    kept = builder("FROM scratch AS s\nCOPY --chown=1:2 a /d/a\nFROM scratch\nCOPY --from=s /d /x")
    assert look.status(kept, "/x/a").st_gid == 2 and look.status(kept, "/x").st_gid == 0


@needs_root
def test_an_existing_folder_keeps_its_owner_and_mode(builder, look):
    builder.file("d/x")
    image = copy(builder, "RUN mkdir -m 1770 t && chown 5:6 t && ln -s t link", "COPY --chown=9 d /t", "COPY d/x /t/sub/",
                 "WORKDIR /link/w")
    found = look.status(image, "/t")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (5, 6, 0o1770)
    assert look.files(image) == ["/link", "/t/", "/t/sub/", "/t/sub/x", "/t/w/", "/t/x"]


def test_links_hard_links_fifos_and_sockets(builder, look):
    builder.file("d/a")
    os.link(builder.context / "d/a", builder.context / "d/b")
    (builder.context / "d/dangling").symlink_to("/nowhere")
    os.mkfifo(builder.context / "d/pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(builder.context / "d/sock"))
        image = copy(builder, "COPY d /d")
    assert look.files(image) == ["/d/", "/d/a", "/d/b", "/d/dangling", "/d/pipe"]
    assert look.status(image, "/d/a").st_ino == look.status(image, "/d/b").st_ino
    assert stat.S_ISLNK(look.status(image, "/d/dangling").st_mode) and stat.S_ISFIFO(look.status(image, "/d/pipe").st_mode)


def test_a_source_that_is_a_link_is_followed_inside_the_context_only(builder, look, tmp_path):
    (tmp_path / "secret").write_text("secret")
    builder.file("real/f", "inside")
    builder.file("etc/hostname", "mine")
    for name, target in (("to_dir", "real"), ("to_file", "real/f"), ("absolute", "/etc/hostname"), ("up", "../secret")):
        (builder.context / name).symlink_to(target)
    image = copy(builder, "COPY to_dir /d", "COPY to_file to_dir/f absolute /x/")
    assert look.content(image, "/d/f") == "inside" and look.content(image, "/x/to_file") == "inside"
    assert look.content(image, "/x/absolute") == "mine"  # the context's own /etc, not the machine's
    with pytest.raises(BuildError, match="up is not in the build context"):
        copy(builder, "COPY up /x")


def test_destination_links_are_resolved_inside_the_image(builder, look, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    builder.file("f", "data")
    image = copy(builder, f"RUN mkdir in && ln -s /in to && ln -s {outside} away && ln -s ../../../../../../.. up",
                 "COPY f /to/", "COPY f /away/f", "COPY f /up/tmp/f", "WORKDIR /to/w", "COPY f .")
    assert os.listdir(outside) == []
    assert look.content(image, "/in/f") == "data" and look.content(image, f"{outside}/f") == "data"
    assert look.content(image, "/tmp/f") == "data" and look.content(image, "/in/w/f") == "data"


def test_a_link_made_by_one_source_is_not_followed_by_the_next(builder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (builder.context / "one").mkdir()
    (builder.context / "one/x").symlink_to(outside)
    builder.file("two/x/f")
    with pytest.raises(BuildError, match="/d/x, which is not a folder"):
        copy(builder, "COPY one two /d/")
    assert os.listdir(outside) == [] and builder.left_over() == []


def test_a_file_replaces_a_file_or_link_and_never_a_folder(builder, look):
    builder.file("a/f", "new")
    builder.file("b", "plain")
    image = copy(builder, "RUN mkdir -p d/keep && echo old > d/f && ln -s f d/l", "COPY a /d")
    assert look.content(image, "/d/f") == "new" and "/d/keep/" in look.files(image)
    with pytest.raises(BuildError, match="cannot replace the folder /d/b"):
        copy(builder, "RUN mkdir -p d/b", "COPY b /d/")


@needs_root
def test_devices_are_copied_and_whiteouts_refused(builder, look):
    builder.file("d/x")
    os.mknod(builder.context / "d/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert look.status(copy(builder, "COPY d /d"), "/d/null").st_rdev == os.makedev(1, 3)
    os.mknod(builder.context / "d/none", stat.S_IFCHR | 0o600, 0)
    with pytest.raises(BuildError, match="character device 0:0"):
        copy(builder, "COPY d /d")
    os.unlink(builder.context / "d/none")
    builder.file("d/.wh.etc")
    with pytest.raises(BuildError, match=r"\.wh\."):
        copy(builder, "COPY d /d")
    assert builder.left_over() == []


def test_overlay_marks_never_reach_a_layer(builder, look):
    file = builder.file("d/f")
    try:
        os.setxattr(file.parent, "user.overlay.opaque", b"y")
        os.setxattr(file, "user.kept", b"1")
    except OSError:
        pytest.skip("this file system has no user attributes")
    image = copy(builder, "COPY d /d")
    layer = image.layers[-1].path
    assert os.listxattr(f"{layer}/d") == [] and os.getxattr(f"{layer}/d/f", "user.kept") == b"1"


def test_heredoc_content(builder, look):
    image = copy(builder, "ENV n=7", "COPY <<a <<'b' /\n$n \"q\"\na\n$n\nb\n")
    assert look.content(image, "/a") == '7 "q"\n' and look.content(image, "/b") == "$n\n"
    assert stat.S_IMODE(look.status(image, "/a").st_mode) == 0o644


def test_image_content_changes_nothing_in_the_context(builder, look):
    """A snapshot must not share its files with the context: writing to the source later would change the image."""
    source = builder.file("f", "1" * 5000)
    image = copy(builder, "COPY f /f")
    source.write_text("2")
    assert look.content(image, "/f") == "1" * 5000


# -- .dockerignore


@pytest.mark.parametrize(("patterns", "kept", "excluded"), [
    ("*.md\n!README.md", ["README.md", "a/x.md"], ["x.md"]),
    ("!README.md\n*.md", [], ["README.md"]),
    ("**/*.pyc", ["a.py"], ["a.pyc", "x/y/a.pyc"]),
    ("*/temp*", ["temp", "a/b/temp"], ["a/temporary.txt", "a/temp/x"]),
    ("*/*/temp*", ["a/temp"], ["a/b/temp"]),
    ("temp?", ["temp", "temp12"], ["tempa", "tempa/x"]),
    ("/foo/bar", ["bar", "x/foo/bar"], ["foo/bar", "foo/bar/baz"]),
    ("foo/./bar/../baz/", ["foo"], ["foo/baz"]),
    ("# comment\n\n  spaced  \n.", ["# comment", "x"], ["spaced"]),
    ("a/**", ["a"], ["a/b", "a/b/c"]),
    ("a/**/b", ["a/c"], ["a/b", "a/x/b", "a/x/y/b"]),
    ("**/node_modules\n!keep/node_modules/x", ["keep/node_modules/x"], ["node_modules/x", "a/node_modules/y", "keep/node_modules/y"]),
    ("*\n!src", ["src", "src/a/b"], ["other"]),
    ("*\n!src/**/*.py\n**/secret.py", ["src/a.py", "src/x/a.py"], ["src/a.txt", "src/secret.py"]),
    ("a**b", ["a/c"], ["ab", "a/b", "ax/b"]),
    ("[a-c].txt", ["d.txt"], ["a.txt"]),
    ("[^a-c].txt", ["a.txt"], ["d.txt"]),
    ("\\*", ["x"], ["*"]),
    ("a*b*c*d/**/e**", ["abcd"], ["a1b2c3d/x/e", "abcd/e/f", "abcd/x/y/e/z"]),
])
def test_dockerignore_table(patterns, kept, excluded):
    ignore = Ignore(patterns)
    assert [path for path in kept if ignore.excluded(ignore.start(path))] == []
    assert [path for path in excluded if not ignore.excluded(ignore.start(path))] == []


@pytest.mark.parametrize("patterns", ["!", "a[", "[]"])
def test_malformed_dockerignore(patterns):
    with pytest.raises(BuildError, match="line 2"):
        Ignore("ok\n" + patterns)


def test_hostile_dockerignore_is_quick():
    ignore = Ignore("**/a*a*a*a*a*a*a*a*a*a*b\n" + "**/" * 20 + "x")
    assert not ignore.excluded(ignore.start("a" * 250 + "/" + "a/" * 60 + "c"))


def test_dockerignore_in_a_build(builder, look):
    for name in (".dockerignore", "a.py", "a.pyc", "data/big", "data/keep/x", "empty/y", ".git/config"):
        builder.file(name)
    builder.file(".dockerignore", "**/*.pyc\ndata\nempty\n!data/keep\n.git\n")
    assert look.files(copy(builder, "COPY . /")) == ["/.dockerignore", "/a.py", "/data/", "/data/keep/", "/data/keep/x"]
    with pytest.raises(BuildError, match=r"\.git is excluded by \.dockerignore"):
        copy(builder, "COPY .git /g")
    with pytest.raises(BuildError, match=r"a\.pyc is excluded"):
        copy(builder, "COPY a.pyc /g")


def test_what_is_excluded_is_not_in_the_cache_key(builder):
    builder.file(".dockerignore", "log")
    builder.file("log", "1")
    first = copy(builder, "COPY . /")
    builder.file("log", "2")
    assert copy(builder, "COPY . /").id == first.id


def test_glob_never_crosses_folders(builder):
    for name in ("a/x.py", "a/b/x.py", "x.py", ".hidden.py"):
        builder.file(name)
    context = Context(str(builder.context))
    assert [node.real for _, node in glob(context, "/*.py")] == ["/.hidden.py", "/x.py"]
    assert [node.real for _, node in glob(context, "/**/x.py")] == ["/a/x.py"]
    assert [node.real for _, node in glob(context, "/a/*/*.p[xy]")] == ["/a/b/x.py"]


# -- deep and long paths


def layers(tmp_path, count: int = 3):
    """An image whose layers all have the same 300 folders, one in the other."""
    image = Image(tmp_path / "image")
    for _ in range(count):
        image.copy(Context(str(make(tmp_path / "one", "x"))), "x", to="/" + "a/" * 300)
    return image


def test_deep_destinations_take_no_time(tmp_path):
    image = layers(tmp_path)
    began = time.process_time()
    context = Context(str(tmp_path / "one"))
    assert "/" + "a/" * 400 + "x" in image.copy(context, "x", to="/" + "a/" * 400)
    assert "/" + "b/" * 499 + "x" in image.copy(context, "x", to="/" + "b/" * 499)
    tree = make(tmp_path / "tree", "c/" * 450 + "f")
    assert len(image.copy(Context(str(tree)), ".", to="/")) == 451
    archive = tmp_path / "one/x.tar"
    with tarfile.open(archive, "w") as file:
        for depth in range(1, 450):
            entry = tarfile.TarInfo("d/" * depth)
            entry.type = tarfile.DIRTYPE
            file.addfile(entry)
    context = Context(str(tmp_path / "one"))
    assert len(image.copy(context, items=marked(select(context, "x.tar")))) == 449
    assert time.process_time() - began < 10


@pytest.mark.parametrize(("path", "match"), [
    ("/a" * 501, r"deeper than 500"), ("/" + "/".join(["x" * 200] * 21), "longer than 4095"), ("/a\0b/c", "NUL"),
    ("/" + "n" * 256, "File name too long"), ("/" + "n" * 256 + "/x/", "File name too long"),
])
def test_paths_that_no_container_could_use(tmp_path, path, match):
    image = Image(tmp_path / "image")
    with pytest.raises(CopyError, match=match) as caught:
        image.copy(Context(str(make(tmp_path / "one", "x"))), "x", to=path)
    assert "\n" not in caught.value.message


def test_a_deep_working_directory(builder):
    began = time.process_time()
    with pytest.raises(BuildError, match="deeper than 500"):
        builder("FROM scratch\nWORKDIR " + "/a" * 3000)
    assert time.process_time() - began < 2


def test_a_deep_archive_is_refused(tmp_path):
    with tarfile.open(make(tmp_path / "one", "y") / "x.tar", "w") as file:
        for depth in range(1, 1500, 7):
            entry = tarfile.TarInfo("d/" * depth)
            entry.type = tarfile.DIRTYPE
            file.addfile(entry)
    context = Context(str(tmp_path / "one"))
    began = time.process_time()
    with pytest.raises(CopyError, match="deeper than 500"):
        Image(tmp_path / "image").copy(context, items=marked(select(context, "x.tar")))
    assert time.process_time() - began < 5


def test_one_deep_entry_of_an_archive_is_refused_at_once(tmp_path):
    with tarfile.open(make(tmp_path / "one", "y") / "x.tar", "w") as file:
        file.addfile(tarfile.TarInfo("d/" * 20_000 + "x"))
    context = Context(str(tmp_path / "one"))
    began = time.process_time()
    with pytest.raises(CopyError, match="deeper than 500"):
        Image(tmp_path / "image").copy(context, items=marked(select(context, "x.tar")))
    assert time.process_time() - began < 2


def test_what_is_in_the_way_of_a_folder_below_a_new_one(tmp_path):
    image = Image(tmp_path / "image")
    one, two = make(tmp_path / "one", "a"), make(tmp_path / "two", "a/b")
    items = [*select(Context(str(one)), "/"), *select(Context(str(two)), "/")]
    with pytest.raises(CopyError, match="onto /new/a, which is not a folder"):
        image.copy(None, items=items, to="/new/")
    listed = image.copy(None, items=[*select(Context(str(one)), "a"), *select(Context(str(two)), "a/b")], to="/d/")
    assert listed == {"/d": "/", "/d/a": "a", "/d/b": "a/b"}


# -- what changes while a COPY waits for its turn


@pytest.mark.parametrize("way", ["content", "twice", "new", "gone", "link", "mode", "swapped"])
def test_what_changed_since_its_digest_is_not_copied(tmp_path, way):
    one = make(tmp_path / "one", "d/f", "d/g", "d/s/t", "d/l -> f", "skipped/x", **{".dockerignore": "skipped"})
    make(one / "skipped", "y")
    context = Context(str(one))
    items = select(context, "d")
    digest(items[0])
    os.utime(one / "d")  # what is excluded may come and go
    if way == "content":
        (one / "d/f").write_text("NEW")
    elif way == "twice":
        before = (one / "d/f").stat()
        (one / "d/f").write_text("NEW")
        (one / "d/f").write_text("d/f")
        os.utime(one / "d/f", ns=(before.st_atime_ns, before.st_mtime_ns))
    elif way == "new":
        make(one, "d/h")
    elif way == "gone":
        (one / "d/g").unlink()
    elif way == "link":
        (one / "d/l").unlink()
        (one / "d/l").symlink_to("g")
    elif way == "mode":
        (one / "d/s").chmod(0o700)
    else:
        (one / "d").rename(one / "e")
        make(one, "d/f", "d/g", "d/s/t", "d/l -> f")
    with pytest.raises(CopyError, match="d changed after its digest was taken"):
        Image(tmp_path / "image").copy(None, items=items)


def test_what_did_not_change_since_its_digest_is_copied(tmp_path):
    one = make(tmp_path / "one", "d/f", "d/e/g", "d/skipped/x", **{".dockerignore": "d/skipped"})
    context = Context(str(one), files={"d/laid": b"1"})
    items = [*select(context, "d"), *select(context, "/", exclude=("d/e",)), *select(context, "d/./e", parents=True)]
    for item in items:
        digest(item)
    make(one, "d/skipped/y")
    os.utime(one / "d")
    assert "/e/g" in Image(tmp_path / "image").copy(None, items=items)


def test_an_archive_that_changed_since_its_digest(tmp_path):
    one = make(tmp_path / "one", "f")
    with tarfile.open(one / "x.tar", "w") as file:
        file.add(one / "f", "f")
    items = marked(select(Context(str(one)), "x.tar"))
    digest(items[0])
    content = (one / "x.tar").read_bytes()
    (one / "x.tar").write_bytes(content.replace(b"f", b"g"))
    with pytest.raises(CopyError, match=r"x\.tar changed"):
        Image(tmp_path / "image").copy(None, items=items)


def test_the_cache_has_nothing_of_what_changed_while_a_copy_waited(builder):
    file = builder.file("d/f", "old!")
    text = (
        'FROM scratch AS a\nRUN ["/bin/sleep", "1"]\nFROM scratch AS b\nCOPY d /d\n'
        "FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n"
    )
    later = threading.Timer(0.5, lambda: file.write_text("NEW!"))
    later.start()
    try:
        builder(text, parallel=1)
    except BuildError as error:
        assert "changed" in error.message
    later.join()
    file.write_text("old!")
    assert View(builder(text, parallel=1).rootfs).read("/b/d/f") == b"old!"
