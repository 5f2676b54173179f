"""Writes docs/reference.md from the declarations: ``python -m pycontainers.commands.reference > docs/reference.md``."""

from __future__ import annotations

from .declare import Verb, flags, verbs

_INTRODUCTION = """# Reference of all verbs

Made from the declarations in `pycontainers/commands/` by `python -m pycontainers.commands.reference`; a test keeps it true.

Every verb is the same in a cell (`%container VERB …`, `%%container VERB …` with a body) and in a shell (`pycontainers VERB …`).
In a cell `{name}` is replaced by the value of the Python variable `name`, `%%container -o NAME VERB …` keeps the result
in the variable `NAME`, and a `;` at the end hides the result. Exit codes of the program are Docker's: 125 for a request that
is wrong, 126 and 127 for a command that cannot be executed or does not exist, else the container's own.
"""


def page() -> str:
    """The whole page."""
    known = list(verbs().values())
    parts = [_INTRODUCTION]
    for group in dict.fromkeys(verb.group for verb in known):
        parts.append(f"## {group}\n")
        parts += [section(verb) for verb in known if verb.group == group]
    return "\n".join(parts)


def section(verb: Verb) -> str:
    lines = [f"### {verb.name}", "", f"{verb.summary}.", "", "```", verb.usage("%container"), "```", ""]
    if verb.details:
        lines += [verb.details, ""]
    if verb.body != "none":
        lines += [f"Cell body ({verb.body}): {verb.body_help}.", ""]
    if verb.arguments or verb.options:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{argument.shown}` | {_cell(argument.help)} |" for argument in verb.arguments]
        lines += [f"| `{flags(option)}` | {_cell(option.help)} |" for option in verb.options]
        lines.append("")
    if verb.examples:
        lines += ["```", *[f"%container {example}" for example in verb.examples], "```", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
