"""Every name and property key that the driver gives to anything, and how to read it back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, Optional

from linstor_un.errors import InvalidInput

# Patterns are text, here and wherever an action imports them: to compile them all takes each action 3 ms.
_BY_RESOURCE = r"/dev/drbd/by-res/([^/]+)/0"
_RESOURCE = r"(?=.*[A-Za-z])[A-Za-z_][A-Za-z0-9_-]{1,47}"
_BACKING_DEVICE = r"/dev/(?:(?!\.\.?/)[\w.+-]+/)+(?:Linstor-Crypt-)?([^/]+)_00000(?:\.img)?"

_OWNER_KEY = r"Aux/([^/]+)/(?:VM_ID|DISK_ID|DS_ID|IMAGE_ID|REGTIME|INCOMPLETE|MADE_BY)"

# What a VM's own volume is: the clone of an image or a volatile disk, or the VM's memory.
_OWN = r"(?:disk-\d+|checkpoint)"
_LONGEST_SUCCESSION = 4
_SUCCESSOR = rf"(?:-[2-{_LONGEST_SUCCESSION}])?"

# The volumes of LINBIT's add-on that were adopted keep their names, since LINSTOR renames nothing: images, and VMs'
# disks, whose names end with the VM and the disk.
ADD_ON = "linstor"
_ADD_ONS_IMAGE = r"OpenNebula-Image-(\d+)"
_ADD_ONS_DISK = r"OpenNebula-(?:Image-\d+|Volatile)-vm(\d+)-disk(\d+)"

_BACKUP = r"backup-(\d+)-(\d+)-(\d+)-(\d+)"

# One kept snapshot per image from which VM disks are restored.
BASE_SNAPSHOT = "linstor_un-base"


class BackupSnapshot(NamedTuple):
    """What the name of a backup's snapshot says: whose it is, which increment, when it was taken, how large the disk.

    `taken` is in seconds since the epoch: oned's own record of its increments tells by it which of them this is.
    """

    vm_id: int
    increment_id: int
    taken: int
    size_mib: int

    @property
    def name(self) -> str:
        """Return the snapshot's name in LINSTOR."""
        return f"backup-{self.vm_id}-{self.increment_id}-{self.taken}-{self.size_mib}"


