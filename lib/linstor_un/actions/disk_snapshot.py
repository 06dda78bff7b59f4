"""What the actions on a disk's snapshots begin with.

Arguments of all of them: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

from linstor_un.actions import transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import snapshots
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.hosts import virsh
from linstor_un.opennebula import arguments
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo


class DiskSnapshot(NamedTuple):
    """A snapshot of a disk: the volume is the image's own or the VM's, the name is the same for both."""

    action: Transfer
    place: Place
    disk: Disk
    resource: str
    name: str

    def push_removal(self, undo: Undo) -> None:
        """Have the snapshot removed where the action fails: oned forgets it then, whoever has made it."""
        gateway = self.action.gateway
        undo.push(f"snapshot {self.name}", lambda: snapshots.forget(gateway, self.resource, self.name))


def begin(call: Call) -> DiskSnapshot:
    """Decode and check the arguments; raises InvalidInput."""
    arguments.expect(call.arguments, "HOST:PATH", "SNAPID", "VMID", "DSID")
    place = arguments.disk_place(call.arguments[0], arguments.identifier(call.arguments[2], "VMID"))
    snapshot_id = arguments.identifier(call.arguments[1], "SNAPID")
    action = transfer.begin(call, place, arguments.identifier(call.arguments[3], "DSID"))
    disk = action.need_disk(place.disk_id)
    if disk.is_volatile:
        raise InvalidInput(f"Disk {place.disk_id} of VM {place.vm_id} is volatile: only images' disks have snapshots")
    resource = action.resource(disk)
    return DiskSnapshot(action, place, disk, resource, action.names.snapshot(snapshot_id, resource))


def take_live(action: Transfer, place: Place, wanted: Mapping[str, str], how: str = virsh.TRY) -> None:
    """Take snapshots of a running VM's volumes, by their names: the VM is held, as `how` says, for the one request.

    The connection to LINSTOR is made before, and what the answer means is found out afterwards; a controller that goes
    away meanwhile is waited for while the VM runs, and the VM held once more. Where any of it fails the snapshots are
    the caller's to remove.
    Raises CommandFailed where the VM can be neither held nor let go, and as snapshots.take.
    """
    if action.vm is None or not action.vm.deploy_id:
        raise InvalidInput(f"oned knows no domain of VM {place.vm_id}: call the action for a running VM")
    gateway, host, domain = action.gateway, action.host(place.host), arguments.domain(action.vm.deploy_id)

    def hold_and_take() -> Optional[bool]:
        with virsh.held(host, domain, gateway.connect, how):
            attempt = snapshots.attempt(gateway, wanted)
        return attempt.judge(gateway)

    gateway.once_connected(lambda: snapshots.until_judged(hold_and_take))
