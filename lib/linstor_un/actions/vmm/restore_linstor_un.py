"""vmm/kvm/restore_linstor_un: resume a VM from its memory on a volume, on any host.

Arguments: CHECKPOINT HOST DOMAIN VMID HOST; stdin is the base64 of <VMM_DRIVER_ACTION_DATA>. Runs on the front-end
instead of kvm/restore (VM_MAD: `-l restore=restore_linstor_un`).
"""

from __future__ import annotations

from linstor_un import log
from linstor_un import settings as settings_room
from linstor_un.actions import checkpoint, new_volume
from linstor_un.actions.checkpoint import Checkpoint
from linstor_un.cluster import placement as placements
from linstor_un.cluster import replicas, volumes
from linstor_un.cluster.volumes import Volume
from linstor_un.driver import Call
from linstor_un.errors import DriverError, NotFound
from linstor_un.hosts import virsh
from linstor_un.locks import volume_lock
from linstor_un.naming import drbd_device
from linstor_un.opennebula import arguments


def run(call: Call) -> None:
    """Restore the VM and delete the volume; a VM that was saved to a file is the stock action's."""
    arguments.expect(call.arguments, "CHECKPOINT", "HOST", "DOMAIN", "VMID", "HOST")
    path, host, domain, vm_id, _ = call.arguments
    wanted = checkpoint.decode(call, domain, path, host, vm_id)
    volume = volumes.find(wanted.gateway(), wanted.resource) if wanted.is_ours else None
    if volume is None:
        wanted.hand_over(call, "restore")
        return
    _restore(wanted, volume)


def _restore(wanted: Checkpoint, volume: Volume) -> None:
    settings, gateway, names = wanted.settings, wanted.gateway(), wanted.settings.names
    if names.incomplete in volume.properties or volume.is_being_deleted:
        raise NotFound(
            f"The memory of VM {wanted.vm.vm_id} was never saved completely to {wanted.resource}: start the VM afresh "
            "(`onevm recover --recreate` keeps persistent disks)"
        )
    with volume_lock(settings_room.lock_directory(settings), wanted.resource, settings.lock_timeout_seconds):
        replicas.attach(gateway, wanted.resource, wanted.host.name)
        placement = placements.of(checkpoint.replicated(settings), wanted.datastore.label)
        device = drbd_device(wanted.resource)
        if not placement.has_drbd:
            device = new_volume.reported_device(gateway, wanted.resource, wanted.host.name)
        virsh.restore(wanted.host, device, wanted.path)
        try:
            volumes.remove(gateway, wanted.resource)
        except DriverError as error:
            # The VM runs: its directory's delete sweeps what stays.
            log.warning(f"{error}")
