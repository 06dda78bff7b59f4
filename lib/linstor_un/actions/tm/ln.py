"""tm/ln: give a VM the image's own volume: persistent, CDROM, immutable or shareable.

Arguments: FE:SOURCE HOST:SYSDIR/disk.N VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un.actions import cloning, mixed_mode, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import replicas
from linstor_un.driver import Call
from linstor_un.errors import InUse
from linstor_un.opennebula import arguments
from linstor_un.opennebula.arguments import Place
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Attach the image's volume on the host and link it; one that will be written to loses its base snapshot."""
    arguments.expect(call.arguments, "SOURCE", "HOST:PATH", "VMID", "DSID")
    source = arguments.source(call.arguments[0])
    place = arguments.disk_place(call.arguments[1], arguments.identifier(call.arguments[2], "VMID"))
    image_datastore = arguments.identifier(call.arguments[3], "DSID")
    action = transfer.begin(call, place, image_datastore)
    disk = action.need_disk(place.disk_id)
    if not disk.is_image or disk.source != source:
        raise transfer.not_its_image(action, disk, source)
    mixed_mode.check(action, disk)
    resource = action.resource(disk)
    transfer.check_has_image(action, call, image_datastore, resource)
    with action.lock_to_make(resource), Undo() as undo:
        if disk.is_shareable and disk.is_writable:
            _check_is_on_one_host(action, place, resource)
        if disk.is_writable:
            cloning.forget_base(action.gateway, resource)
        transfer.offer(action, undo, place, disk)


def _check_is_on_one_host(action: Transfer, place: Place, resource: str) -> None:
    """Check that no VM on another host writes to an image that several VMs may write to; raises InUse."""
    for replica in replicas.of(action.gateway, resource):
        if replica.in_use and replica.node.lower() != place.host.lower():
            raise InUse(
                f"{resource} is shareable and a VM on {replica.node} writes to it, which DRBD lets one host do at a "
                f"time: deploy VM {place.vm_id} on {replica.node}, or stop the other VM"
            )
