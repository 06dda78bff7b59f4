"""Where LINSTOR is to put a volume: a resource group of the operator's, or one made from the attributes.

LINSTOR's hourly balancing follows the resource group's replica count, so that a volume placed by attributes lives in a
group that says the same. The group is made when the first volume needs it, and named after what it says.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from linstor_un import log
from linstor_un.cluster.codes import EXISTS_RESOURCE_GROUP, NOT_FOUND_RESOURCE_GROUP, Entry
from linstor_un.errors import AlreadyExists, InvalidSetting, NotFound

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway
    from linstor_un.settings import Settings

BALANCE_PROPERTY = "BalanceResourcesEnabled"
# What every node has, and old configurations name.
_DEFAULT_DISKLESS_POOL = "DfltDisklessStorPool"
_DEFAULT_LAYERS = ("DRBD", "STORAGE")


class Placement(NamedTuple):
    """How a volume is placed: the group it is spawned from, and what the request says beyond the group."""

    group: str
    replica_count: Optional[int]
    layers: tuple[str, ...]
    select_filter: Mapping[str, Any]
    is_own_group: bool = False
    # Whether LVM's thin pools zero what they give out.
    thin_pool_zero: bool = True
    # What to fall back to where this is only a wish.
    otherwise: Optional[Placement] = None
    # Whether the volume has fewer replicas than others of its group, and is to keep so few.
    is_exception: bool = False

    @property
    def properties(self) -> dict[str, str]:
        """Return what the resource definition needs so that balancing leaves its replica count as asked."""
        overrides = self.is_exception or (not self.is_own_group and self.replica_count is not None)
        return {BALANCE_PROPERTY: "false"} if overrides else {}

    def with_one_replica(self) -> Placement:
        """Return this placement for a volume that is there to be read once."""
        return self._replace(replica_count=1, is_exception=True)

    def on(self, nodes: Sequence[str]) -> Placement:
        """Return this placement with its replicas on exactly these nodes where there is room, else as it is."""
        wanted = {**self.select_filter, "node_name_list": list(nodes), "place_count": len(nodes)}
        return self._replace(select_filter=wanted, otherwise=self)


def properties(gateway: Gateway, placement: Placement) -> dict[str, str]:
    """Return those properties of a placement that the controller knows: one that balances nothing needs none."""
    return placement.properties if placement.properties and gateway.balances else {}


def of(settings: Settings, origin: str) -> Placement:
    """Return the placement that the attributes ask for; `origin` names the datastore in errors.

    Raises InvalidSetting where they do not say enough or contradict each other.
    """
    wanted = _filter(settings)
    count = _replica_count(settings, origin)
    if settings.layers and "DRBD" not in settings.layers and count is not None and count > 1:
        raise InvalidSetting(
            f'LAYER_LIST="{",".join(settings.layers)}" of {origin} has no DRBD and cannot hold {count} replicas: '
            "set REPLICA_COUNT to 1, or add DRBD"
        )
    if settings.resource_group:
        _check_diskless_pool(settings, origin)
        return Placement(
            settings.resource_group, count, settings.layers, wanted, thin_pool_zero=settings.thin_pool_zero
        )
    if not settings.storage_pools:
        raise InvalidSetting(f"STORAGE_POOL is missing from {origin}: set it, or set RESOURCE_GROUP")
    if count is None:
        raise InvalidSetting(f"REPLICA_COUNT is missing from {origin}: set it, or set NODE_LIST or RESOURCE_GROUP")
    wanted["layer_stack"] = list(settings.layers or _DEFAULT_LAYERS)
    layers = tuple(wanted["layer_stack"])
    return Placement(_group_name(settings, count, wanted), count, layers, wanted, True, settings.thin_pool_zero)


def _check_diskless_pool(settings: Settings, origin: str) -> None:
    """Refuse what would have no effect: LINSTOR attaches a volume by what its resource group itself says."""
    if settings.diskless_pool and settings.diskless_pool.lower() != _DEFAULT_DISKLESS_POOL.lower():
        raise InvalidSetting(
            f'DISKLESS_POOL="{settings.diskless_pool}" of {origin} has no effect beside RESOURCE_GROUP='
            f'"{settings.resource_group}": give that group the pool and remove DISKLESS_POOL, or set '
            "STORAGE_POOL instead of RESOURCE_GROUP"
        )


def _filter(settings: Settings) -> dict[str, Any]:
    count = len(settings.node_list) or settings.replica_count
    candidates: dict[str, Any] = {
        "place_count": count,
        "storage_pool_list": list(settings.storage_pools),
        "node_name_list": list(settings.node_list),
        "storage_pool_diskless_list": [settings.diskless_pool] if settings.diskless_pool else [],
        "layer_stack": list(settings.layers),
        "provider_list": list(settings.providers),
        "replicas_on_same": list(settings.replicas_on_same),
        "replicas_on_different": list(settings.replicas_on_different),
        "not_place_with_rsc": list(settings.do_not_place_with),
        "not_place_with_rsc_regex": settings.do_not_place_with_regex,
    }
    return {key: value for key, value in candidates.items() if value}


def _replica_count(settings: Settings, origin: str) -> Optional[int]:
    nodes = settings.node_list
    if len({node.lower() for node in nodes}) < len(nodes):
        raise InvalidSetting(f'NODE_LIST="{" ".join(nodes)}" of {origin} names a node twice: remove one of them')
    if nodes and settings.replica_count not in (None, len(nodes)):
        raise InvalidSetting(
            f'REPLICA_COUNT="{settings.replica_count}" of {origin} contradicts NODE_LIST="{" ".join(nodes)}", which '
            f"puts a replica on each of its {len(nodes)} nodes: remove one of them"
        )
    return len(nodes) or settings.replica_count


def _group_name(settings: Settings, count: int, wanted: Mapping[str, Any]) -> str:
    digest = _sha256(json.dumps(wanted, sort_keys=True).encode())[:8]
    pool = "".join(
        character if character.isalnum() or character in "-_" else "_" for character in settings.storage_pools[0]
    )
    return f"{settings.prefix}-{pool[:20]}-x{count}-{digest}"


def _sha256(data: bytes) -> str:
    # Python's own, by its names before 3.12 and since, where it is built with it: hashlib loads OpenSSL, which takes
    # ten times as long.
    for module in ("_sha256", "_sha2", "hashlib"):
        with suppress(ImportError):
            return str(importlib.import_module(module).sha256(data).hexdigest())
    raise AssertionError("this Python has no SHA-256")


def in_group(gateway: Gateway, placement: Placement, request: Callable[[], list[Entry]]) -> list[Entry]:
    """Make a request that names the placement's group; make the group first where LINSTOR says that it is missing.

    Raises NotFound for a group that the operator named and LINSTOR does not have.
    """
    try:
        return request()
    except NotFound as error:
        if error.code != NOT_FOUND_RESOURCE_GROUP:
            raise
    if not placement.is_own_group:
        raise NotFound(
            f"LINSTOR has no resource group {placement.group}: create it with `linstor resource-group create "
            f"{placement.group}`, or correct RESOURCE_GROUP"
        )
    _create_group(gateway, placement)
    return request()


def _create_group(gateway: Gateway, placement: Placement) -> None:
    """Make the group of a placement by attributes; that another action just made it is as good."""
    # What holds for all of its volumes, whatever this one wishes: the nodes of one are no others' fate.
    wanted = (placement.otherwise or placement).select_filter
    body = {
        "name": placement.group,
        "description": f"Made by linstor_un for {json.dumps(wanted, sort_keys=True)}"[:200],
        "select_filter": dict(wanted),
    }
    try:
        gateway.create_resource_group(body)
        log.info(f"made resource group {placement.group}")
    except AlreadyExists as error:
        if error.code != EXISTS_RESOURCE_GROUP:
            raise
