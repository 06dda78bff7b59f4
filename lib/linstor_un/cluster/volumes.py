"""Volumes: resource definitions with one volume, made, found, grown and removed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from linstor_un import log
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools, replicas, snapshots
from linstor_un.cluster.codes import (
    EXISTS_SNAPSHOT,
    WARN_NOT_CONNECTED,
    WARN_SAME_SIZE,
    Entry,
)
from linstor_un.errors import AlreadyExists, ControllerFailed, DriverError, InUse, NoRoom, NotFound
from linstor_un.units import KIB_PER_GIB, KIB_PER_MIB

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway
    from linstor_un.cluster.placement import Placement


_DELETED = r"Aux/[^/]+/DELETED"


class Volume(NamedTuple):
    """A resource definition as LINSTOR has it."""

    resource: str
    size_kib: int
    properties: Mapping[str, str]
    flags: frozenset[str]
    group: str

    @property
    def is_being_deleted(self) -> bool:
        """Tell whether it waits for a node to come back before it goes; nothing may use it.

        LINSTOR deletes no volume before its snapshots: where these wait, the volume has a mark of ours.
        """
        return "DELETE" in self.flags or any(re.fullmatch(_DELETED, key) for key in self.properties)


class Home(NamedTuple):
    """Where a new volume was put: the nodes with a replica, and the kinds of pool they are in."""

    nodes: tuple[str, ...]
    providers: frozenset[str]

    def is_zeroed(self, thin_pool_zero: bool) -> bool:
        """Tell whether all its pools are known to give out storage that reads zero.

        `thin_pool_zero` says of LVM's thin pools, which may have been made with -Zn, that they do: LINSTOR cannot tell.
        """
        unsure = frozenset() if thin_pool_zero else frozenset({"LVM_THIN"})
        return bool(self.providers) and self.providers <= replicas.ZEROED_PROVIDERS - unsure


def find(gateway: Gateway, resource: str) -> Optional[Volume]:
    """Return the volume, or None where there is none; one request."""
    return find_several(gateway, [resource])[0]


def find_several(gateway: Gateway, resources: Sequence[str]) -> list[Optional[Volume]]:
    """Return the volumes of these names, each None where there is none; one request."""
    found = {
        volume.resource.lower(): volume
        for volume in _list(gateway, [("resource_definitions", resource) for resource in resources])
    }
    return [found.get(resource.lower()) for resource in resources]


def with_property(gateway: Gateway, key: str, value: str) -> list[Volume]:
    """Return the volumes that have this property."""
    return [item for item in _list(gateway, [("props", f"{key}={value}")]) if item.properties.get(key) == value]


def of_all(gateway: Gateway) -> list[Volume]:
    """Return all volumes, whoever's they are."""
    return _list(gateway, [])


def _list(gateway: Gateway, query: Sequence[tuple[str, str]]) -> list[Volume]:
    data = gateway.get("Looking for volumes", ("resource-definitions",), [*query, ("with_volume_definitions", "true")])
    return [from_json(item) for item in data]


def from_json(data: Mapping[str, Any]) -> Volume:
    """Read a resource definition as LINSTOR describes it."""
    definitions = data.get("volume_definitions") or [{}]
    return Volume(
        resource=data["name"],
        size_kib=int(definitions[0].get("size_kib", 0)),
        properties=dict(data.get("props") or {}),
        flags=frozenset(data.get("flags", ())),
        group=data.get("resource_group_name", ""),
    )


def create(gateway: Gateway, resource: str, size_kib: int, placement: Placement, properties: Mapping[str, str]) -> Home:
    """Make a volume of `size_kib` by this placement, with all its properties, in one request where LINSTOR can.

    Raises AlreadyExists where the name is taken, NoRoom with what the pools have, NotFound for a resource group that
    the operator named and LINSTOR does not have.
    """
    wanted = {**placements.properties(gateway, placement), **properties}
    make = _spawn if gateway.spawns_with_properties else _make_by_steps
    try:
        home = gateway.once_connected(lambda: make(gateway, resource, size_kib, placement, wanted))
    except NoRoom as error:
        if placement.otherwise is not None:
            log.info(f"{error}; placing it anywhere")
            return create(gateway, resource, size_kib, placement.otherwise, properties)
        raise _no_room(gateway, resource, size_kib, placement) from error
    log.info(f"made {resource} of {size_kib / KIB_PER_MIB:g} MiB")
    return home


def _spawn(gateway: Gateway, resource: str, size_kib: int, placement: Placement, properties: Mapping[str, str]) -> Home:
    body: dict[str, Any] = {
        "resource_definition_name": resource,
        "volume_sizes": [size_kib],
        "resource_definition_props": dict(properties),
    }
    if placement.select_filter:
        body["select_filter"] = dict(placement.select_filter)
    return _home(placements.in_group(gateway, placement, lambda: gateway.spawn(placement.group, body)))


