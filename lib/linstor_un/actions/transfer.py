"""What all transfer actions begin with, and what several of them do with a disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Optional

from linstor_un import locks, log
from linstor_un import settings as settings_room
from linstor_un.actions import attachment, backup_chain, new_volume
from linstor_un.actions.own_volume import OwnVolumes
from linstor_un.cluster import primaries, replicas, snapshots, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.driver import Call
from linstor_un.errors import HostUnreachable, InvalidInput, InvalidSetting, NotFound, NotReady
from linstor_un.hosts import devices, restoring, runner
from linstor_un.hosts.devices import Unlinked
from linstor_un.hosts.runner import Host, Step
from linstor_un.naming import ADD_ON, Names, drbd_device, is_resource_name, resource_of, restore_snapshot
from linstor_un.opennebula import lifecycle, oned
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Datastore, Disk, VirtualMachine
from linstor_un.settings import Settings
from linstor_un.undo import Undo
from linstor_un.units import MIB

DRIVER = "linstor_un"
_WITHOUT_DISKS = lifecycle.UNBORN_STATES | lifecycle.DONE_STATES
# Disks of VMs that were LINBIT's add-on's when they were made come to this driver by that name.
OWN_DRIVERS = (DRIVER, ADD_ON)


def may_be_own(disk: Disk) -> bool:
    """Tell whether a disk is this driver's, as far as oned says whose it is."""
    return disk.transfer_driver in ("", *OWN_DRIVERS)


class Transfer(NamedTuple):
    """What a transfer action knows: the VM, its datastores, and the settings that hold for it.

    The attributes of the system datastore hold, as they always did; those of the other datastore where the system
    datastore is another driver's (`is_mixed`).
    """

    vm_id: int
    vm: Optional[VirtualMachine]
    datastores: Mapping[int, Datastore]
    datastore: Datastore
    settings: Settings
    gateway: Gateway
    own_volumes: OwnVolumes
    system_driver: str = DRIVER

    @property
    def is_mixed(self) -> bool:
        """Tell whether the VM's directory is another driver's, which calls this one for the disks alone."""
        return self.system_driver not in OWN_DRIVERS

    @property
    def names(self) -> Names:
        """Return the names that this OpenNebula gives in LINSTOR."""
        return self.settings.names

    def settings_of(self, call: Call, datastore_id: int) -> Settings:
        """Return the settings of another datastore that the action has asked oned for."""
        return settings_for(call, self.datastores[datastore_id])

    @property
    def state(self) -> int:
        """Return the VM's LCM_STATE, 0 where oned does not know it."""
        return self.vm.lifecycle_state if self.vm else 0

    @property
    def has_backups(self) -> bool:
        """Tell whether there may be what backups of the VM have kept."""
        return self.vm is not None and self.vm.has_backups

    def need_disk(self, disk_id: int) -> Disk:
        """Return a disk that the VM must have; raises InvalidInput."""
        disk = self.vm.disk(disk_id) if self.vm else None
        if disk is None:
            raise InvalidInput(f"oned knows no disk {disk_id} of VM {self.vm_id}: call the action as OpenNebula does")
        return disk

    def resource(self, disk: Disk) -> str:
        """Return the volume of a disk: the image's own, or the VM's."""
        if not disk.is_image:
            return self.own_volumes.resource(disk.disk_id)
        resource = resource_of(disk.source)
        if resource is None:
            raise InvalidInput(
                f"SOURCE {disk.source[:200]!r} of disk {disk.disk_id} of VM {self.vm_id} names no LINSTOR volume: "
                "re-create the image or correct its SOURCE"
            )
        return resource

    def candidates(self, disk: Disk) -> Sequence[str]:
        """Return the volumes that may be a disk's, without asking which of them is."""
        return (self.resource(disk),) if disk.is_image else self.own_volumes.candidates(disk.disk_id)

    def device(self, disk: Disk) -> str:
        """Return the path of a disk's device on any host that has it."""
        resource = self.resource(disk)
        if disk.is_image:
            return drbd_device(resource) if is_resource_name(disk.source) else disk.source
        return new_volume.device(self.gateway, resource, self.settings.layers)

    def may_lack_drbd(self, disk: Disk) -> bool:
        """Tell whether the disk's volume may be one that is on one node alone, as its image's SOURCE says."""
        return disk.is_image and not is_resource_name(disk.source) and not disk.source.startswith("/dev/drbd")

    def owner(self, disk_id: int, datastore_id: int) -> dict[str, str]:
        """Return the properties by which the volume of a VM's own disk names its VM."""
        return self.names.disk_properties(self.vm_id, disk_id, datastore_id)

    def lock(self, resource: str, interrupt_holder: bool = False) -> AbstractContextManager[bool]:
        """Return the lock of a volume; a VM's disk has one, whichever its volume is."""
        return locks.of_volume(self.settings, self.names.first_name(resource), interrupt_holder)

    @contextmanager
    def lock_to_make(self, resource: str) -> Iterator[None]:
        """Hold the lock of a volume that the VM is about to get, before anything else is asked than oned.

        oned may have cancelled this action and deleted the VM's disks while it waited (opennebula-contract.md, 4):
        raises NotFound then.
        """
        with self.lock(resource) as is_contended:
            if is_contended:
                vm = oned.ask(self.vm_id, [], self.settings.oned_timeout_seconds).virtual_machine
                if vm is None or vm.state in _WITHOUT_DISKS or vm.lifecycle_state in lifecycle.ENDING:
                    raise NotFound(
                        f"VM {self.vm_id} was deleted while this action waited for {resource}: nothing is left to do"
                    )
            yield

    def host(self, name: str) -> Host:
        """Return a host; one that the VM never ran on is the front-end, where stopped VMs are parked."""
        is_frontend = self.is_parked(name) or runner.is_frontend(name, self.settings)
        return Host(name, self.settings, is_frontend)

    def is_parked(self, name: str) -> bool:
        """Tell whether `name` is the front-end and no host of this VM: nothing is attached there."""
        known = {hostname.lower() for hostname in self.vm.hostnames} if self.vm else set()
        if known:
            return name.lower() not in known
        return runner.is_frontend(name, self.settings)


