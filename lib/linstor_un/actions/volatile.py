"""A volatile disk: made for one VM, empty or formatted."""

from __future__ import annotations

from linstor_un.actions import new_volume, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools
from linstor_un.opennebula.arguments import Place
from linstor_un.undo import Undo
from linstor_un.units import KIB_PER_MIB


def make(action: Transfer, place: Place, size_mib: int, kind: str) -> None:
    """Make the volume of a volatile disk, formatted as `kind` where that is not empty, attach it and link it."""
    placement = placements.of(action.settings, action.datastore.label)
    resource = action.names.disk(place.vm_id, place.disk_id)
    owner = action.owner(place.disk_id, place.datastore_id)
    gateway = action.gateway
    with action.lock_to_make(resource), Undo() as undo:
        if action.settings.prefer_node:
            placement = pools.near(gateway, placement, place.host, size_mib * KIB_PER_MIB)
        volume = new_volume.make(gateway, undo, resource, size_mib * KIB_PER_MIB, placement, owner, writer=place.host)
        link = transfer.link(action, place, volume.device, size_mib)
        undo.push(f"link {place.path}", lambda: transfer.unlink(action, place, volume.device))
        volume.writer.run(f"Preparing {volume.resource}", *new_volume.blank(volume, kind), link)
        new_volume.finish(gateway, volume)
