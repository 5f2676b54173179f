"""Words to :class:`BuildRequest`: what ``%container build``, the program and ``pc.build`` share.

Names and forms are those of ``docker build``. Whatever names a file is made absolute here: the build may run in a process that
stands elsewhere.
"""

from __future__ import annotations

import csv
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack, cast

from ..errors import NotFound, UsageError, near
from ..linux.cgroups.limits import parse_size
from ..protocol import BuildRequest, Ulimit
from .build_kinds import checked, encoded, sound
from .file_sets import inline_path
from .options import Pairs, Words, pairs
from .settings import host_list, several, ulimit_list

_NETWORKS = ("default", "bridge", "none", "host")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")
_REMOTE = re.compile(r"(docker-image|oci-layout|https?|git|ssh)://|git@", re.IGNORECASE)
_SECRET_LIMIT = 500 << 10  # bytes: BuildKit's bound of one secret
_VARIABLE = (str, int, float, os.PathLike)

Content = str | bytes
Variables = Mapping[str, Any]
"""The variables of a notebook, by which arguments and secrets may be given by name."""


class BuildOptions(TypedDict, total=False):
    """The options of ``pc.build``. Names and meanings are those of ``docker build``.

    :param context: the folder that COPY reads; "" is none at all. ``files``: path -> content, laid over it.
    :param contexts: name -> a folder, an image (``docker-image://NAME``), ``oci-layout://FOLDER`` or a git or http(s) address.
    :param secrets: id -> content (a path object: that file's), or ``id=NAME,src=FILE`` words.
    :param ssh: ``default``, or id -> the socket of an agent.
    :param parallel: how many steps run at a time.
    """

    context: str | os.PathLike[str] | None
    files: Mapping[str, Content] | None
    contexts: Pairs
    build_args: Pairs
    labels: Pairs
    target: str | None
    no_cache: bool
    no_cache_filter: Words
    pull: bool
    platform: str | None
    network: str | None
    secrets: Words | Mapping[str, Content | os.PathLike[str]]
    ssh: Words | Mapping[str, str]
    cache_from: Words
    cache_to: Words
    add_host: Words | Mapping[str, str]
    shm_size: str | int | None
    ulimits: Iterable[str | Ulimit] | Mapping[str, Any] | str | None
    explain: bool
    host_certificates: bool
    parallel: str | int | None


def build_request(
    dockerfile: str | os.PathLike[str] | None = None,
    tags: Sequence[str] = (),
    variables: Variables | None = None,
    **options: Unpack[BuildOptions],
) -> BuildRequest:
    """What ``build`` takes. What is None was not given.

    :param dockerfile: its text (with a newline in it), its path or its folder's; None: ``Dockerfile`` among ``files``, or in the context.
    :raises UsageError: the first value that cannot be read. :raises NotFound: a file or folder that is not there.
    """
    known = BuildOptions.__annotations__
    for word in options:
        if word not in known:
            raise UsageError(f"there is no option {word!r}", near(word, known) or "see: help(pycontainers.build)")
    dockerfile, tags = checked("dockerfile", dockerfile), several(checked("tag", tags))
    options = cast(BuildOptions, {word: checked(word, value) for word, value in options.items()})
    files = file_contents(options.get("files"))
    context = options.get("context")
    text, folder, path = _dockerfile(dockerfile, context, files)
    named = {} if variables is None else variables
    arguments = build_arguments(options.get("build_args"), named)
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        arguments.setdefault("SOURCE_DATE_EPOCH", epoch)  # docker build passes it on, too
    labels = pairs(options.get("labels"), "label")
    sound(arguments, "build-arg")
    sound(labels, "label")
    return BuildRequest(
        dockerfile=text,
        context=context_folder(folder if context is None else context),
        tags=tags,
        build_args=arguments,
        labels=labels,
        target=options.get("target") or "",
        no_cache=bool(options.get("no_cache")),
        network=_network(options.get("network")),
        pull=bool(options.get("pull")),
        dockerfile_path=path,
        files=files,
        contexts=named_contexts(options.get("contexts")),
        secrets=secret_contents(options.get("secrets"), named),
        ssh=ssh_agents(options.get("ssh")),
        platform=_platform(options.get("platform")),
        no_cache_filter=tuple(name.lower() for text in several(options.get("no_cache_filter")) for name in text.split(",") if name),
        cache_from=tuple(_cache(text, "--cache-from", "src") for text in several(options.get("cache_from"))),
        cache_to=tuple(_cache(text, "--cache-to", "dest") for text in several(options.get("cache_to"))),
        explain=bool(options.get("explain")),
        epoch=_epoch(arguments.get("SOURCE_DATE_EPOCH", "")),
        parallel=_parallel(options.get("parallel")),
        host_certificates=bool(options.get("host_certificates")),
        extra_hosts=host_list(options.get("add_host")),
        shm_size=_shm_size(options.get("shm_size")),
        ulimits=ulimit_list(options.get("ulimits")),
    )


