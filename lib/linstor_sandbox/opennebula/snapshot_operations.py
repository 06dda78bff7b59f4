"""What users do with snapshots of disks and images, and saving a disk or a snapshot as an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from linstor_sandbox.opennebula import transfers
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.machine_operations import MachineOperations
from linstor_sandbox.opennebula.machines import Disk, LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.scripts import Call
from linstor_sandbox.opennebula.snapshots import Snapshot, Snapshots

_CREATING = {
    VmState.ACTIVE: LcmState.DISK_SNAPSHOT,
    VmState.POWEROFF: LcmState.DISK_SNAPSHOT_POWEROFF,
    VmState.SUSPENDED: LcmState.DISK_SNAPSHOT_SUSPENDED,
}
_DELETING = {
    VmState.ACTIVE: LcmState.DISK_SNAPSHOT_DELETE,
    VmState.POWEROFF: LcmState.DISK_SNAPSHOT_DELETE_POWEROFF,
    VmState.SUSPENDED: LcmState.DISK_SNAPSHOT_DELETE_SUSPENDED,
}
_SAVING = {
    VmState.ACTIVE: LcmState.HOTPLUG_SAVEAS,
    VmState.POWEROFF: LcmState.HOTPLUG_SAVEAS_POWEROFF,
    VmState.SUSPENDED: LcmState.HOTPLUG_SAVEAS_SUSPENDED,
    VmState.UNDEPLOYED: LcmState.HOTPLUG_SAVEAS_UNDEPLOYED,
    VmState.STOPPED: LcmState.HOTPLUG_SAVEAS_STOPPED,
}


class SnapshotOperations(MachineOperations):
    """onevm disk-snapshot-*, disk-saveas, oneimage snapshot-*; each raises ActionFailed after it has set the states."""

    # --- of disks ---------------------------------------------------------------------------------------------------

    def snapshot_create(self, vm: VirtualMachine, disk: Disk, name: str = "") -> Snapshot:
        """`onevm disk-snapshot-create`; when the script fails oned forgets the snapshot, and its id is consumed."""
        if disk.volatile or disk.type == "CDROM":
            raise Refused("Cannot use DISK. DISK does not have a valid IMAGE_ID.")
        known = vm.snapshots_of(disk)
        known.allow_orphans = disk.attributes.get("ALLOW_ORPHANS", "NO")
        snapshot = known.create(name or f"snapshot {known.next_id}", disk.size)
        verb = "SNAP_CREATE_LIVE" if vm.state == VmState.ACTIVE else "SNAP_CREATE"
        try:
            self._snapshot_action(vm, disk, snapshot, verb, _CREATING[vm.state])
        except ActionFailed:
            known.drop(snapshot)
            raise
        known.activate(snapshot)
        self._count_snapshots(vm, disk)
        return snapshot

    def snapshot_delete(self, vm: VirtualMachine, disk: Disk, snapshot: Snapshot) -> None:
        """`onevm disk-snapshot-delete`; when the script fails oned keeps it."""
        self._snapshot_action(vm, disk, snapshot, "SNAP_DELETE", _DELETING[vm.state])
        vm.snapshots_of(disk).drop(snapshot)
        self._count_snapshots(vm, disk)

    def snapshot_revert(self, vm: VirtualMachine, disk: Disk, snapshot: Snapshot) -> None:
        """`onevm disk-snapshot-revert` in POWEROFF, before 6.8 in SUSPENDED too: the size is the snapshot's again."""
        states = {VmState.POWEROFF: LcmState.DISK_SNAPSHOT_REVERT_POWEROFF}
        if self.release.reverts_suspended:
            states[VmState.SUSPENDED] = LcmState.DISK_SNAPSHOT_REVERT_SUSPENDED
        if vm.state not in states:
            raise Refused(f"Could not revert to disk snapshot for VM {vm.identifier}, wrong state {vm.lcm_state.name}.")
        self._snapshot_action(vm, disk, snapshot, "SNAP_REVERT", states[vm.state])
        self._revert(vm.snapshots_of(disk), snapshot)
        disk.attributes["SIZE"] = str(snapshot.size)
        if disk.yes("SAVE"):
            self.image(int(disk.attributes["IMAGE_ID"])).size = snapshot.size

    def _revert(self, known: Snapshots, snapshot: Snapshot) -> None:
        known.activate(snapshot)
        if self.release.knows_linear_snapshots and known.allow_orphans == "LINEAR":
            for younger in [other for other in known.all if other.identifier > snapshot.identifier]:
                known.drop(younger)

    def _snapshot_action(self, vm: VirtualMachine, disk: Disk, snapshot: Snapshot, verb: str, state: LcmState) -> None:
        marks = {"DISK_SNAPSHOT_ACTIVE": "YES", "DISK_SNAPSHOT_ID": str(snapshot.identifier)}
        disk.attributes.update(marks)
        with self._meanwhile(vm, state):
            line = transfers.snapshot_line(vm, disk, verb, snapshot.identifier)
            call = self.scripts.transfer_line(line)
        for mark in marks:
            del disk.attributes[mark]
        if not call.succeeded:
            raise ActionFailed(call)

    def _count_snapshots(self, vm: VirtualMachine, disk: Disk) -> None:
        disk.attributes["DISK_SNAPSHOT_TOTAL_SIZE"] = str(vm.snapshots_of(disk).total_size)

    @contextmanager
    def _meanwhile(self, vm: VirtualMachine, state: LcmState) -> Iterator[None]:
        """A state for the length of a script; then the VM is as it was, whatever the script said."""
        before = vm.state
        vm.become(VmState.ACTIVE, state)
        try:
            yield
        finally:
            vm.become(before, LcmState.RUNNING if before == VmState.ACTIVE else LcmState.LCM_INIT)

    # --- saving as --------------------------------------------------------------------------------------------------

    def disk_saveas(self, vm: VirtualMachine, disk: Disk, name: str, snapshot: int = -1) -> Image:
        """`onevm disk-saveas`: mkfs tells the new image's SOURCE, cpds makes it; an image that failed is in ERROR."""
        if disk.volatile:
            raise Refused("Cannot use DISK. DISK does not have a valid IMAGE_ID.")
        is_parked = vm.state in (VmState.STOPPED, VmState.UNDEPLOYED)
        if is_parked and not self.release.saves_parked_disks:
            raise Refused(f"Disk cannot be saved in state {vm.state.name}.")
        original = self.image(int(disk.attributes["IMAGE_ID"]))
        datastore = self.datastore(original.datastore_id)
        attributes = {
            "DEV_PREFIX": original.attributes.get("DEV_PREFIX", "sd"),
            "SAVED_DISK_ID": str(disk.disk_id),
            "SAVED_IMAGE_ID": str(original.identifier),
            "SAVED_VM_ID": str(vm.identifier),
            "SAVE_AS_HOT": "YES",
        }
        image = self._allocate(datastore, name, original.type, False, disk.size, attributes)
        image.format = "save_as"
        image.source = self._fill(image, datastore, "mkfs").stdout.rstrip("\n")
        with self._meanwhile(vm, _SAVING[vm.state]):
            host = self.frontend if is_parked else vm.host
            call = self.scripts.transfer_line(transfers.save_line(vm, disk, host, image.source, snapshot))
        image.format = "raw"
        image.become(ImageState.READY if call.succeeded else ImageState.ERROR)
        self._count_anew(datastore)
        if not call.succeeded:
            raise ActionFailed(call)
        return image

    # --- of images --------------------------------------------------------------------------------------------------

    def image_snapshot_delete(self, image: Image, snapshot: int) -> None:
        """`oneimage snapshot-delete`."""
        self._image_snapshot_action(image, snapshot, "snap_delete")
        image.snapshots.drop(image.snapshots.get(snapshot))

    def image_snapshot_revert(self, image: Image, snapshot: int) -> None:
        """`oneimage snapshot-revert`: the image's size is the snapshot's again."""
        self._image_snapshot_action(image, snapshot, "snap_revert")
        self._revert(image.snapshots, image.snapshots.get(snapshot))
        image.size = image.snapshots.get(snapshot).size

    def image_snapshot_flatten(self, image: Image, snapshot: int) -> None:
        """`oneimage snapshot-flatten`: the image is what the snapshot was, and has none any more."""
        self._image_snapshot_action(image, snapshot, "snap_flatten")
        image.size = image.snapshots.get(snapshot).size
        image.snapshots.clear()

    def _image_snapshot_action(self, image: Image, snapshot: int, verb: str) -> None:
        datastore = self.datastore(image.datastore_id)
        with self.lock:
            if image.vms:
                raise Refused(f"[one.image] Cannot use a snapshot of an image that VM {image.vms[0]} uses.")
            if image.state != ImageState.READY:
                raise Refused(f"[one.image] Cannot use a snapshot of an image in state {image.state.name}.")
            image.target_snapshot = image.snapshots.get(snapshot).identifier
            arguments = self._image_arguments(image, datastore)
            image.become(ImageState.LOCKED)
        call = self.scripts.datastore(datastore.ds_mad, verb, *arguments)
        image.target_snapshot = -1
        image.become(ImageState.READY)
        if not call.succeeded:
            raise ActionFailed(call)

    def export_image(self, image: Image, app_id: int = 0) -> Call:
        """`onemarketapp create`: what one_market calls; the id is the app's, and secrets stay encrypted."""
        datastore = self.datastore(image.datastore_id)
        document = image.xml(self.release) + datastore.xml(decrypt=False)
        call = self.scripts.datastore(datastore.ds_mad, "export", *self.action_arguments(document, app_id))
        if not call.succeeded:
            raise ActionFailed(call)
        return call


__all__ = ["SnapshotOperations", "Snapshots"]
