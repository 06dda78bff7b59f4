"""`./dev matrix`: the main flows with every release of OpenNebula and LINSTOR that is supported, and on all layers."""

from __future__ import annotations

import os
import random
import re
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from tests import commands, page
from tests.faults.stage import die_with_parent
from tests.linstor_un.scenes import NOTHING, what_is_left
from tests.matrix.flows import FLOWS
from tests.matrix.rows import ROWS, Row
from tests.matrix.stage import Stage, stage

COMMAND = "./dev matrix"
# Of a row that has many flows, so many are played in one world, so that rows share the processes evenly.
_FLOWS_OF_A_JOB = 8
_DRAWN_OF_A_ROW = 3
PASSED, FAILED, LACKING, UNTRIED = "✓", "✗", "–", " "


@dataclass
class Outcome:
    """What came of flows of a row: PASSED, FAILED or LACKING, and why."""

    row: str
    results: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def key(row: Row) -> str:
    """The row's name among all tables'."""
    return f"{row.table} {row.name}"


def _row(name: str) -> Row:
    return next(row for row in ROWS if key(row) == name)


def run(name: str, flows: Sequence[str]) -> Outcome:
    """Play flows of a row, one after the other in one world; after one that fails in another."""
    row = _row(name)
    outcome = Outcome(name)
    left = [flow for flow in flows if not FLOWS[flow].lacks(row)]
    outcome.results.update({flow: LACKING for flow in flows if flow not in left})
    while left:
        current = left[0]
        try:
            with stage(row) as found:
                while left:
                    current = left[0]
                    _play(found, current)
                    outcome.results[left.pop(0)] = PASSED
        except Exception:
            outcome.results[current] = FAILED
            outcome.wrong[current] = traceback.format_exc()
            left = [flow for flow in left if flow != current]
            print(f"\n{COMMAND} '{name} / {current}'\n{outcome.wrong[current]}", flush=True)
    return outcome


def _play(found: Stage, name: str) -> None:
    FLOWS[name].play(found)
    found.delete_all()
    found.check_calls()
    assert what_is_left(found.world) == NOTHING


def cells(pattern: str) -> list[tuple[str, str]]:
    """All rows with all their flows whose names `table row / flow` match."""
    every = [(key(row), flow) for row in ROWS for flow in FLOWS if row.plays(flow)]
    return [(row, flow) for row, flow in every if re.search(pattern, f"{row} / {flow}")]


def drawn(seed: str, count: int, every: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """So many of them, the same ones for the same seed; several of a row, whose world takes longer than a flow."""
    chance = random.Random(seed)
    rows = list(dict.fromkeys(row for row, _ in every))
    found = []
    for row in chance.sample(rows, min(-(-count // _DRAWN_OF_A_ROW), len(rows))):
        flows = [cell for cell in every if cell[0] == row and not FLOWS[cell[1]].lacks(_row(row))]
        found += chance.sample(flows, min(_DRAWN_OF_A_ROW, len(flows)))
    return found[:count]


def jobs(wanted: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """What is played in one world."""
    found: dict[str, list[str]] = {}
    for row, flow in wanted:
        found.setdefault(row, []).append(flow)
    size = _FLOWS_OF_A_JOB
    return [(row, flows[at : at + size]) for row, flows in found.items() for at in range(0, len(flows), size)]


def main(arguments: list[str]) -> int:
    """Play what is asked for and say what came of it; 0 when all is well."""
    options = commands.options(COMMAND, __doc__ or "", arguments, "flows")
    # The entry scripts keep their bytecode, as an installation does.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    wanted = cells(options.pattern)
    if options.sample:
        wanted = drawn(options.seed, options.sample, wanted)
    if options.list:
        print("\n".join(f"{row} / {flow}" for row, flow in wanted))
        return 0
    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    with ProcessPoolExecutor(options.processes, initializer=die_with_parent) as pool:
        for job in as_completed([pool.submit(run, *job) for job in jobs(wanted)]):
            new = job.result()
            known = outcomes.setdefault(new.row, Outcome(new.row))
            known.results.update(new.results)
            known.wrong.update(new.wrong)
    shown = commands.told(tables(outcomes), COMMAND, arguments, started, options.processes)
    print(f"\n{shown}")
    if options.table:
        page.put(options.table, COMMAND, shown)
    return 1 if any(outcome.wrong for outcome in outcomes.values()) else 0


def tables(outcomes: dict[str, Outcome]) -> str:
    """A table for each kind of rows in Markdown, which are its columns here: there are more flows than rows."""
    parts = []
    for table in dict.fromkeys(row.table for row in ROWS):
        rows = [row for row in ROWS if row.table == table and key(row) in outcomes]
        flows = [flow for flow in FLOWS if any(flow in outcomes[key(row)].results for row in rows)]
        if flows:
            parts += ["\n".join(_table(table, rows, flows, outcomes))]
    return "\n\n".join(parts)


def _table(table: str, rows: Sequence[Row], flows: Sequence[str], outcomes: dict[str, Outcome]) -> list[str]:
    head = [f"| {table} | {' | '.join(row.name for row in rows)} |", f"|---|{':-:|' * len(rows)}"]
    found = [[outcomes[key(row)].results.get(flow, UNTRIED) for row in rows] for flow in flows]
    return head + [f"| {flow} | {' | '.join(results)} |" for flow, results in zip(flows, found)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
