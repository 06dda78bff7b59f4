"""vmm/kvm/restore_linstor_un: resume a VM from its memory on a volume, on any host.

Arguments: CHECKPOINT HOST DOMAIN VMID HOST; stdin is the base64 of <VMM_DRIVER_ACTION_DATA>. Runs on the front-end
instead of kvm/restore (VM_MAD: `-l restore=restore_linstor_un`).
"""

from __future__ import annotations

from linstor_un import locks, log
from linstor_un.actions import checkpoint
from linstor_un.actions.checkpoint import Checkpoint
from linstor_un.cluster import volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.volumes import Volume
from linstor_un.driver import Call
from linstor_un.errors import DriverError, NotFound
from linstor_un.hosts import virsh
from linstor_un.opennebula import arguments
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Restore the VM and delete the volume; a VM that was saved to a file is the stock action's."""
    arguments.expect(call.arguments, "CHECKPOINT", "HOST", "DOMAIN", "VMID", "HOST")
    path, host, domain, vm_id, _ = call.arguments
    wanted = checkpoint.decode(call, domain, path, host, vm_id)
    if not wanted.is_ours:
        wanted.hand_over(call, "restore")
        return
    gateway = wanted.gateway()
    volume = wanted.volume(gateway)
    if volume is not None and not volume.is_being_deleted:
        _restore(wanted, gateway, volume)
    elif virsh.state(wanted.host, domain) == virsh.RUNNING:
        log.info(f"{domain} was restored before")
    elif volume is not None:
        raise NotFound(
            f"The memory of VM {wanted.vm.vm_id} is being deleted with {volume.resource}: start the VM afresh "
            "(`onevm recover --recreate` keeps persistent disks)"
        )
    else:
        wanted.hand_over(call, "restore")


def _restore(wanted: Checkpoint, gateway: Gateway, volume: Volume) -> None:
    with locks.of_volume(wanted.settings, wanted.resource), Undo() as undo:
        # A save that was cut short has left an image that libvirt itself refuses.
        virsh.restore(wanted.host, wanted.domain, checkpoint.attach(wanted, volume, gateway, undo), wanted.path)
        undo.forget()
        try:
            volumes.remove(gateway, volume.resource)
        except DriverError as error:
            # The VM runs: its directory's delete sweeps what stays.
            log.warning(f"{error}")
