"""Moving one image: each step looks at what there is first, so that a run goes on where another was ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Callable, NamedTuple

from linstor_un import locks
from linstor_un import settings as settings_room
from linstor_un.actions import image_reader
from linstor_un.cli.relocating import notes, plan, served
from linstor_un.cli.relocating import origin as origins_of_images
from linstor_un.cli.relocating.notes import Note
from linstor_un.cli.relocating.plan import MOVED_FROM, MOVED_TO, Move
from linstor_un.cli.relocating.served import Offer
from linstor_un.cluster import volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import DriverError, InUse, NotFound, NotReady, OnedRefused, UnusableImage
from linstor_un.hosts import origins
from linstor_un.naming import resource_of_source
from linstor_un.opennebula import catalogue, changes
from linstor_un.opennebula.catalogue import Entry, Vm
from linstor_un.opennebula.model import Datastore
from linstor_un.settings import Settings, lock_directory
from linstor_un.units import BYTES_PER_KIB, MIB

_POLL_SECONDS = 0.5
_LONGEST_NAME = 128
# What the driver says of the new image itself, or what would make oned look for the old one's beginnings.
_NOT_KEPT = frozenset(
    {
        MOVED_FROM,
        MOVED_TO,
        "DRIVER",
        "ERROR",
        "FORMAT",
        "FROM_BACKUP_DS",
        "FSTYPE",
        "MD5",
        "PATH",
        "QCOW2_OPTIONS",
        "SAVED_DISK_ID",
        "SAVED_IMAGE_ID",
        "SAVED_VM_ID",
        "SAVE_AS_HOT",
        "SHA1",
        "SIZE",
        "SOURCE",
    }
)


class Site(NamedTuple):
    """What moving needs beside oned.

    `bar` shows a part of it, and gives what is told how many per cent are done; `clock` one of which only oned's driver
    knows how far it is, and gives what is called as long as it is not done.
    """

    configuration: Mapping[str, str]
    bar: Callable[[str], AbstractContextManager[Callable[[float], None]]]
    clock: Callable[[str], AbstractContextManager[Callable[[], None]]]

    @property
    def common(self) -> Settings:
        """Return the settings of linstor_un.conf."""
        return settings_room.from_configuration(self.configuration)

    def gateway(self, datastore: Datastore) -> Gateway:
        """Return the way to a datastore's LINSTOR."""
        settings = settings_room.for_datastore(self.configuration, datastore.attributes, datastore.label)
        # A person waits: that no controller answers is said at once.
        return Gateway(settings._replace(failover_timeout_seconds=0))


def move(site: Site, wanted: Move, delete: bool) -> Move:
    """Move an image and return how it is afterwards; raises a DriverError, after which it can be run again."""
    number = wanted.image_id
    with locks.volume_lock(lock_directory(site.common), f"move-of-image-{number}", 0):
        known = plan.look()
        if number not in known.images:
            raise NotFound(f"Image {number} has gone meanwhile: see `oneimage list`")
        now = plan.of(known, known.images[number], wanted.target)
        if not now.is_done:
            now = _moved(site, now)
        if delete:
            plan.check_deletion(now)
            _delete(number)
        return now


def _moved(site: Site, now: Move) -> Move:
    if not now.is_verified:
        try:
            now = _copied(site, now)
        except (DriverError, KeyboardInterrupt):
            _let_be_used(site, now)
            _let_be_had(site, now)
            raise
    now = _put_in_place(now)
    _give_back(now)
    notes.write(site.common, now.image_id, Note())
    return now


def _copied(site: Site, now: Move) -> Move:
    """Bring the bytes over, and note that they are right."""
    now = _taken_off(site, now)
    new, digest = _made(site, now)
    now = _held(site, now)
    _compare(site, now, new, digest)
    now = _noted(site, now, now.note._replace(new_id=new.image.image_id, name=now.name))
    return now._replace(old=_entry(now.image_id), new=_entry(new.image.image_id))


