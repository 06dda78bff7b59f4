"""Which blocks differ between two snapshots of a volume, asked of the pool that holds both.

LVM's thin pools and ZFS know it without reading any data. What was discarded counts as well: it reads zero now.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Optional

from linstor_un.errors import CommandFailed
from linstor_un.hosts.runner import Host, Step

THIN_PROVIDERS = frozenset({"LVM_THIN"})
ZFS_PROVIDERS = frozenset({"ZFS", "ZFS_THIN"})
_SECTOR_BYTES = 512
# The smallest volblocksize of a zvol that is nobody's own choice, and the smallest block of a thin pool.
_ZFS_BLOCK_BYTES, _THIN_BLOCK_BYTES = 8 << 10, 64 << 10
_END = "end"
# The records of a stream of ZFS: those that change what a volume has, whose data are object 1, and the others. How many
# of some there are the summary says, of all how many they are together.
_CHANGING = frozenset({"WRITE", "WRITE_BYREF", "WRITE_EMBEDDED", "FREE", "REDACT"})
_FIRST, _LAST, _SUMMARY = "BEGIN", "END", "SUMMARY:"
_UNCHANGING = frozenset({_FIRST, _LAST, "OBJECT", "FREEOBJECTS", "OBJECT_RANGE", "SPILL"})
_COUNTED = frozenset({"WRITE", "FREE", _LAST})
_DATA = "1"
# What is said beside the changes: that the pool is waited for, that it is read for as long as that takes, and was read.
_WAITING, _BEGUN, _READ = "waiting", "begun", "read"
# The end of what thin_delta says: without it a list that breaks off would be one that is short.
_WHOLE = "whole"

# thin_delta reads a pool's metadata as they were when they were reserved, which the kernel does once at a time: other
# backups are waited for, and thin_send of LINSTOR, as long as such a program works. What nobody works with any more was
# left by one that was killed; who cannot see others' processes does not know. All that it says is kept until the pool
# is released, as whoever takes it needs as long as the data take; and what was released by somebody else meanwhile may
# have been overwritten while it was read.
_OF_THIN_POOL = """
watch
exec </dev/null
found=$(sudo -n lvs --noheadings --separator '|' -o vg_name,pool_lv,thin_id,lv_name \\
    --select "lv_name=\\"$1\\" || lv_name=\\"$2\\"")
row() {
    printf '%s\\n' "$found" | tr -d ' ' | grep "$1\\$" | head -n 1
}
field() {
    printf '%s\\n' "$1" | cut -d '|' -f "$2"
}
row=$(row "|$2")
group=$(field "$row" 1) pool=$(field "$row" 2) later=$(field "$row" 3)
# Thin volumes have numbers of their own in each pool: one of another pool would be compared with a stranger.
earlier=$(field "$(row "^$group|$pool|[0-9]*|$1")" 3)
if [ -z "$pool" ] || [ -z "$earlier" ] || [ -z "$later" ]; then
    echo "lvs does not know both $1 and $2 as thin volumes of one pool" >&2
    exit 1
fi
# They took blocks for one run wherever they follow each other in the volume, and compared where its first one lies.
case $(thin_delta -V) in
*1.0.[0-5] | *1.0.[0-5][!0-9]*)
    echo "thin_delta 1.0.0 to 1.0.5 leaves out blocks that have changed: upgrade the package that has it" >&2
    exit 1
    ;;