# -- the Dockerfile and the contexts


def _dockerfile(
    given: str | os.PathLike[str] | None, context: str | os.PathLike[str] | None, files: Mapping[str, bytes]
) -> tuple[str, str, str]:
    """(text, the folder it lies in, its path: "" where it is no file of this machine)."""
    if given is None:
        if "Dockerfile" in files:
            return files["Dockerfile"].decode("utf-8", "surrogateescape"), ".", ""
        if context is None or not os.fspath(context):
            raise UsageError("build needs a Dockerfile", "its text, its path, or the folder that holds one")
        given = context
    text = os.fspath(given)
    if "\n" in text:
        return text, ".", ""
    folder, text, path = read_dockerfile(text)
    return text, folder, path


def read_dockerfile(path: str) -> tuple[str, str, str]:
    """``(folder, text, absolute path)`` of a Dockerfile given by its path or by the folder that holds one. :raises NotFound: none there."""
    try:
        path = os.path.expanduser(path)
        if os.path.isdir(path):
            path = os.path.join(path, "Dockerfile")
        with open(path, "rb") as file:
            return os.path.dirname(path) or ".", file.read().decode("utf-8", "surrogateescape"), os.path.abspath(path)
    except (OSError, ValueError) as error:
        raise NotFound(f"Dockerfile {path!r}: {_reason(error)}", "give its text, its path, or its folder") from None


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "no path of this machine is like that"


def context_folder(context: str | os.PathLike[str]) -> str:
    """The absolute path of a context folder, "" for none. :raises NotFound: it is none."""
    text = os.fspath(context)
    if not text:
        return ""
    folder = os.path.abspath(os.path.expanduser(text))
    if not os.path.isdir(folder):
        hint = f"a repository or archive is a named context: --build-context src={text}, and COPY --from=src" if _REMOTE.match(text) else ""
        raise NotFound(f"build context {text} is not a folder", hint or "--context FOLDER, the folder that COPY reads")
    return folder


def named_contexts(values: Pairs) -> dict[str, str]:
    """``NAME=VALUE``; folders become absolute. :raises UsageError: no such form. :raises NotFound: no such folder."""
    found = {}
    given = values if isinstance(values, Mapping) else dict(_pair(text, "--build-context", "NAME=FOLDER") for text in several(values))
    for name, value in given.items():
        text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        if not name or not text:
            raise UsageError(f"--build-context {f'{name}={text}'!r} is not NAME=FOLDER", "for example --build-context src=./lib")
        scheme, mark, rest = text.partition("://")
        if mark and scheme == "oci-layout":
            text = f"{scheme}://{os.path.abspath(os.path.expanduser(rest))}"
        elif not _REMOTE.match(text):
            folder = os.path.abspath(os.path.expanduser(text))
            if not os.path.isdir(folder):
                raise NotFound(
                    f"--build-context {name}={text}: there is no such folder",
                    f"a folder, docker-image://{text or 'NAME'}, oci-layout://FOLDER, or a git or http(s) address",
                )
            text = folder
        found[str(name)] = text
    return found


