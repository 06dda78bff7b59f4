"""OpenNebula's own drivers ssh, local and shared, and one whose disks are no files (ceph), for the stand-in oned."""

from __future__ import annotations

import sys
from pathlib import Path

# As OpenNebula's oned.conf has them, but for what modes they have among themselves.
TM_MAD_CONFS = {
    "ssh": {"LN_TARGET": "SYSTEM", "CLONE_TARGET": "SYSTEM", "SHARED": "NO", "ALLOW_ORPHANS": "YES"},
    "local": {"LN_TARGET": "SYSTEM", "CLONE_TARGET": "SYSTEM", "SHARED": "NO", "ALLOW_ORPHANS": "FORMAT"},
    "shared": {"LN_TARGET": "NONE", "CLONE_TARGET": "SYSTEM", "SHARED": "YES", "ALLOW_ORPHANS": "FORMAT"},
    "ceph": {"LN_TARGET": "NONE", "CLONE_TARGET": "SELF", "SHARED": "YES", "ALLOW_ORPHANS": "MIXED", "DRIVER": "raw"},
}
# The last is what oned takes where it is not said.
_COMMON = {"DS_MIGRATE": "YES", "DS_LIVE_MIGRATE": "YES", "DS_MIGRATE_SNAP": "YES", "PERSISTENT_SNAPSHOTS": "YES"}
_DIRECTORY_VERBS = ("context", "mkimage", "mkswap", "mv", "delete", "premigrate", "postmigrate", "failmigrate")
_IMAGE_VERBS = ("clone", "ln", "mvds", "mv", "delete", "premigrate", "postmigrate", "failmigrate")
VERBS = {
    **{driver: tuple(dict.fromkeys(_DIRECTORY_VERBS + _IMAGE_VERBS)) for driver in ("ssh", "local", "shared")},
    "ceph": _IMAGE_VERBS,
}
_SCRIPT = """#!{python} -I
import sys
sys.path.insert(0, {library!r})
from linstor_sandbox.opennebula import other_storage_scripts
other_storage_scripts.main({driver!r}, {verb!r}, {frontend!r})
"""

_SAVE = """#!/bin/sh -e
cat >/dev/null
virsh save "$1" "$2"
"""
# The paths of disks become those of the datastore in which the memory lies.
_RESTORE = """#!/bin/sh -e
cat >/dev/null
vm=${1%/*} ds=${1%/*/*}
virsh save-image-dumpxml "$1" | sed "s%/datastores//*[0-9]*/${vm##*/}/%/datastores/${ds##*/}/${vm##*/}/%g" > "$1.xml"
virsh restore "$1" --xml "$1.xml"
rm -f "$1" "$1.xml"
"""


def tm_mad_conf(driver: str) -> dict[str, str]:
    """The stanza of such a driver."""
    return {"NAME": driver, **_COMMON, **TM_MAD_CONFS[driver]}


def install(remotes: Path, frontend: str) -> None:
    """Make the drivers' folders below tm in a remotes folder."""
    library = Path(__file__).resolve().parents[2]
    for driver, verbs in VERBS.items():
        for verb in verbs:
            path = remotes / "tm" / driver / verb
            path.parent.mkdir(parents=True, exist_ok=True)
            text = _SCRIPT.format(
                python=sys.executable, library=str(library), driver=driver, verb=verb, frontend=frontend
            )
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)


def install_stock_actions(host: Path) -> None:
    """Let a host have the hypervisor's own save and restore, which keep a VM's memory in a file of its directory."""
    folder = host / "var/tmp/one/vmm/kvm"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("save", _SAVE), ("restore", _RESTORE)):
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
