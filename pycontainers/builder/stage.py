"""What a stage has become so far: its image config, its layers, its variables; and the instructions that change the config alone.

Config keys: OCI image-spec, config.md. What Docker adds to it (``Shell``, ``OnBuild``) keeps Docker's name.
"""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..images.store import Image, Layer
from ..images.view import Rootfs, View
from ..linux import signals
from . import instructions as ins
from . import run_flags
from .expansion import Expanded, ExpansionError, examine
from .history import created_by
from .lint import Warning, undefined
from .parser import Heredoc, Raw
from .plan import Plan, examine_at, platform_arguments
from .ports import ports

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXY_ARGUMENTS = frozenset(
    name for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy") for name in (word, word.upper())
)
"""Known to every RUN without ARG, and no part of the cache key (Docker's "predefined ARGs")."""

_MAX_PORTS = 65536


def _encoded(raw: Raw, text: str) -> bytes:
    """:raises BuildError: it is no UTF-8, as the environment of a base image may not be."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 20, 0) : error.end + 20]
        raise raw.error(f"{raw.keyword} has a value that is not UTF-8: {around!r}", "look at the variables in it", offset=0) from None


class StageState:
    """One stage under construction. ``base`` is the image that it began with, or the state of another stage's end."""

    def __init__(self, base: Image | StageState, plan: Plan, build_args: Mapping[str, str]) -> None:
        self.config: dict[str, Any] = copy.deepcopy(base.config)
        self.config["config"] = dict(self.config.get("config") or {})
        self.config["history"] = list(self.config.get("history") or [])
        self.layers: list[Layer] = list(base.layers)
        self.host: str = base.host
        self.rootfs: Rootfs = base.rootfs
        self.chain_id: str = base.chain_id
        self.plan, self.build_args = plan, build_args
        self.arguments: dict[str, str] = {}
        """Values of the ARGs of this stage and of those that it stands on."""
        self._declared: dict[str, None] = {}
        self._settled: set[str] = set()
        """Names that were set by ENV after ARG: of the two, what was said last holds (in BuildKit)."""
        if isinstance(base, StageState):
            self.arguments, self._declared, self._settled = dict(base.arguments), dict(base._declared), set(base._settled)
            self.settings.pop("OnBuild", None)  # they were for this stage: the plan has them among its instructions
        self.undefined: dict[tuple[int, str], Warning] = {}
        """Variables that were used and are not defined, by line and name: whoever reads them takes them out."""
        self.created: str = str(self.config.get("created") or "")
        self.command_set = False
        self._building: bool = isinstance(base, StageState) and base._building

    @property
    def settings(self) -> dict[str, Any]:
        """The ``config`` object inside the image config."""
        found: dict[str, Any] = self.config["config"]
        return found

    @property
    def view(self) -> View:
        return View(self.rootfs)

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.partition("=")[::2] for entry in self.settings.get("Env") or [])

    @property
    def values(self) -> dict[str, str]:
        """What variables stand for: ENV, also the base's, and ARGs that came later."""
        return {**self.environment, **{name: value for name, value in self.arguments.items() if name not in self._settled}}

    @property
    def declared(self) -> list[str]:
        """``NAME=value`` of every ARG so far, in order, as the history of a RUN shows them. One without a value has an empty one."""
        values = self.values
        return [f"{name}={values.get(name, '')}" for name in self._declared]

    @property
    def workdir(self) -> str:
        return str(self.settings.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        return str(self.settings.get("User") or "")

    @property
    def shell(self) -> list[str]:
        return list(self.settings.get("Shell") or ["/bin/sh", "-c"])

    def expand(self, raw: Raw, text: str) -> str:
        """:raises BuildError: a substitution that is malformed, or a NUL, which no path, variable or option can hold."""
        found = examine_at(raw, text, self.values)
        self._note_undefined(raw, found)
        if "\0" in found.text:
            raise raw.error(f"{raw.keyword} has a NUL character", "remove it", offset=0)
        _encoded(raw, found.text)
        return found.text

    def document(self, raw: Raw, heredoc: Heredoc) -> bytes:
        """The content of a here-document that is copied. :raises BuildError:"""
        if not heredoc.expand:
            return _encoded(raw, heredoc.content)
        try:
            found = examine(heredoc.content, self.values, keep_quotes=True)
        except ExpansionError as error:
            raise raw.error(f"here-document {heredoc.name}: {error.message[:200]}", error.hint) from None
        self._note_undefined(raw, found)
        return _encoded(raw, found.text)

    def _note_undefined(self, raw: Raw, found: Expanded) -> None:
        for name in sorted(found.missing - self._declared.keys()):
            self.undefined.setdefault((raw.line, name), undefined(raw, name, self.values))

    def argv(self, command: ins.Command) -> list[str]:
        return self.shell + list(command.words) if command.shell else list(command.words)

    def run_environment(self) -> dict[str, str]:
        """What a RUN step sees, proxies aside."""
        return {"PATH": PATH, **self.values}

    def proxies(self) -> dict[str, str]:
        """In lower and upper case, as programs ask for the one or the other (Docker gives both)."""
        given = {name: value for name, value in self.build_args.items() if name in PROXY_ARGUMENTS and name not in self.arguments}
        return {name: value for given_name, value in given.items() for name in (given_name.lower(), given_name.upper())} | given

    def add_layer(self, layer: Layer, created: str, created_by: str) -> None:
        self.layers.append(layer)
        self.chain_id = layer.chain_id
        self.rootfs = Rootfs((*self.rootfs.layers, layer.path), self.rootfs.folders, self.rootfs.base)
        self.created = created
        self.config["history"].append({"created": created, "created_by": created_by})

    def note(self, created_by: str) -> None:
        """A history entry of a step that made no layer."""
        created = {"created": self.created} if self.created else {}
        self.config["history"].append({**created, "created_by": created_by, "empty_layer": True})

    def finished(self) -> dict[str, Any]:
        """The image config. ``created`` is the last layer's time, so that a cached build gives the same image again."""
        config = {**self.config, "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]}}
        return {**config, "created": self.created} if self.created else config

    # -- instructions that change the config alone

    def begin(self) -> None:
        """What a stage of a build begins with beside its base: a PATH, and at nothing at all a working directory (BuildKit)."""
        self._building = True
        if not any(entry.startswith("PATH=") for entry in self.settings.get("Env") or []):
            self.settings["Env"] = [*(self.settings.get("Env") or []), f"PATH={PATH}"]
        if not self.layers and not self.config["history"] and not self.host:
            self.settings.setdefault("WorkingDir", "/")

    def mounts(self, item: ins.Run) -> tuple[ins.RunMount, ...]:
        """The mounts of a RUN with their variables replaced. :raises BuildError: at the flag."""
        return run_flags.mounts(item.raw, lambda text: self.expand(item.raw, text)) if item.mounts else ()

    def apply(self, item: ins.Instruction) -> bool:
        """Apply an instruction that makes no layer; False for those that do."""
        if isinstance(item, ins.OnBuild):
            self.settings["OnBuild"] = [*(self.settings.get("OnBuild") or []), item.trigger]
            return True  # Docker's history has no entry for it
        words = self._apply(item)
        if words is None:
            return False
        self.note(created_by(item, words))
        return True

    def _apply(self, item: ins.Instruction) -> list[str] | None:
        """Apply it. :returns: its words after substitution; None for an instruction that makes a layer."""
        match item:
            case ins.Arg():
                return self._arg(item)
            case ins.Env():
                return self._env(item)
            case ins.Label():
                return self._label(item)
            case ins.Expose():
                return self._expose(item)
            case ins.Volume():
                paths = [self._one(item.raw, path) for path in item.paths]
                self.settings["Volumes"] = {**(self.settings.get("Volumes") or {}), **{path: {} for path in paths}}
                return paths
            case ins.Cmd():
                self.command_set = True
                if self._building:
                    self.settings["ArgsEscaped"] = True  # BuildKit's mark on every CMD
                return self._command("Cmd", self.argv(item.command))
            case ins.Entrypoint():
                if not self.command_set:  # the base's CMD was meant for the base's entry point (Docker resets it too)
                    self.settings.pop("Cmd", None)
                return self._command("Entrypoint", self.argv(item.command))
            case ins.Shell():
                self.settings["Shell"] = list(item.words)
                return list(item.words)
            case ins.HealthCheck():
                self.settings["Healthcheck"] = dict(item.settings)
                return []
            case ins.User():
                self.settings["User"] = self.expand(item.raw, item.user)
                return [self.user]
            case ins.StopSignal():
                return [self._stop_signal(item)]
            case ins.Maintainer():
                self.config["author"] = item.name
                return [item.name]
        return None

    def set_workdir(self, raw: Raw, path: str) -> str:
        """Record and return the new working directory: an absolute one as it is written (so Docker has it), else from the last one on."""
        text = self.expand(raw, path)
        value = text if text.startswith("/") else "/" + posixpath.normpath(posixpath.join("/", self.workdir, text)).lstrip("/")
        self.settings["WorkingDir"] = value
        return value

    def set_labels(self, labels: Mapping[str, str]) -> None:
        if labels:
            self.settings["Labels"] = {**(self.settings.get("Labels") or {}), **labels}

    def _one(self, raw: Raw, text: str) -> str:
        value = self.expand(raw, text)
        if not value.strip():
            raise raw.error(f"{raw.keyword} {text} is empty after substitution", "set the variable with ARG or ENV before", offset=0)
        return value

    def _command(self, key: str, argv: list[str]) -> list[str]:
        self.settings.pop(key, None)  # an empty list is none at all in Docker's configs
        if argv:
            self.settings[key] = argv
        return argv

    def _arg(self, item: ins.Arg) -> list[str]:
        said = []
        for name, default in item.pairs:
            value = self.build_args.get(name)
            if value is None and default is not None:
                value = self.expand(item.raw, default)
            elif value is None:
                value = self.plan.globals.get(name)
                if value is None:
                    value = platform_arguments().get(name)
            self._declared[name] = None
            if value is not None:
                self.arguments[name] = value
                self._settled.discard(name)
            said.append(name if value is None else f"{name}={value}")
        return said

    def _env(self, item: ins.Env) -> list[str]:
        # All values of one instruction see the variables as they were before it.
        values = [(self._name(item.raw, name), self.expand(item.raw, value)) for name, value in item.pairs]
        self.settings["Env"] = [f"{name}={value}" for name, value in {**self.environment, **dict(values)}.items()]
        self._settled |= dict(values).keys()
        return [f"{name}={value}" for name, value in values]

    def _name(self, raw: Raw, text: str) -> str:
        name = self.expand(raw, text)
        if not name or "=" in name:
            raise raw.error(f"invalid name {name[:80]!r} in {raw.keyword}", "a name is not empty and has no '='", offset=0)
        return name

    def _label(self, item: ins.Label) -> list[str]:
        labels = [(self.expand(item.raw, name), self.expand(item.raw, value)) for name, value in item.pairs]
        self.settings["Labels"] = {**(self.settings.get("Labels") or {}), **dict(labels)}
        return [f"{name}={value}" for name, value in labels]

    def _stop_signal(self, item: ins.StopSignal) -> str:
        signal = self.expand(item.raw, item.signal)
        try:
            signals.number(signal)
        except UsageError as error:
            raise item.raw.error(f"STOPSIGNAL: {error.message}", error.hint, offset=0) from None
        self.settings["StopSignal"] = signal
        return signal

    def _expose(self, item: ins.Expose) -> list[str]:
        said: list[str] = []
        for word in sorted(item.ports):
            for text in examine_at(item.raw, word, self.values).words:
                said += ports(item.raw, word, text)
                if len(said) > _MAX_PORTS:
                    raise item.raw.error(f"EXPOSE lists more than {_MAX_PORTS} ports", "a range is written 8000-8010", offset=0)
        self.settings["ExposedPorts"] = {**(self.settings.get("ExposedPorts") or {}), **{port: {} for port in said}}
        return said
