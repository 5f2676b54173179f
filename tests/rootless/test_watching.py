"""What a dashboard asks once a second, of an ordinary user."""

from __future__ import annotations

import json

from .conftest import Somebody

SCRIPT = """
import json, time
from pycontainers.engines.native import engine
from pycontainers.protocol import ContainerConfig

native = engine()
watch = native.watch()
info = native.start(native.create(ContainerConfig("host", ("sh", "-c", "echo said; sleep 60"), network="none", name="watched")).id)
seen, samples = [], []

def look(wanted):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        seen[:] = [found.status for found in watch.containers() if found.id == info.id]
        samples.extend(watch.samples(info.id))
        if seen == wanted:
            return True
        time.sleep(0.05)
    return False

def stirs():
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if watch.stirred():
            return True
        time.sleep(0.01)
    return False

told = [stirs(), look(["running"])]
end = time.monotonic() + 20
while (len(samples) < 4 or not watch.log(info.id).lines) and time.monotonic() < end:
    look(["running"])
told += [len(samples) >= 4, [line.text for line in watch.log(info.id).lines]]
native.stop(info.id, 0)
told += [stirs(), look(["exited"])]
native.remove(info.id)
told += [look([])]
print(json.dumps(told))
"""


def test_everything_that_happens_is_seen(somebody: Somebody) -> None:
    done = somebody.do(f"{somebody.base}/venv/bin/python", "-c", SCRIPT)
    assert done.returncode == 0 and json.loads(done.stdout) == [True, True, True, ["said"], True, True, True], done
