"""Making the files of a backup: snapshots of all disks at one instant, read while the VM goes on.

A snapshot has no device of its own: it gets a volume for as long as it is read, on a node that has the snapshot, which
is the host of the files where that has it. An increment is made from what has changed since the snapshot of the one
before, which is kept for that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, Optional

from linstor_un import log
from linstor_un.actions import backup, backup_chain, cloning, disk_snapshot, new_volume
from linstor_un.actions.backup import Backup
from linstor_un.actions.backup_chain import Kept
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools, replicas, snapshots
from linstor_un.cluster.pools import Pool
from linstor_un.cluster.replicas import Replica
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.errors import ChangesUnknown, DriverError, NotFound
from linstor_un.hosts import backup_files, changes, runner
from linstor_un.hosts.backup_files import Target
from linstor_un.naming import BackupSnapshot
from linstor_un.opennebula import backups
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo
from linstor_un.units import BYTES_PER_KIB, KIB_PER_MIB, MIB, ROUNDED_MIB

_PLAIN_LAYERS = (("DRBD", "STORAGE"), ("STORAGE",))


class _Part(NamedTuple):
    """A disk with its new snapshot, and that of the increment before where this one is made from it."""

    disk: Disk
    resource: str
    snapshot: Snapshot
    base: Optional[Kept]


def take(wanted: Backup, is_live: bool) -> None:
    """Make the files; where that fails nothing is left, and the VM runs on.

    Raises NotReady where a pool cannot take snapshots or a replica is away, ChangesUnknown, and as Host.run.
    """
    with wanted.lock(), Undo() as undo:
        resources = [wanted.action.resource(disk) for disk in wanted.disks]
        found = backup.all_snapshots(wanted, resources)
        if not is_live:
            backup.check_whole(wanted, found)
        backup.remove_copies(wanted)
        bases = _tidy_chain(wanted, backup.kept_snapshots(wanted, found))
        undo.push(wanted.directory, lambda: backup_files.remove(wanted.host, wanted.directory))
        backup_files.prepare(wanted.host, wanted.directory, wanted.document)
        taken = _snapshots(wanted, undo, resources, is_live)
        parts = [_Part(disk, name, taken[name], bases.get(name)) for disk, name in zip(wanted.disks, resources)]
        _make_files(wanted, undo, parts)
        backup.remove_copies(wanted)


def _tidy_chain(wanted: Backup, found: Mapping[str, Sequence[Kept]]) -> dict[str, Kept]:
    """Return the snapshots of the increment before, and delete all others that backups have taken of the VM's disks."""
    last = wanted.configuration.last_increment_id
    bases = {}
    for resource, items in found.items():
        base = None if last == backups.NONE else backup_chain.base(items, last, wanted.increments)
        if base is not None:
            bases[resource] = base
        for kept in items:
            if kept is not base:
                snapshots.forget(wanted.action.gateway, resource, kept.snapshot.name)
    return bases if wanted.configuration.is_incremental else {}


def _snapshots(wanted: Backup, undo: Undo, resources: Sequence[str], is_live: bool) -> dict[str, Snapshot]:
    """Take snapshots of all disks at one instant and return them by their volumes."""
    action, says = wanted.action, (wanted.place.vm_id, wanted.increment_id, int(time.time()))
    sizes_mib = {resource: disk.size_mib for disk, resource in zip(wanted.disks, resources)}
    names = {resource: BackupSnapshot(*says, size_mib).name for resource, size_mib in sizes_mib.items()}
    for resource, name in names.items():
        _push_removal(wanted, undo, resource, name)
    with ExitStack() as locks:
        for resource in sorted(names):
            locks.enter_context(action.lock(resource))
        with snapshots.needed("backups need pools that can take snapshots: LVM-thin or ZFS"):
            if is_live and wanted.configuration.freeze != backups.NO_FREEZE:
                disk_snapshot.take_live(action, wanted.place, names, wanted.configuration.freeze)
            else:
                snapshots.take_together(action.gateway, names)
    # Which of them is read, and which says what has changed, depends on where the VM is.
    replicas.check_alike(action.gateway, resources)
    found = snapshots.of_all(action.gateway, list(names))
    return {resource: _one(found.get(resource.lower(), ()), resource, name) for resource, name in names.items()}


def _push_removal(wanted: Backup, undo: Undo, resource: str, name: str) -> None:
    undo.push(f"snapshot {name}", lambda: snapshots.forget(wanted.action.gateway, resource, name))


def _one(found: Sequence[Snapshot], resource: str, name: str) -> Snapshot:
    snapshot = next((item for item in found if item.name.lower() == name.lower()), None)
    if snapshot is None or not snapshot.is_usable:
        raise NotFound(f"Snapshot {name} of {resource} went away while it was backed up: retry")
    return snapshot


# --- files ------------------------------------------------------------------------------------------------------------


def _make_files(wanted: Backup, undo: Undo, parts: Sequence[_Part]) -> None:
    if wanted.configuration.continues_chain:
        for part in parts:
            _make_increment(wanted, undo, part)
        return
    steps = [backup_files.full(wanted.host, _target(wanted, undo, part), wanted.manner) for part in parts]
    wanted.host.run(f"Copying {', '.join(part.resource for part in parts)}", *steps)


def _target(wanted: Backup, undo: Undo, part: _Part) -> Target:
    """Return the disk's file and the device, on the same host, of what its snapshot holds."""
    copy = wanted.action.names.backup_copy(wanted.place.vm_id, part.disk.disk_id)
    device = _offer(wanted, undo, part, part.snapshot, copy)
    if not wanted.configuration.is_incremental:
        # What is restored from it does not need it, and no increment will.
        snapshots.forget(wanted.action.gateway, part.resource, part.snapshot.name)
    file = f"{wanted.directory}/disk.{part.disk.disk_id}.{wanted.increment_id}"
    return Target(device, part.disk.size_mib * MIB, file)