def settings_for(call: Call, datastore: Datastore) -> Settings:
    """Return the settings of a datastore whose attributes oned has told."""
    return settings_room.for_datastore(call.configuration, datastore.attributes, datastore.label)


def begin(call: Call, place: Place, other_datastore_id: int) -> Transfer:
    """Ask oned, once, for what the action's arguments name.

    Arguments: `place` is the disk or directory whose system datastore's attributes hold; `other_datastore_id` is the
    last argument of the action, the image datastore of an image disk.
    """
    seconds = settings_room.from_configuration(call.configuration).oned_timeout_seconds
    facts = oned.ask(place.vm_id, [place.datastore_id, other_datastore_id], seconds)
    system = facts.datastores[place.datastore_id]
    own = system if system.transfer_driver == DRIVER else facts.datastores[other_datastore_id]
    action = of(place.vm_id, facts.virtual_machine, facts.datastores, own, settings_for(call, own))
    return action._replace(system_driver=system.transfer_driver)


def of(
    vm_id: int,
    vm: Optional[VirtualMachine],
    datastores: Mapping[int, Datastore],
    datastore: Datastore,
    settings: Settings,
) -> Transfer:
    """Return what an action knows that has asked for it itself."""
    gateway = Gateway(settings)
    own = OwnVolumes(gateway, vm_id, vm.disks if vm else ())
    return Transfer(vm_id, vm, datastores, datastore, settings, gateway, own)


def not_its_image(transfer: Transfer, disk: Disk, source: str) -> InvalidInput:
    """Return the error for an action that names another volume, or another way to it, than the VM's disk has."""
    mode = "YES" if disk.is_clone else "NO"
    return InvalidInput(
        f"Disk {disk.disk_id} of VM {transfer.vm_id} has SOURCE {disk.source[:200]!r} and CLONE={mode}, and the action "
        f"is called for {source[:200]!r}: a VM gets no image but its own"
    )


def check_has_image(transfer: Transfer, call: Call, datastore_id: int, resource: str) -> None:
    """Check that the LINSTOR of the VM's disks has an image of this datastore; raises InvalidSetting.

    It is asked only where the two datastores name other controllers, which may be one LINSTOR's all the same.
    """
    theirs = transfer.settings_of(call, datastore_id)
    if theirs.controllers == transfer.settings.controllers or volumes.find(transfer.gateway, resource):
        return
    raise InvalidSetting(
        f"{resource} is an image of {transfer.datastores[datastore_id].label}, whose LS_CONTROLLERS are another "
        f"LINSTOR's than those of {transfer.datastore.label}: deploy VM {transfer.vm_id} in a system datastore of the "
        "image's LINSTOR; COMPATIBLE_SYS_DS of the image's datastore keeps the scheduler from others"
    )


