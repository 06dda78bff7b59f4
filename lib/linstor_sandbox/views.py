"""The JSON of LINSTOR's objects; what is empty is absent."""

from __future__ import annotations

import time
from typing import Any, Optional

from . import drbd
from .answers import NOT_CONNECTED_DETAILS, WARN_NOT_CONNECTED, JsonObject, signed, timestamp
from .model import (
    Cluster,
    Node,
    Resource,
    ResourceDefinition,
    ResourceGroup,
    Snapshot,
    SnapshotReplica,
    StoragePool,
    VolumeDefinition,
    VolumeGroup,
)
from .satellite import Satellites

_RESOURCE_FLAGS = (
    "DELETE",
    "DISKLESS",
    "DRBD_DISKLESS",
    "DRBD_CLIENT",
    "TIE_BREAKER",
    "INACTIVE",
    "RESTORE_FROM_SNAPSHOT",
    "DRBD_DELETE",
)
_VOLUME_FLAGS = ("DELETE", "RESIZE", "DRBD_RESIZE", "CLONING_START", "CLONING", "CLONING_FINISHED", "DRBD_DELETE")
_ALWAYS_PROVIDERS = ["DISKLESS", "REMOTE_SPDK", "EBS_INIT", "EBS_TARGET"]
EVICT_AFTER_MS = 60 * 60 * 1000
_NO_RPC = (
    "IO exception occured when running 'rpc.py spdk_get_version': Cannot run program \"rpc.py\": error=2, "
    "No such file or directory"
)
_NO_ZFS = [
    "'cat /sys/module/zfs/version' returned with exit code 1",
    "IO exception occured when running 'zfs --version': Cannot run program \"zfs\": error=2, No such file or directory",
]
_NOT_LINUX = ["This tool does not exist on the Linux platform."]
# Why a node has not got a provider or layer.
_WITHOUT_PROVIDER = {
    "LVM": [""],
    "LVM_THIN": [""],
    "FILE": [""],
    "FILE_THIN": [""],
    "ZFS": _NO_ZFS,
    "ZFS_THIN": _NO_ZFS,
    "SPDK": [_NO_RPC],
    "STORAGE_SPACES": _NOT_LINUX,
    "STORAGE_SPACES_THIN": _NOT_LINUX,
}
_WITHOUT_LAYER = {
    "DRBD": [""],
    "LUKS": [""],
    "NVME": ["'modprobe nvmet_rdma' returned with exit code 1", "'modprobe nvme_rdma' returned with exit code 1"],
    "WRITECACHE": ["'modprobe dm-writecache' returned with exit code 1"],
    "CACHE": ["'modprobe dm-cache' returned with exit code 1"],
    "BCACHE": ["'modprobe bcache' returned with exit code 1"],
}


def present(**fields: Any) -> JsonObject:
    """The fields that are not empty (NON_EMPTY): None, "", [] and {} are left out, false and 0 are not."""
    return {
        key: value for key, value in fields.items() if value is not None and value != "" and value != [] and value != {}
    }


def node_json(node: Node) -> JsonObject:
    """A node."""
    known = node.connection != "OFFLINE"
    providers = list(node.providers) if known else []
    without = {name: reasons for name, reasons in _WITHOUT_PROVIDER.items() if name not in providers}
    layers = node.layers if known else ("STORAGE",)
    lacking = {name: reasons for name, reasons in _WITHOUT_LAYER.items() if name not in layers}
    if not known:
        without, lacking = _unknown(without), _unknown(lacking)
    interface = {
        "name": "default",
        "address": node.address,
        "satellite_port": 3366,
        "satellite_encryption_type": "PLAIN",
        "is_active": True,
        "uuid": node.interface_uuid,
    }
    return present(
        name=node.name,
        type=node.kind,
        props=dict(sorted(node.props.items())),
        flags=sorted(node.flags),
        net_interfaces=[interface],
        connection_status=node.connection,
        uuid=node.uuid,
        storage_providers=_ALWAYS_PROVIDERS[:1] + providers + _ALWAYS_PROVIDERS[1:],
        resource_layers=list(layers),
        unsupported_providers=without,
        unsupported_layers=lacking,
        eviction_timestamp=node.offline_since + EVICT_AFTER_MS if node.offline_since else None,
    )


