"""What satellites do on their nodes: volumes, their bytes, their devices."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Optional

from . import drbd, properties
from .devices import Devices
from .model import Cluster, Resource, ResourceDefinition, Snapshot, Stored, VolumeDefinition, new_uuid
from .openings import Openings
from .storage import Content


class Satellites:
    """The physical side of the cluster; the controller's rooms decide, this one does."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.devices = Devices(cluster)
        self.openings = Openings(cluster, self.devices)

    def prepare(self, definition: ResourceDefinition, layers: list[str]) -> None:
        """Layer data of a definition, once it is known: ports, minors, secret."""
        if not definition.layers:
            definition.layers = list(layers)
        if "DRBD" not in definition.layers and "DRBD" not in layers:
            return
        definition.secret = definition.secret or secrets.token_urlsafe(15)
        if definition.tcp_port is None:
            definition.tcp_port = definition.port if definition.port > 0 else self.cluster.free_port()
        for volume in definition.volumes.values():
            if volume.minor is None:
                volume.minor = self.cluster.free_minor()

    def deploy(self, resources: list[Resource], initial: bool) -> None:
        """Make the volumes of new resources (or of resources that got a disk)."""
        for resource in resources:
            self.prepare(resource.definition, resource.layers)
            for volume in resource.definition.volumes.values():
                self._deploy_volume(resource, volume)
            resource.deployed = True
        for index, resource in enumerate(res for res in resources if not res.diskless):
            self._start_sync(resource, initial and (index == 0 or resource.pool.kind.zeroed))
        for definition in {id(resource.definition): resource.definition for resource in resources}.values():
            self.refresh(definition)

    def _deploy_volume(self, resource: Resource, volume: VolumeDefinition) -> None:
        resource.volume_uuids.setdefault(volume.number, new_uuid())
        if resource.diskless:
            return
        definition = resource.definition
        self._describe(resource, volume)
        contents = definition.contents if resource.uses_drbd else resource.contents
        if volume.number not in contents:
            size = drbd.Sizes(resource, volume).usable * 1024
            name = f"{definition.name}_{volume.number:05d}"
            contents[volume.number] = self.cluster.store.create(name, size, resource.pool.shows_old_data)
        self.account(resource, volume)

    def account(self, resource: Resource, volume: VolumeDefinition) -> None:
        """Book a volume on its pool."""
        content = resource.content(volume.number)
        if content is not None and not resource.diskless:
            key = (resource.definition.uuid, volume.number)
            resource.pool.keep(key, drbd.Sizes(resource, volume).storage, content)

    @staticmethod
    def _describe(resource: Resource, volume: VolumeDefinition) -> None:
        """Properties and flags that a first deployment leaves on the volume definition."""
        volume.props.setdefault("DrbdOptions/Disk/block-size", "512")
        granularity = 1 if resource.pool.kind.family == "FILE" else resource.pool.kind.granularity
        volume.props.setdefault("StorDriver/internal/AllocationGranularity", str(granularity))
        if not resource.uses_drbd:
            return
        zeroes = "no" if resource.pool.kind.family == "FILE" else "yes"
        volume.props.setdefault("DrbdOptions/Disk/discard-zeroes-if-aligned", zeroes)
        volume.props.setdefault("Linstor/Drbd/InitialUptoDateOn", resource.node.name.upper())
        if "DRBD_INITIALIZED" not in volume.flags:
            volume.props.setdefault(properties.DISCARD_GRANULARITY, "4096")
            volume.flags.append("DRBD_INITIALIZED")

    def _start_sync(self, resource: Resource, in_sync: bool) -> None:
        if resource.uses_drbd and not in_sync and self.cluster.sync_seconds:
            resource.synced_at = time.monotonic() + self.cluster.sync_seconds

    def refresh(self, definition: ResourceDefinition) -> None:
        """Sizes and devices after a change: DRBD shows what its smallest replica leaves."""
        for volume in definition.volumes.values():
            content = definition.contents.get(volume.number)
            if content is not None and definition.diskful():
                self._fit(definition.diskful(), content, drbd.device_size(definition, volume))
        self.devices.refresh(definition)

    def _fit(self, replicas: list[Resource], content: Content, size: int) -> None:
        if content.size != size:
            self.cluster.store.resize(content, size, any(not res.pool.kind.zeroed for res in replicas))

    def resize(self, definition: ResourceDefinition, volume: VolumeDefinition) -> None:
        """Bring every replica to the volume definition's size."""
        for resource in definition.diskful():
            own = resource.contents.get(volume.number)
            if own is not None:
                self._fit([resource], own, drbd.Sizes(resource, volume).usable * 1024)
            self.account(resource, volume)
        self.refresh(definition)

    def drop_disk(self, resource: Resource) -> None:
        """Delete a replica's volumes; the bytes of a DRBD volume go with its last replica."""
        definition = resource.definition
        for number in definition.volumes:
            resource.pool.members.pop((definition.uuid, number), None)
        for content in resource.contents.values():
            self.cluster.store.remove(content)
        resource.contents.clear()

    def remove(self, resource: Resource) -> None:
        """Take a resource off its node."""
        definition = resource.definition
        self.drop_disk(resource)
        definition.resources.pop(resource.node.name)
        resource.node.resource_count -= 1
        for pair in [pair for pair in definition.connections if resource.node.name.upper() in pair]:
            del definition.connections[pair]
        self.forget_orphans(definition)
        self.refresh(definition)

    def forget_orphans(self, definition: ResourceDefinition) -> None:
        """Without a replica there are no bytes."""
        if not definition.diskful():
            for content in definition.contents.values():
                self.cluster.store.remove(content)
            definition.contents.clear()

    def take_snapshot(self, snapshot: Snapshot, replicas: list[Resource]) -> None:
        """Copy the bytes of the replicas that a snapshot names."""
        for resource in replicas:
            for number, volume in snapshot.volumes.items():
                key = ("" if resource.uses_drbd else resource.node.name.upper(), number)
                content = resource.content(number)
                if content is not None and key not in snapshot.contents:
                    name = f"{snapshot.definition.name}_{volume.number:05d}_{snapshot.name}"
                    snapshot.contents[key] = self.cluster.store.copy(content, name)
                if content is not None:
                    size = drbd.Sizes(resource, volume).storage
                    resource.pool.keep((snapshot.uuid, number), size, snapshot.contents[key], snapshot=True)

    @staticmethod
    def fits(resource: Resource) -> bool:
        """Whether its pool has room for its volumes; a thin pool does not ask."""
        needed = sum(drbd.Sizes(resource, volume).storage for volume in resource.definition.volumes.values())
        return resource.pool.kind.thin or needed <= resource.pool.free()

    @staticmethod
    def without_room(replicas: Sequence[Resource]) -> set[str]:
        """The nodes whose thick pools cannot set aside what snapshots of these replicas need."""
        wanted: dict[str, list[Stored]] = {}
        for resource in replicas:
            keys = [(resource.definition.uuid, number) for number in resource.definition.volumes]
            found = map(resource.pool.members.get, keys)
            wanted.setdefault(resource.pool.uuid, []).extend(filter(None, found))
        pools = [resource.pool for resource in replicas if not resource.pool.kind.thin]
        return {pool.node.name for pool in pools if pool.set_aside(wanted[pool.uuid]) > pool.free()}

    def drop_snapshot(self, snapshot: Snapshot, node: Optional[str] = None) -> None:
        """Delete a snapshot's bytes, of one node or all."""
        for replica in snapshot.replicas:
            for number in snapshot.volumes if node is None or replica.node.name == node else ():
                replica.pool.members.pop((snapshot.uuid, number), None)
        for key in list(snapshot.contents):
            if node is None or key[0] == node.upper():
                self.cluster.store.remove(snapshot.contents.pop(key))

    def copy_into(self, resource: Resource, volume: VolumeDefinition, origin: Content) -> None:
        """Give a replica the bytes of a snapshot or of another volume."""
        contents = resource.definition.contents if resource.uses_drbd else resource.contents
        if volume.number not in contents:
            name = f"{resource.name}_{volume.number:05d}"
            contents[volume.number] = self.cluster.store.copy(origin, name)

    def roll_back(self, definition: ResourceDefinition, snapshot: Snapshot) -> None:
        """Give a definition's volumes, where they are, the bytes of a snapshot."""
        for contents in [definition.contents, *(resource.contents for resource in definition.diskful())]:
            for number in list(contents):
                self.cluster.store.remove(contents.pop(number))
        for resource in definition.diskful():
            for number, volume in definition.volumes.items():
                origin = snapshot.content(resource.node.name, number)
                if origin is not None:
                    self.copy_into(resource, volume, origin)
                    self.account(resource, volume)
        self.refresh(definition)

    def exact_size(self, definition: ResourceDefinition) -> bool:
        """Whether the device is to have the size asked for, and no other."""
        return properties.is_true(definition.props.get(properties.EXACT_SIZE, ""))
