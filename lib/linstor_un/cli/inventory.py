"""What there should be, as oned's database says, beside what LINSTOR has: the ground of `audit`, `status` and `map`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

from linstor_un import settings as settings_room
from linstor_un.actions import checkpoint, own_volume
from linstor_un.cluster import inventory as clusters
from linstor_un.cluster import placement as placements
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.inventory import Cluster
from linstor_un.errors import DriverError, InvalidSetting
from linstor_un.naming import Names, add_ons_image_id_of, resource_of, snapshot_vm_id_of
from linstor_un.opennebula import pools
from linstor_un.opennebula.model import Datastore, Disk
from linstor_un.opennebula.pools import Database, Image, KnownSnapshot, Machine
from linstor_un.settings import Settings

IMAGE, DISK, CHECKPOINT = "image", "disk", "checkpoint"


class Wanted(NamedTuple):
    """A volume that oned's database speaks of.

    `label` is whose it is; `owner` the properties by which it should say so; `hosts` the labels of the VMs that have
    it, by their host in lower case; `snapshot_ids` are those that it must have, `known_snapshot_ids` those that it may.
    `is_settled` where no action works on what it belongs to, `is_required` where the volume must be there.
    """

    resource: str
    kind: str
    label: str
    datastore_id: int
    size_mib: int
    owner: Mapping[str, str]
    hosts: Mapping[str, str]
    snapshot_ids: frozenset[int]
    known_snapshot_ids: frozenset[int]
    replica_count: Optional[int]
    is_settled: bool
    is_required: bool
    image: Optional[Image] = None
    machines: tuple[Machine, ...] = ()
    is_writable: bool = True
    is_shared: bool = False


class Site(NamedTuple):
    """One LINSTOR cluster, what it says, and the datastores that are on it."""

    gateway: Gateway
    cluster: Cluster
    datastore_ids: frozenset[int]


class Inventory(NamedTuple):
    """Everything at one moment; `settings` are those of each datastore, `common` those of linstor_un.conf alone."""

    database: Database
    settings: Mapping[int, Settings]
    common: Settings
    sites: tuple[Site, ...]

    @property
    def names(self) -> Names:
        """Return the names that this OpenNebula gives in LINSTOR."""
        return self.common.names

    def is_wanted_anywhere(self, resource: str) -> bool:
        """Tell whether oned's database speaks of a volume of this name, on whichever cluster."""
        return any(resource.lower() in self.wanted(site) for site in self.sites)

    def wanted(self, site: Site) -> dict[str, Wanted]:
        """Return the volumes that oned's database speaks of on this cluster, by their names in lower case."""
        return {item.resource.lower(): item for item in _merged(_wanted(self, site))}


def read(configuration: Mapping[str, str]) -> Inventory:
    """Ask oned and every LINSTOR cluster that a datastore names.

    Argument: `configuration` from settings.read_configuration. Raises OnedUnreachable, ControllerUnreachable and
    InvalidSetting.
    """
    return of(pools.read(), configuration)


def of(database: Database, configuration: Mapping[str, str]) -> Inventory:
    """Ask every LINSTOR cluster that a datastore of this database names; raises as `read`."""
    settings = _settings(configuration, database.datastores)
    sites: dict[object, Site] = {}
    for numbers, gateway in _gateways(settings):
        cluster = clusters.read(gateway)
        # Datastores may name the controllers of one cluster in different ways.
        key = cluster.identity or tuple(numbers)
        before = sites[key].datastore_ids if key in sites else frozenset()
        sites[key] = Site(gateway, cluster, before | frozenset(numbers))
    common = settings_room.from_configuration(configuration)
    return Inventory(database, settings, common, tuple(sites.values()))


