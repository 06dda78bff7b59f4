"""What was done to which volume: a line for people, a row for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from linstor_un.cli import output
from linstor_un.cli.output import Report

DONE, NOTHING, WOULD, FAILED, REFUSED = "done", "nothing", "would", "failed", "refused"
_COLOURS = {DONE: "green", FAILED: "red", REFUSED: "yellow"}
COLUMNS = ("outcome", "volume", "node", "step", "note")


class Told(NamedTuple):
    """A step and what came of it; `note` says why, or what follows."""

    outcome: str
    volume: str
    node: str
    step: str
    note: str = ""


def is_agreed(report: Report, plan: Sequence[tuple[str, str]], dry_run: bool, yes: bool) -> bool:
    """Tell whether a plan, steps with what follows from each, is to be done; shows it, unless it was agreed to."""
    if dry_run or not yes:
        for step, note in plan:
            report.say(f"This would {step}" + (f" ({note})" if note else ""))
    return output.is_agreed(report, "Do it?", dry_run, yes)


def line(report: Report, told: Told) -> None:
    """Print a line for people, who have been shown before what would be done."""
    if told.outcome == WOULD:
        return
    text = f"{told.outcome:<8} {told.step}" + (f": {told.note}" if told.note else "")
    report.say(text, _COLOURS.get(told.outcome))


def rows(report: Report, told: Sequence[Told]) -> None:
    """Print the rows for programs; people have read the lines."""
    if not report.is_for_people:
        report.rows(COLUMNS, told)
