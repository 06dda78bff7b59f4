"""What differs between releases of OpenNebula in the calls that a storage driver sees, and in what it may say."""

from __future__ import annotations

import re
from dataclasses import dataclass

# What a script of 7.0 and newer writes to a log, and nobody sees.
_LOGGED = re.compile(r"(ERROR|INFO|WARN|DEBUG):\s+(\d+)?\s*(.*)$")
_MARKED = re.compile(r"^ERROR MESSAGE --8<------\n(.*?)ERROR MESSAGE ------>8--$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Release:
    """One release, and whether the administrator added `--stdin` to the arguments of oned's drivers."""

    version: tuple[int, ...]
    stdin_option: bool = False

    @classmethod
    def parse(cls, text: str, stdin_option: bool = False) -> Release:
        """`7.4` or `6.10.0`; ValueError when it is neither."""
        numbers = text.split(".")
        if len(numbers) < 2 or not all(number.isdigit() for number in numbers):
            raise ValueError(f"{text!r} is not a release of OpenNebula: write it as 6.10 or 7.4")
        return cls(tuple(map(int, numbers[:3])) + (0,) * (3 - len(numbers)), stdin_option)

    def __str__(self) -> str:
        """As the file VERSION of the remotes and one.system.version have it."""
        return ".".join(map(str, self.version))

    def reason(self, stderr: str) -> str:
        """What of a failed script's stderr is attached to the image or the VM: `-` where nothing is.

        5.12 to 6.0.2 take what is between two marks, 6.0.3 to 6.10 everything, newer ones what is no line of a log.
        """
        if self.version < (6, 0, 3):
            found = _MARKED.findall(stderr)
            return found[0].strip() if found else "-"
        if self.version < (7, 0):
            return stderr.replace("\n", " ").strip() or "-"
        plain = [line.strip() for line in stderr.splitlines()]
        return "".join(line for line in plain if not _LOGGED.match(line)).strip() or "-"

    def action_arguments(self, document: str, identifier: int) -> tuple[list[str], str]:
        """The argv and stdin with which a datastore script gets its action data (base64) and the object's id."""
        if self.version >= (6, 8):
            return [str(identifier)], document
        if self.stdin_option:
            return ["-", str(identifier)], document
        return [document, str(identifier)], ""

    @property
    def has_format(self) -> bool:
        """IMAGE has FORMAT and FS; before 6.0 both were FSTYPE."""
        return self.version >= (6, 0)

    @property
    def has_backups(self) -> bool:
        """IMAGE lists backup increments."""
        return self.version >= (6, 6)

    @property
    def has_increments(self) -> bool:
        """MODE = INCREMENT is possible for raw disks of other drivers than OpenNebula's own."""
        return self.version >= (7, 2)

    @property
    def cleans_after_failed_prebackup(self) -> bool:
        """postbackup is called also when prebackup has failed."""
        return self.version >= (6, 8)

    def backup_document(self, datastore: str, vm: str) -> str:
        """What a backup datastore's `backup` reads: its datastore, since 7.0 the VM too."""
        return (
            f"<DS_DRIVER_ACTION_DATA>{datastore}{vm}</DS_DRIVER_ACTION_DATA>" if self.version >= (7, 0) else datastore
        )

    def failed_backup(self, vm: str) -> str:
        """What postbackup reads when something before it has failed; older releases do not say so."""
        if self.version < (7, 4):
            return vm
        return f"{vm[: -len('</VM>')]}<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>"

    @property
    def copies_disk_type(self) -> bool:
        """DISK_TYPE of TM_MAD_CONF is copied into the image datastore."""
        return self.version >= (6, 8)

    @property
    def reads_cp_format(self) -> bool:
        """The second word that `cp` prints is the image's FORMAT and must be there."""
        return self.version >= (6, 0)

    @property
    def fails_migration_after_premigrate(self) -> bool:
        """failmigrate is called also when premigrate has failed; before 7.4 nothing is."""
        return self.version >= (7, 4)

    @property
    def mkfs_takes_first_word(self) -> bool:
        """5.12 takes the first word that `mkfs` prints; later the whole line becomes SOURCE."""
        return self.version < (6, 0)

    @property
    def has_modification_time(self) -> bool:
        """IMAGE has MODTIME."""
        return self.version >= (7, 0)

    @property
    def has_backup_disks(self) -> bool:
        """IMAGE lists the disks that a backup has."""
        return self.version >= (6, 10)

    @property
    def forces_volatile_format(self) -> bool:
        """FORMAT and DRIVER of a volatile disk are those of TM_MAD_CONF; 5.12 takes whatever its user asked for."""
        return self.version >= (6, 0)

    @property
    def takes_block_system_datastores(self) -> bool:
        """DISK_TYPE of a system datastore may be BLOCK, which its volatile disks then are for libvirt too."""
        return self.version >= (6, 4, 1)

    @property
    def opens_cdroms_as_block(self) -> bool:
        """A CDROM on a block device is one for libvirt; before 6.6.2 it was a file."""
        return self.version >= (6, 6, 2)

    @property
    def resumes_from_previous_datastore(self) -> bool:
        """The source of a parked VM's `mv` is where it was; up to 5.12.8 it is where the VM is going."""
        return self.version >= (5, 12, 9)

    @property
    def saves_parked_disks(self) -> bool:
        """disk-saveas of a VM that is STOPPED or UNDEPLOYED."""
        return self.version >= (6, 0)

    @property
    def reverts_suspended(self) -> bool:
        """disk-snapshot-revert of a VM that is SUSPENDED."""
        return self.version < (6, 8)

    @property
    def moves_live_between_datastores(self) -> bool:
        """onevm migrate --live to another system datastore, on the same host."""
        return self.version >= (7, 2)

    @property
    def asks_for_snapshots_that_move(self) -> bool:
        """DS_MIGRATE_SNAP: a VM with snapshots of disks goes to another system datastore only where it is YES."""
        return self.version >= (7, 2)

    @property
    def knows_linear_snapshots(self) -> bool:
        """ALLOW_ORPHANS = LINEAR: what is younger than the snapshot that a revert goes back to is forgotten."""
        return self.version >= (7, 0)
