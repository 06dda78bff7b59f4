"""What the three actions of a live migration have in common.

Arguments of all of them: SRCHOST DSTHOST SYSDIR VMID DSID [TM]; SYSDIR and DSID are the destination's, TM is the system
datastore's driver where that is another one and relays to us: the directory is its own, it calls no failmigrate, and
takes no notice of a premigrate that fails. stdin is the base64 of the <VM>, whose last history record is the
destination's.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Callable, NamedTuple, Optional

from linstor_un import log
from linstor_un import settings as settings_room
from linstor_un.actions import transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import primaries, replicas
from linstor_un.cluster.replicas import Replica
from linstor_un.driver import Call, remotes
from linstor_un.errors import CommandFailed, DriverError, HostUnreachable, InUse, InvalidInput
from linstor_un.hosts import devices, directories
from linstor_un.hosts.runner import Step
from linstor_un.opennebula import arguments, decoding, model, oned
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Datastore, Disk
from linstor_un.settings import Settings
from linstor_un.undo import Undo, undisturbed

_WAITS_SECONDS = (1, 3)


class Migration(NamedTuple):
    """A live migration of a VM: its own disks, and the directory that the destination gets."""

    action: Transfer
    source: Place
    target: Place
    disks: tuple[Disk, ...]
    is_relayed: bool
    others_disks: tuple[Disk, ...]

    @property
    def other_drivers(self) -> list[str]:
        """Return the other drivers that the VM's disks have."""
        return sorted({disk.transfer_driver for disk in self.others_disks} - {""})

    @property
    def is_on_one_host(self) -> bool:
        """Tell whether only the system datastore changes."""
        return self.source.host.lower() == self.target.host.lower()

    def place(self, disk: Disk) -> Place:
        """Return where a disk is linked on the destination."""
        return self.target._replace(disk_id=disk.disk_id)


def begin(call: Call) -> list[Migration]:
    """Decode and check the arguments and the VM: one migration for each LINSTOR that its disks are on.

    In a system datastore of this driver that is one, whose attributes hold for all disks. Raises InvalidInput.
    """
    is_relayed = len(call.arguments) == 6
    names = ("SRCHOST", "DSTHOST", "PATH", "VMID", "DSID")
    arguments.expect(call.arguments, *names, "TM") if is_relayed else arguments.expect(call.arguments, *names)
    source_host, target_host, path, vm, datastore = call.arguments[:5]
    vm_id = arguments.identifier(vm, "VMID")
    target = arguments.place(f"{arguments.hostname(target_host)}:{path}", vm_id)
    machine = model.virtual_machine(decoding.parse(decoding.decode(call.standard_input), "VM"))
    if machine.vm_id != vm_id:
        raise InvalidInput(f"The action is called for VM {vm_id} and its XML is of VM {machine.vm_id}")
    may_be_ours = [disk for disk in machine.disks if disk.transfer_driver in transfer.OWN_DRIVERS]
    wanted = [arguments.identifier(datastore, "DSID"), *(disk.datastore_id for disk in may_be_ours)]
    facts = oned.ask(vm_id, wanted, settings_room.from_configuration(call.configuration).oned_timeout_seconds)
    disks = [
        disk
        for disk in may_be_ours
        if not disk.is_adopted or facts.datastores[disk.datastore_id].transfer_driver == transfer.DRIVER
    ]
    others = tuple(disk for disk in machine.disks if disk not in disks)
    # The driver's XML has the last record of the history alone.
    known = facts.virtual_machine or machine._replace(hostnames=(source_host, target_host))
    source = target._replace(host=arguments.hostname(source_host))
    moves = []
    for own, settings, group in _groups(call, facts.datastores, wanted[0], disks):
        action = transfer.of(vm_id, known, facts.datastores, own, settings)
        moves.append(Migration(action, source, target, tuple(group), is_relayed, others))
    return moves


