"""Several stages, --from, --target, named contexts."""

from __future__ import annotations

from ..case import Case, File, link

CASES = (
    Case(
        "multi-stage",
        r"""
FROM busybox AS build
WORKDIR /src
COPY main.c .
RUN cat main.c > program && chmod 711 program && chown 9:9 program && mkdir -p tree/sub && echo x > tree/sub/x && ln -s sub tree/link
FROM busybox AS test
RUN exit 1
FROM scratch
COPY --from=build /src/program /bin/program
COPY --from=build /src/tree /tree/
COPY --from=0 --chown=1:2 /src/main.c /
ENTRYPOINT ["/bin/program"]
""",
        {"main.c": "int main;\n"},
        features="multi-stage from chown",
        quick=True,
    ),
    Case(
        "target",
        r"""
FROM busybox AS base
RUN echo base > /base
FROM base AS dev
RUN echo dev > /dev-file
ENV MODE=dev
FROM base AS prod
RUN exit 7
""",
        target="dev",
        features="target multi-stage",
        quick=True,
    ),
    Case(
        "target-number",
        "FROM busybox\nENV A=1\nFROM busybox\nENV A=2\n",
        target="0",
        features="target",
        fails=True,
        but={"ours succeeds": "a stage by its number: older engines take it, and so do we"},
    ),
    Case("target-case", "FROM busybox AS Base\nENV A=1\nFROM busybox\nENV A=2\n", target="BASE", features="target"),
    Case("from-image", "FROM scratch\nCOPY --from=busybox /etc/group /bin/busybox /x/\nCOPY --from=busybox /bin/s? /y/\n", features="from"),
    Case(
        "from-links",
        r"""
FROM busybox AS b
RUN mkdir /d && echo x > /d/f && ln -s f /d/l && ln -s /d /dl && ln /d/f /d/h && touch -d @1000000000 /d/f
FROM busybox
COPY --from=b /dl /1
COPY --from=b /d/l /2
COPY --from=b /dl/ /3/
COPY --from=b /dl/f /4
COPY --from=b /d /5
""",
        features="from",
        quick=True,
    ),
    Case(
        "same-name-twice",
        "FROM busybox AS a\nRUN echo 1 > /x\nFROM busybox AS a\nRUN echo 2 > /x\nFROM scratch\nCOPY --from=a /x /\n",
        features="multi-stage from",
    ),
    Case(
        "inherits-config",
        r"""
FROM busybox AS one
ENV A=1
WORKDIR /one
USER web
LABEL l=1
EXPOSE 1
VOLUME /v
SHELL ["/bin/sh", "-xc"]
CMD ["one"]
HEALTHCHECK CMD x
FROM one AS two
ENV B=$A
RUN id -u > /tmp/id; pwd > /tmp/pwd
FROM two
LABEL l=2 m=3
EXPOSE 2
CMD still shell
""",
        features="multi-stage SHELL",
    ),
    Case(
        "stage-as-base-arg",
        "ARG WHICH=b\nFROM busybox AS a\nENV S=a\nFROM busybox AS b\nENV S=b\nFROM ${WHICH} AS final\nENV F=f\n",
        build_args={"WHICH": "a"},
        features="multi-stage ARG build-arg",
    ),
    Case(
        "context-folder",
        r"""
FROM busybox
COPY --from=assets . /assets/
COPY --from=assets logo.txt /
RUN --mount=from=assets,target=/m cat /m/logo.txt > /r
""",
        {"own": "x"},
        contexts={
            "assets": {"logo.txt": "logo\n", "sub/x": File("x", 0o600), "l": link("logo.txt"), "skipped": "s", ".dockerignore": "skipped\n"}
        },
        features="contexts from mount-bind",
        quick=True,
    ),
    Case(
        "context-image",
        "FROM alpine AS a\nENV A=a\nFROM other\nCOPY --from=alpine /etc/group /g\n",
        contexts={"alpine": "docker-image://busybox", "other": "docker-image://busybox:latest"},
        features="contexts",
    ),
    Case(
        "context-replaces-stage",
        "FROM busybox AS files\nRUN exit 1\nFROM scratch\nCOPY --from=files / /\n",
        contexts={"files": {"a": "instead"}},
        features="contexts",
    ),
    Case(
        "copy-from-self-layers",
        r"""
FROM busybox AS one
RUN mkdir /d && echo 1 > /d/a && echo 1 > /d/b
RUN rm /d/a && echo 2 > /d/c
RUN rm -rf /d && mkdir /d && echo 3 > /d/only
FROM scratch
COPY --from=one /d /d
""",
        features="from",
    ),
    Case(
        "from-exclude-link",
        r"""
FROM busybox AS b
RUN mkdir -p /usr/local/lib/x /usr/local/share/doc && chmod 711 /usr/local && \
    touch /usr/local/lib/x/a.so /usr/local/lib/x/a.la /usr/local/share/doc/d
FROM scratch
COPY --from=b /usr/local/lib/x/*.so /
COPY --from=b --exclude=**/*.la /usr/local /copy/
COPY --from=b --link /usr/local/share /s/
""",
        features="from exclude link",
    ),
    Case(
        "platform-flag",
        "FROM --platform=$BUILDPLATFORM busybox AS b\nRUN uname -m > /m\nFROM --platform=$TARGETPLATFORM busybox\nCOPY --from=b /m /\n",
        features="platform multi-stage",
    ),
    Case(
        "many-stages",
        "FROM busybox AS s0\nRUN echo 0 > /f\n"
        + "".join(f"FROM busybox AS s{n}\nCOPY --from=s{n - 1} /f /g\nRUN cat /g > /f; echo {n} >> /f\n" for n in range(1, 6))
        + "FROM scratch\nCOPY --from=s5 /f /f\n",
        features="multi-stage from",
    ),
)