def again(known: Inventory, site: Site, resource: str) -> tuple[Inventory, Site]:
    """Return what is said by now of one volume and of whom it belongs to, and of nothing else."""
    wanted = known.wanted(site).get(resource.lower())
    names = known.names
    image_ids = {names.image_id_of(resource), names.passing_image_id_of(resource), _image_id(wanted)}
    taken = [item.name for item in site.cluster.snapshots_of(resource)]
    image_ids |= {names.saved_image_id_of(name) for name in taken}
    vm_ids = {names.vm_id_of(resource), *(item.vm.vm_id for item in (wanted.machines if wanted else ()))}
    vm_ids |= {snapshot_vm_id_of(name) for name in taken}
    # What nobody wants may have become anybody's.
    database = pools.again(known.database, _numbers(image_ids), _numbers(vm_ids)) if wanted else pools.read()
    there = site._replace(cluster=clusters.again(site.gateway, site.cluster, [resource]))
    return known._replace(database=database, sites=(there,)), there


def _image_id(wanted: Optional[Wanted]) -> Optional[int]:
    return wanted.image.image_id if wanted is not None and wanted.image is not None else None


def _numbers(identifiers: set[Optional[int]]) -> list[int]:
    return sorted(number for number in identifiers if number is not None)


def gateways(configuration: Mapping[str, str], datastores: Mapping[int, Datastore]) -> Iterator[Gateway]:
    """Yield the ways to the LINSTOR clusters of these datastores; raises InvalidSetting."""
    yield from (gateway for _, gateway in _gateways(_settings(configuration, datastores)))


def _settings(configuration: Mapping[str, str], datastores: Mapping[int, Datastore]) -> dict[int, Settings]:
    return {
        number: settings_room.for_datastore(configuration, datastore.attributes, datastore.label)
        for number, datastore in datastores.items()
    }


def _gateways(settings: Mapping[int, Settings]) -> Iterator[tuple[list[int], Gateway]]:
    for numbers in _by_address(settings):
        # A person waits: that no controller answers is said at once.
        yield numbers, Gateway(settings[numbers[0]]._replace(failover_timeout_seconds=0))


def _by_address(settings: Mapping[int, Settings]) -> list[list[int]]:
    found: dict[tuple[object, ...], list[int]] = {}
    for number, item in sorted(settings.items()):
        key = item.controllers, item.certificate_file, item.key_file, item.ca_file, item.token, item.token_file
        found.setdefault(key, []).append(number)
    return list(found.values())


def _wanted(inventory: Inventory, site: Site) -> Iterator[Wanted]:
    for image in inventory.database.images.values():
        resource = resource_of(image.source) if image.source else None
        if resource is not None and image.datastore_id in site.datastore_ids:
            yield _of_image(inventory, image, resource)
    for machine in inventory.database.machines.values():
        if not machine.has_disks:
            continue
        for disk in machine.disks:
            number = datastore_of(inventory, machine, disk)
            resource = resource_of(disk.source) if disk.is_image else own(inventory, site, machine, disk)
            # An image's volume is where its image is, too.
            numbers = {number, disk.datastore_id} if disk.is_image else {number}
            if resource is not None and numbers & site.datastore_ids:
                yield _of_disk(inventory, machine, disk, resource, number)
        if machine.datastore_id in site.datastore_ids and (machine.is_saved or not machine.is_settled):
            yield _of_memory(inventory, site, machine)


def own(inventory: Inventory, site: Site, machine: Machine, disk: Disk) -> str:
    """Return the volume of a VM's own disk, as transfer actions choose it."""
    adopted = [own_volume.adopted_name(machine.vm.vm_id, disk)] if disk.is_adopted else []
    return _current(inventory, site, inventory.names.disk(machine.vm.vm_id, disk.disk_id), *adopted)


def _current(inventory: Inventory, site: Site, resource: str, *adopted: str) -> str:
    """Return the first of the names that a VM's own volume may have under which one is there to stay."""
    names = (*inventory.names.successors(resource), *adopted)
    found = (site.cluster.volumes.get(name.lower()) for name in names)
    return next((volume.resource for volume in found if volume is not None and not volume.is_being_deleted), resource)


def datastore_of(inventory: Inventory, machine: Machine, disk: Disk) -> int:
    """Return the datastore whose attributes hold for a VM's disk, as transfer actions choose it."""
    is_ours = machine.datastore_id in inventory.database.datastores
    return machine.datastore_id if is_ours else disk.datastore_id