def _groups(
    call: Call, datastores: Mapping[int, Datastore], system_id: int, disks: Sequence[Disk]
) -> list[tuple[Datastore, Settings, list[Disk]]]:
    """Return the disks by the LINSTOR that they are on, with the datastore whose attributes hold for them."""
    system = datastores[system_id]
    if system.transfer_driver == transfer.DRIVER or not disks:
        return [(system, transfer.settings_for(call, system), list(disks))]
    found: dict[object, tuple[Datastore, Settings, list[Disk]]] = {}
    for disk in disks:
        own = datastores[disk.datastore_id]
        settings = transfer.settings_for(call, own)
        found.setdefault(settings.controllers, (own, settings, []))[2].append(disk)
    return list(found.values())


def of_each(moves: Sequence[Migration], do: Callable[[Migration], None]) -> None:
    """Do something for each LINSTOR, also where it fails for one; then the first failure is raised."""
    failures = []
    for move in moves:
        try:
            do(move)
        except DriverError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def source_place(migration: Migration) -> Place:
    """Return the VM's directory on the source: in the system datastore that it was in before, by oned's history."""
    vm, source, target = migration.action.vm, migration.source, migration.target
    for hostname, datastore_id in zip(reversed(vm.hostnames), reversed(vm.datastore_ids)) if vm else ():
        is_before = not migration.is_on_one_host or datastore_id != target.datastore_id
        if datastore_id and hostname.lower() == source.host.lower() and is_before:
            return source.in_datastore(datastore_id)
    return source


def relay(call: Call, migration: Migration, verb: str, undo: Optional[Undo] = None) -> None:
    """Call the same action of every other driver that the VM's disks have, once each, as the core's drivers do.

    With `undo`, what a driver has prepared is taken back by its failmigrate. Raises CommandFailed with what it said.
    """
    if migration.is_relayed:
        return
    for driver in migration.other_drivers:
        if undo is not None:
            undo.push(f"what {driver} prepared", partial(_call_other, call, driver, "failmigrate"))
        _call_other(call, driver, verb)


