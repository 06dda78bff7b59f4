"""tm/premigrate: make a VM's disks ready on the host that it migrates to live.

Arguments and stdin: see actions/migration.py.
"""

from __future__ import annotations

from linstor_un.actions import migration
from linstor_un.actions.migration import Migration
from linstor_un.driver import Call
from linstor_un.hosts import directories
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Copy the VM's directory, attach and link every disk, call the other drivers.

    Releases before 7.4 call nothing after a failure of this action, so that it cleans the destination itself.
    """
    move = migration.begin(call)
    with Undo() as undo:
        undo.push(f"what was prepared on {move.target.host}", lambda: _abandon(move))
        if not move.is_relayed:
            source, target = move.action.host(move.source.host), move.action.host(move.target.host)
            directories.copy(source, _source_directory(move), target, move.target.directory)
        for disk in move.disks:
            migration.prepare(move, disk)
        migration.relay(call, move, "premigrate")


def _source_directory(move: Migration) -> str:
    """Return the VM's directory on the source: that of the system datastore before the last one in its history."""
    parent, _, vm = move.target.directory.rpartition("/")
    return f"{parent.rpartition('/')[0]}/{migration.source_datastore(move)}/{vm}"


def _abandon(move: Migration) -> None:
    if move.is_on_one_host:
        return
    unlinked = migration.remove_directory(move, move.target, move.source)
    migration.leave(move, move.target.host, move.source.host, unlinked)
