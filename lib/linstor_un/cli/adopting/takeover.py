"""What is there of LINBIT's add-on, what has to change for this driver to have it, and why it may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from linstor_un.cli import inventory as inventories
from linstor_un.cli.adopting import attributes
from linstor_un.cli.installation import oned_conf
from linstor_un.cli.inventory import CHECKPOINT, DISK, IMAGE, Inventory, Site, Wanted
from linstor_un.cluster.volumes import Volume
from linstor_un.errors import DriverError, NotFound
from linstor_un.naming import ADD_ON, BASE_SNAPSHOT, add_ons_image_id_of
from linstor_un.opennebula import pools, survey
from linstor_un.opennebula.pools import Machine
from linstor_un.opennebula.survey import Store

DRIVER = oned_conf.DRIVER


class Mark(NamedTuple):
    """A volume of the add-on, and the properties by which it says whose it is."""

    site: Site
    volume: Volume
    wanted: Wanted

    @property
    def missing(self) -> dict[str, str]:
        """Return what it does not say yet."""
        said = self.volume.properties
        return {key: value for key, value in self.wanted.owner.items() if said.get(key) != value}

    @property
    def said(self) -> list[str]:
        """Return the properties that it has since it was adopted."""
        return [key for key in self.wanted.owner if key in self.volume.properties]

    @property
    def base(self) -> bool:
        """Tell whether this driver keeps a snapshot of it for VMs' disks."""
        names = {item.name.lower() for item in self.site.cluster.snapshots_of(self.volume.resource)}
        return BASE_SNAPSHOT.lower() in names


class Takeover(NamedTuple):
    """The datastores in question, with all that oned and LINSTOR say of what is in them.

    `pending` are still the add-on's and `adopted` were; `inventory` is read as if all were this driver's.
    """

    pending: tuple[Store, ...]
    adopted: tuple[Store, ...]
    inventory: Inventory
    system_disk_type: str

    @property
    def identifiers(self) -> frozenset[int]:
        """Return the ids of all of them."""
        return frozenset(store.datastore.datastore_id for store in (*self.pending, *self.adopted))

    def marks(self) -> Iterator[Mark]:
        """Yield the volumes of the add-on that are there, by their names."""
        for site, wanted in self.wanted():
            volume = site.cluster.volumes.get(wanted.resource.lower())
            if volume is not None and is_add_ons(self.inventory, wanted):
                yield Mark(site, volume, wanted)

    def wanted(self) -> Iterator[tuple[Site, Wanted]]:
        """Yield what oned has in these datastores."""
        for site in self.inventory.sites:
            for _, wanted in sorted(self.inventory.wanted(site).items()):
                if self._is_in(wanted):
                    yield site, wanted

    def _is_in(self, wanted: Wanted) -> bool:
        image = wanted.image
        return wanted.datastore_id in self.identifiers or (image is not None and image.datastore_id in self.identifiers)

    def machines(self) -> list[Machine]:
        """Return the VMs that have a disk or their directory in these datastores."""
        return [
            machine
            for machine in self.inventory.database.machines.values()
            if machine.datastore_id in self.identifiers
            or any(disk.datastore_id in self.identifiers for disk in machine.disks)
        ]


def is_add_ons(inventory: Inventory, wanted: Wanted) -> bool:
    """Tell whether a volume has the name that the add-on gives to what it is."""
    if wanted.kind == IMAGE:
        return add_ons_image_id_of(wanted.resource) is not None and bool(wanted.owner)
    is_disk = wanted.kind == DISK
    return is_disk and inventory.names.first_name(wanted.resource).lower() != wanted.resource.lower()


def read(configuration: Mapping[str, str], identifiers: Sequence[int]) -> Takeover:
    """Ask oned and LINSTOR; the add-on's system datastores are taken with its image datastores.

    Raises NotFound for a datastore that never was the add-on's.
    """
    stores = survey.of_drivers(ADD_ON, DRIVER)
    pending = tuple(store for store in stores if store.datastore.transfer_driver == ADD_ON)
    taken = tuple(store for store in stores if attributes.is_adopted(store))
    known = {store.datastore.datastore_id for store in (*pending, *taken)}
    for number in identifiers:
        if number not in known:
            raise NotFound(f"Datastore {number} is not one of LINBIT's add-on: see TM_MAD in `onedatastore list`")
    left = [store for store in (*pending, *taken) if not _is_named(store, identifiers)]
    if left:
        others = " ".join(str(store.datastore.datastore_id) for store in left)
        raise NotFound(
            f"{', '.join(store.datastore.label for store in left)} of the add-on must go with it, since all have the "
            f"same transfer scripts: name {others} too"
        )
    kind = survey.system_disk_type()
    return Takeover(pending, taken, _as_ours(configuration, pending, kind), kind)