def _call_other(call: Call, driver: str, verb: str) -> None:
    script = os.path.join(remotes(), "tm", os.path.basename(driver), verb)
    if not os.access(script, os.X_OK):
        raise CommandFailed(f"The VM has a disk of driver {driver}, and {script} is not there: install it")
    done = subprocess.run(
        [script, *call.arguments, transfer.DRIVER],
        input=call.standard_input,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        raise CommandFailed(f"{script} failed: {reason or f'exit status {done.returncode}'}; correct that and retry")


def offer(migration: Migration) -> None:
    """Attach every disk on the destination, where it may be primary too if the VM writes to it."""
    action, source, target = migration.action, migration.source.host, migration.target.host
    if migration.is_on_one_host:
        return
    _check_no_files(migration)
    _check_shareable(migration)
    written = {action.resource(disk) for disk in migration.disks if disk.is_writable}
    for disk in migration.disks:
        resource = action.resource(disk)
        with action.lock(resource):
            is_managed = _is_managed(migration, resource in written)
            replicas.attach(action.gateway, resource, target, is_managed, action.may_lack_drbd(disk))
    if not written or action.gateway.manages_two_primaries:
        return
    primaries.forget_earlier(action.gateway, written)
    for resource, known in replicas.of_several(action.gateway, sorted(written)).items():
        with action.lock(resource):
            primaries.allow(action.gateway, resource, known, source, target)


def _check_no_files(migration: Migration) -> None:
    """Check that no disk is a file in a directory that this driver copies while the VM writes to it; raises InUse."""
    if migration.is_relayed or not migration.other_drivers:
        return
    before = source_place(migration)
    places = {before._replace(disk_id=disk.disk_id).path: disk for disk in migration.others_disks}
    for path in devices.files(migration.action.host(before.host), list(places)):
        disk = places[path]
        raise InUse(
            f"Disk {disk.disk_id} of VM {migration.action.vm_id} is a file of driver {disk.transfer_driver} in the "
            "VM's directory, which would be copied while the VM writes to it: migrate the VM powered off "
            "(`onevm migrate --poff`)"
        )


def _check_shareable(migration: Migration) -> None:
    """Check that no VM stays behind that writes to the same image: one host writes at a time; raises InUse."""
    action, source = migration.action, migration.source
    for disk in migration.disks:
        if not (disk.is_shareable and disk.is_writable):
            continue
        if devices.is_linked(action.host(source.host), action.device(disk), source.datastores, action.vm_id):
            raise InUse(
                f"Disk {disk.disk_id} of VM {action.vm_id} is shareable and another VM on {source.host} has it, "
                "while DRBD lets one host write at a time: stop the VMs that share it and start them elsewhere"
            )


def _is_managed(migration: Migration, is_written: bool) -> bool:
    return is_written and migration.action.gateway.manages_two_primaries


def link(migration: Migration) -> None:
    """Copy the VM's directory to the destination and link every disk in it.

    Another driver's directory is copied by the hypervisor's own action, which looks at the disks by the paths that the
    VM was started with.
    """
    action, target = migration.action, migration.target
    links = [
        transfer.link(action, migration.place(disk), action.device(disk), disk.size_mib, not disk.is_writable)
        for disk in migration.disks
    ]
    links += _aliases(migration, target)
    there = action.host(target.host)
    if not migration.is_relayed:
        before = source_place(migration)
        directories.copy(action.host(before.host), before.directory, there, target.directory, *links)
        return
    if links:
        there.run(f"Linking the disks of VM {action.vm_id}", *links)
    aliases = _aliases(migration, source_place(migration))
    if aliases:
        action.host(migration.source.host).run(f"Linking {migration.source.directory}", *aliases)


def link_in_new_datastore(migration: Migration) -> None:
    """Link the disks of a VM that was moved live to another datastore of another driver, which moves no links."""
    if migration.is_relayed and migration.is_on_one_host:
        link(migration)


def _aliases(migration: Migration, place: Place) -> list[Step]:
    """Return the steps by which the running VM finds its disks, on a host, at the paths that it was started with."""
    vm = migration.action.vm
    if migration.is_on_one_host or vm is None:
        return []
    earlier = sorted({number for number in vm.datastore_ids if number and number != place.datastore_id})
    return [directories.alias(place.directory, place.in_datastore(number).directory) for number in earlier]


def leave(migration: Migration, left: Place, stays: Place) -> None:
    """Let go of the VM on the host that it has left, or never came to; a host that does not answer keeps its files.

    The directory and every disk are tried, and tried again where that fails, since oned asks only once; then the first
    error is raised.
    """
    if migration.is_on_one_host:
        _leave_directory(migration, left, stays)
        return
    unlinked: list[str] = []
    # Two primaries that stay allowed are worth more than an action that stops at once.
    with undisturbed():
        for wait in (*_WAITS_SECONDS, 0):
            failures = _try_to_leave(migration, left, stays, unlinked)
            if not failures:
                return
            if not wait or all(isinstance(failure, HostUnreachable) for failure in failures):
                raise failures[0]
            log.warning(f"{failures[0]}; trying again")
            time.sleep(wait)


def leave_target(migration: Migration) -> None:
    """Let go of the VM on the host that it never came to; raises as `leave`."""
    leave(migration, migration.target, source_place(migration))


def _try_to_leave(migration: Migration, left: Place, stays: Place, unlinked: list[str]) -> list[DriverError]:
    """Try it once and return what has failed; `unlinked` collects the devices that no VM on the host has any more."""
    action = migration.action
    failures: list[DriverError] = []
    try:
        unlinked += _remove_directory(migration, left, stays)
    except DriverError as error:
        failures.append(error)
    try:
        known = _known(migration)
    except DriverError as error:
        return [*failures, error]
    for disk in migration.disks:
        resource = action.resource(disk)
        may_detach = not disk.is_shared or action.device(disk) in unlinked
        try:
            with action.lock(resource):
                _leave_volume(migration, disk, known.get(resource, []), left.host, stays.host, may_detach)
        except DriverError as error:
            log.warning(f"disk {disk.disk_id} of VM {action.vm_id} is not let go of on {left.host}: {error}")
            failures.append(error)
    return failures


def adopt(migration: Migration) -> None:
    """Tell the VM's own volumes which system datastore they are in now."""
    action, target = migration.action, migration.target
    if source_place(migration).datastore_id == target.datastore_id:
        return
    for disk in migration.disks:
        if not disk.is_image:
            owner = action.owner(disk.disk_id, target.datastore_id)
            action.gateway.modify_resource_definition(action.resource(disk), owner)


def tidy(migration: Migration) -> None:
    """Detach what moves have left attached that another driver told nobody of, and remove the source's aliases.

    The move is done: what fails is a warning.
    """
    action, target = migration.action, migration.target
    if not migration.is_relayed or migration.is_on_one_host:
        return
    try:
        for disk in migration.disks:
            if not disk.is_shared:
                with action.lock(action.resource(disk)):
                    replicas.detach_elsewhere(action.gateway, action.resource(disk), target.host)
        before = source_place(migration)
        if _aliases(migration, before):
            step = directories.forget_aliases(before.directory)
            action.host(before.host).run(f"Forgetting {before.directory}", step)
    except DriverError as error:
        log.warning(f"{error}; what VM {action.vm_id} no longer needs stays until its next move")


def _unlinked(migration: Migration, left: Place) -> list[str]:
    """Return the devices of shared images that no other VM on a host has."""
    action = migration.action
    host, shared = action.host(left.host), [action.device(disk) for disk in migration.disks if disk.is_shared]
    return [device for device in shared if not devices.is_linked(host, device, left.datastores, action.vm_id)]


def _known(migration: Migration) -> Mapping[str, list[Replica]]:
    """Return where the volumes are of which that decides what is to be done."""
    action = migration.action
    is_managed = action.gateway.manages_two_primaries
    wanted = [action.resource(disk) for disk in migration.disks if disk.is_shared or not is_managed]
    return replicas.of_several(action.gateway, wanted)


def _leave_volume(
    migration: Migration, disk: Disk, known: Sequence[Replica], left: str, stays: str, may_detach: bool
) -> None:
    gateway, resource = migration.action.gateway, migration.action.resource(disk)
    if disk.is_writable and gateway.manages_two_primaries:
        primaries.leave(gateway, resource, left)
        return
    if disk.is_writable:
        primaries.forbid(gateway, resource, known, left, stays)
    for replica in known:
        if may_detach and replica.node.lower() == left.lower():
            replicas.detach_replica(gateway, resource, replica)


def _leave_directory(migration: Migration, left: Place, stays: Place) -> None:
    """Remove the directory of the system datastore that the VM is not in: its disks stay attached to the host.

    Where the VM was in it before, it may still know its disks by that path.
    """
    if left.directory == stays.directory or migration.is_relayed:
        return
    vm = migration.action.vm
    was_there = vm is not None and left.datastore_id in vm.datastore_ids[:-1]
    steps = [directories.alias(stays.directory, left.directory)] if was_there else []
    try:
        directories.remove(migration.action.host(left.host), left.directory, *steps)
    except HostUnreachable as error:
        log.warning(f"{error}; {left.directory} stays there")


def _remove_directory(migration: Migration, left: Place, stays: Place) -> list[str]:
    """Remove the VM's directory on the host that it has left, unless both hosts see the same one.

    Returns the devices that no VM's disk there is a link to any more. Another driver removes its directory itself.
    """
    action = migration.action
    try:
        if migration.is_relayed:
            return _unlinked(migration, left)
        return directories.remove_unless_shared(action.host(left.host), action.host(stays.host), left.directory)
    except HostUnreachable as error:
        log.warning(f"{error}; {left.directory} stays there")
        return []
