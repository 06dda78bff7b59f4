"""tm/clone: give a VM its own writable copy of a non-persistent image.

Arguments: FE:SOURCE HOST:SYSDIR/disk.N VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import cloning, mixed_mode, new_volume, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import placement as placements
from linstor_un.cluster import replicas
from linstor_un.cluster.placement import Placement
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.naming import resource_of_source
from linstor_un.opennebula import arguments
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Clone the image's volume in the size that the VM asks for, attach it and link it."""
    arguments.expect(call.arguments, "SOURCE", "HOST:PATH", "VMID", "DSID")
    named = arguments.source(call.arguments[0])
    source = resource_of_source(named)
    place = arguments.disk_place(call.arguments[1], arguments.identifier(call.arguments[2], "VMID"))
    image_datastore = arguments.identifier(call.arguments[3], "DSID")
    action = transfer.begin(call, place, image_datastore)
    disk = _disk(action, place, named)
    mixed_mode.check(action, disk)
    transfer.check_has_image(action, call, image_datastore, source)
    placement = placements.of(action.settings, action.datastore.label)
    target = action.names.disk(place.vm_id, place.disk_id)
    owner = action.owner(place.disk_id, place.datastore_id)
    wanted = cloning.Clone(source, disk.original_size_mib or disk.size_mib, target, disk.size_mib, placement, owner)
    with action.lock_to_make(target), Undo() as undo:
        mode = _mode(call, action, image_datastore, source, placement)
        made = cloning.clone(action.gateway, undo, wanted, mode, place.host)
        if place.host.lower() not in {node.lower() for node in made.nodes}:
            replicas.attach(action.gateway, made.resource, place.host)
        device = new_volume.device(action.gateway, made.resource, placement.layers)
        link = transfer.link(action, place, device, disk.size_mib)
        action.host(place.host).run(f"Linking {place.path} to {made.resource}", link)


def _disk(action: Transfer, place: Place, source: str) -> Disk:
    disk = action.need_disk(place.disk_id)
    if disk.is_volatile or disk.is_image or disk.source != source:
        raise transfer.not_its_image(action, disk, source)
    if not disk.size_mib:
        raise InvalidInput(f"Disk {disk.disk_id} of VM {place.vm_id} has no SIZE: correct the VM's template")
    if disk.original_size_mib > disk.size_mib:
        raise InvalidInput(
            f"Disk {disk.disk_id} of VM {place.vm_id} has SIZE {disk.size_mib} MiB and its image "
            f"{disk.original_size_mib} MiB: a disk cannot be smaller than its image"
        )
    return disk


def _mode(call: Call, action: Transfer, image_datastore: int, source: str, placement: Placement) -> str:
    """Return how to clone: a snapshot cannot change the layers or the pools that the image has."""
    ours, theirs = action.settings, action.settings_of(call, image_datastore)
    if ours.clone_mode != "snapshot":
        return ours.clone_mode
    if ours.resource_group == theirs.resource_group:
        is_alike = not cloning.differ(ours, theirs)
    else:
        # What a resource group says is known to LINSTOR alone.
        is_alike = cloning.is_alike(action.gateway, source, placement)
    if not is_alike:
        log.info(f"{action.datastore.label} asks for other pools or layers than {source} has: copying")
    return "snapshot" if is_alike else "copy"
