"""vmm/kvm/save_linstor_un: suspend a VM, its memory on a volume.

Arguments: DOMAIN CHECKPOINT HOST VMID HOST; stdin is the base64 of <VMM_DRIVER_ACTION_DATA>. Runs on the front-end
instead of kvm/save (VM_MAD: `-l save=save_linstor_un`).
"""

from __future__ import annotations

from linstor_un import locks, log
from linstor_un.actions import checkpoint, new_volume
from linstor_un.actions.checkpoint import Checkpoint
from linstor_un.actions.new_volume import NewVolume
from linstor_un.cluster import placement as placements
from linstor_un.cluster import replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.volumes import Volume
from linstor_un.driver import Call
from linstor_un.errors import DriverError, NotReady
from linstor_un.hosts import virsh
from linstor_un.opennebula import arguments
from linstor_un.undo import Undo, go_on_undisturbed
from linstor_un.units import KIB_PER_MIB

# Beyond the guest's RAM: the domain's XML, video RAM, the state of devices, headers of pages.
_OVERHEAD_MIB = 512
_OVERHEAD_PERCENT = 5


def run(call: Call) -> None:
    """Save the VM to a new volume; where that fails the VM runs on and the volume goes."""
    arguments.expect(call.arguments, "DOMAIN", "CHECKPOINT", "HOST", "VMID", "HOST")
    domain, path, host, vm_id, _ = call.arguments
    wanted = checkpoint.decode(call, domain, path, host, vm_id)
    if not wanted.is_ours:
        wanted.hand_over(call, "save")
        return
    _save(wanted)


def _save(wanted: Checkpoint) -> None:
    gateway, names = wanted.gateway(), wanted.settings.names
    placement = placements.of(checkpoint.replicated(wanted.settings), wanted.datastore.label)
    owner = {names.vm_id: str(wanted.vm.vm_id)}
    with locks.of_volume(wanted.settings, wanted.resource), Undo() as undo:
        existing = wanted.volume(gateway)
        if existing is not None and _is_saved_already(wanted, existing, gateway, undo):
            log.info(f"{wanted.domain} was saved to {existing.resource} before")
            replicas.detach(gateway, existing.resource, wanted.host.name)
            gateway.modify_resource_definition(existing.resource, {}, [names.incomplete])
            return
        size_kib = _size_mib(wanted) * KIB_PER_MIB
        volume = new_volume.make(gateway, undo, wanted.resource, size_kib, placement, owner, writer=wanted.host.name)
        _write(wanted, volume, undo)
        try:
            new_volume.leave_writer(gateway, volume)
            new_volume.finish(gateway, volume)
        except DriverError as error:
            log.warning(f"{wanted.domain} is saved, and its volume is not as tidy as it should be: {error}")


def _is_saved_already(wanted: Checkpoint, existing: Volume, gateway: Gateway, undo: Undo) -> bool:
    """Tell whether an earlier run has saved the VM: its memory is nowhere else then; raises NotReady."""
    if existing.is_being_deleted:
        return False
    found = virsh.state(wanted.host, wanted.domain, checkpoint.attach(wanted, existing, gateway, undo))
    if found == virsh.UNKNOWN:
        raise NotReady(
            f"libvirt on {wanted.host.name} does not say whether {wanted.domain} is there, and {existing.resource} may "
            "be its memory: see the log of libvirtd and retry"
        )
    return found == virsh.SAVED


def _write(wanted: Checkpoint, volume: NewVolume, undo: Undo) -> None:
    """Have libvirt save the VM; nothing that may be the only copy of its memory is taken back."""
    try:
        virsh.save(wanted.host, wanted.domain, volume.device, volume.size_bytes)
        # From here on the volume is the only copy of the VM's memory, whatever LINSTOR or a signal says.
        undo.forget()
        go_on_undisturbed()
    except BaseException as error:
        found = _what_became_of_it(wanted, volume)
        if found in (virsh.SAVED, virsh.UNKNOWN):
            undo.forget()
        if found != virsh.SAVED or not isinstance(error, DriverError):
            raise


def _what_became_of_it(wanted: Checkpoint, volume: NewVolume) -> str:
    """Return what the VM is after a save that failed, or that went on when we lost sight of it."""
    try:
        return virsh.stop_saving(wanted.host, wanted.domain, volume.device)
    except DriverError as error:
        log.warning(f"whether {wanted.domain} is saved is not known, so that {volume.resource} stays: {error}")
        return virsh.UNKNOWN


def _size_mib(wanted: Checkpoint) -> int:
    memory_mib = max(wanted.vm.memory_mib, 1)
    return memory_mib * (100 + _OVERHEAD_PERCENT) // 100 + _OVERHEAD_MIB
