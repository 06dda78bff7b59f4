"""tm/snap_delete: delete a snapshot of a disk, also while its VM runs.

Arguments: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un.actions import disk_snapshot
from linstor_un.cluster import snapshots
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Delete the snapshot; absent is done."""
    wanted = disk_snapshot.begin(call)
    with wanted.action.lock(wanted.resource):
        snapshots.delete(wanted.action.gateway, wanted.resource, wanted.name)
