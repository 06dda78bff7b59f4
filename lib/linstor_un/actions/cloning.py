"""A volume with the content of another: restored from a kept snapshot, or copied.

A non-persistent image does not change, so that one base snapshot of it serves all its clones: it is taken when the
first VM needs it, and dropped when the image is opened for writing or removed. A VM's disk then costs one restore, and
many at once neither queue behind the image nor suspend it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from linstor_un import log
from linstor_un import settings as settings_room
from linstor_un.actions import new_volume
from linstor_un.actions.image_reader import offered
from linstor_un.cluster import pools, replicas, snapshots, volumes
from linstor_un.cluster.codes import SNAPSHOTS_NOT_SUPPORTED
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.placement import Placement
from linstor_un.cluster.primaries import TWO_PRIMARIES
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.errors import AlreadyExists, ControllerFailed, NotFound, NotReady
from linstor_un.hosts import copies
from linstor_un.locks import volume_lock
from linstor_un.naming import BASE_SNAPSHOT, drbd_device
from linstor_un.settings import Settings
from linstor_un.undo import Undo

_GROW_WAIT_SECONDS = 0.5
MIB = 1 << 20


class Clone(NamedTuple):
    """What is to be cloned: `source` of `source_size_mib` into the new volume `target` of `size_mib`."""

    source: str
    source_size_mib: int
    target: str
    size_mib: int
    placement: Placement
    owner: Mapping[str, str]


def clone(gateway: Gateway, undo: Undo, wanted: Clone, mode: str, near: str = "") -> tuple[str, ...]:
    """Make the clone as `mode` says (CLONE_MODE) and return the nodes with a replica; `near` is the host of the VM.

    Where a snapshot cannot be had (the pool has none, a replica is away) the clone is copied: a VM that starts slowly
    is better than one that does not start.
    """
    if mode == "snapshot":
        base = _base(gateway, wanted.source)
        if base is not None:
            return restore(gateway, undo, wanted, base, near)
    return copy(gateway, undo, wanted, near)


def _base(gateway: Gateway, source: str) -> Snapshot | None:
    """Return the base snapshot of an image, taken now where there is none; None where it cannot be had."""
    existing = _usable_base(gateway, source)
    if existing is not None:
        return existing
    settings = gateway.settings
    with volume_lock(settings_room.lock_directory(settings), source, settings.lock_timeout_seconds):
        # Whoever had the lock before may have taken it.
        return _usable_base(gateway, source) or _take_base(gateway, source)


def _usable_base(gateway: Gateway, source: str) -> Snapshot | None:
    existing = snapshots.find(gateway, source, BASE_SNAPSHOT)
    return existing if existing is not None and existing.is_usable else None


def _take_base(gateway: Gateway, source: str) -> Snapshot | None:
    # What an image says of itself is copied to its clones: an earlier VM's name must not be.
    disown(gateway, source, {})
    try:
        snapshots.take(gateway, source, BASE_SNAPSHOT)
    except (ControllerFailed, NotReady) as error:
        if isinstance(error, ControllerFailed) and error.code != SNAPSHOTS_NOT_SUPPORTED:
            raise
        log.warning(f"{error}; copying instead")
        return None
    return _usable_base(gateway, source)


def restore(gateway: Gateway, undo: Undo, wanted: Clone, base: Snapshot, near: str = "") -> tuple[str, ...]:
    """Make the clone from a snapshot of its source, without moving a byte; return the nodes with a replica."""
    token = new_volume.mark()
    names = gateway.settings.names
    undo.push(f"volume {wanted.target}", lambda: new_volume.remove_made(gateway, wanted.target, token))
    properties = {**wanted.owner, names.run: token}
    try:
        volumes.define(gateway, wanted.target, wanted.placement, properties)
    except AlreadyExists:
        new_volume.discard(gateway, wanted.target, wanted.owner)
        volumes.define(gateway, wanted.target, wanted.placement, properties)
    if not snapshots.restore_definition(gateway, wanted.source, base.name, wanted.target):
        raise NotFound(f"Snapshot {base.name} of {wanted.source} went away while it was cloned: retry")
    nodes = _restored_on(base, wanted.placement.replica_count, near)
    snapshots.restore(gateway, wanted.source, base.name, wanted.target, nodes if len(nodes) < len(base.nodes) else ())
    count = wanted.placement.replica_count or 0
    if len(nodes) < count:
        gateway.autoplace(wanted.target, wanted.placement.select_filter)
        nodes = tuple(replica.node for replica in replicas.of(gateway, wanted.target) if replica.holds_data)
    if wanted.size_mib > wanted.source_size_mib:
        _grow(gateway, wanted)
    return nodes


def _restored_on(base: Snapshot, count: int | None, near: str) -> tuple[str, ...]:
    """Return as many of the snapshot's nodes as there shall be replicas, the host that will use the disk first."""
    ordered = sorted(base.nodes, key=lambda node: node.lower() != near.lower())
    return tuple(ordered[: count or len(ordered)])


