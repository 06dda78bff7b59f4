"""tm/premigrate: make a VM's disks ready on the host that it migrates to live.

Arguments and stdin: see actions/migration.py.
"""

from __future__ import annotations

from functools import partial

from linstor_un.actions import migration
from linstor_un.driver import Call
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Attach every disk, copy the VM's directory with links to them, call the other drivers.

    Releases before 7.4 call nothing after a failure of this action, so that it cleans the destination itself.
    """
    moves = migration.begin(call)
    with Undo() as undo:
        for move in moves:
            prepared = f"what was prepared on {move.target.host}"
            undo.push(prepared, partial(migration.leave_target, move))
            migration.offer(move)
            migration.link(move)
        migration.relay(call, moves[0], "premigrate", undo)
