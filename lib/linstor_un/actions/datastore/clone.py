"""datastore/clone: make an image from another; prints SOURCE alone."""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import cloning, datastore_action, new_volume
from linstor_un.cluster import placement as placements
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.naming import resource_of_source
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Clone the volume that IMAGE/PATH names, the SOURCE of the original, into the datastore of the new image."""
    action = datastore_action.decode(call)
    image = action.need_image()
    settings = action.settings
    placement = placements.of(settings, action.datastore.label)
    if not image.size_mib:
        raise InvalidInput("<IMAGE/SIZE> is missing or 0: clone an image that has a size")
    source = resource_of_source(image.path)
    target = action.names.image(image.image_id)
    if source.lower() == target.lower():
        raise InvalidInput(f"Image {image.image_id} cannot be cloned into itself: call the action as OpenNebula does")
    owner = datastore_action.owner(action, image)
    wanted = cloning.Clone(source, image.size_mib, target, image.size_mib, placement, owner, is_disowned=True)
    gateway = action.gateway()
    mode = settings.clone_mode
    if mode == "snapshot" and not cloning.is_alike(gateway, source, placement):
        log.info(f"{action.datastore.label} asks for other nodes, pools or layers than {source} has: copying")
        mode = "copy"
    with action.lock(target), Undo() as undo:
        cloning.clone(gateway, undo, wanted, mode)
        if mode == "snapshot":
            # What is restored says of itself what the original says.
            cloning.disown(gateway, target, owner)
        call.answer(new_volume.device(gateway, target, placement.layers))
