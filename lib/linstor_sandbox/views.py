"""The JSON of LINSTOR's objects; what is empty is absent."""
from __future__ import annotations

from typing import Any, Optional

from . import drbd
from .answers import NOT_CONNECTED_DETAILS, WARN_NOT_CONNECTED, JsonObject, signed, timestamp
from .model import (
    KINDS,
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

_RESOURCE_FLAGS = ("DELETE", "DISKLESS", "DRBD_DISKLESS", "DRBD_CLIENT", "TIE_BREAKER", "INACTIVE",
                   "RESTORE_FROM_SNAPSHOT", "DRBD_DELETE")
_VOLUME_FLAGS = ("DELETE", "RESIZE", "DRBD_RESIZE", "CLONING_START", "CLONING", "CLONING_FINISHED", "DRBD_DELETE")
_ALWAYS_PROVIDERS = ["DISKLESS", "REMOTE_SPDK", "EBS_INIT", "EBS_TARGET"]
_NO_INFORMATION = ["No information from satellite yet"]
_NEVER_PROVIDERS = {"SPDK": ["IO exception occured when running 'rpc.py spdk_get_version': Cannot run program "
                             '"rpc.py": error=2, No such file or directory'],
                    "STORAGE_SPACES": ["This tool does not exist on the Linux platform."],
                    "STORAGE_SPACES_THIN": ["This tool does not exist on the Linux platform."]}
_NEVER_LAYERS = {"NVME": ["'modprobe nvmet_rdma' returned with exit code 1"],
                 "WRITECACHE": ["'modprobe dm-writecache' returned with exit code 1"],
                 "CACHE": ["'modprobe dm-cache' returned with exit code 1"],
                 "BCACHE": ["'modprobe bcache' returned with exit code 1"]}


def present(**fields: Any) -> JsonObject:
    """The fields that are not empty (NON_EMPTY): None, "", [] and {} are left out, false and 0 are not."""
    return {key: value for key, value in fields.items() if value is not None and value != "" and value != []
            and value != {}}


def node_json(node: Node) -> JsonObject:
    """A node."""
    kinds = [name for name in KINDS if name != "DISKLESS"]
    interface = {
        "name": "default", "address": node.address, "satellite_port": 3366, "satellite_encryption_type": "PLAIN",
        "is_active": True, "uuid": node.interface_uuid,
    }
    return present(
        name=node.name, type=node.kind, props=dict(sorted(node.props.items())), net_interfaces=[interface],
        connection_status="ONLINE" if node.online else "OFFLINE", uuid=node.uuid,
        storage_providers=_ALWAYS_PROVIDERS[:1] + (kinds if node.online else []) + _ALWAYS_PROVIDERS[1:],
        resource_layers=list(node.layers) if node.online else ["STORAGE"],
        unsupported_providers=_NEVER_PROVIDERS if node.online else dict.fromkeys(kinds, _NO_INFORMATION),
        unsupported_layers=_NEVER_LAYERS if node.online else dict.fromkeys(("DRBD", "LUKS"), _NO_INFORMATION),
    )


def supports_snapshots(cluster: Cluster, pool: StoragePool) -> bool:
    """Whether a pool can take snapshots; thick LVM can since REST 1.29."""
    return pool.kind.snapshots or (pool.kind.name == "LVM" and cluster.at_least("1.29.0"))


def not_connected_report(node: str) -> JsonObject:
    """The report of a node that is not connected."""
    return {
        "ret_code": signed(0x8000000000000000 | WARN_NOT_CONNECTED),
        "message": f"No active connection to satellite '{node}'",
        "details": NOT_CONNECTED_DETAILS, "created_at": timestamp(),
    }


def pool_json(cluster: Cluster, pool: StoragePool) -> JsonObject:
    """A storage pool."""
    snapshots = supports_snapshots(cluster, pool)
    traits = {} if pool.diskless else {"Provisioning": "Thin" if pool.kind.thin else "Fat"}
    traits["SupportsSnapshots"] = str(snapshots).lower()
    online = pool.node.online
    return present(
        storage_pool_name=pool.name, node_name=pool.node.name, provider_kind=pool.kind.name,
        props=dict(sorted(pool.props.items())), static_traits=traits,
        free_capacity=pool.free() if online else None, total_capacity=pool.total if online else None,
        free_space_mgr_name=f"{pool.node.name};{pool.name}", uuid=pool.uuid,
        reports=None if online else [not_connected_report(pool.node.name)],
        supports_snapshots=snapshots, external_locking=False,
    )


def group_json(group: ResourceGroup) -> JsonObject:
    """A resource group."""
    return present(
        name=group.name, description=group.description, props=dict(sorted(group.props.items())),
        select_filter=group.filter.to_json(), uuid=group.uuid, peer_slots=group.peer_slots,
    )


def volume_group_json(volume_group: VolumeGroup) -> JsonObject:
    """A volume group."""
    return present(volume_number=volume_group.number, props=dict(volume_group.props), uuid=volume_group.uuid,
                   flags=list(volume_group.flags))


def _drbd_definition(definition: ResourceDefinition) -> JsonObject:
    return {
        "peer_slots": definition.peer_slots, "al_stripes": 1, "al_stripe_size_kib": 32, "port": definition.port,
        "transport_type": "IP", "secret": definition.secret, "down": False,
    }


def definition_json(definition: ResourceDefinition, with_volumes: bool = False) -> JsonObject:
    """A resource definition."""
    layers = [present(type=layer, data=_drbd_definition(definition) if layer == "DRBD" else None)
              for layer in definition.layers]
    volumes = [volume_definition_json(definition, volume) for _, volume in sorted(definition.volumes.items())]
    props = {key: value for key, value in sorted(definition.props.items()) if not key.startswith("Internal/")}
    return present(
        name=definition.name, external_name=definition.external_name, props=props,
        flags=sorted(definition.flags), layer_data=layers, uuid=definition.uuid,
        resource_group_name=definition.group.name, volume_definitions=volumes if with_volumes else None,
    )


def volume_definition_json(definition: ResourceDefinition, volume: VolumeDefinition) -> JsonObject:
    """A volume definition."""
    layers = []
    for layer in definition.layers:
        minor = {"volume_number": volume.number, "minor_number": volume.minor}
        layers.append(present(type=layer, data=minor if layer == "DRBD" and volume.minor is not None else None))
    return present(
        volume_number=volume.number, size_kib=volume.size, props=dict(sorted(volume.props.items())),
        flags=list(volume.flags), layer_data=layers, uuid=volume.uuid,
    )


class ResourceView:
    """One resource as GET .../resources and view/resources show it."""

    def __init__(self, satellites: Satellites, resource: Resource) -> None:
        self.satellites = satellites
        self.resource = resource
        self.definition = resource.definition
        self.known = resource.deployed and resource.node.online and not resource.inactive

    def to_json(self, with_volumes: bool) -> JsonObject:
        """The resource, with its volumes or without."""
        resource = self.resource
        result = present(
            name=resource.name, node_name=resource.node.name, props=dict(sorted(resource.props.items())),
            flags=[flag for flag in _RESOURCE_FLAGS if flag in resource.flags],
            layer_object=self._layer_object(), uuid=resource.uuid,
            create_timestamp=resource.created if resource.deployed else None,
            volumes=[self.volume_json(volume) for volume in self._volumes()] if with_volumes else None,
        )
        state = self._state()
        if state is not None:
            result["state"] = state
        return result

    def _volumes(self) -> list[VolumeDefinition]:
        return [volume for _, volume in sorted(self.definition.volumes.items())
                if volume.number in self.resource.volume_uuids]

    def _state(self) -> Optional[JsonObject]:
        resource = self.resource
        if not resource.node.online or not resource.deployed:
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
        if content is None or not resource.deployed:
            return -1
        return content.allocated() // 1024 if resource.pool.kind.thin else self._sizes(volume).storage

    def _device(self, path: str) -> Optional[str]:
        return path if self.resource.deployed and not self.resource.inactive else None

    def _storage_volume(self, volume: VolumeDefinition) -> JsonObject:
        if self.resource.diskless:
            return {"volume_number": volume.number, "allocated_size_kib": 0, "usable_size_kib": volume.size}
        path = self.satellites.devices.backing_path(self.resource, volume.number)
        return present(
            volume_number=volume.number, device_path=self._device(path),
            allocated_size_kib=self._allocated(volume), usable_size_kib=self._sizes(volume).storage, disk_state="[]",
        )

    def _luks_volume(self, volume: VolumeDefinition) -> JsonObject:
        path = f"/dev/mapper/Linstor-Crypt-{self.resource.name}_{volume.number:05d}"
        backing = self.satellites.devices.backing_path(self.resource, volume.number)
        sizes = self._sizes(volume)
        return present(
            volume_number=volume.number, device_path=self._device(path),
            backing_device=self._device(backing), allocated_size_kib=sizes.storage,
            usable_size_kib=sizes.luks_usable, opened=self.known,
        )

    def _drbd_volume(self, volume: VolumeDefinition) -> JsonObject:
        sizes = self._sizes(volume)
        diskless = self.resource.diskless
        below = f"/dev/mapper/Linstor-Crypt-{self.resource.name}_{volume.number:05d}"
        if "LUKS" not in self.resource.layers and not diskless:
            below = self.satellites.devices.backing_path(self.resource, volume.number)
        return present(
            drbd_volume_definition={"volume_number": volume.number, "minor_number": volume.minor},
            device_path=self._device(f"/dev/drbd{volume.minor}"),
            backing_device=None if diskless else self._device(below),
            allocated_size_kib=-1 if diskless else sizes.drbd_gross,
            usable_size_kib=volume.size if diskless else sizes.usable,
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
            result = present(children=[result] if result else None, type=layer, **data)
        return result

    def _peers(self) -> list[Resource]:
        """The replicas that DRBD connects to this one: two diskless nodes do not."""
        return [peer for peer in self.definition.resources if peer is not self.resource and drbd.votes(peer)
                and peer.deployed and not (peer.diskless and self.resource.diskless)]

    def _drbd_object(self, volumes: list[JsonObject]) -> JsonObject:
        resource = self.resource
        connections = {
            peer.node.name: {"connected": True, "message": "Connected"} if peer.node.host_up
            else {"connected": False, "message": "Connecting"} for peer in self._peers()
        }
        flags = (["DISKLESS"] if resource.diskless else []) + (["INITIALIZED"] if resource.deployed else [])
        port = self.definition.tcp_port
        result = present(
            drbd_resource_definition=_drbd_definition(self.definition), node_id=resource.node_id,
            tcp_ports=[] if port is None else [port], peer_slots=self.definition.peer_slots, al_stripes=1, al_size=32,
            flags=flags, drbd_volumes=volumes,
        )
        if self.known:
            result.update(present(connections=connections))
            result["promotion_score"] = self._score(sum(peer.node.host_up for peer in self._peers()))
            result["may_promote"] = self._may_promote()
        return result

    def _score(self, connected: int) -> int:
        return connected + 1 + (10100 if self.resource.state() == "UpToDate" else 0)

    def _may_promote(self) -> bool:
        return not self.satellites.openings.primaries(self.definition) and drbd.has_data(self.definition)

    def _replication_states(self) -> dict[str, JsonObject]:
        mine = self.resource.state()
        states = {}
        for peer in self._peers():
            if not peer.node.host_up:
                state = "Off"
            elif mine == "Inconsistent":
                state = "SyncTarget" if peer.state() == "UpToDate" else "Established"
            else:
                state = "SyncSource" if peer.state() == "Inconsistent" and mine == "UpToDate" else "Established"
            states[peer.node.name] = {"replication_state": state}
        return states

    def _volume_flags(self, volume: VolumeDefinition) -> list[str]:
        flags = set(self.resource.volume_flags.get(volume.number, ()))
        flags |= self.resource.flags & {"DELETE", "DRBD_DELETE"}
        return sorted(flags, key=_VOLUME_FLAGS.index)

    def volume_json(self, volume: VolumeDefinition) -> JsonObject:
        """One volume of the resource."""
        resource = self.resource
        path = self.satellites.devices.path(resource, volume)
        state = None
        if self.known and resource.uses_drbd:
            state = present(disk_state=resource.state(), replication_states=self._replication_states())
        elif self.known and "CLONING_FINISHED" in resource.volume_flags.get(volume.number, ()):
            state = {"disk_state": "CloningDone"}
        return present(
            volume_number=volume.number, storage_pool_name=resource.pool.name, provider_kind=resource.pool.kind.name,
            device_path=self._device(path), allocated_size_kib=self._allocated(volume), state=state,
            flags=self._volume_flags(volume),
            layer_data_list=[{"type": layer, "data": self._layer_volume(layer, volume)} for layer in self._layers()],
            uuid=resource.volume_uuids.get(volume.number),
        )


def snapshot_json(snapshot: Snapshot) -> JsonObject:
    """A snapshot."""
    volumes = [present(volume_number=number, size_kib=volume.size,
                       volume_definition_props=dict(sorted(volume.props.items())))
               for number, volume in sorted(snapshot.volumes.items())]
    replicas = [_snapshot_replica(snapshot, replica) for replica in snapshot.replicas]
    merged = {**snapshot.definition_props, **snapshot.props}
    return present(
        name=snapshot.name, resource_name=snapshot.definition.name,
        nodes=[replica.node.name for replica in snapshot.replicas], props=dict(sorted(merged.items())),
        snapshot_definition_props=dict(sorted(snapshot.props.items())),
        resource_definition_props=dict(sorted(snapshot.definition_props.items())),
        flags=sorted(snapshot.flags), volume_definitions=volumes, uuid=snapshot.uuid, snapshots=replicas,
    )


def _snapshot_replica(snapshot: Snapshot, replica: SnapshotReplica) -> JsonObject:
    return present(
        snapshot_name=snapshot.name, node_name=replica.node.name,
        create_timestamp=snapshot.created if "SUCCESSFUL" in snapshot.flags else None,
        flags=["DELETE"] if "DELETE" in snapshot.flags and not replica.node.online else None, uuid=replica.uuid,
        resource_props=dict(sorted(replica.props.items())),
        snapshot_volumes=[{"uuid": uuid, "vlm_nr": number} for number, uuid in sorted(replica.volume_uuids.items())],
    )