def _noted(site: Site, now: Move, note: Note) -> Move:
    notes.write(site.common, now.image_id, note)
    return now._replace(note=note)


# --- The VM -----------------------------------------------------------------------------------------------------------


def _taken_off(site: Site, now: Move) -> Move:
    """Take the image off the VM that has it, once it is noted how it gets it back."""
    vm = _settled(now.vm.vm_id) if now.vm is not None else None
    disk = vm.disk_of_image(now.image_id) if vm is not None else None
    if vm is None or disk is None:
        return now
    now = _noted(site, now, now.note._replace(vm_id=vm.vm_id, disk=plan.own_attributes(disk, now.source)))
    changes.detach_disk(vm.vm_id, disk.disk_id)
    after = _settled(vm.vm_id)
    if after is not None and after.disk_of_image(now.image_id) is not None:
        raise NotReady(
            f"Disk {disk.disk_id} could not be detached from {vm.label}: see /var/log/one/{vm.vm_id}.log, and run this "
            "again"
        )
    return now


def _settled(vm_id: int) -> Vm | None:
    """Return the VM when nothing is attached to it or detached at the moment."""
    while True:
        vm = catalogue.vm(vm_id)
        if vm is None or not plan.is_plugging(vm):
            return vm
        time.sleep(_POLL_SECONDS)


def _give_back(now: Move) -> None:
    """Let the VM have the new image as the disk that the old one was."""
    if now.note.vm_id < 0 or now.new is None:
        return
    vm = _settled(now.note.vm_id)
    if not plan.is_gone(vm):
        _attach(now, vm, now.new.image.image_id)


def _attach(now: Move, vm: Vm | None, new_id: int) -> None:
    vm_id = now.note.vm_id
    if vm is not None and vm.disk_of_image(new_id) is not None:
        return
    label = vm.label if vm is not None else f"VM {vm_id}"
    if not plan.may_get_disk(vm):
        raise NotReady(f"{label} is to get image {new_id} back and is neither off nor running: run this again then")
    changes.attach_disk(vm_id, {**now.note.disk, "IMAGE_ID": str(new_id)})
    after = _settled(vm_id)
    if after is None or after.disk_of_image(new_id) is None:
        raise NotReady(
            f"Image {new_id}, which {now.label} is now, could not be attached to {label}: see "
            f"/var/log/one/{vm_id}.log, and run this again"
        )


# --- The new image ----------------------------------------------------------------------------------------------------


def _made(site: Site, now: Move) -> tuple[Entry, str]:
    """Return the new image, filled, and the digest of what it was filled with, where that is known."""
    new = _usable(site, now)
    if new is not None:
        return new, ""
    if now.is_cloned:
        # oned clones nothing that is disabled, and nobody else has disabled it.
        _let_be_used(site, now)
        number = changes.clone_image(now.image_id, now.passing_name, now.target.datastore_id)
        with _cloning(site, now) as show:
            return _filled(now, number, None, show), ""
    origin = origins_of_images.of(now, site.common)
    now = _held(site, now)
    with served.offered(origin) as offer, site.bar(f"{now.label} to {now.target.label}") as show:
        number = _imported(now, offer)
        new = _filled(now, number, offer, lambda: show(100 * offer.sent_bytes / max(1, origin.size_bytes)))
        show(100)
        return new, offer.digest


def _cloning(site: Site, now: Move) -> AbstractContextManager[Callable[[], None]]:
    return site.clock(f"{now.label} cloned to {now.target.label}")


