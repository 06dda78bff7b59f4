"""What the actions on a VM's backups begin with, and how they tidy up (opennebula-contract.md, 6).

Arguments of prebackup and postbackup: HOST:SYSDIR DISKID[:DISKID...] DEPLOYID JOBID VMID DSID; stdin is the <VM>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from linstor_un import locks
from linstor_un import settings as settings_room
from linstor_un.actions import backup_chain, transfer
from linstor_un.actions.backup_chain import Kept
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import snapshots, volumes
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.driver import Call, remotes
from linstor_un.errors import InvalidInput, InvalidSetting
from linstor_un.hosts import restoring, runner
from linstor_un.hosts.backup_files import Manner
from linstor_un.hosts.runner import Host
from linstor_un.naming import restore_snapshot
from linstor_un.opennebula import arguments, backups
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.backups import Configuration, Order
from linstor_un.opennebula.model import Datastore, Disk
from linstor_un.units import BYTES_PER_KIB

_NO_LIMIT = -1


class Backup(NamedTuple):
    """A backup of some of a VM's disks, into files in `directory` on a host."""

    action: Transfer
    place: Place
    order: Order
    disks: tuple[Disk, ...]
    document: bytes
    increments: Mapping[int, int]
    manner: Manner
    directory: str

    @property
    def configuration(self) -> Configuration:
        """Return how the backup is to be made."""
        return self.order.configuration

    @property
    def increment_id(self) -> int:
        """Return the id of the increment that is made, by which its files are looked for."""
        return self.configuration.increment_id(self.increments)

    @property
    def host(self) -> Host:
        """Return the host on which the files are made: from there the backup datastore fetches them."""
        bridge = self.configuration.bridge
        return runner.host(bridge, self.action.settings) if bridge else self.action.host(self.place.host)

    def lock(self) -> AbstractContextManager[bool]:
        """Return the lock of the VM's backups; whoever has it is asked to stop: oned has given up on it."""
        return lock_backups(self.action)

    def copies(self) -> list[str]:
        """Return the volumes that backups of the VM may have made of its disks' snapshots."""
        names, vm_id = self.action.names, self.place.vm_id
        disk_ids = [disk.disk_id for disk in self.order.vm.disks]
        return [name(vm_id, disk_id) for disk_id in disk_ids for name in (names.backup_copy, names.older_backup_copy)]


def lock_backups(action: Transfer) -> AbstractContextManager[bool]:
    """Return the lock of what backups of the VM change; whoever has it is asked to stop."""
    return locks.of_volume(action.settings, action.names.backup(action.vm_id), interrupt_holder=True)


def begin(call: Call) -> Backup:
    """Decode and check arguments and stdin, and ask oned for what they name; raises InvalidInput."""
    arguments.expect(call.arguments, "HOST:SYSDIR", "DISKS", "DEPLOYID", "JOBID", "VMID", "DSID")
    vm_id = arguments.identifier(call.arguments[4], "VMID")
    place = arguments.place(call.arguments[0], vm_id)
    datastore_id = arguments.identifier(call.arguments[5], "DSID")
    order = backups.decode(call.standard_input)
    if order.vm.vm_id != vm_id:
        raise InvalidInput(f"The action is called for VM {vm_id} and its XML is of VM {order.vm.vm_id}")
    wanted = [arguments.identifier(item, "A disk's id") for item in call.arguments[1].split(":")]
    seconds = settings_room.from_configuration(call.configuration).oned_timeout_seconds
    facts = backups.ask(datastore_id, order.configuration, seconds)
    own = facts.datastores[datastore_id]
    action = transfer.of(vm_id, order.vm, facts.datastores, own, transfer.settings_for(call, own))
    return Backup(
        action=action,
        place=place,
        order=order,
        disks=tuple(need_own_disk(action, disk_id) for disk_id in wanted),
        document=call.standard_input,
        increments=facts.increments,
        manner=_manner(facts.datastores.get(order.configuration.datastore_id)),
        directory=_directory(place),
    )


