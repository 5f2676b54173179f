"""ADD: archives, addresses, git."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

from ..case import TIME, Case, File


def archive(*members: tuple[str, str, str, int], **more: object) -> bytes:
    """A tar of (path, kind, content or target, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (path, kind, text, mode) in enumerate(members):
            info = tarfile.TarInfo(path)
            info.type = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE}[
                kind
            ]
            info.mode, info.mtime, info.uid, info.gid = mode, TIME + number, 21, 22
            if kind == "f":
                info.size = len(text)
            else:
                info.linkname = text
            tar.addfile(info, io.BytesIO(text.encode()) if kind == "f" else None)
    return buffer.getvalue()


_TAR = archive(
    ("top", "d", "", 0o750),
    ("top/file", "f", "content\n", 0o640),
    ("top/run", "f", "#!/bin/sh\n", 0o4755),
    ("top/link", "l", "file", 0o777),
    ("top/hard", "h", "top/file", 0o640),
    ("top/fifo", "p", "", 0o600),
    ("implied/folder/x", "f", "x", 0o644),
    ("top/abs", "l", "/etc/passwd", 0o777),
)
_OVER = archive(("etc/passwd", "f", "replaced\n", 0o600), ("linked/inside", "f", "through?\n", 0o644), ("srv", "d", "", 0o700))

CASES = (
    Case(
        "add-tar",
        "FROM busybox\nADD plain.tar /plain/\nADD a.tar.gz /gz\nADD a.tar.bz2 b.tar.xz /both/\nCOPY plain.tar /kept/\n",
        {"plain.tar": _TAR, "a.tar.gz": gzip.compress(_TAR, mtime=0), "a.tar.bz2": bz2.compress(_TAR), "b.tar.xz": lzma.compress(_OVER)},
        features="ADD-tar ADD",
        quick=True,
    ),
    Case("add-tar-over", "FROM busybox\nRUN mkdir /real && ln -s real /linked\nADD over.tar /\n", {"over.tar": _OVER}, features="ADD-tar"),
    Case(
        "add-tar-chown",
        "FROM busybox\nADD --chown=web:50 a.tar /x\nADD --chmod=700 a.tar /y\n",
        {"a.tar": _TAR},
        features="ADD-tar chown chmod",
    ),
    Case(
        "add-no-tar",
        "FROM busybox\nADD text.gz /1\nADD gzipped.txt /2\nADD empty.tar /3/\nADD name.tar /4/\nADD . /5\n",
        {
            "text.gz": "no archive",
            "gzipped.txt": gzip.compress(b"only gzip, no tar", mtime=0),
            "empty.tar": bytes(10240),
            "name.tar": "not one",
        },
        features="ADD ADD-tar",
    ),
    Case("add-unpack", "FROM busybox\nADD --unpack=false a.tar /kept/\nADD --unpack a.tar /out/\n", {"a.tar": _TAR}, features="ADD-tar"),
    Case(
        "add-plain",
        "FROM busybox\nADD a.txt /1\nADD d /2/\nADD *.txt d /3/\n",
        {"a.txt": "a", "d/x": File("x", 0o711), "b.txt": "b"},
        features="ADD",
    ),
    Case(
        "add-url",
        r"""
FROM busybox
ARG WEB
ADD $WEB/hello.txt /file
ADD ${WEB}/hello.txt /folder/
ADD --chmod=755 --chown=web $WEB/hello.txt /owned
ADD $WEB/tool-1.0.tar /archives/
ADD --unpack=true $WEB/tool-1.0.tar /unpacked/
""",
        features="ADD-URL ADD chmod chown",
        quick=True,
    ),
    Case(
        "add-checksum",
        r"""
FROM busybox
ARG WEB
ARG SUM=6800e5a138da1ed186442cecbb944d165db00a45ce6eec03dcf39779d73c7a3f
ADD --checksum=sha256:$SUM $WEB/hello.txt /file
""",
        features="ADD-URL checksum",
    ),
    Case(
        "add-git",
        r"""
FROM busybox
ARG GIT
ADD $GIT/project.git /main
ADD $GIT/project.git#v1 /v1/
ADD --keep-git-dir=false $GIT/project.git#main:sub /sub
ADD --chown=web --chmod=750 $GIT/project.git?tag=v1 /query
RUN ls -A /main > /list
""",
        features="ADD-git ADD",
        quick=True,
    ),
    Case(
        "add-git-keep",
        "FROM busybox\nARG GIT\nADD --keep-git-dir=true $GIT/project.git#v1 /kept\n"
        "RUN cut -c1-40 /kept/.git/HEAD > /head; rm -r /kept/.git\n",
        features="ADD-git",
    ),
    Case(
        "add-checksum-wrong",
        f"FROM busybox\nARG WEB\nENV A=b\nADD --checksum=sha256:{'0' * 64} $WEB/hello.txt /file\n",
        fails=True,
        features="checksum",
    ),
    Case("add-checksum-form", "FROM busybox\nARG WEB\nADD --checksum=md5:abc $WEB/hello.txt /file\n", fails=True, features="checksum"),
    Case(
        "add-checksum-local",
        f"FROM busybox\nADD --checksum=sha256:{'0' * 64} a.txt /file\n",
        {"a.txt": "a"},
        fails=True,
        features="checksum",
    ),
    Case("add-url-missing", "FROM busybox\nARG WEB\nADD $WEB/missing.txt /file\n", fails=True, features="ADD-URL"),
    Case("add-git-missing", "FROM busybox\nARG GIT\nADD $GIT/project.git#nowhere /file\n", fails=True, features="ADD-git"),
)
