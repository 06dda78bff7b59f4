"""status: datastores with what still fits, nodes, volumes with whose they are and where, and their snapshots."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

import click

from linstor_un.cli import completion
from linstor_un.cli import inventory as inventories
from linstor_un.cli.inventory import Inventory, Site, Wanted
from linstor_un.cli.output import Cell, Report, repeatedly, reporting
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools
from linstor_un.cluster.inventory import Placed
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.cluster.volumes import Volume
from linstor_un.driver import configuration_path
from linstor_un.errors import DriverError, NotFound
from linstor_un.naming import BASE_SNAPSHOT, backup_snapshot_of, snapshot_vm_id_of
from linstor_un.settings import read_configuration
from linstor_un.units import KIB_PER_GIB, KIB_PER_MIB

SECTIONS = ("datastores", "nodes", "volumes", "snapshots")
_HELP = """\
Show datastores with what still fits into them, nodes and pools, volumes with whose they are and where, snapshots.

SECTION is one or more of datastores, nodes, volumes and snapshots; all but the last without it. GIVEN is what images
and disks have by OpenNebula, TAKEN what all their replicas take in the pools, and FITS what can still be stored with
the replicas that are asked for. In PLACES a replica is `node`, with `*` where it is primary, `(node)` is a diskless
resource and `[node]` a tie-breaker.

\b
Examples:
  linstor-un status                            everything
  linstor-un status volumes --node node2       what is on node2, or attached there
  linstor-un status volumes --vm 12
  linstor-un status volumes --syncing --watch 5
  linstor-un status datastores --json
"""


class Filter(NamedTuple):
    """Which volumes are shown; what is not set lets all pass."""

    node: str = ""
    datastore: Optional[int] = None
    vm: Optional[int] = None
    image: Optional[int] = None
    only_syncing: bool = False

    def check(self, inventory: Inventory) -> None:
        """Refuse to look for what is not there; raises NotFound."""
        database, sites = inventory.database, inventory.sites
        if self.node and not any(self.node.lower() in site.cluster.nodes for site in sites):
            names = ", ".join(sorted({node.name for site in sites for node in site.cluster.nodes.values()}))
            raise NotFound(f"LINSTOR has no node {self.node}: there are {names or 'none yet'}")
        if self.datastore is not None and self.datastore not in database.datastores:
            names = ", ".join(item.label for item in database.datastores.values())
            raise NotFound(f"Datastore {self.datastore} is not one of linstor_un: there are {names or 'none yet'}")
        if self.vm is not None and self.vm not in database.machines:
            raise NotFound(f"OpenNebula has no VM {self.vm}, or it is done: see `onevm list`")
        if self.image is not None and self.image not in database.images:
            raise NotFound(f"There is no image {self.image} in a datastore of linstor_un: see `oneimage list`")

    def passes(self, wanted: Wanted, placed: Sequence[Placed]) -> bool:
        """Tell whether a volume is one of them."""
        vms = {machine.vm.vm_id for machine in wanted.machines}
        return (
            (not self.node or any(item.node.lower() == self.node.lower() for item in placed))
            and self.datastore in (None, wanted.datastore_id)
            and (self.vm is None or self.vm in vms)
            and (self.image is None or (wanted.image is not None and wanted.image.image_id == self.image))
            and (not self.only_syncing or any(item.is_syncing for item in placed))
        )


class Table(NamedTuple):
    """The rows of one section."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


@click.command(help=_HELP)
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS), metavar="[SECTION]...")
@click.option(
    "--node", type=completion.NODE, default="", metavar="NODE", help="Only what is on this node, or attached there."
)
@click.option(
    "--datastore", type=completion.DATASTORE, metavar="ID", help="Only this datastore, and the volumes in it."
)
@click.option("--vm", type=completion.VM, metavar="ID", help="Only the volumes of this VM.")
@click.option("--image", type=completion.IMAGE, metavar="ID", help="Only the volume of this image.")
@click.option("--syncing", is_flag=True, help="Only volumes that are syncing.")
@click.option("--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Again and again, until Ctrl-C.")
@reporting
def command(
    report: Report,
    sections: tuple[str, ...],
    node: str,
    datastore: Optional[int],
    vm: Optional[int],
    image: Optional[int],
    syncing: bool,
    watch: Optional[float],
) -> None:
    """Show the sections that are asked for."""
    if report.form == "csv" and len(sections) != 1:
        raise click.UsageError("--csv needs one SECTION.")
    chosen = sections or SECTIONS[: len(SECTIONS) if report.form == "json" else -1]
    wanted = Filter(node, datastore, vm, image, syncing)
    repeatedly(report, watch, lambda: look(chosen, wanted), lambda tables: _print(report, tables))