def need_own_disk(action: Transfer, disk_id: int) -> Disk:
    """Return a disk of the VM that is this driver's; raises InvalidInput."""
    disk = action.need_disk(disk_id)
    if not transfer.may_be_own(disk):
        raise InvalidInput(
            f"Disk {disk_id} of VM {action.vm_id} is of TM_MAD {disk.transfer_driver}, of which linstor_un neither "
            "makes nor restores backups: move its image to a linstor_un datastore"
        )
    return disk


def _directory(place: Place) -> str:
    """Return where the drivers of backup datastores look for the files: BACKUP_BASE_PATH of datastore.conf may say."""
    base = _base_path(f"{remotes()}/etc/datastore/datastore.conf")
    return f"{base}/{place.vm_id}/backup" if base else f"{place.directory}/backup"


def _base_path(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.findall(r"""^\s*(?:export\s+)?BACKUP_BASE_PATH=["']?([^"'\n]*?)["']?\s*$""", file.read(), re.M)
    except OSError:
        return ""
    base = found[-1].rstrip("/") if found else ""
    if base and not re.fullmatch(r"(?:/[\w.+@-]+)+", base, re.ASCII):
        raise InvalidSetting(f'BACKUP_BASE_PATH="{base}" of {path} is not valid: set it to an absolute path')
    return base


def _manner(datastore: Datastore | None) -> Manner:
    """Return how hard the backup may work, as the drivers of backup datastores name it: RESTIC_NICE, RSYNC_NICE ..."""
    if datastore is None:
        return Manner()
    kind = datastore.attributes.get("DS_MAD", "").upper()
    nice, io_nice, limit = (_number(datastore, f"{kind}_{name}") for name in ("NICE", "IONICE", "BWLIMIT"))
    return Manner(
        nice=None if nice == _NO_LIMIT else nice,
        io_nice=None if io_nice == _NO_LIMIT else io_nice,
        bytes_per_second=0 if limit == _NO_LIMIT else limit * BYTES_PER_KIB,
    )


def _number(datastore: Datastore, key: str) -> int:
    value = datastore.attributes.get(key, "").strip() or str(_NO_LIMIT)
    if not re.fullmatch(r"-1|[0-9]{1,9}", value):
        raise InvalidSetting(f'{key}="{value[:40]}" of {datastore.label} is not valid: set it to a number')
    return int(value)


def remove_copies(backup: Backup) -> None:
    """Remove the volumes that this or an earlier backup of the VM has made to read them; those of others stay."""
    action = backup.action
    for volume in volumes.find_several(action.gateway, backup.copies()):
        if volume is not None and volume.properties.get(action.names.vm_id) == str(action.vm_id):
            volumes.remove(action.gateway, volume.resource)


def all_snapshots(backup: Backup, resources: Sequence[str]) -> dict[str, Sequence[Snapshot]]:
    """Return the snapshots of these volumes by the volumes' names."""
    found = snapshots.of_all(backup.action.gateway, resources) if resources else {}
    return {name: found.get(name.lower(), ()) for name in resources}


def kept_snapshots(backup: Backup, found: Mapping[str, Sequence[Snapshot]]) -> dict[str, list[Kept]]:
    """Return those of volumes' snapshots that backups of the VM have taken, by the volumes' names."""
    return {name: backup_chain.of_vm(items, backup.place.vm_id) for name, items in found.items()}


def check_whole(backup: Backup, found: Mapping[str, Sequence[Snapshot]]) -> None:
    """Refuse disks that a killed restore has left half of a backup on; raises NotReady, and as Host.run."""
    name, place = restore_snapshot(backup.place.vm_id), backup.place
    kept = {resource for resource, items in found.items() for item in items if item.name.lower() == name}
    if not kept:
        return
    there = restoring.look(backup.action.host(place.host), place.directory)
    for disk in backup.disks:
        if backup.action.resource(disk) in kept and not there.is_whole(disk.disk_id):
            raise transfer.half_restored(place.vm_id, disk.disk_id)