def _unknown(reasons: dict[str, list[str]]) -> dict[str, list[str]]:
    twice = ("DRBD", "ZFS", "ZFS_THIN")
    return {name: ["No information from satellite yet"] * (1 + (name in twice)) for name in reasons}


def supports_snapshots(cluster: Cluster, pool: StoragePool) -> bool:
    """Whether a pool can take snapshots; thick LVM can since REST 1.29."""
    return pool.kind.snapshots or (pool.kind.name == "LVM" and cluster.at_least("1.29.0"))


def not_connected_report(node: str) -> JsonObject:
    """The report of a node that is not connected."""
    return {
        "ret_code": signed(0x8000000000000000 | WARN_NOT_CONNECTED),
        "message": f"No active connection to satellite '{node}'",
        "details": NOT_CONNECTED_DETAILS,
        "created_at": timestamp(),
    }


def pool_json(cluster: Cluster, pool: StoragePool) -> JsonObject:
    """A storage pool."""
    snapshots = supports_snapshots(cluster, pool)
    traits = {} if pool.diskless else {"Provisioning": "Thin" if pool.kind.thin else "Fat"}
    traits["SupportsSnapshots"] = str(snapshots).lower()
    online = pool.node.online
    return present(
        storage_pool_name=pool.name,
        node_name=pool.node.name,
        provider_kind=pool.kind.name,
        props=dict(sorted(pool.props.items())),
        static_traits=traits,
        free_capacity=pool.free() if online else None,
        total_capacity=pool.total if online else None,
        free_space_mgr_name=f"{pool.node.name};{pool.name}",
        uuid=pool.uuid,
        reports=None if online else [not_connected_report(pool.node.name)],
        supports_snapshots=snapshots,
        external_locking=False,
    )


def group_json(group: ResourceGroup) -> JsonObject:
    """A resource group."""
    return present(
        name=group.name,
        description=group.description,
        props=dict(sorted(group.props.items())),
        select_filter=group.filter.to_json(),
        uuid=group.uuid,
        peer_slots=group.peer_slots,
    )


def volume_group_json(volume_group: VolumeGroup) -> JsonObject:
    """A volume group."""
    return present(
        volume_number=volume_group.number,
        props=dict(volume_group.props),
        uuid=volume_group.uuid,
        flags=list(volume_group.flags),
    )


def _drbd_definition(definition: ResourceDefinition) -> JsonObject:
    return {
        "peer_slots": definition.peer_slots,
        "al_stripes": 1,
        "al_stripe_size_kib": 32,
        "port": definition.port,
        "transport_type": "IP",
        "secret": definition.secret,
        "down": False,
    }


def _shown_layers(definition: ResourceDefinition) -> list[str]:
    """Its layers; one that was restored shows only those that have data of their own."""
    return [layer for layer in definition.layers if layer == "DRBD" or not definition.restored]


def definition_json(definition: ResourceDefinition, with_volumes: bool = False) -> JsonObject:
    """A resource definition."""
    layers = [
        present(type=layer, data=_drbd_definition(definition) if layer == "DRBD" else None)
        for layer in _shown_layers(definition)
    ]
    volumes = [volume_definition_json(definition, volume) for _, volume in sorted(definition.volumes.items())]
    return present(
        name=definition.name,
        external_name=definition.external_name,
        props=dict(sorted(definition.props.items())),
        flags=sorted(definition.flags),
        layer_data=layers,
        uuid=definition.uuid,
        resource_group_name=definition.group.name,
        volume_definitions=volumes if with_volumes else None,
    )


def volume_definition_json(definition: ResourceDefinition, volume: VolumeDefinition) -> JsonObject:
    """A volume definition."""
    layers = []
    for layer in _shown_layers(definition):
        minor = {"volume_number": volume.number, "minor_number": volume.minor}
        layers.append(present(type=layer, data=minor if layer == "DRBD" and volume.minor is not None else None))
    return present(
        volume_number=volume.number,
        size_kib=volume.size,
        props=dict(sorted(volume.props.items())),
        flags=list(volume.flags),
        layer_data=layers,
        uuid=volume.uuid,
    )


