"""What the three actions of a live migration have in common.

Arguments of all of them: SRCHOST DSTHOST SYSDIR VMID DSID [TM]; SYSDIR and DSID are the destination's, TM is the system
datastore's driver where that is another one and relays to us. stdin is the base64 of the <VM>, whose last history
record is the destination's.
"""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

from linstor_un import log
from linstor_un import settings as settings_room
from linstor_un.actions import transfer
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import primaries, replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.driver import Call, remotes
from linstor_un.errors import CommandFailed, DriverError, HostUnreachable, InvalidInput
from linstor_un.hosts import directories
from linstor_un.opennebula import arguments, decoding, model, oned
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk


class Migration(NamedTuple):
    """A live migration of a VM: its own disks, and the directory that the destination gets."""

    action: Transfer
    source: Place
    target: Place
    disks: tuple[Disk, ...]
    is_relayed: bool

    @property
    def is_on_one_host(self) -> bool:
        """Tell whether only the system datastore changes."""
        return self.source.host.lower() == self.target.host.lower()

    def place(self, disk: Disk) -> Place:
        """Return where a disk is linked on the destination."""
        return self.target._replace(disk_id=disk.disk_id)


def begin(call: Call) -> Migration:
    """Decode and check the arguments and the VM; raises InvalidInput."""
    is_relayed = len(call.arguments) == 6
    names = ("SRCHOST", "DSTHOST", "PATH", "VMID", "DSID")
    arguments.expect(call.arguments, *names, "TM") if is_relayed else arguments.expect(call.arguments, *names)
    source_host, target_host, path, vm, datastore = call.arguments[:5]
    vm_id = arguments.identifier(vm, "VMID")
    target = arguments.place(f"{arguments.hostname(target_host)}:{path}", vm_id)
    machine = model.virtual_machine(decoding.parse(decoding.decode(call.standard_input), "VM"))
    if machine.vm_id != vm_id:
        raise InvalidInput(f"The action is called for VM {vm_id} and its XML is of VM {machine.vm_id}")
    disks = tuple(disk for disk in machine.disks if disk.transfer_driver == transfer.DRIVER)
    wanted = [arguments.identifier(datastore, "DSID"), *(disk.datastore_id for disk in disks)]
    facts = oned.ask(vm_id, wanted)
    own = facts.datastores[wanted[0]]
    if own.transfer_driver != transfer.DRIVER and disks:
        own = facts.datastores[disks[0].datastore_id]
    settings = settings_room.for_datastore(call.configuration, own.attributes, own.label)
    gateway = Gateway(settings)
    # The driver's XML has the last record of the history alone.
    known = facts.virtual_machine or machine._replace(hostnames=(source_host, target_host))
    action = Transfer(vm_id, known, facts.datastores, own, settings, gateway)
    source = target._replace(host=arguments.hostname(source_host))
    return Migration(action, source, target, disks, is_relayed)


def source_datastore(migration: Migration) -> int:
    """Return the system datastore that the VM is in before the migration, by oned's history of the VM."""
    vm = migration.action.vm
    target = migration.target.datastore_id
    for hostname, datastore_id in zip(reversed(vm.hostnames), reversed(vm.datastore_ids)) if vm else ():
        is_before = not migration.is_on_one_host or datastore_id != target
        if datastore_id and hostname.lower() == migration.source.host.lower() and is_before:
            return datastore_id
    return target


def relay(call: Call, migration: Migration, verb: str) -> None:
    """Call the same action of every other driver that the VM's disks have, once each, as the core's drivers do.

    Raises CommandFailed with what the other driver said.
    """
    if migration.is_relayed:
        return
    vm = model.virtual_machine(decoding.parse(decoding.decode(call.standard_input), "VM"))
    for driver in sorted({disk.transfer_driver for disk in vm.disks} - {"", transfer.DRIVER}):
        script = os.path.join(remotes(), "tm", os.path.basename(driver), verb)
        if not os.access(script, os.X_OK):
            raise CommandFailed(f"VM {vm.vm_id} has a disk of driver {driver}, and {script} is not there: install it")
        done = subprocess.run(
            [script, *call.arguments, transfer.DRIVER],
            input=call.standard_input,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            reason = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
            raise CommandFailed(
                f"{script} failed: {reason or f'exit status {done.returncode}'}; correct that and retry"
            )


def prepare(migration: Migration, disk: Disk) -> None:
    """Offer a disk on the destination, where it may be primary too if it is ever written to."""
    action = migration.action
    resource = action.resource(disk)
    with action.lock(resource):
        if disk.is_shared or migration.is_on_one_host:
            replicas.attach(action.gateway, resource, migration.target.host)
        else:
            primaries.allow(action.gateway, resource, migration.source.host, migration.target.host)
    step = transfer.link(action, migration.place(disk), action.device(disk), disk.size_mib, disk.is_shared)
    action.host(migration.target.host).run(f"Linking disk {disk.disk_id} of VM {action.vm_id}", step)


def leave(migration: Migration, left: str, stays: str, unlinked: list[str]) -> None:
    """Let go of the VM's disks on the host that it has left, or never came to; every disk is tried.

    Arguments: `unlinked` are the devices that no VM's disk on that host is a link to any more.
    """
    action = migration.action
    for disk in migration.disks:
        resource = action.resource(disk)
        try:
            with action.lock(resource):
                if not disk.is_shared:
                    primaries.forbid(action.gateway, resource, left, stays)
                elif action.device(disk) in unlinked:
                    replicas.detach(action.gateway, resource, left)
        except DriverError as error:
            log.error(f"disk {disk.disk_id} of VM {action.vm_id} is not let go of on {left}: {error}")


def remove_directory(migration: Migration, left: Place, stays: Place) -> list[str]:
    """Remove the VM's directory on the host that it has left, unless both hosts see the same one."""
    action = migration.action
    if migration.is_relayed:
        return []
    try:
        return directories.remove_unless_shared(action.host(left.host), action.host(stays.host), left.directory)
    except HostUnreachable as error:
        log.warning(f"{error}; {left.directory} stays there")
        return []
