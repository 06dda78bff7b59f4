"""Removing what belongs to a VM, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from linstor_un import log
from linstor_un.actions import transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import replicas, volumes
from linstor_un.cluster.volumes import Volume
from linstor_un.hosts import devices
from linstor_un.naming import drbd_device, resource_of
from linstor_un.opennebula import lifecycle
from linstor_un.opennebula.arguments import Place


def remove_own(action: Transfer, place: Place) -> None:
    """Unlink and delete a VM's own disk: a clone, a volatile disk or swap; absent is done."""
    resource = action.names.disk(place.vm_id, place.disk_id)
    with action.lock(resource, interrupt_holder=True):
        unlinked = transfer.unlink(action, place, drbd_device(resource))
        linked = resource_of(unlinked.device)
        is_own = linked is not None and action.names.first_name(linked).lower() == resource.lower()
        if linked is not None and not is_own and action.vm is None:
            # oned has forgotten the disk, and its link was to an image: that is detached, never deleted.
            transfer.release(action, place, None, linked, unlinked.device)
        for volume in volumes.find_several(action.gateway, action.own_volumes.candidates(place.disk_id)):
            if volume is not None:
                _remove(action, volume)


def detach_leftovers(action: Transfer, place: Place, unlinked: Sequence[str]) -> None:
    """Detach the images that were linked in the VM's directory to its end: a line before has failed to.

    `recover --delete` goes on behind a failure, and does not repeat it. `unlinked` are the devices that no VM on the
    host has any more.
    """
    for device in unlinked:
        resource = resource_of(device)
        if resource is None or action.names.is_of_vm(resource, action.vm_id):
            continue
        with action.lock(resource):
            if not devices.is_linked(action.host(place.host), device, place.datastores):
                replicas.detach(action.gateway, resource, place.host)


def remove_leftovers(action: Transfer) -> None:
    """Delete the volumes of a VM that is ending which no earlier line of its transfer script has deleted."""
    vm = action.vm
    if vm is not None and vm.state not in lifecycle.DONE_STATES and vm.lifecycle_state not in lifecycle.ENDING:
        log.info(f"VM {action.vm_id} is not ending: its volumes are not looked for")
        return
    names = action.names
    for left in (names.checkpoint(action.vm_id), names.backup(action.vm_id)):
        with action.lock(left, interrupt_holder=True):
            # A saving or a backup goes on where oned has given up on it; one that was killed has left the lock's file.
            pass
    for volume in volumes.with_property(action.gateway, names.vm_id, str(action.vm_id)):
        if names.is_of_vm(volume.resource, action.vm_id):
            log.warning(f"{volume.resource} was left behind by an earlier action, or for an offline node")
            with action.lock(volume.resource, interrupt_holder=True):
                _remove(action, volume)


def _remove(action: Transfer, volume: Volume) -> None:
    owner = volume.properties.get(action.names.vm_id)
    if owner != str(action.vm_id):
        log.warning(
            f"{volume.resource} does not say that it belongs to VM {action.vm_id} and is left alone; if nothing needs "
            f"it: linstor resource-definition delete {volume.resource}"
        )
        return
    volumes.remove(action.gateway, volume.resource)