def offer(transfer: Transfer, undo: Undo, place: Place, disk: Disk) -> None:
    """Attach a disk's volume on the place's host and link it there."""
    step = attach(transfer, undo, place, disk)
    transfer.host(place.host).run(f"Linking {place.path} to {transfer.resource(disk)}", step)


def attach(transfer: Transfer, undo: Undo, place: Place, disk: Disk) -> Step:
    """Attach a disk's volume on the place's host, and return the step that links it there."""
    resource = transfer.resource(disk)
    host, device = transfer.host(place.host), transfer.device(disk)

    def is_needed() -> bool:
        return devices.is_linked(host, device, place.datastores)

    attachment.attach(transfer.gateway, undo, resource, place.host, is_needed, transfer.may_lack_drbd(disk))
    return link(transfer, place, device, disk.size_mib, not disk.is_writable)


def link(transfer: Transfer, place: Place, device: str, size_mib: int, read_only: bool = False) -> Step:
    """Return the step that links a device, which must be there and large enough, as the VM's disk."""
    return devices.link(transfer.host(place.host), device, place.path, size_mib * MIB, read_only)


def unlink(transfer: Transfer, place: Place, device: str) -> Unlinked:
    """Remove a disk's link; a host that does not answer keeps a dangling one."""
    try:
        return devices.unlink(transfer.host(place.host), device, place.path)
    except HostUnreachable as error:
        log.warning(f"{error}; the link {place.path} stays there")
        return Unlinked(device, False)


def _is_half_restored(transfer: Transfer, place: Place, kept: Optional[Snapshot]) -> bool:
    """Tell whether restoring a disk was killed: its link is gone, and `kept` has what it had before."""
    if kept is None or not kept.is_usable:
        return False
    return not restoring.look(transfer.host(place.host), place.directory).is_whole(place.disk_id)


def check_whole(transfer: Transfer, place: Place, resource: str) -> None:
    """Refuse to go on with a disk that a killed restore has left half of a backup on; raises NotReady, and as Host.run.

    Only of a VM that does not run need it be asked: without its links it does not start.
    """
    if not transfer.has_backups:
        return
    name = restore_snapshot(transfer.vm_id)
    kept = snapshots.find(transfer.gateway, resource, name)
    if _is_half_restored(transfer, place, kept):
        raise half_restored(transfer.vm_id, place.disk_id)
    if kept is not None:
        # A restore that is done could not delete it: where the VM is parked there is no link that tells.
        snapshots.forget(transfer.gateway, resource, name)


def half_restored(vm_id: int, disk_id: int) -> NotReady:
    """Return the error for a disk that is half restored."""
    return NotReady(
        f"Disk {disk_id} of VM {vm_id} is half restored from a backup: repeat `onevm restore`, which goes on from what "
        "the disk had before, and then this"
    )


def _forget_kept(transfer: Transfer, place: Place, resource: str) -> None:
    """Delete what backups and restores of the VM have kept of an image: no increment will be made from it.

    An image that a killed restore has left half restored gets back what it had before: nobody else would know.
    """
    name = restore_snapshot(transfer.vm_id)
    is_whole = True
    try:
        if _is_half_restored(transfer, place, snapshots.find(transfer.gateway, resource, name)):
            log.warning(f"{resource} is half restored from a backup and gets back what it had before")
            attachment.roll_back(transfer.gateway, resource, name, lambda: None)
    except HostUnreachable as error:
        log.warning(f"{error}; if {resource} was being restored, snapshot {name} has what it had before")
        is_whole = False
    backup_chain.forget(transfer.gateway, resource, transfer.vm_id, with_restores=is_whole)


def release(transfer: Transfer, place: Place, disk: Optional[Disk], resource: str, device: str) -> None:
    """Take an image's volume from the VM: unlink it and detach it, unless another VM on the host has it.

    An image that only one VM can have is detached wherever a failed migration may have left it.
    """
    if transfer.has_backups:
        _forget_kept(transfer, place, resource)
    # Asked before the link goes: where LINSTOR does not answer, the deletion of the VM's directory finds it still.
    there = replicas.of(transfer.gateway, resource)
    unlinked = unlink(transfer, place, device)
    if unlinked.is_used_by_others:
        log.info(f"{resource} stays attached on {place.host}, where another VM has it")
        return
    if disk is not None and not disk.is_shared and transfer.vm is not None and len(transfer.vm.hostnames) > 1:
        primaries.forget(transfer.gateway, resource)
    for replica in there:
        is_here = replica.node.lower() == place.host.lower()
        is_left = disk is not None and not disk.is_shared and replica.in_use is False
        if is_here or is_left:
            replicas.detach_replica(transfer.gateway, resource, replica)