def file_contents(files: Mapping[str, Content] | None) -> dict[str, bytes]:
    """Inline files by their path below the context. :raises UsageError: a path that leads out of it, or through another file."""
    found: dict[str, bytes] = {}
    for name, content in (files or {}).items():
        if not isinstance(content, str | bytes):
            raise UsageError(f"inline file {name!r} is a {type(content).__name__}", "its content, as text or bytes")
        if "\0" in name:
            raise UsageError(f"inline file {name!r} has a NUL character", "remove it")
        encoded(name, f"the name of inline file {name!r}", "rename it")
        data = encoded(content, f"inline file {name!r}", "give bytes") if isinstance(content, str) else content
        found[inline_path(name)] = data
    for path in found:
        folder = posixpath.dirname(path)
        while folder:
            if folder in found:
                raise UsageError(f"inline file {path!r} lies in {folder!r}, which is a file", "rename one of them")
            folder = posixpath.dirname(folder)
    return found


# -- arguments, secrets, agents


def build_arguments(values: Pairs, variables: Variables | None = None) -> dict[str, str]:
    """``K=V``; or ``K`` alone for the notebook's variable of this name, else this process's own (Docker: left out where it is not set)."""
    if isinstance(values, Mapping):
        return pairs(values, "build-arg")
    known: dict[str, str] = {}
    for item in several(values):
        if "=" in item:
            known.update(pairs([item], "build-arg"))
        elif (value := _named(item, variables or {}, "--build-arg")) is not None:
            known[item] = value
    return known


def _named(name: str, variables: Variables, option: str) -> str | None:
    """The notebook's variable ``name``, where that is text, a number or a path; else the environment's; None where neither is."""
    if isinstance(value := variables.get(name), _VARIABLE):
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if name in os.environ:
        return os.environ[name]
    if value is not None:
        raise UsageError(f"{option} {name}: the variable {name} is a {type(value).__name__}", "text, a number or a path")
    return None


def secret_contents(values: Words | Mapping[str, Content | os.PathLike[str]], variables: Variables | None = None) -> dict[str, bytes]:
    """Secrets by id, read now: a file that changes while the build runs must not be half of one. :raises UsageError: what is missing."""
    found = {}
    if isinstance(values, Mapping):
        for name, value in values.items():
            if isinstance(value, os.PathLike):
                data = _secret_file(os.fspath(value), name)
            else:
                data = _secret_text(value, name) if isinstance(value, str) else value
            found[str(name)] = _bounded(data, str(name))
        return found
    for text in several(values):
        name, data = _secret(text, variables or {})
        found[name] = _bounded(data, name)
    return found


def _secret(text: str, variables: Variables) -> tuple[str, bytes]:
    """``id=NAME[,src=FILE][,env=NAME][,type=file|env]``; the id alone names a variable, or else a file (as with BuildKit)."""
    hint = "--secret id=NAME,src=FILE, or --secret id=NAME,env=VARIABLE"
    given = fields(text, "--secret", ("id", "src", "source", "env", "type"), hint)
    name, source = given.get("id", ""), given.get("src", given.get("source", ""))
    variable = given.get("env", "")
    if not name:
        raise UsageError(f"--secret {text!r} has no id", hint)
    if given.get("type", "file") not in ("file", "env"):
        raise UsageError(f"--secret {text!r}: type {given['type']!r} is neither file nor env", hint)
    if source and variable:
        raise UsageError(f"--secret {text!r} has both a file and a variable", hint)
    if given.get("type") == "env" and not variable:
        variable, source = source or name, ""
    if not source and not variable:
        if (value := _named(name, variables, "--secret")) is not None:
            return name, _secret_text(value, name)
        source = name
    if variable:
        value = _named(variable, variables, "--secret")
        if value is None:
            raise UsageError(f"--secret {text!r}: there is no variable {variable}", f"set it in the environment, or {hint}")
        return name, _secret_text(value, name)
    return name, _secret_file(source, name)


def _secret_text(text: str, name: str) -> bytes:
    return encoded(text, f"--secret id={name}", "give bytes, or a file")


