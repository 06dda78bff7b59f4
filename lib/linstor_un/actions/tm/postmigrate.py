"""tm/postmigrate: let go of a VM's disks on the host that it has left live.

Arguments and stdin: see actions/migration.py.
"""

from __future__ import annotations

from linstor_un.actions import migration
from linstor_un.actions.migration import Migration
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Take two primaries back, detach and unlink the source's disks, call the other drivers."""
    moves = migration.begin(call)
    try:
        migration.of_each(moves, _leave)
    finally:
        migration.relay(call, moves[0], "postmigrate")


def _leave(move: Migration) -> None:
    migration.link_in_new_datastore(move)
    migration.leave(move, migration.source_place(move), move.target)
    migration.adopt(move)
    migration.tidy(move)
