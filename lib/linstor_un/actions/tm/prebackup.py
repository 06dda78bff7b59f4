"""tm/prebackup: make the files of a backup of a VM that does not run.

Arguments and stdin: see actions/backup.py. The files are SYSDIR/backup/vm.xml and disk.<DISKID>.<INCREMENT> on HOST.
"""

from __future__ import annotations

from linstor_un.actions import backup, backup_taking
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Take snapshots of all disks at one instant, and make the files of what they hold."""
    backup_taking.take(backup.begin(call), is_live=False)
