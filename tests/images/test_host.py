"""``host`` as an image: what is there, what is not, and that programs run on it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pycontainers.errors import ImageError
from pycontainers.images import host
from pycontainers.images.host import Machine
from pycontainers.images.store import Layer, Store
from pycontainers.images.view import Rootfs, View

from .conftest import config, fill, overlay, seen

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the mask's whiteouts are device nodes: root, or a user namespace of its own"),
]
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"lib/{VERSION}/site-packages"

SECRETS = (
    "/home/u/.ssh/id_rsa",
    "/home/u/work/data.csv",
    "/home/u/.venv/pip.conf",
    "/home/u/.venv/.env",
    "/home/u/.venv/etc/jupyter/jupyter_server_config.json",
    "/home/u/.venv/share/jupyter/runtime/kernel-1.json",
    "/home/u/project/secrets.yaml",
    "/home/u/project/.git/config",
    "/home/u/project/data/people.csv",
    "/home/u/project/notebook.ipynb",
    "/root/.aws/credentials",
    "/root/.netrc",
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/machine-id",
    "/etc/fstab",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/environment",
    "/etc/npmrc",
    "/etc/gitconfig",
    "/etc/krb5.keytab",
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssl/private/key",
    "/etc/kubernetes/admin.conf",
    "/etc/docker/daemon.json",
    "/etc/cron.d/backup",
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d/private.conf",
    "/etc/profile.d/company.sh",
    "/etc/NetworkManager/system-connections/wifi",
    "/etc/skel/.netrc",
    "/opt/secret",
    "/opt/conda/.condarc",
    "/opt/conda/pip.conf",
    "/opt/other/config",
    "/srv/data",
    "/var/lib/mysql/table",
    "/var/log/auth.log",
    "/var/run/docker.sock",
    "/run/secrets/kubernetes.io/token",
    "/var/cache/debconf/passwords.dat",
    "/proc/1/environ",
    "/tmp/upload",
    "/usr/local/etc/service.conf",
    "/usr/.env",
)
KEPT = {
    "/etc/passwd": "",
    "/etc/nsswitch.conf": "passwd: files\n",
    "/etc/ssl/certs/ca.pem": "CERTIFICATE",
    "/etc/debian_version": "12",
    "/etc/profile": "if true; then\n  export API_TOKEN=SECRET\nfi\numask 022\n",
    "/etc/apt/sources.list": "deb https://user:SECRET@example.com/debian x main\ndeb https://SECRET@example.com/y y main\n",
    "/etc/apt/sources.list.d/a.sources": "Types: deb\nURIs: https://u:SECRET@example.com/debian\nSuites: x\n",
    "/etc/apt/apt.conf.d/proxy": 'Acquire::http::Proxy "http://u:SECRET/x@proxy:1";\nAPT::Install-Recommends "0";\n',
    "/etc/pip.conf": "[global]\nindex-url = https://u:SECRET@example.com/simple\npassword = SECRET\n",
    "/etc/ssl/certs/both.pem": "CERTIFICATE\n-----BEGIN PRIVATE KEY-----\nSECRET\n",
    "/usr/bin/bash": "#!",
    "/var/lib/dpkg/status": "Package: bash\n",
    "/home/u/.venv/pyvenv.cfg": "home = /usr/bin\n",
    "/home/u/.venv/bin/python": "#!",
    f"/home/u/.venv/{SITE}/numpy/core.py": "",
    "/home/u/project/pyvenv.cfg": "home = /usr/bin\n",
    "/home/u/project/bin/tool": "#!",
    "/opt/conda/bin/python": "#!",
    "/opt/conda/etc/conda/x": "1",
}
PASSWD = """root:$6$SECRET:0:0:SECRET admin:/root:/bin/bash
daemon:x:1:1:daemon SECRET:/usr/sbin:/usr/sbin/nologin
u:x:1000:1000:SECRET person:/home/u:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
+@nis:broken
"""


@pytest.fixture
def machine(disk: Path) -> Machine:
    """Another machine below a folder: a merged /usr, people, secrets in likely places."""
    root = f"{disk}/machine"
    fill(root, dict.fromkeys(SECRETS, "SECRET"))
    fill(root, {**KEPT})
    fill(root, {"/etc/passwd": PASSWD, "/etc/group": "root:x:0:u\nadm:x:4:u,SECRET\nu:x:1000:\nnogroup:x:65534:\n"})
    os.symlink("usr/bin", f"{root}/bin")
    os.symlink("/etc/ssl/private/key", f"{root}/etc/ssl/certs/link.pem")
    closed = Path(root, "etc/java-17-openjdk/management/jmxremote.password")
    closed.parent.mkdir(parents=True)
    closed.write_text("SECRET")
    closed.chmod(0o600)
    prefixes = ("/usr", "/home/u/.venv", "/home/u/project", "/opt/conda")
    return Machine(root, prefixes, ("/root", "/home/u"), (f"/home/u/.venv/{SITE}",))


def contents(view: View, path: str = "/") -> Iterator[tuple[str, str]]:
    """Every path that can be seen, with its content; links are followed, inside."""
    for name, (kind, _, _, content) in seen(view, path).items():
        yield name, str(content) if kind != "folder" else ""
        if kind == "link":
            try:
                yield name, view.read(name).decode()
            except (FileNotFoundError, ImageError):
                pass


def test_planted_secrets_do_not_exist_inside(store: Store, machine: Machine) -> None:
    found = host.base(store.root, machine)
    view = View(found.rootfs)
    everything = list(contents(view))
    assert len(everything) > 60
    assert [(name, text) for name, text in everything if "SECRET" in text] == []
    assert [path for path in SECRETS if view.lookup(path) is not None] == []
    assert "SECRET" not in repr(found.config)
    for path in set(KEPT) - {"/etc/ssl/certs/both.pem"}:
        assert view.lookup(path) is not None, path
    assert view.lookup("/etc/ssl/certs/both.pem") is None
    assert sorted(view.listdir("/home")) == ["u"] and view.listdir("/home/u") == [".venv", "project"]
    assert view.listdir("/opt") == ["conda"]


def test_the_kernel_shows_no_secret_either(store: Store, machine: Machine, disk: Path) -> None:
    rootfs = host.base(store.root, machine).rootfs
    tree = overlay(rootfs, disk, walk=["/"])["tree"]
    assert tree == seen(View(rootfs))
    assert not any("SECRET" in str(row) for row in tree.values())


def test_credentials_leave_and_the_file_stays_valid(store: Store, machine: Machine) -> None:
    view = View(host.base(store.root, machine).rootfs)
    assert view.read("/etc/apt/sources.list") == b"deb https://example.com/debian x main\ndeb https://example.com/y y main\n"
    assert view.read("/etc/apt/sources.list.d/a.sources") == b"Types: deb\nURIs: https://example.com/debian\nSuites: x\n"
    assert view.read("/etc/apt/apt.conf.d/proxy") == b'APT::Install-Recommends "0";\n'
    assert view.read("/etc/pip.conf") == b"[global]\nindex-url = https://example.com/simple\n"
    assert view.read("/etc/profile") == b"if true; then\n:\nfi\numask 022\n"


def test_accounts_are_the_system_s_alone(store: Store, machine: Machine) -> None:
    view = View(host.base(store.root, machine).rootfs)
    assert view.read("/etc/passwd").decode().splitlines() == [
        "root:x:0:0:root:/root:/bin/sh",
        "daemon:x:1:1::/usr/sbin:/usr/sbin/nologin",
        "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin",
    ]
    assert view.read("/etc/group").decode().splitlines() == ["root:x:0:", "adm:x:4:", "nogroup:x:65534:"]


def test_the_skeleton(store: Store, machine: Machine) -> None:
    view = View(host.base(store.root, machine).rootfs)
    for path, mode in (("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/root", 0o700), ("/proc", 0o555), ("/home/u", 0o755), ("/usr", 0o755)):
        node = view.lookup(path)
        assert node is not None and stat.S_IMODE(node.stat.st_mode) == mode and node.stat.st_uid == 0, path
    assert view.listdir("/root") == view.listdir("/proc") == view.listdir("/dev") == []
    assert view.resolve("/bin/bash") == "/usr/bin/bash" and view.resolve("/var/run") == "/run"


@pytest.mark.parametrize(
    ("prefix", "listed"),
    [
        ("/home/u", ["/home/u/bin", f"/home/u/lib/{VERSION}"]),  # a home itself
        ("/home", []),  # what holds homes
        ("/opt", ["/opt/bin"]),  # a folder that everything shares
        ("/home/u/.venv", ["/home/u/.venv"]),
        ("/usr/local", []),  # inside a listed folder
        ("/missing", []),
    ],
)
def test_listed_folders(disk: Path, prefix: str, listed: list[str]) -> None:
    root = f"{disk}/m"
    fill(root, {"/usr/local/bin/": "", "/opt/bin/": "", "/opt/secret/": "", "/home/u/bin/": "", f"/home/u/lib/{VERSION}/": ""})
    fill(root, {"/home/u/.venv/bin/": "", "/home/u/.ssh/": ""})
    assert host.listed(Machine(root, (prefix,), ("/home/u",))) == sorted(["/usr", *listed], key=lambda p: (p.count("/"), p))


def test_a_virtual_environment_that_is_a_home_keeps_its_mark(disk: Path, store: Store) -> None:
    root = f"{disk}/m"
    fill(root, {"/home/u/bin/python": "", f"/home/u/{SITE}/x.py": "", "/home/u/pyvenv.cfg": "home = /usr/bin\n", "/home/u/diary": "SECRET"})
    view = View(host.base(store.root, Machine(root, ("/home/u",), ("/home/u",))).rootfs)
    assert view.listdir("/home/u") == ["bin", "lib", "pyvenv.cfg"] and view.read("/home/u/pyvenv.cfg") == b"home = /usr/bin\n"


def test_links_to_the_interpreter_do_not_dangle(disk: Path) -> None:
    """uv's layout: venv/bin/python -> cpython-3.11/bin/python -> (cpython-3.11 -> cpython-3.11.9)."""
    fill(str(disk), {"/cpython-3.11.9/bin/python3.11": "", "/venv/bin/": ""})
    os.symlink("cpython-3.11.9", disk / "cpython-3.11")
    os.symlink("../../cpython-3.11/bin/python3.11", disk / "venv/bin/python")
    os.symlink("python", disk / "venv/bin/python3")
    found = [os.path.normpath(path) for path in host._link_prefixes(f"{disk}/venv/bin/python3")]
    assert found == [f"{disk}/venv", f"{disk}/venv", f"{disk}/cpython-3.11"]


