"""One image that is to come to another datastore: whether it may, and how far it is.

oned's database is the only record, so that a run goes on wherever another has ended: the new image has a passing name
until its bytes are right, and what is to be done then stands in a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.cli.relocating import notes
from linstor_un.cli.relocating.notes import Note
from linstor_un.errors import DriverError, InUse, InvalidInput, NotFound, NotReady
from linstor_un.opennebula import catalogue, decoding, lifecycle
from linstor_un.opennebula.catalogue import DiskOfVm, Entry, Vm
from linstor_un.opennebula.model import Datastore

# In the new image: which one it was; in the old one: which it is now. For people: an image's owner can write there.
MOVED_FROM, MOVED_TO = "MOVED_FROM", "MOVED_TO"

_KINDS = ("OS", "CDROM", "DATABLOCK")
# What oned says of a disk by its image, its datastore and what has happened to it.
_ONEDS = frozenset(
    {
        "ALLOW_ORPHANS",
        "ATTACH",
        "CLONE",
        "CLONE_TARGET",
        "CLONING",
        "CLUSTER_ID",
        "DATASTORE",
        "DATASTORE_ID",
        "DISK_ID",
        "DISK_SNAPSHOT_ACTIVE",
        "DISK_SNAPSHOT_ID",
        "DISK_SNAPSHOT_TOTAL_SIZE",
        "DISK_TYPE",
        "DRIVER",
        "FORMAT",
        "FS",
        "IMAGE",
        "IMAGE_ID",
        "IMAGE_STATE",
        "IMAGE_UID",
        "IMAGE_UNAME",
        "LN_TARGET",
        "OPENNEBULA_MANAGED",
        "ORIGINAL_SIZE",
        "PERSISTENT",
        "PERSISTENT_SNAPSHOTS",
        "READONLY",
        "SAVE",
        "SIZE",
        "SIZE_PREV",
        "SOURCE",
        "TM_MAD",
        "TM_MAD_SYSTEM",
        "TYPE",
    }
)


class Move(NamedTuple):
    """One image, as it is now, the datastore that it is to come to, and what there is of it there."""

    old: Entry
    source: Datastore
    target: Datastore
    new: Optional[Entry]
    name: str
    vm: Optional[Vm]
    note: Note

    @property
    def image_id(self) -> int:
        """Return the id of the old image."""
        return self.old.image.image_id

    @property
    def passing_name(self) -> str:
        """Return what the new image is called for as long as the old one has its name."""
        return passing_name(self.image_id)

    @property
    def is_cloned(self) -> bool:
        """Tell whether this driver has the old one too, so that LINSTOR copies it."""
        return is_ours(self.source)

    @property
    def is_verified(self) -> bool:
        """Tell whether the new image was found to have the old one's bytes, and no VM could change these since."""
        is_found = self.new is not None and self.note.new_id == self.new.image.image_id
        return is_found and not _is_open(self.old)

    @property
    def is_done(self) -> bool:
        """Tell whether the new image has taken the old one's place."""
        return self.new is not None and self.note == Note() and _are_of_each_other(self.old, self.new)

    @property
    def label(self) -> str:
        """Return how sentences call the old image."""
        return self.old.image.label


class Known(NamedTuple):
    """What oned has, at one moment."""

    images: Mapping[int, Entry]
    datastores: Mapping[int, Datastore]
    notes: Mapping[int, Note]
    own_id: int


def look() -> Known:
    """Ask oned; raises OnedUnreachable."""
    return Known(catalogue.images(), catalogue.datastores(), notes.read(), catalogue.own_user().user_id)


def passing_name(image_id: int) -> str:
    """Return what the image that takes another's place is called until it has."""
    return f"linstor_un-move-{image_id}"


def is_ours(datastore: Datastore) -> bool:
    """Tell whether a datastore is this driver's."""
    return datastore.attributes.get("DS_MAD") == DRIVER


def target_of(known: Known, word: str) -> Datastore:
    """Return the datastore of an id or a name that images can come to; raises NotFound."""
    found = [item for item in known.datastores.values() if word in (str(item.datastore_id), item.name)]
    ours = [item for item in found if is_ours(item)]
    if len(ours) == 1:
        return ours[0]
    names = ", ".join(item.label for item in known.datastores.values() if is_ours(item)) or "none yet"
    raise NotFound(f"{word[:60]} is no image datastore of {DRIVER}: there are {names}")


def entry_of(known: Known, word: str) -> Entry:
    """Return the image of an id or a name, also of one that an interrupted move has given up; raises NotFound."""
    by_id = known.images.get(_number(word))
    if by_id is not None:
        return by_id
    found = [entry for entry in known.images.values() if entry.image.name == word]
    given_up = [number for number, note in known.notes.items() if note.name == word]
    found = found or [known.images[number] for number in given_up if number in known.images]
    if len(found) == 1:
        return found[0]
    several = f"{len(found)} images are called" if found else "There is no image"
    raise NotFound(f"{several} {word[:60]}: name it by its id, see `oneimage list`")


