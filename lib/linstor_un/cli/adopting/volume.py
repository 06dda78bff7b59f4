"""A LINSTOR volume that is to become an image: whether it can, and registering it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Optional

from linstor_un.actions import new_volume
from linstor_un.cli import inventory as inventories
from linstor_un.cli.inventory import Inventory, Site
from linstor_un.cluster.inventory import Placed
from linstor_un.cluster.volumes import Volume
from linstor_un.errors import AlreadyExists, DriverError, InUse, InvalidInput, NotFound, NotReady
from linstor_un.naming import add_ons_image_id_of, is_resource_name, resource_of
from linstor_un.opennebula import changes, pools
from linstor_un.opennebula.pools import Image
from linstor_un.units import KIB_PER_MIB


class Candidate(NamedTuple):
    """A volume that can become an image of a datastore; `image` is the one that it is already."""

    inventory: Inventory
    site: Site
    datastore_id: int
    volume: Volume
    placed: tuple[Placed, ...]
    image: Optional[Image] = None

    @property
    def size_mib(self) -> int:
        """Return the volume's size, in whole MiB that hold all of it."""
        return -(-self.volume.size_kib // KIB_PER_MIB)

    @property
    def device(self) -> str:
        """Return the path of its device on any host that has it."""
        return new_volume.device_among([item.replica for item in self.placed], self.volume.resource)


def look(configuration: Mapping[str, str], resource: str, datastore_id: int, name: str) -> Candidate:
    """Return the volume if it can become this image; raises a DriverError with why it cannot."""
    found = inventories.of(pools.read(), configuration)
    site = next((site for site in found.sites if datastore_id in site.datastore_ids), None)
    if site is None or found.database.datastores[datastore_id].attributes.get("TYPE", "IMAGE_DS") != "IMAGE_DS":
        raise NotFound(f"Datastore {datastore_id} is no image datastore of linstor_un: see `onedatastore list`")
    volume = site.cluster.volumes.get(resource.lower())
    if volume is None or not is_resource_name(resource):
        raise NotFound(f"LINSTOR has no resource {resource[:60]!r}: see `linstor resource-definition list`")
    placed = site.cluster.placed(resource)
    candidate = Candidate(found, site, datastore_id, volume, placed, _image(found, volume, datastore_id, name))
    if candidate.image is None:
        _check_owner(candidate)
        _check_volume(candidate)
        _check_replicas(candidate)
    return candidate


def _image(found: Inventory, volume: Volume, datastore_id: int, name: str) -> Optional[Image]:
    """Return the image that the volume is already, where it is the one that is asked for."""
    for image in found.database.images.values():
        if (resource_of(image.source) or "").lower() == volume.resource.lower():
            if (image.name, image.datastore_id) == (name, datastore_id):
                return image
            raise AlreadyExists(f"{volume.resource} is {image.label} already: use that image, or delete it first")
    return None


def _check_owner(candidate: Candidate) -> None:
    names, volume, database = candidate.inventory.names, candidate.volume, candidate.inventory.database
    resource = volume.resource
    if candidate.inventory.is_wanted_anywhere(resource):
        raise AlreadyExists(f"{resource} is the disk of a VM: save it as an image with `onevm disk-saveas`")
    if names.is_foreign(volume.properties):
        raise AlreadyExists(f"{resource} says that it belongs to another OpenNebula: adopt another volume")
    by_name = {names.image_id_of(resource), names.passing_image_id_of(resource), add_ons_image_id_of(resource)}
    by_name |= {names.vm_id_of(names.first_name(resource)), names.backup_copy_vm_id_of(resource)}
    if by_name != {None}:
        raise AlreadyExists(
            f"{resource} has a name that drivers give to what they make: adopt a volume of another name"
        )
    image_id = volume.properties.get(names.image_id, "")
    is_left_over = image_id.isdigit() and int(image_id) not in database.images
    others = (names.vm_id, names.incomplete, names.run)
    if (image_id and not is_left_over) or any(key in volume.properties for key in others):
        raise AlreadyExists(
            f"{resource} says that it belongs to something else: look at `linstor resource-definition list-properties "
            f"{resource}`"
        )


def _check_volume(candidate: Candidate) -> None:
    resource = candidate.volume.resource
    if candidate.volume.is_being_deleted:
        raise NotReady(f"{resource} is being deleted: adopt another volume")
    path = ("resource-definitions", resource, "volume-definitions")
    volumes = candidate.site.gateway.get(f"Looking at {resource}", path)
    if len(volumes) != 1 or volumes[0].get("volume_number", 0) != 0:
        raise InvalidInput(f"{resource} has {len(volumes)} volumes, and an image is one: copy what is needed of it")
    smallest = min((item.replica.usable_size_kib for item in candidate.placed if item.replica.holds_data), default=0)
    if candidate.size_mib * KIB_PER_MIB > smallest > 0:
        raise InvalidInput(
            f"{resource} has {candidate.volume.size_kib} KiB, and images have whole MiB: grow it with `linstor "
            f"volume-definition set-size {resource} 0 {candidate.size_mib}MiB`"
        )


def _check_replicas(candidate: Candidate) -> None:
    resource = candidate.volume.resource
    users = sorted(item.node for item in candidate.placed if item.replica.in_use)
    if users:
        raise InUse(f"{resource} is open on {', '.join(users)}: stop what uses it there")
    holders = [item for item in candidate.placed if item.replica.holds_data]
    if not any(item.is_up_to_date for item in holders):
        raise NotReady(f"{resource} has no replica that is up to date: see `linstor resource list -r {resource}`")
    away = sorted(item.node for item in candidate.placed if not item.replica.is_online)
    if away:
        raise NotReady(f"Whether {resource} is open on {', '.join(away)} cannot be seen: bring the node back")


def template(candidate: Candidate, name: str, kind: str, persistent: bool) -> dict[str, str]:
    """Return the template of the image."""
    return {
        "NAME": name,
        "TYPE": kind,
        "SOURCE": candidate.device,
        "FORMAT": "raw",
        "SIZE": str(candidate.size_mib),
        "PERSISTENT": "YES" if persistent else "NO",
    }


def register(candidate: Candidate, wanted: Mapping[str, str]) -> int:
    """Make the image, let the volume say whose it is, and return the image's id."""
    number = changes.allocate_image(wanted, candidate.datastore_id)
    resource = candidate.volume.resource
    try:
        candidate.site.gateway.modify_resource_definition(resource, candidate.inventory.names.image_properties(number))
    except DriverError as error:
        raise NotReady(f"{resource} is image {number} and does not say so yet: {error}") from None
    return number
