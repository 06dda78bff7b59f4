"""What a controller says of the whole cluster: its nodes, its storage pools, its resource groups, its properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from linstor_un.errors import NotFound

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway

_PASSPHRASE_SINCE = (1, 25)
_FAILING_FLAGS = frozenset({"EVICTED", "EVACUATE", "DELETE"})


class Node(NamedTuple):
    """A satellite; `without_drbd` is why it cannot have DRBD volumes, empty where it can."""

    name: str
    kind: str
    connection: str
    flags: frozenset[str]
    addresses: tuple[str, ...]
    without_drbd: str

    @property
    def is_online(self) -> bool:
        """Tell whether its satellite is connected and knows everything."""
        return self.connection == "ONLINE"

    @property
    def is_leaving(self) -> bool:
        """Tell whether LINSTOR takes its replicas away or has done so."""
        return bool(self.flags & _FAILING_FLAGS)


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
    """A resource group: its replica count and pools, empty where it leaves them open, and its properties."""

    name: str
    place_count: Optional[int]
    pools: tuple[str, ...]
    layers: tuple[str, ...]
    properties: Mapping[str, str]


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
        nodes=tuple(map(_node, gateway.get("Looking at the nodes", ("nodes",)))),
        pools=tuple(
            _pool(data)
            for data in gateway.get("Looking at the storage pools", ("view", "storage-pools"))
            if data.get("provider_kind") != "DISKLESS"
        ),
        groups=tuple(map(_group, gateway.get("Looking at the resource groups", ("resource-groups",)))),
        properties=gateway.get("Looking at the properties", ("controller", "properties")),
        passphrase=_passphrase(gateway),
        certificate_days=gateway.certificate_days(),
    )


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
    pools = chosen.get("storage_pool_list") or [chosen.get("storage_pool")]
    return Group(
        name=data["name"],
        place_count=chosen.get("place_count"),
        pools=tuple(filter(None, pools)),
        layers=tuple(chosen.get("layer_stack") or ()),
        properties=data.get("props") or {},
    )


def _passphrase(gateway: Gateway) -> str:
    if gateway.rest_version < _PASSPHRASE_SINCE:
        return ""
    try:
        status: Any = gateway.get("Asking for the passphrase", ("encryption", "passphrase"))
    except NotFound:
        return ""
    return str(status.get("status", "")) if isinstance(status, dict) else ""
