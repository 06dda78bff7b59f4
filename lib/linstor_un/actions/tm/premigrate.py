"""tm/premigrate: make a VM's disks ready on the host that it migrates to live.

Arguments and stdin: see actions/migration.py.
"""

from __future__ import annotations

from linstor_un.actions import migration
from linstor_un.driver import Call
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Attach every disk, copy the VM's directory with links to them, call the other drivers.

    Releases before 7.4 call nothing after a failure of this action, so that it cleans the destination itself.
    """
    move = migration.begin(call)
    with Undo() as undo:
        prepared = f"what was prepared on {move.target.host}"
        undo.push(prepared, lambda: migration.leave(move, move.target, migration.source_place(move)))
        migration.offer(move)
        migration.link(move)
        migration.relay(call, move, "premigrate", undo)
