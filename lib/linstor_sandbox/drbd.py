"""DRBD: sizes with its meta-data, who votes, quorum and tie-breakers, two primaries."""

from __future__ import annotations

from typing import Optional

from . import answers, properties
from .answers import Answer
from .model import DISKLESS_POOL, Cluster, Node, Resource, ResourceDefinition, StoragePool, VolumeDefinition

LUKS_HEADER = 16384
"""KiB that cryptsetup's LUKS2 header takes."""


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def metadata_size(gross: int, peers: int) -> int:
    """KiB of internal meta-data on a device of this size (KiB): superblock, activity log, one bitmap per peer."""
    bitmap = _round_up(-(-gross // 32), 8) * peers
    return 36 + _round_up(_round_up(bitmap, 1024) // 1024, 4)


def gross_size(net: int, peers: int) -> int:
    """The smallest device (KiB) that leaves `net` KiB beside the meta-data."""
    gross = net + metadata_size(net, peers)
    while (missing := net - gross + metadata_size(gross, peers)) > 0:
        gross += _round_up(missing, 4)
    return gross


def meta_pool(resource: Resource) -> str:
    """The pool that has DRBD's meta-data apart from the content; empty where they are behind it."""
    definition = resource.definition
    for props in (resource.props, definition.props, definition.group.props, resource.node.props):
        if properties.META_POOL in props:
            name = props[properties.META_POOL]
            return "" if resource.diskless or name == ".internal" else name
    return ""


class Sizes:
    """The sizes of one volume on one replica, in KiB, from the guest's down to the pool's."""

    def __init__(self, resource: Resource, volume: VolumeDefinition) -> None:
        peers = resource.definition.peer_slots
        net = volume.size
        gross_wanted = "GROSS_SIZE" in volume.flags
        drbd = resource.uses_drbd
        luks = LUKS_HEADER if "LUKS" in resource.layers else 0
        inside = drbd and not meta_pool(resource)
        self.drbd_gross = gross_size(net, peers) if inside and not gross_wanted else net
        self.storage = _round_up(self.drbd_gross + (0 if gross_wanted else luks), resource.pool.kind.granularity)
        self.luks_usable = self.storage - luks
        below = self.luks_usable
        self.usable = below - metadata_size(below, peers) if inside else below
        if drbd and properties.is_true(resource.definition.props.get(properties.EXACT_SIZE, "")):
            self.usable = net


def device_size(definition: ResourceDefinition, volume: VolumeDefinition) -> int:
    """Bytes that the DRBD device has on every node: what the smallest replica leaves."""
    sizes = [Sizes(resource, volume).usable for resource in definition.diskful()]
    return (min(sizes) if sizes else volume.size) * 1024


def votes(resource: Resource) -> bool:
    """Whether a resource takes part in DRBD at all."""
    return resource.uses_drbd and not resource.deleting and not resource.inactive


def two_primaries_allowed(cluster: Cluster, definition: ResourceDefinition, first: str, second: str) -> bool:
    """allow-two-primaries for a pair of nodes: connection, definition, group, controller."""
    pair: frozenset[str] = frozenset((first.upper(), second.upper()))
    containers = (definition.connections.get(pair, {}), definition.props, definition.group.props)
    return cluster.prop(containers, properties.ALLOW_TWO_PRIMARIES) == "yes"


def has_quorum(definition: ResourceDefinition) -> bool:
    """Whether the nodes that are up may write (one partition: what is up sees each other)."""
    if definition.props.get(properties.QUORUM) != "majority":
        return True
    diskful = [resource for resource in definition.diskful() if votes(resource)]
    diskless = [
        resource
        for resource in definition.resources
        if resource.diskless and votes(resource) and "DRBD_CLIENT" not in resource.flags
    ]
    up = sum(resource.node.host_up for resource in diskful)
    if 2 * up > len(diskful):
        return True
    return 2 * up == len(diskful) and any(resource.node.host_up for resource in diskless)


def has_data(definition: ResourceDefinition) -> bool:
    """Whether some host that is up has an UpToDate replica."""
    return any(
        resource.node.host_up and resource.state() == "UpToDate"
        for resource in definition.diskful()
        if not resource.inactive
    )


class AutoHelper:
    """What LINSTOR does by itself after each change: tie-breaker, quorum, verify algorithm."""

    def __init__(
        self, cluster: Cluster, definition: ResourceDefinition, answer: Answer, keep_tiebreaker: bool = False
    ) -> None:
        self.cluster = cluster
        self.definition = definition
        self.answer = answer
        self.keep_tiebreaker = keep_tiebreaker
        self.created: list[Resource] = []
        self.removed: list[Resource] = []
        self.taken_over: Optional[Resource] = None

    def _prop(self, key: str, default: str) -> str:
        containers = (self.definition.props, self.definition.group.props)
        return self.cluster.prop(containers, key) or default

    def manage(self) -> None:
        """Do it all, in LINSTOR's order."""
        self._verify_algorithm()
        self._tie_breaker()
        self.quorum()

    def _verify_algorithm(self) -> None:
        definition = self.definition
        if properties.AUTO_VERIFY in definition.props or not any(votes(res) for res in definition.resources):
            return
        definition.props[properties.AUTO_VERIFY] = "sha512"
        self.answer.info(0, f"Updated {definition.name} DRBD auto verify algorithm to 'sha512'")

    def _tie_breaker(self) -> None:
        enabled = properties.is_true(self._prop(properties.AUTO_TIEBREAKER, "False"))
        if not enabled and self.keep_tiebreaker:
            self.definition.props[properties.AUTO_TIEBREAKER] = "True"
            self.answer.info(answers.INFO_PROP_SET, "Autotiebreaker automatically enabled due to --keep-tiebreaker")
            enabled = True
        existing = next((res for res in self.definition.resources if res.tie_breaker), None)
        if enabled and self._wanted():
            self._keep_or_create(existing)
        elif existing and existing.node.online:
            self.answer.info(answers.INFO_TIE_BREAKER_DELETING, "Tie breaker marked for deletion")
            if not existing.deleting:
                self.removed.append(existing)
            existing.flags.add("DELETE")

    def _wanted(self) -> bool:
        """Even number of replicas, two at least, and nobody else to break the tie."""
        if (
            self._prop(properties.QUORUM_SET_BY, "linstor") != "linstor"
            and self._prop(properties.QUORUM, "majority") != "majority"
        ):
            return False
        members = [res for res in self.definition.resources if votes(res)]
        diskful = sum(not res.diskless for res in members)
        others = [
            res
            for res in members
            if res.diskless and not res.tie_breaker and "DRBD_CLIENT" not in res.flags and self._eligible(res.node)
        ]
        return diskful >= 2 and diskful % 2 == 0 and not others

    def _eligible(self, node: Node) -> bool:
        allowed = self.definition.group.filter.node_name_list
        return allowed is None or node.name.upper() in [name.upper() for name in allowed]

    def _keep_or_create(self, existing: Optional[Resource]) -> None:
        if existing is None:
            leaving = sorted(
                (res for res in self.definition.resources if res.deleting and self._eligible(res.node)),
                key=lambda res: not res.diskless,
            )
            if leaving:
                self._take_over(leaving[0])
            else:
                self._create()
        elif "DRBD_DELETE" in existing.flags:
            if self.keep_tiebreaker:
                self._take_over(existing)
            else:
                self._disable()

    def _take_over(self, resource: Resource) -> None:
        resource.flags -= {"DELETE", "DRBD_DELETE", "DRBD_CLIENT"}
        self.taken_over = resource
        self.answer.info(
            answers.INFO_TIE_BREAKER_TAKEOVER,
            "The given resource will not be deleted but will be taken over as a linstor managed tiebreaker resource.",
        )

    def _disable(self) -> None:
        self.definition.props[properties.AUTO_TIEBREAKER] = "False"
        self.answer.info(
            answers.INFO_PROP_SET,
            "Disabling auto-tiebreaker on resource-definition "
            f"'{self.definition.name}' as tiebreaker resource was manually deleted",
        )

    def _create(self) -> None:
        node = self._choose_node()
        if node is None:
            self.answer.warn(
                answers.WARN_NOT_ENOUGH_NODES_FOR_TIE_BREAKER,
                "Could not find suitable node to "
                "automatically create a tie breaking resource for "
                f"'{self.definition.name}'.",
            )
            return
        resource = new_resource(
            self.definition,
            node,
            diskless_pool(node),
            ["DRBD", "STORAGE"],
            {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER"},
        )
        self.answer.add(
            answers.CREATED,
            f"Successfully set property key(s): {properties.STOR_POOL_NAME}",
            op=answers.CREATE,
            obj=answers.RSC,
        )
        self.answer.info(
            answers.INFO_TIE_BREAKER_CREATED, f"Tie breaker resource '{self.definition.name}' created on {node.name}"
        )
        self.created.append(resource)

    def _choose_node(self) -> Optional[Node]:
        """An online node without this resource, the one with the fewest resources first."""
        candidates = [
            node
            for node in self.cluster.nodes
            if node.online
            and "DRBD" in node.layers
            and node.name not in self.definition.resources
            and self._eligible(node)
        ]
        return min(
            candidates,
            default=None,
            key=lambda node: (node.name not in self.cluster.tie_breakers, node.resource_count, node.name),
        )

    def quorum(self) -> None:
        """majority where the votes suffice, off where not; nothing where a user has set it."""
        if self._prop(properties.QUORUM_SET_BY, "linstor") != "linstor":
            return
        members = [
            res
            for res in self.definition.resources
            if res.uses_drbd and not res.flags & {"DELETE", "DRBD_CLIENT"} and not res.inactive
        ]
        diskful = sum(not res.diskless for res in members)
        feasible = diskful >= 3 or (diskful == 2 and len(members) > 2)
        props = self.definition.props
        before = props.get(properties.QUORUM)
        props[properties.QUORUM] = "majority" if feasible else "off"
        prefix = f"Resource-definition property '{properties.QUORUM}'"
        if feasible and before != "majority":
            was = f"'{before}'" if before else "undefined"
            self.answer.info(answers.INFO_PROP_SET, f"{prefix} updated from {was} to 'majority' by AutoQuorum")
        elif not feasible and before not in (None, "off"):
            self.answer.info(
                answers.INFO_PROP_REMOVED, f"{prefix} was removed as there are not enough resources for quorum"
            )


def diskless_pool(node: Node) -> StoragePool:
    """A node's pool for diskless resources."""
    return node.pools[DISKLESS_POOL]


def new_resource(
    definition: ResourceDefinition, node: Node, pool: StoragePool, layers: list[str], flags: Optional[set[str]] = None
) -> Resource:
    """Register a resource with the next free node-id."""
    taken = {resource.node_id for resource in definition.resources}
    node_id = next(number for number in range(64) if number not in taken)
    resource = Resource(definition, node, pool, list(layers), set(flags or ()), node_id=node_id)
    resource.props[properties.STOR_POOL_NAME] = pool.name
    resource.first_sizes = {number: volume.size for number, volume in definition.volumes.items()}
    definition.resources[node.name] = resource
    node.resource_count += 1
    return resource
