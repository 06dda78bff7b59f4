"""tm/restore: give disks of a VM that does not run the content that a backup has of them; all of them or none.

Arguments: HOST:SYSDIR VMID IMAGEID (of the backup) INCREMENTID (-1: the newest) DISKID (-1: all); no stdin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

from linstor_un import hiding, log
from linstor_un import settings as settings_room
from linstor_un.actions import backup, cloning, filling, rollback, transfer
from linstor_un.actions.filling import Target
from linstor_un.actions.transfer import Transfer
from linstor_un.cluster import replicas, snapshots
from linstor_un.driver import Call, remotes
from linstor_un.errors import DriverError, InUse, InvalidInput, NotFound
from linstor_un.hosts import backup_store, restoring, sources
from linstor_un.hosts.restoring import Links
from linstor_un.hosts.runner import Host
from linstor_un.naming import restore_snapshot, snapshot_vm_id_of
from linstor_un.opennebula import arguments, backups
from linstor_un.opennebula.arguments import Place
from linstor_un.opennebula.model import Disk
from linstor_un.undo import Undo, go_on_undisturbed
from linstor_un.units import MIB


class _Restore(NamedTuple):
    """What is restored: disks of the VM, each from its URL."""

    action: Transfer
    place: Place
    urls: Mapping[int, str]
    disks: Sequence[Disk]

    @property
    def host(self) -> Host:
        """Return the host on which the VM is."""
        return self.action.host(self.place.host)

    def disk_place(self, disk: Disk) -> Place:
        """Return where the disk's link is."""
        return self.place._replace(disk_id=disk.disk_id)


def run(call: Call) -> None:
    """Fetch the disks and write them over the VM's own.

    The VM cannot be started meanwhile, nor after a run that was killed, since its disks' links are gone: the next run
    goes on from the content that the disks had before the first, or from that of the backup where all had all of it.
    """
    wanted = _begin(call)
    action = wanted.action
    with backup.lock_backups(action), ExitStack() as locks, Undo() as undo:
        there = restoring.look(wanted.host, wanted.place.directory)
        left = _left_by_another_run(wanted, there)
        for resource in sorted(action.resource(disk) for disk in (*wanted.disks, *left)):
            locks.enter_context(action.lock(resource))
        for disk in left:
            _settle(wanted, disk, there)
        for disk in wanted.disks:
            _keep(wanted, undo, disk, there)
        if there.is_written:
            restoring.begin(wanted.host, wanted.place.directory)
        for disk in wanted.disks:
            _write(wanted, disk)
        _link(wanted, undo)
        # From here on they have it all, and nothing may take it back.
        undo.forget()
        go_on_undisturbed()
        for disk in action.vm.disks if action.vm else ():
            _forget(wanted, disk)


def _begin(call: Call) -> _Restore:
    arguments.expect(call.arguments, "HOST:SYSDIR", "VMID", "IMAGEID", "INCREMENTID", "DISKID")
    vm_id = arguments.identifier(call.arguments[1], "VMID")
    place = arguments.place(call.arguments[0], vm_id)
    image_id = arguments.identifier(call.arguments[2], "IMAGEID")
    increment_id, disk_id = (
        backups.NONE if value == str(backups.NONE) else arguments.identifier(value, name)
        for value, name in zip(call.arguments[3:], ("INCREMENTID", "DISKID"))
    )
    seconds = settings_room.from_configuration(call.configuration).oned_timeout_seconds
    found = backups.ask_image(vm_id, image_id, increment_id, place.datastore_id, seconds)
    own = found.system_datastore
    settings = transfer.settings_for(call, own)
    action = transfer.of(vm_id, found.vm, {own.datastore_id: own}, own, settings)
    frontend = Host("the front-end", settings, is_frontend=True)
    urls = backup_store.urls(frontend, f"{remotes()}/datastore", found.driver, increment_id, found.document)
    return _Restore(action, place, urls, _disks(action, urls, image_id, disk_id))


def _disks(action: Transfer, urls: Mapping[int, str], image_id: int, disk_id: int) -> Sequence[Disk]:
    if not urls or disk_id not in (backups.NONE, *urls):
        missing = "no disk" if disk_id == backups.NONE else f"no disk {disk_id}"
        raise NotFound(f"Backup {image_id} has {missing}, but {', '.join(map(str, sorted(urls))) or 'none at all'}")
    wanted = sorted(urls) if disk_id == backups.NONE else [disk_id]
    for number in wanted:
        if not sources.is_plain_url(urls[number]):
            raise InvalidInput(
                f"Backup {image_id} has the URL {hiding.url(urls[number])[:200]!r}, which is no plain one"
            )
    return [backup.need_own_disk(action, number) for number in wanted]


