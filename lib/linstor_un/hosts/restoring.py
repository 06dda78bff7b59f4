"""The links of a VM's disks while a restore writes the disks: there are none, so that nobody starts the VM from halves.

They come back by one script, and that may be killed between two of them: from before the first to behind the last one a
mark in the VM's directory says that all disks have all of the backup, whether they are linked or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from linstor_un.hosts.runner import Host, Step

MARK = ".linstor_un-restored"
_WRITTEN = "written"

_LOOK = """
for disk in "$1"/disk.*; do
    [ ! -L "$disk" ] || echo "${disk##*/}"
done
[ ! -e "$1/$2" ] || echo "$3"
"""

_SET_MARK = """
[ -d "$1" ] || mkdir -p "$1"
: >"$1/$2"
"""

_REMOVE_MARK = """
rm -f "$1/$2"
"""

# The mark last: without it disks that are not linked are half written.
_TAKE_BACK = """
directory=$1 mark=$2
shift 2
for disk do
    [ ! -L "$directory/$disk" ] || rm -f "$directory/$disk"
done
rm -f "$directory/$mark"
"""


class Links(NamedTuple):
    """The links of disks in a VM's directory, by their names, and whether the disks without one are written."""

    names: frozenset[str]
    is_written: bool

    def has(self, disk_id: int) -> bool:
        """Tell whether the disk is linked."""
        return f"disk.{disk_id}" in self.names

    def is_whole(self, disk_id: int) -> bool:
        """Tell whether no restore that was killed can have left half of a backup on the disk."""
        return self.is_written or self.has(disk_id)


def look(host: Host, directory: str) -> Links:
    """Return the links in a VM's directory; none where there is no such directory."""
    found = host.run(f"Looking for disks in {directory}", Step(_LOOK, (directory, MARK, _WRITTEN))).split()
    return Links(frozenset(found) - {_WRITTEN}, _WRITTEN in found)


def link(host: Host, directory: str, steps: Sequence[Step]) -> None:
    """Make the steps that link the disks, all of which are written."""
    first, last = (Step(script, (directory, MARK)) for script in (_SET_MARK, _REMOVE_MARK))
    host.run(f"Linking the disks in {directory}", first, *steps, last)


def take_back(host: Host, directory: str, disk_ids: Sequence[int]) -> None:
    """Remove the links that `link` may have made, before the disks get back what they had."""
    names = [f"disk.{disk_id}" for disk_id in disk_ids]
    host.run(f"Unlinking the disks in {directory}", Step(_TAKE_BACK, (directory, MARK, *names)))


def begin(host: Host, directory: str) -> None:
    """Remove the mark that a run has left that was killed between two links: the disks are about to be written."""
    host.run(f"Unmarking {directory}", Step(_REMOVE_MARK, (directory, MARK)))
