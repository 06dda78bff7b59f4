"""Mixed mode: a VM in a system datastore of another driver (ssh, local, shared), with disks of this one.

The disks are the same volumes as everywhere; the VM's directory, its context, its memory and its volatile disks are the
other driver's. That driver moves and deletes the directory with our links in it, as they are, and calls this one for
the disks alone, before: whatever it finds at the destination it removes first (opennebula-contract.md, 11).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un.actions import attachment, transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import primaries, replicas
from linstor_un.errors import DriverError, HostUnreachable, InvalidInput, InvalidSetting
from linstor_un.hosts import devices
from linstor_un.hosts.runner import Host
from linstor_un.opennebula import lifecycle
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo
from linstor_un.units import MIB

# Whose system datastores have been seen to leave alone what belongs to this driver.
SYSTEM_DRIVERS = ("ssh", "local", "shared", "qcow2")


def check(action: Transfer, disk: Disk) -> None:
    """Check, before anything is made, that the VM can live there with this disk: nobody asks this driver later.

    A VM that is about to be made is looked at whole, so that none of its disks is made where another cannot be. Raises
    InvalidSetting where the system datastore is of a driver that is not known, where the image's datastore says that
    disks become files, or that an image is copied, and InvalidInput where backups are to be increments, which
    that driver cannot make of volumes.
    """
    if not action.is_mixed:
        return
    driver = action.system_driver
    if driver not in SYSTEM_DRIVERS:
        raise InvalidSetting(
            f"Disk {disk.disk_id} of VM {action.vm_id} cannot be in a system datastore of {driver[:40]!r}: nobody "
            f"knows it to leave volumes of LINSTOR alone; take {driver[:40]!r} out of TM_MAD_SYSTEM in oned.conf, and "
            f"instantiate the VM in a system datastore of linstor_un or of {', '.join(SYSTEM_DRIVERS)}"
        )
    for own in _looked_at(action, disk):
        _check_mode(action, own)
    if action.vm is not None and action.vm.has_increments:
        raise InvalidInput(
            f"VM {action.vm_id} has MODE=INCREMENT in BACKUP_CONFIG, and {driver}, which backs up the VMs in its "
            "system datastores, cannot make increments of volumes: use MODE=FULL, or a system datastore of linstor_un"
        )


def _looked_at(action: Transfer, disk: Disk) -> list[Disk]:
    disks = action.vm.disks if action.vm is not None and action.state in lifecycle.STARTING else ()
    return [disk, *(other for other in disks if other != disk and other.transfer_driver == transfer.DRIVER)]


def _check_mode(action: Transfer, disk: Disk) -> None:
    driver = action.system_driver
    wanted = {"DISK_TYPE": (disk.disk_type, "BLOCK")}
    if disk.is_image:
        wanted["LN_TARGET"] = (disk.link_target, "NONE")
    for name, (value, right) in wanted.items():
        if value.upper() not in ("", right):
            key = f"{name}_{driver.upper()}"
            raise InvalidSetting(
                f"Disk {disk.disk_id} of VM {action.vm_id} has {name} {value[:40]!r} by {key} of its image datastore, "
                f"and disks stay volumes of LINSTOR in a system datastore of {driver}: run `linstor-un install --mixed "
                f'{driver}`, which sets {key}="{right}" in oned.conf, restart oned, run `onedatastore update '
                f"{disk.datastore_id}`, and instantiate the VM anew"
            )


def move(action: Transfer, source: Place, target: Place) -> None:
    """Prepare a disk for the move of its VM's directory.

    The link is seen to at the source, because it comes to the destination with the directory. What the source has stays
    attached, since a VM whose move fails goes back there without a call, until the next move or the VM's end; a VM
    that is parked, or whose host is dead, does not.
    """
    disk = action.need_disk(target.disk_id)
    resource = action.resource(disk)
    with action.lock(resource), Undo() as undo:
        device = action.device(disk)
        if action.state in lifecycle.PARKING:
            _keep_link(action.host(source.host), source, device)
            _detach(action, source, disk, resource)
            return
        _attach(action, undo, target, disk, resource, device)
        if action.state in lifecycle.SOURCE_DEAD:
            _link(action, source, target, disk, device)
        else:
            is_parked = action.state in lifecycle.UNPARKING
            here = Host(source.host, action.settings, True) if is_parked else action.host(source.host)
            _keep_link(here, source, device)
        if source.datastore_id != target.datastore_id and not disk.is_image:
            properties = action.owner(target.disk_id, target.datastore_id)
            action.gateway.modify_resource_definition(resource, properties)
        undo.forget()
        if not disk.is_shared:
            # A live migration that has failed told nobody, and may have left this.
            primaries.forget(action.gateway, resource)
        is_left_for_good = action.state in lifecycle.SOURCE_DEAD
        _detach(action, source, disk, resource, target.host, *([] if is_left_for_good else [source.host]))


def release(action: Transfer, place: Place, disk: Disk, resource: str) -> None:
    """Take an image that several VMs may have from the hosts where moves have left it attached for this one."""
    if action.is_mixed and disk.is_shared and action.vm is not None and len(set(action.vm.hostnames)) > 1:
        _detach(action, place, disk, resource)


def _attach(action: Transfer, undo: Undo, target: Place, disk: Disk, resource: str, device: str) -> None:
    host = action.host(target.host)

    def is_needed() -> bool:
        return devices.is_linked(host, device, target.datastores)

    attachment.attach(action.gateway, undo, resource, target.host, is_needed)
    host.run(f"Looking for {device}", devices.check(host, device, disk.size_mib * MIB, not disk.is_writable))


def _link(action: Transfer, source: Place, target: Place, disk: Disk, device: str) -> None:
    """Link a disk whose directory stays on a dead host; where hosts share the directory, the link is there already."""
    host = action.host(target.host)
    if source.directory == target.directory or not devices.is_link(host, source.path):
        step = transfer.link(action, target, device, disk.size_mib, not disk.is_writable)
        host.run(f"Linking {target.path} to {device}", step)


def _keep_link(host: Host, place: Place, device: str) -> None:
    try:
        host.run(f"Looking for {place.path}", devices.keep_link(device, place.path))
    except HostUnreachable as error:
        log.warning(f"{error}; whether {place.path} leads to {device} is not known")


def _detach(action: Transfer, source: Place, disk: Disk, resource: str, *kept: str) -> None:
    """Detach what the VM has left, here or on hosts before; what cannot be is detached by a later move."""
    names = {name.lower() for name in kept}
    try:
        for replica in replicas.of(action.gateway, resource):
            is_only_attached = replica.is_diskless and not replica.is_tie_breaker
            if not is_only_attached or replica.node.lower() in names:
                continue
            if not _is_others(action, source, disk, replica.node):
                replicas.detach_replica(action.gateway, resource, replica)
    except DriverError as error:
        log.warning(f"{error}; {resource} may stay attached where VM {action.vm_id} was")


def _is_others(action: Transfer, source: Place, disk: Disk, node: str) -> bool:
    """Tell whether another VM may have the volume on a node: that is known of hosts where this VM was, and answer."""
    if not disk.is_shared:
        return False
    known = {name.lower() for name in action.vm.hostnames} if action.vm else set()
    if node.lower() not in known or action.state in lifecycle.SOURCE_DEAD:
        return True
    try:
        return devices.is_linked(action.host(node), action.device(disk), source.datastores, action.vm_id)
    except HostUnreachable as error:
        log.warning(f"{error}; {action.device(disk)} may be another VM's there")
        return True
