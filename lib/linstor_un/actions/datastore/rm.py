"""datastore/rm: delete an image's volume with its snapshots; absent is done."""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import datastore_action
from linstor_un.cluster import volumes
from linstor_un.driver import Call
from linstor_un.errors import AlreadyExists
from linstor_un.naming import resource_of


def run(call: Call) -> None:
    """Delete the volume that IMAGE/SOURCE names if its name and properties say that it is this image's."""
    action = datastore_action.decode(call)
    image = action.need_image()
    resource = resource_of(image.source)
    own = {action.names.image(image.image_id).lower(), f"opennebula-image-{image.image_id}"}
    if resource is None or resource.lower() not in own:
        # Registered in place with SOURCE=: the volume was there before the image and stays.
        log.warning(f"{image.source} was not made for image {image.image_id} and is left alone")
        return
    gateway = action.gateway()
    with action.lock(resource, interrupt_holder=True):
        volume = volumes.find(gateway, resource)
        if volume is None or action.names.incomplete in volume.properties:
            volumes.remove(gateway, action.names.passing(resource))
        if volume is None:
            return
        if volume.properties.get(action.names.image_id, str(image.image_id)) != str(image.image_id):
            raise AlreadyExists(
                f"{resource} has the name of image {image.image_id} and says that it is another's: look at `linstor "
                f"resource-definition list-properties {resource}`, and delete it by hand if nothing needs it"
            )
        volumes.remove(gateway, resource)
