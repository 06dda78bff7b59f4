"""What oned has in its database: datastores, images, VMs and hosts, as an operator's command compares them.

The pools come in pages, since oned builds each answer in memory and an XML parser bounds it. oned sorts by id, upwards
or downwards as API_LIST_ORDER says, and counts a page's beginning from what is left at that moment: a page that does
not overlap the one before may have skipped something, and is asked for again from further back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

from linstor_un.opennebula import decoding, lifecycle, model, survey
from linstor_un.opennebula.decoding import number, required_number, text
from linstor_un.opennebula.model import Datastore, Disk, SavedFrom, VirtualMachine
from linstor_un.opennebula.oned import Client

if TYPE_CHECKING:
    from lxml.etree import _Element

_DRIVER = "linstor_un"
# A VM takes some 10 KiB and an XML parser takes no text of more than 10 MB.
PAGE = 200
_EVERYBODYS = -2
_NOT_DONE = -1
_PERSISTENT = 1


class KnownSnapshot(NamedTuple):
    """A snapshot of a disk or an image."""

    snapshot_id: int
    name: str
    size_mib: int


class Image(NamedTuple):
    """An image; `state` as oned numbers it (opennebula-contract.md), `vm_ids` those that use it now."""

    image_id: int
    name: str
    datastore_id: int
    source: str
    size_mib: int
    state: int
    is_persistent: bool
    registered: int
    vm_ids: tuple[int, ...]
    snapshots: tuple[KnownSnapshot, ...]
    saved_from: Optional[SavedFrom] = None
    format: str = ""

    @property
    def is_settled(self) -> bool:
        """Tell whether no action makes, reads or deletes it: READY, USED, DISABLED, ERROR or USED_PERS."""
        return self.state in (1, 2, 3, 5, 8)

    @property
    def is_usable(self) -> bool:
        """Tell whether its volume must be there: not where it is being made or deleted, or has failed."""
        return self.state in (1, 2, 3, 6, 8)

    @property
    def label(self) -> str:
        """Return how findings call it."""
        return f"image {self.image_id} ({self.name})"


class Machine(NamedTuple):
    """A VM that is not done; `moves` counts what its history has before the present record.

    `increment_ids` are the increments of its backups of which snapshots are kept: the newest, of which the next one is
    made, and the one before, which goes when the next one is made.
    """

    vm: VirtualMachine
    name: str
    moves: int
    snapshots: Mapping[int, tuple[KnownSnapshot, ...]]
    increment_ids: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """Return how findings call it."""
        return f"VM {self.vm.vm_id} ({self.name})"

    @property
    def host(self) -> str:
        """Return the host that it is on or goes to; empty where it never was on one."""
        return self.vm.hostnames[-1] if self.vm.hostnames else ""

    @property
    def datastore_id(self) -> int:
        """Return its system datastore."""
        return self.vm.datastore_ids[-1] if self.vm.datastore_ids else 0

    @property
    def is_settled(self) -> bool:
        """Tell whether no action works on it."""
        return self.vm.state != lifecycle.ACTIVE_STATE or self.has_failed or self.vm.lifecycle_state in lifecycle.STEADY

    @property
    def has_failed(self) -> bool:
        """Tell whether an action on it has failed, so that its disks may be there or not."""
        return self.vm.state == lifecycle.ACTIVE_STATE and self.vm.lifecycle_state in lifecycle.FAILED

    @property
    def is_running(self) -> bool:
        """Tell whether its domain runs."""
        return self.vm.state == lifecycle.ACTIVE_STATE and self.vm.lifecycle_state == lifecycle.RUNNING

    @property
    def is_on_host(self) -> bool:
        """Tell whether its disks are linked on its host."""
        return self.vm.state in (lifecycle.ACTIVE_STATE, *lifecycle.RESTING_STATES)

    @property
    def has_disks(self) -> bool:
        """Tell whether its disks have been made."""
        return self.vm.state not in lifecycle.UNBORN_STATES

    @property
    def is_saved(self) -> bool:
        """Tell whether its memory is kept."""
        return self.vm.state in lifecycle.SAVED_STATES

    @property
    def disks(self) -> tuple[Disk, ...]:
        """Return the disks that are this driver's, or were LINBIT's add-on's: their datastores tell whose they are."""
        return tuple(disk for disk in self.vm.disks if disk.transfer_driver == _DRIVER or disk.is_adopted)


class Database(NamedTuple):
    """What oned knows: this driver's datastores, the images in them, all VMs that are not done, and the hosts."""

    datastores: Mapping[int, Datastore]
    images: Mapping[int, Image]
    machines: Mapping[int, Machine]
    hosts: tuple[str, ...]


def read(drivers: Collection[str] = (_DRIVER,)) -> Database:
    """Return all that oned knows of the datastores of these transfer drivers; raises OnedUnreachable."""
    client = Client()
    datastores = {store.datastore.datastore_id: store.datastore for store in survey.of_drivers(*drivers)}
    images = {}
    for element in paged(client, "one.imagepool.info", "IMAGE"):
        found = image(element)
        if found.datastore_id in datastores:
            images[found.image_id] = found
    machines = {}
    for element in paged(client, "one.vmpool.infoextended", "VM", _NOT_DONE):
        machine = _machine(element)
        machines[machine.vm.vm_id] = machine
    hosts = decoding.parse(client.call("one.hostpool.info") or b"", "HOST_POOL")
    return Database(datastores, images, machines, tuple(text(element, "NAME") for element in hosts.iterfind("HOST")))


