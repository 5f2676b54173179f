"""Docker's build checks: what is allowed, and hardly ever meant. https://docs.docker.com/reference/build-checks/

:func:`check` looks at the text alone. Which variables are defined is known only while a stage is built, as its base may have some: there
:meth:`.stage.StageState.expand` notes them, and :func:`undefined` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import BuildError, UsageError, near
from ..images import reference
from . import instructions as ins
from . import ports
from .expansion import ExpansionError, examine
from .flags import boolean
from .flags import platform as normal_platform
from .forms import blank_words
from .parser import Dockerfile, Raw
from .plan import Plan, Stage, architecture, platform_arguments

_URL = "https://docs.docker.com/go/dockerfile/rule/"
_EXPERIMENTAL = frozenset({"CopyIgnoredFile", "InvalidDefinitionDescription"})
RULES = (
    "StageNameCasing", "FromAsCasing", "NoEmptyContinuation", "ConsistentInstructionCasing", "DuplicateStageName", "ReservedStageName",
    "JSONArgsRecommended", "MaintainerDeprecated", "UndefinedArgInFrom", "UndefinedVar", "WorkdirRelativePath",
    "MultipleInstructionsDisallowed", "LegacyKeyValueFormat", "RedundantTargetPlatform", "SecretsUsedInArgOrEnv",
    "InvalidDefaultArgInFrom", "FromPlatformFlagConstDisallowed", "CopyIgnoredFile", "InvalidDefinitionDescription",
    "ExposeProtoCasing", "ExposeInvalidFormat",
)  # fmt: skip

_SECRET = re.compile(r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE)
_PUBLIC = re.compile(r"(?:_|^)public(?:_|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Warning:
    """What a rule found, at a line (1-based). ``url`` explains the rule."""

    rule: str
    message: str
    url: str
    line: int

    def __str__(self) -> str:
        return f"{self.rule}: {self.message} (line {self.line})"


@dataclass(frozen=True)
class Options:
    """What ``# check=skip=A,B;error=true;experimental=C`` asks for. ``all`` stands for every rule."""

    skip: frozenset[str] = frozenset()
    error: bool = False
    experimental: frozenset[str] = frozenset()
    line: int = 0

    def wants(self, rule: str) -> bool:
        if {"all", rule} & self.skip:
            return False
        return rule not in _EXPERIMENTAL or bool({"all", rule} & self.experimental)

    def keep(self, warnings: Iterable[Warning]) -> list[Warning]:
        return [warning for warning in warnings if self.wants(warning.rule)]

    def judge(self, warnings: Sequence[Warning]) -> None:
        """:raises BuildError: there are some, and the Dockerfile has ``error=true``."""
        if self.error and warnings:
            rules = ", ".join(dict.fromkeys(warning.rule for warning in warnings))
            hint = f"{warnings[0].message}; or leave error=true out of # check="
            raise BuildError(f"checks failed: {rules}", hint, line=warnings[0].line)


def options(dockerfile: Dockerfile, build_args: Mapping[str, str] | None = None) -> Options:
    """Of the directive, or of the build argument that replaces it. :raises BuildError: an option that is not known."""
    text = (build_args or {}).get("BUILDKIT_DOCKERFILE_CHECK", dockerfile.directives.get("check", ""))
    line = dockerfile.directive_lines.get("check", 0)
    sets: dict[str, frozenset[str]] = {}
    error = False
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in ("skip", "experimental") and value:
            sets[name] = frozenset(rule.strip() for rule in value.split(","))
            continue
        try:
            if name != "error":
                raise ValueError(name)
            error = boolean(value)
        except ValueError:
            hint = near(name, ("skip", "error", "experimental")) if name not in ("skip", "error") else ""
            raise BuildError(f"check={part[:80]} is not understood", hint or "for example: # check=skip=JSONArgsRecommended;error=true",
                             line=line, column=1 if line else 0) from None
    return Options(sets.get("skip", frozenset()), error, sets.get("experimental", frozenset()), line)


def check(instructions: Sequence[ins.Instruction], plan: Plan, dockerfile: Dockerfile, *,
          ignored: Callable[[str], bool] | None = None, build_args: Mapping[str, str] | None = None) -> list[Warning]:
    """All that the text shows, in the order of the lines, without what the directive leaves out.

    :param ignored: is a path left out by ``.dockerignore``? Without it CopyIgnoredFile finds nothing.
    """
    found = [
        *_texts(instructions), *_casing(instructions), *_names(instructions), *_bases(instructions, plan), *_stages(plan, ignored),
    ]  # fmt: skip
    kept = options(dockerfile, build_args).keep(found)
    return sorted(dict.fromkeys(kept), key=lambda warning: warning.line)


