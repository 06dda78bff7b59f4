"""tm/failmigrate: undo premigrate: the VM runs on at its source, and nothing is left at the destination.

Arguments and stdin: see actions/migration.py.
"""

from __future__ import annotations

from linstor_un.actions import migration
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Take two primaries back, detach and unlink the destination's disks, call the other drivers."""
    moves = migration.begin(call)
    try:
        migration.of_each(moves, migration.leave_target)
    finally:
        migration.relay(call, moves[0], "failmigrate")