def _usable(site: Site, now: Move) -> Entry | None:
    """Return what another run has made of the new image, where it is good for anything; what is not goes."""
    new = now.new
    if new is None:
        return None
    number = new.image.image_id
    if new.image.state == catalogue.LOCKED and now.is_cloned:
        # LINSTOR copies it, whoever has asked for that.
        with _cloning(site, now) as show:
            new = _wait(number, show)
    if new.image.state == catalogue.DISABLED:
        changes.enable_image(number, True)
        new = _entry(number)
    if new.image.vm_ids or new.image.state in (catalogue.USED, catalogue.USED_PERSISTENT, catalogue.CLONE):
        raise InUse(f"{new.image.label} is to become {now.label} and is in use: wait until it is not")
    if new.image.state == catalogue.READY:
        return new
    # What it was to be filled from is no longer offered.
    _delete(number)
    return None


def _imported(now: Move, offer: Offer) -> int:
    attributes = {
        "NAME": now.passing_name,
        "TYPE": now.old.kind,
        "PATH": offer.url,
        "PERSISTENT": "YES" if now.old.image.is_persistent else "NO",
        MOVED_FROM: str(now.image_id),
    }
    try:
        return changes.import_image(attributes, now.target.datastore_id)
    except OnedRefused as refusal:
        if offer.failure is not None:
            raise offer.failure from None
        if not offer.was_asked_for and "cannot be fetched" in str(refusal):
            raise OnedRefused(
                f"{refusal}; the driver has not found this command: run it on the front-end where oned runs, and "
                "exempt 127.0.0.1 from the proxy in the drivers' environment, if there is one (no_proxy)"
            ) from None
        raise


def _filled(now: Move, number: int, offer: Offer | None, show: Callable[[], None]) -> Entry:
    """Wait until the new image is filled; raises UnusableImage."""
    new = _wait(number, show)
    if new.image.state == catalogue.READY:
        return new
    if offer is not None and offer.failure is not None:
        raise offer.failure
    reason = new.attributes.get("ERROR", "see `journalctl -t linstor_un` on the front-end")
    raise UnusableImage(f"{now.label} could not be copied to {now.target.label}: {reason}; run this again then")


def _wait(number: int, show: Callable[[], None] = lambda: None) -> Entry:
    while True:
        show()
        found = _entry(number)
        if found.image.state not in (0, catalogue.LOCKED):
            return found
        time.sleep(_POLL_SECONDS)


def _entry(number: int) -> Entry:
    found = catalogue.image(number)
    if found is None:
        raise NotFound(f"Image {number} was deleted while it was moved: run this again")
    return found


def _compare(site: Site, now: Move, new: Entry, digest: str) -> None:
    """Check that the new image's volume has the old one's bytes, and that nobody could change these meanwhile."""
    if now.is_cloned:
        # All that a guest may have written to: the device is longer than SIZE.
        resource = resource_of_source(now.old.image.source)
        device_bytes = volumes.device_kib(site.gateway(now.source), resource) * BYTES_PER_KIB
        # LINSTOR does not know it as long as a satellite has not reported.
        size_bytes = max(now.old.image.size_mib * MIB, device_bytes)
        with _read(site, now.old, size_bytes) as show:
            digest = _digest_of_volume(site, now.source, now.old, size_bytes, show)
    else:
        origin = origins_of_images.of(now, site.common)
        size_bytes = origin.size_bytes
        if not digest:
            with _read(site, now.old, size_bytes) as show:
                digest = origins.digest(origin, show)
    with _read(site, new, size_bytes) as show:
        found = _digest_of_volume(site, now.target, new, size_bytes, show)
    if found != digest:
        raise UnusableImage(
            f"{new.image.label} has other bytes than {now.label}, which stays as it was: `oneimage delete "
            f"{new.image.image_id}`, and run this again"
        )


