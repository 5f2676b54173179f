"""Builds of an ordinary user: steps run, owners kept by their ids inside, and images removed with every file of theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
from collections.abc import Callable

from .conftest import Somebody, wait_for

DOCKERFILE = """\
FROM host
COPY --chown=33:44 file /srv/file
RUN mkdir -m 700 /srv/closed && echo a > /srv/closed/a && chown -R 33:33 /srv/closed && rm -rf /usr/share/common-licenses
RUN echo again > /usr/bin/new && ls -ln /srv | tail -n +2 | sort -k9
CMD cat /srv/file
"""


def context(somebody: Somebody, dockerfile: str = DOCKERFILE) -> str:
    folder = f"{somebody.home}/context"
    os.makedirs(folder, exist_ok=True)
    for name, text in (("Dockerfile", dockerfile), ("file", "of the context\n")):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
    return folder


def layers(somebody: Somebody) -> list[str]:
    return os.listdir(f"{somebody.home}/state/images/snapshots")


def test_owners_inside_are_kept_in_layers(mapped: Somebody) -> None:
    mapped("build", "-t", "mine", context(mapped))
    look = "stat -c '%n %u %g' /srv/file /srv/closed /srv/closed/a; ls /usr/share/common-licenses 2>/dev/null | wc -l; cat /usr/bin/new"
    assert mapped("run", "--rm", "--network", "none", "mine", "sh", "-c", look).splitlines() == [
        "/srv/file 33 44", "/srv/closed 33 33", "/srv/closed/a 33 33", "0", "again",
    ]  # fmt: skip
    assert mapped("run", "--rm", "--network", "none", "mine") == "of the context\n"
    assert "CACHED" in (mapped("build", "-t", "mine", context(mapped)) + mapped.stderr)
    assert layers(mapped)
    mapped("rmi", "mine")
    mapped("prune")
    assert layers(mapped) == []
    assert os.listdir(f"{mapped.home}/state/images/ingest") == []


def test_a_container_is_committed_and_compared(mapped: Somebody) -> None:
    name = mapped("run", "-d", "--network", "none", "host", "sleep", "60").strip()
    mapped("exec", name, "sh", "-c", "mkdir -m 700 /srv/c && echo x > /srv/c/x && chown -R 33:33 /srv/c")
    assert "/srv/c/x" in mapped("diff", name)
    mapped("commit", name, "kept")
    mapped("rm", "-f", name)
    assert mapped("run", "--rm", "--network", "none", "kept", "stat", "-c", "%u", "/srv/c/x") == "33\n"
    mapped("rmi", "kept")
    mapped("prune")
    assert layers(mapped) == []


def test_one_id_builds_too(somebody: Somebody) -> None:
    dockerfile = "FROM host\nCOPY file /srv/file\nRUN cat /srv/file > /srv/copy\nCMD cat /srv/copy\n"
    somebody("build", "-t", "plain", context(somebody, dockerfile))
    assert somebody("run", "--rm", "--network", "none", "plain") == "of the context\n"
    somebody("rmi", "plain")
    somebody("prune")
    assert layers(somebody) == []


def test_one_id_keeps_owners_in_layers(people: Callable[..., Somebody]) -> None:
    """Recorded, they become the owners in the layer's archive; and recorded again where it is unpacked."""
    somebody = people(ranges=False)
    dockerfile = "FROM host\nCOPY --chown=33:44 file /srv/file\nRUN touch /srv/x && chown 5:6 /srv/x\n"
    somebody("build", "-t", "owned", context(somebody, dockerfile))
    script = "import os; print(*[os.getxattr(f'/srv/{n}', 'user.pycontainers.owner').decode() for n in ('file', 'x')])"
    assert somebody("run", "--rm", "--network", "none", "owned", "python3", "-c", script) == "33:44 5:6\n"
    name = somebody("run", "-d", "--network", "none", "owned", "sleep", "60").strip()
    archive = f"{somebody.home}/copied.tar"
    done = somebody.do("sh", "-c", f"{somebody.base}/venv/bin/python -m pycontainers.commands.program cp -a {name}:/srv - > {archive}")
    assert done.returncode == 0, done.stderr
    with tarfile.open(archive) as tar:
        assert {(m.name, m.uid, m.gid) for m in tar if m.isfile()} == {("srv/file", 33, 44), ("srv/x", 5, 6)}
    somebody("commit", name, "again")
    somebody("rm", "-f", name)
    assert somebody("run", "--rm", "--network", "none", "again", "python3", "-c", script) == "33:44 5:6\n"
    somebody("rmi", "owned", "again")
    somebody("prune")
    assert layers(somebody) == []


def test_an_interrupted_build_leaves_nothing(mapped: Somebody) -> None:
    folder = context(mapped, "FROM host\nRUN echo begun && chown 33 /srv && sleep 60\n")
    command = mapped.command(f"{mapped.base}/venv/bin/python", "-m", "pycontainers.commands.program", "build", folder)
    build = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert build.stdout is not None
    for line in build.stdout:
        if line.rstrip().endswith("begun"):
            break
    worker = next(pid for pid, line in mapped.processes().items() if "engines.worker" in line)
    client = next(pid for pid, line in mapped.processes().items() if "commands.program build" in line)
    os.kill(client, signal.SIGINT)
    build.wait(30)
    wait_for(lambda: worker not in mapped.processes())
    assert mapped("ps", "-aq") == ""
    assert [entry for entry in os.listdir(f"{mapped.home}/state/containers") if entry != "names"] == []
    assert os.listdir(f"{mapped.home}/state/images/ingest") == []


def test_what_is_written_besides_belongs_to_the_user(somebody: Somebody) -> None:
    folder = context(somebody, "FROM scratch\nCOPY --chown=33:44 --chmod=4755 file /srv/file\n")
    out = f"{somebody.home}/out"
    tar, image = f"type=tar,dest={somebody.home}/page.tar", f"type=docker,dest={somebody.home}/image.tar"
    somebody("build", "-t", "page", "-o", out, "-o", tar, "-o", image, folder)
    found = os.stat(f"{out}/srv/file")
    assert (found.st_uid, found.st_mode & 0o7777) == (os.stat(somebody.home).st_uid, 0o755)
    with tarfile.open(f"{somebody.home}/page.tar") as archive:
        assert (archive.getmember("srv/file").uid, archive.getmember("srv/file").mode) == (33, 0o4755)
    assert "page:latest" in somebody("load", "-i", f"{somebody.home}/image.tar")
    somebody("rmi", "page")


def test_an_error_comes_with_its_line(somebody: Somebody) -> None:
    somebody("build", "-f", f"{context(somebody, 'FROM scratch')}/Dockerfile", "--context", "", code=0)
    folder = context(somebody, "FROM scratch\nCOPY missing /\n")
    somebody("build", folder, code=1)
    assert "error: Dockerfile:2:6: " in somebody.stderr and "     2 | COPY missing /\n              ^\nhint:" in somebody.stderr