def look(sections: Sequence[str], wanted: Filter) -> dict[str, Table]:
    """Return the sections as they are now."""
    inventory = inventories.read(read_configuration(configuration_path()))
    wanted.check(inventory)
    makers = {"datastores": _datastores, "nodes": _nodes, "volumes": _volumes, "snapshots": _snapshots}
    return {section: makers[section](inventory, wanted) for section in sections}


def _print(report: Report, tables: Mapping[str, Table]) -> None:
    if report.form == "json":
        shown = {name: [dict(zip(table.columns, row)) for row in table.rows] for name, table in tables.items()}
        click.echo(json.dumps(shown, indent=2))
        return
    for number, (name, table) in enumerate(tables.items()):
        if len(tables) > 1:
            report.say(("\n" if number else "") + name.capitalize(), bold=True)
        report.rows(table.columns, table.rows)
        if not table.rows:
            report.say(f"No {name} to show.")


def gib(kib: float) -> float:
    """Return KiB as GiB, for people to read."""
    return round(kib / KIB_PER_GIB, 2)


def _datastores(inventory: Inventory, wanted: Filter) -> Table:
    columns = (
        *("id", "name", "type", "volumes", "given_gib", "taken_gib", "fits_gib", "total_gib"),
        *("replicas", "placement", "clones"),
    )
    rows: list[tuple[Cell, ...]] = []
    for site in inventory.sites:
        volumes = inventory.wanted(site).values()
        for number in sorted(site.datastore_ids):
            if wanted.datastore in (None, number):
                own = [item for item in volumes if item.datastore_id == number]
                rows.append(_datastore(inventory, site, number, own))
    return Table(columns, rows)


def _datastore(inventory: Inventory, site: Site, number: int, own: Sequence[Wanted]) -> tuple[Cell, ...]:
    datastore, settings = inventory.database.datastores[number], inventory.settings[number]
    kind = {"SYSTEM_DS": "system", "IMAGE_DS": "image"}.get(datastore.attributes.get("TYPE", "IMAGE_DS"), "other")
    given = gib(sum(item.size_mib for item in own) * KIB_PER_MIB)
    here = [placed for item in own for placed in site.cluster.placed(item.resource)]
    taken = gib(sum(max(placed.allocated_kib, 0) for placed in here))
    head = (number, datastore.name, kind, len(own), given, taken)
    try:
        placement = placements.of(settings, datastore.label)
        capacity = pools.capacity(site.gateway, placement)
    except DriverError as error:
        return (*head, None, None, None, str(error), settings.clone_mode)
    where = settings.resource_group or " ".join(settings.storage_pools)
    count = placement.replica_count
    if count is None and settings.resource_group.lower() in site.cluster.groups:
        count = site.cluster.groups[settings.resource_group.lower()].place_count
    return (*head, gib(capacity.free_kib), gib(capacity.total_kib), count, where, settings.clone_mode)


def _nodes(inventory: Inventory, wanted: Filter) -> Table:
    columns = (
        "node",
        "state",
        "pool",
        "kind",
        "free_gib",
        "total_gib",
        "used",
        "replicas",
        "attached",
        "primary",
        "vms",
    )
    rows: list[tuple[Cell, ...]] = []
    for site in inventory.sites:
        for key, node in sorted(site.cluster.nodes.items()):
            if wanted.node.lower() in ("", key):
                rows += _node(inventory, site, key, node.name, node.connection)
    return Table(columns, rows)


def _node(inventory: Inventory, site: Site, key: str, name: str, connection: str) -> Iterator[tuple[Cell, ...]]:
    here = [item for placed in site.cluster.resources.values() for item in placed if item.node.lower() == key]
    machines = inventory.database.machines.values()
    vms = sum(machine.is_on_host and machine.host.lower() == key for machine in machines)
    attached = sum(item.replica.is_diskless and not item.replica.is_tie_breaker for item in here)
    primary = sum(bool(item.replica.in_use) for item in here)
    on_node = [pool for pool in site.cluster.pools if pool.node.lower() == key]
    for pool in on_node:
        replicas = sum(not item.replica.is_diskless and item.replica.storage_pool == pool.name for item in here)
        used = f"{round(100 - 100 * pool.free_kib / max(pool.total_kib, 1))}%"
        sizes = (gib(pool.free_kib), gib(pool.total_kib), used)
        yield name, connection, pool.name, pool.provider, *sizes, replicas, attached, primary, vms
    if not on_node:
        yield name, connection, "", "", None, None, "", 0, attached, primary, vms


