"""datastore/cp: bring an image into a new volume; prints SOURCE and FORMAT."""

from __future__ import annotations

from contextlib import closing

from linstor_un.actions import datastore_action, filling, new_volume
from linstor_un.actions.filling import Target
from linstor_un.cluster import placement as placements
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.undo import Undo
from linstor_un.units import BYTES_PER_KIB, KIB_PER_MIB

# Quotas count SIZE alone: a backup makes a volume no longer than larger extents than this would.
_MOST_LONGER_MIB = 256


def run(call: Call) -> None:
    """Fetch IMAGE/PATH in one pass into a volume of IMAGE/SIZE."""
    action = datastore_action.decode(call)
    image = action.need_image()
    settings = action.settings
    placement = placements.of(settings, action.datastore.label)
    if not image.size_mib:
        raise InvalidInput("<IMAGE/SIZE> is missing or 0: give the image a SIZE in MiB")
    resource = action.names.image(image.image_id)
    with closing(datastore_action.open_source(action, image)) as source:
        filling.check_fits(source, image.size_mib)
        size_kib = image.size_mib * KIB_PER_MIB
        if source.is_of_backup:
            # It has all of a device, which was longer than the SIZE that OpenNebula has for what is made of it. But not
            # by any length: quotas count SIZE.
            taken_kib = -(-(source.format.virtual_bytes or 0) // BYTES_PER_KIB)
            size_kib = max(size_kib, min(taken_kib, size_kib + _MOST_LONGER_MIB * KIB_PER_MIB))
        gateway = action.gateway()
        with action.lock(resource), Undo() as undo:
            owner = datastore_action.owner(action, image)
            volume = new_volume.make(gateway, undo, resource, size_kib, placement, owner)
            target = Target(volume.writer, volume.device, volume.size_bytes, volume.reads_zero)
            filling.fill(target, source, image.size_mib)
            new_volume.leave_writer(gateway, volume)
            new_volume.finish(gateway, volume)
            call.answer(f"{volume.device} raw")