class Names(NamedTuple):
    """The names in LINSTOR of one OpenNebula, told apart from another's by `prefix`."""

    prefix: str = "one"

    def image(self, image_id: int) -> str:
        """Return the resource definition of an image."""
        return f"{self.prefix}-image-{image_id}"

    def image_id_of(self, resource: str) -> Optional[int]:
        """Return the image whose volume has this name, or None where it is no image's of ours."""
        match = re.fullmatch(rf"{re.escape(self.prefix)}-image-(\d+)", resource, re.IGNORECASE)
        return int(match.group(1)) if match else None

    def vm_id_of(self, resource: str) -> Optional[int]:
        """Return the VM whose disk or checkpoint has this name, or None where it is no VM's of ours."""
        match = re.fullmatch(rf"{re.escape(self.prefix)}-vm-(\d+)-{_OWN}{_SUCCESSOR}", resource, re.IGNORECASE)
        return int(match.group(1)) if match else None

    def disk(self, vm_id: int, disk_id: int) -> str:
        """Return the resource definition of a VM's own disk: a clone, a volatile disk or swap."""
        return f"{self.prefix}-vm-{vm_id}-disk-{disk_id}"

    def passing(self, image: str) -> str:
        """Return the volume that a snapshot needs for as long as it is copied to this image's."""
        return f"{image}-saved"

    def passing_image_id_of(self, resource: str) -> Optional[int]:
        """Return the image for which a volume of this name passes a snapshot on, or None where it is no such volume."""
        match = re.fullmatch(r"(.+)-saved", resource, re.IGNORECASE)
        return self.image_id_of(match.group(1)) if match else None

    def save_as(self, image: str) -> str:
        """Return the snapshot of a VM's disk that is saved as this image's volume, for as long as that takes."""
        return f"save-as-{image}"[:48]

    def saved_image_id_of(self, snapshot: str) -> Optional[int]:
        """Return the image for which a snapshot of this name was taken, or None where it was not taken to be saved."""
        match = re.fullmatch(r"save-as-(.+)", snapshot, re.IGNORECASE)
        return self.image_id_of(match.group(1)) if match else None

    def backup(self, vm_id: int) -> str:
        """Return the name under which what a VM's backups change is locked."""
        return f"{self.prefix}-vm-{vm_id}-backup"

    def backup_copy(self, vm_id: int, disk_id: int) -> str:
        """Return the volume that a snapshot of a VM's disk needs for as long as a backup reads it."""
        return f"{self.disk(vm_id, disk_id)}-backup"

    def older_backup_copy(self, vm_id: int, disk_id: int) -> str:
        """Return the volume that the earlier snapshot needs for as long as a backup compares the two."""
        return f"{self.disk(vm_id, disk_id)}-earlier"

    def backup_copy_vm_id_of(self, resource: str) -> Optional[int]:
        """Return the VM whose backup reads a volume of this name, or None where it is no such volume."""
        pattern = rf"{re.escape(self.prefix)}-vm-(\d+)-disk-\d+-(?:backup|earlier)"
        match = re.fullmatch(pattern, resource, re.IGNORECASE)
        return int(match.group(1)) if match else None

    def checkpoint(self, vm_id: int) -> str:
        """Return the resource definition that holds the memory of a suspended VM."""
        return f"{self.prefix}-vm-{vm_id}-checkpoint"

    def snapshot(self, snapshot_id: int, resource: str) -> str:
        """Return the name of OpenNebula's snapshot of a volume; an adopted volume's are named as the add-on does."""
        is_add_ons = re.fullmatch(rf"{_ADD_ONS_IMAGE}|{_ADD_ONS_DISK}", resource, re.IGNORECASE)
        return f"OpenNebula-Snap-{snapshot_id}" if is_add_ons else f"snapshot-{snapshot_id}"

    def snapshot_id_of(self, name: str) -> int:
        """Return OpenNebula's id of a snapshot, or -1 for one that is not OpenNebula's."""
        match = re.fullmatch(r"(?:snapshot|OpenNebula-Snap)-(\d+)", name, re.IGNORECASE)
        return int(match.group(1)) if match else -1

    def is_of_vm(self, resource: str, vm_id: int) -> bool:
        """Tell whether `resource` is a disk or the checkpoint of that VM, or read by its backup, by its name."""
        return vm_id in (self.vm_id_of(self.first_name(resource)), self.backup_copy_vm_id_of(resource))

    def first_name(self, resource: str) -> str:
        """Return the name that a VM's own volume has where it need not be another one; any other name as it is.

        That of an adopted volume is the one that it would have, had it been made by this driver.
        """
        adopted = re.fullmatch(_ADD_ONS_DISK, resource, re.IGNORECASE)
        if adopted:
            return self.disk(int(adopted.group(1)), int(adopted.group(2)))
        match = re.fullmatch(rf"({re.escape(self.prefix)}-vm-\d+-{_OWN}){_SUCCESSOR}", resource, re.IGNORECASE)
        return match.group(1) if match else resource

    def successors(self, resource: str) -> tuple[str, ...]:
        """Return the names that a VM's own volume may have, in the order in which they are taken; any other alone.

        A volume that is deleted while a node is offline keeps its name until that node is back, and OpenNebula makes
        disks of the same number again.
        """
        if re.fullmatch(rf"{re.escape(self.prefix)}-vm-\d+-{_OWN}", resource, re.IGNORECASE) is None:
            return (resource,)
        return (resource, *(f"{resource}-{number}" for number in range(2, _LONGEST_SUCCESSION + 1)))

    def _key(self, name: str) -> str:
        return f"Aux/{self.prefix}/{name}"

    @property
    def vm_id(self) -> str:
        """Return the property key under which a volume names its VM."""
        return self._key("VM_ID")

    @property
    def disk_id(self) -> str:
        """Return the property key under which a volume names its disk of the VM."""
        return self._key("DISK_ID")

    @property
    def datastore_id(self) -> str:
        """Return the property key under which a VM's disk names its system datastore."""
        return self._key("DS_ID")

    @property
    def image_id(self) -> str:
        """Return the property key under which an image's volume, and its clones after it, name the image."""
        return self._key("IMAGE_ID")

    @property
    def registration(self) -> str:
        """Return the property key that tells images of the same id apart, as a restored database of oned makes them."""
        return self._key("REGTIME")

    @property
    def incomplete(self) -> str:
        """Return the property key that marks a volume whose content is not (yet) what its name promises."""
        return self._key("INCOMPLETE")

    @property
    def run(self) -> str:
        """Return the property key under which a volume says which run of the driver has made it."""
        return self._key("MADE_BY")

    @property
    def deleted(self) -> str:
        """Return the property key that marks a volume that is deleted and waits for its snapshots to go."""
        return self._key("DELETED")

    @property
    def leaving(self) -> str:
        """Return the property key under which a replica that is to go says how many there shall be without it."""
        return self._key("LEAVING")

    def says_whose(self, properties: Mapping[str, str]) -> bool:
        """Tell whether a volume's properties name an owner in this OpenNebula."""
        return any(key in properties for key in (self.vm_id, self.image_id, self.incomplete, self.run))

    def is_owner_key(self, key: str) -> bool:
        """Tell whether a property names an owner in this OpenNebula."""
        match = re.fullmatch(_OWNER_KEY, key)
        return match is not None and match.group(1) == self.prefix

    def is_foreign(self, properties: Mapping[str, str]) -> bool:
        """Tell whether a volume's properties name an owner, and that in another OpenNebula alone."""
        matches = [re.fullmatch(_OWNER_KEY, key) for key in properties]
        prefixes = {match.group(1) for match in matches if match}
        return bool(prefixes) and self.prefix not in prefixes

    def disk_properties(self, vm_id: int, disk_id: int, datastore_id: int) -> dict[str, str]:
        """Return the owner properties of a VM's disk."""
        return {self.vm_id: str(vm_id), self.disk_id: str(disk_id), self.datastore_id: str(datastore_id)}

    def image_properties(self, image_id: int) -> dict[str, str]:
        """Return the owner properties of an image's volume.

        DS_ID is not among them: a restore puts the image's properties over those of the new VM disk, whose DS_ID
        is another.
        """
        return {self.image_id: str(image_id)}


