"""tm/cpds: save a disk, or a snapshot of it, as a new image.

Arguments: HOST:SYSDIR/disk.N SOURCE SNAPID VMID DSID (of the image, and of the new one).
SOURCE is what mkfs said for the new image; SNAPID -1 is the disk as it is now.
"""

from __future__ import annotations

from typing import NamedTuple

from linstor_un import log
from linstor_un.actions import cloning, disk_snapshot, transfer
from linstor_un.actions.cloning import Clone
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import placement as placements
from linstor_un.cluster import snapshots, volumes
from linstor_un.cluster.codes import SNAPSHOTS_NOT_SUPPORTED
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.driver import Call
from linstor_un.errors import ControllerFailed, InvalidInput, NotFound
from linstor_un.naming import resource_of_source
from linstor_un.opennebula import arguments, lifecycle
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo
from linstor_un.units import KIB_PER_MIB, ROUNDED_MIB

_CURRENT = "-1"


class SaveAs(NamedTuple):
    """What is saved: `snapshot` of the disk's volume, empty for its current content, as the volume `target`."""

    action: Transfer
    place: Place
    disk: Disk
    source: str
    snapshot: str
    target: str
    clone: Clone
    moves_bytes: bool

    @property
    def is_written_to(self) -> bool:
        """Tell whether the VM runs, so that only a snapshot of the disk holds still."""
        return bool(self.action.vm and self.action.vm.lifecycle_state in lifecycle.SAVING_LIVE)

    @property
    def is_at_rest(self) -> bool:
        """Tell whether the disk itself can be read: its current content is saved and nobody writes to it."""
        return not self.snapshot and not self.is_written_to


def run(call: Call) -> None:
    """Make the new image's volume from a snapshot: the VM waits for that alone.

    Where the image's datastore asks for independent images, or for other pools or layers, the bytes are copied.
    """
    wanted = _decode(call)
    with wanted.action.lock(wanted.target), Undo() as undo:
        if wanted.is_at_rest:
            transfer.check_whole(wanted.action, wanted.place, wanted.source)
        if wanted.is_at_rest and wanted.moves_bytes:
            cloning.copy(wanted.action.gateway, undo, wanted.clone)
            return
        try:
            _from_snapshot(wanted, undo, _snapshot(wanted, undo))
        except ControllerFailed as error:
            if not wanted.is_at_rest or error.code != SNAPSHOTS_NOT_SUPPORTED:
                raise
            log.warning(f"{error}; copying instead")
            cloning.copy(wanted.action.gateway, undo, wanted.clone)


def _decode(call: Call) -> SaveAs:
    arguments.expect(call.arguments, "HOST:PATH", "SOURCE", "SNAPID", "VMID", "DSID")
    place = arguments.disk_place(call.arguments[0], arguments.identifier(call.arguments[3], "VMID"))
    target = resource_of_source(call.arguments[1])
    datastore_id = arguments.identifier(call.arguments[4], "DSID")
    action = transfer.begin(call, place, datastore_id)
    image_id = action.names.image_id_of(target)
    if image_id is None:
        raise InvalidInput(f"SOURCE {call.arguments[1][:200]!r} is not a new image's: it comes from datastore/mkfs")
    is_current = call.arguments[2] == _CURRENT
    snapshot_id = -1 if is_current else arguments.identifier(call.arguments[2], "SNAPID")
    disk = action.need_disk(place.disk_id)
    if disk.is_volatile or not disk.size_mib:
        raise InvalidInput(f"Disk {place.disk_id} of VM {place.vm_id} cannot be saved: it is volatile or has no SIZE")
    theirs = action.settings_of(call, datastore_id)
    placement = placements.of(theirs, action.datastores[datastore_id].label)
    source = action.resource(disk)
    name = "" if is_current else action.names.snapshot(snapshot_id, source)
    owner = action.names.image_properties(image_id)
    clone = Clone(source, disk.size_mib, target, disk.size_mib, placement, owner, is_disowned=True)
    moves_bytes = theirs.clone_mode == "copy" or cloning.differ(action.settings, theirs)
    return SaveAs(action, place, disk, source, name, target, clone, moves_bytes)


def _snapshot(wanted: SaveAs, undo: Undo) -> Snapshot:
    """Return the snapshot that is saved: the disk's own, or one of now."""
    gateway, source = wanted.action.gateway, wanted.source
    name = wanted.snapshot or wanted.action.names.save_as(wanted.target)
    if not wanted.snapshot:
        undo.push(f"snapshot {name}", lambda: snapshots.forget(gateway, source, name))
        _take(wanted, name)
    found = snapshots.find(gateway, source, name)
    if found is None or not found.is_usable:
        raise NotFound(f"{source} has no usable snapshot {name}: see `linstor snapshot list -r {source}`")
    return found


def _take(wanted: SaveAs, name: str) -> None:
    action = wanted.action
    # What an earlier run has left under this name is older than what is to be saved.
    snapshots.forget(action.gateway, wanted.source, name)
    if wanted.is_written_to:
        disk_snapshot.take_live(action, wanted.place, {wanted.source: name})
    else:
        snapshots.take(action.gateway, wanted.source, name)


def _from_snapshot(wanted: SaveAs, undo: Undo, snapshot: Snapshot) -> None:
    gateway = wanted.action.gateway
    clone = _sized(wanted.clone, snapshot)
    if not wanted.moves_bytes:
        cloning.restore(gateway, undo, clone, snapshot)
        _forget(wanted, snapshot)
        # What is restored says what the VM's disk says. Last, because the mark tells `rm` to look for the rest.
        cloning.disown(gateway, wanted.target, wanted.clone.owner)
        return
    # A snapshot of a volume has no device of its own: it gets a volume for as long as it is copied.
    passing = wanted.action.names.passing(wanted.target)
    ours = placements.of(wanted.action.settings, wanted.action.datastore.label)
    as_it_is = clone._replace(target=passing, size_mib=clone.source_size_mib, placement=ours)
    cloning.restore(gateway, undo, as_it_is, snapshot)
    _forget(wanted, snapshot)
    cloning.copy(gateway, undo, clone._replace(source=passing))
    volumes.remove(gateway, passing)


def _sized(clone: Clone, snapshot: Snapshot) -> Clone:
    """Return the clone of a snapshot that may be smaller than the disk has become, or larger after a revert.

    The image has the disk's size, whichever snapshot is saved; what is larger keeps all its bytes.
    """
    size_mib = snapshot.size_kib // KIB_PER_MIB
    # By a few MiB that of every disk which was copied is.
    if size_mib > clone.size_mib + ROUNDED_MIB:
        log.warning(
            f"snapshot {snapshot.name} of {clone.source} has {size_mib} MiB and OpenNebula gives the new image "
            f"{clone.size_mib} MiB: its volume is larger than its SIZE"
        )
    return clone._replace(source_size_mib=size_mib, size_mib=max(clone.size_mib, size_mib))


def _forget(wanted: SaveAs, snapshot: Snapshot) -> None:
    """Delete the snapshot that was taken for this alone: what is restored from it does not need it."""
    if not wanted.snapshot:
        snapshots.forget(wanted.action.gateway, wanted.source, snapshot.name)