esac
path=/dev/mapper/$(echo "$group" | sed s/-/--/g)-$(echo "$pool" | sed s/-/--/g)
reserved=
release() {
    status=$?
    trap '' HUP INT TERM PIPE
    [ -z "$reserved" ] || sudo -n dmsetup message "$path-tpool" 0 release_metadata_snap >/dev/null || true
    exit "$status"
}
trap release EXIT
trap 'exit 1' HUP INT TERM PIPE
limit=$(($(date +%s) + $3))
until said=$(sudo -n dmsetup message "$path-tpool" 0 reserve_metadata_snap 2>&1); do
    case $said in
    *busy*) ;;
    *) echo "$said" >&2; exit 1 ;;
    esac
    if [ "$(date +%s)" -ge "$limit" ]; then
        if ! grep -qs . /proc/1/comm; then
            echo "somebody has reserved the metadata of $group/$pool, and whether he still works with them cannot be" \
                "seen, as /proc is mounted with hidepid: let $(id -un) see all processes (gid=), or release them by" \
                "'dmsetup message $path-tpool 0 release_metadata_snap' once no backup runs there" >&2
            exit 1
        fi
        grep -qsx 'thin_[a-z]*' /proc/[0-9]*/comm ||
            sudo -n dmsetup message "$path-tpool" 0 release_metadata_snap >/dev/null 2>&1 || true
        limit=$(($(date +%s) + $3))
        echo waiting
    fi
    sleep 0.2
done
reserved=yes
echo begun
as_root=
[ -r "${path}_tmeta" ] || as_root='sudo -n'
changed='\\(different\\|left_only\\|right_only\\)'
# What it says and is not known here is passed on, and then refused.
said=$({ $as_root thin_delta --metadata-snap --thin1 "$earlier" --thin2 "$later" "${path}_tmeta" ||
    printf '\\nfailed\\n'
} | sed -e '/^ *<same /d' -e '/^ *<\\/*diff[ >]/d' -e 's/^<\\/superblock>$/whole/' \\
    -e 's/^<superblock .*data_block_size="\\([0-9]*\\)".*/block \\1/' \\
    -e "s/^ *<$changed begin=\\"\\([0-9]*\\)\\" length=\\"\\([0-9]*\\)\\".*/\\2 \\3/")
echo read
# Still noted meanwhile: what is stopped before it is done does it on the way out.
sudo -n dmsetup message "$path-tpool" 0 release_metadata_snap >/dev/null || {
    reserved=
    echo "somebody else has released the metadata of $group/$pool while they were read" >&2
    exit 1
}
reserved=
printf '%s\\n' "$said" | grep -qx failed && exit 1
printf '%s\\n' "$said" end
"""

# The records of an incremental stream: what was written and what was freed, and at the end how many of each there were.
# Its data are read, and thrown away.
_OF_ZFS = """
watch
exec </dev/null
exec 5>&1
as_root='sudo -n'
sudo -n -l zfs send -i "@$2" "$1@$3" >/dev/null 2>&1 || as_root=
dump=zstreamdump
! command -v zstream >/dev/null || dump='zstream dump'
echo begun
failed=$({ { $as_root zfs send -i "@$2" "$1@$3" || echo failed >&4
} | { $dump -v || echo failed >&4
} | sed -n -e '/^[A-Z]/{x;s/\\n[ \t]*/ /g;/./p;d;}' -e H -e '${x;s/\\n[ \t]*/ /g;p;}' >&5; } 4>&1)
[ -z "$failed" ] || exit 1
echo end
"""


def least_bytes(provider: str) -> int:
    """Return the least that changes in a pool of this kind, as LINSTOR makes its volumes: a power of two."""
    return _ZFS_BLOCK_BYTES if provider in ZFS_PROVIDERS else _THIN_BLOCK_BYTES


def of_thin_pool(host: Host, volume: str, earlier: str, later: str) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length, in bytes, of what differs between two snapshots in LVM's thin pool.

    Arguments: `volume` is the logical volume's name, as LINSTOR gives it to a resource, of which the snapshots' names
    are made. Raises as Host.run, also where the host does not come to reading the pool.
    """
    values = (f"{volume}_{earlier}", f"{volume}_{later}", host.settings.command_timeout_seconds)
    block_bytes, line = 0, ""
    for line in _lines(host, f"Asking LVM what has changed in {volume}", Step(_OF_THIN_POOL, values)):
        first, _, second = line.partition(" ")
        if first == "block" and second.isdigit():
            block_bytes = int(second) * _SECTOR_BYTES
        elif block_bytes and first.isdigit() and second.isdigit():
            yield int(first) * block_bytes, int(second) * block_bytes
        elif line != _WHOLE:
            raise CommandFailed(f"thin_delta on {host.name} says {line[:80]!r}, which this driver does not understand")
    if line != _WHOLE or not block_bytes:
        raise CommandFailed(f"What thin_delta on {host.name} says has not come to its end: retry")


