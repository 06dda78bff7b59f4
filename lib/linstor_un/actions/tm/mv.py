"""tm/mv: move a VM's disk, and last its directory, between hosts, to the front-end (stop) and from it (resume).

Arguments: HOST:SYSDIR[/disk.N] HOST:SYSDIR[/disk.N] VMID DSID (of the image, or of the new system datastore).

No byte of a volume moves. A disk's line only prepares the destination; the directory's line, which always is the last
of the script, drops what the source had: a VM whose move fails in between still starts at its source, where oned sends
it back to without calling any driver. Where the directory is another driver's, its line does not come here
(mixed_mode.py).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import mixed_mode, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import replicas
from linstor_un.cluster.replicas import Replica
from linstor_un.driver import Call
from linstor_un.errors import DriverError, HostUnreachable, InvalidInput
from linstor_un.hosts import devices, directories
from linstor_un.hosts.runner import Host
from linstor_un.opennebula import arguments, lifecycle
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Move a disk or a directory."""
    arguments.expect(call.arguments, "HOST:PATH", "HOST:PATH", "VMID", "DSID")
    vm_id = arguments.identifier(call.arguments[2], "VMID")
    source = arguments.place(call.arguments[0], vm_id)
    target = arguments.place(call.arguments[1], vm_id)
    if source.disk_id != target.disk_id:
        raise InvalidInput(f"{call.arguments[0]} and {call.arguments[1]} are not the same disk of VM {vm_id}")
    action = transfer.begin(call, target, arguments.identifier(call.arguments[3], "DSID"))
    if action.vm is None:
        raise InvalidInput(f"oned knows no VM {vm_id}: call the action as OpenNebula does")
    if not target.is_disk:
        _directory(action, source, target)
    elif action.is_mixed:
        mixed_mode.move(action, source, target)
    else:
        _disk(action, source, target)


def _disk(action: Transfer, source: Place, target: Place) -> None:
    _check_whole(action, source)
    if action.state in lifecycle.PARKING:
        # The volume stays where it is, and the front-end has no use for a device.
        return
    disk = action.need_disk(target.disk_id)
    resource = action.resource(disk)
    with action.lock(resource), Undo() as undo:
        transfer.offer(action, undo, target, disk)
        if source.datastore_id != target.datastore_id and not disk.is_image:
            properties = action.owner(target.disk_id, target.datastore_id)
            action.gateway.modify_resource_definition(resource, properties)


def _check_whole(action: Transfer, source: Place) -> None:
    """Refuse a disk whose link a killed restore has taken: with a new one the VM would start from half of each."""
    if action.has_backups and action.state not in lifecycle.UNPARKING | lifecycle.SOURCE_DEAD:
        transfer.check_whole(action, source, action.resource(action.need_disk(source.disk_id)))


def _directory(action: Transfer, source: Place, target: Place) -> None:
    state = action.state
    is_same_host = source.host.lower() == target.host.lower()
    if is_same_host and source.directory == target.directory:
        return
    here = Host(source.host, action.settings, True) if state in lifecycle.UNPARKING else action.host(source.host)
    there = Host(target.host, action.settings, True) if state in lifecycle.PARKING else action.host(target.host)
    if state not in lifecycle.SOURCE_DEAD:
        _move_files(here, source, there, target)
    # A front-end that is a host too still has what the VM had there when it was parked.
    is_from_host = state not in lifecycle.UNPARKING or not action.is_parked(source.host)
    if is_from_host and not is_same_host:
        _detach(action, source)


def _move_files(here: Host, source: Place, there: Host, target: Place) -> None:
    try:
        directories.move(here, source.directory, there, target.directory)
    except HostUnreachable as error:
        if error.host != here.name:
            raise
        log.warning(f"{error}; the VM's files stay there and the move goes on")


def _detach(action: Transfer, source: Place) -> None:
    """Detach the VM's disks from the host that it has left, as far as they are only attached there.

    The move is done: what cannot be detached stays, and the volume's next action or its deletion sees to it.
    """
    disks = filter(transfer.may_be_own, action.vm.disks if action.vm else ())
    # What only the source can tell of comes last: it may not answer.
    resources = {
        resource: disk
        for disk in sorted(disks, key=lambda disk: disk.is_shared)
        for resource in action.candidates(disk)
    }
    try:
        found = replicas.of_several(action.gateway, list(resources))
        for resource, disk in resources.items():
            for replica in found[resource]:
                if replica.node.lower() == source.host.lower():
                    _detach_disk(action, source, disk, resource, replica)
    except DriverError as error:
        log.warning(f"{error}; disks of VM {action.vm_id} stay attached on {source.host}")


def _detach_disk(action: Transfer, source: Place, disk: Disk, resource: str, replica: Replica) -> None:
    if not disk.is_shared:
        replicas.detach_replica(action.gateway, resource, replica)
        return
    if action.state in lifecycle.SOURCE_DEAD:
        log.warning(f"{resource} stays attached on {source.host}: whether another VM has it there cannot be asked")
        return
    # Another VM may have the image on that host, or be about to get it.
    with action.lock(resource):
        if not devices.is_linked(action.host(source.host), action.device(disk), source.datastores, action.vm_id):
            replicas.detach_replica(action.gateway, resource, replica)