def _is_named(store: Store, identifiers: Sequence[int]) -> bool:
    return store.is_system or store.datastore.datastore_id in identifiers


def _as_ours(configuration: Mapping[str, str], pending: Sequence[Store], system_disk_type: str) -> Inventory:
    """Return what there is as it would be if these datastores were this driver's."""
    database = pools.read((ADD_ON, DRIVER))
    own = {
        store.datastore.datastore_id: store.datastore._replace(
            transfer_driver=DRIVER, attributes=attributes.adopted(store, system_disk_type)
        )
        for store in pending
    }
    return inventories.of(database._replace(datastores={**database.datastores, **own}), configuration)


def objections(takeover: Takeover) -> Iterator[str]:
    """Yield why the datastores cannot be adopted now: a sentence each, with what to do."""
    try:
        if oned_conf.stanza_of_driver(survey.configuration(), "TM_MAD_CONF") is None:
            yield "oned does not know this driver: run `linstor-un install` and restart it"
    except DriverError as error:
        yield str(error)
    for machine in takeover.machines():
        yield from _of_machine(takeover, machine)
    yield from _of_images(takeover)
    for site, wanted in takeover.wanted():
        yield from _of_volume(takeover, site, wanted)


def _is_unsettled(machine: Machine) -> bool:
    return not machine.is_settled or machine.has_failed


def _unsettled(machine: Machine) -> str:
    return f"An action works on {machine.label}, or has failed: wait for its end, or recover the VM"


def _of_machine(takeover: Takeover, machine: Machine) -> Iterator[str]:
    if _is_unsettled(machine):
        yield _unsettled(machine)
    elif machine.is_on_host and machine.datastore_id not in takeover.identifiers:
        yield (
            f"{machine.label} lies in system datastore {machine.datastore_id} of another driver, in which VMs are not "
            "adopted: `onevm undeploy` it, and `onevm deploy` it in a system datastore of the add-on"
        )


def _of_images(takeover: Takeover) -> Iterator[str]:
    for image in takeover.inventory.database.images.values():
        if image.datastore_id not in takeover.identifiers or not image.source:
            continue
        if not image.is_settled:
            yield f"An action works on {image.label}: wait for its end"
        if image.format.lower() not in ("", "raw"):
            yield (
                f"{image.label} has FORMAT {image.format}, and volumes of this driver are raw: make a raw image of it, "
                "and VMs of that, before"
            )


def _of_volume(takeover: Takeover, site: Site, wanted: Wanted) -> Iterator[str]:
    volume = site.cluster.volumes.get(wanted.resource.lower())
    if volume is None:
        if wanted.is_required and wanted.kind != CHECKPOINT:
            yield (
                f"LINSTOR has no volume {wanted.resource} of {wanted.label}: resume and power off a VM that is stopped "
                "or undeployed, whose disks the add-on may have copied to the front-end; delete what is lost"
            )
        return
    names = takeover.inventory.names
    owner = {key for key in volume.properties if names.is_owner_key(key)}
    contradicts = any(volume.properties[key] != wanted.owner.get(key) for key in owner & wanted.owner.keys())
    if is_add_ons(takeover.inventory, wanted) and (names.is_foreign(volume.properties) or contradicts):
        yield (
            f"{volume.resource} of {wanted.label} says that it belongs to something else: look at `linstor "
            f"resource-definition list-properties {volume.resource}`"
        )


def objections_to_undo(takeover: Takeover) -> Iterator[str]:
    """Yield what the add-on would not find its way with: what was made since, a sentence each."""
    for machine in takeover.machines():
        if _is_unsettled(machine):
            yield _unsettled(machine)
        new = [str(disk.disk_id) for disk in machine.disks if not disk.is_adopted]
        if new:
            yield f"{machine.label} has got disk {', '.join(new)} since: terminate it, or detach the disk"
    for image in takeover.inventory.database.images.values():
        if image.datastore_id in takeover.identifiers and image.source and add_ons_image_id_of(image.source) is None:
            yield f"{image.label} was made since: delete it, or move it to another datastore"
    for site, wanted in takeover.wanted():
        is_there = wanted.resource.lower() in site.cluster.volumes
        if is_there and wanted.kind == CHECKPOINT:
            yield f"{wanted.resource} keeps {wanted.label}: resume the VM"
        elif is_there and wanted.kind == DISK and not is_add_ons(takeover.inventory, wanted):
            yield f"{wanted.resource} of {wanted.label} was made since: terminate the VM"
