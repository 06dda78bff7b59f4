"""tm/delete: remove a disk of a VM, or the VM's directory with whatever is left.

Arguments: HOST:SYSDIR[/disk.N] VMID DSID (of the image, or of the system datastore).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import mixed_mode, removal, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.driver import Call
from linstor_un.errors import HostUnreachable
from linstor_un.hosts import directories
from linstor_un.hosts.runner import Host
from linstor_un.opennebula import arguments
from linstor_un.opennebula.arguments import Place


def run(call: Call) -> None:
    """Delete what is the VM's own; an image is only detached.

    `recover --delete` sends this for persistent disks and CDROMs too, for hosts where a disk never was, and twice.
    """
    arguments.expect(call.arguments, "HOST:PATH", "VMID", "DSID")
    place = arguments.place(call.arguments[0], arguments.identifier(call.arguments[1], "VMID"))
    action = transfer.begin(call, place, arguments.identifier(call.arguments[2], "DSID"))
    if not place.is_disk:
        _directory(action, place)
    else:
        _disk(action, place)


def _disk(action: Transfer, place: Place) -> None:
    disk = action.vm.disk(place.disk_id) if action.vm else None
    if disk is None or not disk.is_image:
        removal.remove_own(action, place)
        return
    resource = action.resource(disk)
    with action.lock(resource):
        transfer.release(action, place, disk, resource, action.device(disk))
        mixed_mode.release(action, place, disk, resource)


def _directory(action: Transfer, place: Place) -> None:
    """Remove the VM's directory on the host, and what parking it may have put into the front-end's."""
    if not action.host(place.host).is_frontend:
        _remove_parked(action, place)
    try:
        unlinked = directories.remove(action.host(place.host), place.directory)
    except HostUnreachable as error:
        log.warning(f"{error}; {place.directory} stays there")
        unlinked = []
    removal.detach_leftovers(action, place, unlinked)
    removal.remove_leftovers(action)


def _remove_parked(action: Transfer, place: Place) -> None:
    """Remove what parking may have put into the front-end's directories.

    A VM whose return to another system datastore has failed still lies in the one where it was parked.
    """
    frontend = Host(place.host, action.settings, is_frontend=True)
    earlier = set(action.vm.datastore_ids) - {0} if action.vm else set()
    for datastore_id in sorted(earlier | {place.datastore_id}):
        directories.remove(frontend, place.in_datastore(datastore_id).directory)
