"""Where a volume is: its replicas, its diskless resources and its tie-breaker, and attaching and detaching it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from linstor_un import log
from linstor_un.cluster.codes import NOT_CONNECTED, NOT_FOUND_NODE, NOT_FOUND_STORAGE_POOL, WARN_NOT_CONNECTED, Entry
from linstor_un.errors import DriverError, NotFound, NotReady

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway

# Pools whose fresh volumes read zero; on all others a fresh volume shows what was there before.
ZEROED_PROVIDERS = frozenset({"LVM_THIN", "ZFS", "ZFS_THIN", "FILE_THIN", "STORAGE_SPACES_THIN"})


class Replica(NamedTuple):
    """A resource on a node; `unconnected` are the other nodes that DRBD does not reach from it."""

    node: str
    flags: frozenset[str]
    in_use: Optional[bool]
    device_path: str
    usable_size_kib: int
    storage_pool: str
    layers: tuple[str, ...]
    unconnected: frozenset[str] = frozenset()

    @property
    def is_diskless(self) -> bool:
        """Tell whether the node holds no data."""
        return bool(self.flags & {"DISKLESS", "DRBD_DISKLESS"})

    @property
    def is_tie_breaker(self) -> bool:
        """Tell whether the resource is there for quorum alone."""
        return "TIE_BREAKER" in self.flags

    @property
    def is_online(self) -> bool:
        """Tell whether its node answers: of one that does not, LINSTOR does not say whether it is in use."""
        return self.in_use is not None

    @property
    def holds_data(self) -> bool:
        """Tell whether the node has a replica that is there to stay."""
        return not self.is_diskless and not self.flags & {"DELETE", "INACTIVE", "EVICTED", "EVACUATE"}


def of(gateway: Gateway, resource: str) -> list[Replica]:
    """Return the resources of one resource definition; none where it does not exist."""
    try:
        data = gateway.get(f"Looking for {resource}", ("resource-definitions", resource, "resources"))
    except NotFound:
        return []
    return [from_json(item) for item in data]


def of_several(gateway: Gateway, resources: Sequence[str]) -> dict[str, list[Replica]]:
    """Return the resources of several resource definitions, in one request."""
    found: dict[str, list[Replica]] = {resource: [] for resource in resources}
    if len(found) == 1:
        return {resource: of(gateway, resource) for resource in found}
    if found:
        names = {resource.lower(): resource for resource in found}
        for item in gateway.get("Looking for volumes", ("view", "resources"), [("resources", name) for name in found]):
            found[names[item["name"].lower()]].append(from_json(item))
    return found


def from_json(data: Mapping[str, Any]) -> Replica:
    """Read a resource as LINSTOR describes it."""
    layer = data.get("layer_object") or {}
    device, size, layers = _device(layer)
    connections = (layer.get("drbd") or {}).get("connections") or {}
    return Replica(
        node=data["node_name"],
        flags=frozenset(data.get("flags", ())),
        in_use=(data.get("state") or {}).get("in_use"),
        device_path=device,
        usable_size_kib=size,
        storage_pool=(data.get("props") or {}).get("StorPoolName", ""),
        layers=layers,
        unconnected=frozenset(node for node, found in connections.items() if not found.get("connected")),
    )


def check_alike(gateway: Gateway, resources: Sequence[str]) -> None:
    """Check that the replicas of each volume have the same content; one request.

    Those that are not connected do not: after a split brain, or on a network of which a node is cut off, each calls
    itself up to date, and LINSTOR believes it. Raises NotReady.
    """
    for resource, found in of_several(gateway, resources).items():
        holders = {item.node for item in found if item.holds_data}
        for item in found:
            lost = sorted(item.unconnected & holders) if item.holds_data else []
            if lost:
                raise NotReady(
                    f"The replicas of {resource} may differ: DRBD on {item.node} is not connected to "
                    f"{', '.join(lost)}; see `drbdadm status {resource}` there, reconnect them and retry"
                )


def _device(layer: Mapping[str, Any]) -> tuple[str, int, tuple[str, ...]]:
    kind = str(layer.get("type", ""))
    # Beside what the data are on, in no order, there may be what DRBD's meta-data are on, or a cache.
    below = [_device(child) for child in layer.get("children", ()) if not child.get("resource_name_suffix")]
    layers = (kind, *(below[0][2] if below else ()))
    content = layer.get(kind.lower()) or {}
    volumes = content.get(f"{kind.lower()}_volumes") or []
    first = volumes[0] if volumes else {}
    return str(first.get("device_path", "")), int(first.get("usable_size_kib", 0)), layers


def attach(
    gateway: Gateway, resource: str, node: str, for_migration: bool = False, may_lack_drbd: bool = False
) -> bool:
    """Make the volume available on `node`, diskless where there is no replica; return whether it was not yet.

    `for_migration` lets LINSTOR allow two primaries too, from REST 1.29 on. A volume without DRBD is on one node, and
    LINSTOR would make another one on any other, empty and under the same name (linstor-transcripts/03-storage-layer,
    007): `may_lack_drbd` where it may be such a one although its datastore has others.
    Raises NotFound where LINSTOR does not know the node or cannot offer the volume there, NotReady where it is offline
    or has no way to the volume.
    """
    layers = gateway.settings.layers
    if may_lack_drbd or (layers and "DRBD" not in layers):
        _check_is_there(gateway, resource, node)
    is_new: list[bool] = []

    def offer() -> None:
        entries = _make_available(gateway, resource, node, for_migration)
        is_new.append(not any("already deployed" in item.message for item in entries))
        if not is_new[-1] and not gateway.attaches_tie_breakers:
            _keep(gateway, resource, node)
        if any(item.is_warning and item.code == WARN_NOT_CONNECTED and f"'{node}'" in item.message for item in entries):
            raise NotReady(
                f"Node {node} is offline, so that {resource} cannot be attached there: bring its satellite back"
            )
        _refuse_new_disk(gateway, entries, resource, node)

    gateway.once_connected(offer)
    # What was registered before the node had come is ours.
    if is_new[0]:
        log.info(f"attached {resource} on {node}")
    return is_new[0]


def _check_is_there(gateway: Gateway, resource: str, node: str) -> None:
    there = of(gateway, resource)
    holders = [item for item in there if item.holds_data]
    if holders and "DRBD" not in holders[0].layers and node.lower() not in {item.node.lower() for item in there}:
        raise _is_elsewhere(holders, resource, node)


def _refuse_new_disk(gateway: Gateway, entries: Sequence[Entry], resource: str, node: str) -> None:
    """Take back a disk that LINSTOR has made where only a way to the volume was asked for: it is empty."""
    if any(item.message.startswith(f"({node}) Volume number ") and "created" in item.message for item in entries):
        gateway.delete_resource(resource, node)
        raise _is_elsewhere([item for item in of(gateway, resource) if item.holds_data], resource, node)


def _is_elsewhere(holders: Sequence[Replica], resource: str, node: str) -> NotReady:
    if not holders:
        return NotReady(
            f"LINSTOR has no replica of {resource} any more, so that {node} cannot have it: see `linstor resource list "
            f"-r {resource}`, and bring its nodes back"
        )
    return NotReady(
        f"{resource} has no DRBD layer and is on {', '.join(item.node for item in holders)} alone, so that no VM on "
        f"{node} can have it: keep its VM there, or set LAYER_LIST of new volumes to DRBD,STORAGE"
    )


def _make_available(gateway: Gateway, resource: str, node: str, for_migration: bool) -> list[Entry]:
    try:
        return gateway.make_available(resource, node, for_migration)
    except DriverError as error:
        if (
            error.code != NOT_CONNECTED
            or gateway.attaches_beside_offline_nodes
            or not _is_there(gateway, resource, node)
        ):
            raise _not_attached(gateway, error, resource, node) from None
        log.warning(f"{resource} is attached on {node} beside a node that is offline: {error}")
        return []


def _is_there(gateway: Gateway, resource: str, node: str) -> bool:
    """Tell whether a volume is on a node that answers."""
    return any(item.node.lower() == node.lower() and item.is_online for item in of(gateway, resource))


def _keep(gateway: Gateway, resource: str, node: str) -> None:
    """Make a tie-breaker a diskless resource like any other, which LINSTOR does not take away by itself."""
    if any(item.node.lower() == node.lower() and item.is_tie_breaker for item in of(gateway, resource)):
        gateway.create_diskless(resource, node)


def _not_attached(gateway: Gateway, error: DriverError, resource: str, node: str) -> DriverError:
    """Return what to do about an attachment that LINSTOR has refused."""
    if isinstance(error, NotFound) and error.code == NOT_FOUND_NODE:
        return NotFound(
            f"Host {node} is not a node of LINSTOR, so that {resource} cannot be attached there: register it with "
            f"`linstor node create {node}`, under the same name that OpenNebula has for it"
        )
    if isinstance(error, NotFound) and error.code == NOT_FOUND_STORAGE_POOL:
        holders = [item for item in of(gateway, resource) if item.holds_data]
        if holders and "DRBD" not in holders[0].layers:
            return _is_elsewhere(holders, resource, node)
        return NotReady(
            f"LINSTOR cannot attach {resource} on {node}: the node is offline; see `linstor node list` and bring its "
            "satellite back"
        )
    return error


def detach(gateway: Gateway, resource: str, node: str) -> None:
    """Remove the volume from `node` where it is only attached.

    Never removes a replica, keeps the tie-breaker, and does not fail where somebody still has the volume open: it may
    be another VM's right, and what could not be detached is detached by the volume's next action.
    """
    for replica in of(gateway, resource):
        if replica.node.lower() == node.lower():
            detach_replica(gateway, resource, replica)


def detach_replica(gateway: Gateway, resource: str, replica: Replica) -> None:
    """Remove one resource if it is diskless and no tie-breaker; see `detach`."""
    if not replica.is_diskless or replica.is_tie_breaker:
        return
    node = replica.node
    try:
        gateway.once_closed(lambda: gateway.delete_resource(resource, node))
        log.info(f"detached {resource} from {node}")
    except DriverError as error:
        if error.code == 0:
            raise
        log.warning(f"{resource} stays attached on {node}: {error}")


def detach_elsewhere(gateway: Gateway, resource: str, kept_node: str = "") -> None:
    """Detach the volume, which only one VM can have, wherever it is only attached and not open but on `kept_node`.

    After a rollback LINSTOR brings the tie-breaker back as any diskless resource (linstor-behaviour.md, 5): detached,
    it is a tie-breaker again.
    """
    for replica in of(gateway, resource):
        if replica.node.lower() != kept_node.lower() and replica.in_use is not True:
            detach_replica(gateway, resource, replica)