CHANGES: dict[str, Callable[[str], object]] = {
    "package manager": lambda root: Path(root, "var/lib/dpkg/status").write_text("Package: bash\n\nPackage: zsh\n"),
    "python package": lambda root: os.mkdir(f"{root}/home/u/.venv/{SITE}/pandas-2.0.dist-info"),
    "a file of /etc, in place": lambda root: Path(root, "etc/apt/sources.list.d/a.sources").write_text("Types: deb-src\n"),
    "account": lambda root: Path(root, "etc/passwd").write_text(PASSWD + "redis:x:101:101::/var/lib/redis:/bin/false\n"),
    "a new dot file in a prefix": lambda root: Path(root, "opt/conda/.token").write_text("SECRET"),
    "a new file in a project's environment": lambda root: Path(root, "home/u/project/keys.json").write_text("SECRET"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_identity_follows_what_is_installed(store: Store, machine: Machine, change: str) -> None:
    before = host.base(store.root, machine)
    assert host.base(store.root, machine).identity == before.identity
    CHANGES[change](machine.root)
    after = host.base(store.root, machine)
    assert after.identity != before.identity
    assert not any("SECRET" in text for _, text in contents(View(after.rootfs)))
    assert host.rootfs(store.root, before.identity) == before.rootfs  # images on the earlier state stay usable


def test_identity_does_not_follow_what_is_outside(store: Store, machine: Machine) -> None:
    before = host.base(store.root, machine).identity
    for path in ("/home/u/work/new.csv", "/etc/hosts", "/var/log/syslog", "/opt/secret"):
        fill(machine.root, {path: "changed"})
    assert host.base(store.root, machine).identity == before


def test_a_store_inside_a_listed_folder_is_refused(machine: Machine) -> None:
    with pytest.raises(ImageError, match=r"lies inside /home/u/\.venv") as caught:
        host.base(f"{machine.root}/home/u/.venv/store/images", machine)
    assert "PYCONTAINERS_HOME" in caught.value.hint


def test_many_first_users_make_one_base(store: Store, machine: Machine) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(host.base(store.root, machine).identity)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1
    assert [name for name in os.listdir(f"{store.root}/host") if not name.startswith("current")] == [found[0]]
    assert os.listdir(store.ingest) == []


def test_prune_drops_bases_of_earlier_states(store: Store, machine: Machine) -> None:
    earlier = [host.base(store.root, machine).identity]
    for number in range(2):
        Path(machine.root, "var/lib/dpkg/status").write_text(f"{number}")
        earlier.append(host.base(store.root, machine).identity)
    used, unused, current = earlier
    store.tag(store.save_image(config(), [], used).id, "built")
    assert store.prune() == []  # young: a build may stand on it
    for identity in earlier:
        os.utime(f"{store.root}/host/{identity}", (0, 0))
    assert store.prune({f"host:{unused}"}) == []
    assert store.prune() == [f"Deleted host base: {unused}"]
    assert store.resolve("built").host == used and host.rootfs(store.root, current)


def test_three_layers_on_host_with_an_environment_in_a_home(store: Store, layer: Callable[..., Layer], disk: Path) -> None:
    """The whole of it on this very machine: real overlays, one per listed folder, the store on the root file system."""
    home = f"{disk}/home/u"
    venv = f"{home}/.venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    fill(venv, {f"/{SITE}/told.py": "WHAT = 'base'\n", f"/{SITE}/hidden.py": "", "/pip.conf": "SECRET", "/.env": "SECRET"})
    fill(home, {"/.ssh/id_rsa": "SECRET"})
    this = Machine.this()
    machine = Machine("", (venv, *this.prefixes), (home, *this.homes), this.sites)
    base = host.base(store.root, machine)
    assert base.config["config"]["Env"][0].startswith(f"PATH={venv}/bin:")

    made: list[Layer] = []
    for key, entries in {
        "first": {"/app/one": "1", f"{venv}/{SITE}/told.py": "WHAT = 'first'\n", "/usr/local/lib/first": "1"},
        "second": {"/app/two": "2", f"{venv}/{SITE}/hidden.py": None, "/usr/local/lib/second": "2"},
        "third": {"/app/one": None, "/app/three": "3", f"{venv}/{SITE}/told.py": "WHAT = 'third'\n"},
    }.items():
        made.append(layer(entries, made[-1].chain_id if made else f"host:{base.identity}"))
        store.remember(key, made[-1])
    assert [store.cached(key) for key in ("first", "second", "third")] == made

    rootfs = Rootfs((*base.rootfs.layers, *(one.path for one in made)), base.rootfs.folders, base.rootfs.base)
    program = "import sys, told; print(told.WHAT, sys.prefix); import importlib.util as u; print(u.find_spec('hidden'))"
    found = overlay(
        rootfs,
        disk,
        walk=["/app", home, "/usr/local/lib/first", "/usr/local/lib/second"],
        run=[[f"{venv}/bin/python", "-c", program], ["/bin/sh", "-c", f"echo new > {venv}/made; rm /app/two; echo 1 > /tmp/x"]],
    )
    assert found["ran"] == [[0, f"third {venv}\nNone\n"], [0, ""]]
    tree = found["tree"]
    assert tree["/app"][3] == ["three"] and tree["/app/three"][3] == "3"
    assert tree["/usr/local/lib/first"][3] == "1" and tree["/usr/local/lib/second"][3] == "2"
    assert f"{venv}/bin/activate" in tree and f"{venv}/{SITE}/hidden.py" not in tree
    assert tree[home][3] == [".venv"] and not {f"{venv}/pip.conf", f"{venv}/.env", f"{home}/.ssh"} & set(tree)

    uppers = {name: path for name, path in found["uppers"].items() if os.path.isdir(path)}
    tree_folder = store.new_layer()
    store.merge_uppers(uppers, tree_folder, rootfs)
    fourth = store.commit(tree_folder, made[-1].chain_id)
    above = View(Rootfs((*rootfs.layers, fourth.path), rootfs.folders, rootfs.base))
    assert above.read(f"{venv}/made") == b"new\n" and above.lookup("/app/two") is None
    node = above.lookup("/tmp")
    assert node is not None and stat.S_IMODE(node.stat.st_mode) == 0o1777


def test_this_machine_is_quick_and_has_python(store: Store) -> None:
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        found = store.resolve("host")
        times.append(time.perf_counter() - begun)
    assert min(times[1:]) < times[0] / 3, times  # made once: 40 ms, then 1 ms
    view = View(found.rootfs)
    for program in ("sh", os.path.basename(sys.executable)):
        places = found.config["config"]["Env"][0].removeprefix("PATH=").split(":")
        assert any(view.lookup(f"{place}/{program}", follow=True) for place in places), program
    assert view.lookup("/etc/shadow") is None and view.lookup("/etc/machine-id") is None
    assert found.id == f"host:{found.host}" and store.resolve("host:latest").id == found.id


_MAKE = """
import sys
from pathlib import Path
from pycontainers.images.store import Store
from pycontainers.paths import Paths
home = Path(sys.argv[1]).parent
store = Store(Paths(home, home))
print("ready", flush=True)
store.resolve("host")
"""


def test_killed_while_the_base_is_made(store: Store) -> None:
    """A reader sees a whole base or none, and the next use makes it and clears up."""
    left = 0
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02):
        child = subprocess.Popen([sys.executable, "-c", _MAKE, store.root], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        end = time.monotonic() + 20
        while not os.listdir(store.ingest) and child.poll() is None and time.monotonic() < end:
            pass  # until it is at work
        time.sleep(delay)
        child.kill()
        child.wait()
        child.stdout.close()
        left += len(os.listdir(store.ingest))
        for name in os.listdir(f"{store.root}/host"):
            if not name.startswith("current"):
                assert sorted(os.listdir(f"{store.root}/host/{name}")) == ["base.json", "mask", "skeleton"]
                assert os.path.exists(f"{store.root}/host/{name}/skeleton/etc/passwd")
    assert left, "no child was killed at work"
    found = store.resolve("host")
    assert View(found.rootfs).read("/etc/passwd").startswith(b"root:x:0:0:")
    store.new_layer()
    assert len(os.listdir(store.ingest)) == 1
