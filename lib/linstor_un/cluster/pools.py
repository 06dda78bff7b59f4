"""Storage pools: what they can still store with the asked replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from linstor_un import log

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway
    from linstor_un.cluster.placement import Placement

_DEFAULT_OVERSUBSCRIPTION = 20.0
_DEFAULT_PLACE_COUNT = 2
# As LINSTOR calls it now, and as it did for ZFS before.
_BACKINGS = ("StorDriver/StorPoolName", "StorDriver/ZPoolThin", "StorDriver/ZPool")


class Pool(NamedTuple):
    """A storage pool on a node; `oversubscription` is how often a thin pool may promise its free space.

    `backing` is the volume group, with the thin pool, or the zpool that it is.
    """

    node: str
    name: str
    provider: str
    free_kib: int
    total_kib: int
    oversubscription: float = 1.0
    backing: str = ""

    @property
    def is_thin(self) -> bool:
        """Tell whether a volume takes only what is written to it."""
        return self.provider.endswith("_THIN")


class Capacity(NamedTuple):
    """What a datastore can store with its replicas, in KiB."""

    free_kib: int
    total_kib: int


def of(gateway: Gateway, names: Sequence[str] = (), nodes: Sequence[str] = ()) -> list[Pool]:
    """Return the pools with these names (all without) that answer and hold data, each shared space once."""
    query = [("storage_pools", name) for name in names] + [("nodes", node) for node in nodes]
    seen: set[str] = set()
    pools = []
    for data in gateway.get("Looking at the storage pools", ("view", "storage-pools"), query):
        if data.get("provider_kind") == "DISKLESS":
            continue
        if "total_capacity" not in data:
            log.warning(f"pool {data['storage_pool_name']} on {data['node_name']} does not answer and is not counted")
            continue
        space = data.get("free_space_mgr_name") or f"{data['node_name']};{data['storage_pool_name']}"
        if space not in seen:
            seen.add(space)
            pools.append(_pool(data))
    return pools


def _pool(data: Mapping[str, Any]) -> Pool:
    is_thin = (data.get("static_traits") or {}).get("Provisioning") == "Thin"
    properties = data.get("props") or {}
    ratio = float(properties.get("MaxOversubscriptionRatio", _DEFAULT_OVERSUBSCRIPTION))
    return Pool(
        node=data["node_name"],
        name=data["storage_pool_name"],
        provider=data["provider_kind"],
        free_kib=data["free_capacity"],
        total_kib=data["total_capacity"],
        oversubscription=ratio if is_thin else 1.0,
        backing=next((properties[key] for key in _BACKINGS if key in properties), ""),
    )


def storable_kib(sizes_kib: Sequence[int], replica_count: int) -> int:
    """Return how much fits on nodes with these sizes when each byte is stored on `replica_count` of them.

    The largest T with sum(min(size, T)) >= replica_count * T; LINSTOR's own estimate can be a third too small.
    """
    sizes = sorted(sizes_kib, reverse=True)
    while replica_count > 0 and len(sizes) >= replica_count:
        share = sum(sizes) // replica_count
        if sizes[0] <= share or replica_count == 1:
            return share
        # A node larger than the share can give each byte only one replica: it is full in effect.
        sizes = sizes[1:]
        replica_count -= 1
    return 0


def near(gateway: Gateway, placement: Placement, node: str, size_kib: int) -> Placement:
    """Return the placement with one replica on `node` and the others where most is free, as many as asked in all.

    The placement itself where `node` has no room or it cannot be known which nodes would do: PREFER_NODE is a wish.
    """
    chosen = criteria(gateway, placement)
    if any(chosen.get(key) for key in ("node_name_list", "replicas_on_same", "replicas_on_different")):
        return placement
    free: dict[str, int] = {}
    for pool in _matching(gateway, chosen):
        if pool.free_kib > size_kib:
            free[pool.node] = max(free.get(pool.node, 0), pool.free_kib)
    count = int(chosen.get("place_count") or _DEFAULT_PLACE_COUNT)
    here = next((name for name in free if name.lower() == node.lower()), None)
    if here is None or len(free) < count:
        return placement
    others = sorted((name for name in free if name != here), key=lambda name: -free[name])
    return placement.on([here, *others[: count - 1]])


def criteria(gateway: Gateway, placement: Placement) -> dict[str, Any]:
    """Return the whole filter by which LINSTOR places: the group's own, and the request's over it."""
    if placement.is_own_group:
        return dict(placement.select_filter)
    group = gateway.get(f"Looking for resource group {placement.group}", ("resource-groups", placement.group))
    return {**(group.get("select_filter") or {}), **placement.select_filter}


def named_in(select_filter: Mapping[str, Any]) -> list[str]:
    """Return the pools that a filter allows, none where it leaves that open: LINSTOR has two fields for them."""
    one = select_filter.get("storage_pool")
    return list(select_filter.get("storage_pool_list") or ([one] if one else []))


def _matching(gateway: Gateway, chosen: Mapping[str, Any]) -> list[Pool]:
    providers = chosen.get("provider_list")
    pools = of(gateway, named_in(chosen), chosen.get("node_name_list") or ())
    return [pool for pool in pools if not providers or pool.provider in providers]


def capacity(gateway: Gateway, placement: Placement) -> Capacity:
    """Return what can be stored by this placement, and could if its pools were empty."""
    chosen = criteria(gateway, placement)
    per_node: dict[str, tuple[int, int]] = {}
    for pool in _matching(gateway, chosen):
        free, total = per_node.get(pool.node, (0, 0))
        per_node[pool.node] = (free + pool.free_kib, total + pool.total_kib)
    count = int(chosen.get("place_count") or _DEFAULT_PLACE_COUNT)
    return Capacity(
        storable_kib([free for free, _ in per_node.values()], count),
        storable_kib([total for _, total in per_node.values()], count),
    )