def _make_by_steps(
    gateway: Gateway, resource: str, size_kib: int, placement: Placement, properties: Mapping[str, str]
) -> Home:
    """Do as `_spawn` what takes several requests before REST 1.22; what cannot be placed is deleted again."""
    placements.in_group(
        gateway,
        placement,
        lambda: gateway.create_resource_definition(resource, placement.group, properties, placement.layers),
    )
    try:
        gateway.create_volume_definition(resource, size_kib)
        gateway.autoplace(resource, placement.select_filter, placement.layers)
        return _looked_up(gateway, resource)
    except DriverError:
        gateway.delete_resource_definition(resource)
        raise


def _looked_up(gateway: Gateway, resource: str) -> Home:
    """Return where a volume is that LINSTOR has made without saying where."""
    found = gateway.get(f"Looking for {resource}", ("view", "resources"), [("resources", resource)])
    holders = [item for item in found if replicas.from_json(item).holds_data]
    kinds = {str(volume.get("provider_kind", "")) for item in holders for volume in item.get("volumes", ())}
    return Home(tuple(item["node_name"] for item in holders), frozenset(kinds))


def define(gateway: Gateway, resource: str, placement: Placement, properties: Mapping[str, str]) -> None:
    """Make an empty resource definition, to be filled from a snapshot; raises AlreadyExists where the name is taken."""
    wanted = {**placements.properties(gateway, placement), **properties}
    placements.in_group(
        gateway, placement, lambda: gateway.create_resource_definition(resource, placement.group, wanted)
    )


def _home(entries: Iterable[Entry]) -> Home:
    nodes: list[str] = []
    providers: set[str] = set()
    for item in entries:
        for key, value in item.references.items():
            if key.startswith("Node/"):
                nodes.append(value)
            elif key.startswith("StoragePool/"):
                providers.add(value.rpartition(",")[2])
    return Home(tuple(dict.fromkeys(nodes)), frozenset(providers))


def _no_room(gateway: Gateway, resource: str, size_kib: int, placement: Placement) -> NoRoom:
    names = placement.select_filter.get("storage_pool_list") or ()
    candidates = pools.of(gateway, names)
    answering = {pool.node.lower() for pool in candidates}
    missing = [node for node in placement.select_filter.get("node_name_list") or () if node.lower() not in answering]
    if missing:
        return NoRoom(
            f"LINSTOR finds no place for {resource}: NODE_LIST names {', '.join(missing)}, where no pool "
            f"{' '.join(names)} answers; see `linstor node list`, or correct NODE_LIST or STORAGE_POOL"
        )
    count = placement.replica_count
    found = ", ".join(
        f"{pool.name} on {pool.node} has {pool.free_kib / KIB_PER_GIB:.1f} GiB free" for pool in candidates[:6]
    )
    more = f" and {len(candidates) - 6} more" if len(candidates) > 6 else ""
    wanted = f"{count} replica{'s' if count != 1 else ''} of" if count else ""
    return NoRoom(
        f"LINSTOR finds no place for {wanted} {resource} ({size_kib / KIB_PER_GIB:g} GiB) in resource group "
        f"{placement.group}: {found + more if found else 'no pool ' + ' '.join(names) + ' answers'}; free space, bring "
        "nodes back, or change STORAGE_POOL, REPLICA_COUNT or the other placement attributes"
    )


def grow(gateway: Gateway, resource: str, size_mib: int) -> bool:
    """Make the volume at least `size_mib` large; return whether it was smaller.

    Judged by its devices, which are larger than asked (extents) and, after a resize that failed half way, smaller than
    the definition says. Never shrinks: LINSTOR cuts the data of a volume without DRBD, and OpenNebula asks for less
    than there is after a failed resize. Raises NotFound, NotReady and NoRoom.
    """
    wanted_kib = size_mib * KIB_PER_MIB
    smallest_kib, holders = _devices(gateway, resource)
    if smallest_kib >= wanted_kib:
        return False
    _check_room(gateway, resource, wanted_kib - smallest_kib, holders)
    entries = gateway.resize_volume_definition(resource, wanted_kib)
    is_same = any(item.is_warning and item.code == WARN_SAME_SIZE for item in entries)
    # It is also what a request hears that was made again after a fail-over.
    if is_same and _devices(gateway, resource)[0] < wanted_kib:
        raise ControllerFailed(
            f"{resource} has {smallest_kib // KIB_PER_MIB} MiB and LINSTOR believes that it has {size_mib} MiB since a "
            f"resize failed: restart linstor-satellite on {', '.join(sorted(item.node for item in holders))} and retry"
        )
    log.info(f"grew {resource} to {size_mib} MiB")
    return True


