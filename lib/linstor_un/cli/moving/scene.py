"""One volume at one moment: where it is, what OpenNebula knows of it, and what the nodes have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from linstor_un.cli import inventory as inventories
from linstor_un.cli.auditing import makers
from linstor_un.cli.inventory import Inventory, Site, Wanted
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools
from linstor_un.cluster.inventory import Placed
from linstor_un.cluster.placement import BALANCE_PROPERTY, Placement
from linstor_un.cluster.survey import Node
from linstor_un.cluster.volumes import Volume
from linstor_un.errors import Busy, DriverError, InvalidInput, NotFound, NotReady
from linstor_un.naming import resource_of
from linstor_un.units import KIB_PER_GIB

# What LINSTOR gives a volume whose group does not say it.
_DEFAULT_PLACE_COUNT = 2


class Scene(NamedTuple):
    """A volume of LINSTOR; `wanted` is what OpenNebula knows of it, None where it knows no such volume."""

    inventory: Inventory
    site: Site
    volume: Volume
    wanted: Optional[Wanted]

    @property
    def resource(self) -> str:
        """Return the volume's name."""
        return self.volume.resource

    @property
    def label(self) -> str:
        """Return whose it is."""
        return self.wanted.label if self.wanted else "not OpenNebula's"

    @property
    def placed(self) -> tuple[Placed, ...]:
        """Return where it is, with disk or without."""
        return self.site.cluster.placed(self.resource)

    @property
    def holders(self) -> list[Placed]:
        """Return its replicas that are there to stay."""
        return [item for item in self.placed if item.replica.holds_data]

    @property
    def good(self) -> list[Placed]:
        """Return its replicas that can be read now."""
        return [item for item in self.holders if self.is_good(item)]

    def is_good(self, item: Placed) -> bool:
        """Tell whether a replica is up to date and its node answers."""
        return item.is_up_to_date and self.site.cluster.is_online(item.node)

    def on(self, node: str) -> Optional[Placed]:
        """Return what there is of it on a node."""
        return next((item for item in self.placed if item.node.lower() == node.lower()), None)

    def vm_on(self, node: str) -> str:
        """Return the label of the VM on a node that has it; empty where there is none."""
        return (self.wanted.hosts if self.wanted else {}).get(node.lower(), "")

    @property
    def layers(self) -> tuple[str, ...]:
        """Return the layers of its replicas, which LINSTOR does not take from its group."""
        return next((item.replica.layers for item in self.holders), ())

    @property
    def select_filter(self) -> dict[str, Any]:
        """Return LINSTOR's filter for its replicas: that of its group, and what its datastore says over it."""
        group = self.site.cluster.groups.get(self.volume.group.lower())
        found = dict(group.select_filter if group else {})
        if found.pop("storage_pool", None) and group is not None:
            found["storage_pool_list"] = list(group.pools)
        placement = self._placement
        if placement is not None and placement.group.lower() == self.volume.group.lower():
            found.update(placement.select_filter)
        return found

    @property
    def _placement(self) -> Optional[Placement]:
        if self.wanted is None or self.wanted.datastore_id not in self.inventory.settings:
            return None
        try:
            return placements.of(self.inventory.settings[self.wanted.datastore_id], "")
        except DriverError:
            return None

    @property
    def balanced_count(self) -> int:
        """Return how many replicas LINSTOR's balancing gives it."""
        count = self.site.cluster.place_count(self.volume)
        return _DEFAULT_PLACE_COUNT if count is None else count

    @property
    def is_balanced(self) -> bool:
        """Tell whether LINSTOR's balancing counts its replicas."""
        return self.site.gateway.balances and self.volume.properties.get(BALANCE_PROPERTY) != "false"

    @property
    def may_be_balanced(self) -> bool:
        """Tell whether the driver leaves its count to LINSTOR's balancing."""
        placement = self._placement
        return placement is not None and not placement.properties

    def without(self, node: str) -> Scene:
        """Return the volume as it would be without what there is of it on a node."""
        return self.placed_at(item for item in self.placed if item.node.lower() != node.lower())

    def with_copy(self, node: str) -> Scene:
        """Return the volume as it would be with all copied that is being copied, and a replica more on a node."""
        there = [
            item._replace(disk_state="UpToDate", is_syncing=False) if item.is_syncing else item for item in self.placed
        ]
        if node:
            first = self.good[0]
            there = [item for item in there if item.node.lower() != node.lower()]
            there.append(first._replace(replica=first.replica._replace(node=node, in_use=False)))
        return self.placed_at(there)

    def placed_at(self, placed: Iterable[Placed]) -> Scene:
        """Return the volume as it would be if these were its places."""
        cluster = self.site.cluster
        resources = {**cluster.resources, self.resource.lower(): tuple(placed)}
        return self._replace(site=self.site._replace(cluster=cluster._replace(resources=resources)))

    def snapshots_missing_on(self, node: str) -> list[str]:
        """Return OpenNebula's snapshots that a new replica on the node does not have."""
        numbers = self.wanted.known_snapshot_ids if self.wanted else frozenset()
        names = self.inventory.names
        return [
            item.name
            for item in self.site.cluster.snapshots_of(self.resource)
            if names.snapshot_id_of(item.name) in numbers and node.lower() not in {at.lower() for at in item.nodes}
        ]


