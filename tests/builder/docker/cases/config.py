"""Instructions that change the image's config alone, and WORKDIR and USER, which do a little more."""

from __future__ import annotations

from ..case import Case

CASES = (
    Case("least", "FROM busybox\n", features="FROM"),
    Case("scratch-copy", "FROM scratch\nCOPY a.txt /\nENV A=b\n", {"a.txt": "alone\n"}, features="FROM COPY ENV"),
    Case("run", "FROM busybox\nRUN echo one > /one && mkdir -p /a/b && echo two > /a/b/two\nRUN rm /one\n", features="RUN", quick=True),
    Case(
        "cmd-forms",
        r"""
FROM busybox
CMD echo replaced
CMD ["sh", "-c", "echo \"it's\" é"]
ENTRYPOINT exec top -b
ENTRYPOINT ["/bin/sh", "-x"]
""",
        features="CMD ENTRYPOINT",
    ),
    Case("cmd-shell", "FROM busybox\nCMD echo $HOME 'a  b'   \\\n  done\n", features="CMD"),
    # An ENTRYPOINT resets the CMD that came with the base, but not one of its own stage.
    Case(
        "entrypoint-resets",
        'FROM parent\nENTRYPOINT ["/bin/cat"]\n',
        before={"parent": 'FROM busybox\nCMD ["base"]\n'},
        features="ENTRYPOINT CMD",
    ),
    Case("entrypoint-keeps", 'FROM busybox\nCMD ["-n"]\nENTRYPOINT ["/bin/cat"]\n', features="ENTRYPOINT CMD"),
    Case(
        "not-json",
        "FROM busybox\nCMD ['single', 'quotes']\nENTRYPOINT [ \"sh\", \"-c\" \nRUN [ -d /bin ] && echo yes > /yes\n",
        features="CMD ENTRYPOINT RUN",
    ),
    Case("empty-cmd", "FROM parent\nCMD []\n", before={"parent": 'FROM busybox\nCMD ["base"]\nENTRYPOINT ["/bin/sh"]\n'}, features="CMD"),
    Case(
        "labels",
        r"""
FROM busybox
LABEL one=1 two="second value" "three.dotted-name"='single $NOT'
LABEL old form of it
LABEL multi="line \
continues" one=again
LABEL empty= path=$PATH
""",
        features="LABEL",
        labels={"from.cli": "yes", "two": "from the command line"},
        quick=True,
    ),
    Case("label-build", "FROM busybox\nLABEL a=b\n", labels={"a": "c", "d": "e f"}, features="label LABEL"),
    Case(
        "env-forms",
        r"""
FROM busybox
ENV ONE=1 TWO="two words" THREE='single $ONE' FOUR=esc\ aped
ENV OLD form   with  blanks
ENV abc=hello
ENV abc=bye def=$abc
ENV ghi=$abc EMPTY= Q="a\"b" D=\$ONE
RUN env | sort > /env
""",
        features="ENV",
        quick=True,
    ),
    Case("expose", "FROM busybox\nARG P=9000\nEXPOSE 80 443/tcp 53/udp $P\nEXPOSE 80\nEXPOSE 8000-8003 7000/TCP\n", features="EXPOSE"),
    Case(
        "volume",
        r"""
FROM busybox
RUN mkdir /data && echo kept > /data/kept
VOLUME /data
RUN echo also > /data/also
VOLUME ["/var/log", "/srv/with blank"]
VOLUME /a /b
ENV V=/from/env
VOLUME $V
""",
        features="VOLUME",
    ),
    Case(
        "user",
        r"""
FROM busybox
USER web
RUN id > /tmp/web
USER 4000:50
RUN id > /tmp/numbers
USER nobody:staff
RUN id > /tmp/both
USER web:1
RUN id > /tmp/mixed; touch /tmp/x
""",
        features="USER",
    ),
    Case(
        "user-expanded",
        "FROM busybox\nARG U=web\nUSER ${U}\nWORKDIR /made/by/web\n"
        "RUN id -u > /tmp/id; ls -ln /made | awk '{print $1, $3, $4}' > /tmp/list; stat -c %u /made/by > /tmp/up\n",
        features="USER WORKDIR ARG",
    ),
    Case(
        "workdir",
        r"""
FROM busybox
WORKDIR /one
WORKDIR two
WORKDIR ../three
RUN pwd > /pwd
WORKDIR /etc
WORKDIR $HOME/x
WORKDIR /a/./b//c/
RUN touch here
""",
        features="WORKDIR",
    ),
    Case("workdir-relative-first", "FROM busybox\nWORKDIR srv\nRUN pwd > /pwd\n", features="WORKDIR"),
    Case(
        "workdir-link",
        "FROM busybox\nRUN mkdir /real && ln -s /real /linked && ln -s nowhere /dangling\nWORKDIR /linked/inside\n"
        "RUN pwd > /pwd; touch f\n",
        features="WORKDIR",
    ),
    Case(
        "shell",
        r"""
FROM busybox
SHELL ["/bin/sh", "-e", "-c"]
RUN echo first > /first; echo "$0" > /name
SHELL ["/bin/busybox", "sh", "-x", "-c"]
RUN echo second > /second
CMD serve now
ENTRYPOINT run it
""",
        features="SHELL",
    ),
    Case("stopsignal", "FROM busybox\nARG S=USR1\nSTOPSIGNAL SIG$S\n", features="STOPSIGNAL"),
    Case("stopsignal-number", "FROM busybox\nSTOPSIGNAL 9\n", features="STOPSIGNAL"),
    Case(
        "healthcheck",
        r"""
FROM busybox
HEALTHCHECK --interval=90s --timeout=3s --start-period=1m30s --start-interval=500ms --retries=5 \
  CMD wget -q -O - http://localhost/ || exit 1
""",
        features="HEALTHCHECK",
        quick=True,
    ),
    Case("healthcheck-exec", 'FROM busybox\nHEALTHCHECK --interval=1m CMD ["/bin/true", "now"]\n', features="HEALTHCHECK"),
    Case(
        "healthcheck-none",
        "FROM parent\nHEALTHCHECK NONE\n",
        before={"parent": "FROM busybox\nHEALTHCHECK CMD true\n"},
        features="HEALTHCHECK",
    ),
    Case(
        "healthcheck-inherited",
        'FROM parent\nCMD ["x"]\n',
        before={"parent": "FROM busybox\nHEALTHCHECK --retries=2 CMD true\n"},
        features="HEALTHCHECK",
    ),
    Case(
        "onbuild-kept",
        "FROM busybox\nONBUILD RUN echo later\nONBUILD COPY . /app\nONBUILD ENV A=$B\nonbuild   workdir   /x\n",
        features="ONBUILD",
    ),
    Case(
        "onbuild-run",
        r"""
FROM parent
RUN cat /src/a.txt > /after; pwd > /pwd
""",
        {"a.txt": "context of the child\n", "b.txt": "b"},
        before={
            "parent": r"""
FROM busybox
ARG GREETING=hi
ONBUILD ARG WHO=you
ONBUILD COPY *.txt /src/
ONBUILD WORKDIR /src
ONBUILD ENV TRIGGERED=yes
ONBUILD RUN echo "$TRIGGERED $WHO $GREETING" > /triggered; ls > /list
"""
        },
        build_args={"WHO": "me"},
        features="ONBUILD",
        quick=True,
    ),
    Case(
        "onbuild-stage",
        r"""
FROM busybox AS first
ONBUILD RUN echo onbuild >> /log
FROM first
RUN echo own >> /log
""",
        features="ONBUILD multi-stage",
    ),
    Case("maintainer", "FROM busybox\nMAINTAINER Some One <some@example.org>\n", features="MAINTAINER"),
    Case("case-blind", "from busybox As Base\nrun echo a > /a\ncopy a.txt /b\nFrom base\nenv x=Y\n", {"a.txt": "b"}, features="FROM RUN"),
    Case("epoch", "FROM busybox\nCOPY a /x/a\nRUN echo new > /new; mkdir /d\nWORKDIR /w\n", {"a": "a"}, epoch=1700000000, features="epoch"),
    Case(
        "platform-own",
        "FROM --platform=linux/amd64 busybox\nARG TARGETPLATFORM\nARG TARGETARCH\nARG BUILDOS\n"
        "RUN echo $TARGETPLATFORM $TARGETARCH $BUILDOS > /p\n",
        platform="linux/amd64",
        features="platform",
    ),
    Case(
        "surroundings",
        r"""
FROM busybox
ARG SEEN=arg
ENV KEPT=env
RUN env | sort > /env; pwd > /pwd; umask > /umask; id > /id; test -t 1 && echo tty > /tty; ls -a / > /root-list
USER web
RUN env | sort > /tmp/env-web; id >> /tmp/env-web
""",
        features="RUN ENV USER",
    ),
)
