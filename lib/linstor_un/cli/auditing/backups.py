"""What backups and restores of VMs have kept, and whether anybody still needs it."""

from __future__ import annotations

from typing import NamedTuple, Optional

from linstor_un.cli.auditing.finding import ASK, SAFE, View
from linstor_un.cli.inventory import Wanted
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.naming import BackupSnapshot, backup_snapshot_of, snapshot_vm_id_of


class Left(NamedTuple):
    """Why a snapshot is left over, what its deletion needs, and why that is right."""

    text: str
    consent: str
    reason: str


def is_under_way(view: View, vm_id: int) -> bool:
    """Tell whether a backup or a restore of the VM may run: oned says so, or it holds its lock."""
    machine = view.inventory.database.machines.get(vm_id)
    is_held = view.inventory.names.backup(vm_id).lower() in view.held
    return is_held or (machine is not None and not machine.is_settled)


def left(wanted: Wanted, snapshot: Snapshot) -> Optional[Left]:
    """Return why a backup's or a restore's snapshot is left over, or None where it is not, or is none."""
    says = backup_snapshot_of(snapshot.name)
    if says is not None:
        return _of_backup(wanted, says)
    vm_id = snapshot_vm_id_of(snapshot.name)
    return None if vm_id is None else _of_restore(wanted, vm_id)


def _of_backup(wanted: Wanted, says: BackupSnapshot) -> Optional[Left]:
    machine = next((item for item in wanted.machines if item.vm.vm_id == says.vm_id), None)
    if machine is None:
        text = f"was kept for backups of VM {says.vm_id}, which does not have this disk"
    elif says.increment_id in machine.increment_ids:
        return None
    else:
        text = f"is of an increment from which the backups of {machine.label} do not go on"
    return Left(text, SAFE, "no increment will be made from it, and no backup that is stored needs it")


def _of_restore(wanted: Wanted, vm_id: int) -> Left:
    is_there = any(item.vm.vm_id == vm_id for item in wanted.machines)
    remedy = "restore it again, which removes it" if is_there else "look whether what is there now is whole"
    return Left(
        f"is what was there before a restore of VM {vm_id} that has ended, or was killed half-way: {remedy}",
        ASK,
        "the restore is over; what was there before is lost then",
    )
