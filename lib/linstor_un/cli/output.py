"""What the operators' command prints: tables for people, JSON and CSV for programs, colours on terminals only.

A table of our own, and not the library `rich`: the driver's front-end has click and what the actions need, and a few
columns are not worth another package with four of its own.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Callable, NamedTuple, Optional, TypeVar, Union

import click

Verb = Callable[..., None]
Cell = Union[str, int, float, bool, None]
DRY_RUN = "Nothing was changed: this was a dry run."
_GAP = "  "
_Seen = TypeVar("_Seen")


class Report(NamedTuple):
    """How this run prints: `form` is table, json or csv; `is_quiet` leaves out what nobody has to act on."""

    form: str = "table"
    is_quiet: bool = False

    @property
    def is_for_people(self) -> bool:
        """Tell whether words are read, and not parsed."""
        return self.form == "table"

    def say(self, text: str, colour: Optional[str] = None, bold: bool = False) -> None:
        """Print a line for people; with --quiet nothing."""
        if self.is_for_people and not self.is_quiet:
            click.secho(text, fg=colour, bold=bold or None)

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Print rows; the names of the columns are in small letters, as JSON and CSV have them."""
        if self.form == "json":
            click.echo(json.dumps([dict(zip(columns, row)) for row in rows], indent=2))
        elif self.form == "csv":
            click.echo(_csv(columns, rows), nl=False)
        elif rows:
            click.echo("\n".join(_table(columns, rows, not self.is_quiet)))


_Item = TypeVar("_Item")


def progress(report: Report, items: Sequence[_Item], label: str) -> Iterator[_Item]:
    """Yield the items with a bar that says how far it is, for people at a terminal."""
    if not items or not report.is_for_people or report.is_quiet or sys.stderr is None or not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, label=label, file=sys.stderr) as bar:
        yield from bar


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], has_head: bool) -> list[str]:
    """Return the lines of a table: numbers to the right, and nothing cut off, so that names can be copied."""
    shown = [["" if cell is None else str(cell) for cell in row] for row in rows]
    head = [name.upper().replace("_", " ") for name in columns]
    widths = [max(len(cell) for cell in column) for column in zip(*([head] if has_head else []), *shown)]
    is_number = [all(isinstance(cell, (int, float)) for cell in column) for column in zip(*rows)]
    lines = []
    for number, cells in enumerate([head, *shown] if has_head else shown):
        padded = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(cells, widths, is_number)
        ]
        line = _GAP.join(padded).rstrip()
        lines.append(click.style(line, bold=True) if has_head and number == 0 else line)
    return lines


def reporting(function: Verb) -> Verb:
    """Give a verb the options for its output; it gets a Report as `report`."""

    @functools.wraps(function)
    def with_report(as_json: bool, as_csv: bool, quiet: bool, **others: object) -> None:
        if as_json and as_csv:
            raise click.UsageError("--json and --csv exclude each other.")
        function(report=Report("json" if as_json else "csv" if as_csv else "table", quiet), **others)

    return _with_options(
        with_report,
        _flag("-j", "--json", "as_json", help="Print JSON."),
        _flag("--csv", "as_csv", help="Print comma-separated values."),
        _flag("-q", "--quiet", help="Print only what needs attention; no headings."),
    )


def changing(function: Verb) -> Verb:
    """Give a verb that changes something --dry-run and --yes; it gets `dry_run` and `yes`."""
    return _with_options(
        function,
        _flag("-n", "--dry-run", help="Show what would be done, and do nothing."),
        _flag("-y", "--yes", help="Do not ask."),
    )


def _flag(*names: str, help: str) -> Callable[[Verb], Verb]:
    return click.option(*names, is_flag=True, help=help)


def _with_options(function: Verb, *options: Callable[[Verb], Verb]) -> Verb:
    for option in reversed(options):
        function = option(function)
    return function


def repeatedly(
    report: Report, seconds: Optional[float], look: Callable[[], _Seen], show: Callable[[_Seen], object]
) -> None:
    """Look and show once, or again and again where there are `seconds` between; a terminal shows the last only."""
    if seconds is None:
        show(look())
        return
    # Ctrl-C is how this is meant to end.
    with suppress(KeyboardInterrupt):
        while True:
            seen = look()
            if report.is_for_people:
                click.clear()
            show(seen)
            time.sleep(seconds)


def is_agreed(report: Report, question: str, dry_run: bool, yes: bool) -> bool:
    """Tell whether what was shown is to be done; asks the operator, for which there has to be a terminal."""
    if dry_run:
        report.say(DRY_RUN)
        return False
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask: say --yes, or --dry-run to look only.")
    if not click.confirm(question, err=True):
        report.say("Nothing was changed.")
        return False
    return True
