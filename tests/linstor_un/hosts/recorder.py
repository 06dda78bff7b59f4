"""Every program of a machine, recorded with its words as it starts; those for devices and guests do nothing else."""

from __future__ import annotations

import os
from pathlib import Path

# What a shell itself and what surrounds it start.
_NOT_RECORDED = frozenset(("sh", "dash", "bash", "setsid", "env"))
_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
CANARY = "canary"
# In one piece, so that programs that run at once do not mix theirs.
_RECORD = """#!/bin/sh
printf '%s\\037' "${0##*/}" "$@" "$(printf '\\036')" >>'LOG'
"""
_BECOME = f"""for directory in {" ".join(_DIRECTORIES)}; do
    [ ! -x "$directory/${{0##*/}}" ] || exec "$directory/${{0##*/}}" "$@"
done
exit 127
"""
_FAKES = {
    "lsblk": "echo 1048576",
    "dd": """case $* in
*of=*) [ "$*" != "${*#*if=}" ] || cat >/dev/null; echo '1 byte copied' >&2 ;;
*) exec /bin/dd "$@" ;;
esac""",
    "qemu-img": '[ "$1" != info ] || echo \'    "virtual-size": 1\'',
    "virsh": "case $3 in domstate) echo shut off ;; save-image-dumpxml) echo '<domain/>' ;; esac",
    "rbd": """case $* in *info*) echo '{"size": 1}' ;; *) echo ;; esac""",
    # It lets everybody do what backups ask for.
    "sudo": """case $2 in
lvs)
    case $* in *thin_id*) ;; *) exit 1 ;; esac
    printf '  %s\\n' 'g|p|1|volume_00000_older' 'g|p|2|volume_00000_newer'
    ;;
-l) exit 1 ;;
*) shift; exec "$@" ;;
esac""",
    "thin_delta": """echo '<superblock data_block_size="128">'; echo '<different begin="0" length="1"/>'""",
    "zstream": "cat >/dev/null",
    "qemu-io": "cat >/dev/null",
    **dict.fromkeys(("cmp", "dmsetup", "ionice", "renice", "zfs"), "exit 0"),
    **dict.fromkeys(("blkdiscard", "mkfs.ext4", "mkfs.xfs", "mkswap", CANARY), "exit 0"),
}


class Recorder:
    """A directory for PATH whose programs write down how they were started."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "recorded"
        self.directory.mkdir(parents=True)
        self._log = folder / "log"
        other = folder / "other"
        record = _RECORD.replace("LOG", str(self._log))
        self._write(other, record + _BECOME)
        for name in {path.name for directory in _DIRECTORIES for path in Path(directory).iterdir()} - _NOT_RECORDED:
            (self.directory / name).symlink_to(other)
        for name, script in _FAKES.items():
            (self.directory / name).unlink(missing_ok=True)
            self._write(self.directory / name, f"{record}{script}\n")

    @staticmethod
    def _write(path: Path, script: str) -> None:
        path.write_text(script)
        path.chmod(0o755)

    @property
    def path(self) -> str:
        """PATH with the recorded programs before all others."""
        return f"{self.directory}{os.pathsep}{os.environ['PATH']}"

    def taken(self) -> list[tuple[str, ...]]:
        """What was started since the last time, in no order; without the script's own watch over its life."""
        text = self._log.read_text() if self._log.exists() else ""
        self._log.unlink(missing_ok=True)
        started = [tuple(line.split("\x1f")[:-1]) for line in text.split("\x1e\x1f")[:-1]]
        return sorted(words for words in started if words not in (("cat",), ("sleep",)))
