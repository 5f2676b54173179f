"""What a stage has become so far: its image config, its layers, its variables; and the instructions that change the config alone.

Config keys: OCI image-spec, config.md. What Docker adds to it (``Shell``, ``OnBuild``) keeps Docker's name.
"""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ..images.store import Image, Layer
from ..images.view import Rootfs, View
from . import instructions as ins
from .parser import Raw
from .plan import Plan, expand_at, platform_arguments

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXY_ARGUMENTS = frozenset(
    name for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy") for name in (word, word.upper())
)
"""Known to every RUN without ARG, and no part of the cache key (Docker's "predefined ARGs")."""

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/([A-Za-z]+))?")
_MAX_PORTS = 65536


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
        self.created: str = str(self.config.get("created") or "")
        self.command_set = False

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
        """What variables stand for: ARGs, and ENV, which wins."""
        return {**self.arguments, **self.environment}

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
        return expand_at(raw, text, self.values)

    def argv(self, command: ins.Command) -> list[str]:
        return self.shell + list(command.words) if command.shell else list(command.words)

    def run_environment(self) -> dict[str, str]:
        """What a RUN step sees, proxies aside."""
        return {"PATH": PATH, **self.values}

    def proxies(self) -> dict[str, str]:
        return {name: value for name, value in self.build_args.items() if name in PROXY_ARGUMENTS and name not in self.arguments}

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

    def apply(self, item: ins.Instruction) -> bool:
        """Apply an instruction that makes no layer; False for those that do."""
        match item:
            case ins.Arg():
                self._arg(item)
            case ins.Env():
                self._env(item)
            case ins.Label():
                self._label(item)
            case ins.User():
                self.settings["User"] = self._one(item.raw, item.user)
            case ins.Expose():
                self._expose(item)
            case ins.Volume():
                paths = [self._one(item.raw, path) for path in item.paths]
                self.settings["Volumes"] = {**(self.settings.get("Volumes") or {}), **{path: {} for path in paths}}
            case ins.Cmd():
                self.settings["Cmd"] = self.argv(item.command) if item.raw.arguments else []
                self.command_set = True
            case ins.Entrypoint():
                self.settings["Entrypoint"] = self.argv(item.command) if item.raw.arguments else []
                if not self.command_set:  # the base's CMD was meant for the base's entry point (Docker resets it too)
                    self.settings.pop("Cmd", None)
            case ins.StopSignal():
                self.settings["StopSignal"] = self._one(item.raw, item.signal)
            case ins.Shell():
                self.settings["Shell"] = list(item.words)
            case ins.Maintainer():
                self.config["author"] = item.name
            case _:
                return False
        self.note(f"{item.raw.keyword} {item.raw.arguments}".strip())
        return True

    def set_workdir(self, raw: Raw, path: str) -> str:
        """Record and return the new working directory: absolute, clean, relative to the last one."""
        value = self.settings["WorkingDir"] = posixpath.normpath(posixpath.join("/", self.workdir, self._one(raw, path)))
        return str(value)

    def set_labels(self, labels: Mapping[str, str]) -> None:
        if labels:
            self.settings["Labels"] = {**(self.settings.get("Labels") or {}), **labels}
            self.note("LABEL " + " ".join(f"{name}={value}" for name, value in sorted(labels.items())))

    def _one(self, raw: Raw, text: str) -> str:
        value = self.expand(raw, text)
        if not value.strip() or "\0" in value:
            raise raw.error(f"{raw.keyword} {text} is empty after substitution", "set the variable with ARG or ENV before", offset=0)
        return value

    def _arg(self, item: ins.Arg) -> None:
        for name, default in item.pairs:
            value = self.build_args.get(name)
            if value is None and default is not None:
                value = self.expand(item.raw, default)
            elif value is None:
                value = self.plan.globals.get(name)
                if value is None:
                    value = platform_arguments().get(name)
            if value is not None:
                self.arguments[name] = value

    def _env(self, item: ins.Env) -> None:
        # All values of one instruction see the variables as they were before it.
        values = [(self._name(item.raw, name), self.expand(item.raw, value)) for name, value in item.pairs]
        self.settings["Env"] = [f"{name}={value}" for name, value in {**self.environment, **dict(values)}.items()]

    def _name(self, raw: Raw, text: str) -> str:
        name = self.expand(raw, text)
        if not name or "=" in name or "\0" in name or any(char.isspace() for char in name):
            raise raw.error(f"invalid name {name!r} in {raw.keyword}", "a name has no blanks and no '='", offset=0)
        return name

    def _label(self, item: ins.Label) -> None:
        labels = {self.expand(item.raw, name): self.expand(item.raw, value) for name, value in item.pairs}
        self.settings["Labels"] = {**(self.settings.get("Labels") or {}), **labels}

    def _expose(self, item: ins.Expose) -> None:
        ports = dict(self.settings.get("ExposedPorts") or {})
        for word in item.ports:
            for text in self._one(item.raw, word).split():
                ports |= {port: {} for port in _ports(item.raw, word, text)}
        if len(ports) > _MAX_PORTS:
            raise item.raw.error(f"EXPOSE lists {len(ports)} ports", f"at most {_MAX_PORTS}", offset=0)
        self.settings["ExposedPorts"] = ports


def _ports(raw: Raw, word: str, text: str) -> list[str]:
    match = _PORT.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    protocol = (match[3] or "tcp").lower() if match else ""
    if not 1 <= first <= last <= 65535 or protocol not in ("tcp", "udp", "sctp"):
        raise raw.error(f"invalid port {text!r}", "for example: EXPOSE 8080, 53/udp or 8000-8010", offset=max(raw.arguments.find(word), 0))
    return [f"{port}/{protocol}" for port in range(first, last + 1)]
