"""COPY and ADD of files and folders: destinations, owners, modes, links, patterns, and BuildKit's flags."""

from __future__ import annotations

from ..case import Case, File, folder, link

_FILES = {
    "a.txt": "a\n",
    "b.txt": "b\n",
    "c.md": "c\n",
    "dir/one": File("1", 0o600),
    "dir/sub/two": File("2", 0o755),
    "dir/sub/empty": folder(0o700),
    "dir/link": link("one"),
    "dir/dangling": link("../nowhere"),
    "dir/abs": link("/etc/passwd"),
}

CASES = (
    Case(
        "copy-forms",
        r"""
FROM busybox
COPY a.txt /file
COPY a.txt /folder/
COPY a.txt b.txt /several/
COPY ["c.md", "/with blank/"]
COPY a.txt relative
WORKDIR /w
COPY a.txt .
COPY a.txt ./deeper/name
COPY *.txt txt/
COPY ./b.txt /b
COPY /c.md /c
""",
        _FILES,
        features="COPY",
        quick=True,
    ),
    Case(
        "copy-folder",
        r"""
FROM busybox
COPY dir /d1
COPY dir/ /d2/
COPY dir /etc
COPY dir/sub dir/one /mixed/
COPY dir/. /d3
COPY dir/link /followed
COPY . /all
""",
        _FILES,
        features="COPY",
        quick=True,
    ),
    Case(
        "copy-over",
        r"""
FROM busybox
COPY a.txt /etc/passwd
RUN mkdir -m 700 /has && echo old > /has/one && mkdir -p /has/sub && chown 1000 /has /has/one
COPY dir /has
COPY b.txt /has/one
""",
        _FILES,
        features="COPY",
    ),
    Case(
        "copy-over-modes",
        r"""
FROM busybox
RUN mkdir -m 700 /has /has/sub && chown 1000:50 /has /has/sub
COPY --chmod=750 dir /has
COPY --chown=5:6 dir /srv
COPY --chmod=u=rwx,go= --chown=7:8 dir/sub /srv/sub
COPY closed /closed
COPY closed /tmp
ADD --chmod=700 closed /var/lib
""",
        {**_FILES, "closed": folder(0o710, time=1500000000), "closed/x": "x"},
        features="COPY ADD chmod chown",
    ),
    Case(
        "copy-chmod-new-folders",
        r"""
FROM busybox
COPY --chmod=700 dir /d1/e/f
COPY --chmod=777 dir /d2
COPY --chmod=u=rwx,go= dir /d3
COPY --chmod=600 a.txt /f1/g/h
COPY --chmod=710 a.txt b.txt /f2/g/
COPY --chmod=2770 dir/sub /d4/
COPY --chmod=0640 --chown=3:4 dir dir/sub /d5/
ADD --chmod=711 dir/sub /d6
COPY --chmod=go+w dir/sub /d7
COPY --chmod=700 d* /d8/
COPY --chmod=700 <<EOF /i1/j/k
x
EOF
""",
        {**_FILES, "dust/x": "x"},
        features="COPY ADD chmod",
    ),
    Case(
        "copy-patterns",
        r"""
FROM busybox
COPY a?b /q/
COPY [a-c]*.txt /class/
COPY d*/o* /deep/
COPY dir/*/two /star/
COPY no[[]t].x /escaped/
COPY *.none a.txt /some/
""",
        {**_FILES, "a1b": "x", "a2b": "y", "no[t].x": "z"},
        features="COPY",
    ),
    Case(
        "copy-pattern-folders", "FROM busybox\nCOPY d* /all/\nCOPY d*/s* /sub/\n", {**_FILES, "dust/s/x": "x", "dot": "d"}, features="COPY"
    ),
    Case(
        "copy-through-links",
        r"""
FROM busybox
RUN mkdir /real && ln -s /real /abs && ln -s real /rel && ln -s ../../../.. /real/up && echo old > /target && ln -s /target /flink
COPY a.txt /abs/
COPY b.txt /rel/sub/b
COPY a.txt /real/up/outside
COPY b.txt /flink
COPY dir /abs
""",
        _FILES,
        features="COPY",
    ),
    Case(
        "copy-chown",
        r"""
FROM busybox
COPY --chown=web a.txt /1
COPY --chown=web:staff a.txt /2
COPY --chown=55:66 dir /3
COPY --chown=77 dir/sub /new/parents/4
COPY --chown=web:7 a.txt /5
COPY --chown=:50 a.txt /6
ADD --chown=nobody:nogroup a.txt /7
USER web
COPY a.txt /8
""",
        _FILES,
        features="COPY ADD chown",
        quick=True,
    ),
    Case(
        "copy-chmod",
        r"""
FROM busybox
COPY --chmod=755 a.txt /1
COPY --chmod=0440 dir /2
COPY --chmod=u=rwX,go=rX dir /3
COPY --chmod=a+x a.txt /4
COPY --chmod=g-r,o= a.txt /5
ADD --chmod=1777 dir/sub /6
ARG M=600
COPY --chmod=$M b.txt /7
COPY --chmod=+x a.txt b.txt /8/
COPY --chmod=u+s,g=u a.txt /9
""",
        _FILES,
        features="COPY ADD chmod",
        quick=True,
    ),
    Case(
        "copy-modes",
        "FROM busybox\nCOPY . /x/\n",
        {
            "setuid": File("x", 0o4755),
            "setgid": File("x", 0o2644),
            "sticky": folder(0o1777),
            "none": File("x", 0),
            "sgdir": folder(0o2775),
            "owned": File("x", owner=(123, 456)),
            "old": File("x", time=1),
            "future": File("x", time=1900000000),
        },
        features="COPY",
    ),
    Case(
        "copy-xattrs",
        "FROM busybox\nCOPY . /x/\n",
        {
            "a": File("x", xattrs={"user.note": b"hello"}),
            "b": File("y", xattrs={"security.capability": bytes.fromhex("0100000200040000000000000000000000000000")}),
        },
        features="COPY",
        but={"/x/b: xattrs": "a file's capabilities are lost on Docker's way from client to daemon, which changes the owner after them"},
    ),
    Case(
        "copy-hard-links",
        "FROM busybox\nCOPY . /x/\nCOPY one /one\n",
        {"one": "same", "two": File(same="one"), "d/three": File(same="one")},
        features="COPY",
    ),
    Case("copy-special", "FROM busybox\nCOPY d /x/\n", {"d/fifo": File(kind="fifo"), "d/plain": "x"}, features="COPY"),
    Case(
        "copy-names",
        'FROM busybox\nCOPY ["with blank", "ünï", "tab\\there", "/x/"]\nCOPY -dash /z\n',
        {"with blank": "1", "ünï": "2", "tab\there": "3", "-dash": "4"},
        features="COPY",
    ),
    Case(
        "copy-empty",
        "FROM busybox\nCOPY empty /e\nCOPY nothing /n/\nCOPY dir/sub/empty/ /f/g/\n",
        {**_FILES, "empty": folder(0o711), "nothing": ""},
        features="COPY",
    ),
    Case("copy-nothing-matches", "FROM busybox\nCOPY a.txt *.nothing /x/\n", _FILES, features="COPY"),
    Case(
        "copy-link-flag",
        r"""
FROM busybox
COPY --link a.txt /new/
COPY --link=true --chown=5:6 --chmod=700 dir /opt
COPY --link=false b.txt /plain
WORKDIR /w
COPY --link c.md .
""",
        _FILES,
        features="COPY link chown chmod",
    ),
    Case(
        "copy-link-through-link",
        "FROM busybox\nRUN mkdir -p /real && ln -s real /linked\nCOPY --link b.txt /linked/b\n",
        _FILES,
        features="link",
        but=dict.fromkeys(
            ("/linked*", "/real/b"),
            "a linked layer knows nothing of what is below, so --link follows no symbolic link, by the reference; "
            "an engine without containerd's snapshots copies after all",
        ),
    ),
    Case(
        "copy-parents",
        r"""
FROM scratch
COPY --parents dir/sub/two a.txt /p1/
COPY --parents dir/*/two /p2/
COPY --parents dir/./sub/two /p3/
COPY --parents **/two /p4/
COPY --parents dir /p5/
COPY --parents ./dir/./sub /p6
COPY --parents --exclude=dir/sub/empty dir /p7/
COPY --parents *.txt d*/o* /p8/
""",
        _FILES,
        features="COPY parents exclude",
        peer="buildah",
        quick=True,
    ),
    Case(
        "copy-parents-modes",
        r"""
FROM scratch AS other
COPY p /usr/p
FROM scratch
COPY --parents p/e/f /x/
COPY --parents --chown=3:4 p/e/f /x1/
COPY --parents --chmod=640 p/e/f /y/
COPY --from=other --parents /usr/p/e /usr/./p /z/
COPY --from=other --parents --link /usr/p/e/f /
""",
        {"p": folder(0o711), "p/e": folder(0o750, owner=(9, 9)), "p/e/f": "f"},
        features="COPY parents chown from link",
        peer="buildah",
        but={"/y: mode": "BuildKit gives an octal --chmod to folders made for the destination, buildah does not"},
    ),
    Case(
        "copy-exclude",
        r"""
FROM busybox
COPY --exclude=*.txt . /e1/
COPY --exclude=*.txt --exclude=**/two . /e2/
COPY --exclude=sub dir /e3/
COPY --exclude=dir/sub . /e4/
COPY --exclude=** --exclude=!a.txt . /e5/
ADD --exclude=c* . /e7/
""",
        _FILES,
        features="COPY ADD exclude",
        quick=True,
    ),
    Case(
        "copy-exclude-relative",
        r"""
FROM busybox
COPY --exclude=e/one e/* /1/
COPY --exclude=sub e/* /2/
COPY --exclude=two e/* /3/
COPY --exclude=sub/two e/* /4/
COPY --exclude=e/sub/two e/* /5/
COPY --exclude=e . e /6/
COPY --exclude=**/two . /7/
COPY --exclude=/e/sub . /8/
""",
        {"a.txt": "a", "b.txt": "b", "e/one": "1", "e/sub/two": "2"},
        features="COPY exclude",
    ),
    Case(
        "copy-exclude-named",
        "FROM busybox\nCOPY --exclude=*.txt a* /1/\nCOPY --exclude=one dir/o* a.txt /2/\n",
        {**_FILES, "a.md": "a"},
        features="COPY exclude",
    ),
    Case("copy-exclude-expanded", "FROM busybox\nARG E=md\nCOPY --exclude=*.$E . /x/\n", _FILES, features="COPY exclude"),
    # What lies above the context is the context's root.
    Case("copy-above", "FROM busybox\nCOPY ../a.txt /x\nCOPY dir/../../../b.txt ../dir /y/\n", _FILES, features="COPY"),
    Case("copy-several-to-one-name", "FROM busybox\nCOPY a.txt dir/one /file\n", _FILES, features="COPY"),
    Case(
        "copy-unknown-owner",
        "FROM busybox\nCOPY --chown=nosuch a.txt /x\nCOPY --chown=web:nosuch a.txt /y\n",
        _FILES,
        features="COPY chown",
        but={"ours fails": "an owner that the image does not have is 0 there, without a word; here it is an error"},
    ),
    Case("copy-to-root", "FROM busybox\nCOPY dir /\nCOPY dir/ .\nCOPY a.txt .\n", _FILES, features="COPY"),
    Case(
        "copy-dotdot-inside",
        "FROM busybox\nCOPY dir/../a.txt /x\nCOPY dir/sub/../one /a/../b\nWORKDIR /w/x\nCOPY a.txt ../y\nCOPY b.txt ../../../z\n",
        _FILES,
        features="COPY",
    ),
    Case(
        "copy-epoch",
        "FROM busybox\nCOPY --link dir /d\nCOPY new old /t/\nWORKDIR /w\nCOPY <<EOF /inline\nx\nEOF\n",
        {**_FILES, "new": File("n", time=1900000000), "old": File("o", time=5)},
        epoch=1700000000,
        features="COPY epoch link heredoc",
    ),
)
