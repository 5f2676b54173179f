"""One declaration per verb. Parser, help, completion and the reference page are all made from it.

Command lines are read by the rules of Docker's own parser (pflag): a value may begin with a dash (``-e -x``), a switch may
be told ``--rm=false``, short switches join (``-it``), and once a verb takes a container's command, everything after its last
positional argument belongs to the container and is never read. argparse differs in each of these points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, near

if TYPE_CHECKING:
    from .frontend import Context

Function = Callable[["Context", SimpleNamespace, "str | None"], Any]
"""``(context, arguments, body) -> object to show``; raises a ContainersError."""

_TRUE, _FALSE = {"1", "t", "true", "yes"}, {"0", "f", "false", "no"}


@dataclass(frozen=True)
class Option:
    """One option of a verb.

    :param flags: as written, the long form first: ``("--detach", "-d")``.
    :param help: one line, no full stop.
    :param metavar: name of the value; "" makes it a switch.
    :param many: may be given several times (the value is a list).
    :param convert: makes the value from text; raises UsageError or ValueError.
    :param host_path: ``whole``, ``volume`` (before the first colon), ``mount`` (``source=``), ``value`` (after the first ``=``) or
        ``output`` (``src=``, ``dest=``, or whole where there is no ``=``): where ``$NAME`` and ``~`` of this machine are put in;
        everywhere else a dollar belongs to the container.
    :param completes: ``container``, ``running``, ``image``, ``set`` (of files), ``stage`` or ``argument`` (of a Dockerfile), ``file``,
        ``folder``, ``kernel`` (of an image), ``variable`` (of the notebook), or words separated by ``|``;
        ``install=image,remove=kernel``: by the first argument.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str = ""
    many: bool = False
    default: Any = None
    convert: Callable[[str], Any] | None = None
    host_path: str = ""
    completes: str = ""

    @property
    def dest(self) -> str:
        return self.flags[0].lstrip("-").replace("-", "_")

    @property
    def start(self) -> Any:
        """The value where the option is not given."""
        return [] if self.many else (bool(self.default) if not self.metavar else self.default)


@dataclass(frozen=True)
class Argument:
    """A positional argument. ``count``: ``1``, ``?``, ``*``, ``+``, or ``rest`` (the container's own words, never read)."""

    name: str
    help: str
    count: str = "1"
    completes: str = ""
    host_path: str = ""

    @property
    def dest(self) -> str:
        return self.name.lower().replace(" ", "_")

    @property
    def shown(self) -> str:
        name = self.name.upper()
        return {"1": name, "?": f"[{name}]", "*": f"[{name}...]", "+": f"{name} [{name}...]", "rest": f"[{name}...]"}[self.count]


@dataclass(frozen=True)
class Verb:
    """One verb: everything that any front end needs to know about it.

    :param body: whether the magic takes a cell body: ``none``, ``optional``, ``required``; ``body_help`` says what it is.
    """

    name: str
    summary: str
    function: Function
    options: tuple[Option, ...] = ()
    arguments: tuple[Argument, ...] = ()
    body: str = "none"
    body_help: str = ""
    group: str = "Containers"
    details: str = ""
    examples: tuple[str, ...] = ()

    def option(self, flag: str) -> Option | None:
        return next((option for option in self.options if flag in option.flags), None)

    @property
    def rest(self) -> bool:
        return bool(self.arguments) and self.arguments[-1].count == "rest"

    def usage(self, program: str) -> str:
        words = [program, self.name]
        if self.options:
            words.append("[OPTIONS]")
        return " ".join([*words, *[argument.shown for argument in self.arguments]])

    def help(self, program: str = "%container") -> str:
        """The help text of this verb, for a fixed-width page."""
        lines = [f"Usage: {self.usage(program)}", "", f"{self.summary}."]
        if self.details:
            lines += ["", self.details]
        if self.body != "none":
            lines += ["", f"Cell body ({self.body}): {self.body_help}."]
        if self.arguments:
            lines += ["", "Arguments:", *_columns((argument.shown, argument.help) for argument in self.arguments)]
        if self.options:
            lines += ["", "Options:", *_columns((flags(option), option.help) for option in self.options)]
        if self.examples:
            lines += ["", "Examples:", *[f"  {program.removesuffix(' ')} {example}" for example in self.examples]]
        return "\n".join(lines)


OUT = Option(("--out", "-o"), "keep the result in this variable instead of showing it", "NAME")
"""Of every magic: a cell magic cannot be assigned."""

HELP = Option(("--help", "-h"), "show this help")


def flags(option: Option) -> str:
    """``-m, --memory SIZE``, short form first, as in the help."""
    names = sorted(option.flags, key=len)
    return ", ".join(names) + (f" {option.metavar}" if option.metavar else "")


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    pairs = list(rows)
    width = min(34, max(len(left) for left, _ in pairs))
    return [f"  {left:<{width}}  {right}" for left, right in pairs]


_REGISTRY: dict[str, Verb] = {}


def declare(verb: Verb) -> Verb:
    """Put a verb into the registry; two of one name are a mistake of ours."""
    if verb.name in _REGISTRY:
        raise RuntimeError(f"verb {verb.name!r} is declared twice")
    _REGISTRY[verb.name] = verb
    return verb


_MODULES = (
    "run",
    "execute",
    "python",
    "lifecycle",
    "files",
    "listing",
    "logs",
    "events",
    "stats",
    "profile",
    "dashboard",
    "namespaces",
    "build",
    "inline",
    "builder",
    "images",
    "shipping",
    "kernel",
    "system",
)


