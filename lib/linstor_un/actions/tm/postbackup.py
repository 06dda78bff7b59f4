"""tm/postbackup: remove what a backup needed for as long as its files were fetched, or what is left of a failed one.

Arguments and stdin: see actions/backup.py. From 7.3.80 on <BACKUP_RESULT> tells of failure; older releases do not say.
"""

from __future__ import annotations

from typing import Callable

from linstor_un import log
from linstor_un.actions import backup
from linstor_un.actions.backup import Backup
from linstor_un.cluster import snapshots
from linstor_un.driver import Call
from linstor_un.errors import DriverError
from linstor_un.hosts import backup_files


def run(call: Call) -> None:
    """Remove the files and the volumes that were read, and the snapshots of a backup that has failed.

    Nothing of it fails the action: oned would take the backup, which is complete, for failed. What stays is removed by
    the VM's next backup, and what that does not see by its end.
    """
    wanted = backup.begin(call)
    with wanted.lock():
        for tidy in (_remove_files, backup.remove_copies, _forget_failed):
            _try(tidy, wanted)


def _try(tidy: Callable[[Backup], None], wanted: Backup) -> None:
    try:
        tidy(wanted)
    except DriverError as error:
        log.warning(f"{error}; the next backup of VM {wanted.place.vm_id} removes what is left of this one")


def _remove_files(wanted: Backup) -> None:
    backup_files.remove(wanted.host, wanted.directory)


def _forget_failed(wanted: Backup) -> None:
    """Delete the snapshots that a failed backup has taken; of one that succeeded the next increment is made."""
    if not wanted.order.has_failed:
        return
    resources = [wanted.action.resource(disk) for disk in wanted.disks]
    last = wanted.configuration.last_increment_id
    for resource, found in backup.kept_snapshots(wanted, backup.all_snapshots(wanted, resources)).items():
        for kept in found:
            # What is behind the last that the VM knows is new too, if oned has given the chain an increment meanwhile.
            if kept.says.increment_id == wanted.increment_id or kept.says.increment_id > last:
                snapshots.forget(wanted.action.gateway, resource, kept.snapshot.name)
