"""Typed instructions to a graph of stages: what the target needs, in an order in which it can be built."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import BuildError, NotFound, near
from .expansion import Expanded, ExpansionError, examine
from .flags import platform
from .instructions import Arg, Copy, From, Instruction, OnBuild, Run, typed
from .parser import Flag, Raw, parse

MAX_VALUE = 128 * 1024
"""Longest value of a variable in bytes: the kernel's MAX_ARG_STRLEN (``execve(2)``). It also stops ``ENV a=$a$a`` repeated."""

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_NO_CONTEXT = ("scratch", "context")
"""Names that always mean what Docker means by them: nothing, and the build context."""


def architecture() -> str:
    """This machine's architecture by its name in OCI images (GOARCH)."""
    machine = os.uname().machine
    return _ARCHITECTURE.get(machine, machine)


def platform_arguments(target: str = "default") -> dict[str, str]:
    """The automatic ARGs: known to every FROM, and in a stage after ``ARG NAME``. ``target``: the stage that is built."""
    name = architecture()
    parts = {f"{side}{part}": value for side in ("BUILD", "TARGET") for part, value in
             (("PLATFORM", f"linux/{name}"), ("OS", "linux"), ("OSVERSION", ""), ("ARCH", name), ("VARIANT", ""))}
    return {**parts, "TARGETSTAGE": target}


@dataclass(frozen=True)
class Stage:
    """One FROM and what follows. ``base_stage`` is the index of the stage that it builds on, None for an image (``base``).

    ``sources`` maps each ``--from`` value (of COPY, and ``from`` of RUN --mount) that names a stage to that stage's index; other
    values name contexts or images. ``needs`` are the indexes of all stages that must be built before this one.

    :param context: the named context that it begins with, "" for none. One that has the stage's own name replaces all of the
        stage: ``instructions`` is empty then. ``base`` is the same name.
    :param platform: what ``--platform`` says, normalised ("" where it is not given).
    :param triggers: how many of the ``instructions``, at the beginning, are ONBUILD's of the stage below.
    """

    index: int
    name: str
    start: From
    base: str
    base_stage: int | None
    instructions: tuple[Instruction, ...]
    sources: dict[str, int]
    context: str = ""
    platform: str = ""
    triggers: int = 0

    @property
    def needs(self) -> tuple[int, ...]:
        return tuple(sorted({*self.sources.values(), *(() if self.base_stage is None else (self.base_stage,))}))

    @property
    def title(self) -> str:
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True)
class Plan:
    """The stages that the target needs, every stage after those that it needs, the target last.

    ``globals`` are the ARGs before the first FROM (None: declared without a value) and the automatic ones.
    """

    stages: tuple[Stage, ...]
    globals: dict[str, str | None]
    used_arguments: frozenset[str]
    stage_names: tuple[str, ...]


def expand_at(raw: Raw, text: str, values: Mapping[str, str]) -> str:
    """Expand, with an error that names the place of ``text`` in the instruction."""
    return examine_at(raw, text, values).text


def examine_at(raw: Raw, text: str, values: Mapping[str, str]) -> Expanded:
    """As :func:`expand_at`, with the names of the variables."""
    try:
        found = examine(text, values, raw.escape)
    except ExpansionError as error:
        raise raw.error(error.message, error.hint, offset=max(raw.arguments.find(text), 0)) from None
    if len(found.text) > MAX_VALUE:
        raise raw.error(f"a value of {len(found.text)} characters is too long", f"at most {MAX_VALUE}",
                        offset=max(raw.arguments.find(text), 0))
    return found


