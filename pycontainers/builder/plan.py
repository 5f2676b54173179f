"""Typed instructions to a graph of stages: what the target needs, in an order in which it can be built."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BuildError, NotFound, near
from .expansion import ExpansionError, expand
from .instructions import Arg, Copy, From, Instruction
from .parser import Raw

MAX_VALUE = 128 * 1024
"""Longest value of a variable in bytes: the kernel's MAX_ARG_STRLEN (``execve(2)``). It also stops ``ENV a=$a$a`` repeated."""

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's architecture by its name in OCI images (GOARCH)."""
    machine = os.uname().machine
    return _ARCHITECTURE.get(machine, machine)


def platform_arguments() -> dict[str, str]:
    """The automatic platform ARGs: known to every FROM, and in a stage after ``ARG NAME``."""
    name = architecture()
    return {f"{side}{part}": value for side in ("BUILD", "TARGET") for part, value in
            (("PLATFORM", f"linux/{name}"), ("OS", "linux"), ("ARCH", name), ("VARIANT", ""))}


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows. ``base_stage`` is the index of the stage that it builds on, None for an image (``base``).

    ``sources`` maps each ``--from`` value that names a stage to that stage's index; other values name images.
    ``needs`` are the indexes of all stages that must be built before this one.
    """

    index: int
    name: str
    start: From
    base: str
    base_stage: int | None
    instructions: tuple[Instruction, ...]
    sources: dict[str, int]

    @property
    def needs(self) -> tuple[int, ...]:
        return tuple(sorted({*self.sources.values(), *(() if self.base_stage is None else (self.base_stage,))}))

    @property
    def title(self) -> str:
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True)
class Plan:
    """The stages that the target needs, every stage after those that it needs, the target last.

    ``globals`` are the ARGs before the first FROM (None: declared without a value).
    """

    stages: tuple[Stage, ...]
    globals: dict[str, str | None]
    used_arguments: frozenset[str]
    stage_names: tuple[str, ...]


def expand_at(raw: Raw, text: str, values: Mapping[str, str]) -> str:
    """Expand, with an error that names the place of ``text`` in the instruction."""
    try:
        value = expand(text, values, raw.escape)
    except ExpansionError as error:
        raise raw.error(error.message, error.hint, offset=max(raw.arguments.find(text), 0)) from None
    if len(value) > MAX_VALUE:
        raise raw.error(f"a value of {len(value)} characters is too long", f"at most {MAX_VALUE}", offset=max(raw.arguments.find(text), 0))
    return value


def make_plan(instructions: list[Instruction], build_args: Mapping[str, str], target: str = "") -> Plan:
    """Order the stages that ``target`` (a name or number; "" the last one) needs.

    :raises BuildError: no FROM, a stage that does not exist or needs itself, another machine's platform.
    :raises NotFound: no such target.
    """
    first = next((i for i, instruction in enumerate(instructions) if isinstance(instruction, From)), len(instructions))
    values = dict(platform_arguments())
    global_values = _global_arguments(instructions[:first], build_args, values)
    if first == len(instructions):
        raise BuildError("the Dockerfile has no FROM", "begin with FROM, for example: FROM host")
    groups = _groups(instructions[first:])
    names: dict[str, int] = {}
    stages: list[Stage] = []
    for index, (start, body) in enumerate(groups):
        stages.append(_stage(index, start, body, names, values))
        if start.name:
            if start.name in names:
                raise start.raw.error(f"two stages are named {start.name!r}", "give every stage a name of its own")
            names[start.name] = index
    stages = [_with_sources(stage, names, len(stages)) for stage in stages]
    ordered = _order(stages, _target(target, names, len(stages)))
    used = {name for instruction in instructions[:first] if isinstance(instruction, Arg) for name, _ in instruction.pairs}
    used |= {name for stage in stages for item in stage.instructions if isinstance(item, Arg) for name, _ in item.pairs}
    return Plan(tuple(ordered), global_values, frozenset(used), tuple(names))


def _global_arguments(head: list[Instruction], build_args: Mapping[str, str], values: dict[str, str]) -> dict[str, str | None]:
    """ARGs before the first FROM; ``values`` grows by those that have one."""
    found: dict[str, str | None] = {}
    for instruction in head:
        if not isinstance(instruction, Arg):
            raise instruction.raw.error(f"{instruction.raw.keyword} before the first FROM", "only ARG may stand there; begin with FROM")
        for name, default in instruction.pairs:
            value = build_args.get(name)
            if value is None and default is not None:
                value = expand_at(instruction.raw, default, values)
            found[name] = value
            if value is not None:
                values[name] = value
    return found


def _groups(instructions: list[Instruction]) -> list[tuple[From, list[Instruction]]]:
    groups: list[tuple[From, list[Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            groups.append((instruction, []))
        else:
            groups[-1][1].append(instruction)
    return groups


def _stage(index: int, start: From, body: list[Instruction], names: Mapping[str, int], values: Mapping[str, str]) -> Stage:
    base = expand_at(start.raw, start.base, values)
    if not base:
        raise start.raw.error(f"the image of FROM {start.base} is empty", "declare ARG before the first FROM, with a default", offset=0)
    platform = expand_at(start.raw, start.platform, values)
    own = f"linux/{architecture()}"
    if platform and platform not in (own, own + "/v8" if own == "linux/arm64" else own):
        raise start.raw.error(f"--platform={platform} is not this machine's platform", f"only {own} can be built here",
                              flag=start.raw.flags[0])
    # FROM sees only the stages above it: FROM debian AS debian takes the image (Docker does the same).
    return Stage(index, start.name, start, base, names.get(base.lower()), tuple(body), {})


def _with_sources(stage: Stage, names: Mapping[str, int], count: int) -> Stage:
    sources: dict[str, int] = {}
    for item in stage.instructions:
        if not isinstance(item, Copy) or not item.source_stage:
            continue
        wanted = item.source_stage
        flag = next(flag for flag in item.raw.flags if flag.name == "from")
        if wanted.isascii() and wanted.isdigit():
            if int(wanted[:9]) >= count:
                raise item.raw.error(f"--from={wanted}: there is no stage {wanted}", f"stages count from 0 to {count - 1}", flag=flag)
            sources[wanted] = int(wanted)
        elif wanted.lower() in names:
            sources[wanted] = names[wanted.lower()]
        if sources.get(wanted) == stage.index:
            raise item.raw.error(f"--from={wanted}: the stage would copy from itself", "copy from an earlier stage", flag=flag)
    return Stage(stage.index, stage.name, stage.start, stage.base, stage.base_stage, stage.instructions, sources)


def _target(target: str, names: Mapping[str, int], count: int) -> int:
    if not target:
        return count - 1
    if target.lower() in names:
        return names[target.lower()]
    if target.isascii() and target.isdigit() and int(target[:9]) < count:
        return int(target)
    raise NotFound(f"no stage named {target!r}", near(target, names) or f"the stages are {', '.join(names) or f'0 to {count - 1}'}")


def _order(stages: list[Stage], target: int) -> list[Stage]:
    """Depth first from the target, without recursion (a file may hold thousands of stages)."""
    ordered: list[Stage] = []
    state: dict[int, str] = {}
    stack = [(target, iter(stages[target].needs))]
    state[target] = "open"
    while stack:
        index, needs = stack[-1]
        following = next(needs, None)
        if following is None:
            state[index] = "done"
            ordered.append(stages[index])
            stack.pop()
        elif state.get(following) == "open":
            start = stages[index].start
            raise start.raw.error(f"stages {stages[index].title} and {stages[following].title} need each other",
                                  "break the circle of --from")
        elif following not in state:
            state[following] = "open"
            stack.append((following, iter(stages[following].needs)))
    return ordered
