"""Taking the disk of a VM that does not run back to a snapshot."""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import attachment, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.errors import DriverError
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo


def roll_back(action: Transfer, place: Place, disk: Disk, name: str) -> None:
    """Roll the disk's volume back and offer it to the VM's host again, where LINSTOR may have taken it away.

    What fails after the volume has changed is a warning. Raises as snapshots.roll_back.
    """
    resource = action.resource(disk)
    attachment.roll_back(action.gateway, resource, name, lambda: _detach(action, place, disk, resource))
    try:
        if not action.is_parked(place.host):
            with Undo() as undo:
                transfer.offer(action, undo, place, disk._replace(size_mib=0))
    except DriverError as error:
        log.warning(f"{resource} is rolled back and not yet back on {place.host}: {error}")
    _detach(action, place, disk, resource)


def _detach(action: Transfer, place: Place, disk: Disk, resource: str) -> None:
    """Detach the volume elsewhere, where the rollback has attached it; another VM may have a shared image anywhere."""
    if not disk.is_shared:
        attachment.detach_rolled_back(action.gateway, resource, place.host)