def undefined(raw: Raw, name: str, known: Iterable[str]) -> Warning:
    """UndefinedVar: an instruction uses a variable that nothing has defined."""
    return _warning("UndefinedVar", raw.line, f"the variable ${name} is not defined{_meant(name, known, '$')}")


def _warning(rule: str, line: int, message: str) -> Warning:
    return Warning(rule, message, _URL + re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule).lower() + "/", line)


def _meant(name: str, names: Iterable[str], mark: str = "") -> str:
    hint = near(name, [f"{other}" for other in names])
    return f" ({hint.replace('did you mean ', f'did you mean {mark}').replace(', ', f', {mark}')})" if hint else ""


# -- the text of each instruction


def _texts(instructions: Sequence[ins.Instruction]) -> Iterator[Warning]:
    for item in instructions:
        raw = item.raw
        for line in raw.empty_lines[:1]:
            yield _warning("NoEmptyContinuation", line, "an empty line within an instruction; a later Docker will refuse it")
        if isinstance(item, ins.Maintainer):
            yield _warning("MaintainerDeprecated", raw.line, "MAINTAINER is deprecated; write LABEL org.opencontainers.image.authors=…")
        if isinstance(item, ins.From):
            yield from _from(item)
            yield from _description(raw, "FROM", [item.name] if item.name else [])
        if isinstance(item, ins.Arg):
            yield from _description(raw, "ARG", [name for name, _ in item.pairs])


def _from(item: ins.From) -> Iterator[Warning]:
    words = [word for word, _ in blank_words(item.raw.arguments)]
    if len(words) < 3:
        return
    if words[2] != words[2].lower():
        yield _warning("StageNameCasing", item.raw.line, f"the stage name {words[2]!r} should be in lower case")
    keyword = item.raw.word
    wanted = words[1].lower() if keyword == keyword.lower() else words[1].upper() if keyword == keyword.upper() else words[1]
    if words[1] != wanted:
        yield _warning("FromAsCasing", item.raw.line, f"{words[1]!r} and {keyword!r} should be in the same case")


def _description(raw: Raw, keyword: str, names: list[str]) -> Iterator[Warning]:
    if raw.comments and names and raw.comments[-1].split(" ")[0] not in names:
        name = names[0] if len(names) == 1 else "NAME"
        yield _warning("InvalidDefinitionDescription", raw.line,
                       f"the comment above {keyword} describes it only as '# {name} <description>'; else leave a line empty between them")


def _casing(instructions: Sequence[ins.Instruction]) -> Iterator[Warning]:
    first = next((index for index, item in enumerate(instructions) if isinstance(item, ins.From)), len(instructions))
    words = [item.raw.word for item in instructions[first:]]
    lower = sum(map(str.islower, words)) > sum(map(str.isupper, words))
    for item in instructions[first:]:
        word = item.raw.word
        if not (word.islower() if lower else word.isupper()):
            majority = "lower" if lower else "upper"
            yield _warning("ConsistentInstructionCasing", item.raw.line, f"{word} should be in {majority} case, as most instructions are")


def _names(instructions: Sequence[ins.Instruction]) -> Iterator[Warning]:
    seen: set[str] = set()
    for item in instructions:
        if isinstance(item, ins.From) and item.name:
            if item.name in ("context", "scratch"):
                yield _warning("ReservedStageName", item.raw.line, f"a stage should not be named {item.name}, which means something else")
            if item.name in seen:
                yield _warning("DuplicateStageName", item.raw.line, f"more than one stage is named {item.name}")
            seen.add(item.name)


# -- FROM


def _bases(instructions: Sequence[ins.Instruction], plan: Plan) -> Iterator[Warning]:
    values = {name: value for name, value in plan.globals.items() if value is not None}
    defaults = _defaults(instructions)
    for item in instructions:
        if not isinstance(item, ins.From):
            continue
        raw = item.raw
        for text in filter(None, (item.base, item.platform)):
            for name in sorted(_missing(raw, text, values) - plan.globals.keys()):
                yield _warning("UndefinedArgInFrom", raw.line, f"the argument {name} of FROM is not declared{_meant(name, plan.globals)}")
        if "$" in item.base and defaults is not None and not _is_reference(raw, item.base, defaults):
            yield _warning("InvalidDefaultArgInFrom", raw.line, f"with the defaults of its arguments {item.base} is no image's name")
        if item.platform:
            yield from _platform(item, values)


