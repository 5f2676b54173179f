"""Here-documents on RUN, COPY and ADD."""

from __future__ import annotations

from ..case import Case

CASES = (
    Case(
        "heredoc-run",
        r"""
FROM busybox
ENV A=env
ARG B=arg
RUN <<EOF
echo "$A $B" > /r
x=1
echo $x '\n' >> /r
EOF
RUN <<'EOF'
echo "quoted $A" > /q
EOF
""",
        features="heredoc RUN",
        quick=True,
    ),
    Case("heredoc-run-chomp", "FROM busybox\nRUN <<-EOF\n\techo one > /r\n\t\techo two >> /r\n\tEOF\n", features="heredoc RUN"),
    Case(
        "heredoc-run-shebang",
        r"""
FROM busybox
RUN <<EOF
#!/bin/sh -e
echo "$0" | sed 's,.*/,,' > /name
EOF
""",
        features="heredoc RUN",
    ),
    # The kernel hands all that follows the interpreter over as one argument.
    Case(
        "heredoc-run-shebang-words",
        "FROM busybox\nRUN <<EOF\n#!/bin/busybox awk -f\nBEGIN { print 1 }\nEOF\n",
        features="heredoc RUN",
        fails=True,
    ),
    Case("heredoc-from", "FROM busybox AS a\nFROM busybox\nCOPY --from=a <<EOF /x\nx\nEOF\n", features="heredoc from"),
    Case(
        "heredoc-run-command",
        r"""
FROM busybox
RUN cat <<EOF > /cat && cat <<TWO >> /cat
first $HOME
EOF
second
TWO
RUN tr a-z A-Z <<'EOF' >/upper
$HOME stays
EOF
""",
        features="heredoc RUN",
    ),
    Case("heredoc-run-fails-late", "FROM busybox\nRUN <<EOF\nfalse\necho went on > /r\nEOF\n", features="heredoc RUN"),
    Case(
        "heredoc-copy",
        r"""
FROM busybox
ARG who=world
COPY <<EOF /greeting.txt
hello $who ${unset:-default} \$who "quoted" 'single $who'
  indented \
continued
EOF
COPY <<"RAW" /raw
hello $who \$x
RAW
COPY <<-EOF /etc/chomped
	tab gone
		both gone
EOF
""",
        features="heredoc COPY",
        quick=True,
    ),
    Case(
        "heredoc-copy-several",
        r"""
FROM busybox
COPY --chmod=755 --chown=web:50 <<one <<'two.sh' file.txt /dir/
first
one
#!/bin/sh
echo $1
two.sh
ADD <<EOF /added
from ADD
EOF
""",
        {"file.txt": "third"},
        features="heredoc COPY ADD chmod chown",
        quick=True,
    ),
    Case("heredoc-empty", "FROM busybox\nCOPY <<EOF /empty\nEOF\nCOPY <<EOF /dir/\nname is the word\nEOF\n", features="heredoc COPY"),
    Case(
        "heredoc-mode",
        "FROM busybox\nCOPY --chmod=0600 <<EOF /secretive\nx\nEOF\nWORKDIR /w\nCOPY <<EOF relative\ny\nEOF\n",
        features="heredoc chmod",
    ),
    Case(
        "heredoc-exec-interpreter",
        r"""
FROM busybox
SHELL ["/bin/busybox", "sh", "-ec"]
RUN <<EOF
echo "by the shell given" > /r
true
EOF
RUN sh -s <<EOF a b
echo "$# \$1 $1" > /args
EOF
""",
        features="heredoc SHELL",
    ),
    Case(
        "heredoc-onbuild",
        "FROM parent\n",
        before={"parent": "FROM busybox\nONBUILD RUN <<EOF\necho x > /x\nEOF\n"},
        features="heredoc ONBUILD",
    ),
)
