"""Variables: scopes of ARG and ENV, and every modifier."""

from __future__ import annotations

from ..case import Case

CASES = (
    Case(
        "modifiers",
        r"""
FROM busybox
ENV set=value empty=
ENV a1=${set:-other} a2=${empty:-other} a3=${unset:-other} a4=${unset-other} a5=${empty-other}
ENV b1=${set:+other} b2=${empty:+other} b3=${unset:+other} b4=${empty+other} b5=${unset+other}
ENV c1=${set:?must} c2=${set?must} c3=${empty?must} c4="${set:?must be}"
ENV d1=${unset:-${set}} d2=${unset:-$set-x} d3=${unset:+${set}}x
RUN env | sort > /env
""",
        features="modifiers ENV",
        quick=True,
    ),
    Case(
        "modifiers-patterns",
        r"""
FROM busybox
ENV f=/usr/lib/archive.tar.gz v=v1.20.3-rc1-rc2
ENV s1=${f#*/} s2=${f##*/} s3=${f%.*} s4=${f%%.*} s5=${f%.zip} s6=${f#/usr}
ENV r1=${v/rc/beta} r2=${v//rc/beta} r3=${v/./} r4=${v//[0-9]/} r5=${v/v?/x} r6=${v//-*/}
ENV t1=${f#\*} t2=${f//\//_} t3=${v#v}
""",
        features="modifiers",
    ),
    Case(
        "quotes",
        r"""
FROM busybox
ENV A=a
ENV q1='$A ${A}' q2="$A ${A} \$A" q3=\$A q4=$A$A q5="${A}'x'" q6=x"$A"'$A'y q7="\\ \"" q8=\\ q9=a\b
ENV w1=$A.txt w2=${A}b w3=$Ab.x w4=$ w5="$" w6=$1 w7=$-
LABEL q="$A" p='$A' r=$A
""",
        features="ENV LABEL",
    ),
    Case(
        "arg-scopes",
        r"""
ARG GLOBAL=global
ARG BASE=busybox
ARG DERIVED=${GLOBAL}-derived
FROM ${BASE} AS one
RUN echo "[$GLOBAL]" > /not-seen
ARG GLOBAL
RUN echo "[$GLOBAL]" > /seen
ARG GLOBAL=own
RUN echo "[$GLOBAL]" > /own
ARG DERIVED
ENV D=$DERIVED
ARG LATE=$D-late NONE
RUN echo "$LATE [$NONE]" > /late
FROM one AS two
RUN echo "[$GLOBAL] [$LATE]" > /inherited
FROM busybox
ARG LATE
RUN echo "[$LATE] [$GLOBAL]" > /other
COPY --from=two /own /inherited /seen /not-seen /late /from/
""",
        features="scope ARG multi-stage",
        quick=True,
    ),
    Case(
        "arg-given",
        r"""
ARG TAG=wrong
FROM $TAG
ARG A=default
ARG B
ARG C=$A$B
RUN echo "$A $B $C" > /r
LABEL a=$A b=$B c=$C
""",
        build_args={"TAG": "busybox", "A": "given", "B": "b with blanks"},
        features="build-arg ARG",
    ),
    Case(
        "env-beats-arg",
        r"""
FROM busybox
ARG X=arg
ENV X=env
RUN echo $X > /one
ARG X=again
RUN echo $X > /two
ENV Y=${X:-none}
ENV PATH=/opt/bin:$PATH
""",
        build_args={"X": "cli"},
        features="scope build-arg ENV ARG",
    ),
    Case("arg-in-run-env", "FROM busybox\nARG B=2 A=1\nARG EMPTY=\nRUN env | grep -E '^(A|B|EMPTY)=' | sort > /env\n", features="ARG RUN"),
    Case(
        "proxy",
        'FROM busybox\nRUN echo "$http_proxy $HTTPS_PROXY $no_proxy" > /proxies\n',
        build_args={"http_proxy": "http://p.example:1", "HTTPS_PROXY": "http://q.example:2", "no_proxy": "localhost"},
        features="build-arg",
    ),
    Case(
        "platform-args",
        r"""
ARG BUILDPLATFORM
FROM --platform=$BUILDPLATFORM busybox
ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDOS BUILDARCH TARGETSTAGE
RUN echo "$TARGETPLATFORM $TARGETOS $TARGETARCH [$TARGETVARIANT] $BUILDPLATFORM $BUILDOS $BUILDARCH [$TARGETSTAGE]" > /p
""",
        features="platform ARG",
    ),
    Case(
        "where-expanded",
        r"""
FROM busybox
ARG d=/dest
ENV name=a.txt u=web
COPY $name ${d}/
COPY --chown=$u ${name%.txt}.bin $d/"quoted"/
ADD ${name} $d/added
WORKDIR $d
USER $u
EXPOSE ${port:-8080}
VOLUME ${d}/vol
STOPSIGNAL ${sig:-SIGINT}
CMD echo $name
ENTRYPOINT ["echo", "$name"]
""",
        {"a.txt": "text", "a.bin": "binary"},
        features="modifiers COPY ADD",
    ),
    Case(
        "escape-directive",
        "# escape=`\nFROM busybox\nENV A=a`\n  B=b C=c` d\nRUN echo one`\n  two > /r; echo 'a\\b' > /s\nCOPY a.txt /x\n",
        {"a.txt": "x"},
        features="escape",
    ),
    Case(
        "syntax-directive",
        "# syntax=docker/dockerfile:1\n# check=skip=all\nFROM busybox\nMAINTAINER x\nRUN echo a > /a\n",
        features="syntax check",
    ),
    Case(
        "comments",
        r"""
# first
FROM busybox
   # indented
RUN echo one \
    # between
    && echo two \

    && echo three > /r
RUN echo '# no comment' > /s # the shell's
ENV A=1 \
# comment
    B=2
LABEL x="a # b"
""",
        features="RUN ENV",
        quick=True,
        but={"warning NoEmptyContinuation*": "here at the empty line itself, there at the instruction's last"},
    ),
    Case("crlf", "FROM busybox\r\nRUN echo a \\\r\n  b > /r\r\nENV A=b\r\nCOPY a.txt /\r\n", {"a.txt": "x"}, features="RUN"),
    Case(
        "arg-odd-names",
        "FROM busybox\nARG 1=one\nARG a.b=two c-d\nARG X=a=b=c\n"
        "RUN env | grep -v -E '^(HOME|PATH|PWD|SHLVL|HOSTNAME)=' | sort > /env\nLABEL x=$X\n",
        features="ARG",
    ),
    Case("bom", "\ufeffFROM busybox\nENV A=b\n", features="FROM"),
)
