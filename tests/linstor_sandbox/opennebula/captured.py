"""What the captures were made with: a driver that answers as the recording one did, and the datastores."""

from __future__ import annotations

from pathlib import Path

from linstor_sandbox.opennebula import Datastore

DATASTORE_VERBS = (
    *("stat", "cp", "mkfs", "clone", "rm", "monitor"),
    *("snap_delete", "snap_revert", "snap_flatten", "export"),
)
TM_VERBS = (
    *("clone", "ln", "mkimage", "mkswap", "context", "mv", "mvds", "delete", "resize", "monitor", "cpds"),
    *("snap_create", "snap_create_live", "snap_delete", "snap_revert", "premigrate", "postmigrate", "failmigrate"),
    *("prebackup", "prebackup_live", "postbackup", "postbackup_live", "restore"),
)

# It fails once for every verb named in the file `failures` of its folder, and answers as the captured driver did.
STUB = """#!/bin/sh
verb=${0##*/}; folder=${0%/*}; cat >/dev/null
if grep -qsx "$verb" "$folder/failures"; then
    sed -i "0,/^$verb\\$/{/^$verb\\$/d}" "$folder/failures"
    echo "injected failure of $verb" >&2; exit 1
fi
case $folder:$verb in
*/datastore/*:stat) echo 64 ;;
*/datastore/*:cp) echo "/dev/drbd/by-res/one-image-$1/0 raw" ;;
*/datastore/*:mkfs | */datastore/*:clone) echo "/dev/drbd/by-res/one-image-$1/0" ;;
*:monitor) printf 'USED_MB=1024\\nTOTAL_MB=1048576\\nFREE_MB=1047552\\n' ;;
esac
"""


class StubDriver:
    """The folder of the stub, and how to let it fail."""

    def __init__(self, remotes: Path) -> None:
        self.remotes = remotes
        for kind, verbs in (("datastore", DATASTORE_VERBS), ("tm", TM_VERBS)):
            for verb in verbs:
                write_script(remotes / kind / "linstor_un" / verb, STUB)

    def override_save_and_restore(self) -> None:
        """Install vmm/kvm/save_linstor_un and restore_linstor_un, as `-l save=...,restore=...` asks for."""
        for verb in ("save_linstor_un", "restore_linstor_un"):
            write_script(self.remotes / "vmm" / "kvm" / verb, STUB)

    def fail_once(self, kind: str, verb: str) -> None:
        """The next run of a verb fails."""
        with (self.remotes / kind / "linstor_un" / "failures").open("a", encoding="utf-8") as failures:
            failures.write(verb + "\n")


def write_script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def captured_capacity(datastore: Datastore) -> Datastore:
    datastore.total_mb, datastore.free_mb, datastore.used_mb = 1048576, 1047552, 1024
    return datastore


CAPTURED_CONF = {
    "NAME": "linstor_un",
    "LN_TARGET": "NONE",
    "CLONE_TARGET": "SYSTEM",
    "SHARED": "YES",
    "DS_MIGRATE": "YES",
    "DS_LIVE_MIGRATE": "YES",
    "DS_MIGRATE_SNAP": "YES",
    "DRIVER": "raw",
    "DISK_TYPE": "BLOCK",
    "ALLOW_ORPHANS": "YES",
    "PERSISTENT_SNAPSHOTS": "YES",
}
_IMAGES = 'TYPE="IMAGE_DS" DS_MAD="linstor_un" TM_MAD="linstor_un" RESOURCE_GROUP="opennebula" RESTRICTED_DIRS="/"'
_SYSTEM = 'TYPE="SYSTEM_DS" TM_MAD="linstor_un" RESOURCE_GROUP="opennebula"'
CAPTURED_DATASTORES = (
    f'NAME="lin-images" {_IMAGES} SAFE_DIRS="/var/tmp /tmp" STAGING_DIR="/var/tmp"',
    f'NAME="lin-system" {_SYSTEM}',
    f'NAME="lin-system2" {_SYSTEM}',
    f'NAME="lin-images2" {_IMAGES} SAFE_DIRS="/var/tmp /tmp"',
)
