"""A small stand-in for oned: keeps datastores, images and VMs, answers XML-RPC, runs the entry scripts of a driver."""

from __future__ import annotations

from linstor_sandbox.opennebula.cloud import Cloud
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.errors import ActionFailed, Refused
from linstor_sandbox.opennebula.hypervisor import BootFailed, HypervisorFailed
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.machines import LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.releases import Release
from linstor_sandbox.opennebula.scripts import Call

__all__ = [
    "ActionFailed",
    "BootFailed",
    "Call",
    "Cloud",
    "Datastore",
    "HypervisorFailed",
    "Image",
    "ImageState",
    "LcmState",
    "Refused",
    "Release",
    "VirtualMachine",
    "VmState",
]
