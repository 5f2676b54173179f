"""Options that cannot be: one line with the value, a hint, and nothing is left behind."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycontainers.commands.options import container_config
from pycontainers.engines.native import NativeEngine
from pycontainers.engines.validity import _may_raise
from pycontainers.errors import ContainersError, LimitError, UsageError

pytestmark = pytest.mark.root

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"cap_add": "NET_ADMINN"}, "--cap-add 'NET_ADMINN' is not a capability"),
    ({"cap_drop": "CAP_"}, "--cap-drop 'CAP_' is not a capability"),
    ({"security_opt": "seccomp=/no/such/file"}, "/no/such/file"),
    ({"security_opt": "nonsense"}, "--security-opt 'nonsense' is unknown"),
    ({"security_opt": "no-new-privileges=perhaps"}, "'perhaps' is neither true nor false"),
    ({"security_opt": "systempaths=all"}, "systempaths=all is unknown"),
    ({"security_opt": "seccomp="}, "has no value"),
    ({"security_opt": "label=x"}, "label=x is unknown"),
    ({"sysctls": {"kernel.panic": 1}}, "--sysctl kernel.panic"),
    ({"sysctls": {"kernel.hostname": "x"}}, "--sysctl kernel.hostname"),
    ({"sysctls": {"net.core.somaxconn": 1}, "network": "host"}, "--sysctl net.core.somaxconn and --network host contradict"),
    ({"sysctls": {"kernel.msgmax": 1}, "ipc": "host"}, "--sysctl kernel.msgmax and --ipc host contradict"),
    ({"sysctls": {"net/../kernel.panic": 1}}, "net/../kernel.panic"),
    ({"sysctls": {"fs.mqueue../../x": 1}}, "--sysctl fs.mqueue../../x"),
    ({"sysctls": ["net.core.somaxconn"], "network": "none"}, "--sysctl net.core.somaxconn has no value"),
    ({"devices": "/dev/nonesuch"}, "--device /dev/nonesuch: No such file"),
    ({"devices": "/etc/passwd"}, "--device /etc/passwd is not a device"),
    ({"devices": "/etc/skel"}, "is a folder without devices"),
    ({"device_cgroup_rules": "x 1:1 r"}, "--device-cgroup-rule"),
    ({"ulimits": "nofile=1:99999999999"}, "--ulimit nofile=1:99999999999: this machine allows"),
    ({"oom_score_adj": 1001}, "--oom-score-adj 1001 is out of range"),
    ({"shm_size": 0}, "--shm-size 0"),
    ({"hostname": "-x"}, "hostname '-x'"),
    ({"hostname": "a b"}, "hostname 'a b'"),
    ({"hostname": "x\n10.0.0.1 evil"}, "hostname"),
    ({"domainname": "x/y"}, "domainname 'x/y'"),
    ({"group_add": "70000"}, "--group-add 70000"),
    ({"stop_signal": "SIGNONE"}, "signal 'SIGNONE' is unknown"),
    ({"lifetime": "server"}, "--lifetime server"),
    ({"lifetime": "kernle"}, "--lifetime 'kernle' is unknown"),
    ({"dns": "nameserver"}, "--dns 'nameserver' is not an IP address"),
    ({"dns_search": "a\nb"}, "--dns-search"),
    ({"dns_option": "a b"}, "--dns-option 'a b'"),
    ({"publish_all": True, "network": "none"}, "--network none has no ports"),
    ({"add_host": "m:host-gateway", "network": "none"}, "host-gateway needs a network"),
    ({"volumes": "/etc:/x:shared"}, "do not reach this machine"),
    ({"userns": "hots"}, "--userns 'hots' is unknown"),
    ({"device_read_bps": "/dev/nonesuch:1mb"}, "--device-read-bps /dev/nonesuch"),
    ({"cpuset_mems": "77"}, "--cpuset-mems 77"),
    ({"memory_swappiness": 101}, "--memory-swappiness 101"),
    ({"cidfile": "/no/such/folder/id"}, "--cidfile /no/such/folder/id"),
    ({"cidfile": "/etc/passwd"}, "--cidfile /etc/passwd exists already"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_one_line_and_nothing_is_left(
    engine: NativeEngine, remains: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    before = remains()
    with pytest.raises(ContainersError) as caught:
        engine.create(container_config("host", "true", **options))
    assert message in caught.value.message and "\n" not in caught.value.message
    assert caught.value.exit_code == 125 and caught.value.hint
    assert remains() == before


def test_nothing_of_a_cidfile_is_left_when_the_name_is_taken(engine: NativeEngine, tmp_path: Path) -> None:
    engine.create(container_config("host", "true", name="taken"))
    with pytest.raises(ContainersError, match="taken"):
        engine.create(container_config("host", "true", name="taken", cidfile=str(tmp_path / "id")))
    assert not (tmp_path / "id").exists()


_TRY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pycontainers.engines import validity
from pycontainers.protocol import Ulimit
resource.setrlimit(resource.RLIMIT_NPROC, (100, 200))
for check in (lambda: validity._check_ulimit(Ulimit("nproc", 300, 300)), lambda: validity._check_oom_score(-1)):
    try:
        check()
        print("taken")
    except Exception as error:
        print(error.message)
"""


def test_a_limit_above_ours_takes_a_right() -> None:
    command = [sys.executable, "-c", _TRY, os.getcwd()]
    if _may_raise():
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "taken\ntaken\n"
    without = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", *command]
    said = subprocess.run(without, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == "--ulimit nproc=300:300: the hard limit here is 200, and raising it takes CAP_SYS_RESOURCE"
    assert said[1].startswith("--oom-score-adj -1 is below this process's own ")


def test_a_hard_limit_is_raised_where_we_may(engine: NativeEngine, run: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this machine's hard limit is none")
    if not _may_raise():
        pytest.skip("needs CAP_SYS_RESOURCE")
    out = run("sh", "-c", "grep msgqueue /proc/self/limits", ulimits=container_config("host", ulimits={"msgqueue": hard + 1}).ulimits)
    assert out.split()[3:5] == [str(hard + 1)] * 2 and soft <= hard


def test_wrong_limits_are_limit_errors() -> None:
    for options in ({"ulimits": "x=1"}, {"memory_swappiness": "x"}, {"cpu_quota": "x"}, {"device_read_bps": "x"}):
        with pytest.raises(LimitError):
            container_config("host", "true", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        container_config("host", "true", restart="x")
