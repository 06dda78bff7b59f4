"""What users do with backups: onevm backup, backup-cancel and restore, oneimage restore."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Optional

from linstor_sandbox.opennebula import markup, templates
from linstor_sandbox.opennebula.backups import Increment, flattened
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.live_operations import LiveOperations
from linstor_sandbox.opennebula.machines import LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.scripts import Call


class BackupOperations(LiveOperations):
    """Each raises ActionFailed after it has set the states that oned would set."""

    # --- making -----------------------------------------------------------------------------------------------------

    def configure_backup(self, vm: VirtualMachine, **attributes: object) -> None:
        """`onevm updateconf --append` of BACKUP_CONFIG: mode, fs_freeze, keep_last, backup_volatile, increment_mode."""
        given = {name.upper(): _value(value) for name, value in attributes.items() if value is not None}
        vm.backups.configure(given, self.release.has_increments, append=True)

    def backup(
        self,
        vm: VirtualMachine,
        datastore: Datastore,
        mode: Optional[str] = None,
        *,
        reset: bool = False,
        fs_freeze: Optional[str] = None,
        backup_volatile: Optional[bool] = None,
        keep_last: Optional[int] = None,
        increment_mode: Optional[str] = None,
    ) -> Image:
        """`onevm backup`, after `updateconf` with what is given: prebackup, the datastore's backup, postbackup.

        The image that has the backup now; a flatten of its increments that fails is told by its ERROR.
        """
        asked: dict[str, object] = {"mode": mode, "fs_freeze": fs_freeze, "backup_volatile": backup_volatile}
        asked.update(keep_last=keep_last, increment_mode=increment_mode)
        if any(value is not None for value in asked.values()):
            self.configure_backup(vm, **asked)
        before = self._begin_backup(vm, datastore, reset)
        try:
            words = self._make_backup(vm, datastore, before)
        except ActionFailed:
            vm.backups.clear_last()
            raise
        finally:
            vm.become(before, LcmState.RUNNING if before == VmState.ACTIVE else LcmState.LCM_INIT)
        return self._backed_up(vm, datastore, words)

    def _begin_backup(self, vm: VirtualMachine, datastore: Datastore, reset: bool) -> VmState:
        if not self.release.has_backups:
            raise Refused("Requested method one.vm.backup not found")
        with self.lock:
            before = vm.state
            if vm.backups.config.get("ACTIVE_FLATTEN") == "YES":
                raise Refused(f"Could not create a new backup for VM {vm.identifier}, consolidating backup increments")
            if before != VmState.POWEROFF and vm.lcm_state != LcmState.RUNNING:
                raise Refused(f"Could not create a new backup for VM {vm.identifier}, wrong state {before.name}.")
            live = before == VmState.ACTIVE
            vm.become(VmState.ACTIVE, LcmState.BACKUP if live else LcmState.BACKUP_POWEROFF)
            vm.backups.config["LAST_DATASTORE_ID"] = str(datastore.identifier)
            bridges = datastore.attributes.get("BRIDGE_LIST", "").split()
            if bridges and self.release.version >= (7, 2):
                vm.backups.config["LAST_BRIDGE"] = bridges[vm.identifier % len(bridges)]
            if reset:
                vm.backups.begin_anew()
            vm.place(vm.host, vm.current.host_id, vm.current.datastore, vm.current.tm_mad)
            return before

    def _make_backup(self, vm: VirtualMachine, datastore: Datastore, before: VmState) -> list[str]:
        """Run the three scripts; id, size in MiB and format that the datastore's has printed."""
        live = "_live" if before == VmState.ACTIVE else ""
        argv, document = self._backup_argv(vm), vm.xml(only_last_record=True)
        made = self._backup_step(vm, f"prebackup{live}", argv, document)
        if made.succeeded:
            sent = self.release.backup_document(datastore.xml(), document)
            made = self.scripts.datastore(datastore.ds_mad, "backup", argv, sent)
        elif not self.release.cleans_after_failed_prebackup:
            raise ActionFailed(made)
        result = document if made.succeeded else self.release.failed_backup(document)
        after = self._backup_step(vm, f"postbackup{live}", argv, result)
        if not made.succeeded or not after.succeeded:
            raise ActionFailed(after if made.succeeded else made)
        return made.stdout.split()

    def _backup_step(self, vm: VirtualMachine, verb: str, argv: list[str], document: str) -> Call:
        return self.scripts.migration(vm.current.tm_mad, verb, argv, document)

    def _backup_argv(self, vm: VirtualMachine) -> list[str]:
        disks = ":".join(map(str, vm.backed_up_disks()))
        return [
            f"{vm.host}:{vm.directory}",
            disks,
            vm.deploy_id,
            "-",
            str(vm.identifier),
            str(vm.current.datastore_id),
        ]

    def _backed_up(self, vm: VirtualMachine, datastore: Datastore, words: list[str]) -> Image:
        """What oned books: an image, or one more increment of one; then what KEEP_LAST does not keep goes."""
        backups = vm.backups
        source, size, form = [*words, "raw"][:3]
        image_id = backups.image_id if backups.is_increment else -1
        with self.lock:
            image = self.image(image_id) if image_id >= 0 else self._new_backup(vm, datastore, source, int(size), form)
            if backups.is_increment:
                last = image.increments[-1].identifier if image.increments else -1
                kind = "FULL" if last < 0 else "INCREMENT"
                image.increments.append(Increment(last + 1, last, source, int(size), kind))
                image.size = sum(found.size for found in image.increments)
                backups.config.update(INCREMENTAL_BACKUP_ID=str(image.identifier), LAST_INCREMENT_ID=str(last + 1))
            backups.clear_last()
        if image_id < 0:
            for old in backups.ids[: -backups.keep_last] if backups.keep_last else []:
                with suppress(ActionFailed, Refused):
                    self.delete_image(self.image(old))
        elif 0 < backups.keep_last < len(image.increments):
            self._flatten(vm, image)
        return image

    def _new_backup(self, vm: VirtualMachine, datastore: Datastore, source: str, size: int, form: str) -> Image:
        name = f"{vm.identifier} {time.strftime('%d-%b %H.%M.%S')}"
        image = self._allocate(datastore, name, "BACKUP", True, size, None)
        image.source, image.format, image.attributes = source, form, {}
        image.vms, image.backup_disk_ids = [vm.identifier], vm.backed_up_disks()
        image.become(ImageState.READY)
        datastore.images.append(image.identifier)
        vm.backups.ids.append(image.identifier)
        return image

    def _flatten(self, vm: VirtualMachine, image: Image) -> None:
        """oned does so after the backup is done, and refuses another one meanwhile."""
        datastore = self.datastore(image.datastore_id)
        keep = markup.element("EXTRA_DATA", markup.text("KEEP_LAST", vm.backups.keep_last))
        arguments = self.action_arguments(image.xml(self.release) + datastore.xml() + keep, image.identifier)
        vm.backups.config["ACTIVE_FLATTEN"] = "YES"
        image.become(ImageState.LOCKED)
        call = self.scripts.datastore(datastore.ds_mad, "increment_flatten", *arguments)
        try:
            if not call.succeeded:
                raise Refused(call.stderr.strip())
            size, chain = call.stdout.split()
            image.increments = flattened(image.increments, int(size), chain)
            image.size = sum(found.size for found in image.increments)
        except (Refused, ValueError) as failure:
            image.attributes["ERROR"] = f"{time.ctime()} : Error flattening backup increments: {failure}"
        image.become(ImageState.READY)
        vm.backups.config["ACTIVE_FLATTEN"] = "NO"

    def backup_cancel(self, vm: VirtualMachine) -> None:
        """`onevm backup-cancel`, while `backup` runs in another thread: only the datastore's script is told."""
        if vm.lcm_state not in (LcmState.BACKUP, LcmState.BACKUP_POWEROFF):
            raise Refused(f"Could not cancel backup for VM {vm.identifier}, no backup in progress")
        datastore = self.datastore(int(vm.backups.config["LAST_DATASTORE_ID"]))
        document = vm.xml(only_last_record=True)
        call = self.scripts.datastore(datastore.ds_mad, "backup_cancel", self._backup_argv(vm), document)
        if not call.succeeded:
            raise ActionFailed(call)

    # --- restoring --------------------------------------------------------------------------------------------------

    def restore_in_place(self, vm: VirtualMachine, image: Image, increment: int = -1, disk: int = -1) -> None:
        """`onevm restore` of a VM in POWEROFF; its snapshots are forgotten, and the next backup is a full one."""
        if self.release.version < (6, 10):
            raise Refused("Requested method one.vm.restore not found")
        if vm.state != VmState.POWEROFF:
            raise Refused("Could not restore VM, it must be in poweroff")
        if image.type != "BACKUP":
            raise Refused("Can only restore images of type BACKUP")
        vm.place(vm.host, vm.current.host_id, vm.current.datastore, vm.current.tm_mad)
        words = (vm.identifier, image.identifier, increment, disk)
        line = f"RESTORE {vm.current.tm_mad} {vm.host}:{vm.directory} {' '.join(map(str, words))}"
        with self._meanwhile(vm, LcmState.RESTORE):
            call = self.scripts.transfer_line(line)
        if not call.succeeded:
            raise ActionFailed(call)
        for restored in vm.disks:
            if not restored.yes("SAVE"):
                vm.snapshots.pop(restored.disk_id, None)
        if vm.backups.config:
            vm.backups.begin_anew()

    def restore_to_new_images(
        self, image: Image, datastore: Datastore, increment: int = -1, disk: int = -1, name: str = ""
    ) -> list[Image]:
        """`oneimage restore`: the backup datastore's script asks for images, which are filled afterwards."""
        with self.lock:
            request_id = self.next_request_id
            self.next_request_id += 1
        wanted = {"USERNAME": "oneadmin", "NAME": name}
        wanted.update({key: str(number) for key, number in _chosen(increment, disk).items()})
        source = self.datastore(image.datastore_id)
        document = (
            image.xml(self.release)
            + source.xml()
            + markup.text("DESTINATION_DS_ID", datastore.identifier)
            + markup.element("TEMPLATE", markup.attributes({key: value for key, value in wanted.items() if value}))
        )
        call = self.scripts.datastore(source.ds_mad, "restore", *self.action_arguments(document, request_id))
        if not call.succeeded:
            raise ActionFailed(call)
        made = [self.image(int(word)) for word in call.stdout.split()[1:]]
        for restored in made:
            self._fill_from_path(restored, datastore)
        return made

    def _allocate_image(self, template: str, datastore_id: int, _no_check_capacity: bool = False) -> int:
        """Of a backup too: it stays LOCKED until it is filled."""
        given = templates.single(templates.parse(template))
        if "FROM_BACKUP_DS" not in given:
            return super()._allocate_image(template, datastore_id, _no_check_capacity)
        path, kind, name = given.pop("PATH"), given.pop("TYPE", "OS"), given.pop("NAME", "")
        size = self.stat(self.datastore(int(given["FROM_BACKUP_DS"])), path, kind)
        image = self._allocate(self.datastore(datastore_id), name, kind, False, size, given)
        image.path = path
        return image.identifier


def _chosen(increment: int, disk: int) -> dict[str, int]:
    chosen = {"INCREMENT_ID": increment, "DISK_ID": disk}
    return {name: number for name, number in chosen.items() if number >= 0}


def _value(value: object) -> str:
    return {True: "YES", False: "NO"}[value] if isinstance(value, bool) else str(value)