def device_kib(gateway: Gateway, resource: str) -> int:
    """Return how long the volume's device is, as far as LINSTOR knows; raises NotFound where there is none."""
    return _devices(gateway, resource)[0]


def _devices(gateway: Gateway, resource: str) -> tuple[int, Sequence[replicas.Replica]]:
    """Return the size of the smallest device in KiB, and the replicas; raises NotFound where there is none."""
    holders = [replica for replica in replicas.of(gateway, resource) if replica.holds_data]
    if not holders:
        raise NotFound(f"LINSTOR has no volume {resource} with data: see `linstor resource list -r {resource}`")
    # Of a node that is away LINSTOR tells what it knew last.
    holders = [replica for replica in holders if replica.is_online] or holders
    return min(replica.usable_size_kib for replica in holders), holders


def _check_room(gateway: Gateway, resource: str, growth_kib: int, holders: Sequence[replicas.Replica]) -> None:
    """Refuse what a thin pool cannot promise: LINSTOR grows a thin volume beyond any measure, and then places none."""
    nodes = {replica.node: replica.storage_pool for replica in holders}
    for pool in pools.of(gateway, sorted(set(nodes.values())), sorted(nodes)):
        if nodes.get(pool.node) == pool.name and growth_kib > pool.free_kib * pool.oversubscription:
            raise NoRoom(
                f"Pool {pool.name} on {pool.node} has {pool.free_kib / KIB_PER_GIB:.1f} GiB free and {resource} needs "
                f"{growth_kib / KIB_PER_GIB:.1f} GiB more: free space, or ask for less"
            )


def remove(gateway: Gateway, resource: str) -> bool:
    """Delete the volume with its replicas and snapshots, wherever it is; absent is done. Return whether it is gone.

    A node that is away finishes its part when it returns, and until then nothing else can have the volume's name; that
    is LINSTOR's and logged. Raises InUse where somebody keeps the volume open, and ControllerFailed where LINSTOR says
    that it is gone and has it still.
    """
    try:
        entries = gateway.once_closed(lambda: _delete(gateway, resource))
        if entries is None:
            gateway.once_closed(lambda: _leave_to_snapshots(gateway, resource))
            return False
    except InUse as error:
        raise InUse(_who_uses(gateway, resource, error)) from None
    is_gone = not any(item.is_warning and item.code == WARN_NOT_CONNECTED for item in entries)
    if is_gone:
        left = find(gateway, resource)
        is_gone = left is None
        if left is not None and not left.is_being_deleted:
            raise ControllerFailed(
                f"LINSTOR reported that it deleted {resource} and has it still: see its log and retry"
            )
    if not is_gone:
        log.warning(f"{resource} goes for good when its offline nodes are back")
    log.info(f"removed {resource}")
    return is_gone


def _delete(gateway: Gateway, resource: str) -> Optional[Sequence[Entry]]:
    """Delete a volume; return None where it stays for its snapshots, which wait for an offline node."""
    try:
        return gateway.delete_resource_definition(resource)
    except AlreadyExists as error:
        if error.code != EXISTS_SNAPSHOT:
            raise
    snapshots.remove_all(gateway, resource)
    try:
        return gateway.delete_resource_definition(resource)
    except AlreadyExists as error:
        if error.code != EXISTS_SNAPSHOT:
            raise
        return None


def _leave_to_snapshots(gateway: Gateway, resource: str) -> None:
    """Mark a volume that goes when its snapshots have gone, and give back what it takes where nodes answer.

    Raises InUse where somebody has it open.
    """
    there = replicas.of(gateway, resource)
    if any(replica.in_use for replica in there):
        raise InUse(f"{resource} is open")
    gateway.modify_resource_definition(resource, {gateway.settings.names.deleted: "yes"})
    # The last replica goes after all that are only attached; where that waits for an offline node too, it stays.
    for replica in sorted(there, key=lambda item: not item.is_diskless):
        try:
            gateway.delete_resource(resource, replica.node)
        except DriverError as error:
            if error.code == 0:
                raise
            log.warning(f"{error}")
    log.warning(
        f"{resource} is deleted but for its snapshots, which wait for an offline node: `linstor-un audit --repair` "
        "removes the rest when that is back or given up with `linstor node lost`"
    )


def _who_uses(gateway: Gateway, resource: str, error: InUse) -> str:
    users = [replica.node for replica in replicas.of(gateway, resource) if replica.in_use]
    if not users:
        return str(error)
    return f"{resource} cannot be deleted because it is open on {', '.join(users)}: stop what uses it there and retry"
