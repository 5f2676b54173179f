"""cp, diff, export and commit for an ordinary user: what they read and write has the owners that the container sees."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from .conftest import Somebody

NONE = ("--network", "none")


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_files_go_in_and_out(somebody: Somebody, status: str) -> None:
    name = somebody("run", "-d", *NONE, "-v", f"{somebody.home}/volume:/data", "host", "sleep", "60").strip()
    somebody("exec", name, "sh", "-c", "mkdir -p /srv/theirs; echo inside > /srv/theirs/file; ln -s /etc/passwd /srv/theirs/link")
    if status == "stopped":
        somebody("stop", "-t", "0", name)
    somebody.do("sh", "-c", "rm -rf back mine; mkdir mine; echo mine > mine/file")
    somebody("cp", "mine", f"{name}:/srv/theirs/mine")
    somebody("cp", "mine/file", f"{name}:/data/file")
    assert somebody.do("cat", "volume/file").stdout == "mine\n"
    somebody("cp", f"{name}:/srv/theirs", "back")
    assert somebody.do("sh", "-c", "cat back/file back/mine/file; readlink back/link").stdout == "inside\nmine\n/etc/passwd\n"
    assert os.lstat(f"{somebody.home}/back/file").st_uid == somebody.uid
    if status == "stopped":
        somebody("start", name)
    assert somebody("exec", name, "stat", "-c", "%u:%g", "/srv/theirs/mine/file") == "0:0\n"
    assert somebody("cp", f"{name}:/proc/version", "-", code=1) == ""


def test_changes_are_found(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    again = "rm -r /usr/share/base-files; mkdir /usr/share/base-files"
    somebody("exec", name, "sh", "-c", f"touch /usr/bin/mine; rm /usr/bin/yes; mkdir /srv/a; {again}")
    found = somebody("diff", name).splitlines()
    assert {"C /usr/bin", "A /usr/bin/mine", "D /usr/bin/yes", "C /srv", "A /srv/a"} <= set(found)
    assert any(line.startswith("D /usr/share/base-files/") for line in found)


def test_owners_are_kept_where_he_has_ids_for_them(mapped: Somebody) -> None:
    name = mapped("run", "-d", *NONE, "host", "sleep", "60").strip()
    make = "mkdir /srv/theirs && echo x > /srv/theirs/file && chown -R 1000:33 /srv/theirs && chmod 700 /srv/theirs"
    mapped("exec", name, "sh", "-c", make)
    python = f"{mapped.base}/venv/bin/python"
    done = mapped.do("sh", "-c", f'"$0" -m pycontainers.commands.program cp {name}:/srv/theirs - > theirs.tar', python)
    assert done.returncode == 0, done.stderr
    with open(f"{mapped.home}/theirs.tar", "rb") as file, tarfile.open(fileobj=io.BytesIO(file.read())) as archive:
        assert [(member.name, member.uid, member.gid) for member in archive] == [("theirs", 1000, 33), ("theirs/file", 1000, 33)]
    mapped.do("sh", "-c", f'"$0" -m pycontainers.commands.program cp - {name}:/opt < theirs.tar', python)
    assert mapped("exec", name, "stat", "-c", "%u:%g:%a", "/opt/theirs", "/opt/theirs/file") == "1000:33:700\n1000:33:644\n"
    assert "A /opt/theirs/file" in mapped("diff", name).splitlines()


def test_a_commit_is_an_image(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    somebody("exec", name, "sh", "-c", "echo written > /srv/file; rm /usr/bin/yes")
    somebody("commit", "-c", 'CMD ["sh", "-c", "cat /srv/file; ls /usr/bin/yes 2>&1"]', name, "mine")
    assert somebody("run", "--rm", *NONE, "mine", code=None).startswith("written\n")
    assert "No such file" in somebody("run", "--rm", *NONE, "mine", code=None)
    somebody("rmi", "mine")
