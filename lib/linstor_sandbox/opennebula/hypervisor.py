"""What oned's KVM driver does on a host: start, end, save, restore and move a domain that holds the VM's disks open."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from linstor_sandbox.opennebula.machines import Disk, History, VirtualMachine, directory
from linstor_sandbox.opennebula.releases import Release


class BootFailed(RuntimeError):
    """The domain cannot be started: most often because one of its disks cannot be opened."""


class HypervisorFailed(RuntimeError):
    """What a domain was to do failed; it runs on as before."""


@dataclass
class Hypervisor:
    """Starts and ends domains over ssh; `running` says on which host a VM's domain is."""

    environment: Mapping[str, str]
    release: Release
    running: dict[int, str] = field(default_factory=dict)

    def start(self, vm: VirtualMachine) -> None:
        """Start the domain where the VM is; BootFailed has what virsh complained about."""
        deployment = f"{vm.directory}/deployment.{vm.current.sequence}"
        command = f"mkdir -p {vm.directory} && cat > {deployment} && virsh create {deployment}"
        done = self._ssh(vm.host, command, domain_xml(vm, self.release))
        if done.returncode != 0:
            raise BootFailed(f"VM {vm.identifier} does not start on {vm.host}: {done.stderr.strip()}")
        self.running[vm.identifier] = vm.host

    def save(self, vm: VirtualMachine, record: History) -> None:
        """The stock action: the memory goes to a file of the VM's directory; HypervisorFailed, and the VM runs on."""
        self._virsh(vm, record.host, f"virsh save {vm.deploy_id} {checkpoint(vm, record)}")
        self.running.pop(vm.identifier, None)

    def saved(self, vm: VirtualMachine) -> None:
        """An override has saved the VM."""
        self.running.pop(vm.identifier, None)

    def restore(self, vm: VirtualMachine) -> None:
        """The stock action, with the paths of the system datastore where the VM is now; HypervisorFailed."""
        file = checkpoint(vm, vm.current)
        paths = f"s%{vm.current.datastore.location}/[0-9]*/{vm.identifier}/%{vm.directory}/%g"
        self._virsh(
            vm,
            vm.host,
            f"virsh save-image-dumpxml {file} > {file}.xml && sed -i '{paths}' {file}.xml && "
            f"virsh restore {file} --xml {file}.xml && rm -f {file} {file}.xml",
        )
        self.restored(vm)

    def restored(self, vm: VirtualMachine) -> None:
        """An override has restored the VM."""
        self.running[vm.identifier] = vm.host

    def migrate(self, vm: VirtualMachine, source: str) -> None:
        """kvm/migrate from `source` to where the VM is going; HypervisorFailed.

        A disk that is a link is at the destination too; where hosts share no files, what is a file is copied.
        """
        there = f"qemu+ssh://{vm.host}/system"
        is_shared = vm.current.datastore.attributes.get("SHARED", "YES").upper() == "YES"
        try:
            if not is_shared:
                self._bring_files(vm, source)
            self._virsh(vm, source, f"virsh migrate --live {vm.deploy_id} {there}")
        except HypervisorFailed:
            self._ssh(source, f"virsh --connect {there} destroy {vm.deploy_id}", "")
            self._ssh(source, f"virsh --connect {there} undefine {vm.deploy_id}", "")
            if not is_shared:
                self._ssh(vm.host, f"rm -rf {vm.directory}", "")
            raise
        self.running[vm.identifier] = vm.host

    def _bring_files(self, vm: VirtualMachine, source: str) -> None:
        """Every disk of the domain by the path that it has there: links are made anew, files are copied."""
        shown = self._ssh(source, f"virsh domblklist {vm.deploy_id}", "").stdout.splitlines()[2:]
        for path in [line.split()[1] for line in shown if line.strip()]:
            self._virsh(vm, source, f"test -L {path} || test -f {path}")
            self._ssh(vm.host, f"mkdir -p {path.rpartition('/')[0]}", "")
            link = self._ssh(source, f"test ! -L {path} || basename $(dirname $(readlink {path}))", "").stdout.strip()
            if link:
                self._ssh(vm.host, f"[ -L {path} ] || ln -s /dev/drbd/by-res/{link}/0 {path}", "")
                continue
            with subprocess.Popen(
                ["ssh", source, f"cat {path}"], stdout=subprocess.PIPE, env=dict(self.environment)
            ) as sent:
                subprocess.run(
                    ["ssh", vm.host, f"cat > {path}"], stdin=sent.stdout, env=dict(self.environment), check=False
                )

    def change_context(self, vm: VirtualMachine) -> None:
        """kvm/migrate within one host: disks stay as they were opened, the context is the new directory's."""
        assert vm.context is not None
        file = f"{vm.directory}/disk.{vm.context['DISK_ID']}"
        change = f"virsh change-media {vm.deploy_id} {vm.context['TARGET']} {file} --update --force"
        self._virsh(vm, vm.host, change)

    def attach(self, vm: VirtualMachine, disk: Disk) -> None:
        """kvm/attach_disk; HypervisorFailed when the disk cannot be opened."""
        self._virsh(vm, vm.host, f"virsh attach-device {vm.deploy_id} /dev/stdin", _disk_xml(vm, disk, self.release))

    def detach(self, vm: VirtualMachine, disk: Disk) -> None:
        """kvm/detach_disk; HypervisorFailed when the domain does not have the disk."""
        target = disk.attributes["TARGET"]
        self._virsh(vm, vm.host, f"virsh detach-disk --domain {vm.deploy_id} --target {target}")

    def resize(self, vm: VirtualMachine, disk: Disk, size_mib: int) -> None:
        """kvm/resize_disk; HypervisorFailed when the host's device is smaller."""
        target = disk.attributes["TARGET"]
        self._virsh(vm, vm.host, f"virsh blockresize {vm.deploy_id} {target} {size_mib}M")

    def _virsh(self, vm: VirtualMachine, host: str, command: str, text: str = "") -> None:
        done = self._ssh(host, command, text)
        if done.returncode != 0:
            raise HypervisorFailed(f"VM {vm.identifier} on {host}: {command.split()[1]}: {done.stderr.strip()}")

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


