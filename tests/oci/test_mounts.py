"""Mounts with their options, devices, what is hidden: as the kernel shows them inside."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root
LOOK = "cat /proc/self/mountinfo"


def found(text: str, place: str) -> list[tuple[set[str], list[str], str, set[str]]]:
    """[(options, propagation, type, superblock options)] of the mounts at ``place``, the topmost last."""
    rows = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        parts, after = fields.split(), rest.split()
        if len(parts) > 5 and parts[4] == place:
            rows.append((set(parts[5].split(",")), parts[6:], after[0], set(after[2].split(","))))
    return rows


def mounted(oci: Any, mount: dict[str, Any], script: str = LOOK, **linux: Any) -> Any:
    def change(spec: dict[str, Any]) -> None:
        spec["mounts"].append(mount)
        spec["linux"].update(linux)

    return oci.run(script, change)


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (["ro"], {"ro"}),
        (["nosuid", "nodev", "noexec"], {"nosuid", "nodev", "noexec", "rw"}),
        (["noatime"], {"noatime"}),
        (["strictatime"], set()),
        (["nodiratime", "relatime"], {"nodiratime", "relatime"}),
        (["ro", "rw"], {"rw"}),
        (["nosymfollow"], {"nosymfollow"}),
        (["noexec", "exec", "nodev"], {"nodev"}),
    ],
)
def test_attributes_of_a_new_file_system(oci: Any, words: list[str], there: set[str]) -> None:
    ran = mounted(oci, {"destination": "/mnt/x", "type": "tmpfs", "source": "tmpfs", "options": [*words, "size=1m"]})
    options, _, kind, superblock = found(ran.out, "/mnt/x")[-1]
    assert kind == "tmpfs" and there <= options and "size=1024k" in superblock, ran
    negative = {"strictatime": "relatime", "exec": "noexec", "rw": "ro"}
    assert not {negative[word] for word in words if word in negative} & options


def test_binds_of_a_folder_and_a_file(oci: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    ran = mounted(
        oci, {"destination": "/a/b", "type": "bind", "source": str(tmp_path), "options": ["rbind", "ro"]}, "cat /a/b/file; touch /a/b/x"
    )
    assert ran.out == "content" and "Read-only" in ran.err
    ran = mounted(
        oci, {"destination": "/etc/one", "source": str(tmp_path / "file"), "options": ["bind", "nosuid"]}, f"cat /etc/one; {LOOK}"
    )
    assert ran.out.startswith("content") and "nosuid" in found(ran.out, "/etc/one")[-1][0]


def test_relative_source_is_of_the_bundle(oci: Any) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["mounts"].append({"destination": "/b", "type": "bind", "source": ".", "options": ["bind"]})

    assert "config.json" in oci.run("ls /b", change).out


@pytest.fixture
def nested(tmp_path: Path) -> Any:
    """A folder with a tmpfs mounted below it, for what is recursive."""
    inner = tmp_path / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(inner)], check=True)


@pytest.mark.parametrize(
    ("words", "outer", "inner"),
    [
        (["rbind", "ro"], "ro", "rw"),
        (["rbind", "rro"], "ro", "ro"),
        (["rbind", "rro", "rw"], "rw", "ro"),
        (["rbind", "rnoexec"], "noexec", "noexec"),
    ],
)
def test_recursive_attributes(oci: Any, nested: Path, words: list[str], outer: str, inner: str) -> None:
    ran = mounted(oci, {"destination": "/n", "type": "bind", "source": str(nested), "options": words})
    assert outer in found(ran.out, "/n")[-1][0] and inner in found(ran.out, "/n/inner")[-1][0], ran


def test_bind_without_what_is_below(oci: Any, nested: Path) -> None:
    ran = mounted(oci, {"destination": "/n", "type": "bind", "source": str(nested), "options": ["bind"]})
    assert found(ran.out, "/n") and not found(ran.out, "/n/inner")


@pytest.mark.parametrize(("word", "tag"), [("rprivate", ""), ("rshared", "shared:"), ("rslave", "master:"), ("unbindable", "unbindable")])
def test_propagation(oci: Any, tmp_path: Path, word: str, tag: str) -> None:
    subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
    try:
        ran = mounted(oci, {"destination": "/p", "type": "bind", "source": str(tmp_path), "options": ["rbind", word]})
        tags = found(ran.out, "/p")[-1][1]
        assert any(one.startswith(tag) for one in tags) if tag else tags == [], ran
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_is_mounted_inside_a_shared_bind_arrives_outside(oci: Any, tmp_path: Path) -> None:
    subprocess.run(["mount", "--bind", str(tmp_path), str(tmp_path)], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
    (tmp_path / "in").mkdir()
    try:

        def change(spec: dict[str, Any]) -> None:
            spec["mounts"].append({"destination": "/p", "type": "bind", "source": str(tmp_path), "options": ["rbind", "rshared"]})
            for kind in spec["process"]["capabilities"].values():
                kind.append("CAP_SYS_ADMIN")

        ran = oci.run("mount -t tmpfs made /p/in && touch /p/in/seen", change)
        assert ran.code == 0, ran
        assert (tmp_path / "in/seen").exists()
        subprocess.run(["umount", str(tmp_path / "in")], check=True)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("wanted", ["private", "rshared", "rslave", "unbindable"])
def test_propagation_of_the_root(oci: Any, wanted: str) -> None:
    ran = oci.run(LOOK, lambda spec: spec["linux"].update(rootfsPropagation=wanted))
    tags = " ".join(found(ran.out, "/")[-1][1])
    assert ("shared:" in tags) == (wanted == "rshared") and ("unbindable" in tags) == (wanted == "unbindable"), ran


def test_tmpfs_with_what_the_image_has(oci: Any) -> None:
    look = "ls -l /etc | grep -c passwd; cat /etc/passwd | head -1; touch /etc/new && echo new; stat -c %a /etc"
    ran = mounted(oci, {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}, look)
    assert ran.out.splitlines() == ["1", "root:x:0:0:root:/root:/bin/sh", "new", "755"], ran
    assert not (oci.rootfs / "etc/new").exists()
    ran = mounted(
        oci, {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]}, "cat /etc/group; touch /etc/x"
    )
    assert "user:x:1000" in ran.out and "Read-only" in ran.err


def test_tmpfs_looks_as_what_it_covers(oci: Any) -> None:
    ran = mounted(oci, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}, "stat -c %a /tmp")
    assert ran.out == "1777\n"


def test_owners_mapped_by_the_mount(oci: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    tmp_path.chmod(0o755)
    os.chown(tmp_path / "file", 1, 2)
    maps = [{"containerID": 0, "hostID": 1000, "size": 10}]
    mount = {
        "destination": "/m",
        "type": "bind",
        "source": str(tmp_path),
        "options": ["bind", "idmap"],
        "uidMappings": maps,
        "gidMappings": maps,
    }
    ran = mounted(oci, mount, "stat -c %u:%g /m/file")
    assert ran.out == "1001:1002\n", ran
    ran = mounted(oci, {key: value for key, value in mount.items() if "Mappings" not in key}, "true")
    assert ran.code == 1 and "no map" in ran.err


def test_overlay_and_long_options(oci: Any, tmp_path: Path) -> None:
    """More than fits in one value of fsconfig(2)."""
    lower = []
    for number in range(8):
        folder = tmp_path / f"layer-{number}-{'x' * 40}"
        folder.mkdir()
        (folder / f"f{number}").touch()
        lower.append(str(folder))
    ran = mounted(oci, {"destination": "/o", "type": "overlay", "source": "overlay", "options": [f"lowerdir={':'.join(lower)}"]}, "ls /o")
    assert ran.out.split() == [f"f{number}" for number in range(8)], ran


def test_errors_carry_the_words_of_the_file_system(oci: Any) -> None:
    ran = mounted(oci, {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=much"]})
    assert ran.code == 1 and "mounts[5]: tmpfs on /t" in ran.err and "size" in ran.err and "Bad value" in ran.err, ran
    ran = mounted(oci, {"destination": "/t", "type": "nofs", "source": "x"})
    assert "mounts[5]: nofs on /t" in ran.err and "No such device" in ran.err
    ran = mounted(oci, {"destination": "/t", "type": "bind", "source": "/not/there", "options": ["bind"]})
    assert "cannot bind /not/there: " in ran.err and "No such file" in ran.err


def test_devices(oci: Any) -> None:
    devices = [
        {"path": "/dev/fast", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/deep/block", "type": "b", "major": 7, "minor": 0},
        {"path": "/dev/queue", "type": "p", "fileMode": 0o600},
        {"path": "/dev/closed", "type": "c", "major": 1, "minor": 5, "fileMode": 0},
    ]
    ran = oci.run(
        "stat -c '%F %a %u %g %t %T' /dev/fast /dev/deep/block /dev/queue /dev/closed; cat </dev/null",
        lambda spec: spec["linux"].update(devices=devices),
    )
    assert ran.out.splitlines() == [
        "character special file 640 7 8 1 5",
        "block special file 666 0 0 7 0",
        "fifo 600 0 0 0 0",
        "character special file 0 0 0 1 5",
    ], ran
    ran = oci.run("true", lambda spec: spec["linux"].update(devices=[{"path": "/dev/x", "type": "q"}]))
    assert ran.code == 1 and "/dev/x is of type 'q'" in ran.err


def test_device_rules(oci: Any) -> None:
    """Denied as a whole: what every container has stays usable (config-linux, Default Devices)."""

    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        spec["linux"]["devices"] = [{"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11}]

    ran = oci.run("echo x >/dev/null && head -c1 /dev/zero | wc -c; head -c1 /dev/kmsg2", change)
    assert ran.out.strip() == "1" and "not permitted" in ran.err, ran


def test_every_container_has_its_nodes(oci: Any) -> None:
    def without_dev(spec: dict[str, Any]) -> None:
        spec["mounts"] = [mount for mount in spec["mounts"] if not mount["destination"].startswith("/dev")]

    for change in (None, without_dev):
        ran = oci.run(
            "cd /dev; stat -c '%n %t:%T' null zero full random urandom tty; for l in fd ptmx stdout; do readlink $l; done", change
        )
        assert ran.out.split("\n")[:6] == ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"], ran
        assert ran.out.splitlines()[6:] == ["/proc/self/fd", "pts/ptmx", "/proc/self/fd/1"]
    for name in os.listdir(oci.rootfs / "dev"):
        path = oci.rootfs / "dev" / name
        assert stat.S_ISCHR(path.lstat().st_mode) or path.is_symlink()
        path.unlink()


def test_masked_and_read_only_paths(oci: Any) -> None:
    script = f"cat /proc/keys; ls /sys/firmware; echo 1 >/proc/sys/kernel/core_pattern; {LOOK}"
    ran = oci.run(script)
    assert ran.out.startswith("21 ") or ran.out[0].isdigit(), ran  # nothing before mountinfo
    assert "Read-only" in ran.err or "can't create" in ran.err
    assert "ro" in found(ran.out, "/proc/sys")[-1][0]


def test_read_only_root(oci: Any) -> None:
    ran = oci.run("touch /x; touch /dev/shm/y && echo shm", lambda spec: spec["root"].update(readonly=True))
    assert "Read-only" in ran.err and ran.out == "shm\n"


def test_sysctl(oci: Any) -> None:
    values = {"net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/forwarding": "1", "kernel.shmmax": "1234567", "kernel.hostname": "other"}
    ran = oci.run(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; hostname",
        lambda spec: spec["linux"].update(sysctl=values),
    )
    assert ran.out.split() == ["1", "1234567", "other"], ran
    for key, why in (("vm.swappiness", "not of a namespace"), ("net/../vm/not-there", "")):
        ran = oci.run("true", lambda spec, key=key: spec["linux"].update(sysctl={key: "1"}))
        assert ran.code == 1 and key in ran.err and why in ran.err, ran


def test_no_pivot(oci: Any) -> None:
    ran = oci.run("ls /; touch /made && rm /made && echo mine", None, "--no-pivot")
    assert "bin" in ran.out and ran.out.endswith("mine\n"), ran


def test_personality_and_rdt(oci: Any) -> None:
    setarch = shutil.which("setarch") or "true"
    known = subprocess.run([setarch, "i686", "uname", "-m"], capture_output=True, text=True, check=False).stdout
    if known == "i686\n":  # not on a kernel that runs as a program itself
        assert oci.run("uname -m", lambda spec: spec["linux"].update(personality={"domain": "LINUX32"})).out == "i686\n"
    if not Path("/sys/fs/resctrl/info").exists():
        ran = oci.run("true", lambda spec: spec["linux"].update(intelRdt={"closID": "x"}))
        assert ran.code == 1 and "linux.intelRdt" in ran.err