def gib(kib: float) -> str:
    """Return KiB in GiB, for sentences."""
    return f"{kib / KIB_PER_GIB:.2f} GiB"


def plural(count: int, what: str) -> str:
    """Return a number with what it counts."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def of_all(inventory: Inventory, with_others: bool = False) -> Iterator[Scene]:
    """Yield the volumes that OpenNebula knows, and all others where they are asked for."""
    for site in inventory.sites:
        wanted = inventory.wanted(site)
        for key, volume in sorted(site.cluster.volumes.items()):
            if key in wanted or with_others:
                yield Scene(inventory, site, volume, wanted.get(key))


def find(inventory: Inventory, name: str) -> Scene:
    """Return a volume by its name in LINSTOR, or as `image-3` or `vm-12-disk-0` in OpenNebula's numbers.

    Raises NotFound, InvalidInput where two clusters have it, NotReady where it is being deleted.
    """
    found = [
        Scene(inventory, site, site.cluster.volumes[key], wanted.get(key))
        for site in inventory.sites
        for wanted in [inventory.wanted(site)]
        for key in [_resource(inventory, site, wanted, name).lower()]
        if key in site.cluster.volumes
    ]
    known = [scene for scene in found if scene.wanted is not None] or found
    if not known:
        raise NotFound(f"LINSTOR has no volume {name}: `linstor-un status volumes` shows their names")
    if len(known) > 1:
        raise InvalidInput(f"{name} is a volume in {len(known)} clusters: use `linstor --controllers` for one of them")
    if known[0].volume.is_being_deleted:
        raise NotReady(f"{known[0].resource} is being deleted: it goes when all its nodes answer")
    return known[0]


def _resource(inventory: Inventory, site: Site, wanted: Mapping[str, Wanted], name: str) -> str:
    """Return the volume that an operator means."""
    for item in wanted.values():
        if item.image is not None and item.kind == inventories.IMAGE and name == f"image-{item.image.image_id}":
            return item.resource
        for machine in item.machines:
            for disk in machine.disks:
                if name == f"vm-{machine.vm.vm_id}-disk-{disk.disk_id}":
                    own = resource_of(disk.source) if disk.is_image else None
                    return own or inventories.own(inventory, site, machine, disk)
    return name


def again(known: Scene) -> Scene:
    """Return the volume as it is by now; raises NotFound where it is gone, Busy where an action makes it."""
    inventory, site = inventories.again(known.inventory, known.site, known.resource)
    key = known.resource.lower()
    # Where others are matters to whoever must not be beside them.
    others = {name: placed for name, placed in known.site.cluster.resources.items() if name != key}
    cluster = site.cluster._replace(resources={**others, **site.cluster.resources}, pools=tuple(pools.of(site.gateway)))
    site = site._replace(cluster=cluster)
    volume = cluster.volumes.get(key)
    if volume is None or volume.is_being_deleted:
        raise NotFound(f"{known.resource} has been deleted meanwhile: nothing is left to do for it")
    if makers.state(volume.properties.get(inventory.names.incomplete, "")) == makers.ALIVE:
        raise Busy(f"An action fills {volume.resource} now: wait until it has ended and run this again")
    return Scene(inventory, site, volume, inventory.wanted(site).get(key))


def usable_node(site: Site, name: str) -> Node:
    """Return a node that is to get something: raises NotFound and NotReady."""
    node = known_node(site, name)
    if not node.is_online:
        raise NotReady(f"Node {node.name} is {node.connection}: bring its satellite back, or take another node")
    if node.is_leaving:
        raise NotReady(
            f"LINSTOR takes node {node.name} out of use ({', '.join(sorted(node.flags))}): `linstor node restore "
            f"{node.name}` takes that back, or take another node"
        )
    return node


def known_node(site: Site, name: str) -> Node:
    """Return a node by its name; raises NotFound."""
    node = site.cluster.nodes.get(name.lower())
    if node is None:
        names = listed([item.name for item in site.cluster.nodes.values()])
        raise NotFound(f"LINSTOR has no node {name}: there are {names}")
    return node
