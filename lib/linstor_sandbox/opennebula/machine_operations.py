"""What users do with VMs, and the transfer scripts that oned runs for it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Optional

from linstor_sandbox.opennebula import machines, markup, templates, transfers
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.hypervisor import BootFailed, HypervisorFailed, checkpoint
from linstor_sandbox.opennebula.image_operations import ImageOperations
from linstor_sandbox.opennebula.machines import Disk, History, LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.templates import Vector

# A failed state, and the step that recover --retry runs again.
_MIGRATIONS = {
    VmState.ACTIVE: (LcmState.PROLOG_MIGRATE, LcmState.PROLOG_MIGRATE_FAILURE),
    VmState.POWEROFF: (LcmState.PROLOG_MIGRATE_POWEROFF, LcmState.PROLOG_MIGRATE_POWEROFF_FAILURE),
    VmState.SUSPENDED: (LcmState.PROLOG_MIGRATE_SUSPEND, LcmState.PROLOG_MIGRATE_SUSPEND_FAILURE),
}
# A step that restores a VM's memory, and the state when it fails; a suspended VM is SUSPENDED again.
_RESTORES = {
    LcmState.BOOT_STOPPED: LcmState.BOOT_STOPPED_FAILURE,
    LcmState.BOOT_MIGRATE: LcmState.BOOT_MIGRATE_FAILURE,
}


class MachineOperations(ImageOperations):
    """onevm create, migrate, stop, ...; each raises ActionFailed after it has set the states that oned would set."""

    # --- life -------------------------------------------------------------------------------------------------------

    def instantiate(self, template: str, host: str, system: Datastore, name: str = "") -> VirtualMachine:
        """`onevm create` and `onevm deploy`: the template has DISK = [ ... ] and perhaps CONTEXT = [ ... ]."""
        vm = self.create_vm(template, system, name)
        self.deploy(vm, host, system)
        return vm

    def create_vm(self, template: str, system: Datastore, name: str = "") -> VirtualMachine:
        """`onevm create`: the VM is PENDING and its images are taken; no script runs."""
        parsed = templates.parse(template)
        with self.lock:
            identifier = self.next_vm_id
            self.next_vm_id += 1
            attributes = {"CPU": "0.1", "MEMORY": "128", **templates.single(parsed)}
            name = name or attributes.get("NAME", f"vm-{identifier}")
            vm = VirtualMachine(identifier, name, str(uuid.uuid4()), attributes, created=int(time.time()))
            try:
                for number, wanted in enumerate(templates.vectors(parsed, "DISK")):
                    vm.disks.append(self._new_disk(vm, {**wanted, "DISK_ID": str(number)}, system))
            except Refused:
                self._release_images(vm)
                raise
            self.machines.append(vm)
            for config in templates.vectors(parsed, "BACKUP_CONFIG"):
                vm.backups.configure(config, self.release.has_increments, append=False)
            for context in templates.vectors(parsed, "CONTEXT"):
                vm.context = {**context, "DISK_ID": str(len(vm.disks))}
            machines.assign_targets(vm)
            return vm

    def deploy(self, vm: VirtualMachine, host: str, system: Datastore) -> None:
        """`onevm deploy` of a VM that is PENDING, STOPPED or UNDEPLOYED."""
        if vm.state in (VmState.STOPPED, VmState.UNDEPLOYED):
            self._bring_back(vm, host, system)
            return
        self._adapt(vm, system)
        vm.place(host, self.host_id(host), system)
        self._adopt(vm, system)
        self._prolog(vm)

    def _adapt(self, vm: VirtualMachine, system: Datastore) -> None:
        """What oned checks before a VM's first deployment: may its disks be in this system datastore? Refused."""
        if vm.tm_mad_system:
            return
        for disk in vm.disks:
            if not disk.volatile:
                machines.adapt(disk, self.datastore(int(disk.attributes["DATASTORE_ID"])), system.tm_mad)
        vm.tm_mad_system = system.tm_mad

    def terminate(self, vm: VirtualMachine) -> None:
        """`onevm terminate`: mvds or delete of every disk, then the directory; of a parked VM on the front-end."""
        parked = vm.state in (VmState.STOPPED, VmState.UNDEPLOYED)
        self._epilog(vm, self.frontend if parked else vm.host)

    def _prolog(self, vm: VirtualMachine) -> None:
        vm.become(VmState.ACTIVE, LcmState.PROLOG)
        self._transfer(vm, transfers.prolog(vm, self.frontend), LcmState.PROLOG_FAILURE)
        self._boot(vm, LcmState.BOOT)

    def _epilog(self, vm: VirtualMachine, host: str) -> None:
        self.hypervisor.end(vm)
        vm.become(VmState.ACTIVE, LcmState.EPILOG)
        self._transfer(vm, transfers.epilog(vm, host), LcmState.EPILOG_FAILURE)
        self._ended(vm)

    def _ended(self, vm: VirtualMachine) -> None:
        vm.become(VmState.DONE)
        self._release_images(vm)

    # --- parking ----------------------------------------------------------------------------------------------------

    def stop(self, vm: VirtualMachine) -> None:
        """`onevm stop`: the memory is saved, and everything moves to the front-end."""
        if vm.identifier in self.hypervisor.running:
            self._save(vm, LcmState.SAVE_STOP)
        self._park(vm, LcmState.EPILOG_STOP, LcmState.EPILOG_STOP_FAILURE, VmState.STOPPED)

    def undeploy(self, vm: VirtualMachine) -> None:
        """`onevm undeploy`: everything moves to the front-end."""
        self._park(vm, LcmState.EPILOG_UNDEPLOY, LcmState.EPILOG_UNDEPLOY_FAILURE, VmState.UNDEPLOYED)

    def _park(self, vm: VirtualMachine, step: LcmState, failure: LcmState, done: VmState) -> None:
        self.hypervisor.end(vm)
        vm.become(VmState.ACTIVE, step)
        self._transfer(vm, transfers.move(vm, (vm.host, vm.current), (self.frontend, vm.current)), failure)
        vm.become(done)

    def _bring_back(self, vm: VirtualMachine, host: str, system: Datastore) -> None:
        """`onevm resume` of a parked VM: everything moves from the front-end, perhaps to another system datastore."""
        stopped = vm.state == VmState.STOPPED
        vm.place(host, self.host_id(host), system)
        self._adopt(vm, system)
        self._unpark(vm, stopped)

    def _unpark(self, vm: VirtualMachine, stopped: bool) -> None:
        step = LcmState.PROLOG_RESUME if stopped else LcmState.PROLOG_UNDEPLOY
        failure = LcmState.PROLOG_RESUME_FAILURE if stopped else LcmState.PROLOG_UNDEPLOY_FAILURE
        vm.become(VmState.ACTIVE, step)
        before = vm.previous if self.release.resumes_from_previous_datastore else vm.current
        self._transfer(vm, transfers.move(vm, (self.frontend, before), (vm.host, vm.current)), failure)
        self._unparked(vm, stopped)

    def _unparked(self, vm: VirtualMachine, stopped: bool) -> None:
        if stopped:
            self._restore(vm, LcmState.BOOT_STOPPED)
        else:
            self._boot(vm, LcmState.BOOT_UNDEPLOY)

    # --- rest -------------------------------------------------------------------------------------------------------

    def poweroff(self, vm: VirtualMachine) -> None:
        """`onevm poweroff`: no script runs."""
        self.hypervisor.end(vm)
        vm.become(VmState.POWEROFF)

    def suspend(self, vm: VirtualMachine) -> None:
        """`onevm suspend`: the memory is saved; where that fails the VM is RUNNING."""
        self._save(vm, LcmState.SAVE_SUSPEND)
        vm.become(VmState.SUSPENDED)

    def lose_host(self, vm: VirtualMachine) -> None:
        """Monitoring does not see the VM any more: UNKNOWN."""
        self.hypervisor.lose(vm)
        vm.become(VmState.ACTIVE, LcmState.UNKNOWN)

    def resume(self, vm: VirtualMachine) -> None:
        """`onevm resume` of a VM in POWEROFF or SUSPENDED: a new history record, and the context is made again."""
        was_off = vm.state == VmState.POWEROFF
        vm.place(vm.host, vm.current.host_id, vm.current.datastore, vm.current.tm_mad)
        if was_off:
            self._boot(vm, LcmState.BOOT_POWEROFF)
        else:
            self._restore(vm, LcmState.BOOT_SUSPENDED)

    # --- moving -----------------------------------------------------------------------------------------------------

    def migrate_cold(
        self, vm: VirtualMachine, host: str, system: Optional[Datastore] = None, poff: bool = True
    ) -> None:
        """`onevm migrate --poff`: mv of every disk and of the directory; a running VM boots on the new host.

        Without `poff` its memory is saved before and restored there.
        """
        before, unknown = vm.state, vm.lcm_state == LcmState.UNKNOWN
        target, back = system or vm.current.datastore, vm.current
        self._check_snapshots(vm, target)
        vm.place(host, self.host_id(host), target)
        if poff or before != VmState.ACTIVE:
            self.hypervisor.end(vm)
        else:
            try:
                self._save(vm, LcmState.SAVE_MIGRATE, back)
            except (ActionFailed, HypervisorFailed):
                vm.place(back.host, back.host_id, back.datastore, back.tm_mad)
                raise
        self._adopt(vm, target)
        self._move(vm, before, unknown)

    def _check_snapshots(self, vm: VirtualMachine, target: Datastore) -> None:
        """Let no VM with snapshots of disks into another system datastore that does not say that it may."""
        is_another = target is not vm.current.datastore and self.release.asks_for_snapshots_that_move
        is_refused = is_another and target.attributes.get("DS_MIGRATE_SNAP") != "YES"
        if is_refused and any(vm.snapshots_of(disk).all for disk in vm.disks):
            raise Refused("[one.vm.migrate] System datastore migration with disk snapshots not supported by driver")

    def _move(self, vm: VirtualMachine, before: VmState, unknown: bool) -> None:
        step, failure = _MIGRATIONS[before]
        if unknown:
            step, failure = LcmState.PROLOG_MIGRATE_UNKNOWN, LcmState.PROLOG_MIGRATE_UNKNOWN_FAILURE
        vm.become(VmState.ACTIVE, step)
        ends = (vm.previous.host, vm.previous), (vm.host, vm.current)
        self._transfer(vm, transfers.move(vm, *ends), failure)
        self._moved(vm, before)

    def _moved(self, vm: VirtualMachine, before: VmState) -> None:
        if before != VmState.ACTIVE:
            vm.become(before)
        elif vm.is_saved:
            self._restore(vm, LcmState.BOOT_MIGRATE)
        else:
            self._boot(vm, LcmState.BOOT_MIGRATE)

    # --- disks ------------------------------------------------------------------------------------------------------

    def attach(self, vm: VirtualMachine, template: str) -> Disk:
        """`onevm disk-attach`; when that fails the disk is gone from the VM.

        When the script fails no other runs; when the hypervisor does, the disk is given back as at the VM's end.
        """
        before = vm.state
        with self.lock:
            (wanted,) = templates.vectors(templates.parse(template), "DISK")
            identified = {**wanted, "DISK_ID": str(vm.next_disk_id())}
            disk = self._new_disk(vm, identified, vm.current.datastore)
            disk.attributes["ATTACH"] = "YES"
            vm.disks = [*vm.disks, disk]
            machines.assign_targets(vm)
        hot = before == VmState.ACTIVE
        vm.become(VmState.ACTIVE, LcmState.HOTPLUG if hot else LcmState.HOTPLUG_PROLOG_POWEROFF)
        try:
            self._plug(vm, disk, hot)
        except (ActionFailed, HypervisorFailed):
            self._drop_disk(vm, disk)
            raise
        finally:
            disk.attributes.pop("ATTACH")
            vm.become(before, LcmState.RUNNING if hot else LcmState.LCM_INIT)
        if vm.backups.config and disk.disk_id in vm.backed_up_disks():
            vm.backups.begin_anew()
        return disk

    def _plug(self, vm: VirtualMachine, disk: Disk, hot: bool) -> None:
        self._line(transfers.prolog_line(vm, disk, self.frontend))
        if not hot:
            return
        try:
            self.hypervisor.attach(vm, disk)
        except HypervisorFailed:
            self.scripts.transfer_line(transfers.epilog_line(vm, disk, vm.host))
            raise

    def _line(self, line: str) -> None:
        call = self.scripts.transfer_line(line)
        if not call.succeeded:
            raise ActionFailed(call)

    def detach(self, vm: VirtualMachine, disk: Disk) -> None:
        """`onevm disk-detach`; when the hypervisor or the script fails the VM keeps the disk."""
        before = vm.state
        disk.attributes["ATTACH"] = "YES"
        hot = before == VmState.ACTIVE
        vm.become(VmState.ACTIVE, LcmState.HOTPLUG if hot else LcmState.HOTPLUG_EPILOG_POWEROFF)
        try:
            if hot:
                self.hypervisor.detach(vm, disk)
            self._line(transfers.epilog_line(vm, disk, vm.host))
            self._drop_disk(vm, disk)
        finally:
            disk.attributes.pop("ATTACH")
            vm.become(before, LcmState.RUNNING if hot else LcmState.LCM_INIT)

    def resize_disk(self, vm: VirtualMachine, disk: Disk, size: int) -> None:
        """`onevm disk-resize` to a size in MiB; when the script or virsh fails oned keeps the old size."""
        if size <= disk.size:
            raise Refused(f"[one.vm.diskresize] New disk size has to be greater than current one: {disk.size}")
        states = {
            VmState.ACTIVE: LcmState.DISK_RESIZE,
            VmState.POWEROFF: LcmState.DISK_RESIZE_POWEROFF,
            VmState.UNDEPLOYED: LcmState.DISK_RESIZE_UNDEPLOYED,
        }
        before, old = vm.state, disk.size
        disk.attributes.update(SIZE=str(size), SIZE_PREV=str(old))
        vm.become(VmState.ACTIVE, states[before])
        try:
            self._line(transfers.resize_line(vm, disk, size))
            if before == VmState.ACTIVE:
                self.hypervisor.resize(vm, disk, size)
        except (ActionFailed, HypervisorFailed):
            disk.attributes["SIZE"] = str(old)
            raise
        finally:
            vm.become(before, LcmState.RUNNING if before == VmState.ACTIVE else LcmState.LCM_INIT)
            disk.attributes.pop("SIZE_PREV")
        if disk.yes("SAVE"):
            self.image(int(disk.attributes["IMAGE_ID"])).size = size

    # --- recovery ---------------------------------------------------------------------------------------------------

    def recover_retry(self, vm: VirtualMachine) -> None:
        """`onevm recover --retry`: the whole step again, from its first line."""
        failed = vm.lcm_state
        if failed == LcmState.PROLOG_FAILURE:
            self._prolog(vm)
        elif failed == LcmState.BOOT_FAILURE:
            self._boot(vm, LcmState.BOOT)
        elif failed in _RESTORES.values():
            self._restore(vm, next(step for step, failure in _RESTORES.items() if failure == failed))
        elif failed == LcmState.EPILOG_FAILURE:
            # oned has forgotten by now that the VM was parked: it names the last host.
            self._epilog(vm, vm.host)
        elif failed == LcmState.EPILOG_STOP_FAILURE:
            self.stop(vm)
        elif failed == LcmState.EPILOG_UNDEPLOY_FAILURE:
            self.undeploy(vm)
        elif failed in (LcmState.PROLOG_RESUME_FAILURE, LcmState.PROLOG_UNDEPLOY_FAILURE):
            self._unpark(vm, stopped=failed == LcmState.PROLOG_RESUME_FAILURE)
        else:
            self._retry_move(vm, failed)

    def _retry_move(self, vm: VirtualMachine, failed: LcmState) -> None:
        self._move(vm, self._before_move(vm), unknown=failed == LcmState.PROLOG_MIGRATE_UNKNOWN_FAILURE)

    def _before_move(self, vm: VirtualMachine) -> VmState:
        befores = {failure: before for before, (_, failure) in _MIGRATIONS.items()}
        befores[LcmState.PROLOG_MIGRATE_UNKNOWN_FAILURE] = VmState.ACTIVE
        if vm.lcm_state not in befores:
            raise Refused(f"[one.vm.recover] VM {vm.identifier} cannot be recovered in {vm.lcm_state.name}")
        return befores[vm.lcm_state]

    def recover_success(self, vm: VirtualMachine) -> None:
        """`onevm recover --success`: as if the failed transfer script had succeeded; nothing of it is run."""
        failed = vm.lcm_state
        if failed == LcmState.PROLOG_FAILURE:
            self._boot(vm, LcmState.BOOT)
        elif failed == LcmState.EPILOG_FAILURE:
            self._ended(vm)
        elif failed in (LcmState.EPILOG_STOP_FAILURE, LcmState.EPILOG_UNDEPLOY_FAILURE):
            vm.become(VmState.STOPPED if failed == LcmState.EPILOG_STOP_FAILURE else VmState.UNDEPLOYED)
        elif failed in (LcmState.PROLOG_RESUME_FAILURE, LcmState.PROLOG_UNDEPLOY_FAILURE):
            self._unparked(vm, stopped=failed == LcmState.PROLOG_RESUME_FAILURE)
        else:
            self._moved(vm, self._before_move(vm))

    def recover_failure(self, vm: VirtualMachine) -> None:
        """`onevm recover --failure` of a move that failed: back to the host before, without a transfer script."""
        befores = {failure: before for before, (_, failure) in _MIGRATIONS.items()}
        before = befores[vm.lcm_state]
        back = vm.previous
        vm.place(back.host, back.host_id, back.datastore, back.tm_mad)
        self._adopt(vm, back.datastore)
        if before != VmState.ACTIVE:
            vm.become(before)
        elif vm.is_saved:
            self._restore(vm, LcmState.BOOT_MIGRATE)
        else:
            self._boot(vm, LcmState.BOOT)

    def recover_delete(self, vm: VirtualMachine) -> None:
        """`onevm recover --delete`: delete of every disk on every host of the move; failures are ignored."""
        self.hypervisor.end(vm)
        records = self._records_to_clean(vm)
        vm.become(VmState.DONE)
        self._clean(vm, records)
        self._release_images(vm, failed=True)

    def recover_recreate(self, vm: VirtualMachine) -> None:
        """`onevm recover --recreate`: as --delete, then the VM is PENDING and can be deployed again."""
        self.hypervisor.end(vm)
        records = self._records_to_clean(vm)
        vm.become(VmState.ACTIVE, LcmState.CLEANUP_RESUBMIT)
        self._clean(vm, records)
        vm.forget_own_disks()
        vm.become(VmState.PENDING)

    def _records_to_clean(self, vm: VirtualMachine) -> list[History]:
        moving = vm.lcm_state.name.startswith("PROLOG_MIGRATE")
        return [vm.current, vm.previous] if moving else [vm.current]

    def _clean(self, vm: VirtualMachine, records: Sequence[History]) -> None:
        for record in records:
            for line in transfers.delete(vm, record):
                self.scripts.transfer_line(line)

    # --- memory -----------------------------------------------------------------------------------------------------

    def _save(self, vm: VirtualMachine, step: LcmState, record: Optional[History] = None) -> None:
        """What one_vmm_exec does: its own save, or the override; where it fails the VM is RUNNING.

        `record` says where the VM still is when its history is ahead of it.
        """
        vm.become(VmState.ACTIVE, step)
        record = record or vm.current
        arguments = [vm.deploy_id, checkpoint(vm, record), record.host]
        try:
            if self.scripts.has_local_action("save_linstor_un"):
                self._local_action(vm, "save_linstor_un", arguments, record)
                self.hypervisor.saved(vm)
            else:
                self.hypervisor.save(vm, record)
        except (ActionFailed, HypervisorFailed):
            vm.become(VmState.ACTIVE, LcmState.RUNNING)
            raise
        vm.is_saved = True

    def _restore(self, vm: VirtualMachine, step: LcmState) -> None:
        """What one_vmm_exec does: the context disk, then its own restore or the override."""
        vm.become(VmState.ACTIVE, step)
        arguments = [checkpoint(vm, vm.current), vm.host, vm.deploy_id]
        try:
            self._make_context(vm)
            if self.scripts.has_local_action("restore_linstor_un"):
                self._local_action(vm, "restore_linstor_un", arguments, vm.current)
                self.hypervisor.restored(vm)
            else:
                self.hypervisor.restore(vm)
        except (ActionFailed, HypervisorFailed):
            if step == LcmState.BOOT_SUSPENDED:
                vm.become(VmState.SUSPENDED)
            else:
                vm.become(VmState.ACTIVE, _RESTORES[step])
            raise
        vm.is_saved = False
        vm.become(VmState.ACTIVE, LcmState.RUNNING)

    def _local_action(self, vm: VirtualMachine, verb: str, arguments: list[str], record: History) -> None:
        document = markup.element(
            "VMM_DRIVER_ACTION_DATA",
            markup.text("HOST", record.host),
            "<MIGR_HOST/>",
            markup.text("DEPLOY_ID", vm.deploy_id),
            "<LOCAL_DEPLOYMENT_FILE/><REMOTE_DEPLOYMENT_FILE/>",
            markup.text("CHECKPOINT_FILE", checkpoint(vm, record)),
            "<TM_COMMAND/><TM_COMMAND_ROLLBACK/><DISK_TARGET_PATH/>",
            vm.xml(only_last_record=True),
            record.datastore.xml(),
        )
        argv = [*arguments, str(vm.identifier), record.host]
        call = self.scripts.local_action(verb, argv, markup.base64_text(document))
        if not call.succeeded:
            raise ActionFailed(call)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _transfer(self, vm: VirtualMachine, lines: Sequence[str], failure: LcmState) -> None:
        try:
            self.scripts.transfer(lines)
        except ActionFailed:
            vm.become(VmState.ACTIVE, failure)
            raise

    def _boot(self, vm: VirtualMachine, step: LcmState) -> None:
        """What one_vmm_exec does: the context disk, then the domain."""
        vm.become(VmState.ACTIVE, step)
        vm.is_saved = False
        try:
            self._make_context(vm)
            self.hypervisor.start(vm)
        except (ActionFailed, BootFailed):
            vm.become(VmState.ACTIVE, LcmState.BOOT_FAILURE)
            raise
        vm.become(VmState.ACTIVE, LcmState.RUNNING)

    def _make_context(self, vm: VirtualMachine) -> None:
        if vm.context:
            file = self._write_context(vm, vm.context)
            self.scripts.transfer([transfers.context_line(vm, file, int(vm.context["DISK_ID"]))])

    def _write_context(self, vm: VirtualMachine, context: Vector) -> str:
        directory = self.var / "vms" / str(vm.identifier)
        directory.mkdir(parents=True, exist_ok=True)
        escaped = {name: value.replace("'", "'\\''") for name, value in sorted(context.items())}
        lines = [f"{name}='{value}'\n" for name, value in escaped.items()]
        (directory / "context.sh").write_text(
            "# Context variables generated by OpenNebula\n" + "".join(lines), encoding="utf-8"
        )
        return str(directory / "context.sh")

    def _new_disk(self, vm: VirtualMachine, wanted: Vector, system: Datastore) -> Disk:
        if "IMAGE_ID" not in wanted:
            conf = self.tm_mad_confs.get(system.tm_mad, {})
            return Disk(
                machines.volatile_disk(wanted, system, conf.get("DRIVER", "") * self.release.forces_volatile_format)
            )
        image = self.image(int(wanted["IMAGE_ID"]))
        datastore = self.datastore(image.datastore_id)
        disk = Disk(machines.image_disk(wanted, image, datastore))
        machines.adapt(disk, datastore, vm.tm_mad_system)
        self.use_image(image, vm.identifier)
        disk.attributes["IMAGE_STATE"] = str(int(image.state))
        if image.persistent:
            vm.snapshots[disk.disk_id] = image.snapshots
        return disk

    def _drop_disk(self, vm: VirtualMachine, disk: Disk) -> None:
        with self.lock:
            vm.disks = [other for other in vm.disks if other is not disk]
            # A later disk may get the same id.
            vm.snapshots.pop(disk.disk_id, None)
        if not disk.volatile:
            self.release_image(self.image(int(disk.attributes["IMAGE_ID"])), vm.identifier)

    def _adopt(self, vm: VirtualMachine, system: Datastore) -> None:
        """Volatile disks belong to the system datastore where the VM is."""
        for disk in vm.disks:
            if disk.volatile:
                disk.attributes.update(DATASTORE=system.name, DATASTORE_ID=str(system.identifier))

    def _release_images(self, vm: VirtualMachine, failed: bool = False) -> None:
        for disk in vm.disks:
            if not disk.volatile:
                self.release_image(self.image(int(disk.attributes["IMAGE_ID"])), vm.identifier, failed)