def _left_by_another_run(wanted: _Restore, there: Links) -> Sequence[Disk]:
    """Return the disks of the VM that this run does not write and whose links one that was killed may have taken."""
    action = wanted.action
    own = filter(transfer.may_be_own, action.vm.disks if action.vm else ())
    return [disk for disk in own if disk not in wanted.disks and not there.has(disk.disk_id)]


def _settle(wanted: _Restore, disk: Disk, there: Links) -> None:
    """Link a disk that another run has written, or give it back what it had before that was killed."""
    if there.is_written:
        with Undo() as undo:
            transfer.offer(wanted.action, undo, wanted.disk_place(disk), disk)
    else:
        _go_back(wanted, disk)


def _keep(wanted: _Restore, undo: Undo, disk: Disk, there: Links) -> None:
    """Keep what the disk has by a snapshot, and take its link.

    A disk that is not whole was left so by a run that was killed: what it had before that is in that run's snapshot.
    """
    action, resource = wanted.action, wanted.action.resource(disk)
    open_on = [replica.node for replica in replicas.of(action.gateway, resource) if replica.in_use]
    if open_on:
        raise InUse(f"{resource} is open on {', '.join(open_on)}: stop what uses it there and retry")
    if disk.is_image:
        cloning.forget_base(action.gateway, resource)
    place, name = wanted.disk_place(disk), restore_snapshot(action.vm_id)
    if there.is_whole(disk.disk_id):
        snapshots.forget(action.gateway, resource, name)
    undo.push(f"the content of {resource}", lambda: _go_back(wanted, disk))
    with snapshots.needed("restore the backup as new images (`oneimage restore`)"):
        snapshots.take(action.gateway, resource, name)
    transfer.unlink(action, place, action.device(disk))


def _write(wanted: _Restore, disk: Disk) -> None:
    action, host = wanted.action, wanted.host
    seconds = action.settings.source_timeout_seconds
    url, downloader = wanted.urls[disk.disk_id], f"{remotes()}/datastore/downloader.sh"
    source = sources.from_url(url, downloader, {}, {}, decompress=False, silence_seconds=seconds)
    with closing(source):
        filling.check_fits(source, disk.size_mib)
        replicas.attach(action.gateway, action.resource(disk), host.name)
        filling.fill(Target(host, action.device(disk), disk.size_mib * MIB, False), source, disk.size_mib)
    log.info(f"restored disk {disk.disk_id} of VM {action.vm_id}")


def _link(wanted: _Restore, undo: Undo) -> None:
    """Link the disks again: from then on they have what the backup has, all of them."""
    host, directory = wanted.host, wanted.place.directory
    steps = [transfer.attach(wanted.action, undo, wanted.disk_place(disk), disk) for disk in wanted.disks]
    disk_ids = [disk.disk_id for disk in wanted.disks]
    undo.push(f"links in {directory}", lambda: restoring.take_back(host, directory, disk_ids))
    restoring.link(host, directory, steps)


def _go_back(wanted: _Restore, disk: Disk) -> None:
    action, resource, name = wanted.action, wanted.action.resource(disk), restore_snapshot(wanted.action.vm_id)
    kept = snapshots.find(action.gateway, resource, name)
    if kept is not None and kept.is_usable:
        rollback.roll_back(action, wanted.disk_place(disk), disk, name)
    snapshots.forget(action.gateway, resource, name)


def _forget(wanted: _Restore, disk: Disk) -> None:
    """Delete the snapshot that the disk could have gone back to, and all that oned forgets after this.

    It counts the snapshots of the VM's own disks from 0 again, and makes the next backup a full one, whichever of the
    disks were restored.
    """
    action = wanted.action
    if not transfer.may_be_own(disk):
        return
    resource = action.resource(disk)
    try:
        for snapshot in snapshots.of(action.gateway, resource):
            is_forgotten = not disk.is_image and action.names.snapshot_id_of(snapshot.name) >= 0
            if is_forgotten or snapshot_vm_id_of(snapshot.name) == action.vm_id:
                snapshots.forget(action.gateway, resource, snapshot.name)
    except DriverError as error:
        log.warning(
            f"{error}; the disks are restored, and OpenNebula no longer knows the snapshots of {resource}: delete them "
            "before the disk gets new ones"
        )
