"""What the design allows, and whether it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

from bench.figures import FIGURES, Results, Row
from bench.setting import Table

FINDING = 1
"""With so many requests an action finds the controller and its version."""

_MARK = "the mark of an incomplete volume"
_WHOSE = "which volume the disk has"
_LOOK = "a look behind it, since LINSTOR's success is not trusted"
_DELETED = f"{_WHOSE}, {_LOOK}"
_PROMISED = f"{_WHOSE}, can the pools promise it"


class Allowed(NamedTuple):
    """The minimal sequence of an action, beyond finding the controller; what the driver asks besides, and what for."""

    minimal: int
    besides: int = 0
    why: str = ""

    @property
    def requests(self) -> int:
        """All of them together."""
        asked = self.minimal + self.besides
        return asked + FINDING if asked else 0


REQUESTS = {
    "datastore/stat, raw": Allowed(0),
    "datastore/stat, gzip": Allowed(0),
    "datastore/stat, qcow2": Allowed(0),
    "datastore/cp, raw": Allowed(1, 1, _MARK),
    "datastore/cp, gzip": Allowed(1, 1, _MARK),
    "datastore/cp, qcow2": Allowed(1, 1, _MARK),
    "datastore/mkfs": Allowed(1, 1, _MARK),
    "datastore/mkfs, ext4": Allowed(1, 1, _MARK),
    "datastore/clone": Allowed(4),
    "datastore/monitor": Allowed(1),
    "datastore/rm": Allowed(1, 2, _DELETED),
    "datastore/rm, that VMs were cloned from": Allowed(4, 2, _DELETED),
    "datastore/export": Allowed(7),
    "datastore/snap_delete": Allowed(1, 1, _LOOK),
    "datastore/snap_revert": Allowed(1, 3, "the kept snapshot, and the replica that LINSTOR's rollback makes"),
    "tm/clone, first of an image": Allowed(7, 1, f"is there a kept snapshot; {_LOOK}, in the place of its deletion"),
    "tm/clone, later": Allowed(4),
    "tm/clone, without a replica": Allowed(5),
    "tm/clone, larger": Allowed(5, 2, "the size it has, can the pools promise the new one"),
    "tm/clone, by copy": Allowed(5),
    "tm/clone": Allowed(4),
    "tm/ln": Allowed(1, 1, "the image's kept snapshot"),
    "tm/ln, of a CDROM": Allowed(1),
    "tm/mkimage, plain": Allowed(2),
    "tm/mkimage, ext4": Allowed(2),
    "tm/mkswap": Allowed(2),
    "tm/context": Allowed(0),
    "tm/resize, running": Allowed(2, 2, _PROMISED),
    "tm/resize, off": Allowed(2, 2, _PROMISED),
    "tm/snap_create": Allowed(1, 2, _DELETED),
    "tm/snap_create_live": Allowed(1, 2, _DELETED),
    "tm/snap_revert": Allowed(1, 4, f"{_WHOSE}, attached and detached where LINSTOR's rollback needs it"),
    "tm/snap_delete": Allowed(1, 2, _DELETED),
    # Three disks, by a controller that does not manage two primaries itself.
    "tm/premigrate": Allowed(9, 3, "which volumes the disks have; where they are; is another moved already"),
    "tm/postmigrate": Allowed(6),
    "tm/failmigrate": Allowed(6),
    "tm/mv, to a host with replicas": Allowed(2),
    "tm/mv, to a host without": Allowed(2),
    "tm/mvds": Allowed(2, 1, "two primaries that a migration has left"),
    "tm/delete": Allowed(1, 2, _DELETED),
    "tm/delete, of a CDROM": Allowed(2),
    "tm/delete of a directory": Allowed(1),
    "tm/monitor": Allowed(1),
    # Of two disks: their snapshots in one request, and for each disk a volume to read, made and deleted.
    "tm/prebackup_live, full": Allowed(15, 7, f"{_WHOSE}, are all replicas connected; {_LOOK}"),
}


def requests(row: str) -> Optional[int]:
    """How many LINSTOR requests a row may make; None where nothing is said."""
    allowed = REQUESTS.get(row)
    return None if allowed is None else allowed.requests


@dataclass(frozen=True)
class Budget:
    """`most` of a figure for each row of a part whose name begins so, or at least so much where the figure `falls`.

    Rows that begin with any of `without` have budgets of their own.
    """

    part: str
    figure: str
    limit: float
    rows: str = ""
    without: tuple[str, ...] = ()

    @property
    def falls(self) -> bool:
        """The measured value must not be below the limit."""
        return FIGURES[self.figure].falls

    def of(self, results: Results) -> list[Row]:
        """The rows that it is about."""
        found = [row for row in results.parts.get(self.part, []) if row.figures.get(self.figure)]
        return [row for row in found if row.name.startswith(self.rows) and not row.name.startswith(self.without)]

    def holds(self, row: Row) -> bool:
        """For one row."""
        value = row.median(self.figure)
        return value >= self.limit if self.falls else value <= self.limit


# Each disk costs requests and connections of its own here: these are the limits for two.
_BACKUPS = ("tm/prebackup", "tm/restore")
BUDGETS = (
    Budget("startup", "cpu_ratio", 1.3),
    Budget("actions", "cpu_ratio", 1.3, without=_BACKUPS),
    Budget("actions", "cpu_ratio", 1.5, "tm/prebackup"),
    Budget("actions", "cpu_ratio", 1.8, "tm/restore"),
    Budget("actions", "memory_mib", 60),
    # Between the copy and the link LINSTOR is told that the content is complete.
    Budget("actions", "ssh_per_host", 1, without=(*_BACKUPS, "tm/clone, by copy")),
    Budget("actions", "ssh_per_host", 2, "tm/clone, by copy"),
    Budget("actions", "ssh_per_host", 6, "tm/prebackup"),
    Budget("actions", "ssh_per_host", 6, "tm/restore"),
    Budget("actions", "oned", 1, without=("tm/restore",)),
    # Which datastore a backup is in only its image says.
    Budget("actions", "oned", 2, "tm/restore"),
    Budget("data", "copy_ratio", 0.9),
    Budget("data", "memory_mib", 60),
    Budget("clone", "requests", 4 + FINDING, "a later VM"),
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
        "minimal sequence and what is said",
        f"{worst.shown('requests')} for {allowed}: {worst.name}",
        "yes" if most <= 0 else f"missed by {missed} of {len(rows)}",
    ]