def _offer(wanted: Backup, undo: Undo, part: _Part, snapshot: Snapshot, copy: str) -> str:
    """Make a volume of a snapshot, have it where the files are made, and return its device there."""
    action, host = wanted.action, wanted.host.name
    placement = placements.of(action.settings, action.datastore.label)
    alone = placement.with_one_replica()
    size_mib = -(-snapshot.size_kib // KIB_PER_MIB)
    owner = {action.names.vm_id: str(wanted.place.vm_id)}
    clone = cloning.Clone(part.resource, size_mib, copy, size_mib, alone, owner, is_disowned=True)
    made = cloning.restore(action.gateway, undo, clone, snapshot, host)
    if host.lower() not in {node.lower() for node in made.nodes}:
        replicas.attach(action.gateway, copy, host)
    return new_volume.device(action.gateway, copy, placement.layers, host)


# --- increments -------------------------------------------------------------------------------------------------------


def _make_increment(wanted: Backup, undo: Undo, part: _Part) -> None:
    target = _target(wanted, undo, part)
    holder = None if part.base is None else _holder(wanted, part, part.base)
    if part.base is None or holder is None:
        log.warning(
            f"disk {part.disk.disk_id} of VM {wanted.place.vm_id} has no snapshot of increment "
            f"{wanted.configuration.last_increment_id} beside the new one: this increment has all of the disk"
        )
        backup_files.changes(wanted.host, target, wanted.manner, lambda device_bytes: [(0, device_bytes)])
        return
    if part.base.snapshot.size_kib > part.snapshot.size_kib:
        rounded_kib = part.base.snapshot.size_kib + ROUNDED_MIB * KIB_PER_MIB
        target = target._replace(earlier_bytes=rounded_kib * BYTES_PER_KIB)
    # Nobody knows any more by how much its device was longer: what is behind that is in each increment.
    earlier_bytes, cluster_bytes = part.base.says.size_mib * MIB, backup_files.LARGEST_CLUSTER_BYTES
    try:
        pool = _pool(wanted, holder)
        cluster_bytes = changes.least_bytes(pool.provider)
        found = partial(changes.within, _told(wanted, part, part.base, holder, pool), earlier_bytes)
        backup_files.changes(wanted.host, target, wanted.manner, found, cluster_bytes)
    except ChangesUnknown as error:
        if not wanted.action.settings.backup_compare:
            raise
        log.warning(f"{error}; comparing disk {part.disk.disk_id} of VM {wanted.place.vm_id} with its kept snapshot")
        earlier = wanted.action.names.older_backup_copy(wanted.place.vm_id, part.disk.disk_id)
        device = _offer(wanted, undo, part, part.base.snapshot, earlier)
        step = backup_files.comparison(wanted.host, target, wanted.manner, (device, earlier_bytes), cluster_bytes)
        wanted.host.run(f"Comparing {part.resource} with its kept snapshot", step)


def _holder(wanted: Backup, part: _Part, base: Kept) -> Optional[Replica]:
    """Return the replica beside which both snapshots are, where the files are made if that is one of several."""
    nodes = {node.lower() for node in base.snapshot.nodes} & {node.lower() for node in part.snapshot.nodes}
    there = replicas.of(wanted.action.gateway, part.resource)
    found = [item for item in there if item.holds_data and item.is_online and item.node.lower() in nodes]
    return min(found, key=lambda item: item.node.lower() != wanted.host.name.lower(), default=None)


def _pool(wanted: Backup, holder: Replica) -> Pool:
    """Return the pool that a replica is in, one of no kind where that does not answer; raises ChangesUnknown."""
    try:
        found = pools.of(wanted.action.gateway, [holder.storage_pool], [holder.node])
    except DriverError as error:
        raise _unknown(error) from None
    return found[0] if found else Pool(holder.node, holder.storage_pool, "", 0, 0)


def _told(wanted: Backup, part: _Part, base: Kept, holder: Replica, pool: Pool) -> Iterator[tuple[int, int]]:
    """Yield what has changed since the base; raises ChangesUnknown for whatever keeps its node from saying so."""
    try:
        yield from _changes(wanted, part, base, holder, pool)
    except DriverError as error:
        raise _unknown(error) from None


def _changes(wanted: Backup, part: _Part, base: Kept, holder: Replica, pool: Pool) -> Iterator[tuple[int, int]]:
    """Return what has changed since the base, as the pool of a node that has both snapshots says."""
    provider = pool.provider
    host, volume = runner.host(holder.node, wanted.action.settings), f"{part.resource}_00000"
    names = base.snapshot.name, part.snapshot.name
    if holder.layers in _PLAIN_LAYERS and provider in changes.THIN_PROVIDERS:
        return changes.of_thin_pool(host, volume, *names)
    if holder.layers in _PLAIN_LAYERS and provider in changes.ZFS_PROVIDERS:
        return changes.of_zfs(host, f"{pool.backing}/{volume}", *names, part.snapshot.size_kib * BYTES_PER_KIB)
    raise ChangesUnknown(
        f"{part.resource} has layers {','.join(holder.layers)} in a pool of kind {provider or 'unknown'}, which does "
        "not say what has changed"
    )


def _unknown(error: DriverError) -> ChangesUnknown:
    return ChangesUnknown(
        f"No increment can be made: {str(error).partition('; ')[0]}; give the pool's node what docs/backup.md asks "
        "for, set BACKUP_COMPARE=yes in linstor_un.conf, or begin a new chain with `onevm backup --reset`"
    )
