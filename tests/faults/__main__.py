"""`./dev faults`: everything that can go wrong, at every step of every action."""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from typing import Callable

from tests import commands, page
from tests.faults.cells import EXPORTED, WAIVERS, Cell, cells, check
from tests.faults.scenes import SCENES
from tests.faults.stage import Stage, die_with_parent, perform
from tests.faults.steps import record

COMMAND = "./dev faults"
# Of a part that is drawn, so many cells are of one scene, which takes longer to set up than a cell.
_DRAWN_OF_A_SCENE = 8
_PARTS = 2

Choose = Callable[[Sequence[Cell]], Sequence[Cell]]


@dataclass
class Outcome:
    """What came of cells of one scene; `wrong` says of each that failed what was wrong."""

    scene: str
    steps: int = 0
    names: list[str] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def row(self) -> str:
        """A row of the table."""
        count, failed = len(self.names), len(self.wrong)
        return f"| {self.scene} | {self.steps} | {count} | {count - failed} | {failed} |"


def run(name: str, choose: Choose, only_list: bool) -> Outcome:
    """Try the cells of a scene that are chosen from all that its record asks for."""

    def task(stage: Stage) -> Outcome:
        recorded = record(stage)
        chosen = choose(list(cells(SCENES[name], recorded)))
        outcome = Outcome(name, len(recorded.steps), [cell.name for cell in chosen])
        for cell in () if only_list else chosen:
            wrong = check(cell, stage, recorded)
            if wrong:
                outcome.wrong[cell.name] = wrong
                print("\n".join([f"\n{COMMAND} '{cell.name}$'", *(f"    {line}" for line in wrong)]), flush=True)
        return outcome

    try:
        return perform(SCENES[name], task)
    except Exception:
        print(f"\n{name} cannot be set up: {traceback.format_exc()}", flush=True)
        return Outcome(name, 0, [name], {name: ["it cannot be set up"]})


def matching(pattern: str, part: int, every: Sequence[Cell]) -> Sequence[Cell]:
    """One part of the cells whose names match."""
    return [cell for cell in every if re.search(pattern, cell.name)][part::_PARTS]


def drawn(seed: str, count: int, every: Sequence[Cell]) -> Sequence[Cell]:
    """So many cells, the same ones for the same seed."""
    return random.Random(seed).sample(every, min(count, len(every)))


def jobs(options: argparse.Namespace) -> list[tuple[str, Choose]]:
    """The scenes to be set up, and what chooses among the cells of each."""
    if options.sample:
        scenes = min(-(-options.sample // _DRAWN_OF_A_SCENE), len(SCENES))
        names = random.Random(options.seed).sample(list(SCENES), scenes)
        return [(name, partial(drawn, f"{options.seed} {name}", options.sample // scenes)) for name in names]
    named = [name for name in SCENES if options.pattern.startswith(f"{name}/")]
    names = named[-1:] or [name for name in SCENES if re.search(options.pattern, name)] or list(SCENES)
    return [(name, partial(matching, options.pattern, part)) for name in names for part in range(_PARTS)]


def main(arguments: list[str]) -> int:
    """Run the cells that are asked for and say what came of them; 0 when all is well."""
    options = commands.options(COMMAND, __doc__ or "", arguments, "cells")
    # The entry scripts keep their bytecode, as an installation does.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.monotonic()
    outcomes = {name: Outcome(name) for name in SCENES}
    with ProcessPoolExecutor(options.processes, initializer=die_with_parent) as pool:
        for job in as_completed([pool.submit(run, name, choose, options.list) for name, choose in jobs(options)]):
            _tell(outcomes, job.result(), options.list)
    found = table([item for item in outcomes.values() if item.names])
    shown = commands.told(found, COMMAND, arguments, started, options.processes)
    print(f"\n{shown}")
    if options.table:
        page.put(options.table, COMMAND, f"{shown}\n\n{waivers()}")
    return 1 if any(item.wrong for item in outcomes.values()) else 0


def _tell(outcomes: dict[str, Outcome], new: Outcome, only_list: bool) -> None:
    known = outcomes[new.scene]
    known.steps = new.steps
    known.names += new.names
    known.wrong.update(new.wrong)
    if only_list:
        print("\n".join(new.names))


def table(outcomes: Sequence[Outcome]) -> str:
    """The result per scene, in Markdown."""
    total = Outcome("all", sum(item.steps for item in outcomes))
    for item in outcomes:
        total.names += item.names
        total.wrong.update(item.wrong)
    head = ["| action | steps | faults tried | passed | failed |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*head, *(item.row() for item in [*outcomes, total])])


def waivers() -> str:
    """What may be left, and who takes it away."""
    rows = [f"- `{waiver.left}` in `{waiver.cells}`: {waiver.why}." for waiver in (*WAIVERS, EXPORTED)]
    return "\n".join(
        ["What an action that was killed, or failed at the step that is named, may leave until then:", "", *rows]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