def checkpoint(vm: VirtualMachine, record: History) -> str:
    """The file in which the stock actions keep a VM's memory."""
    return f"{directory(vm.identifier, record)}/checkpoint"


def domain_xml(vm: VirtualMachine, release: Release) -> str:
    """As much of a domain as says which disks it opens."""
    disks = "".join(_disk_xml(vm, disk, release) for disk in vm.disks)
    memory = int(vm.attributes["MEMORY"]) * 1024
    return (
        f"<domain type='kvm'><name>one-{vm.identifier}</name><uuid>{vm.deploy_id}</uuid><memory>{memory}</memory>"
        f"<devices>{disks}{_context_xml(vm)}</devices></domain>\n"
    )


def _context_xml(vm: VirtualMachine) -> str:
    if vm.context is None:
        return ""
    source, target = quoteattr(f"{vm.directory}/disk.{vm.context['DISK_ID']}"), quoteattr(vm.context["TARGET"])
    return f"<disk type='file' device='cdrom'><source file={source}/><target dev={target}/><readonly/></disk>"


def _disk_xml(vm: VirtualMachine, disk: Disk, release: Release) -> str:
    device, read_only = ("cdrom", "<readonly/>") if disk.type == "CDROM" else ("disk", "")
    source = quoteattr(f"{vm.directory}/disk.{disk.disk_id}")
    target = quoteattr(disk.attributes["TARGET"])
    if disk.type == "RBD":
        name = quoteattr(f"one/one-{vm.identifier}-{disk.disk_id}")
        return f"<disk type='network' device='disk'><source protocol='rbd' name={name}/><target dev={target}/></disk>"
    kind, where = ("block", "dev") if _is_block(disk, release) else ("file", "file")
    return (
        f"<disk type='{kind}' device='{device}'><source {where}={source}/><target dev={target}/>{read_only}"
        "<driver name='qemu' type='raw' cache='none' discard='unmap'/></disk>"
    )


def _is_block(disk: Disk, release: Release) -> bool:
    """Whether oned has libvirt take a disk for a block device; what is a link to one is opened all the same."""
    if disk.type == "CDROM" and not release.opens_cdroms_as_block:
        return False
    return disk.type == "BLOCK" or disk.attributes.get("DISK_TYPE") == "BLOCK"
