# ruff: noqa: E501 (a Dockerfile is one text)
"""Dockerfiles of all shapes: what people write, and what only somebody who reads a parser would write. For the tests of the language."""

from __future__ import annotations

CORPUS: dict[str, str] = {
    "smallest": "FROM scratch",
    "lower case": "from scratch as one\nrun echo hello\ncmd [\"a\"]\n",
    "mixed case": "From scratch As One\nRuN echo hello\n",
    "byte order mark": "\ufeffFROM scratch\nRUN x\n",
    "carriage returns": "FROM scratch\r\nRUN a \\\r\n  b\r\nENV x=1\r\n",
    "carriage returns twice": "FROM scratch\r\r\nRUN a\r\r\n",
    "no newline at the end": "FROM scratch\nRUN a",
    "continuation at the end": "FROM scratch\nRUN a \\",
    "continuation into nothing": "FROM scratch\nRUN a \\\n\n\n",
    "comments": "# one\nFROM scratch # not a comment\n  # two\nRUN echo # three\n#\n# four\n",
    "comment in a continuation": "FROM scratch\nRUN a \\\n# no\n  # no\n  && b\n",
    "empty lines in a continuation": "FROM scratch\nRUN a \\\n\n  \t\n  && b\n",
    "comment that ends in an escape": "FROM scratch\n# a \\\nRUN b\n",
    "indented": "  FROM scratch\n\tRUN echo\n \t CMD x\n",
    "escaped escape at the end": "FROM scratch\nRUN a \\\\\nRUN b\n",
    "three escapes at the end": "FROM scratch\nRUN a \\\\\\\nRUN b\n",
    "escape with blanks after it": "FROM scratch\nRUN a \\ \t \n  b\n",
    "only an escape": "FROM scratch\n\\\nRUN a\n",
    "only an escape, then an indent": "FROM scratch\n\\\n   RUN a\n",
    "keyword over two lines": "FROM scratch\nRU\\\nN echo\n",
    "word over two lines": "FROM scratch\nENV aa\\\nbb=1 c\\\n  d=2\n",
    "tabs between": "FROM\tscratch\tAS\tone\nRUN\techo\ta\tb\nEXPOSE\t80\t90\n",
    "vertical tab and form feed": "FROM\vscratch\nEXPOSE\f80\v90\n",
    "escape directive": "# escape=`\nFROM scratch\nRUN a `\n  b \\\nENV p=c:\\dir\\\nENV q=a` b r=`\"x\n",
    "directive in other words": "#EsCaPe = `  \nFROM scratch\nRUN a `\n b\n",
    "directive with blanks before": "  # escape=`\nFROM scratch\nRUN a `\n b\n",
    "syntax and escape": "# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\nRUN a `\n b\n",
    "directive after a comment": "# hello\n# escape=`\nFROM scratch\nRUN a \\\n b\n",
    "directive after an empty line": "\n# escape=`\nFROM scratch\nRUN a \\\n b\n",
    "directive after an instruction": "FROM scratch\n# escape=`\nRUN a \\\n b\n",
    "unknown directive": "# nothing=1\n# escape=`\nFROM scratch\nRUN a \\\n b\n",
    "directive without a value": "# escape=\nFROM scratch\nRUN a \\\n b\n",
    "directive twice": "# escape=`\n# escape=`\nFROM scratch\n",
    "bad escape": "# escape=x\nFROM scratch\n",
    "exec forms": 'FROM scratch\nRUN ["a", "b c"]\nCMD [ "a" ]\nENTRYPOINT []\nSHELL ["/bin/sh", "-c"]\n',
    "exec form that is none": "FROM scratch\nCMD ['a', 'b']\nRUN [\"a\", \"b\"\nENTRYPOINT [\"a\",]\nCMD [a]\nRUN [[ -e x ]] && y\n",
    "exec form with more after it": 'FROM scratch\nCMD ["a"] b\nRUN ["c:\\x"]\n',
    "exec form escapes": 'FROM scratch\nCMD ["\\u00e4", "\\ud83d\\ude00", "\\ud800", "a\\tb", "\\/"]\n',
    "exec form over lines": 'FROM scratch\nCMD ["a", \\\n  "b", \\\n  "c"]\n',
    "exec form of numbers": "FROM scratch\nRUN [1]\n",
    "exec form of null": "FROM scratch\nCMD [null]\n",
    "exec form of lists": 'FROM scratch\nCMD [["a"]]\n',
    "exec form of a constant": "FROM scratch\nCMD [NaN]\n",
    "exec form of a huge number": "FROM scratch\nCMD [1e999]\n",
    "exec form with a tab in a string": 'FROM scratch\nCMD ["a\tb"]\n',
    "copy": "FROM scratch\nCOPY a b c/ /d/\nCOPY [\"a b\", \"/c d/\"]\nCOPY \"a b\" c\nADD http://x/y /z\n",
    "copy of one word": "FROM scratch\nCOPY a\n",
    "copy of lists that are none": "FROM scratch\nCOPY ['a', 'b']\nADD [\"a\" \"b\"]\n",
    "flags": "FROM --platform=linux/amd64 scratch\nCOPY --from=0 --chown=1:2 --chmod=755 --link a b\nADD --checksum=sha256:x --keep-git-dir=true a b\n",
    "flags with quotes": "FROM scratch\nRUN --mount=type=bind,\"target=/a b\",source='c d' --network=none x\nCOPY --from=\"a\" --chown='b'\\ c d e\n",
    "flags and blanks": "FROM scratch\nRUN   --mount=type=cache,target=/a    --network=host   echo  a\n",
    "flags over lines": "FROM scratch\nRUN --mount=type=cache,target=/a \\\n  --mount=type=tmpfs,target=/b \\\n  echo\n",
    "flags ended": "FROM scratch\nRUN -- --x\nRUN --a=b -- --c\nRUN --\n",
    "flags with an escape at the end": "FROM scratch\nRUN --a=b\\\\ c\n",
    "one dash": "FROM scratch\nRUN -x --y\n",
    "flags alone": "FROM scratch\nRUN --network=none\n",
    "env": "FROM scratch\nENV a=1 b=\"2 3\" c='4 5' d=6\\ 7 e=\nENV f g  h\nENV i = j\nENV k==l\n",
    "env with open quotes": "FROM scratch\nENV a=\"b c\nENV d='e f=g\n",
    "env with escapes": "FROM scratch\nENV a=\\\"b\\\" c=d\\\\ e=\"\\\"f\\\\\" g='\\' h=\\\n",
    "env without a value": "FROM scratch\nENV a\n",
    "env with a word that has none": "FROM scratch\nENV a=1 b\n",
    "env without a name": "FROM scratch\nENV =1\n",
    "env of nothing": "FROM scratch\nENV\n",
    "env of quotes": "FROM scratch\nENV \"a b\"=c 'd'=\"\" e=\"f\"'g'h\nENV \"a b\" c\n",
    "env over many lines": "FROM scratch\nENV a=1 \\\n    # comment\n    b=2 \\\n\n    c=3\n",
    "label": "FROM scratch\nLABEL a.b.c=\"d\" \"e f\"=\"g h\" i='j'\nLABEL old style value\n",
    "label over lines": "FROM scratch\nLABEL description=\"This text illustrates \\\nthat label-values can span multiple lines.\"\n",
    "arg": "ARG a\nARG b=1 c d=\"2 3\"\nFROM scratch\nARG e=${b:-x y}\n",
    "expose": "FROM scratch\nEXPOSE 80 443/tcp 53/udp 7000-7010 \"9000\"\n",
    "volume": "FROM scratch\nVOLUME /a /b\nVOLUME [\"/c d\", \"/e\"]\nVOLUME /f\n",
    "workdir, user, stopsignal": "FROM scratch\nWORKDIR /a b\nUSER  x:y z \nSTOPSIGNAL SIGTERM\nMAINTAINER A B <c@d>\n",
    "health check": "FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK --interval=5m --timeout=3s CMD curl -f http://localhost/ || exit 1\n",
    "health check as a list": "FROM scratch\nHEALTHCHECK --start-period=1s --retries=3 CMD [\"a\", \"b\"]\nhealthcheck cmd  x  y\n",
    "health check of nothing": "FROM scratch\nHEALTHCHECK\nHEALTHCHECK CMD\nHEALTHCHECK none of this\n",
    "onbuild": "FROM scratch\nONBUILD RUN --mount=type=cache,target=/a echo a\nONBUILD COPY --from=x [\"a\", \"b\"]\nONBUILD   ENV a=1 b=2\n",
    "onbuild over lines": "FROM scratch\nONBUILD RUN a \\\n  && b\nonbuild expose 80\n",
    "here-document": "FROM scratch\nRUN <<EOF\necho a\n# kept\n\n  b \\\nEOF\nRUN next\n",
    "here-document with a tab": "FROM scratch\nRUN <<-EOF\n\techo a\n\t\tb\n\tEOF\nRUN next\n",
    "here-documents": "FROM scratch\nRUN cat <<A <<'B C' 3<<\"D\" | x\na\nA\nb\nB C\nd\nD\n",
    "here-documents copied": "FROM scratch\nCOPY <<a.txt <<\"b\" c /d/\n1 $x\na.txt\n2\nb\n",
    "here-document of an add": "FROM scratch\nADD --chmod=644 <<x /y\nz\nx\n",
    "here-document with returns": "FROM scratch\r\nRUN <<EOF\r\na\r\nb\r\nEOF\r\nRUN c\r\n",
    "here-document in onbuild": "FROM scratch\nONBUILD RUN <<EOF\na\nEOF\nONBUILD COPY <<-x /y\n\tz\n\tx\n",
    "here-document that is quoted": "FROM scratch\nRUN echo \"<<EOF\" '<<x' \\<<y\nRUN a<<EOF\n",
    "here-document in a list": "FROM scratch\nRUN [\"<<EOF\"]\nCOPY [\"<<EOF\", \"x\"]\n",
    "here-document with odd names": "FROM scratch\nRUN <<E\"O\"F <<\\x <<'a'b <<$y\n1\nEOF\n2\nx\n3\nab\n4\n$y\n",
    "here-document without a name": "FROM scratch\nRUN << \nRUN <<\"\"\nRUN <<-\n",
    "here-string": "FROM scratch\nRUN cat <<<EOF\n",
    "here-document after open quotes": "FROM scratch\nRUN echo it's <<EOF\n",
    "here-document after a substitution": "FROM scratch\nRUN echo ${x:-y} ${z} $1 $$ <<EOF\na\nEOF\n",
    "here-document after a substitution that is the shell's own": "FROM scratch\nRUN echo ${x^^} <<EOF\n",
    "here-document in a continuation": "FROM scratch\nRUN cat \\\n  <<EOF \\\n  | b\nc\nEOF\n",
    "here-document with an empty body": "FROM scratch\nRUN <<EOF\nEOF\n",
    "here-document without an end": "FROM scratch\nRUN <<EOF\na\n",
    "here-document whose end is indented": "FROM scratch\nRUN <<EOF\n  EOF\nEOF \nEOF\n",
    "here-document of another instruction": "FROM scratch\nENV a=<<EOF\nCMD cat <<EOF\n",
    "an unknown instruction": "FROM scratch\nRUNN a\n",
    "an unknown instruction without arguments": "FROM scratch\nnothing\n",
    "a word that upper case makes an instruction": "FROM scratch\n\u017fHELL [\"a\"]\n",
    "nothing": "",
    "nothing but comments": "# a\n\n# b\n",
    "no instruction but an escape": "\\\n",
    "unicode": "FROM scratch\nRUN echo ä € 😀\nENV ä=ö b=\"ü\"\nLABEL 日本=語\nCOPY ä ö\n",
    "unicode blanks": "FROM scratch\nENV a=1\u00a0b=2\u3000c=3\nRUN\u00a0x\nEXPOSE 80\u200290\n\u00a0RUN y\u2003\n",
    "separators that are no blanks": "FROM scratch\nENV a=1\x1cb=2\nRUN x\x1dy\x1f\n",
    "nul": "FROM scratch\nRUN a\0b\nENV a=\0\n",
    "backticks and dollars": "FROM scratch\nRUN `a` $(b) ${c} $d\nENV x=`y` z=$(w)\n",
    "from of many words": "FROM a b c d\nFROM\nFROM  x   AS   y  \nFROM $BASE\nFROM ${A:-b} AS c\n",
    "python application": """# syntax=docker/dockerfile:1
FROM python:3.12-slim AS base
ENV PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
WORKDIR /app
RUN --mount=type=cache,target=/root/.cache/pip \\
    --mount=type=bind,source=requirements.txt,target=requirements.txt \\
    python -m pip install -r requirements.txt
COPY . .
USER appuser
EXPOSE 8000
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app:app"]
""",
    "go program in two stages": """ARG GO_VERSION=1.22
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-alpine AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.* ./
RUN go mod download
COPY . .
RUN --mount=type=cache,target=/root/.cache/go-build GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/app .

FROM scratch
COPY --from=build /out/app /app
ENTRYPOINT ["/app"]
""",
    "packages": """FROM debian:bookworm
RUN set -eux; \\
\tapt-get update; \\
\tapt-get install -y --no-install-recommends \\
\t\tca-certificates \\
# https://bugs.example.org/1
\t\tcurl \\
\t; \\
\trm -rf /var/lib/apt/lists/*
RUN groupadd -r redis && useradd -r -g redis redis
VOLUME /data
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
""",
    "script in a here-document": """FROM debian
RUN <<EOF bash
set -e
for i in 1 2; do
  echo "$i" \\
    more
done
EOF
COPY --chmod=755 <<'SH' /entry.sh
#!/bin/sh
exec "$@"
SH
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 \\
  CMD curl -f http://localhost/ || exit 1
STOPSIGNAL SIGQUIT
""",
}
