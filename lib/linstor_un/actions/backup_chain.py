"""Which kept snapshot of a disk is the one that the next increment of a chain is made from.

oned knows a chain by its image and by the ids of its increments; a snapshot by its name knows its increment and when it
was taken. Where a chain was begun anew, or a backup has failed after its snapshots were taken, there may be several of
the same increment: the one that belongs to the chain was taken after the increment before was done, and before its own
was. Any other one would make a chain that is silently wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from linstor_un.cluster import snapshots
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.naming import BackupSnapshot, backup_snapshot_of, restore_snapshot


class Kept(NamedTuple):
    """A snapshot that a backup has taken, with what its name says."""

    snapshot: Snapshot
    says: BackupSnapshot


def of_vm(found: Iterable[Snapshot], vm_id: int) -> list[Kept]:
    """Return those of a volume's snapshots that backups of this VM have taken."""
    named = ((item, backup_snapshot_of(item.name)) for item in found)
    return [Kept(item, says) for item, says in named if says is not None and says.vm_id == vm_id]


def forget(gateway: Gateway, resource: str, vm_id: int, with_restores: bool = False) -> None:
    """Delete all snapshots of a volume that backups of this VM have taken, and those of restores where asked to."""
    for item in snapshots.of(gateway, resource):
        if of_vm([item], vm_id) or (with_restores and item.name.lower() == restore_snapshot(vm_id)):
            snapshots.forget(gateway, resource, item.name)


def base(kept: Sequence[Kept], increment_id: int, done: Mapping[int, int]) -> Optional[Kept]:
    """Return the snapshot of the chain's increment, or None where it is not there or not certainly the one.

    Arguments: `done` says when each increment was done, in seconds since the epoch, as oned has it.
    """
    # An oned that was killed may have given its chain an increment and told the VM of none: the next one follows that.
    if not done.get(increment_id) or max(done) > increment_id:
        return None
    earlier = [taken for number, taken in done.items() if number < increment_id]
    candidates = [
        item
        for item in kept
        if item.says.increment_id == increment_id
        and max(earlier, default=0) <= item.says.taken <= done[increment_id]
        and item.snapshot.is_usable
    ]
    return candidates[0] if len(candidates) == 1 else None