def _volumes(inventory: Inventory, wanted: Filter) -> Table:
    columns = ("volume", "of", "size_gib", "taken_gib", "places", "state", "snapshots", "datastore")
    rows: list[tuple[Cell, ...]] = []
    for site, item, volume, placed in chosen(inventory, wanted):
        sizes = gib(volume.size_kib), gib(sum(max(part.allocated_kib, 0) for part in placed))
        snapshots = len(site.cluster.snapshots_of(volume.resource))
        rows.append((volume.resource, item.label, *sizes, places(placed), state(placed), snapshots, item.datastore_id))
    return Table(columns, rows)


def chosen(inventory: Inventory, wanted: Filter) -> Iterator[tuple[Site, Wanted, Volume, tuple[Placed, ...]]]:
    """Yield the volumes that OpenNebula knows and that pass, by their names."""
    for site in inventory.sites:
        for key, item in sorted(inventory.wanted(site).items(), key=lambda found: _natural(found[0])):
            volume, placed = site.cluster.volumes.get(key), site.cluster.placed(key)
            if volume is not None and wanted.passes(item, placed):
                yield site, item, volume, placed


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which disk-2 comes before disk-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def places(placed: Sequence[Placed]) -> str:
    """Return where a volume is: `node`, `node*` where primary, `(node)` diskless, `[node]` a tie-breaker."""
    shown = []
    for item in sorted(placed, key=lambda item: (item.replica.is_diskless, item.replica.is_tie_breaker, item.node)):
        name = item.node + ("*" if item.replica.in_use else "")
        if item.replica.is_tie_breaker:
            name = f"[{name}]"
        elif item.replica.is_diskless:
            name = f"({name})"
        shown.append(name)
    return " ".join(shown)


def state(placed: Sequence[Placed]) -> str:
    """Return in one word or two how a volume's replicas are."""
    holders = [item for item in placed if item.replica.holds_data]
    good = sum(item.is_up_to_date for item in holders)
    shares = [item.synced_percent for item in holders if item.synced_percent is not None]
    if shares:
        return f"syncing {min(shares):.0f}%"
    if any(item.is_syncing for item in placed):
        return "syncing"
    if good == len(holders):
        return "up to date" if holders else "no replica"
    return f"{good} of {len(holders)} up to date"


def _snapshots(inventory: Inventory, wanted: Filter) -> Table:
    columns = ("volume", "snapshot", "of", "what", "size_gib", "nodes", "state")
    rows: list[tuple[Cell, ...]] = []
    for site, item, volume, _ in chosen(inventory, wanted):
        for snapshot in sorted(site.cluster.snapshots_of(volume.resource)):
            usable = "usable" if snapshot.is_usable else " ".join(sorted(snapshot.flags)).lower()
            what = _purpose(inventory, item, snapshot)
            size, nodes = gib(snapshot.size_kib), " ".join(snapshot.nodes)
            rows.append((volume.resource, snapshot.name, item.label, what, size, nodes, usable))
    return Table(columns, rows)


def _purpose(inventory: Inventory, wanted: Wanted, snapshot: Snapshot) -> str:
    """Return what a snapshot is: OpenNebula's name of it, or what the driver has it for."""
    names, number = inventory.names, inventory.names.snapshot_id_of(snapshot.name)
    if snapshot.name.lower() == BASE_SNAPSHOT.lower():
        return "VMs' disks are made of it"
    saved_id = names.saved_image_id_of(snapshot.name)
    if saved_id is not None:
        return f"being saved as image {saved_id}"
    vm_id, says = snapshot_vm_id_of(snapshot.name), backup_snapshot_of(snapshot.name)
    if vm_id is not None:
        return f"before a restore of VM {vm_id}" if says is None else f"backup {says.increment_id} of VM {vm_id}"
    known = [item for item in (wanted.image.snapshots if wanted.image else ()) if item.snapshot_id == number]
    for machine in wanted.machines:
        for items in machine.snapshots.values():
            known += [item for item in items if item.snapshot_id == number and number in wanted.known_snapshot_ids]
    return known[-1].name if known else "not OpenNebula's"