def has_increments() -> bool:
    """Tell whether a VM in a system datastore of this driver is backed up by increments; raises OnedUnreachable."""
    return any(map(_is_incremental, paged(Client(), "one.vmpool.infoextended", "VM", _NOT_DONE)))


def others_increments() -> list[str]:
    """Return the VMs with disks of this driver that another driver backs up by increments; raises OnedUnreachable."""
    found = paged(Client(), "one.vmpool.infoextended", "VM", _NOT_DONE)
    machines = [(_machine(tree), _system_driver(tree)) for tree in found if model.has_increments(tree)]
    return [item.label for item, driver in machines if item.disks and driver not in ("", _DRIVER)]


def _is_incremental(tree: _Element) -> bool:
    return _system_driver(tree) == _DRIVER and model.has_increments(tree)


def _system_driver(tree: _Element) -> str:
    drivers = [text(item, "TM_MAD") for item in tree.iterfind("HISTORY_RECORDS/HISTORY")]
    return drivers[-1] if drivers else ""


def again(known: Database, image_ids: Sequence[int], vm_ids: Sequence[int]) -> Database:
    """Return what oned knows by now of these images, of these VMs and of those that use the images; nothing else."""
    client = Client()
    found = client.call_all([("one.image.info", (image_id,)) for image_id in image_ids]) if image_ids else []
    images = [image(decoding.parse(answer, "IMAGE")) for answer in found if answer is not None]
    wanted = sorted({*vm_ids, *(vm_id for item in images for vm_id in item.vm_ids)})
    answers = client.call_all([("one.vm.info", (vm_id,)) for vm_id in wanted]) if wanted else []
    machines = [_machine(decoding.parse(answer, "VM")) for answer in answers if answer is not None]
    return known._replace(
        images={item.image_id: item for item in images if item.datastore_id in known.datastores},
        machines={item.vm.vm_id: item for item in machines if item.vm.state not in lifecycle.DONE_STATES},
    )


def paged(client: Client, method: str, kind: str, *more: int) -> Iterator[_Element]:
    """Yield what a pool has of everybody, in pages; raises OnedUnreachable."""
    seen: set[int] = set()
    offset = 0
    while True:
        answer = client.call(method, _EVERYBODYS, offset, -PAGE, *more) or b""
        elements = decoding.parse(answer, f"{kind}_POOL").findall(kind)
        numbers = [required_number(element, "ID") for element in elements]
        if offset and seen.isdisjoint(numbers):
            # What was on the pages before has become less.
            offset = max(0, offset - PAGE)
            continue
        yield from (element for element, identifier in zip(elements, numbers) if identifier not in seen)
        seen.update(numbers)
        if len(elements) < PAGE:
            return
        offset += PAGE - 1


def image(tree: _Element) -> Image:
    """Read an <IMAGE>; raises InvalidInput."""
    saved = [number(tree, f"TEMPLATE/SAVED_{name}") for name in ("VM_ID", "DISK_ID", "IMAGE_ID")]
    return Image(
        image_id=required_number(tree, "ID"),
        name=text(tree, "NAME"),
        datastore_id=number(tree, "DATASTORE_ID") or 0,
        source=text(tree, "SOURCE"),
        size_mib=number(tree, "SIZE") or 0,
        state=number(tree, "STATE") or 0,
        is_persistent=number(tree, "PERSISTENT") == _PERSISTENT,
        registered=number(tree, "REGTIME") or 0,
        vm_ids=tuple(int(item.text or 0) for item in tree.iterfind("VMS/ID")),
        snapshots=_snapshots(tree.find("SNAPSHOTS")),
        saved_from=None if None in saved else SavedFrom(*(int(item or 0) for item in saved)),
        format=text(tree, "FORMAT"),
    )


def _machine(tree: _Element) -> Machine:
    return Machine(
        vm=model.virtual_machine(tree),
        name=text(tree, "NAME"),
        moves=max((number(item, "SEQ") or 0 for item in tree.iterfind("HISTORY_RECORDS/HISTORY")), default=0),
        snapshots={number(item, "DISK_ID") or 0: _snapshots(item) for item in tree.iterfind("SNAPSHOTS")},
        increment_ids=_increment_ids(tree.find("BACKUPS/BACKUP_CONFIG")),
    )


def _increment_ids(configuration: Optional[_Element]) -> tuple[int, ...]:
    if configuration is None or text(configuration, "MODE").upper() != "INCREMENT":
        return ()
    last = number(configuration, "LAST_INCREMENT_ID")
    return () if last is None or last < 0 else (last, last - 1)


def _snapshots(tree: Optional[_Element]) -> tuple[KnownSnapshot, ...]:
    if tree is None:
        return ()
    return tuple(
        KnownSnapshot(required_number(item, "ID"), text(item, "NAME"), number(item, "SIZE") or 0)
        for item in tree.iterfind("SNAPSHOT")
    )
