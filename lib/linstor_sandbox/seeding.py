"""Thousands of volumes at once, without a request for each."""

from __future__ import annotations

from collections.abc import Sequence

from . import drbd, properties
from .model import Node, Resource, ResourceDefinition, Snapshot, SnapshotReplica, Stored, VolumeDefinition, new_uuid
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
    cluster = sandbox.cluster
    definition = ResourceDefinition(f"one-image-{number}", cluster.groups["DfltRscGrp"], layers=["DRBD", "STORAGE"])
    definition.props = {properties.AUTO_VERIFY: "sha512", properties.QUORUM: "majority" if len(where) > 2 else "off"}
    definition.secret, definition.tcp_port = new_uuid().replace("-", "")[:20], 7000 + number
    volume = VolumeDefinition(0, size_kib, {}, ["DRBD_INITIALIZED"], minor=1000 + number)
    definition.volumes[0] = volume
    for node in where:
        resource = drbd.new_resource(definition, node, node.pools[pool], ["DRBD", "STORAGE"])
        resource.deployed, resource.volume_uuids = True, {0: new_uuid()}
    content = cluster.store.promise(definition.name, drbd.device_size(definition, volume))
    definition.contents[0] = content
    for resource in definition.resources:
        resource.pool.members[(definition.uuid, 0)] = Stored(drbd.Sizes(resource, volume).storage, content)
    if snapshot:
        definition.snapshots[snapshot] = _snapshot(sandbox, definition, volume, snapshot)
    cluster.definitions[definition.name] = definition


def _snapshot(sandbox: Sandbox, definition: ResourceDefinition, volume: VolumeDefinition, name: str) -> Snapshot:
    made = Snapshot(name, definition, {"SUCCESSFUL"}, {"SequenceNumber": "1"}, dict(definition.props))
    made.volumes[0] = VolumeDefinition(0, volume.size, dict(volume.props), list(volume.flags))
    content = sandbox.cluster.store.promise(f"{definition.name}_{name}", definition.contents[0].size)
    made.contents[("", 0)] = content
    for resource in definition.resources:
        made.replicas[resource.node.name] = _replica(resource)
        resource.pool.members[(made.uuid, 0)] = Stored(drbd.Sizes(resource, volume).storage, content, snapshot=True)
    return made


def _replica(resource: Resource) -> SnapshotReplica:
    replica = SnapshotReplica(resource.node, resource.pool, list(resource.layers), dict(resource.props))
    replica.volume_uuids, replica.node_id = {0: new_uuid()}, resource.node_id
    return replica
