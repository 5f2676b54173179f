"""Runs under ``unshare --mount``: puts a root file system together from real overlays, as the runtime does, and says what is there.

stdin: JSON ``{"layers", "folders", "base", "work": empty folder, "resolve": [paths], "run": [[argv], …]}``.
stdout: JSON ``{"tree": {path: [kind, mode, uid, content or target or names]}, "real": {path: realpath}, "ran": [[code, output], …],
"uppers": {folder: upper}}``. ``tree`` only has what lies in the folders of ``walk``.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    asked = json.load(sys.stdin)
    work, target = asked["work"], asked["work"] + "/root"
    uppers = {}
    for index, folder in enumerate(asked["folders"]):
        inside = "" if folder == "/" else folder
        lower = [layer + inside for layer in reversed(asked["layers"]) if os.path.isdir(layer + inside)]
        lower += [asked["base"][folder]] if folder in asked["base"] else []
        names = [f"{work}/{kind}{index}" for kind in ("upper", "work")]
        for name in (*names, target):
            os.makedirs(name, exist_ok=True)
        found = os.stat(lower[0])
        os.chmod(names[0], stat.S_IMODE(found.st_mode))
        os.chown(names[0], found.st_uid, found.st_gid)
        uppers[folder] = names[0]
        options = f"lowerdir={':'.join(lower)},upperdir={names[0]},workdir={names[1]},redirect_dir=off,metacopy=off,index=off"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, target + inside], check=True)
    ran = []
    for argv in asked.get("run", []):
        done = subprocess.run(["chroot", target, *argv], capture_output=True, text=True, check=False, env={"PATH": PATH})
        ran.append([done.returncode, done.stdout + done.stderr])
    os.chroot(target)
    tree = {}
    for folder in asked.get("walk", []):
        walk(folder, tree)
    real = {path: os.path.realpath(path) for path in asked.get("resolve", [])}
    print(json.dumps({"tree": tree, "real": real, "ran": ran, "uppers": uppers}))


def walk(path: str, tree: dict[str, list]) -> None:
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode):
        # In a folder that only one layer has, the kernel lists a whiteout's name and then says that there is no such file.
        names = sorted(name for name in os.listdir(path) if os.path.lexists(f"{path.rstrip('/')}/{name}"))
        tree[path] = ["folder", stat.S_IMODE(found.st_mode), found.st_uid, names]
        for name in names:
            walk(f"{path.rstrip('/')}/{name}", tree)
    elif stat.S_ISLNK(found.st_mode):
        tree[path] = ["link", 0, found.st_uid, os.readlink(path)]
    elif stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            tree[path] = ["file", stat.S_IMODE(found.st_mode), found.st_uid, file.read(1000).decode("latin-1")]
    else:
        tree[path] = ["other", found.st_mode, found.st_uid, str(found.st_rdev)]


if __name__ == "__main__":
    main()
