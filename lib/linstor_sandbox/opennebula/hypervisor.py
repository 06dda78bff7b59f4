"""What oned's KVM driver does on a host: start and end a domain that holds the VM's disks open."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from linstor_sandbox.opennebula.machines import Disk, VirtualMachine


class BootFailed(RuntimeError):
    """The domain cannot be started: most often because one of its disks cannot be opened."""


@dataclass
class Hypervisor:
    """Starts and ends domains over ssh; `running` says on which host a VM's domain is."""

    environment: Mapping[str, str]
    running: dict[int, str] = field(default_factory=dict)

    def start(self, vm: VirtualMachine) -> None:
        """Start the domain where the VM is; BootFailed has what virsh complained about."""
        deployment = f"{vm.directory}/deployment.{vm.current.sequence}"
        command = f"mkdir -p {vm.directory} && cat > {deployment} && virsh create {deployment}"
        done = self._ssh(vm.host, command, domain_xml(vm))
        if done.returncode != 0:
            raise BootFailed(f"VM {vm.identifier} does not start on {vm.host}: {done.stderr.strip()}")
        self.running[vm.identifier] = vm.host

    def end(self, vm: VirtualMachine) -> None:
        """End the domain wherever it is; a host that does not answer has none any more."""
        host = self.running.pop(vm.identifier, None)
        if host is not None:
            self._ssh(host, f"virsh destroy one-{vm.identifier}", "")

    def lose(self, vm: VirtualMachine) -> None:
        """The host died with the domain."""
        self.running.pop(vm.identifier, None)

    def _ssh(self, host: str, command: str, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ssh", host, command], input=text, capture_output=True, text=True, env=dict(self.environment), check=False
        )


def domain_xml(vm: VirtualMachine) -> str:
    """As much of a domain as says which disks it opens."""
    disks = "".join(_disk_xml(vm, disk) for disk in vm.disks)
    return (
        f"<domain type='kvm'><name>one-{vm.identifier}</name><uuid>{vm.deploy_id}</uuid>"
        f"<devices>{disks}</devices></domain>\n"
    )


def _disk_xml(vm: VirtualMachine, disk: Disk) -> str:
    device, read_only = ("cdrom", "<readonly/>") if disk.type == "CDROM" else ("disk", "")
    source = quoteattr(f"{vm.directory}/disk.{disk.disk_id}")
    target = quoteattr(disk.attributes["TARGET"])
    return (
        f"<disk type='block' device='{device}'><source dev={source}/><target dev={target}/>{read_only}"
        "<driver name='qemu' type='raw' cache='none' discard='unmap'/></disk>"
    )
