"""Image, Disk, VirtualMachine and Datastore, as OpenNebula describes them in XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Optional

from linstor_un.errors import InvalidInput
from linstor_un.naming import ADD_ON
from linstor_un.opennebula import decoding
from linstor_un.opennebula.decoding import number, required_number, text

if TYPE_CHECKING:
    from lxml.etree import _Element

# LINSTOR's own limit for a DRBD volume is 1 PiB.
LARGEST_MIB = 1 << 30


class Datastore(NamedTuple):
    """A datastore and its template's attributes; one that is only planned has an id below 0."""

    datastore_id: int
    name: str
    transfer_driver: str
    attributes: Mapping[str, str]

    @property
    def label(self) -> str:
        """Return how errors call this datastore."""
        return f"datastore {self.name}" if self.datastore_id < 0 else f"datastore {self.datastore_id} ({self.name})"


class Image(NamedTuple):
    """An image as the datastore actions get it; where it `is_linear`, OpenNebula forgets what a revert goes behind."""

    image_id: int
    path: str
    source: str
    size_mib: int
    file_system: str
    is_save_as: bool
    checksums: Mapping[str, str]
    registered: int
    target_snapshot: int = -1
    snapshot_ids: tuple[int, ...] = ()
    saved_from: Optional[SavedFrom] = None
    is_linear: bool = False


class SavedFrom(NamedTuple):
    """The VM's disk, and the image that it is or was cloned from, of which an image was made by disk-saveas."""

    vm_id: int
    disk_id: int
    image_id: int


class Disk(NamedTuple):
    """A disk of a VM; the last two are oned's mode for it, which differs where the system datastore is another's."""

    disk_id: int
    image_id: Optional[int]
    size_mib: int
    original_size_mib: int
    source: str
    is_clone: bool
    is_read_only: bool
    is_shareable: bool
    is_cdrom: bool
    file_system: str
    transfer_driver: str
    datastore_id: int
    disk_type: str = ""
    link_target: str = ""

    @property
    def is_volatile(self) -> bool:
        """Tell whether the disk was made for its VM and has no image."""
        return self.image_id is None

    @property
    def is_adopted(self) -> bool:
        """Tell whether the disk was LINBIT's add-on's: oned believes that for as long as its VM has it."""
        return self.transfer_driver == ADD_ON

    @property
    def is_image(self) -> bool:
        """Tell whether the disk is the image's own volume: persistent, CDROM, immutable or shareable."""
        return not self.is_volatile and not self.is_clone

    @property
    def is_writable(self) -> bool:
        """Tell whether the VM may write to the volume."""
        return not (self.is_cdrom or self.is_read_only)

    @property
    def is_shared(self) -> bool:
        """Tell whether other VMs may have the same volume at the same time."""
        return self.is_image and (self.is_cdrom or self.is_read_only or self.is_shareable)


class VirtualMachine(NamedTuple):
    """A VM with its disks; `hostnames` and `datastore_ids` are its history, in order, the last is now.

    `has_backups` where there may be what backups of it have kept, `has_increments` where they are incremental; of
    `linear_disks` OpenNebula forgets the snapshots that a revert goes behind.
    """

    vm_id: int
    state: int
    lifecycle_state: int
    deploy_id: str
    memory_mib: int
    disks: tuple[Disk, ...]
    hostnames: tuple[str, ...]
    datastore_ids: tuple[int, ...]
    has_backups: bool = False
    linear_disks: frozenset[int] = frozenset()
    has_increments: bool = False

    def disk(self, disk_id: int) -> Optional[Disk]:
        """Return the disk with that id, or None where the VM has none (any more)."""
        return next((disk for disk in self.disks if disk.disk_id == disk_id), None)


def datastore(tree: _Element) -> Datastore:
    """Read a <DATASTORE>; raises InvalidInput."""
    return Datastore(
        datastore_id=required_number(tree, "ID"),
        name=text(tree, "NAME"),
        transfer_driver=text(tree, "TM_MAD"),
        attributes=decoding.attributes(tree.iterfind("TEMPLATE/*")),
    )


def action_datastore(tree: _Element) -> Datastore:
    """Return the datastore of a <DS_DRIVER_ACTION_DATA>; raises InvalidInput."""
    element = tree.find("DATASTORE")
    if element is None:
        raise InvalidInput("<DATASTORE> is missing from the action's XML: call it as OpenNebula does")
    return datastore(element)


