"""tm/mvds: take a persistent image back from a VM; its data is where it belongs already.

Arguments: HOST:SYSDIR/disk.N SOURCE VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import mixed_mode, removal, transfer
from linstor_un.driver import Call
from linstor_un.naming import drbd_device, resource_of_source
from linstor_un.opennebula import arguments


def run(call: Call) -> None:
    """Unlink and detach the disk.

    SOURCE is a user's text where a template gives a volatile disk SAVE=YES and a SOURCE (opennebula-contract.md, 12):
    what oned says of the disk decides, and such a disk is deleted like any volatile one.
    """
    arguments.expect(call.arguments, "HOST:PATH", "SOURCE", "VMID", "DSID")
    place = arguments.disk_place(call.arguments[0], arguments.identifier(call.arguments[2], "VMID"))
    source = call.arguments[1]
    action = transfer.begin(call, place, arguments.identifier(call.arguments[3], "DSID"))
    disk = action.vm.disk(place.disk_id) if action.vm else None
    if disk is not None and not disk.is_image:
        log.warning(f"disk {place.disk_id} of VM {place.vm_id} is no image, whatever its SOURCE says")
        removal.remove_own(action, place)
        return
    resource = action.resource(disk) if disk is not None else resource_of_source(source)
    device = action.device(disk) if disk is not None else drbd_device(resource)
    with action.lock(resource):
        transfer.release(action, place, disk, resource, device)
        if disk is not None:
            mixed_mode.release(action, place, disk, resource)
