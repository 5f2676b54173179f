"""Words of the smaller options, good and bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycontainers.commands.attachments import exposed_list, parse_mount, parse_volume, tmpfs_list
from pycontainers.commands.declare import find, parse
from pycontainers.commands.limits import resources_of
from pycontainers.commands.options import container_config
from pycontainers.commands.run import config_of
from pycontainers.commands.settings import (
    device_list,
    health_check,
    host_list,
    label_files,
    parse_device,
    parse_ulimit,
    restart_policy,
    seconds,
    ulimit_list,
)
from pycontainers.errors import UsageError
from pycontainers.protocol import ContainerConfig, Device, HealthCheck, Mount, Resources, RestartPolicy, Ulimit


def config(*words: str) -> ContainerConfig:
    """A whole command line, through the declaration."""
    return config_of(parse(find("create"), [*words, "host", "true"]))


def test_a_long_command_line_means_what_docker_means() -> None:
    found = config(
        *"-it --init --rm --read-only --shm-size 16m --ulimit nofile=10:20 --ulimit core=-1 --sysctl net.core.somaxconn=9".split(),
        *"--cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges -u 1:2 --group-add audio --domainname d".split(),
        *"--device /dev/fuse --device-cgroup-rule".split(), "c 1:* r",
        *"--oom-score-adj -5 --cpuset-mems 0 --cpu-period 50000 --cpu-quota 25000 --memory-swappiness 0 --oom-kill-disable".split(),
        *"--device-read-bps /dev/vda:1mb --device-write-iops /dev/vda:7 --stop-signal HUP --stop-timeout 3 --privileged".split(),
        *"--pid host --ipc none --uts host --cgroupns host --userns host --network container:web --annotation a=b".split(),
        *"--health-cmd check --health-interval 1m30s --health-retries 2 --add-host db:10.0.0.5 --dns 9.9.9.9 --dns-search x.org".split(),
        *"--dns-option ndots:2 --expose 80 --expose 53/udp -P --cidfile /c --lifetime kernel".split(),
    )  # fmt: skip
    assert found.tty and found.stdin_open and found.init and found.auto_remove and found.read_only and found.privileged
    assert found.shm_size == 16 << 20
    assert found.ulimits == (Ulimit("nofile", 10, 20), Ulimit("core", -1, -1))
    assert found.sysctls == {"net.core.somaxconn": "9"}
    assert (found.cap_add, found.cap_drop, found.security_opt) == (("NET_ADMIN",), ("ALL",), ("no-new-privileges",))
    assert (found.user, found.group_add, found.domainname) == ("1:2", ("audio",), "d")
    assert found.devices == (Device("/dev/fuse", "/dev/fuse"),) and found.device_cgroup_rules == ("c 1:* r",)
    assert found.oom_score_adj == -5 and (found.stop_signal, found.stop_timeout) == ("HUP", 3.0)
    assert found.resources == Resources(
        cpuset_mems="0", cpu_period=50000, cpu_quota=25000, memory_swappiness=0, oom_kill_disable=True,
        device_read_bps=(("/dev/vda", 1 << 20),), device_write_iops=(("/dev/vda", 7),),
    )  # fmt: skip
    assert (found.pid, found.ipc, found.uts, found.cgroupns, found.userns) == ("host", "none", "host", "host", "host")
    assert (found.network, found.annotations) == ("container:web", {"a": "b"})
    assert found.health == HealthCheck(("CMD-SHELL", "check"), interval=90.0, timeout=0.0, retries=2, start_interval=0.0)
    assert (found.extra_hosts, found.dns, found.dns_search, found.dns_options) == (("db:10.0.0.5",), ("9.9.9.9",), ("x.org",), ("ndots:2",))
    assert (found.expose, found.publish_all, found.cidfile, found.lifetime) == (("80/tcp", "53/udp"), True, "/c", "kernel")


def test_nothing_asked_is_the_plain_configuration() -> None:
    assert config() == ContainerConfig("host", ("true",))
    assert container_config("host", "true") == ContainerConfig("host", ("true",))


def test_python_values_stand_for_the_same_words() -> None:
    words = config(*"--ulimit nofile=1:2 --sysctl a.b=1 --restart on-failure:3 --stop-timeout 1m --device-read-bps /dev/a:5".split())
    assert words == container_config(
        "host", ["true"], ulimits={"nofile": (1, 2)}, sysctls={"a.b": 1}, restart=RestartPolicy("on-failure", 3), stop_timeout=60.0,
        device_read_bps={"/dev/a": 5},
    )  # fmt: skip
    assert container_config("host", cap_add="NET_ADMIN", dns="9.9.9.9").cap_add == ("NET_ADMIN",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("2", 2), ("0", 0), ("1us", 1e-6), (".5s", 0.5)],
)
def test_lengths_of_time(text: str, expected: float) -> None:
    assert seconds(text, "--x") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "x", "-1s", "1 s", "1d", "s", "1s2", "nan", "inf", "1e12"])
def test_wrong_lengths_of_time(text: str) -> None:
    with pytest.raises(UsageError, match="--x"):
        seconds(text, "--x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1024", Ulimit("nofile", 1024, 1024)),
        ("nofile=1024:2048", Ulimit("nofile", 1024, 2048)),
        ("memlock=-1:-1", Ulimit("memlock", -1, -1)),
        ("core=0:-1", Ulimit("core", 0, -1)),
    ],
)
def test_ulimits(text: str, expected: Ulimit) -> None:
    assert parse_ulimit(text) == expected


def test_the_last_ulimit_of_a_name_counts() -> None:
    assert ulimit_list(["nofile=1", "core=1", "nofile=2"]) == (Ulimit("nofile", 2, 2), Ulimit("core", 1, 1))


@pytest.mark.parametrize(
    "text", ["", "nofile", "nofile=", "nofile=1:2:3", "nofile=a", "files=1", "nofile=3:2", "nofile=-1:5", "nofile=-2", "=1"]
)
def test_wrong_ulimits(text: str) -> None:
    with pytest.raises(UsageError, match="--ulimit"):
        parse_ulimit(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/a", Device("/dev/a", "/dev/a", "rwm")),
        ("/dev/a:/dev/b", Device("/dev/a", "/dev/b", "rwm")),
        ("/dev/a:r", Device("/dev/a", "/dev/a", "r")),
        ("/dev/a:/dev/b:mw", Device("/dev/a", "/dev/b", "mw")),
        ("/dev/snd/:/dev/x/", Device("/dev/snd", "/dev/x", "rwm")),
    ],
)
def test_devices(text: str, expected: Device) -> None:
    assert parse_device(text) == expected
    assert device_list([expected, text]) == (expected, expected)


@pytest.mark.parametrize("text", ["", "a", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/b:/c", "/dev/a:/b:rr", "/dev/a:/", "/dev/a:/b:r:w"])
def test_wrong_devices(text: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        parse_device(text)


def test_restart_policies() -> None:
    assert restart_policy(None) == restart_policy("no") == RestartPolicy()
    assert restart_policy("on-failure") == RestartPolicy("on-failure")
    assert restart_policy("on-failure:5") == RestartPolicy("on-failure", 5)
    assert restart_policy("always").name == "always"
    for wrong in ("sometimes", "always:3", "on-failure:x", "on-failure:-1", "on-failure:"):
        with pytest.raises(UsageError, match="--restart"):
            restart_policy(wrong)
    with pytest.raises(UsageError, match="--rm"):
        container_config("host", restart="always", rm=True)
    assert container_config("host", restart="no", rm=True).auto_remove


def test_health_checks() -> None:
    assert health_check({}) is None
    assert health_check({"no_healthcheck": True}) == HealthCheck(("NONE",))
    assert health_check({"health_cmd": ["a", "b"]}) == HealthCheck(("CMD", "a", "b"), 0, 0, 0, 0, 0)
    assert health_check({"health_timeout": "2s"}) == HealthCheck((), 0, 2, 0, 0, 0), "the image's own command with another timeout"
    contradiction: dict[str, Any] = {"no_healthcheck": True, "health_cmd": "x"}
    for wrong in ({"health_interval": "1us"}, {"health_interval": "x"}, {"health_retries": "-1"}, contradiction):
        with pytest.raises(UsageError):
            health_check(wrong)


def test_hosts() -> None:
    assert host_list(["a:1.2.3.4", "b=::1", "c:[::1]", "d:host-gateway"]) == ("a:1.2.3.4", "b:::1", "c:::1", "d:host-gateway")
    assert host_list({"a": "1.2.3.4"}) == ("a:1.2.3.4",)
    for wrong in ("a", "a:", "a:b", ":1.2.3.4", "a b:1.2.3.4", "a:1.2.3.4\nb:1.1.1.1"):
        with pytest.raises(UsageError, match="--add-host"):
            host_list([wrong])


def test_label_files(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("# no\n\na=1\n  b=x=y\nc\n")
    assert label_files(str(file)) == ["a=1", "b=x=y", "c"]
    assert container_config("host", label_file=str(file), labels=["a=2"]).labels == {"a": "2", "b": "x=y", "c": ""}
    with pytest.raises(UsageError, match="No such file"):
        label_files(str(tmp_path / "missing"))


def test_exposed_ports() -> None:
    assert exposed_list([80, "81-82", "53/udp", "80"]) == ("80/tcp", "81/tcp", "82/tcp", "53/udp")
    for wrong in ("x", "80/sctp", "0", "9-8"):
        with pytest.raises(UsageError):
            exposed_list(wrong)


@pytest.mark.parametrize(
    ("text", "options", "read_only"),
    [
        ("/a:/b:ro,rslave", ("rslave",), True),
        ("/a:/b:z", ("z",), False),
        ("/a:/b:cached,rw", (), False),
        ("/a:/b:rprivate", (), False),
        ("/a:/b:shared", ("shared",), False),
    ],
)
def test_modes_of_a_volume(text: str, options: tuple[str, ...], read_only: bool) -> None:
    assert parse_volume(text) == Mount("bind", "/b", "/a", read_only, True, options)


@pytest.mark.parametrize("text", ["/a:/b:z,Z", "/a:/b:rslave,shared", "/a:/b:ro,rw", "/a:/b:nonsense", "/a:/b:ro:rw"])
def test_wrong_modes_of_a_volume(text: str) -> None:
    with pytest.raises(UsageError, match="volume"):
        parse_volume(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,src=/a,dst=/b,bind-propagation=rslave", Mount("bind", "/b", "/a", options=("rslave",))),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", Mount("bind", "/b", "/a", options=("bind",))),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive", Mount("bind", "/b", "/a", options=("bind",))),
        ("type=bind,src=/a,dst=/b,ro,bind-recursive=writable", Mount("bind", "/b", "/a", True, options=("writable",))),
        ("type=bind,src=/a,dst=/b,readonly=true,bind-recursive=readonly", Mount("bind", "/b", "/a", True)),
        ("type=bind,src=/a,dst=/b,readonly=false,consistency=cached", Mount("bind", "/b", "/a")),
        ('type=bind,"src=/a,b",dst=/b', Mount("bind", "/b", "/a,b")),
    ],
)
def test_options_of_a_mount(text: str, expected: Mount) -> None:
    assert parse_mount(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,src=/a,dst=/b,bind-propagation=sideways",
        "type=bind,src=/a,dst=/b,bind-recursive=maybe",
        "type=bind,src=/a,dst=/b,bind-recursive=readonly",
        "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=rslave",
        "type=tmpfs,dst=/b,bind-propagation=rslave",
        "type=bind,src=/a,dst=/b,readonly=perhaps",
        "type=bind,src=/a,dst=/b,volume-nocopy",
        "type=bind,src=,dst=/b",
        "src=/a,dst=/b",
        "",
    ],
)
def test_wrong_options_of_a_mount(text: str) -> None:
    with pytest.raises(UsageError, match="mount"):
        parse_mount(text)


def test_options_of_a_tmpfs() -> None:
    options = ("exec", f"size={1 << 20}", "uid=5", "nr_inodes=3")
    assert tmpfs_list("/x:exec,size=1m,uid=5,nr_inodes=3") == (Mount("tmpfs", "/x", options=options),)
    assert tmpfs_list("/x:size=50%")[0].options == ("size=50%",)
    for wrong in ("/x:bogus", "/x:uid=", "x", "/x:mode=9"):
        with pytest.raises(UsageError):
            tmpfs_list([wrong])


def test_limits_of_update_are_those_of_run() -> None:
    assert resources_of({"memory": "64m", "name": "x", "oom_kill_disable": False}) == Resources(memory=64 << 20)


@given(st.text(alphabet="nofile=:-0123456789core", max_size=20))
def test_any_ulimit_is_read_or_refused(text: str) -> None:
    try:
        found = parse_ulimit(text)
    except UsageError as error:
        assert "\n" not in error.message
    else:
        assert found.hard == -1 or 0 <= found.soft <= found.hard


@given(st.text(alphabet="/dev:arwm.", max_size=20))
def test_any_device_is_read_or_refused(text: str) -> None:
    try:
        found = parse_device(text)
    except UsageError:
        return
    assert found.source.startswith("/") and found.target.startswith("/") and set(found.permissions) <= set("rwm")


def test_every_switch_may_be_told() -> None:
    assert not config("--init=false", "--tty=false", "--privileged=false").init
