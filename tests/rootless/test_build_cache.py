"""The build cache of an ordinary user: files of any owner in it are counted and removed, and it goes out and comes in."""

from __future__ import annotations

import os
import shutil

from .conftest import Somebody

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
RUN --mount=type=cache,id=things,target=/things \\
    cd /bin && ./busybox head -c 7000 /dev/zero >/things/a && ./busybox chown 33:44 /things/a && ./busybox chmod 700 /things
RUN /bin/busybox mkdir -m 700 /closed && echo a >/closed/a && /bin/busybox chown -R 33:33 /closed
"""


def context(somebody: Somebody, busybox: str) -> str:
    folder = f"{somebody.home}/context"
    os.makedirs(folder)
    shutil.copy(busybox, f"{folder}/busybox")
    with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
        file.write(DOCKERFILE)
    return folder


def kept(somebody: Somebody, folder: str) -> list[str]:
    return os.listdir(f"{somebody.home}/state/images/{folder}")


def test_it_is_counted_pruned_exported_and_imported(mapped: Somebody, busybox: str) -> None:
    folder, cache = context(mapped, busybox), f"{mapped.home}/cache"
    mapped("build", "--network", "none", "--cache-to", f"type=local,dest={cache}", "-t", "mine", folder)
    assert len(kept(mapped, "cachemounts")) == 1
    assert "Build cache  1      0       6.8 KiB     6.8 KiB" in mapped("system", "df")
    mapped("rmi", "mine")
    mapped("builder", "prune", "-af")
    assert kept(mapped, "cachemounts") == kept(mapped, "snapshots") == kept(mapped, "ingest") == kept(mapped, "cache") == []
    said = mapped("build", "--network", "none", "--cache-from", f"type=local,src={cache}", "-t", "mine", folder) + mapped.stderr
    assert said.count("CACHED") == 5 and kept(mapped, "cachemounts") == [], said
    assert mapped("run", "--rm", "--network", "none", "mine", "/bin/busybox", "stat", "-c", "%u:%g", "/closed/a") == "33:33\n"
