"""What the hosts have: links without device, devices without link, and what is left of VMs that are elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, Optional, Union

from linstor_un.cli.auditing.finding import ASK, SAFE, Finding, Repair
from linstor_un.cli.inventory import Inventory, Site, Wanted, own
from linstor_un.cluster import replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import DriverError, NotReady
from linstor_un.hosts import devices, directories, links, restoring, runner
from linstor_un.hosts.links import Findings
from linstor_un.hosts.runner import Host
from linstor_un.naming import drbd_device, resource_of, restore_snapshot
from linstor_un.opennebula import lifecycle
from linstor_un.opennebula.pools import Machine
from linstor_un.units import MIB

Seen = Mapping[str, Union[Findings, DriverError]]


class Disk(NamedTuple):
    """A link that a host must have: of which volume, for whom, and how the volume is reached.

    `keeps_old` where a snapshot has what the disk had before a restore.
    """

    wanted: Wanted
    machine: Machine
    size_mib: int
    is_writable: bool
    gateway: Gateway
    keeps_old: bool


def look(inventory: Inventory, names: Iterable[str]) -> Seen:
    """Ask these hosts what they have."""
    return links.of_all(runner.host(name, inventory.common) for name in names)


def vm_of(finding: Finding) -> Optional[int]:
    """Return the VM whose directory on a host a finding is about, or None where it is about none."""
    match = re.fullmatch(r"[^:]+:\d+/(\d+)(?:/.*)?", finding.subject)
    return int(match.group(1)) if match else None


def examine(inventory: Inventory, seen: Seen) -> Iterator[Finding]:
    """Yield what is wrong on the hosts."""
    for name, there in seen.items():
        if isinstance(there, DriverError):
            yield Finding("host-away", name, name, f"what {name} has is not known: {there}", "")
            continue
        host = runner.host(name, inventory.common)
        yield from _links(inventory, host, there)
        yield from _directories(inventory, host, there, seen)
        yield from _devices(inventory, name, there)


def _expected(inventory: Inventory, host: str) -> dict[str, Disk]:
    """Return the links that a host must have, by their path."""
    found = {}
    for site in inventory.sites:
        for wanted in inventory.wanted(site).values():
            for machine in wanted.machines:
                if not (machine.is_on_host and machine.is_settled and machine.host.lower() == host.lower()):
                    continue
                for disk in machine.disks:
                    resource = resource_of(disk.source) if disk.is_image else own(inventory, site, machine, disk)
                    if not machine.has_failed and (resource or "").lower() == wanted.resource.lower():
                        path = f"{machine.datastore_id}/{machine.vm.vm_id}/disk.{disk.disk_id}"
                        kept = _keeps_old(site, wanted, machine)
                        found[path] = Disk(wanted, machine, disk.size_mib, disk.is_writable, site.gateway, kept)
    return found


def _keeps_old(site: Site, wanted: Wanted, machine: Machine) -> bool:
    name = restore_snapshot(machine.vm.vm_id)
    return any(item.name.lower() == name and item.is_usable for item in site.cluster.snapshots_of(wanted.resource))


def _links(inventory: Inventory, host: Host, there: Findings) -> Iterator[Finding]:
    for path, disk in _expected(inventory, host.name).items():
        resource, link = disk.wanted.resource, there.links.get(path)
        subject = f"{host.name}:{path}"
        if link is None and disk.keeps_old and f"{path.rpartition('/')[0]}/{restoring.MARK}" not in there.files:
            text = f"{subject} of {disk.machine.label} is no link: {resource} is half restored; repeat `onevm restore`"
            yield Finding("no-link", subject, host.name, text, resource)
        elif link is None:
            yield _missing(host, path, disk, resource in there.devices)
        elif (resource_of(link.target) or "").lower() != resource.lower():
            text = f"{subject} of {disk.machine.label} leads to {link.target} and not to {resource}: find out why"
            yield Finding("wrong-link", subject, host.name, text, resource)
        elif link.is_dangling:
            text = f"{subject} of {disk.machine.label} leads to {resource}, whose device is not there"
            make = partial(_attach, disk.gateway, resource, host.name)
            repair = Repair(f"attach {resource} on {host.name}", "the VM needs it there", ASK, make)
            yield Finding("no-device", subject, host.name, text, resource, repair)


def _attach(gateway: Gateway, resource: str, host: str) -> None:
    if not replicas.attach(gateway, resource, host):
        raise NotReady(
            f"LINSTOR has {resource} on {host} already, where its device is missing: restart linstor-satellite there, "
            "which makes it"
        )


def _missing(host: Host, path: str, disk: Disk, has_device: bool) -> Finding:
    resource, subject = disk.wanted.resource, f"{host.name}:{path}"
    text = f"{subject} of {disk.machine.label} is no link to {resource}"
    if not has_device:
        return Finding("no-link", subject, host.name, f"{text}, whose device is not there either", resource)
    full = f"{host.settings.datastore_location}/{path}"
    step = devices.link(host, drbd_device(resource), full, disk.size_mib * MIB, not disk.is_writable)
    reason = "the VM is there, and so is the device"
    repair = Repair(f"link {subject} to {resource}", reason, SAFE, partial(host.run, f"Linking {path}", step))
    return Finding("no-link", subject, host.name, text, resource, repair)


def _directories(inventory: Inventory, host: Host, there: Findings, seen: Seen) -> Iterator[Finding]:
    for path, fingerprint in there.directories.items():
        datastore_id, vm_id = map(int, path.split("/"))
        if datastore_id not in inventory.database.datastores:
            continue
        machine = inventory.database.machines.get(vm_id)
        if machine is not None and _may_be_there(machine, host, datastore_id):
            continue
        if machine is not None and _is_the_same(seen.get(machine.host), path, fingerprint):
            continue
        yield _left(host, path, there, machine)


def _may_be_there(machine: Machine, host: Host, datastore_id: int) -> bool:
    if not machine.is_settled or machine.has_failed:
        return True
    if machine.vm.state in lifecycle.PARKED_STATES:
        return host.is_frontend
    # A VM that has moved within its host knows its disks by the path where it was started.
    return machine.host.lower() == host.name.lower() and (machine.datastore_id == datastore_id or machine.moves > 0)


def _is_the_same(other: Union[Findings, DriverError, None], path: str, fingerprint: str) -> bool:
    """Tell whether the VM's host has this very directory: hosts may share a file system; unknown where it is away."""
    if other is None:
        return False
    return isinstance(other, DriverError) or other.directories.get(path) == fingerprint