def make_plan(instructions: Sequence[Instruction], build_args: Mapping[str, str], target: str = "", *,
              contexts: Mapping[str, str] | None = None) -> Plan:
    """Order the stages that ``target`` (a name or number; "" the last one) needs.

    :param contexts: named contexts, which replace stages and images of their name.
    :raises BuildError: no FROM, a stage that does not exist or needs itself, another machine's platform.
    :raises NotFound: no such target.
    """
    first = next((i for i, instruction in enumerate(instructions) if isinstance(instruction, From)), len(instructions))
    groups = _groups(instructions[first:])
    automatic = platform_arguments(target.lower() or (groups[-1][0].name if groups else "") or "default")
    values = {name: build_args.get(name, value) for name, value in automatic.items()}
    global_values: dict[str, str | None] = {**values, **_global_arguments(instructions[:first], build_args, values)}
    if not groups:
        raise BuildError("the Dockerfile has no FROM", "begin with FROM, for example: FROM host")
    named = {_familiar(name): name for name in contexts or {} if name.lower() not in _NO_CONTEXT}
    names: dict[str, int] = {}
    stages: list[Stage] = []
    for index, (start, body) in enumerate(groups):
        stages.append(_stage(index, start, body, names, values, named, stages))
        if start.name:
            names[start.name] = index  # of two with one name the last counts (Docker warns, and so does lint)
    stages = [_with_sources(stage, names, len(stages)) for stage in stages]
    ordered = _order(stages, _target(target, names, len(stages)))
    for stage in ordered:
        _check(stage)
    used = {name for instruction in instructions if isinstance(instruction, Arg) for name, _ in instruction.pairs}
    return Plan(tuple(ordered), global_values, frozenset(used), tuple(names))


def triggers(texts: Sequence[str], start: Raw) -> tuple[Instruction, ...]:
    """ONBUILD instructions of a base image, as instructions of the stage that begins with ``start`` (its FROM).

    :raises BuildError: at that FROM, for a trigger that makes no sense.
    """
    return tuple(_trigger(text, start) for text in texts)


def with_sources_of(stage: Stage, items: Sequence[Instruction], plan: Plan) -> Stage:
    """The stage, with the stages that the triggers of its base image name. The image was not known when the plan was made, so what
    else the target needs must hold them. :raises BuildError: it does not."""
    names = {other.name: other.index for other in plan.stages if other.name and other.index < stage.index}
    sources = dict(stage.sources)
    for item in items:
        for wanted, _ in _asked(item):
            if wanted.lower() in names:
                sources[wanted] = names[wanted.lower()]
            elif wanted.lower() in plan.stage_names:
                raise stage.start.raw.error(f"the base has ONBUILD {item.raw.keyword} --from={wanted}, a stage that nothing else needs",
                                            f"copy something from {wanted} yourself, above this stage or in it", offset=0)
    return replace(stage, sources=sources)


def _trigger(text: str, start: Raw) -> Instruction:
    # The text comes from an image: its own lines are nothing to the user, so all of it stands where the FROM stands.
    def placed(raw: Raw) -> Raw:
        flags = tuple(Flag(flag.name, flag.value, start.line, start.column) for flag in raw.flags)
        return replace(raw, line=start.line, end_line=start.end_line, column=start.column, flags=flags, segments=(),
                       sources=start.sources, original=f"ONBUILD {raw.original}", comments=(), empty_lines=())

    try:
        parsed = parse(text)
        raw = placed(parsed.instructions[0])
        if len(parsed.instructions) > 1 or raw.keyword in ("FROM", "MAINTAINER", "ONBUILD"):
            raise start.error("it must be one instruction, and none of FROM, MAINTAINER and ONBUILD", "use another base")
        return typed(raw)
    except BuildError as error:
        message = error.message.partition(": ")[2] if error.line else error.message
        raise start.error(f"the base has ONBUILD {text[:80]!r}: {message}", error.hint, offset=0) from None


def _global_arguments(head: Sequence[Instruction], build_args: Mapping[str, str], values: dict[str, str]) -> dict[str, str | None]:
    """ARGs before the first FROM; ``values`` grows by those that have one."""
    found: dict[str, str | None] = {}
    for instruction in head:
        if not isinstance(instruction, Arg):
            raise instruction.raw.error(f"{instruction.raw.keyword} before the first FROM", "only ARG may stand there; begin with FROM")
        for name, default in instruction.pairs:
            value = build_args.get(name)
            if value is None and default is not None:
                value = expand_at(instruction.raw, default, values)
            if value is not None:
                values[name] = value
            found[name] = values.get(name)
    return found


