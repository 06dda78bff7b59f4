"""Man pages of linstor-un and its verbs, from what --help says.

Of our own, and not by click-man: that knows neither verbs that are loaded late nor lines that stay as they are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from inspect import cleandoc

import click

from linstor_un import __version__
from linstor_un.cli.verbs import VERBS, command

_NAME = "linstor-un"
_VERBATIM = "\b"
# The documentation's place in the packages.
_DOCUMENTATION = "/usr/share/doc/linstor-un"
_HEADINGS = {"Examples": "EXAMPLES", "Exit codes": "EXIT STATUS"}


def pages(epoch: int) -> dict[str, str]:
    """Return the pages by the name of their file, dated `epoch` seconds."""
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    return {f"{context.command_path.replace(' ', '-')}.1": _page(context, date) for context in _contexts()}


def _contexts() -> Iterator[click.Context]:
    """Yield linstor-un, its verbs, and theirs."""
    waiting = [click.Context(command, info_name=_NAME, **command.context_settings)]
    while waiting:
        context = waiting.pop()
        yield context
        waiting += [click.Context(verb, context, info_name=name) for name, verb in _verbs(context)]


def _verbs(context: click.Context) -> list[tuple[str, click.Command]]:
    group = context.command
    if not isinstance(group, click.Group):
        return []
    found = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [(name, verb) for name, verb in found if verb is not None]


def _page(context: click.Context, date: str) -> str:
    title = context.command_path.replace(" ", "-")
    paragraphs = re.split(r"\n\n+", cleandoc(context.command.help or "").strip())
    lines = [
        f'.TH "{title.upper()}" "1" "{date}" "linstor_un {__version__}" "linstor_un"',
        ".SH NAME",
        f"{_escaped(title)} \\- {_escaped(' '.join(paragraphs[0].split()).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_escaped(context.command_path)}",
        _escaped(" ".join(context.command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_description([text for text in paragraphs if _heading(text) is None]),
        *_options(context),
        *_commands(context, title),
        *(line for text in paragraphs if (heading := _heading(text)) for line in _section(heading, text)),
        ".SH SEE ALSO",
        *_see_also(context),
    ]
    return "\n".join(lines) + "\n"


def _description(paragraphs: list[str]) -> Iterator[str]:
    for number, text in enumerate(paragraphs):
        if number:
            yield ".PP"
        if text.startswith(_VERBATIM):
            yield from _verbatim(text.splitlines()[1:])
        else:
            yield _escaped(" ".join(text.split()))


def _heading(text: str) -> str | None:
    """Return the title of the section that a paragraph is, None for one of the description."""
    lines = text.splitlines()
    return _HEADINGS.get(lines[1].rstrip(":")) if lines[0] == _VERBATIM and len(lines) > 1 else None


def _section(heading: str, text: str) -> Iterator[str]:
    yield f".SH {heading}"
    yield from _verbatim(line[2:] if line.startswith("  ") else line for line in text.splitlines()[2:])


def _verbatim(lines: Iterator[str] | list[str]) -> Iterator[str]:
    yield ".nf"
    yield from (_escaped(line) for line in lines)
    yield ".fi"


def _options(context: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield ".TP"
            yield f"\\fB{_escaped(record[0])}\\fR"
            yield _escaped(record[1])


def _commands(context: click.Context, title: str) -> Iterator[str]:
    verbs = _verbs(context)
    if verbs:
        yield ".SH COMMANDS"
    for name, verb in verbs:
        yield ".TP"
        yield f"\\fB{_escaped(f'{title}-{name}')}\\fR(1)"
        yield _escaped(verb.get_short_help_str(limit=200) if context.parent else VERBS[name])


def _see_also(context: click.Context) -> list[str]:
    above = context.parent.command_path.replace(" ", "-") if context.parent else ""
    return [*([f"\\fB{_escaped(above)}\\fR(1),"] if above else []), f"the documentation in {_DOCUMENTATION}"]


def _escaped(text: str) -> str:
    """Return text of which roff takes nothing for its own."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
