"""A server of backups for the stand-in oned: what OpenNebula's rsync and restic do, with a folder as the server."""

from __future__ import annotations

import sys
from pathlib import Path

VERBS = ("backup", "backup_cancel", "increment_flatten", "ls", "monitor", "restore", "rm", "stat")
TEMPLATE = 'NAME="backups" TYPE="BACKUP_DS" DS_MAD="rsync" TM_MAD="-" RSYNC_HOST="backup" RSYNC_USER="oneadmin"'
"""A datastore whose backups are here."""
TEMPLATES = {
    "rsync": TEMPLATE,
    "restic": 'NAME="backups" TYPE="BACKUP_DS" DS_MAD="restic" TM_MAD="-" RESTIC_PASSWORD="secret" '
    'RESTIC_SFTP_SERVER="backup"',
}
"""The same by the datastore's driver."""
_SCRIPT = """#!{python} -I
import sys
sys.path.insert(0, {library!r})
from linstor_sandbox.opennebula import backup_scripts
backup_scripts.main({driver!r}, {verb!r}, {folder!r})
"""


class BackupServer:
    """Makes datastore/rsync or datastore/restic, and datastore/downloader.sh, of a remotes folder.

    What is backed up lies below `folder`: a path of the server, /var/lib/one/datastores/..., is one below it.
    """

    def __init__(self, remotes: Path, folder: Path, driver: str = "rsync") -> None:
        self.folder = folder
        self.driver = driver
        (folder / "faults").mkdir(parents=True)
        (folder / "running").mkdir()
        for verb in VERBS:
            self._write(remotes / "datastore" / driver / verb, verb)
        self._write(remotes / "datastore" / "downloader.sh", "download")

    def _write(self, path: Path, verb: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        library = Path(__file__).resolve().parents[2]
        text = _SCRIPT.format(
            python=sys.executable, library=str(library), driver=self.driver, verb=verb, folder=str(self.folder)
        )
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def fail(self, verb: str) -> None:
        """The next run of a verb fails, `download` for instance; of `backup` when it has copied all."""
        (self.folder / "faults" / verb).write_text("fail", encoding="utf-8")

    def hang(self) -> None:
        """The next backup hangs when it has copied all, until it is cancelled."""
        (self.folder / "faults" / "backup").write_text("hang", encoding="utf-8")

    @property
    def hangs(self) -> bool:
        """A backup hangs now."""
        return any((self.folder / "running").glob("*.hangs"))

    def stored(self, datastore: int, vm: int, source: str) -> Path:
        """The folder of one backup, by the SOURCE that oned has of it."""
        return self.folder / f"var/lib/one/datastores/{datastore}/{vm}/{source}"

    @property
    def files(self) -> list[str]:
        """Everything that is stored, and nothing that only passes through."""
        top = self.folder / "var"
        return sorted(str(path.relative_to(self.folder)) for path in top.rglob("*") if path.is_file())