def _defaults(instructions: Sequence[ins.Instruction]) -> dict[str, str] | None:
    """The global arguments as they are without build arguments; None where one cannot be expanded."""
    values = platform_arguments()
    for item in instructions:
        if isinstance(item, ins.From):
            break
        for name, default in item.pairs if isinstance(item, ins.Arg) else ():
            if default is not None:
                try:
                    values[name] = examine(default, values, item.raw.escape).text
                except ExpansionError:
                    return None
    return values


def _missing(raw: Raw, text: str, values: Mapping[str, str]) -> frozenset[str]:
    try:
        return examine(text, values, raw.escape).missing
    except ExpansionError:
        return frozenset()


def _is_reference(raw: Raw, text: str, values: Mapping[str, str]) -> bool:
    try:
        reference.parse(examine(text, values, raw.escape).text)
    except ExpansionError:
        return True
    except UsageError:
        return False
    return True


def _platform(item: ins.From, values: Mapping[str, str]) -> Iterator[Warning]:
    try:
        expanded = examine(item.platform, values, item.raw.escape)
        found = normal_platform(expanded.text, f"linux/{architecture()}").split("/")
    except (ExpansionError, ValueError):
        return  # an error of its own
    if expanded.found == {"TARGETPLATFORM"} and not expanded.missing and expanded.text == values.get("TARGETPLATFORM"):
        yield _warning("RedundantTargetPlatform", item.raw.line, f"--platform={item.platform} is what FROM takes anyway")
    constant = not expanded.found and not expanded.missing
    if constant and found[0] not in item.name and found[1] not in item.name:
        yield _warning("FromPlatformFlagConstDisallowed", item.raw.line,
                       f"--platform={item.platform} is a constant: the stage is for no other platform, and its name does not say so")


# -- stages that are built


def _stages(plan: Plan, ignored: Callable[[str], bool] | None) -> Iterator[Warning]:
    ends: dict[int | None, tuple[bool, bool]] = {}
    for stage in plan.stages:  # each after the one that it stands on
        ends[stage.index] = yield from _stage(stage, ends.get(stage.base_stage, (False, False)), ignored)


def _stage(stage: Stage, begin: tuple[bool, bool], ignored: Callable[[str], bool] | None) -> Generator[Warning, None, tuple[bool, bool]]:
    """:param begin: is there a SHELL, and a WORKDIR, below? :returns: the same of this stage."""
    last: dict[str, Raw] = {}
    shell, placed = begin
    for item in stage.instructions[stage.triggers:]:
        raw = item.raw
        match item:
            case ins.Cmd() | ins.Entrypoint() | ins.HealthCheck():
                if raw.keyword in last:
                    yield _warning("MultipleInstructionsDisallowed", last[raw.keyword].line,
                                   f"there is another {raw.keyword} in this stage, and only the last one counts")
                last[raw.keyword] = raw
                if not isinstance(item, ins.HealthCheck) and item.command.shell and not shell:
                    yield _warning("JSONArgsRecommended", raw.line, f"{raw.keyword} as a JSON list gets signals itself, not its shell")
            case ins.Shell():
                shell = True
            case ins.Workdir():
                if not placed and not item.path.startswith(("/", "$", '"', "'")):
                    yield _warning("WorkdirRelativePath", raw.line, f"where {item.path} is depends on the base image; write it from /")
                placed = True
            case ins.Env() | ins.Label() if item.legacy:
                yield _warning("LegacyKeyValueFormat", raw.line, f"write {raw.keyword} name=value, with '='")
            case ins.Expose():
                yield from _ports(item)
            case ins.Copy() if ignored is not None and not item.source_stage:
                for source in item.sources:
                    if "$" not in source and ignored(source):
                        yield _warning("CopyIgnoredFile", raw.line, f"{raw.keyword} of {source}, which .dockerignore leaves out")
        if isinstance(item, ins.Env | ins.Arg):
            for name, _ in item.pairs:
                if _SECRET.search(name) and not _PUBLIC.search(name):
                    yield _warning("SecretsUsedInArgOrEnv", raw.line,
                                   f"{raw.keyword} {name} stays in the image for all to read; use RUN --mount=type=secret")
    return shell, placed


def _ports(item: ins.Expose) -> Iterator[Warning]:
    for word in item.ports:
        try:
            port = ports.read(word)
        except ValueError:
            continue  # an error of its own, or a variable
        if port.protocol != port.protocol.lower():
            yield _warning("ExposeProtoCasing", item.raw.line, f"the protocol of {word} should be in lower case")
        if port.published:
            yield _warning("ExposeInvalidFormat", item.raw.line, f"EXPOSE takes ports alone; of {word} the rest counts for nothing")