def backup_snapshot_of(name: str) -> Optional[BackupSnapshot]:
    """Return what the name of a backup's snapshot says, or None for any other snapshot."""
    match = re.fullmatch(_BACKUP, name, re.IGNORECASE)
    return BackupSnapshot(*map(int, match.groups())) if match else None


def restore_snapshot(vm_id: int) -> str:
    """Return the snapshot to which a VM's disk goes back where restoring it from a backup fails."""
    return f"restore-{vm_id}"


def snapshot_vm_id_of(name: str) -> Optional[int]:
    """Return the VM whose backup or restore has taken a snapshot of this name, or None for any other snapshot."""
    match = re.fullmatch(rf"restore-(\d+)|{_BACKUP}", name, re.IGNORECASE)
    return int(match.group(1) or match.group(2)) if match else None


def add_ons_image_id_of(resource: str) -> Optional[int]:
    """Return the image for which LINBIT's add-on has made a volume of this name, or None."""
    match = re.fullmatch(_ADD_ONS_IMAGE, resource, re.IGNORECASE)
    return int(match.group(1)) if match else None


def add_ons_image(image_id: int) -> str:
    """Return the volume that LINBIT's add-on has made for an image."""
    return f"OpenNebula-Image-{image_id}"


def add_ons_disk(source: str, vm_id: int, disk_id: int) -> str:
    """Return the volume of a VM's own disk that LINBIT's add-on has made of an image, or of none (volatile)."""
    return f"{source or 'OpenNebula-Volatile'}-vm{vm_id}-disk{disk_id}"


def drbd_device(resource: str) -> str:
    """Return the path under which udev offers volume 0 of a DRBD resource; OpenNebula stores it as SOURCE."""
    return f"/dev/drbd/by-res/{resource}/0"


def resource_of(source: str) -> Optional[str]:
    """Return the resource definition that an OpenNebula SOURCE names, or None where it names none.

    Understands `/dev/drbd/by-res/<resource>/0`, the bare resource name that LINBIT's add-on stores, and the device
    paths that LINSTOR reports for layer stacks without DRBD (`/dev/vg/<resource>_00000`).
    """
    for pattern in (_BY_RESOURCE, _BACKING_DEVICE):
        match = re.fullmatch(pattern, source)
        if match and is_resource_name(match.group(1)):
            return match.group(1)
    return source if is_resource_name(source) else None


def is_resource_name(name: str) -> bool:
    """Tell whether LINSTOR accepts `name` for a resource definition."""
    return re.fullmatch(_RESOURCE, name) is not None and name.lower() not in ("all", "proxy")


def resource_of_source(source: str) -> str:
    """Return the resource definition that a SOURCE names; raises InvalidInput where it names none."""
    resource = resource_of(source)
    if resource is None:
        raise InvalidInput(
            f"SOURCE {source[:200]!r} names no LINSTOR volume: it should look like /dev/drbd/by-res/one-image-1/0"
        )
    return resource