class ResourceView:
    """One resource as GET .../resources and view/resources show it."""

    def __init__(self, satellites: Satellites, resource: Resource) -> None:
        self.satellites = satellites
        self.cluster = satellites.cluster
        self.resource = resource
        self.definition = resource.definition
        # After its start the controller knows nothing of a node until that is ONLINE.
        self.reported = resource.node.reported
        self.known = resource.deployed and resource.node.online and not (resource.inactive or resource.deleting)

    def to_json(self, with_volumes: bool) -> JsonObject:
        """The resource, with its volumes or without."""
        resource = self.resource
        result = present(
            name=resource.name,
            node_name=resource.node.name,
            props=dict(sorted(resource.props.items())),
            flags=[flag for flag in _RESOURCE_FLAGS if flag in resource.flags],
            layer_object=self._layer_object(),
            uuid=resource.uuid,
            create_timestamp=resource.created if resource.deployed else None,
            volumes=[self.volume_json(volume) for volume in self._volumes()] if with_volumes else None,
        )
        state = self._state()
        if state is not None:
            result["state"] = state
        return result

    def _volumes(self) -> list[VolumeDefinition]:
        return [
            volume
            for _, volume in sorted(self.definition.volumes.items())
            if volume.number in self.resource.volume_uuids
        ]

    def _state(self) -> Optional[JsonObject]:
        resource = self.resource
        if not resource.node.online or not resource.deployed or resource.deleting:
            return None
        if not resource.uses_drbd or resource.inactive:
            return {}
        return {"in_use": self.satellites.openings.in_use(resource)}

    def _sizes(self, volume: VolumeDefinition) -> drbd.Sizes:
        return drbd.Sizes(self.resource, volume)

    def _allocated(self, volume: VolumeDefinition) -> int:
        """KiB that the volume takes in its pool."""
        resource = self.resource
        if resource.diskless:
            return 0
        content = resource.content(volume.number)
        if content is None or not resource.deployed or not self.reported:
            return -1
        return content.allocated() // 1024 if resource.pool.kind.thin else self._sizes(volume).storage

    def _device(self, path: str) -> Optional[str]:
        return path if self.reported and self.resource.deployed and not self.resource.inactive else None

    def _storage_volume(self, volume: VolumeDefinition) -> JsonObject:
        if self.resource.diskless:
            size = self.resource.first_sizes.setdefault(volume.number, volume.size)
            return {"volume_number": volume.number, "allocated_size_kib": 0, "usable_size_kib": size}
        path = self.satellites.devices.backing_path(self.resource, volume.number)
        allocated, usable = self._allocated(volume), self._sizes(volume).storage
        if self.resource.pool.kind.name == "FILE_THIN" and not self.resource.uses_drbd:
            usable = max(8, allocated)
        usable = usable if self.reported else -1
        return present(
            volume_number=volume.number,
            device_path=self._device(path),
            allocated_size_kib=usable if self.resource.inactive else allocated,
            usable_size_kib=usable,
            disk_state="[]",
        )

    def _luks_volume(self, volume: VolumeDefinition) -> JsonObject:
        path = f"/dev/mapper/Linstor-Crypt-{self.resource.name}_{volume.number:05d}"
        backing = self.satellites.devices.backing_path(self.resource, volume.number)
        sizes = self._sizes(volume)
        return present(
            volume_number=volume.number,
            device_path=self._device(path),
            backing_device=self._device(backing),
            allocated_size_kib=sizes.storage,
            usable_size_kib=sizes.luks_usable,
            opened=self.known,
        )

    def _drbd_volume(self, volume: VolumeDefinition) -> JsonObject:
        sizes = self._sizes(volume)
        diskless = self.resource.diskless
        # Before 1.21 LINSTOR says of DRBD's device what was asked for, not what the pool has made of it.
        usable = sizes.usable if self.cluster.at_least("1.17.0") and not diskless else volume.size
        below = f"/dev/mapper/Linstor-Crypt-{self.resource.name}_{volume.number:05d}"
        if "LUKS" not in self.resource.layers and not diskless:
            below = self.satellites.devices.backing_path(self.resource, volume.number)
        return present(
            drbd_volume_definition={"volume_number": volume.number, "minor_number": volume.minor},
            device_path=self._device(f"/dev/drbd{volume.minor}"),
            backing_device=None if diskless else self._device(below),
            allocated_size_kib=-1 if diskless or not self.reported else sizes.drbd_gross,
            usable_size_kib=usable if self.reported else -1,
        )

    def _layer_volume(self, layer: str, volume: VolumeDefinition) -> JsonObject:
        makers = {"DRBD": self._drbd_volume, "LUKS": self._luks_volume}
        return makers.get(layer, self._storage_volume)(volume)

    def _layers(self) -> list[str]:
        """Diskless DRBD has no encryption of its own."""
        return [layer for layer in self.resource.layers if layer != "LUKS" or not self.resource.diskless]

    def _layer_object(self) -> JsonObject:
        result: JsonObject = {}
        for layer in reversed(self._layers()):
            volumes = [self._layer_volume(layer, volume) for volume in self._volumes()]
            data: JsonObject = {}
            if layer == "DRBD":
                data["drbd"] = self._drbd_object(volumes)
            elif layer in ("LUKS", "STORAGE"):
                data[layer.lower()] = present(**{f"{layer.lower()}_volumes": volumes})
            below = [result] if result else None
            if layer == "DRBD" and drbd.meta_pool(self.resource):
                # LINSTOR has these in no order.
                below = [self._meta_layer(), *(below or [])]
            result = present(children=below, type=layer, **data)
        return result

    def _meta_layer(self) -> JsonObject:
        """DRBD's meta-data in a pool of their own."""
        volumes = [{"volume_number": volume.number, "usable_size_kib": 4096} for volume in self._volumes()]
        return {"type": "STORAGE", "resource_name_suffix": ".meta", "storage": {"storage_volumes": volumes}}

    def _peers(self) -> list[Resource]:
        """The replicas that DRBD connects to this one: two diskless nodes do not."""
        return [
            peer
            for peer in self.definition.resources
            if peer is not self.resource
            and drbd.votes(peer)
            and peer.deployed
            and not (peer.diskless and self.resource.diskless)
        ]

    def _drbd_object(self, volumes: list[JsonObject]) -> JsonObject:
        resource = self.resource
        connections = {
            peer.node.name: {"connected": True, "message": "Connected"}
            if peer.node.host_up and not self.definition.standing_alone & {peer.node.name, resource.node.name}
            else {"connected": False, "message": "Connecting"}
            for peer in self._peers()
        }
        flags = (["DISKLESS"] if resource.diskless else []) + (
            ["INITIALIZED"] if resource.deployed and not resource.toggled else []
        )
        port = self.definition.tcp_port
        result = present(
            drbd_resource_definition=_drbd_definition(self.definition),
            node_id=resource.node_id,
            tcp_ports=[] if port is None or not self.cluster.at_least("1.26.0") else [port],
            peer_slots=self.definition.peer_slots,
            al_stripes=1,
            al_size=32,
            flags=flags,
            drbd_volumes=volumes,
        )
        if self.known:
            result.update(present(connections=connections))
            result["promotion_score"] = self._score(sum(peer.node.host_up for peer in self._peers()))
            result["may_promote"] = self._may_promote()
        return result

    def _score(self, connected: int) -> int:
        return connected + 1 + (10100 if self.resource.state() == "UpToDate" else 0)

    def _may_promote(self) -> bool:
        """Nobody else is Primary, or may be so at the same time; and it is not itself."""
        primaries = self.satellites.openings.primaries(self.definition)
        node, cluster = self.resource.node.name, self.satellites.cluster
        return (
            node not in primaries
            and drbd.has_data(self.definition)
            and all(drbd.two_primaries_allowed(cluster, self.definition, node, other) for other in primaries)
        )

    def _replication_states(self) -> dict[str, JsonObject]:
        mine = self.resource.state()
        states: dict[str, JsonObject] = {}
        for peer in self._peers():
            if not peer.node.host_up:
                state = "Off"
            elif mine == "Inconsistent":
                state = "SyncTarget" if peer.state() == "UpToDate" else "Established"
            else:
                state = "SyncSource" if peer.state() == "Inconsistent" and mine == "UpToDate" else "Established"
            states[peer.node.name] = {"replication_state": state}
            if state == "SyncTarget":
                states[peer.node.name]["done_percentage"] = self._synced_percent()
        return states

    def _synced_percent(self) -> float:
        """How much of a replica that is being filled is there; one that a fault holds back is not filled at all."""
        left, whole = self.resource.synced_at - time.monotonic(), self.cluster.sync_seconds
        return round(100 * (1 - min(1.0, left / whole)), 2) if left > 0 and whole else 0.0

    def _volume_flags(self, volume: VolumeDefinition) -> list[str]:
        flags = set(self.resource.volume_flags.get(volume.number, ()))
        flags |= self.resource.flags & {"DELETE", "DRBD_DELETE"}
        return sorted(flags, key=_VOLUME_FLAGS.index)

    def _volume_allocated(self, volume: VolumeDefinition, flags: list[str]) -> int:
        """As _allocated(), for the volume as a whole: what failed on the way may have taken something already."""
        if "CLONING" in flags or not self.reported:
            return 0
        failed = not self.resource.deployed and "LUKS" in self.resource.layers
        return drbd.LUKS_HEADER if failed else self._allocated(volume)

    def volume_json(self, volume: VolumeDefinition) -> JsonObject:
        """One volume of the resource."""
        resource = self.resource
        path = self.satellites.devices.path(resource, volume)
        state, flags = None, self._volume_flags(volume)
        if self.known and resource.uses_drbd:
            states = self._replication_states() if self.cluster.at_least("1.25.0") else None
            state = present(disk_state=resource.state(), replication_states=states)
        elif self.known and "CLONING_FINISHED" in resource.volume_flags.get(volume.number, ()):
            state = {"disk_state": "CloningDone"}
        return present(
            volume_number=volume.number,
            storage_pool_name=resource.pool.name,
            provider_kind=resource.pool.kind.name,
            device_path=self._device(path),
            state=state,
            flags=flags,
            allocated_size_kib=self._volume_allocated(volume, flags),
            layer_data_list=[{"type": layer, "data": self._layer_volume(layer, volume)} for layer in self._layers()],
            uuid=resource.volume_uuids.get(volume.number),
        )


