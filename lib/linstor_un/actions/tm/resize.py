"""tm/resize: grow a disk; oned calls it before `virsh blockresize`.

Arguments: HOST:SYSDIR/disk.N SIZE_MB VMID DSID.
"""

from __future__ import annotations

from linstor_un.actions import transfer
from linstor_un.cluster import volumes
from linstor_un.driver import Call
from linstor_un.hosts import devices
from linstor_un.opennebula import arguments, lifecycle
from linstor_un.units import MIB


def run(call: Call) -> None:
    """Grow the disk's volume; for a running VM, wait until its host sees the new size."""
    arguments.expect(call.arguments, "HOST:PATH", "SIZE_MB", "VMID", "DSID")
    size_mib = arguments.size_mib(call.arguments[1])
    place = arguments.disk_place(call.arguments[0], arguments.identifier(call.arguments[2], "VMID"))
    action = transfer.begin(call, place, arguments.identifier(call.arguments[3], "DSID"))
    disk = action.need_disk(place.disk_id)
    resource = action.resource(disk)
    is_active = action.vm is not None and action.vm.state == lifecycle.ACTIVE_STATE
    is_live = is_active and action.state in lifecycle.RESIZING_LIVE
    with action.lock(resource):
        if not is_live:
            # With what it had before a restore that was killed it would get back the size that it had then.
            transfer.check_whole(action, place, resource)
        volumes.grow(action.gateway, resource, size_mib)
        if is_live:
            devices.wait(action.host(place.host), action.device(disk), size_mib * MIB)
