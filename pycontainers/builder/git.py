"""Repositories by the ``git`` program: one commit of one, without asking anybody for anything, and without running what is in it.

An address may come from a Dockerfile of somebody else: so only protocols that Docker takes too (no ``file``, ``ext`` or ``fd``, in
submodules neither), no configuration, hook or template of this machine, no key of this user but those of an agent that he names.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from ..linux import trees
from .addresses import SCHEME
from .sources import CopyError

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_REF = re.compile(r"[A-Za-z0-9_.@/][A-Za-z0-9_.@/+=%#-]*\Z")
_QUERIES = ("ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules")
_PASSED = ("PATH", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY",
           "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "TMPDIR")
_SAID = 4000  # bytes of git's complaint


@dataclass(frozen=True)
class Repository:
    """An address, taken apart. ``ref``: branch, tag or commit, "" for the one it is on; ``subdir``: of its tree."""

    remote: str
    name: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True


@dataclass(frozen=True)
class Clone:
    """``path``: the folder with the files; ``kept``: whether .git is in it."""

    path: str
    name: str
    commit: str
    subdir: str
    kept: bool


def parse(text: str) -> Repository:
    """``ADDRESS[?ref=…&subdir=…][#REF[:SUBDIR]]``. :raises CopyError: it makes no sense, or would be taken for an option."""
    address, _, fragment = text.partition("#")
    ref, _, subdir = fragment.partition(":")
    said: dict[str, str] = {}
    if SCHEME.match(address):
        url = urlsplit(address)
        for name, value in parse_qsl(url.query, keep_blank_values=True):
            if name not in _QUERIES or name in said:
                raise CopyError(f"{name!r} in the address of a repository is not known, or there twice", f"known: {', '.join(_QUERIES)}")
            said[name] = value
        address = urlunsplit((url.scheme.lower(), url.netloc, url.path, "", ""))
        host = url.hostname or ""
    else:
        host = address.partition("@")[2].partition(":")[0]
    if not host or host.startswith("-") or address.startswith("-") or any(not char.isprintable() or char.isspace() for char in address):
        raise CopyError(f"{_shown(address)} is not the address of a repository", "https://HOST/PATH.git")
    tag, branch = _full("refs/tags/", said.get("tag", "")), _full("refs/heads/", said.get("branch", ""))
    refs = {value for value in (ref, said.get("ref", ""), tag, branch) if value}
    subdirs = {value for value in (subdir, said.get("subdir", "")) if value}
    if len(refs) > 1 or len(subdirs) > 1:
        raise CopyError(f"{_shown(address)} names several: {', '.join(sorted(refs if len(refs) > 1 else subdirs))}", "name one")
    ref, subdir = "".join(refs), "".join(subdirs)
    checksum = said.get("checksum", "") or said.get("commit", "")
    ref = ref or (checksum if _COMMIT.match(checksum) else "")
    if ref and (not _REF.match(ref) or ".." in ref):
        raise CopyError(f"{ref[:100]!r} is not a branch, a tag or a commit", "for example #main, or #v1.2:docs")
    if ".." in subdir.split("/") or not subdir.isprintable():
        raise CopyError(f"{subdir[:100]!r} leads out of the repository", "name a folder in it")
    name = address.rstrip("/").rpartition("/")[2].rpartition(":")[2].removesuffix(".git")
    keep, submodules = _flag(said, "keep-git-dir", False), _flag(said, "submodules", True)
    return Repository(address, name or "repository", ref, subdir, checksum, keep, submodules)


def _full(prefix: str, name: str) -> str:
    return name if not name or name.startswith(prefix) else prefix + name


def _flag(said: dict[str, str], name: str, otherwise: bool) -> bool:
    value = said.get(name)
    if value is None:
        return otherwise
    if value.lower() not in ("", "1", "t", "true", "0", "f", "false"):
        raise CopyError(f"{name}={value[:40]} is neither true nor false", "")
    return value.lower() in ("", "1", "t", "true")


def clone(
    url: str, folder: str, *, checksum: str, keep_git_dir: bool, check: Callable[[], None], ssh: str = "", submodules: bool = True
) -> Clone:
    """One commit into ``folder``/NAME, with its submodules.

    :param checksum: the commit that it must be, or its beginning. :param ssh: an agent's socket.
    :param check: called all the time; it raises when nobody waits any more: then git ends.
    :raises CopyError: what git says, or that the commit is another one.
    """
    wanted = parse(url)
    if not shutil.which("git"):
        raise CopyError(f"{_shown(wanted.remote)} is a repository, and git is not installed here", "install git")
    path = f"{folder}/tree"
    os.mkdir(path, 0o755)
    kept = keep_git_dir or wanted.keep_git_dir
    with tempfile.TemporaryDirectory(prefix="pycontainers-git-") as home:
        git = _Git(path, home, wanted, check, ssh)
        git("init", "--quiet", "--template=", ".")
        git("remote", "add", "origin", wanted.remote)
        commit = git.fetch()
        for expected in filter(None, (checksum, wanted.checksum)):
            if not re.fullmatch("[0-9a-f]{7,64}", expected) or not commit.startswith(expected):
                hint = "it moved, or the checksum is of another"
                raise CopyError(f"{_shown(wanted.remote)} has commit {commit}, not {expected[:80]}", hint)
        git("checkout", "--quiet", "--force", "--detach", commit)
        if submodules and wanted.submodules and os.path.lexists(f"{path}/.gitmodules"):
            git("submodule", "--quiet", "update", "--init", "--recursive", "--force")
    if kept:
        git.forget_passwords()
    else:
        _without_git(path)
    return Clone(path, wanted.name, commit, wanted.subdir, kept and not wanted.subdir)


def _without_git(path: str) -> None:
    """Remove .git, and the files of that name that submodules have."""
    for folder, folders, files in os.walk(path):
        if ".git" in folders and folder == path:
            folders.remove(".git")
        if ".git" in files:
            os.unlink(f"{folder}/.git")
    trees.remove(f"{path}/.git")


class _Git:
    """Runs git in ``path``. ``home``: a private folder with the only configuration that it reads, submodules included."""

    def __init__(self, path: str, home: str, wanted: Repository, check: Callable[[], None], ssh: str) -> None:
        self.path, self.wanted, self.check = path, wanted, check
        settings = {
            "core": {"hooksPath": "/dev/null", "fsmonitor": "false", "autocrlf": "false", "askPass": ""}, "credential": {"helper": ""},
            "init": {"templateDir": ""}, "advice": {"detachedHead": "false"}, "gc": {"auto": "0"}, "maintenance": {"auto": "false"},
        }
        with open(f"{home}/config", "w", encoding="utf-8") as file:
            for section, values in settings.items():
                file.write(f"[{section}]\n" + "".join(f"\t{name} = {value}\n" for name, value in values.items()))
        # Host keys that this user knows count; new ones are taken, and forgotten. No key of his is offered but the agent's.
        known = f'"{home}/known_hosts" "{os.path.expanduser("~")}/.ssh/known_hosts"'
        options = {"BatchMode": "yes", "IdentityFile": "none", "IdentityAgent": ssh or "none", "StrictHostKeyChecking": "accept-new",
                   "UserKnownHostsFile": known, "PermitLocalCommand": "no"}
        words = shlex.join(word for name, value in options.items() for word in ("-o", f"{name}={value}"))
        self.environment = {name: os.environ[name] for name in _PASSED if name in os.environ} | {
            "HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": f"{home}/config", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C",
            "GIT_ALLOW_PROTOCOL": "https:http:ssh:git", "GIT_PROTOCOL_FROM_USER": "0", "GIT_SSH_COMMAND": f"ssh -F none {words}",
            "GIT_ASKPASS": "true", "GIT_LFS_SKIP_SMUDGE": "1",
        }

    def __call__(self, *arguments: str, may_fail: bool = False) -> str | None:
        """What git prints; None if it failed and may. :raises CopyError: it failed, with what it says."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                ["git", *arguments], cwd=self.path, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=said, start_new_session=True,
            )  # fmt: skip
            try:
                while True:
                    self.check()
                    try:
                        code = process.wait(0.05)
                        break
                    except subprocess.TimeoutExpired:
                        pass
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            out.seek(0)
            if not code:
                return out.read().decode("utf-8", "replace")
            if may_fail:
                return None
            said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID))
            words = said.read().decode("utf-8", "replace").replace(self.wanted.remote, _shown(self.wanted.remote))
            lines = [line.removeprefix("fatal: ").removeprefix("error: ").strip() for line in words.splitlines() if line.strip()]
            reason = "; ".join(line for line in lines if not line.startswith(("hint:", "remote: Enumerating")))[:500]
            shown = "".join(char if char.isprintable() else " " for char in reason)
            raise CopyError(f"{_shown(self.wanted.remote)}: {shown or 'git failed'}", "check the address, and that it is for everybody")

    def fetch(self) -> str:
        """Get what is wanted; the commit that it is."""
        wanted = self.wanted
        if _COMMIT.match(wanted.ref):
            found = wanted.ref
            if self("fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", found, may_fail=True) is None:
                self._all()  # a server need not give what no branch or tag names
        else:
            name, found = self._resolve(wanted.ref)
            if self("fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", name, may_fail=True) is None:
                self._all()  # plain files behind an http server cannot give a part
        commit = self("rev-parse", "--verify", "--quiet", "--end-of-options", f"{found}^{{commit}}", may_fail=True)
        if commit is None:
            raise CopyError(f"{_shown(wanted.remote)} has no commit {found}", "check its name")
        return commit.strip()

    def forget_passwords(self) -> None:
        """In .git, which becomes a part of the image: git writes addresses with what is secret in them, those of submodules too."""
        for folder, _, names in os.walk(f"{self.path}/.git"):
            if "config" not in names or "HEAD" not in names:
                continue
            config = f"{folder}/config"
            rows = self("config", "--file", config, "-z", "--get-regexp", r"^(remote|submodule)\..*url$", may_fail=True) or ""
            for name, _, address in (row.partition("\n") for row in rows.split("\0")):
                if address != (plain := _without_password(address)):
                    self("config", "--file", config, name, plain)

    def _all(self) -> None:
        self("fetch", "--quiet", "--", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")

    def _resolve(self, ref: str) -> tuple[str, str]:
        """(full name, object) of a branch or a tag; a branch comes first, as for git checkout."""
        listed = self("ls-remote", "--", "origin", *([ref, f"{ref}^{{}}"] if ref else ["HEAD"])) or ""
        rows = {name: found for found, _, name in (line.partition("\t") for line in listed.splitlines())}
        for name in ("HEAD",) if not ref else (f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref.removeprefix('refs/')}", ref):
            if name in rows:
                return name, rows.get(f"{name}^{{}}", rows[name])
        what = f"branch or tag {ref!r}" if ref else "HEAD"
        raise CopyError(f"{_shown(self.wanted.remote)} has no {what}", "check its name, or name a whole commit")


def _shown(address: str) -> str:
    """Without a password."""
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if separator else address


def _without_password(address: str) -> str:
    """The same for git's use: over ssh the user's name is needed, and no secret. Over http a name alone may be a token."""
    if not address.startswith("ssh://"):
        return _shown(address)
    host, slash, path = address.removeprefix("ssh://").partition("/")
    user, at, host = host.rpartition("@")
    return f"ssh://{user.partition(':')[0]}{at}{host}{slash}{path}"
