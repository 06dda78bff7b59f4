"""tm/snap_revert: give a disk of a VM that does not run the content of a snapshot; younger snapshots stay.

Unless OpenNebula forgets them (ALLOW_ORPHANS="LINEAR", from 7.0 on).

Arguments: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un.actions import backup_chain, cloning, disk_snapshot, rollback
from linstor_un.cluster import snapshots
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Roll the volume back.

    What fails after the volume has changed is a warning: oned would else believe that the disk is as it was.
    """
    wanted = disk_snapshot.begin(call)
    action = wanted.action
    with action.lock(wanted.resource):
        snapshots.check_can_roll_back(action.gateway, action.names, wanted.resource, wanted.name)
        if action.has_backups and not snapshots.rolls_back_to_any(action.gateway):
            # What backups have kept may be younger: the next increment has all of the disk.
            backup_chain.forget(action.gateway, wanted.resource, action.vm_id)
        if wanted.disk.is_image:
            cloning.forget_base(action.gateway, wanted.resource)
        rollback.roll_back(action, wanted.place, wanted.disk, wanted.name)
        if action.vm is not None and wanted.disk.disk_id in action.vm.linear_disks:
            snapshots.forget_younger(action.gateway, action.names, wanted.resource, wanted.name)
