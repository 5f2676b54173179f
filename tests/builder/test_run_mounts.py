"""RUN --mount in real containers: caches, what is bound, secrets, agents, tmpfs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import BuildError
from pycontainers.events import Note
from pycontainers.images.view import View

from .test_building import begin, build, unique

__all__ = ["begin", "build"]


def test_a_cache_is_kept_between_builds_and_is_in_no_layer(build: Any) -> None:
    text = unique(
        "FROM host\nRUN --mount=type=cache,target=/root/c,id=kept,mode=0700,uid=7,gid=8 stat -c '%a %u %g' /root/c; \\\n"
        "    echo x >> /root/c/f; cat /root/c/f; echo {}\n"
    )
    first, second = build(text.format(1)), build(text.format(2))
    assert first.output.startswith(b"700 7 8\nx\n1\n") and second.output.endswith(b"x\nx\n2\n")
    assert all(b"root/c" not in str(row).encode() for row in View(second.engine.store.resolve(second.image.id).rootfs).listdir("/root"))
    assert build(text.format(2)).cached[-1]


def test_a_locked_cache_is_one_commands_at_a_time_and_a_private_one_is_nobody_elses(begin: Any) -> None:
    step = "RUN --mount=type=cache,target=/c,id={0},sharing={0} mkdir /c/alone || echo TAKEN; sleep .3; rmdir /c/alone; echo {1}\n"
    for sharing in ("locked", "private"):
        text = unique(
            "FROM host\n"
            + "".join(f"FROM host AS s{n}\n" + step.format(sharing, f"{n}{time.time_ns()}") for n in range(3))
            + "FROM scratch\n"
            + "".join(f"COPY --from=s{n} /etc/passwd /\n" for n in range(3))
        )
        built = begin(text)()
        assert b"TAKEN" not in built.output
        assert any("waiting" in event.text for event in built.of(Note)) is (sharing == "locked")


def test_what_is_bound_is_read_only_or_thrown_away(build: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_text("f\n")
    (tmp_path / "ignored").write_text("no\n")
    (tmp_path / ".dockerignore").write_text("ignored\n")
    built = build(
        unique(
            "FROM host AS made\nRUN mkdir /m && echo m > /m/m\n"
            "FROM host\n"
            "RUN --mount=target=/ctx ls -A /ctx; touch /ctx/no 2>/dev/null || echo read-only\n"
            "RUN --mount=source=in,target=/ctx,rw echo changed > /ctx/f; cat /ctx/f\n"
            "RUN --mount=source=in/f,target=/one cat /one\n"
            "RUN --mount=from=made,source=/m,target=/m cat /m/m\n"
            "RUN ls -d /m /ctx /one 2>/dev/null || echo gone\n"
        ),
        tmp_path,
    )
    lines = built.output.decode().splitlines()
    assert lines[:3] == [".dockerignore", "in", "read-only"]
    assert lines[3:6] == ["changed", "f", "m"] and lines[-1] == "gone"
    assert (tmp_path / "in" / "f").read_text() == "f\n"


def test_a_bind_is_looked_at_by_content(build: Any, tmp_path: Path) -> None:
    for name in ("read", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("1")
    text = unique("FROM host\nRUN --mount=source=read,target=/r cat /r/f\n")
    build(text, tmp_path)
    (tmp_path / "other" / "f").write_text("2")
    os.utime(tmp_path / "read" / "f", (1, 1))
    assert build(text, tmp_path).cached == [True] * 3
    (tmp_path / "read" / "f").write_text("2")
    assert build(text, tmp_path).cached == [True, True, False]


def test_a_secret_is_seen_and_never_kept(build: Any, engine: NativeEngine) -> None:
    text = unique(
        "FROM host\nRUN --mount=type=secret,id=key,mode=0440,gid=5 stat -c '%a %u %g' /run/secrets/key; wc -c < /run/secrets/key\n"
        "RUN --mount=type=secret,id=key,env=KEY echo ${#KEY}\nRUN ls -A /run/secrets 2>/dev/null; echo [$KEY]\n"
    )
    secret = os.urandom(8).hex()[:11]  # that nothing else here happens to say
    built = build(text, secrets={"key": secret.encode()})
    assert built.output == b"440 0 5\n11\n11\n[]\n"
    found = subprocess.run(
        ["grep", "-rl", secret, str(engine.paths.home), str(engine.paths.run)], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    assert build(text, secrets={"key": b"another"}).cached == [True] * 5  # its value is no part of the key, as in Docker
    with pytest.raises(BuildError, match="required") as caught:
        build(unique("FROM host\nRUN --mount=type=secret,id=key,required true\n"))
    assert "--secret id=key" in caught.value.hint
    assert build(unique("FROM host\nRUN --mount=type=secret,id=key ls /run/secrets 2>/dev/null; echo none\n")).output == b"none\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """A real agent with one key; the path of its socket."""
    if not shutil.which("ssh-agent"):
        pytest.skip("needs ssh-agent (apt-get install openssh-client)")
    place = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as process:
        while not os.path.exists(place):
            time.sleep(0.01)
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of-the-test", "-f", str(key)], check=True)
        subprocess.run(["ssh-add", "-q", str(key)], env={**os.environ, "SSH_AUTH_SOCK": place}, check=True)
        yield place
        process.terminate()


def test_an_agent_is_reached_from_inside(build: Any, agent: str) -> None:
    text = unique("FROM host\nRUN --mount=type=ssh ssh-add -l; echo $SSH_AUTH_SOCK\nRUN --mount=type=ssh,id=other,mode=0666 ssh-add -l\n")
    built = build(text, ssh={"default": agent, "other": agent})
    assert built.output.count(b"of-the-test") == 2 and b"/run/buildkit/ssh_agent.0\n" in built.output
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as nobody:
        nobody.bind(f"{agent}.dead")
    with pytest.raises(BuildError, match="no ssh agent"):
        build(unique("FROM host\nRUN --mount=type=ssh true\n"), ssh={"default": f"{agent}.dead"})


def test_a_tmpfs_is_empty_and_gone(build: Any) -> None:
    built = build(
        unique(
            "FROM host\nRUN --mount=type=tmpfs,target=/t,size=1m stat -f -c %T /t; df --output=size /t | tail -1; \\\n"
            "    touch /t/x\nRUN ls -d /t 2>/dev/null || echo gone\n"
        )
    )
    lines = built.output.decode().split()
    assert lines[:2] == ["tmpfs", "1024"] and lines[-1] == "gone"


def test_a_script_with_an_interpreter_is_a_file_while_it_runs(build: Any) -> None:
    built = build(
        unique(
            "FROM host\nRUN <<HELLO\n#!/usr/bin/env python3\nimport sys\nprint(sys.argv)\nHELLO\n"
            "RUN ls -A /dev/pipes 2>/dev/null; echo gone\n"
        )
    )
    assert built.output == b"['/dev/pipes/HELLO']\ngone\n"


def test_this_machines_system_is_bound_and_never_copied(build: Any) -> None:
    made = "FROM host AS made\nRUN mkdir -p /srv/a /usr/share/made && echo m > /srv/a/m && echo u > /usr/share/made/u\n"
    built = build(
        unique(
            f"{made}FROM host\nRUN --mount=from=made,source=/srv,target=/s --mount=from=host,source=/usr/bin,target=/b "
            "cat /s/a/m; /b/env echo x\n"
        )
    )
    assert built.output == b"m\nx\n"
    for source, more in (("/", ""), ("/", ",rw"), ("/usr", ""), ("/usr", ",rw")):
        with pytest.raises(BuildError, match="this machine's own system") as caught:
            build(unique(f"{made}FROM host\nRUN --mount=from=made,source={source},target=/whole{more} true\n"))
        assert "source=/srv" in caught.value.hint


def test_one_cache_at_two_places_and_two_caches_in_any_order_are_no_circle(begin: Any) -> None:
    """Each is held once, and all in one order."""
    two = "--mount=type=cache,target=/{0},id={0},sharing=locked "
    text = unique(
        "FROM host AS one\nRUN --mount=type=cache,target=/x,id=a --mount=type=cache,target=/y,id=a,sharing=locked echo 1 > /x/f; cat /y/f\n"
        f"RUN {two.format('a')}{two.format('b')}sleep .2; echo {time.time_ns()}\n"
        f"FROM host AS two\nRUN {two.format('b')}{two.format('a')}sleep .2; echo {time.time_ns()}\n"
        "FROM scratch\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
    )
    assert b"1\n" in begin(text)().output


def test_what_a_cache_begins_with_is_put_together_where_no_command_can_reach(
    build: Any, begin: Any, engine: NativeEngine, tmp_path: Path
) -> None:
    """A command that shares the cache puts links in the way, again and again, while another one's cache is filled from a stage."""
    victim = tmp_path / "victim"
    victim.mkdir()
    id = f"race{time.time_ns()}"
    evil = (
        "import os, time\nend = time.time() + 3\nwhile time.time() < end:\n for name in os.listdir('/c'):\n"
        "  if os.path.islink('/c/' + name): continue\n"
        f"  os.rename('/c/' + name, '/c/' + name + str(time.time_ns())); os.symlink('{victim}', '/c/' + name)\n"
    )
    built = begin(
        unique(
            f"FROM host AS src\nRUN mkdir -p /big/sub && cd /big/sub && seq 1 3000 | xargs touch\n"
            f"FROM host AS evil\nRUN --mount=type=cache,id={id},target=/c <<EOF\n#!/usr/bin/env python3\n{evil}\nEOF\n"
            f"FROM host AS b\nCOPY --from=src /etc/passwd /\nRUN sleep .5\n"
            f"RUN --mount=type=cache,id={id},target=/c,from=src,source=/big ls /c | wc -l\n"
            "FROM scratch\nCOPY --from=evil /etc/passwd /1\nCOPY --from=b /etc/passwd /2\n"
        )
    )()
    assert os.listdir(victim) == [] and built.image is not None


def test_a_link_to_itself_is_an_error_at_its_place(build: Any) -> None:
    made = "FROM host AS made\nRUN ln -s /loop /loop\n"
    for line in (
        "FROM host\nCOPY --from=made /loop /x",
        "FROM made\nWORKDIR /loop",
        "FROM host\nRUN --mount=from=made,source=/loop,target=/x true",
    ):
        with pytest.raises(BuildError, match=r"Dockerfile:5:.*more than 40 links"):
            build(unique(f"{made}{line}\n"))