def snapshot_json(cluster: Cluster, snapshot: Snapshot) -> JsonObject:
    """A snapshot; its own properties and those of its definition are told apart since REST 1.24."""
    split = cluster.at_least("1.24.0")
    volumes = [
        present(volume_number=number, size_kib=volume.size, volume_definition_props=dict(sorted(volume.props.items())))
        for number, volume in sorted(snapshot.volumes.items())
    ]
    replicas = [_snapshot_replica(snapshot, replica) for replica in snapshot.replicas]
    merged = {**snapshot.definition_props, **snapshot.props}
    return present(
        name=snapshot.name,
        resource_name=snapshot.definition.name,
        nodes=[replica.node.name for replica in snapshot.replicas],
        props=dict(sorted(merged.items())),
        snapshot_definition_props=dict(sorted(snapshot.props.items())) if split else None,
        resource_definition_props=dict(sorted(snapshot.definition_props.items())) if split else None,
        flags=sorted(snapshot.flags),
        volume_definitions=volumes,
        uuid=snapshot.uuid,
        snapshots=replicas,
    )


def _snapshot_replica(snapshot: Snapshot, replica: SnapshotReplica) -> JsonObject:
    return present(
        snapshot_name=snapshot.name,
        node_name=replica.node.name,
        create_timestamp=snapshot.created if "SUCCESSFUL" in snapshot.flags else None,
        flags=["DELETE"] if "DELETE" in snapshot.flags and not replica.node.online else None,
        uuid=replica.uuid,
        resource_props=dict(sorted(replica.props.items())),
        snapshot_volumes=[{"uuid": uuid, "vlm_nr": number} for number, uuid in sorted(replica.volume_uuids.items())],
    )
