""".dockerignore."""

from __future__ import annotations

from typing import Any

from ..case import Case

_TREE = {
    "README.md": "r",
    "main.py": "m",
    "main.pyc": "c",
    "notes.txt": "n",
    "a/main.py": "am",
    "a/main.pyc": "ac",
    "a/b/deep.py": "d",
    "a/b/deep.pyc": "dc",
    "a/b/keep.txt": "k",
    "node_modules/x/index.js": "x",
    "a/node_modules/y.js": "y",
    "build/out.bin": "o",
    "build/keep/me": "k",
    ".git/config": "g",
    "temp1": "t",
    "temp-x": "t",
    "weird[1].txt": "w",
    "docs/one.md": "1",
    "docs/two.txt": "2",
    "docs/README.md": "dr",
}


def _case(name: str, rules: str, more: str = "", **options: Any) -> Case:
    return Case(name, f"FROM scratch\nCOPY . /all/\n{more}", {**_TREE, ".dockerignore": rules}, features="dockerignore COPY", **options)


CASES = (
    _case("ignore-plain", "# comment\n\n.git\nnode_modules\n*.pyc\ntemp?\n/notes.txt\nbuild/\n   main.py   \n", quick=True),
    _case("ignore-anywhere", "**/*.pyc\n**/node_modules\n**/b/*.txt\n", quick=True),
    _case("ignore-except", "*\n!main.py\n!a\na/b\n!a/b/keep.txt\n!docs/*.md\ndocs/README.md\n", quick=True),
    _case("ignore-order", "*.md\n!README.md\nREADME*\n!docs\n**/two.txt\n!**/keep\nbuild\n!build/keep/me\n"),
    _case("ignore-classes", "temp[0-9]\nweird\\[1\\].txt\n[a-b]/**\n!a/*.py\nbuild/*/me\n"),
    _case("ignore-odd", "./main.py\na/../notes.txt\n//docs/one.md\n!!x\n \n*/b\n.dockerignore\nDockerfile\n"),
    _case("ignore-dockerfile", "*\n!Dockerfile\n"),
    _case("ignore-all-but-sub", "**\n!a/b/keep.txt\n!build/**\n"),
    Case(
        "ignore-by-name",
        "FROM scratch\nCOPY . /all/\n",
        {**_TREE, ".dockerignore": "*\n", "app.Dockerfile.dockerignore": "a\nbuild\n.git\nnode_modules\n"},
        filename="app.Dockerfile",
        features="dockerignore",
    ),
    Case(
        "ignore-and-copy",
        "FROM scratch\nCOPY a/*.py* /a/\nCOPY build /build\nADD docs /docs\n",
        {**_TREE, ".dockerignore": "**/*.pyc\nbuild/keep\n*/one.md\n"},
        features="dockerignore COPY ADD",
    ),
    Case(
        "ignore-copied-name", "FROM scratch\nCOPY main.pyc /\n", {**_TREE, ".dockerignore": "*.pyc\n"}, features="dockerignore", fails=True
    ),
)
