"""What is drawn: nodes with their pools and VMs, and volumes with their places."""

from __future__ import annotations

from typing import NamedTuple

from linstor_un.cli import status
from linstor_un.cli.inventory import Inventory
from linstor_un.cli.status import Filter
from linstor_un.cluster.inventory import Placed
from linstor_un.units import KIB_PER_GIB

REPLICA, ATTACHED, TIE_BREAKER = "replica", "attached", "tie-breaker"


class Space(NamedTuple):
    """A storage pool on a node, in GiB."""

    name: str
    kind: str
    free_gib: float
    total_gib: float

    @property
    def used_percent(self) -> int:
        """Return how full it is."""
        return round(100 - 100 * self.free_gib / self.total_gib) if self.total_gib else 100


class Guest(NamedTuple):
    """A VM on a node."""

    vm_id: int
    name: str


class Box(NamedTuple):
    """A node; one that OpenNebula has as a host and LINSTOR does not know is NO NODE."""

    name: str
    state: str
    pools: tuple[Space, ...]
    guests: tuple[Guest, ...]


class Spot(NamedTuple):
    """Where a volume is on one node: `role` is replica, attached or tie-breaker."""

    node: str
    role: str
    is_primary: bool
    is_good: bool


class Drawn(NamedTuple):
    """A volume: `kind` is image, disk or checkpoint, `of` whose it is, `vm_ids` the VMs that have it."""

    name: str
    kind: str
    of: str
    size_gib: float
    state: str
    vm_ids: tuple[int, ...]
    spots: tuple[Spot, ...]


class Picture(NamedTuple):
    """All that is drawn."""

    boxes: tuple[Box, ...]
    volumes: tuple[Drawn, ...]


def of(inventory: Inventory, wanted: Filter) -> Picture:
    """Return the picture of the volumes that pass, and of the nodes that they are on."""
    volumes = tuple(
        Drawn(
            volume.resource,
            item.kind,
            item.label,
            round(volume.size_kib / KIB_PER_GIB, 2),
            status.state(placed),
            tuple(sorted(machine.vm.vm_id for machine in item.machines)),
            tuple(sorted(map(_spot, placed))),
        )
        for _, item, volume, placed in status.chosen(inventory, wanted)
    )
    names = {spot.node.lower() for volume in volumes for spot in volume.spots}
    is_filtered = wanted != Filter()
    return Picture(tuple(box for box in _boxes(inventory) if not is_filtered or box.name.lower() in names), volumes)


def _spot(placed: Placed) -> Spot:
    role = REPLICA
    if placed.replica.is_tie_breaker:
        role = TIE_BREAKER
    elif placed.replica.is_diskless:
        role = ATTACHED
    return Spot(placed.node, role, bool(placed.replica.in_use), role != REPLICA or placed.is_up_to_date)


def _boxes(inventory: Inventory) -> list[Box]:
    guests: dict[str, list[Guest]] = {name.lower(): [] for name in inventory.database.hosts}
    for machine in inventory.database.machines.values():
        if machine.is_on_host:
            guests.setdefault(machine.host.lower(), []).append(Guest(machine.vm.vm_id, machine.name))
    boxes: dict[str, Box] = {}
    for site in inventory.sites:
        for key, node in site.cluster.nodes.items():
            pools = tuple(
                Space(pool.name, pool.provider, status.gib(pool.free_kib), status.gib(pool.total_kib))
                for pool in site.cluster.pools
                if pool.node.lower() == key
            )
            boxes[key] = Box(node.name, node.connection, pools, tuple(sorted(guests.get(key, ()))))
    for name in inventory.database.hosts:
        if name.lower() not in boxes:
            boxes[name.lower()] = Box(name, "NO NODE", (), tuple(sorted(guests[name.lower()])))
    return [box for _, box in sorted(boxes.items())]