def _secret_file(path: str, name: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(_SECRET_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"--secret id={name}: {path!r}: {_reason(error)}", "--secret id=NAME,src=FILE, or env=VARIABLE") from None


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > _SECRET_LIMIT:
        raise UsageError(f"--secret id={name} has more than {_SECRET_LIMIT >> 10} KiB", "a secret is a word or a key, not data")
    return data


def ssh_agents(values: Words | Mapping[str, str]) -> dict[str, str]:
    """``default`` (the agent of ``$SSH_AUTH_SOCK``) or ``ID=SOCKET``. Keys stay with the agent: a key's file is refused."""
    given = [f"{name}={path}" for name, path in values.items()] if isinstance(values, Mapping) else several(values)
    found = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            path = os.environ.get("SSH_AUTH_SOCK", "")
            if not path:
                raise UsageError(f"--ssh {text}: no agent is there, SSH_AUTH_SOCK is not set", "eval $(ssh-agent), and ssh-add KEY")
        path = os.path.abspath(os.path.expanduser(path))
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            hint = "the socket of an agent, or default for SSH_AUTH_SOCK"
            raise UsageError(f"--ssh {text!r}: {path!r}: {_reason(error)}", hint) from None
        if not stat.S_ISSOCK(mode):
            raise UsageError(f"--ssh {text}: {path} is not the socket of an agent", f"ssh-add {path}, and then --ssh {name or 'default'}")
        found[name or "default"] = path
    return found


# -- the rest


def fields(text: str, option: str, known: Sequence[str], hint: str) -> dict[str, str]:
    """``key=value,key=value``; a part with a comma in it is put in quotes (CSV), as Docker reads it. :raises UsageError: an unknown key."""
    found = {}
    for item in _csv(text, option, hint):
        key, equals, value = item.partition("=")
        key = key.strip().lower()
        if key not in known:
            raise UsageError(f"{option} {text!r}: unknown key {key!r}", near(key, known) or hint)
        found[key] = value if equals else "true"
    return found


def _csv(text: str, option: str, hint: str) -> list[str]:
    try:
        return next(csv.reader([text]), [])
    except csv.Error:
        raise UsageError(f"{option} {text[:80]!r} is not one line of fields", hint) from None


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option} {text!r} is not {form}", f"for example {option} src=./lib")
    return name, value


def _cache(text: str, option: str, place: str) -> str:
    """In its long form, with an absolute folder. Which kinds there are, the builder knows."""
    if "=" not in text:
        return f"type=registry,ref={text}"
    parts = []
    hint = f"{option} type=local,{place}=FOLDER, or {option} type=registry,ref=NAME"
    for item in _csv(text, option, hint):
        key, _, value = item.partition("=")
        key = key.strip().lower()
        if key == place and not value:
            raise UsageError(f"{option} {text!r}: {place} is empty", hint)
        if key == place:
            item = f"{key}={os.path.abspath(os.path.expanduser(value))}"
        parts.append(f'"{item}"' if "," in item else item)
    if not any(part.startswith("type=") for part in parts):
        raise UsageError(f"{option} {text!r} has no type", hint)
    return ",".join(parts)


def _shm_size(value: str | int | None) -> int | None:
    if value is None:
        return None
    size = parse_size(value, "--shm-size")
    if size <= 0:
        raise UsageError(f"--shm-size {value!r} is not a size", "for example --shm-size 256m")
    return size


def _network(name: str | None) -> str:
    if name and name not in _NETWORKS:
        raise UsageError(f"--network {name!r} is not known to a build", near(name, _NETWORKS) or "bridge, none or host")
    return "bridge" if name in (None, "", "default") else str(name)


def _platform(text: str | None) -> str:
    if text and "," in text:
        raise UsageError(f"--platform {text!r} names several platforms", "build each by itself")
    if text and not _PLATFORM.fullmatch(text.lower()):
        raise UsageError(f"--platform {text!r} is not OS/ARCHITECTURE", "for example --platform linux/amd64")
    return (text or "").lower()


def _epoch(text: str) -> int | None:
    if text and not (text.isascii() and text.isdigit() and len(text) < 12):
        raise UsageError(f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds", "for example $(git log -1 --format=%ct)")
    return int(text) if text else None


def _parallel(value: str | int | None) -> int:
    text = str(value or 0)
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise UsageError(f"--parallel {value!r} is not a number of steps", "for example --parallel 4")
    return int(text)