def of(known: Known, entry: Entry, target: Datastore, vm: Optional[Vm] = None) -> Move:
    """Return an image's move as it stands; raises a DriverError with why it may not be."""
    old = _old_of(known, entry, target)
    source = known.datastores.get(old.image.datastore_id)
    if source is None or old.kind not in _KINDS:
        raise InvalidInput(f"{old.image.label} is of type {old.kind}: only OS, CDROM and DATABLOCK can be moved")
    note = known.notes.get(old.image.image_id, Note())
    new = _new_of(known, old, note)
    if new is not None and new.image.datastore_id != target.datastore_id:
        _refuse_other_target(known, old, new)
    user = vm or _user_of(old, note)
    move = Move(old, source, target, new, note.name or _name(old), user, note)
    if not move.is_verified and not move.is_done and source.datastore_id != target.datastore_id:
        _check(move)
    return move


def is_there(move: Move) -> bool:
    """Tell whether the image is where it is to be, and nothing is left to be done."""
    return move.source.datastore_id == move.target.datastore_id or move.is_done


def _old_of(known: Known, entry: Entry, target: Datastore) -> Entry:
    """Return the image that was named, or the one whose place it has taken, as long as there is one."""
    before = known.images.get(_number(entry.attributes.get(MOVED_FROM, "")))
    if before is None or entry.image.datastore_id != target.datastore_id:
        return entry
    is_noted = known.notes.get(before.image.image_id, Note()).new_id == entry.image.image_id
    return before if is_noted or _are_of_each_other(before, entry) else entry


def _number(text: str) -> int:
    """Return the id that a text is, one that nothing has where it is none."""
    found = decoding.as_id(text)
    return -1 if found is None else found


def _are_of_each_other(old: Entry, new: Entry) -> bool:
    pair = old.attributes.get(MOVED_TO), new.attributes.get(MOVED_FROM)
    return pair == (str(new.image.image_id), str(old.image.image_id))


def _new_of(known: Known, old: Entry, note: Note) -> Optional[Entry]:
    """Return the image that takes the old one's place; while it is being made it is nobody's but ours."""
    if note.new_id in known.images:
        return known.images[note.new_id]
    after = known.images.get(_number(old.attributes.get(MOVED_TO, "")))
    if after is not None and note == Note() and _are_of_each_other(old, after):
        return after
    passing = passing_name(old.image.image_id), known.own_id
    return next((entry for entry in known.images.values() if (entry.image.name, entry.owner_id) == passing), None)


def _name(old: Entry) -> str:
    """Return what the new image is to be called: as the old one, also where that was moved before."""
    return old.image.name.removesuffix("-moved") if MOVED_TO in old.attributes else old.image.name


def _refuse_other_target(known: Known, old: Entry, new: Entry) -> None:
    there = known.datastores[new.image.datastore_id].label if new.image.datastore_id in known.datastores else "another"
    if _are_of_each_other(old, new):
        raise InvalidInput(f"{old.image.label} was moved to {there} and is {new.image.label} now: move that one")
    raise InvalidInput(
        f"{old.image.label} is on its way to {there}: end that with --to {new.image.datastore_id}, or `oneimage delete "
        f"{new.image.image_id}`"
    )


def _user_of(old: Entry, note: Note) -> Optional[Vm]:
    """Return the VM that has the image, or is to get it back."""
    # What is noted was left undone; somebody may have given the image to another VM meanwhile.
    numbers = old.image.vm_ids or ([note.vm_id] if note.vm_id >= 0 else [])
    return catalogue.vm(numbers[0]) if len(numbers) == 1 else None


def _check(move: Move) -> None:
    """Refuse what cannot be moved now."""
    image, label = move.old.image, move.label
    if image.snapshots:
        raise InvalidInput(
            f"{label} has snapshots, which no other datastore can take: delete or flatten them (`oneimage "
            "snapshot-delete`, `snapshot-flatten`), or save a disk of it as a new image"
        )
    if image.vm_ids:
        _check_user(move)
        return
    allowed = {catalogue.READY}
    if move.note.is_held:
        allowed |= {catalogue.DISABLED}
    if move.new is not None and move.is_cloned:
        allowed |= {catalogue.CLONE}
    if image.state not in allowed:
        raise NotReady(f"{label} is {_STATES.get(image.state, image.state)}: {_REMEDIES.get(image.state, _WAIT)}")


_STATES = {
    0: "being made",
    2: "used by a VM",
    8: "used by a VM",
    3: "disabled",
    4: "locked",
    5: "in state ERROR",
    6: "being cloned",
    7: "being deleted",
}
_WAIT = "wait until it is READY (`oneimage show`)"
_REMEDIES = {
    3: "`oneimage enable` it first",
    5: "see what its ERROR says in `oneimage show`, and `oneimage enable` it when it is right",
}


def _is_open(old: Entry) -> bool:
    """Tell whether VMs may write to an old image: what was held was enabled again."""
    return old.image.is_persistent and old.image.state not in (catalogue.DISABLED, catalogue.ERROR, catalogue.DELETE)


