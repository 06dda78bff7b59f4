"""The lines of the transfer scripts, as oned's transfer manager writes them."""

from __future__ import annotations

from linstor_sandbox.opennebula.machines import Disk, History, VirtualMachine, directory


def prolog_line(vm: VirtualMachine, disk: Disk, frontend: str) -> str:
    """Make one disk on the VM's host: CLONE, LN, MKIMAGE or MKSWAP."""
    target = f"{vm.host}:{vm.directory}/disk.{disk.disk_id} {vm.identifier}"
    tm_mad, identifier = vm.current.tm_mad, vm.current.datastore_id
    if disk.type == "SWAP":
        return f"MKSWAP {tm_mad} {disk.size} {target} {identifier}"
    if disk.type == "FS":
        return f"MKIMAGE {tm_mad} {disk.size} {disk.attributes['FORMAT']} {target} {identifier}"
    verb = "CLONE" if disk.yes("CLONE") else "LN"
    source = disk.attributes["SOURCE"]
    if ":" not in source:
        source = f"{frontend}:{source}"
    return f"{verb}{_suffix(disk)} {disk.attributes['TM_MAD']} {source} {target} {disk.attributes['DATASTORE_ID']}"


def prolog(vm: VirtualMachine, frontend: str) -> list[str]:
    """Make every disk."""
    return [prolog_line(vm, disk, frontend) for disk in vm.disks]


def move(vm: VirtualMachine, source: tuple[str, History], target: tuple[str, History]) -> list[str]:
    """Move every disk, then the directory; each end is a host's name and the history record that has its datastore."""
    ends = [f"{host}:{directory(vm.identifier, record)}" for host, record in (source, target)]
    lines = [
        f"MV{_suffix(disk)} {tm_mad} {ends[0]}/disk.{disk.disk_id} {ends[1]}/disk.{disk.disk_id} "
        f"{vm.identifier} {datastore_id}"
        for disk in vm.disks
        for tm_mad, datastore_id in [_driver(disk, target[1])]
    ]
    return [*lines, f"MV {target[1].tm_mad} {ends[0]} {ends[1]} {vm.identifier} {target[1].datastore_id}"]


def epilog_line(vm: VirtualMachine, disk: Disk, host: str) -> str:
    """Give one disk back: MVDS when it is saved, DELETE otherwise."""
    target = f"{host}:{vm.directory}/disk.{disk.disk_id}"
    if disk.yes("SAVE"):
        return (
            f"MVDS{_suffix(disk)} {disk.attributes['TM_MAD']} {target} {disk.attributes['SOURCE']} "
            f"{vm.identifier} {disk.attributes['DATASTORE_ID']}"
        )
    return _delete_line(vm, disk, host, vm.current)


def epilog(vm: VirtualMachine, host: str) -> list[str]:
    """Give every disk back, then delete the directory; `host` is the front-end for a VM that was stopped."""
    return [*(epilog_line(vm, disk, host) for disk in vm.disks), _delete_directory(vm, host, vm.current)]


def delete(vm: VirtualMachine, record: History) -> list[str]:
    """Delete every disk, the persistent ones too, as recover --delete does, then the directory."""
    disks = [_delete_line(vm, disk, record.host, record) for disk in vm.disks]
    return [*disks, _delete_directory(vm, record.host, record)]


def _delete_line(vm: VirtualMachine, disk: Disk, host: str, record: History) -> str:
    tm_mad, datastore_id = _driver(disk, record)
    target = f"{host}:{directory(vm.identifier, record)}/disk.{disk.disk_id}"
    return f"DELETE{_suffix(disk)} {tm_mad} {target} {vm.identifier} {datastore_id}"


def _delete_directory(vm: VirtualMachine, host: str, record: History) -> str:
    return f"DELETE {record.tm_mad} {host}:{directory(vm.identifier, record)} {vm.identifier} {record.datastore_id}"


def resize_line(vm: VirtualMachine, disk: Disk, size: int) -> str:
    """Grow one disk to a size in MiB."""
    tm_mad, datastore_id = _driver(disk, vm.current)
    target = f"{vm.host}:{vm.directory}/disk.{disk.disk_id}"
    return f"RESIZE{_suffix(disk)} {tm_mad} {target} {size} {vm.identifier} {datastore_id}"


def snapshot_line(vm: VirtualMachine, disk: Disk, verb: str, snapshot: int) -> str:
    """Create, delete or revert to one snapshot of a disk."""
    tm_mad, datastore_id = _driver(disk, vm.current)
    target = f"{vm.host}:{vm.directory}/disk.{disk.disk_id}"
    return f"{verb}{_suffix(disk)} {tm_mad} {target} {snapshot} {vm.identifier} {datastore_id}"


def save_line(vm: VirtualMachine, disk: Disk, host: str, source: str, snapshot: int) -> str:
    """Save a disk, or a snapshot of it, as a new image; `host` is the front-end for a VM that is parked."""
    tm_mad, datastore_id = _driver(disk, vm.current)
    target = f"{host}:{vm.directory}/disk.{disk.disk_id}"
    return f"CPDS{_suffix(disk)} {tm_mad} {target} {source} {snapshot} {vm.identifier} {datastore_id}"


def context_line(vm: VirtualMachine, context_file: str, disk_id: int) -> str:
    """Make the context disk where the VM boots."""
    target = f"{vm.host}:{vm.directory}/disk.{disk_id}"
    return f"CONTEXT {vm.current.tm_mad} {context_file} {target} {vm.identifier} {vm.current.datastore_id}"


def _driver(disk: Disk, record: History) -> tuple[str, int]:
    """The transfer driver and datastore id of a line: the image's, the system datastore's for a volatile disk."""
    if disk.volatile:
        return record.tm_mad, record.datastore_id
    return disk.attributes["TM_MAD"], int(disk.attributes["DATASTORE_ID"])


def _suffix(disk: Disk) -> str:
    mode = disk.attributes.get("TM_MAD_SYSTEM", "")
    return f".{mode}" if mode else ""
