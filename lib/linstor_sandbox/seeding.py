"""Thousands of volumes at once, without a request for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from . import drbd, properties
from .model import (
    Node,
    Resource,
    ResourceDefinition,
    Snapshot,
    SnapshotReplica,
    StoragePool,
    VolumeDefinition,
    new_uuid,
)
from .sandbox import Sandbox


def seed(
    sandbox: Sandbox,
    count: int,
    replicas: int = 3,
    *,
    pool: str = "data",
    size_kib: int = 1048576,
    snapshot: str = "snap",
) -> None:
    """Make so many DRBD volumes one-image-<n>, spread over the nodes, each with a snapshot; bytes come when used."""
    with sandbox.cluster.lock:
        nodes = [node for node in sandbox.cluster.nodes if pool in node.pools]
        for number in range(count):
            where = [nodes[(number + index) % len(nodes)] for index in range(min(replicas, len(nodes)))]
            _definition(sandbox, number, where, pool, size_kib, snapshot)


def _definition(sandbox: Sandbox, number: int, where: Sequence[Node], pool: str, size_kib: int, snapshot: str) -> None:
    definition = place(sandbox, f"one-image-{number}", [node.name for node in where], pool=pool, size_kib=size_kib)
    if snapshot:
        take(sandbox, definition, snapshot)


def place(
    sandbox: Sandbox,
    name: str,
    replicas: Sequence[str],
    *,
    attached: Sequence[str] = (),
    tie_breaker: str = "",
    pool: str = "data",
    size_kib: int = 1048576,
    group: str = "DfltRscGrp",
    props: Optional[Mapping[str, str]] = None,
) -> ResourceDefinition:
    """Make a DRBD volume with replicas on these nodes, diskless resources on those, and a tie-breaker where named."""
    cluster = sandbox.cluster
    with cluster.lock:
        definition = ResourceDefinition(name, cluster.groups[group], layers=["DRBD", "STORAGE"])
        quorum = "majority" if len(replicas) > 2 or (len(replicas) == 2 and (attached or tie_breaker)) else "off"
        definition.props = {properties.AUTO_VERIFY: "sha512", properties.QUORUM: quorum, **(props or {})}
        number = len(cluster.definitions)
        definition.secret, definition.tcp_port = new_uuid().replace("-", "")[:20], 7000 + number
        volume = VolumeDefinition(0, size_kib, {}, ["DRBD_INITIALIZED"], minor=1000 + number)
        definition.volumes[0] = volume
        for node in replicas:
            _resource(definition, cluster.nodes[node].pools[pool], set())
        for node in attached:
            _resource(definition, drbd.diskless_pool(cluster.nodes[node]), {"DISKLESS", "DRBD_DISKLESS"})
        if tie_breaker:
            flags = {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER"}
            _resource(definition, drbd.diskless_pool(cluster.nodes[tie_breaker]), flags)
        content = cluster.store.promise(definition.name, drbd.device_size(definition, volume))
        definition.contents[0] = content
        for resource in definition.diskful():
            resource.pool.keep((definition.uuid, 0), drbd.Sizes(resource, volume).storage, content)
        cluster.definitions[definition.name] = definition
        return definition


def _resource(definition: ResourceDefinition, pool: StoragePool, flags: set[str]) -> None:
    resource = drbd.new_resource(definition, pool.node, pool, ["DRBD", "STORAGE"], flags)
    resource.deployed, resource.volume_uuids = True, {0: new_uuid()}


def take(sandbox: Sandbox, definition: ResourceDefinition, name: str) -> Snapshot:
    """Make a snapshot of a volume that was made here."""
    made = _snapshot(sandbox, definition, definition.volumes[0], name)
    definition.snapshots[name] = made
    return made


def _snapshot(sandbox: Sandbox, definition: ResourceDefinition, volume: VolumeDefinition, name: str) -> Snapshot:
    made = Snapshot(name, definition, {"SUCCESSFUL"}, {"SequenceNumber": "1"}, dict(definition.props))
    made.volumes[0] = VolumeDefinition(0, volume.size, dict(volume.props), list(volume.flags))
    content = sandbox.cluster.store.promise(f"{definition.name}_{name}", definition.contents[0].size)
    made.contents[("", 0)] = content
    for resource in definition.diskful():
        made.replicas[resource.node.name] = _replica(resource)
        resource.pool.keep((made.uuid, 0), drbd.Sizes(resource, volume).storage, content, snapshot=True)
    return made


def _replica(resource: Resource) -> SnapshotReplica:
    replica = SnapshotReplica(resource.node, resource.pool, list(resource.layers), dict(resource.props))
    replica.volume_uuids, replica.node_id = {0: new_uuid()}, resource.node_id
    return replica