def _left(host: Host, path: str, there: Findings, machine: Machine | None) -> Finding:
    subject, vm_id = f"{host.name}:{path}", path.rpartition("/")[2]
    where = f"{machine.label} is not there" if machine is not None else f"OpenNebula has no VM {vm_id}"
    files = sorted(name.rpartition("/")[2] for name in there.files if name.startswith(f"{path}/"))
    text = f"{subject} is left over: {where}"
    full = f"{host.settings.datastore_location}/{path}"
    reason = "it has nothing but links to volumes" if not files else f"it also has {', '.join(files)}"
    make = partial(directories.remove, host, full)
    repair = Repair(f"remove directory {subject}", reason, ASK if files else SAFE, make)
    return Finding("left-directory", subject, host.name, text, "", repair)


def _devices(inventory: Inventory, host: str, there: Findings) -> Iterator[Finding]:
    """Yield devices of ours that LINSTOR does not know on this host."""
    names = inventory.names
    for resource in sorted(there.devices):
        if names.image_id_of(resource) is None and names.vm_id_of(resource) is None:
            continue
        nodes = {item.node.lower() for site in inventory.sites for item in site.cluster.placed(resource)}
        if host.lower() not in nodes:
            text = f"{host} has a device of {resource}, where LINSTOR has none: restart linstor-satellite there"
            yield Finding("unknown-device", f"{host}:{drbd_device(resource)}", host, text, "")
