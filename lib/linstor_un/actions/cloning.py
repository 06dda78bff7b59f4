"""A volume with the content of another: restored from a kept snapshot, or copied.

A non-persistent image does not change, so that one base snapshot of it serves all its clones: it is taken when the
first VM needs it, and dropped when the image is opened for writing or removed. A VM's disk then costs one restore, and
many at once neither queue behind the image nor suspend it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from linstor_un import locks, log
from linstor_un.actions import image_reader, new_volume
from linstor_un.cluster import pools, replicas, snapshots, volumes
from linstor_un.cluster.codes import SNAPSHOTS_NOT_SUPPORTED
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.placement import Placement
from linstor_un.cluster.primaries import TWO_PRIMARIES
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.errors import ControllerFailed, NoRoom, NotFound, NotReady
from linstor_un.hosts import copies
from linstor_un.naming import BASE_SNAPSHOT
from linstor_un.settings import Settings
from linstor_un.undo import Undo
from linstor_un.units import KIB_PER_MIB, MIB

_GROW_WAIT_SECONDS = 0.5


class Clone(NamedTuple):
    """What is to be cloned: `source` of `source_size_mib` into the new volume `target` of `size_mib`.

    `is_disowned` where what is restored says that it is the source's owner's: it is marked until it is disowned.
    """

    source: str
    source_size_mib: int
    target: str
    size_mib: int
    placement: Placement
    owner: Mapping[str, str]
    is_disowned: bool = False


class Cloned(NamedTuple):
    """The volume that was made, and the nodes with a replica of it."""

    resource: str
    nodes: tuple[str, ...]


def clone(gateway: Gateway, undo: Undo, wanted: Clone, mode: str, near: str = "") -> Cloned:
    """Make the clone as `mode` says (CLONE_MODE) and return it; `near` is the host of the VM.

    Where a snapshot cannot be had (the pool has none, a replica is away) the clone is copied: a VM that starts slowly
    is better than one that does not start.
    """
    if mode == "snapshot":
        base = _base(gateway, wanted)
        if base is not None:
            return restore(gateway, undo, wanted, base, near)
    return copy(gateway, undo, wanted, near)


def _base(gateway: Gateway, wanted: Clone) -> Snapshot | None:
    """Return the base snapshot of an image, taken now where there is none; None where it cannot be had."""
    source = wanted.source
    existing = _usable_base(gateway, source)
    if existing is not None and not _is_outgrown(gateway, wanted, existing):
        return existing
    with locks.of_volume(gateway.settings, source):
        # Whoever had the lock before may have taken it.
        existing = _usable_base(gateway, source)
        if existing is not None and _is_outgrown(gateway, wanted, existing):
            forget_base(gateway, source)
            existing = None
        return existing or _take_base(gateway, source)


def _is_outgrown(gateway: Gateway, wanted: Clone, base: Snapshot) -> bool:
    """Tell whether a base that was taken while replicas were away can be had from more of them now."""
    if len(base.nodes) >= (wanted.placement.replica_count or 0):
        return False
    alive = [item for item in replicas.of(gateway, wanted.source) if item.holds_data and item.is_online]
    return len(alive) > len(base.nodes)


def _usable_base(gateway: Gateway, source: str) -> Snapshot | None:
    existing = snapshots.find(gateway, source, BASE_SNAPSHOT)
    return existing if existing is not None and existing.is_usable else None


def _take_base(gateway: Gateway, source: str) -> Snapshot | None:
    # What an image says of itself is copied to its clones: an earlier VM's name must not be.
    disown(gateway, source, {})
    try:
        snapshots.take(gateway, source, BASE_SNAPSHOT, may_be_partial=True)
    except (ControllerFailed, NotReady) as error:
        if isinstance(error, ControllerFailed) and error.code != SNAPSHOTS_NOT_SUPPORTED:
            raise
        log.warning(f"{error}; copying instead")
        return None
    return _usable_base(gateway, source)


def restore(gateway: Gateway, undo: Undo, wanted: Clone, base: Snapshot, near: str = "") -> Cloned:
    """Make the clone from a snapshot of its source, without moving a byte."""
    token = new_volume.mark()
    names = gateway.settings.names
    properties = {**wanted.owner, names.run: token}
    if wanted.is_disowned:
        # The restore adds what the source says, and leaves alone what it does not: the mark stays.
        properties[names.incomplete] = new_volume.mark_for(wanted.owner)

    def define(name: str) -> str:
        volumes.define(gateway, name, wanted.placement, properties)
        return name

    target, _ = new_volume.claim(gateway, undo, wanted.target, wanted.owner, token, define)
    wanted = wanted._replace(target=target)
    if not snapshots.restore_definition(gateway, wanted.source, base.name, wanted.target):
        raise NotFound(f"Snapshot {base.name} of {wanted.source} went away while it was cloned: retry")
    nodes = _restored_on(gateway, wanted, base, near)
    snapshots.restore(gateway, wanted.source, base.name, wanted.target, nodes if len(nodes) < len(base.nodes) else ())
    # Before any replica is added: LINSTOR resizes nothing while one is being filled.
    if wanted.size_mib > wanted.source_size_mib:
        _grow(gateway, wanted)
    if len(nodes) < (wanted.placement.replica_count or 0):
        nodes = _add_replicas(gateway, wanted)
    return Cloned(target, nodes)


def _restored_on(gateway: Gateway, wanted: Clone, base: Snapshot, near: str) -> tuple[str, ...]:
    """Return as many of the snapshot's nodes as there shall be replicas: the VM's host, then those that answer."""
    count = wanted.placement.replica_count or len(base.nodes)
    if count >= len(base.nodes):
        return base.nodes
    alive = {item.node for item in replicas.of(gateway, wanted.source) if item.holds_data and item.is_online}
    ordered = sorted(base.nodes, key=lambda node: (node.lower() != near.lower(), node not in alive))
    first = sum(wanted.target.encode()) % len(base.nodes)
    if ordered[0].lower() != near.lower() and alive.issuperset(base.nodes):
        # Spread, so that one node does not get a replica of every disk.
        ordered = ordered[first:] + ordered[:first]
    return tuple(ordered[:count])


def _add_replicas(gateway: Gateway, wanted: Clone) -> tuple[str, ...]:
    """Add the replicas that the snapshot could not give; where there is no room now, LINSTOR's balancing adds them."""
    try:
        gateway.autoplace(wanted.target, wanted.placement.select_filter)
    except NoRoom as error:
        log.warning(f"{error}; LINSTOR adds the missing replicas of {wanted.target} when it can")
    return tuple(replica.node for replica in replicas.of(gateway, wanted.target) if replica.holds_data)


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