def check_deletion(move: Move) -> None:
    """Refuse to delete an old image that was moved and may be worth more than the new one by now."""
    assert move.new is not None
    new = move.new.image
    if new.state in (0, catalogue.LOCKED, catalogue.ERROR, catalogue.DELETE):
        raise NotReady(f"{move.label} is kept: {new.label}, which it is now, is {_STATES[new.state]}")
    if _is_open(move.old):
        raise InUse(
            f"{move.label} was enabled again since it was moved, and may have been written to: `oneimage delete "
            f"{move.image_id}` it if {new.label} has all that is needed"
        )


def _check_user(move: Move) -> None:
    """Refuse an image of VMs, but for the persistent one of a VM that is powered off."""
    image, vm = move.old.image, move.vm
    if vm is None or not image.is_persistent:
        numbers = ", ".join(map(str, image.vm_ids))
        raise InUse(
            f"{move.label} is used by VM {numbers}: wait until none has it; what is persistent goes with a VM that is "
            "powered off"
        )
    if is_plugging(vm) and move.note.vm_id == vm.vm_id:
        # It is taken off, as another run has asked for.
        return
    if not _is_powered_off(vm):
        raise InUse(f"{move.label} is a disk of {vm.label}, which is not powered off: `onevm poweroff {vm.vm_id}`")
    disk = vm.disk_of_image(image.image_id)
    if disk is None or disk.snapshots:
        raise InvalidInput(f"{move.label} has snapshots in {vm.label}: delete them with `onevm disk-snapshot-delete`")
    if f"disk{disk.disk_id}" in vm.boot_order.replace(" ", "").split(","):
        raise InvalidInput(
            f"{vm.label} boots from disk{disk.disk_id} by that number, and OpenNebula gives an attached disk another: "
            f"take it out of BOOT with `onevm updateconf {vm.vm_id}`; without BOOT it boots from its first disk"
        )


def may_get_disk(vm: Optional[Vm]) -> bool:
    """Tell whether a disk can be attached to a VM now."""
    if vm is None:
        return False
    return _is_powered_off(vm) or (vm.state, vm.lifecycle_state) == (lifecycle.ACTIVE_STATE, lifecycle.RUNNING)


def _is_powered_off(vm: Vm) -> bool:
    return (vm.state, vm.lifecycle_state) == (lifecycle.POWERED_OFF_STATE, 0)


def is_plugging(vm: Vm) -> bool:
    """Tell whether oned attaches or detaches something now."""
    return vm.lifecycle_state in lifecycle.PLUGGING or any("ATTACH" in disk.attributes for disk in vm.disks)


def is_gone(vm: Optional[Vm]) -> bool:
    """Tell whether there is no such VM any more."""
    return vm is None or vm.state in lifecycle.DONE_STATES


def own_attributes(disk: DiskOfVm, source: Datastore) -> dict[str, str]:
    """Return what a disk has of its own: not what oned says of it, nor what it has from its datastore."""
    return {key: value for key, value in disk.attributes.items() if key not in _ONEDS and key not in source.attributes}


def of_vm(known: Known, vm: Vm, disk_id: Optional[int], target: Datastore) -> tuple[list[Move], list[tuple[str, str]]]:
    """Return the moves of a VM's disks, and what cannot be moved with why; raises NotFound for no such disk."""
    if disk_id is not None and all(disk.disk_id != disk_id for disk in vm.disks) and not _owed_to(known, vm):
        numbers = ", ".join(str(disk.disk_id) for disk in vm.disks) or "none"
        raise NotFound(f"{vm.label} has no disk {disk_id}: it has {numbers}")
    moves: list[Move] = []
    refused: list[tuple[str, str]] = []
    for disk in vm.disks:
        if disk_id not in (None, disk.disk_id) or disk.attributes.get("DATASTORE_ID") == str(target.datastore_id):
            continue
        label = f"disk {disk.disk_id} of {vm.label}"
        entry = known.images.get(disk.image_id) if disk.image_id is not None else None
        if entry is None or disk.attributes.get("CLONE") != "NO":
            refused.append((label, _of_its_own(label, vm, disk)))
            continue
        try:
            moves.append(of(known, entry, target, vm))
        except DriverError as error:
            refused.append((label, str(error)))
    return [*moves, *(of(known, entry, target, vm) for entry in _owed_to(known, vm))], refused


def _owed_to(known: Known, vm: Vm) -> Sequence[Entry]:
    """Return the images of which an interrupted move has taken the disk off this VM."""
    has = {disk.image_id for disk in vm.disks}
    return [
        known.images[number]
        for number, note in known.notes.items()
        if note.vm_id == vm.vm_id
        and number not in has
        and number in known.images
        and not known.images[number].image.vm_ids
    ]


def _of_its_own(label: str, vm: Vm, disk: DiskOfVm) -> str:
    what = "volatile" if disk.image_id is None else "a copy of its image"
    return (
        f"{label} is {what}, which lives and dies with the VM: `onevm disk-saveas {vm.vm_id} {disk.disk_id} NAME`, "
        "move that image, and make a new VM of it"
    )