def _of_image(inventory: Inventory, image: Image, resource: str) -> Wanted:
    names = inventory.names
    is_named = image.image_id in (names.image_id_of(resource), add_ons_image_id_of(resource))
    registration = {names.registration: str(image.registered)}
    ids = _ids(image.snapshots)
    return Wanted(
        resource=resource,
        kind=IMAGE,
        label=image.label,
        datastore_id=image.datastore_id,
        size_mib=image.size_mib,
        owner={**names.image_properties(image.image_id), **registration} if is_named else {},
        hosts={},
        snapshot_ids=ids,
        known_snapshot_ids=ids,
        replica_count=_replica_count(inventory.settings[image.datastore_id]),
        is_settled=image.is_settled,
        is_required=image.is_usable,
        image=image,
    )


def _of_disk(inventory: Inventory, machine: Machine, disk: Disk, resource: str, datastore_id: int) -> Wanted:
    ids = _ids(machine.snapshots.get(disk.disk_id, ()))
    owner = inventory.names.disk_properties(machine.vm.vm_id, disk.disk_id, machine.datastore_id)
    image = inventory.database.images.get(disk.image_id) if disk.image_id is not None and disk.is_image else None
    return Wanted(
        resource=resource,
        kind=IMAGE if disk.is_image else DISK,
        label=f"disk {disk.disk_id} of {machine.label}",
        datastore_id=datastore_id,
        size_mib=disk.size_mib,
        owner={} if disk.is_image else owner,
        hosts={machine.host.lower(): machine.label} if machine.is_on_host else {},
        snapshot_ids=ids,
        known_snapshot_ids=ids,
        replica_count=None if disk.is_image else _replica_count(inventory.settings[datastore_id]),
        is_settled=machine.is_settled,
        is_required=not machine.has_failed,
        image=image,
        machines=(machine,),
        is_writable=disk.is_writable,
        is_shared=disk.is_shared,
    )


def _of_memory(inventory: Inventory, site: Site, machine: Machine) -> Wanted:
    settings = inventory.settings[machine.datastore_id]
    try:
        count = _replica_count(checkpoint.replicated(settings))
    except InvalidSetting:
        count = None
    return Wanted(
        resource=_current(inventory, site, inventory.names.checkpoint(machine.vm.vm_id)),
        kind=CHECKPOINT,
        label=f"the memory of {machine.label}",
        datastore_id=machine.datastore_id,
        size_mib=0,
        owner={inventory.names.vm_id: str(machine.vm.vm_id)},
        hosts={},
        snapshot_ids=frozenset(),
        known_snapshot_ids=frozenset(),
        replica_count=count,
        is_settled=machine.is_settled,
        # OpenNebula's own `save` keeps it in a file.
        is_required=False,
        machines=(machine,),
    )


def _ids(snapshots: Sequence[KnownSnapshot]) -> frozenset[int]:
    return frozenset(item.snapshot_id for item in snapshots)


def _replica_count(settings: Settings) -> Optional[int]:
    """Return how many replicas the attributes ask for, or None where they leave it to a group or make no sense."""
    try:
        return placements.of(settings, "").replica_count
    except DriverError:
        return None


def _merged(found: Iterator[Wanted]) -> Iterator[Wanted]:
    """Make one of an image and of the disks that are its volume, whose VM keeps the list of snapshots meanwhile."""
    together: dict[str, Wanted] = {}
    for item in found:
        first = together.get(item.resource.lower())
        together[item.resource.lower()] = item if first is None else _joined(first, item)
    yield from together.values()


def _joined(first: Wanted, item: Wanted) -> Wanted:
    return first._replace(
        hosts={**first.hosts, **item.hosts},
        snapshot_ids=item.snapshot_ids or first.snapshot_ids,
        known_snapshot_ids=first.known_snapshot_ids | item.known_snapshot_ids,
        is_settled=first.is_settled and item.is_settled,
        machines=first.machines + item.machines,
        is_writable=item.is_writable,
        is_shared=item.is_shared,
    )