def _grow(gateway: Gateway, wanted: Clone) -> None:
    deadline = time.monotonic() + gateway.settings.device_timeout_seconds
    while True:
        try:
            volumes.grow(gateway, wanted.target, wanted.size_mib)
            return
        except NotReady:
            # A restored replica is up to date a moment after the restore has returned.
            if time.monotonic() > deadline:
                raise
            time.sleep(_GROW_WAIT_SECONDS)


def copy(gateway: Gateway, undo: Undo, wanted: Clone, near: str = "") -> tuple[str, ...]:
    """Make the clone by copying its source, which nobody may write to; return the nodes with a replica."""
    there = replicas.of(gateway, wanted.source)
    holders = [replica.node for replica in there if replica.holds_data]
    if not holders:
        raise NotFound(
            f"LINSTOR has no replica of {wanted.source} to clone: see `linstor resource list -r {wanted.source}`"
        )
    placement = wanted.placement
    if near and gateway.settings.prefer_node:
        placement = pools.near(gateway, placement, near, wanted.size_mib * volumes.KIB_PER_MIB)
    preferred = [near] if near in holders else holders
    made = new_volume.make(
        gateway, undo, wanted.target, wanted.size_mib, placement, wanted.owner, preferred_writers=preferred
    )
    has_drbd = any("DRBD" in replica.layers for replica in there)
    source = drbd_device(wanted.source) if has_drbd else new_volume.reported_device(gateway, wanted.source)
    step = copies.copy(made.writer, source, made.device, wanted.source_size_mib * MIB, made.reads_zero)
    with offered(gateway, wanted.source, made.writer.name, holders):
        made.writer.run(f"Copying {wanted.source} to {wanted.target}", step)
    new_volume.leave_writer(gateway, made)
    new_volume.finish(gateway, made)
    return made.nodes


def disown(gateway: Gateway, resource: str, owner: Mapping[str, str]) -> None:
    """Rid a volume of what it says of a VM, whose disk it was or was restored from; say `owner` instead."""
    names = gateway.settings.names
    theirs = [names.vm_id, names.disk_id, names.datastore_id, names.run, TWO_PRIMARIES]
    gateway.modify_resource_definition(resource, owner, theirs)


def is_alike(gateway: Gateway, source: str, placement: Placement) -> bool:
    """Tell whether what is restored from a snapshot, on its nodes, in its pools and layers, is as `placement` asks."""
    asked = pools.criteria(gateway, placement)
    layers = tuple(asked.get("layer_stack") or ())
    allowed_pools = {name.lower() for name in asked.get("storage_pool_list") or ()}
    allowed_nodes = {name.lower() for name in asked.get("node_name_list") or ()}
    holders = [replica for replica in replicas.of(gateway, source) if replica.holds_data]
    return bool(holders) and all(
        layers in ((), replica.layers)
        and (not allowed_pools or replica.storage_pool.lower() in allowed_pools)
        and (not allowed_nodes or replica.node.lower() in allowed_nodes)
        for replica in holders
    )


def differ(ours: Settings, theirs: Settings) -> bool:
    """Tell whether two datastores ask for layers or pools that a restored snapshot cannot both have."""
    if ours.layers != theirs.layers:
        return True
    return bool(ours.storage_pools and theirs.storage_pools and not set(ours.storage_pools) & set(theirs.storage_pools))


def forget_base(gateway: Gateway, resource: str) -> None:
    """Drop the base snapshot of an image that is about to be written to: later clones must see what is written."""
    gateway.delete_snapshot(resource, BASE_SNAPSHOT)
