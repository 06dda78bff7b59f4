"""datastore/rm: delete an image's volume with its snapshots; absent is done."""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import datastore_action, new_volume, own_volume
from linstor_un.actions.datastore_action import DatastoreAction
from linstor_un.cluster import snapshots, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.volumes import Volume
from linstor_un.driver import Call
from linstor_un.errors import AlreadyExists
from linstor_un.naming import add_ons_disk, add_ons_image, resource_of
from linstor_un.opennebula.model import Image


def run(call: Call) -> None:
    """Delete the volume that IMAGE/SOURCE names if its name and properties say that it is this image's."""
    action = datastore_action.decode(call)
    image = action.need_image()
    resource = resource_of(image.source)
    own = {action.names.image(image.image_id).lower(), add_ons_image(image.image_id).lower()}
    if resource is None or resource.lower() not in own:
        # Registered in place with SOURCE=: the volume was there before the image and stays.
        log.warning(f"{image.source} was not made for image {image.image_id} and is left alone")
        return
    gateway = action.gateway()
    passing_name = action.names.passing(resource)
    # An export has the lock of the volume that it reads from, and may have left its file.
    with action.lock(resource, interrupt_holder=True), action.lock(passing_name, interrupt_holder=True):
        volume, passing = volumes.find_several(gateway, [resource, passing_name])
        if passing is not None:
            volumes.remove(gateway, passing.resource)
        if volume is None or action.names.incomplete in volume.properties:
            _forget_snapshots(action, gateway, image, resource)
        if volume is not None:
            _check_owner(action, image, volume)
            volumes.remove(gateway, resource)


def _forget_snapshots(action: DatastoreAction, gateway: Gateway, image: Image, resource: str) -> None:
    """Delete the snapshot that a save-as may have left on the disk that was to be this image."""
    if image.saved_from is None:
        return
    vm_id, disk_id, image_id = image.saved_from
    adopted = add_ons_image(image_id)
    clone = add_ons_disk(adopted, vm_id, disk_id)
    disk = own_volume.find(gateway, action.names, action.names.disk(vm_id, disk_id), clone)
    for source in (*([disk.resource] if disk is not None else []), action.names.image(image_id), adopted):
        if snapshots.find(gateway, source, action.names.save_as(resource)):
            snapshots.forget(gateway, source, action.names.save_as(resource))


def _check_owner(action: DatastoreAction, image: Image, volume: Volume) -> None:
    """Check that the volume says whose it is, if it says anything; raises AlreadyExists."""
    names, number = action.names, str(image.image_id)
    marked_for = new_volume.marked_for(names, volume)[:1]
    if number not in (volume.properties.get(names.image_id, number), *marked_for):
        raise AlreadyExists(
            f"{volume.resource} has the name of image {number} and says that it is another's: look at `linstor "
            f"resource-definition list-properties {volume.resource}`, and delete it by hand if nothing needs it"
        )
