"""tm/snap_create_live: take a snapshot of a disk of a running VM.

Arguments: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un.actions import disk_snapshot
from linstor_un.driver import Call
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Hold the VM, take the snapshot, let the VM go; a VM that cannot be let go has no snapshot either."""
    wanted = disk_snapshot.begin(call)
    with wanted.action.lock(wanted.resource), Undo() as undo:
        wanted.push_removal(undo)
        disk_snapshot.take_live(wanted.action, wanted.place, {wanted.resource: wanted.name})
