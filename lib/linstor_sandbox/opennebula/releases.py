"""What differs between releases of OpenNebula in the calls that a storage driver sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One release, and whether the administrator added `--stdin` to the arguments of oned's drivers."""

    version: tuple[int, int]
    stdin_option: bool = False

    @classmethod
    def parse(cls, text: str, stdin_option: bool = False) -> Release:
        """`7.4` or `6.10.0`; ValueError when it is neither."""
        numbers = text.split(".")
        if len(numbers) < 2 or not all(number.isdigit() for number in numbers):
            raise ValueError(f"{text!r} is not a release of OpenNebula: write it as 6.10 or 7.4")
        return cls((int(numbers[0]), int(numbers[1])), stdin_option)

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
