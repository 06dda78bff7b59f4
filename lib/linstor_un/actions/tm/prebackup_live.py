"""tm/prebackup_live: make the files of a backup of a running VM.

Arguments and stdin: see actions/backup.py. The files are SYSDIR/backup/vm.xml and disk.<DISKID>.<INCREMENT> on HOST.
"""

from __future__ import annotations

from linstor_un.actions import backup, backup_taking
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Take snapshots of all disks at one instant, with the VM held as FS_FREEZE says, and make the files."""
    backup_taking.take(backup.begin(call), is_live=True)
