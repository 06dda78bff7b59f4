"""Moving a VM while it runs."""

from __future__ import annotations

from typing import Optional

from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.hypervisor import HypervisorFailed
from linstor_sandbox.opennebula.machines import LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.scripts import Call
from linstor_sandbox.opennebula.snapshot_operations import SnapshotOperations


class LiveOperations(SnapshotOperations):
    """onevm migrate --live; whatever fails leaves the VM RUNNING, on its source until virsh has moved it."""

    def migrate_live(self, vm: VirtualMachine, host: str, system: Optional[Datastore] = None) -> None:
        """premigrate, virsh, postmigrate; failmigrate after a failure. Raises ActionFailed or HypervisorFailed."""
        before, target = vm.current, system or vm.current.datastore
        if host != before.host and target is not before.datastore:
            raise Refused("[one.vm.migrate] Cannot live migrate host and datastore at the same time.")
        if target is not before.datastore and not self._moves_live(target):
            raise Refused("[one.vm.migrate] A migration to a different system datastore cannot be performed live.")
        self._check_snapshots(vm, target)
        vm.place(host, self.host_id(host), target)
        self._adopt(vm, target)
        vm.become(VmState.ACTIVE, LcmState.MIGRATE)
        argv = [before.host, host, vm.directory, str(vm.identifier), str(target.identifier)]
        document = markup.base64_text(vm.xml(only_last_record=True))
        try:
            self._go(vm, argv, document)
        except (ActionFailed, HypervisorFailed):
            vm.place(before.host, before.host_id, before.datastore, before.tm_mad)
            self._adopt(vm, before.datastore)
            raise
        finally:
            vm.become(VmState.ACTIVE, LcmState.RUNNING)
        # A failure of postmigrate is only logged: the VM is on its new host.
        self._migration_action(vm, "postmigrate", argv, document)

    def _moves_live(self, target: Datastore) -> bool:
        return self.release.moves_live_between_datastores and target.attributes.get("DS_LIVE_MIGRATE") == "YES"

    def _go(self, vm: VirtualMachine, argv: list[str], document: str) -> None:
        call = self._migration_action(vm, "premigrate", argv, document)
        if not call.succeeded:
            if self.release.fails_migration_after_premigrate:
                self._migration_action(vm, "failmigrate", argv, document)
            raise ActionFailed(call)
        try:
            if argv[0] != vm.host:
                self.hypervisor.migrate(vm, argv[0])
            elif vm.context is not None:
                self.hypervisor.change_context(vm)
        except HypervisorFailed:
            self._migration_action(vm, "failmigrate", argv, document)
            raise

    def _migration_action(self, vm: VirtualMachine, verb: str, argv: list[str], document: str) -> Call:
        return self.scripts.migration(vm.current.tm_mad, verb, argv, document)
