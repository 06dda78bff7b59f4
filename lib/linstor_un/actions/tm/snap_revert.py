"""tm/snap_revert: give a disk of a VM that does not run the content of a snapshot; younger snapshots stay.

Arguments: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import attachment, cloning, disk_snapshot, transfer
from linstor_un.actions.disk_snapshot import DiskSnapshot
from linstor_un.cluster import snapshots
from linstor_un.driver import Call
from linstor_un.errors import DriverError
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Roll the volume back and offer it to the VM's host again, where LINSTOR may have taken it away.

    What fails after the volume has changed is a warning: oned would else believe that the disk is as it was.
    """
    wanted = disk_snapshot.begin(call)
    action = wanted.action
    with action.lock(wanted.resource):
        snapshots.check_can_roll_back(action.gateway, action.names, wanted.resource, wanted.name)
        if wanted.disk.is_image:
            cloning.forget_base(action.gateway, wanted.resource)
        attachment.roll_back(action.gateway, wanted.resource, wanted.name, lambda: _detach(wanted))
        try:
            if not action.is_parked(wanted.place.host):
                with Undo() as undo:
                    transfer.offer(action, undo, wanted.place, wanted.disk._replace(size_mib=0))
        except DriverError as error:
            log.warning(f"{wanted.resource} is rolled back and not yet back on {wanted.place.host}: {error}")
        _detach(wanted)


def _detach(wanted: DiskSnapshot) -> None:
    """Detach the volume elsewhere, where the rollback has attached it; another VM may have a shared image anywhere."""
    if not wanted.disk.is_shared:
        attachment.detach_rolled_back(wanted.action.gateway, wanted.resource, wanted.place.host)