@contextmanager
def _read(site: Site, entry: Entry, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """Show how far an image was read to be compared; gives what is told how many bytes were."""
    with site.bar(f"{entry.image.label} compared") as show:
        yield lambda done: show(100 * done / max(1, size_bytes))
        show(100)


def _digest_of_volume(
    site: Site, datastore: Datastore, entry: Entry, size_bytes: int, show: Callable[[int], None]
) -> str:
    resource = resource_of_source(entry.image.source)
    with image_reader.reading(site.gateway(datastore), resource) as reader:
        return origins.digest_of_device(reader.host, reader.device, size_bytes, show)


# --- Their places -----------------------------------------------------------------------------------------------------


def _put_in_place(now: Move) -> Move:
    """Give the new image all that the old one is, and at last its name."""
    assert now.new is not None
    number, old, new = now.new.image.image_id, now.old, now.new
    if new.image.name == now.name:
        return now
    kept = "".join(text for key, text in old.elements.items() if key not in _NOT_KEPT)
    # A clone has all that the old one has.
    blank = {MOVED_TO: ""} if MOVED_TO in new.attributes else {}
    changes.add_to_image(number, kept + changes.elements({**blank, MOVED_FROM: str(now.image_id)}))
    changes.add_to_image(now.image_id, changes.elements({MOVED_TO: str(number)}))
    if new.image.is_persistent != old.image.is_persistent:
        changes.persist_image(number, old.image.is_persistent)
    changes.permit_image(number, old.rights)
    if (new.owner_id, new.group_id) != (old.owner_id, old.group_id):
        changes.own_image(number, old.owner_id, old.group_id)
    if old.image.name == now.name:
        changes.rename_image(now.image_id, _name_of_old(now))
    changes.rename_image(number, now.name)
    return now._replace(old=_entry(now.image_id), new=_entry(number))


def _name_of_old(now: Move) -> str:
    """Return a name for the old image that its owner has not given to another."""
    taken = {entry.image.name for entry in catalogue.images().values() if entry.owner_id == now.old.owner_id}
    names = [f"{now.name[: _LONGEST_NAME - len(end)]}{end}" for end in ("-moved", f"-moved-{now.image_id}")]
    return names[0] if names[0] not in taken else names[1]


def _held(site: Site, now: Move) -> Move:
    """Let no VM write to the old image from now on; raises InUse where one has it at this moment."""
    if not now.old.image.is_persistent:
        return now
    while (state := _entry(now.image_id).image.state) == catalogue.CLONE:
        time.sleep(_POLL_SECONDS)
    if state not in (catalogue.READY, catalogue.DISABLED):
        raise InUse(f"{now.label} was taken by a VM while it was moved: run this again when it is READY")
    if state == catalogue.READY:
        now = _noted(site, now, now.note._replace(is_held=True))
        changes.enable_image(now.image_id, False)
    return now


def _let_be_used(site: Site, now: Move) -> None:
    """Let the old image be as it was, since it has not come over."""
    # The reason for the failure must reach the operator, not that of this.
    with suppress(DriverError):
        note = notes.read().get(now.image_id, Note())
        if not note.is_held:
            return
        if _entry(now.image_id).image.state == catalogue.DISABLED:
            changes.enable_image(now.image_id, True)
        notes.write(site.common, now.image_id, note._replace(is_held=False))


def _let_be_had(site: Site, now: Move) -> None:
    """Let the VM have the old image again, as the disk that it was, since it has not come over."""
    with suppress(DriverError):
        note = notes.read().get(now.image_id, Note())
        if note.vm_id < 0:
            return
        vm = _settled(note.vm_id)
        if not plan.is_gone(vm):
            _attach(now._replace(note=note), vm, now.image_id)
        notes.write(site.common, now.image_id, note._replace(vm_id=-1, disk={}))


def _delete(number: int) -> None:
    """Delete an image, and wait until it is gone; raises NotReady where its driver does not delete it."""
    if _entry(number).image.state != catalogue.DELETE:
        changes.delete_image(number)
    while True:
        found = catalogue.image(number)
        if found is None:
            return
        if found.image.state not in (catalogue.DELETE, catalogue.LOCKED):
            raise NotReady(
                f"{found.image.label} could not be deleted: see what its ERROR says in `oneimage show {number}`"
            )
        time.sleep(_POLL_SECONDS)
