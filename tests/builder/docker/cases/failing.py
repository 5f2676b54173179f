"""What must not build, on either side, for the same line."""

from __future__ import annotations

from typing import Any

from ..case import Case

_FILES = {"a.txt": "a", "dir/b": "b"}


def _case(name: str, dockerfile: str, features: str = "", **more: Any) -> Case:
    return Case(f"fails-{name}", dockerfile, _FILES, features=features, fails=True, **more)


CASES = (
    _case("run-code", "FROM busybox\nENV A=b\n\nRUN true && \\\n    exit 3\nRUN echo never\n", "RUN", quick=True),
    _case("run-missing-command", 'FROM busybox\nRUN ["/no/such/program"]\n', "RUN"),
    _case("run-exec-variable", 'FROM busybox\nENV P=/bin/true\nRUN ["$P"]\n', "RUN"),
    _case("copy-missing", "FROM busybox\nWORKDIR /x\nCOPY a.txt b.txt ./\n", "COPY", quick=True),
    _case("copy-missing-in-stage", "FROM busybox AS b\nFROM busybox\nCOPY --from=b /no/file /x\n", "from"),
    _case("copy-file-as-folder", "FROM busybox\nCOPY a.txt /etc/passwd/x\n", "COPY"),
    _case("copy-folder-over-file", "FROM busybox\nCOPY dir /etc/passwd\n", "COPY"),
    _case("copy-one-argument", "FROM busybox\nCOPY a.txt\n", "COPY"),
    _case("copy-bad-mode", "FROM busybox\nCOPY --chmod=rwx a.txt /x\n", "chmod"),
    _case("copy-unknown-stage", "FROM busybox\nCOPY --from=localhost:1/nothing /x /y\n", "from"),
    _case("copy-from-later", "FROM busybox AS a\nCOPY --from=1 /x /y\nFROM busybox AS b\n", "from", target="a"),
    _case("copy-from-self", "FROM busybox\nENV x=y\nCOPY --from=0 /x /y\n", "from"),
    _case("unknown-flag", "FROM busybox\nRUN true\nCOPY --frm=x a.txt /x\n", "COPY", quick=True),
    _case("flag-value", "FROM busybox\nCOPY --link=maybe a.txt /x\n", "link"),
    _case("unknown-instruction", "FROM busybox\nRNU echo a\n", quick=True),
    _case("no-from", "RUN echo a\n"),
    _case("empty", "# nothing\n", but={"line of the error": "what is not there is in no line here, in the first there"}),
    _case("arg-before-from-only", "ARG A=b\n"),
    _case("from-empty-arg", "ARG A\nFROM $A\n", "ARG"),
    _case("from-three-words", "FROM busybox as\n", "FROM"),
    _case("from-bad-name", "FROM busybox AS 1st\n", "FROM"),
    _case("base-missing", "FROM localhost:1/nothing\nRUN true\n", "FROM"),
    _case("target-missing", "FROM busybox AS a\n", "target", target="nosuch", quick=True),
    _case("required-modifier", "FROM busybox\nENV A=a\nENV B=${C:?C is needed}\n", "modifiers", quick=True),
    _case("required-empty", "FROM busybox\nENV C=\nENV B=${C:?}\n", "modifiers"),
    _case("bad-substitution", "FROM busybox\nENV B=${C\n", "modifiers"),
    _case("bad-modifier", "FROM busybox\nENV B=${C:=x}\n", "modifiers"),
    _case("env-no-value", "FROM busybox\nENV A\n", "ENV"),
    _case("env-mixed", "FROM busybox\nENV A=b C\n", "ENV"),
    _case("label-no-value", "FROM busybox\nLABEL\n", "LABEL"),
    _case("secret-required", "FROM busybox\nRUN --mount=type=secret,id=t,required=true cat /run/secrets/t\n", "mount-secret", quick=True),
    _case("ssh-required", "FROM busybox\nRUN --mount=type=ssh,required true\n", "mount-ssh"),
    _case("mount-type", "FROM busybox\nRUN --mount=type=nfs,target=/x true\n", "mount-bind"),
    _case("mount-no-target", "FROM busybox\nRUN --mount=type=cache true\n", "mount-cache"),
    _case("mount-unknown-key", "FROM busybox\nRUN --mount=type=bind,trget=/x true\n", "mount-bind"),
    _case("mount-missing-source", "FROM busybox\nRUN --mount=type=bind,source=none,target=/x true\n", "mount-bind"),
    _case("mount-from-missing", "FROM busybox\nRUN --mount=from=localhost:1/none,target=/x true\n", "mount-bind"),
    _case("network", "FROM busybox\nRUN --network=nosuch true\n", "network"),
    _case("security", "FROM busybox\nRUN --security=insecure true\n", "RUN"),
    _case("healthcheck-interval", "FROM busybox\nHEALTHCHECK --interval=often CMD true\n", "HEALTHCHECK"),
    _case("healthcheck-short", "FROM busybox\nHEALTHCHECK --interval=10us CMD true\n", "HEALTHCHECK"),
    _case("healthcheck-word", "FROM busybox\nHEALTHCHECK TEST true\n", "HEALTHCHECK"),
    _case("healthcheck-retries", "FROM busybox\nHEALTHCHECK --retries=-1 CMD true\n", "HEALTHCHECK"),
    _case("onbuild-from", "FROM busybox\nONBUILD FROM x\n", "ONBUILD"),
    _case("onbuild-onbuild", "FROM busybox\nONBUILD ONBUILD RUN true\n", "ONBUILD"),
    _case("onbuild-trigger", "FROM parent\nRUN true\n", "ONBUILD", before={"parent": "FROM busybox\nONBUILD RUN exit 4\n"}),
    _case("shell-form", "FROM busybox\nSHELL /bin/sh -c\n", "SHELL"),
    _case("stopsignal", "FROM busybox\nSTOPSIGNAL SIGNOSUCH\n", "STOPSIGNAL"),
    _case("expose", "FROM busybox\nEXPOSE http\n", "EXPOSE"),
    _case("expose-range", "FROM busybox\nEXPOSE 90-80\n", "EXPOSE"),
    _case("expose-protocol", "FROM busybox\nEXPOSE 80/xyz\n", "EXPOSE"),
    _case("volume-empty", 'FROM busybox\nVOLUME [""]\n', "VOLUME"),
    _case("workdir-file", "FROM busybox\nWORKDIR /etc/passwd\n", "WORKDIR"),
    _case("workdir-none", "FROM busybox\nWORKDIR\n", "WORKDIR"),
    _case("user-unknown", "FROM busybox\nUSER nosuch\nRUN true\n", "USER"),
    _case("heredoc-open", "FROM busybox\nRUN <<EOF\necho a\n", "heredoc"),
    _case("add-from", "FROM busybox\nADD --from=x a /b\n", "ADD"),
    _case("cycle", "FROM b AS a\nFROM a AS b\n", "multi-stage", contexts={}),
    _case("escape", "# escape=x\nFROM busybox\n", "escape"),
    _case(
        "duplicate-directive",
        "# escape=`\n# escape=\\\nFROM busybox\n",
        "escape",
        but={"line of the error": "here it is that of the second, there that of the first"},
    ),
    _case("platform", "FROM --platform=nonsense/what/is/this busybox\n", "platform"),
    _case("arg-name", "FROM busybox\nARG A=\nARG =x\n", "ARG"),
    _case("scratch-run", "FROM scratch\nRUN echo a\n", "RUN"),
    _case("second-line", "FROM busybox\nRUN echo a > /a\nCOPY a.txt /b\nRUN cat /a /c\n", "RUN"),
)
