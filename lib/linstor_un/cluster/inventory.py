"""All that one LINSTOR cluster says, in few requests: for the operators' commands, which look at everything at once.

Resources come node by node: LINSTOR builds a list of all in one piece, which takes hundreds of MiB where there are ten
thousand volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from linstor_un.cluster import pools, replicas, snapshots, survey, volumes
from linstor_un.cluster.pools import Pool
from linstor_un.cluster.replicas import Replica
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.cluster.survey import Group, Node
from linstor_un.cluster.volumes import Volume

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway

_IDENTITY = "Cluster/LocalID"
AUTO_TIE_BREAKER = "DrbdOptions/auto-add-quorum-tiebreaker"
_MOST_REQUESTS_FOR_RESOURCES = 8
_SYNCING = frozenset({"SyncSource", "SyncTarget", "PausedSyncS", "PausedSyncT", "VerifyS", "VerifyT"})


class Placed(NamedTuple):
    """A resource on a node and how its volume is there.

    `allocated_kib` is below 0 where LINSTOR does not know it, `synced_percent` None where it is not being synced or
    LINSTOR does not say how far it is.
    """

    replica: Replica
    provider: str
    disk_state: str
    is_syncing: bool
    allocated_kib: int
    properties: Mapping[str, str]
    synced_percent: Optional[float] = None

    @property
    def node(self) -> str:
        """Return the node's name."""
        return self.replica.node

    @property
    def is_up_to_date(self) -> bool:
        """Tell whether it can be read there; without DRBD there is no other copy that could be newer."""
        return self.replica.holds_data and (self.disk_state == "UpToDate" or "DRBD" not in self.replica.layers)


class Cluster(NamedTuple):
    """What there is; all that belongs to a volume is found by its name in lower case."""

    nodes: Mapping[str, Node]
    groups: Mapping[str, Group]
    properties: Mapping[str, str]
    pools: tuple[Pool, ...]
    volumes: Mapping[str, Volume]
    resources: Mapping[str, tuple[Placed, ...]]
    snapshots: Mapping[str, tuple[Snapshot, ...]]

    @property
    def identity(self) -> str:
        """Return what no other cluster has, whichever of its controllers' addresses it is reached by."""
        return self.properties.get(_IDENTITY, "")

    def placed(self, resource: str) -> tuple[Placed, ...]:
        """Return where a volume is."""
        return self.resources.get(resource.lower(), ())

    def snapshots_of(self, resource: str) -> tuple[Snapshot, ...]:
        """Return the snapshots of a volume."""
        return self.snapshots.get(resource.lower(), ())

    def is_online(self, node: str) -> bool:
        """Tell whether a node is there and answers."""
        found = self.nodes.get(node.lower())
        return found is not None and found.is_online

    def wants_tie_breaker(self, volume: Volume) -> bool:
        """Tell whether LINSTOR is to keep tie-breakers, as the cluster and the volume's group have it."""
        group = self.groups.get(volume.group.lower())
        value = (group.properties if group else {}).get(AUTO_TIE_BREAKER) or self.properties.get(AUTO_TIE_BREAKER)
        return (value or "").lower() == "true"

    def place_count(self, volume: Volume) -> Optional[int]:
        """Return how many replicas LINSTOR's balancing gives a volume of this group."""
        group = self.groups.get(volume.group.lower())
        return group.place_count if group else None


def read(gateway: Gateway) -> Cluster:
    """Return all that the cluster says."""
    nodes = survey.nodes(gateway)
    return Cluster(
        nodes={node.name.lower(): node for node in nodes},
        groups=_groups(gateway),
        properties=survey.properties(gateway),
        pools=tuple(pools.of(gateway)),
        volumes={volume.resource.lower(): volume for volume in volumes.of_all(gateway)},
        resources=_resources(gateway, _shares([node.name for node in nodes])),
        snapshots=snapshots.of_all(gateway),
    )


def again(gateway: Gateway, known: Cluster, resources: Sequence[str]) -> Cluster:
    """Return what the cluster says by now of these volumes and of its nodes; nothing of other volumes."""
    found = [volumes.find(gateway, name) for name in resources]
    return known._replace(
        nodes={node.name.lower(): node for node in survey.nodes(gateway)},
        volumes={volume.resource.lower(): volume for volume in found if volume is not None},
        resources=placed(gateway, resources),
        snapshots={name.lower(): tuple(snapshots.of(gateway, name)) for name in resources},
    )


def with_groups(gateway: Gateway, known: Cluster) -> Cluster:
    """Return the cluster with the resource groups that it has by now."""
    return known._replace(groups=_groups(gateway))


def _groups(gateway: Gateway) -> dict[str, Group]:
    return {group.name.lower(): group for group in survey.groups(gateway)}


def placed(gateway: Gateway, names: Sequence[str]) -> dict[str, tuple[Placed, ...]]:
    """Return where these volumes are, by their names in lower case; one request."""
    return _resources(gateway, [[("resources", name) for name in names]]) if names else {}


def _shares(nodes: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Return the queries that ask for the resources of all nodes, one share of the nodes each."""
    size = -(-len(nodes) // _MOST_REQUESTS_FOR_RESOURCES) or 1
    return [[("nodes", name) for name in nodes[start : start + size]] for start in range(0, len(nodes), size)]


def _resources(gateway: Gateway, queries: Iterable[Sequence[tuple[str, str]]]) -> dict[str, tuple[Placed, ...]]:
    found: dict[str, list[Placed]] = {}
    for query in queries:
        for item in gateway.get("Looking for resources", ("view", "resources"), query):
            found.setdefault(item["name"].lower(), []).append(_placed(item))
    return {name: tuple(placed) for name, placed in found.items()}


def _placed(data: Mapping[str, Any]) -> Placed:
    listed = data.get("volumes") or [{}]
    state = listed[0].get("state") or {}
    peers = list((state.get("replication_states") or {}).values())
    done = [float(peer["done_percentage"]) for peer in peers if _is_target(peer) and "done_percentage" in peer]
    return Placed(
        replica=replicas.from_json(data),
        provider=listed[0].get("provider_kind", ""),
        disk_state=state.get("disk_state", ""),
        is_syncing=_is_syncing(state, peers),
        allocated_kib=int(listed[0].get("allocated_size_kib", -1)),
        properties=data.get("props") or {},
        synced_percent=min(done, default=None),
    )


def _is_syncing(state: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether data is copied; controllers before REST 1.25 do not say, and what is behind may be catching up."""
    if "replication_states" not in state:
        return bool(state.get("disk_state") == "Inconsistent")
    return any(peer.get("replication_state") in _SYNCING for peer in peers)


def _is_target(peer: Mapping[str, Any]) -> bool:
    return peer.get("replication_state") in ("SyncTarget", "PausedSyncT")