def _groups(instructions: Sequence[Instruction]) -> list[tuple[From, list[Instruction]]]:
    groups: list[tuple[From, list[Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            groups.append((instruction, []))
        else:
            groups[-1][1].append(instruction)
    return groups


def _stage(index: int, start: From, body: Sequence[Instruction], names: Mapping[str, int], values: Mapping[str, str],
           named: Mapping[str, str], above: Sequence[Stage]) -> Stage:
    base = expand_at(start.raw, start.base, values)
    if not base:
        raise start.raw.error(f"the image of FROM {start.base} is empty", "declare ARG before the first FROM, with a default", offset=0)
    wanted = _platform(start, values)
    if start.name in named:
        return Stage(index, start.name, start, named[start.name], None, (), {}, named[start.name])
    # FROM sees only the stages above it: FROM debian AS debian takes the image (Docker does the same).
    base_stage = names.get(base)
    if base_stage is None:
        context = named.get(_familiar(base), "") if base not in _NO_CONTEXT else ""
        return Stage(index, start.name, start, context or base, None, tuple(body), {}, context, wanted)
    inherited = triggers([item.trigger for item in above[base_stage].instructions if isinstance(item, OnBuild)], start.raw)
    return Stage(index, start.name, start, base, base_stage, (*inherited, *body), {}, "", wanted, len(inherited))


def _familiar(name: str) -> str:
    """An image's name as people write it: without Docker Hub's address and without ``:latest``."""
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/library/"):
        name = name.removeprefix(prefix)
    return name.removesuffix(":latest").lower() if "@" not in name else name


def _platform(start: From, values: Mapping[str, str]) -> str:
    flag = next(iter(start.raw.flags), None)
    if not start.platform or flag is None:
        return ""
    value = expand_at(start.raw, start.platform, values)
    if not value:
        raise start.raw.error(f"--platform={start.platform} is empty", "declare ARG before the first FROM, with a default", flag=flag)
    try:
        return platform(value, f"linux/{architecture()}")
    except ValueError:
        raise start.raw.error(f"--platform={value[:80]} is not a platform", "for example: --platform=linux/amd64", flag=flag) from None


def _asked(item: Instruction) -> Iterator[tuple[str, Flag]]:
    """What ``--from`` and ``from`` name, with the flag that does."""
    if isinstance(item, Copy) and item.source_stage:
        yield item.source_stage, next(flag for flag in item.raw.flags if flag.name == "from")
    elif isinstance(item, Run):
        yield from ((mount.origin, mount.flag) for mount in item.mounts if mount.origin)


def _with_sources(stage: Stage, names: Mapping[str, int], count: int) -> Stage:
    sources: dict[str, int] = {}
    for item in stage.instructions:
        for wanted, flag in _asked(item):
            found = names.get(wanted.lower())
            if found is None and isinstance(item, Copy) and wanted.removeprefix("-").isdecimal() and wanted.isascii():
                if wanted[0] == "-" or int(wanted[:9]) >= count:
                    raise item.raw.error(f"--from={wanted}: there is no stage {wanted}", f"stages count from 0 to {count - 1}", flag=flag)
                found = int(wanted)
            if found is None:
                continue
            if found == stage.index:
                option = "--from" if isinstance(item, Copy) else "--mount from"
                raise item.raw.error(f"{option}={wanted}: the stage would copy from itself", "copy from an earlier stage", flag=flag)
            sources[wanted] = found
    return replace(stage, sources=sources)


def _check(stage: Stage) -> None:
    """What matters only in a stage that is built: a platform that this machine has not, sources that come too late."""
    own = f"linux/{architecture()}"
    if stage.platform and stage.platform != own:
        raise stage.start.raw.error(f"--platform={stage.platform} is not this machine's platform", f"only {own} can be built here",
                                    flag=stage.start.raw.flags[0])
    for item in stage.instructions:
        for wanted, flag in _asked(item):
            if stage.sources.get(wanted, -1) > stage.index:
                raise item.raw.error(f"stage {wanted} is defined below the one that copies from it", "move it up", flag=flag)


def _target(target: str, names: Mapping[str, int], count: int) -> int:
    if not target:
        return count - 1
    if target.lower() in names:
        return names[target.lower()]
    if target.isascii() and target.isdigit() and int(target[:9]) < count:
        return int(target)
    raise NotFound(f"no stage named {target!r}", near(target, names) or f"the stages are {', '.join(names) or f'0 to {count - 1}'}")


def _order(stages: list[Stage], target: int) -> list[Stage]:
    """What the target needs, depth first, without recursion (a file may hold thousands of stages). Circles are sought everywhere."""
    ordered: list[Stage] = []
    state: dict[int, str] = {}
    wanted = 0
    for root in (target, *range(len(stages))):
        if root not in state:
            _visit(stages, root, state, ordered)
        wanted = wanted or len(ordered)
    return ordered[:wanted]


def _visit(stages: list[Stage], root: int, state: dict[int, str], ordered: list[Stage]) -> None:
    stack = [(root, iter(stages[root].needs))]
    state[root] = "open"
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