def of_zfs(host: Host, volume: str, earlier: str, later: str, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the offset and the length, in bytes, of what differs between two snapshots of a ZFS volume.

    Arguments: `volume` is its whole name, that of LINSTOR's pool first. Raises as Host.run, and CommandFailed where the
    records are not those that the stream has, as their own summary counts them.
    """
    step = Step(_OF_ZFS, (volume, earlier, later))
    counts: Counter[str] = Counter()
    summary = ""
    for line in _lines(host, f"Asking ZFS what has changed in {volume}", step):
        kind = line.split(" ", 1)[0]
        counts[kind] += 1
        if kind in _CHANGING:
            item = _changed(host, line, size_bytes)
            if item is not None:
                yield item
        elif kind == _SUMMARY:
            summary = line
        elif kind not in _UNCHANGING:
            raise _not_understood(host, line)
    _check_counts(host, counts, summary)


def _changed(host: Host, line: str, size_bytes: int) -> Optional[tuple[int, int]]:
    """Return the range of a record, or None where that is not of the volume's data, which are object 1."""
    named, offset = _value(line, "object"), _value(line, "offset")
    length = _value(line, "logical_size") or _value(line, "length")
    if not (named and offset and length):
        raise _not_understood(host, line)
    if named != _DATA:
        return None
    start, size = int(offset), int(length)
    # What is freed to the end is told as the largest number that there is.
    return start, size_bytes - start if size < 0 else size


def _value(line: str, name: str) -> str:
    match = re.search(rf"\b{name} = (-?\d+)", line)
    return match.group(1) if match else ""


def _check_counts(host: Host, counts: Counter[str], summary: str) -> None:
    """Raise CommandFailed unless all that the stream has has come, and been read as what it is."""
    told = {kind: int(number) for kind, number in re.findall(r"Total DRR_(\w+) records = (\d+)", summary)}
    total = re.search(r"Total records = (\d+)", summary)
    wrong = [
        f"{number} {kind} and not {counts[kind]}"
        for kind, number in told.items()
        if kind in _CHANGING | {_LAST}
        if number != counts[kind]
    ]
    if counts[_LAST] != 1 or not total or not told.keys() >= _COUNTED:
        wrong.append("no whole stream")
    elif int(total.group(1)) != sum(counts.values()) - 1:
        wrong.append(f"{total.group(1)} records and not {sum(counts.values()) - 1}")
    if wrong:
        raise CommandFailed(f"The stream of zfs send on {host.name} has, by its own summary, {', '.join(wrong)}: retry")


def _not_understood(host: Host, line: str) -> CommandFailed:
    return CommandFailed(f"zstream on {host.name} says {line[:80]!r}, which this driver does not understand")


def _lines(host: Host, what: str, step: Step) -> Iterator[str]:
    # For each time that the pool is waited for, and whatever comes before that or behind the reading.
    bound = 2 * host.settings.command_timeout_seconds
    longest_seconds: Optional[int] = bound
    with host.feed(what, step) as feed:
        while (line := feed.line(longest_seconds)) != _END:
            if not line:
                feed.finish()
                raise CommandFailed(f"{what} on {host.name} ended early: retry")
            if line in (_WAITING, _BEGUN, _READ):
                longest_seconds = None if line == _BEGUN else bound
            else:
                yield line
        feed.finish()


def within(ranges: Iterable[tuple[int, int]], earlier_bytes: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges as far as they are in a disk of `size_bytes`, neighbours joined, and all that it has grown by.

    Behind the end of the smaller disk lies what the pool did not see change: DRBD's metadata, for one.
    """
    common = min(earlier_bytes, size_bytes)
    known = ((offset, min(offset + length, common)) for offset, length in ranges)
    start = end = 0
    for first, last in chain(known, [(common, size_bytes)]):
        if first >= last:
            continue
        if first != end:
            if end > start:
                yield start, end - start
            start = first
        end = last
    if end > start:
        yield start, end - start
