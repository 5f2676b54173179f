"""Containers of an ordinary user: started, entered, ended, and nothing left; with subordinate ids and with a single one."""

from __future__ import annotations

import fcntl
import os
import signal

from .conftest import Somebody, wait_for

NONE = ("--network", "none")


def test_root_inside_is_the_user_outside(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    pid = somebody.inspect(name)["pid"]
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status", encoding="ascii").read().splitlines())
    assert status["Uid"].split() == [str(somebody.uid)] * 4
    assert somebody("exec", name, "id", "-u").strip() == "0"
    assert status["Seccomp"].strip() == "2"


def test_what_it_prints_and_how_it_ends(somebody: Somebody) -> None:
    assert somebody("run", "--rm", *NONE, "host", "sh", "-c", "echo out; echo err >&2; exit 7", code=7) == "out\n"
    assert somebody.stderr.strip().endswith("err")
    assert somebody("ps", "-aq") == ""


def test_namespaces_are_the_containers_own(somebody: Somebody) -> None:
    """Also the user namespace: root of a container has no right over launcher, supervisor and holder, who are root one level up."""
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    pid = somebody.inspect(name)["pid"]
    holder = somebody.holder["holder"]["pid"]
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        theirs = os.readlink(f"/proc/{pid}/ns/{kind}")
        assert theirs != os.readlink(f"/proc/self/ns/{kind}")
        if kind in ("user", "mnt", "net"):
            assert theirs != os.readlink(f"/proc/{holder}/ns/{kind}")


def test_top_lists_its_processes_also_without_a_cgroup(somebody: Somebody) -> None:
    """Nothing is delegated to him here, so that no cgroup.procs names them."""
    name = somebody("run", "-d", *NONE, "host", "sh", "-c", "sleep 1234 & wait").strip()
    wait_for(lambda: somebody("top", name, "-o", "pid,args").count("sleep 1234") == 2)
    lines = [line.split() for line in somebody("top", name, "-o", "pid,comm").splitlines()]
    assert len(lines) == 3 and [str(somebody.inspect(name)["pid"]), "sh"] in lines


def test_files_are_written_and_kept(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    somebody("exec", name, "sh", "-c", "echo kept > /usr/bin/mine && mkdir -p /srv/a/b && rm -r /usr/share/base-files && echo x > /root/y")
    somebody("stop", "-t", "0", name)
    somebody("start", name)
    assert somebody("exec", name, "sh", "-c", "cat /usr/bin/mine; ls /usr/share/base-files 2>&1 | grep -c 'No such'") == "kept\n1\n"
    folder = somebody.inspect(name)["folder"]
    somebody("rm", "-f", name)
    assert not os.path.exists(folder)


def test_owners_inside_are_his_subordinate_ids(mapped: Somebody) -> None:
    name = mapped("run", "-d", *NONE, "host", "sleep", "60").strip()
    make = "mkdir /srv/theirs && echo x > /srv/theirs/file && chown -R 1000:33 /srv/theirs && chmod 700 /srv/theirs"
    mapped("exec", name, "sh", "-c", make)
    assert mapped("exec", "--user", "1000", name, "sh", "-c", "id -u; cat /srv/theirs/file") == "1000\nx\n"
    folder = mapped.inspect(name)["folder"]
    found = os.stat(f"{folder}/upper/0/srv/theirs/file")
    assert found.st_uid == mapped.subordinate()[0] + 999
    mapped("rm", "-f", name)
    assert [entry for entry in os.listdir(os.path.dirname(folder)) if entry != "names"] == []


def test_one_id_is_said(somebody: Somebody) -> None:
    name = somebody("create", *NONE, "host", "true").strip()
    said = any("one id" in note for note in somebody.inspect(name)["notes"])
    assert said == (somebody.holder["uids"] == [1])


def test_a_holder_that_is_stopped_is_said(somebody: Somebody) -> None:
    somebody("run", "--rm", *NONE, "host", "true")
    launcher, keeper = somebody.launcher(), somebody.holder["holder"]["pid"]
    os.kill(keeper, signal.SIGSTOP)
    try:
        os.kill(launcher, signal.SIGKILL)
        somebody("run", "--rm", *NONE, "host", "true", code=125)
        assert f"kill -CONT {keeper}" in somebody.stderr and len(somebody.stderr.splitlines()) == 2
    finally:
        os.kill(keeper, signal.SIGCONT)
    wait_for(lambda: somebody("run", "--rm", *NONE, "host", "echo", "again", code=None) == "again\n")


def test_a_killed_launcher_is_followed_by_one_in_the_same_namespaces(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    before = somebody.holder
    os.kill(somebody.launcher(), signal.SIGKILL)
    assert somebody("exec", name, "echo", "again") == "again\n"
    assert somebody.holder == before
    second = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    holders = os.stat(f"/proc/{before['holder']['pid']}/ns/user").st_ino
    assert [_parent(somebody.inspect(each)["pid"]) for each in (name, second)] == [holders, holders]


def _parent(pid: int) -> int:
    """The user namespace in which a process's own lies (NS_GET_PARENT, ioctl_ns(2)), by its inode."""
    with open(f"/proc/{pid}/ns/user", "rb") as file:
        fd = fcntl.ioctl(file.fileno(), 0xB702)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def test_a_killed_holder_does_not_cut_containers_off(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    before = somebody.holder["holder"]
    os.kill(before["pid"], signal.SIGKILL)
    os.kill(somebody.launcher(), signal.SIGKILL)
    assert somebody("exec", name, "echo", "still") == "still\n"
    after = somebody.holder["holder"]
    assert after != before
    somebody("rm", "-f", name)
    assert somebody("run", "--rm", *NONE, "host", "echo", "new") == "new\n"


def test_nothing_is_left_when_all_has_ended(somebody: Somebody) -> None:
    somebody("run", "--rm", *NONE, "host", "true")
    name = somebody("run", "-d", *NONE, "host", "sleep", "60").strip()
    somebody.leave()
    holder = somebody.holder["holder"]["pid"]
    assert holder in somebody.processes()  # the container needs it
    somebody("rm", "-f", name)
    somebody.leave()
    wait_for(lambda: not somebody.processes())
    assert os.listdir(f"{somebody.home}/state/containers") in ([], ["names"])


def test_what_is_visible_through_his_containers_namespaces(somebody: Somebody) -> None:
    """Without entering any but the four that tell only those inside: also where a single id is all he has."""
    name = somebody("run", "-d", *NONE, "--hostname", "inside", "host", "sleep", "61").strip()
    found = somebody("namespaces", name)
    table = {line.split()[0]: line for line in found.splitlines()[1:9]}
    assert all("● own" in table[kind] for kind in ("pid", "mount", "network", "user", "uts", "ipc", "cgroup"))
    inside = found.split("this machine: processes")[0]
    assert "sleep 61" in inside and inside.count("sleep") == 1
    assert "host name  inside" in found and "cannot be read" not in found
    assert "runs as         user " + str(somebody.uid) in found
    somebody("rm", "-f", name)


def test_a_terminal_of_his(somebody: Somebody) -> None:
    name = somebody("run", "-d", *NONE, "host", "sleep", "62").strip()
    script = (
        "import sys; from pycontainers import get; t = get(sys.argv[1]).terminal('sh'); t.resize(31, 97)\n"
        "t.write(b'stty size; id -u; exit 4\\n'); t.wait(20); print(t.text, t.state)"
    )
    done = somebody.do(f"{somebody.base}/venv/bin/python", "-c", script, name)
    assert "31 97" in done.stdout and "\n0\n" in done.stdout and "exit code 4" in done.stdout, done.stdout + done.stderr
    somebody("rm", "-f", name)
