"""tm/snap_create: take a snapshot of a disk of a VM that does not run.

Arguments: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un.actions import disk_snapshot, transfer
from linstor_un.cluster import snapshots
from linstor_un.driver import Call
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Take the snapshot; one of this name that is there is this one, as ids are never used twice."""
    wanted = disk_snapshot.begin(call)
    with wanted.action.lock(wanted.resource), Undo() as undo:
        transfer.check_whole(wanted.action, wanted.place, wanted.resource)
        wanted.push_removal(undo)
        snapshots.take(wanted.action.gateway, wanted.resource, wanted.name)
