"""tm/snap_create_live: take a snapshot of a disk of a running VM.

Arguments: HOST:SYSDIR/disk.N SNAPID VMID DSID (of the image).
"""

from __future__ import annotations

from linstor_un.actions import disk_snapshot
from linstor_un.cluster import snapshots
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.hosts import virsh
from linstor_un.undo import Undo


def run(call: Call) -> None:
    """Hold the VM, take the snapshot, let the VM go; a VM that cannot be let go has no snapshot either.

    The connection to LINSTOR is made before, so that the VM is held for one request.
    """
    wanted = disk_snapshot.begin(call)
    gateway, vm = wanted.action.gateway, wanted.action.vm
    if vm is None or not vm.deploy_id:
        raise InvalidInput(f"oned knows no domain of VM {wanted.place.vm_id}: call the action for a running VM")
    host = wanted.action.host(wanted.place.host)
    with wanted.action.lock(wanted.resource), Undo() as undo:
        gateway.connect()
        undo.push(f"snapshot {wanted.name}", lambda: snapshots.forget(gateway, wanted.resource, wanted.name))
        with virsh.held(host, vm.deploy_id, wanted.action.settings.freeze_timeout_seconds):
            snapshots.take(gateway, wanted.resource, wanted.name)
