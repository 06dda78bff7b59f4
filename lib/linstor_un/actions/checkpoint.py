"""The memory of a suspended VM, on a replicated volume: any host can resume it.

Both overrides replace a stock action of the hypervisor for all VMs, so that a VM of another driver's system datastore
goes through to the stock action, unchanged.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple, Optional

from linstor_un import settings as settings_room
from linstor_un.actions import attachment, new_volume, own_volume, transfer
from linstor_un.cluster import placement as placements
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.volumes import Volume
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput, InvalidSetting
from linstor_un.hosts import runner, virsh
from linstor_un.hosts.runner import Host
from linstor_un.opennebula import arguments, decoding, model
from linstor_un.opennebula.model import Datastore, VirtualMachine
from linstor_un.settings import Settings
from linstor_un.undo import Undo


class Checkpoint(NamedTuple):
    """The decoded call: the VM's domain on a host, and the path at which the stock action would keep its memory."""

    vm: VirtualMachine
    domain: str
    path: str
    host: Host
    datastore: Datastore
    settings: Settings
    document: bytes

    @property
    def is_ours(self) -> bool:
        """Tell whether the VM's system datastore and all its disks are this driver's."""
        is_on_ours = self.datastore.transfer_driver == transfer.DRIVER
        return is_on_ours and all(map(transfer.may_be_own, self.vm.disks))

    @property
    def resource(self) -> str:
        """Return the name that the checkpoint's volume should have."""
        return self.settings.names.checkpoint(self.vm.vm_id)

    def volume(self, gateway: Gateway) -> Optional[Volume]:
        """Return the checkpoint's volume; one that is being deleted only where there is no other."""
        return own_volume.find(gateway, self.settings.names, self.resource)

    def gateway(self) -> Gateway:
        """Return the way to the system datastore's LINSTOR."""
        return Gateway(self.settings)

    def hand_over(self, call: Call, verb: str) -> None:
        """Run the stock action on the host, as one_vmm_exec would have."""
        virsh.stock_action(self.host, verb, call.arguments, self.document)


def decode(call: Call, domain: str, path: str, host: str, vm_id: str) -> Checkpoint:
    """Decode and check the input; raises InvalidInput and InvalidSetting."""
    document = decoding.decode(call.standard_input)
    tree = decoding.parse(document, "VMM_DRIVER_ACTION_DATA")
    machine, datastore = tree.find("VM"), tree.find("DATASTORE")
    if machine is None or datastore is None:
        raise InvalidInput("<VM> or <DATASTORE> is missing from the action's XML: call it as OpenNebula does")
    vm = model.virtual_machine(machine)
    if arguments.identifier(vm_id, "VMID") != vm.vm_id:
        raise InvalidInput(f"The action is called for VM {vm_id} and its XML is of VM {vm.vm_id}")
    arguments.domain(domain)
    if not path.startswith("/") or ".." in path.split("/") or not re.fullmatch(r"[\w./+@-]+", path):
        raise InvalidInput(f"{path[:200]!r} is not the path of a checkpoint: call the action as OpenNebula does")
    own = model.datastore(datastore)
    # Another driver's attributes may mean anything.
    attributes = own.attributes if own.transfer_driver == transfer.DRIVER else {}
    settings = settings_room.for_datastore(call.configuration, attributes, own.label)
    where = runner.host(arguments.hostname(host), settings)
    return Checkpoint(vm, domain, "/" + posixpath.normpath(path).lstrip("/"), where, own, settings, document)


def attach(wanted: Checkpoint, volume: Volume, gateway: Gateway, undo: Undo) -> str:
    """Make the checkpoint's volume available on the VM's host and return its device there."""
    attachment.attach(gateway, undo, volume.resource, wanted.host.name, lambda: False)
    placement = placements.of(replicated(wanted.settings), wanted.datastore.label)
    return new_volume.device(gateway, volume.resource, placement.layers, wanted.host.name)


def replicated(settings: Settings) -> Settings:
    """Return the settings by which a checkpoint is placed: CHECKPOINT_REPLICA_COUNT instead of REPLICA_COUNT.

    Raises InvalidSetting where NODE_LIST has fewer nodes.
    """
    count = settings.checkpoint_replica_count
    if count is None:
        return settings
    if settings.node_list and count > len(settings.node_list):
        raise InvalidSetting(
            f'CHECKPOINT_REPLICA_COUNT="{count}" contradicts NODE_LIST="{" ".join(settings.node_list)}": name at least '
            "as many nodes, or ask for fewer replicas"
        )
    return settings._replace(replica_count=count, node_list=settings.node_list[:count])