def action_image(tree: _Element, *, with_id: bool = True) -> Image:
    """Return the image of a <DS_DRIVER_ACTION_DATA>; `stat` gets one without id.  Raises InvalidInput.

    5.12 has <FSTYPE> where later releases have <FORMAT> and <FS> (opennebula-contract.md, 3).
    """
    element = tree.find("IMAGE")
    if element is None:
        raise InvalidInput("<IMAGE> is missing from the action's XML: call it as OpenNebula does")
    file_system = text(element, "FS") or text(element, "FSTYPE")
    template = "TEMPLATE/"
    target = number(element, "TARGET_SNAPSHOT")
    return Image(
        image_id=required_number(element, "ID") if with_id else -1,
        path=text(element, "PATH"),
        source=text(element, "SOURCE"),
        size_mib=size_mib(number(element, "SIZE") or 0, "<IMAGE/SIZE>"),
        file_system="" if file_system in ("save_as", "raw") else file_system,
        is_save_as="save_as" in (text(element, "FORMAT"), text(element, "FSTYPE")),
        checksums={
            kind: text(element, template + kind).lower() for kind in ("MD5", "SHA1") if text(element, template + kind)
        },
        registered=number(element, "REGTIME") or 0,
        target_snapshot=-1 if target is None else target,
        snapshot_ids=tuple(required_number(item, "ID") for item in element.iterfind("SNAPSHOTS/SNAPSHOT")),
        saved_from=_saved_from(element),
        is_linear=_is_linear(element.find("SNAPSHOTS")),
    )


def _is_linear(snapshots: Optional[_Element]) -> bool:
    """Tell whether oned forgets, at a revert, the snapshots that are younger: from 7.0 on."""
    return snapshots is not None and text(snapshots, "ALLOW_ORPHANS").upper() == "LINEAR"


def _saved_from(element: _Element) -> Optional[SavedFrom]:
    found = [number(element, f"TEMPLATE/SAVED_{name}") for name in ("VM_ID", "DISK_ID", "IMAGE_ID")]
    vm_id, disk_id, image_id = found
    return None if vm_id is None or disk_id is None or image_id is None else SavedFrom(vm_id, disk_id, image_id)


def size_mib(value: int, what: str) -> int:
    """Return `value` if it is a size in MiB that a volume can have; raises InvalidInput naming `what`."""
    if not 0 <= value <= LARGEST_MIB:
        raise InvalidInput(f"{what} is {value} MiB and must be from 1 to {LARGEST_MIB} MiB (1 PiB)")
    return value


def has_increments(tree: _Element) -> bool:
    """Tell whether backups of a <VM> are increments of each other."""
    return text(tree, "BACKUPS/BACKUP_CONFIG/MODE").upper() == "INCREMENT"


def virtual_machine(tree: _Element) -> VirtualMachine:
    """Read a <VM>; raises InvalidInput."""
    history = tree.findall("HISTORY_RECORDS/HISTORY")
    is_incremental = has_increments(tree)
    return VirtualMachine(
        vm_id=required_number(tree, "ID"),
        state=number(tree, "STATE") or 0,
        lifecycle_state=number(tree, "LCM_STATE") or 0,
        deploy_id=text(tree, "DEPLOY_ID"),
        memory_mib=max(number(tree, "TEMPLATE/MEMORY") or 0, number(tree, "TEMPLATE/MEMORY_MAX") or 0),
        disks=tuple(_disk(element) for element in tree.iterfind("TEMPLATE/DISK")),
        hostnames=tuple(text(element, "HOSTNAME") for element in history),
        datastore_ids=tuple(number(element, "DS_ID") or 0 for element in history),
        # One that has failed has left no id, before 7.3.80 its driver is not told, and MODE may have changed since.
        has_backups=any(tree.find(f"BACKUPS/{path}") is not None for path in ("BACKUP_CONFIG/*", "BACKUP_IDS/ID")),
        has_increments=is_incremental,
        linear_disks=frozenset(
            required_number(item, "DISK_ID") for item in tree.iterfind("SNAPSHOTS") if _is_linear(item)
        ),
    )


def _disk(element: _Element) -> Disk:
    kind = text(element, "TYPE").upper()
    image_id = number(element, "IMAGE_ID")
    return Disk(
        disk_id=required_number(element, "DISK_ID"),
        image_id=image_id,
        size_mib=size_mib(number(element, "SIZE") or 0, "<DISK/SIZE>"),
        original_size_mib=size_mib(number(element, "ORIGINAL_SIZE") or 0, "<DISK/ORIGINAL_SIZE>"),
        source=text(element, "SOURCE"),
        is_clone=text(element, "CLONE").upper() != "NO",
        is_read_only=text(element, "READONLY").upper() == "YES",
        is_shareable=text(element, "SHAREABLE").upper() == "YES",
        # BLOCK_CDROM where the image's datastore names a DISK_TYPE of blocks.
        is_cdrom=kind == "CDROM" or kind.endswith("_CDROM"),
        file_system=text(element, "FS"),
        transfer_driver=text(element, "TM_MAD"),
        datastore_id=number(element, "DATASTORE_ID") or 0,
        disk_type=text(element, "DISK_TYPE"),
        link_target=text(element, "LN_TARGET"),
    )


def parse_action_data(document: bytes) -> _Element:
    """Return the tree of a <DS_DRIVER_ACTION_DATA>; raises InvalidInput."""
    return decoding.parse(document, "DS_DRIVER_ACTION_DATA")
