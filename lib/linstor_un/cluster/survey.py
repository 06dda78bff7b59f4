"""What a controller says of the cluster without its volumes: nodes, storage pools, resource groups, properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from linstor_un.cluster import pools
from linstor_un.errors import NotFound

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway

_PASSPHRASE_SINCE = (1, 25)
_LEAVING_FLAGS = frozenset({"EVICTED", "EVACUATE", "DELETE"})


class Node(NamedTuple):
    """A satellite; `connection` is ONLINE, OFFLINE and so on, `without_drbd` why it has no DRBD, empty where it has."""

    name: str
    kind: str
    connection: str
    flags: frozenset[str]
    addresses: tuple[str, ...]
    without_drbd: str
    properties: Mapping[str, str]

    @property
    def is_online(self) -> bool:
        """Tell whether its satellite is connected and knows everything."""
        return self.connection == "ONLINE"

    @property
    def is_leaving(self) -> bool:
        """Tell whether LINSTOR takes its replicas away, has done so, or deletes it."""
        return bool(self.flags & _LEAVING_FLAGS)


class StoragePool(NamedTuple):
    """A pool on a node; sizes in KiB, None where the node does not answer; `backing` is a volume group or thin pool."""

    name: str
    node: str
    provider: str
    free_kib: Optional[int]
    total_kib: Optional[int]
    supports_snapshots: bool
    backing: str


class Group(NamedTuple):
    """A resource group: how many replicas its volumes get, and where (LINSTOR's filter)."""

    name: str
    place_count: Optional[int]
    properties: Mapping[str, str]
    select_filter: Mapping[str, Any]

    @property
    def pools(self) -> tuple[str, ...]:
        """Return the pools that its volumes may be in, none where it leaves that open."""
        return tuple(pools.named_in(self.select_filter))

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers of its volumes, none where it leaves them open."""
        return tuple(self.select_filter.get("layer_stack") or ())


class Survey(NamedTuple):
    """The cluster; `passphrase` is unset, locked or unlocked, empty where the controller does not say."""

    version: str
    nodes: tuple[Node, ...]
    pools: tuple[StoragePool, ...]
    groups: tuple[Group, ...]
    properties: Mapping[str, str]
    passphrase: str
    certificate_days: Optional[float]

    def node(self, name: str) -> Optional[Node]:
        """Return the node of this name, whose case LINSTOR does not mind, or None."""
        return next((node for node in self.nodes if node.name.lower() == name.lower()), None)

    def group(self, name: str) -> Optional[Group]:
        """Return the resource group of this name, or None."""
        return next((group for group in self.groups if group.name.lower() == name.lower()), None)


def take(gateway: Gateway) -> Survey:
    """Ask a controller for everything; raises DriverError."""
    version = gateway.get("Asking for the version", ("controller", "version"))
    return Survey(
        version=str(version.get("version", "")),
        nodes=tuple(nodes(gateway)),
        pools=tuple(
            _pool(data)
            for data in gateway.get("Looking at the storage pools", ("view", "storage-pools"))
            if data.get("provider_kind") != "DISKLESS"
        ),
        groups=tuple(groups(gateway)),
        properties=properties(gateway),
        passphrase=_passphrase(gateway),
        certificate_days=gateway.certificate_days(),
    )


def nodes(gateway: Gateway) -> list[Node]:
    """Return the satellites."""
    return [_node(data) for data in gateway.get("Looking at the nodes", ("nodes",))]


def groups(gateway: Gateway) -> list[Group]:
    """Return the resource groups."""
    return [_group(data) for data in gateway.get("Looking at the resource groups", ("resource-groups",))]


def properties(gateway: Gateway) -> dict[str, str]:
    """Return the properties of the whole cluster."""
    return dict(gateway.get("Looking at the controller's properties", ("controller", "properties")))


def _node(data: Mapping[str, Any]) -> Node:
    has_drbd = "DRBD" in data.get("resource_layers", ())
    reasons = (data.get("unsupported_layers") or {}).get("DRBD") or ["it has no DRBD 9"]
    return Node(
        name=data["name"],
        kind=str(data.get("type", "")).upper(),
        connection=str(data.get("connection_status", "")).upper(),
        flags=frozenset(data.get("flags", ())),
        addresses=tuple(str(item.get("address", "")) for item in data.get("net_interfaces", ())),
        without_drbd="" if has_drbd else "; ".join(filter(None, reasons)) or "it has no DRBD 9",
        properties=dict(data.get("props") or {}),
    )


def _pool(data: Mapping[str, Any]) -> StoragePool:
    return StoragePool(
        name=data["storage_pool_name"],
        node=data["node_name"],
        provider=data["provider_kind"],
        free_kib=data.get("free_capacity"),
        total_kib=data.get("total_capacity"),
        supports_snapshots=bool(data.get("supports_snapshots")),
        backing=str((data.get("props") or {}).get("StorDriver/StorPoolName", "")),
    )


def _group(data: Mapping[str, Any]) -> Group:
    chosen = data.get("select_filter") or {}
    count = chosen.get("place_count")
    return Group(data["name"], None if count is None else int(count), dict(data.get("props") or {}), chosen)


def _passphrase(gateway: Gateway) -> str:
    if gateway.rest_version < _PASSPHRASE_SINCE:
        return ""
    try:
        status: Any = gateway.get("Asking for the passphrase", ("encryption", "passphrase"))
    except NotFound:
        return ""
    return str(status.get("status", "")) if isinstance(status, dict) else ""
