"""datastore/mkfs: make an empty datablock, formatted where asked; prints SOURCE alone, which oned takes verbatim."""

from __future__ import annotations

from linstor_un.actions import datastore_action, new_volume
from linstor_un.actions.new_volume import blank
from linstor_un.cluster import placement as placements
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.hosts import filesystems
from linstor_un.naming import drbd_device
from linstor_un.undo import Undo
from linstor_un.units import KIB_PER_MIB


def run(call: Call) -> None:
    """Make the volume of a datablock; for a save-as only say where cpds will make it."""
    action = datastore_action.decode(call)
    image = action.need_image()
    settings = action.settings
    placement = placements.of(settings, action.datastore.label)
    resource = action.names.image(image.image_id)
    if image.is_save_as:
        call.answer(drbd_device(resource))
        return
    if not image.size_mib:
        raise InvalidInput("<IMAGE/SIZE> is missing or 0: give the datablock a SIZE in MiB")
    if image.file_system:
        filesystems.check(image.file_system, settings.supported_file_systems)
    gateway = action.gateway()
    with action.lock(resource), Undo() as undo:
        owner = datastore_action.owner(action, image)
        volume = new_volume.make(gateway, undo, resource, image.size_mib * KIB_PER_MIB, placement, owner)
        steps = blank(volume, image.file_system)
        if steps:
            volume.writer.run(f"Preparing {resource}", *steps)
        new_volume.leave_writer(gateway, volume)
        new_volume.finish(gateway, volume)
        call.answer(volume.device)