def copy(gateway: Gateway, undo: Undo, wanted: Clone, near: str = "") -> Cloned:
    """Make the clone by copying its source, which nobody may write to."""
    there = replicas.of(gateway, wanted.source)
    holders = image_reader.holders(there, wanted.source, " to clone")
    # In another kind of pool a volume of the same SIZE may have a shorter device.
    devices_kib = (replica.usable_size_kib for replica in there if replica.holds_data)
    size_kib = max(wanted.size_mib * KIB_PER_MIB, *devices_kib)
    placement = wanted.placement
    if near and gateway.settings.prefer_node:
        placement = pools.near(gateway, placement, near, size_kib)
    made = new_volume.make(gateway, undo, wanted.target, size_kib, placement, wanted.owner, preferred_writers=holders)
    source, source_bytes = new_volume.device_among(there, wanted.source), wanted.source_size_mib * MIB
    step = copies.copy(made.writer, source, source_bytes, made.device, made.size_bytes, made.reads_zero)
    with image_reader.offered(gateway, wanted.source, made.writer.name, holders):
        made.writer.run(f"Copying {wanted.source} to {made.resource}", step)
    new_volume.leave_writer(gateway, made)
    new_volume.finish(gateway, made)
    return Cloned(made.resource, made.nodes)


def disown(gateway: Gateway, resource: str, owner: Mapping[str, str]) -> None:
    """Rid a volume of what it says of a VM, whose disk it was or was restored from, and of its mark; say `owner`."""
    names = gateway.settings.names
    theirs = [names.vm_id, names.disk_id, names.datastore_id, names.run, names.incomplete, TWO_PRIMARIES]
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