@cache
def verbs() -> dict[str, Verb]:
    """All verbs in the order of the help page. The first call imports their modules."""
    package = __name__.rpartition(".")[0]
    for module in _MODULES:
        import_module(f"{package}.{module}")
    # Any module may have been imported before by somebody else: the order is that of the list, not of the imports.
    order = {f"{package}.{module}": place for place, module in enumerate(_MODULES)}
    return dict(sorted(_REGISTRY.items(), key=lambda item: order.get(item[1].function.__module__, len(order))))


def find(name: str) -> Verb:
    """The verb of this name, or UsageError with near names."""
    known = verbs()
    if name in known:
        return known[name]
    raise UsageError(f"unknown verb {name!r}", near(name, known) or "see: %container help")


@dataclass
class Walk:
    """What a walk over the words found: values so far, and what stands where the walk ended (completion asks that)."""

    values: dict[str, Any] = field(default_factory=dict)
    positionals: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    waiting: Option | None = None
    in_rest: bool = False
    help: bool = False


def walk(verb: Verb, words: Sequence[str]) -> Walk:
    """Read ``words`` by the rules of pflag. The last option may wait for its value; :func:`parse` refuses that."""
    found = Walk({option.dest: option.start for option in verb.options})
    fixed = len([argument for argument in verb.arguments if argument.count == "1"]) if verb.rest else -1
    plain = False
    for word in words:
        if found.in_rest:
            found.rest.append(word)
        elif found.waiting is not None:
            option, found.waiting = found.waiting, None
            _store(verb, found, option, option.flags[0], word)
        elif plain or not word.startswith("-") or word == "-":
            found.positionals.append(word)
            found.in_rest = len(found.positionals) == fixed
        elif word == "--":
            plain = True
        elif word.startswith("--"):
            _long(verb, found, word)
        else:
            _short(verb, found, word)
        if found.help:
            break
    return found


def parse(verb: Verb, words: Sequence[str]) -> SimpleNamespace:
    """The words of one command as attributes named after options and arguments. ``help`` is set for ``--help``.

    :raises UsageError: unknown option (with near names), missing or malformed value, wrong number of arguments.
    """
    found = walk(verb, words)
    values = SimpleNamespace(**found.values, help=found.help)
    if found.help:
        return values
    if found.waiting is not None:
        if words[-1] == "-h":  # --hostname without its value: whoever writes `run -h` asks for help
            values.help = True
            return values
        raise UsageError(f"option {found.waiting.flags[0]} of {verb.name} needs a value: {found.waiting.metavar}", _see(verb))
    left = list(found.positionals)
    for index, argument in enumerate(verb.arguments):
        later = sum(other.count in ("1", "+") for other in verb.arguments[index + 1 :])
        if argument.count == "rest":
            setattr(values, argument.dest, tuple(found.rest))
        elif argument.count in ("*", "+"):
            taken = left[: len(left) - later]
            if argument.count == "+" and not taken:
                raise UsageError(f"{verb.name} needs {argument.name.upper()}: {argument.help}", _see(verb))
            setattr(values, argument.dest, taken)
            left = left[len(taken) :]
        elif left and (argument.count == "1" or len(left) > later):
            setattr(values, argument.dest, left.pop(0))
        elif argument.count == "?":
            setattr(values, argument.dest, None)
        else:
            raise UsageError(f"{verb.name} needs {argument.name.upper()}: {argument.help}", _see(verb))
    if left:
        raise UsageError(f"{verb.name} takes no argument {left[0]!r}", _see(verb))
    return values


def _see(verb: Verb) -> str:
    return f"usage: {verb.usage('%container')}"


def _unknown(verb: Verb, flag: str) -> UsageError:
    # One letter resembles every other: near names are offered for long options alone.
    known = [name for option in verb.options for name in option.flags if name.startswith("--") and flag.startswith("--")]
    return UsageError(f"{verb.name} has no option {flag}", near(flag, known) or f"see: %container help {verb.name}")


def _long(verb: Verb, found: Walk, word: str) -> None:
    flag, equals, value = word.partition("=")
    option = verb.option(flag)
    if option is None:
        if flag != "--help":
            raise _unknown(verb, flag)
        found.help = True
    elif not option.metavar:
        _store(verb, found, option, flag, value if equals else "true")
    elif equals:
        _store(verb, found, option, flag, value)
    else:
        found.waiting = option


def _short(verb: Verb, found: Walk, word: str) -> None:
    """``-it``, ``-p8080:80``, ``-m=64m``."""
    letters = word[1:]
    while letters:
        flag, letters = "-" + letters[0], letters[1:]
        option = verb.option(flag)
        if option is None:
            # `-h` is --hostname for run, as in Docker; where no option has it, and nothing follows, it asks for help.
            if flag != "-h" or letters:
                raise _unknown(verb, flag)
            found.help = True
        elif not option.metavar:
            value = letters[1:] if letters.startswith("=") else "true"
            letters = "" if letters.startswith("=") else letters
            _store(verb, found, option, flag, value)
        elif letters:
            _store(verb, found, option, flag, letters.removeprefix("="))
            letters = ""
        else:
            found.waiting = option


def _store(verb: Verb, found: Walk, option: Option, flag: str, text: str) -> None:
    value: Any = text
    if not option.metavar:
        if text.lower() not in _TRUE | _FALSE:
            raise UsageError(f"option {flag} of {verb.name} is a switch, not {text!r}", f"write {flag} alone, or {flag}=false")
        value = text.lower() in _TRUE
    elif option.convert is not None:
        try:
            value = option.convert(text)
        except ValueError:
            raise UsageError(f"option {flag} of {verb.name}: {text!r} is not a {option.metavar}", _see(verb)) from None
    if option.many:
        found.values[option.dest].append(value)
    else:
        found.values[option.dest] = value
