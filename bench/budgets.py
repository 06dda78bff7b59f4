"""What the design allows, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from bench.figures import FIGURES, Results, Row
from bench.setting import Table

FINDING = 1
"""With so many requests an action finds the controller and its version."""
# The minimal sequence of requests of each row, beyond that.
REQUESTS = {
    "datastore/stat, raw": 0,
    "datastore/stat, gzip": 0,
    "datastore/stat, qcow2": 0,
    "datastore/cp, raw": 1,
    "datastore/cp, gzip": 1,
    "datastore/cp, qcow2": 1,
    "datastore/mkfs": 1,
    "datastore/mkfs, ext4": 1,
    "datastore/clone": 4,
    "datastore/monitor": 1,
    "datastore/rm": 1,
    "datastore/rm, that VMs were cloned from": 4,
    "datastore/export": 7,
    "datastore/snap_delete": 1,
    "datastore/snap_revert": 1,
    "tm/clone, first of an image": 7,
    "tm/clone, later": 4,
    "tm/clone, without a replica": 5,
    "tm/clone, larger": 5,
    "tm/clone, by copy": 5,
    "tm/clone": 4,
    "tm/ln": 1,
    "tm/ln, of a CDROM": 1,
    "tm/mkimage, plain": 2,
    "tm/mkimage, ext4": 2,
    "tm/mkswap": 2,
    "tm/context": 0,
    "tm/resize, running": 2,
    "tm/resize, off": 2,
    "tm/snap_create": 1,
    "tm/snap_create_live": 1,
    "tm/snap_revert": 1,
    "tm/snap_delete": 1,
    # Three disks, by a controller that does not manage two primaries itself.
    "tm/premigrate": 9,
    "tm/postmigrate": 6,
    "tm/failmigrate": 6,
    "tm/mv, to a host with replicas": 2,
    "tm/mv, to a host without": 2,
    "tm/mvds": 2,
    "tm/delete": 1,
    "tm/delete, of a CDROM": 2,
    "tm/delete of a directory": 1,
    "tm/monitor": 1,
}


def requests(row: str) -> Optional[int]:
    """How many LINSTOR requests a row may make; None where nothing is said."""
    least = REQUESTS.get(row)
    return None if least is None else least + (FINDING if least else 0)


@dataclass(frozen=True)
class Budget:
    """`most` of a figure for each row of a part whose name begins so, or at least so much where the figure `falls`."""

    part: str
    figure: str
    limit: float
    rows: str = ""
    without: str = "\n"

    @property
    def falls(self) -> bool:
        """The measured value must not be below the limit."""
        return FIGURES[self.figure].falls

    def of(self, results: Results) -> list[Row]:
        """The rows that it is about."""
        found = [row for row in results.parts.get(self.part, []) if row.figures.get(self.figure)]
        return [row for row in found if row.name.startswith(self.rows) and self.without not in row.name]

    def holds(self, row: Row) -> bool:
        """For one row."""
        value = row.median(self.figure)
        return value >= self.limit if self.falls else value <= self.limit


BUDGETS = (
    Budget("startup", "cpu_ratio", 1.3),
    Budget("actions", "cpu_ratio", 1.3),
    Budget("actions", "memory_mib", 60),
    Budget("actions", "ssh_per_host", 1),
    Budget("actions", "oned", 1),
    Budget("data", "copy_ratio", 0.9),
    Budget("data", "memory_mib", 60),
    Budget("clone", "requests", 4, "a later VM"),
    Budget("monitor", "cpu_ms", 2000, "datastore/monitor"),
    Budget("monitor", "cpu_ms", 2000, "tm/monitor"),
    Budget("monitor", "memory_mib", 100),
    Budget("monitor", "requests", 3, "datastore/monitor"),
    Budget("monitor", "requests", 3, "tm/monitor"),
    Budget("crowd", "share", 15, "all"),
)


def tables(results: Results) -> list[Table]:
    """Every budget of what was measured, with the row that comes nearest to it or is farthest beyond."""
    lines = [_line(budget, budget.of(results)) for budget in BUDGETS if budget.of(results)]
    lines = [*_requests(results), *lines]
    return [Table("Budgets", ["part", "figure", "limit", "worst", "holds"], lines)] if lines else []


def _line(budget: Budget, rows: Sequence[Row]) -> list[str]:
    figure = FIGURES[budget.figure]
    worst = sorted(rows, key=lambda row: row.median(budget.figure), reverse=not budget.falls)[0]
    limit = f"{'at least' if budget.falls else 'at most'} {budget.limit:g} {figure.unit}".rstrip()
    return [budget.part, figure.meaning, limit, f"{worst.shown(budget.figure)}: {worst.name}", _verdict(budget, rows)]


def _verdict(budget: Budget, rows: Sequence[Row]) -> str:
    missed = sum(not budget.holds(row) for row in rows)
    return "yes" if not missed else f"missed by {missed} of {len(rows)}" if len(rows) > 1 else "missed"


def _requests(results: Results) -> Iterator[list[str]]:
    """That of each action's requests, in one line."""
    rows = [(row, allowed) for row in results.parts.get("actions", []) if (allowed := requests(row.name)) is not None]
    if not rows:
        return
    beyond = [(row.median("requests") - allowed, row, allowed) for row, allowed in rows]
    most, worst, allowed = max(beyond, key=lambda item: item[0])
    missed = sum(excess > 0 for excess, _, _ in beyond)
    yield [
        "actions",
        "LINSTOR requests",
        "minimal sequence",
        f"{worst.shown('requests')} for {allowed}: {worst.name}",
        "yes" if most <= 0 else f"missed by {missed} of {len(rows)}",
    ]
