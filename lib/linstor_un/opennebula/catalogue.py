"""Images with all that makes them somebody's, whichever driver they have, and what uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

from linstor_un.errors import NotFound
from linstor_un.opennebula import decoding, model, pools
from linstor_un.opennebula.decoding import number, required_number, text
from linstor_un.opennebula.model import Datastore
from linstor_un.opennebula.oned import Client
from linstor_un.opennebula.pools import Image

if TYPE_CHECKING:
    from lxml.etree import _Element

# STATE of an image.
READY, USED, DISABLED, LOCKED, ERROR, CLONE, DELETE, USED_PERSISTENT = 1, 2, 3, 4, 5, 6, 7, 8
_KINDS = ("OS", "CDROM", "DATABLOCK", "KERNEL", "RAMDISK", "CONTEXT", "BACKUP")
_ALL = (-2, -1, -1)
_NOT_DONE = -1
_MYSELF = -1


class Entry(NamedTuple):
    """An image, its owner, and its template: the plain attributes, and all of them as XML elements by their names."""

    image: Image
    kind: str
    owner_id: int
    group_id: int
    rights: tuple[int, ...]
    cloned_from: int
    attributes: Mapping[str, str]
    elements: Mapping[str, str]


class User(NamedTuple):
    """A user, with the plain attributes of the template."""

    user_id: int
    attributes: Mapping[str, str]


class DiskOfVm(NamedTuple):
    """A disk of a VM as oned has it; `snapshots` are how many it has."""

    disk_id: int
    attributes: Mapping[str, str]
    snapshots: int

    @property
    def image_id(self) -> Optional[int]:
        """Return its image, None where it has none."""
        return decoding.as_id(self.attributes.get("IMAGE_ID", ""))


class Vm(NamedTuple):
    """A VM; `boot_order` is OS/BOOT."""

    vm_id: int
    name: str
    state: int
    lifecycle_state: int
    boot_order: str
    disks: tuple[DiskOfVm, ...]

    @property
    def label(self) -> str:
        """Return how sentences call it."""
        return f"VM {self.vm_id} ({self.name})"

    def disk_of_image(self, image_id: int) -> Optional[DiskOfVm]:
        """Return its disk of an image."""
        return next((disk for disk in self.disks if disk.image_id == image_id), None)


def own_user() -> User:
    """Return the user whose credentials these are; raises OnedUnreachable."""
    tree = decoding.parse(Client().call("one.user.info", _MYSELF) or b"", "USER")
    return User(required_number(tree, "ID"), decoding.attributes(tree.iterfind("TEMPLATE/*")))


def datastores() -> dict[int, Datastore]:
    """Return all image datastores; raises OnedUnreachable."""
    tree = decoding.parse(Client().call("one.datastorepool.info") or b"", "DATASTORE_POOL")
    found = [model.datastore(item) for item in tree.iterfind("DATASTORE") if number(item, "TYPE") == 0]
    return {item.datastore_id: item for item in found}


def images() -> dict[int, Entry]:
    """Return all images of everybody; raises OnedUnreachable."""
    found = [_entry(element) for element in pools.paged(Client(), "one.imagepool.info", "IMAGE")]
    return {item.image.image_id: item for item in found}


def image(image_id: int) -> Optional[Entry]:
    """Return an image as it is now, None where there is none; raises OnedUnreachable."""
    answer = Client().call("one.image.info", image_id)
    return None if answer is None else _entry(decoding.parse(answer, "IMAGE"))


def vm(vm_id: int) -> Optional[Vm]:
    """Return a VM as it is now, None where there is none; raises OnedUnreachable."""
    answer = Client().call("one.vm.info", vm_id)
    return None if answer is None else _vm(decoding.parse(answer, "VM"))


def vm_of(word: str) -> Vm:
    """Return the VM of an id or a name; raises NotFound and OnedUnreachable."""
    vm_id = decoding.as_id(word)
    found = vm(vm_id) if vm_id is not None else None
    if found is not None:
        return found
    elements = pools.paged(Client(), "one.vmpool.infoextended", "VM", _NOT_DONE)
    numbers = [required_number(element, "ID") for element in elements if text(element, "NAME") == word]
    if len(numbers) != 1:
        several = f"{len(numbers)} VMs are called" if numbers else "There is no VM"
        raise NotFound(f"{several} {word[:60]}: name it by its id, see `onevm list`")
    return vm_of(str(numbers[0]))


def templates_with(image_ids: Sequence[int]) -> dict[int, list[str]]:
    """Return, for each image, the VM templates that name it by its id, as `7 (web)`; raises OnedUnreachable."""
    tree = decoding.parse(Client().call("one.templatepool.info", *_ALL) or b"", "VMTEMPLATE_POOL")
    found: dict[int, list[str]] = {image_id: [] for image_id in image_ids}
    for element in tree.iterfind("VMTEMPLATE"):
        used = {(item.text or "").strip() for item in element.iterfind("TEMPLATE/DISK/IMAGE_ID")}
        for image_id in image_ids:
            if str(image_id) in used:
                found[image_id].append(f"{text(element, 'ID')} ({text(element, 'NAME')})")
    return found


def _entry(tree: _Element) -> Entry:
    from lxml import etree

    kind = number(tree, "TYPE") or 0
    parts = tree.findall("TEMPLATE/*")
    elements: dict[str, str] = {}
    for part in parts:
        part.tail = None
        elements[str(part.tag)] = elements.get(str(part.tag), "") + etree.tostring(part, encoding="unicode")
    return Entry(
        image=pools.image(tree),
        kind=_KINDS[kind] if kind < len(_KINDS) else str(kind),
        owner_id=number(tree, "UID") or 0,
        group_id=number(tree, "GID") or 0,
        rights=tuple(int(item.text or 0) for item in tree.iterfind("PERMISSIONS/*")),
        cloned_from=-1 if (found := number(tree, "CLONING_ID")) is None else found,
        attributes=decoding.attributes(parts),
        elements=elements,
    )


def _vm(tree: _Element) -> Vm:
    snapshots = {number(item, "DISK_ID"): len(item.findall("SNAPSHOT")) for item in tree.iterfind("SNAPSHOTS")}
    disks = [
        DiskOfVm(
            required_number(item, "DISK_ID"),
            decoding.attributes(item),
            snapshots.get(number(item, "DISK_ID"), 0),
        )
        for item in tree.iterfind("TEMPLATE/DISK")
    ]
    return Vm(
        required_number(tree, "ID"),
        text(tree, "NAME"),
        number(tree, "STATE") or 0,
        number(tree, "LCM_STATE") or 0,
        text(tree, "TEMPLATE/OS/BOOT"),
        tuple(disks),
    )
