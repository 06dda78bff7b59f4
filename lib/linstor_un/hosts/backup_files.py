"""The files that a backup datastore's driver fetches from the VM's host: vm.xml, and one qcow2 file per disk.

An increment has the blocks that may have changed, zeroes among them explicitly, and no name of what it was made from:
the drivers of backup datastores give each its predecessor (opennebula-contract.md, 6).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, Optional

from linstor_un.hosts.devices import MAKE_DIRECTORY, WAIT_FOR_DEVICE
from linstor_un.hosts.pipes import Pace
from linstor_un.hosts.runner import Host, Step

# Longer reads than this cost memory and gain nothing.
_LONGEST_READ_BYTES = 16 << 20
# As qcow2 has them where nobody asks for others.
LARGEST_CLUSTER_BYTES = 64 << 10

_REMOVE = """
remove() {
    case $1 in */[0-9]*/backup) ;; *) echo "$1 is not the directory of a VM's backup" >&2; exit 1 ;; esac
    rm -rf -- "$1"
}
"""

# For its owner alone: what is in it is the VM's data.
_PREPARE = (
    _REMOVE
    + MAKE_DIRECTORY
    + """
remove "$1"
make_directory "${1%/*}"
umask 077
mkdir "$1"
receive >"$1/vm.xml"
"""
)

_SLOWLY = """
slowly() {
    [ -z "$1" ] || renice -n "$1" -p $$ >/dev/null
    [ -z "$2" ] || ionice -c 2 -n "$2" -p $$
    umask 077
}
"""

_FULL = (
    WAIT_FOR_DEVICE
    + _SLOWLY
    + """
device=$1 bytes=$2 seconds=$3 file=$4 rate=
slowly "$5" "$6"
wait_for_device "$device" "$bytes" "$seconds"
# Before 6.0 it has no -r; what it says of it was worded anew in 10.1.
[ "$7" = 0 ] || ! qemu-img convert --help 2>/dev/null | grep -q -i -e '-r[ ,].*rate' || rate="-r $7"
rm -f "$file"
qemu-img convert -U -f raw -O qcow2 -W -m 8 $rate "$device" "$file"
"""
)

# The scripts of backup datastores merge a smaller disk into the larger one that it was, and leave that as long as it
# is: what was there then is hidden by zeroes that are said, behind the end too.
_HIDE_REST = """
hide_rest() {
    from=$2
    while [ "$from" -lt "$3" ]; do
        count=$(($3 - from))
        [ "$count" -le 1073741824 ] || count=1073741824
        qemu-io -f qcow2 -c "write -q -z $from $count" "$1" >&2
        from=$((from + count))
    done
}
"""

# What qemu-io has said last, without what it asks for, is what went wrong.
_COMPLAIN = """
complain() {
    printf '%s\\n' "$2" | sed 's/qemu-io> //g' | grep . | tail -n 1 >&2
    exit "$1"
}
"""

# What is read through it an overlay keeps: of zeroes that they are zeroes, which hides what earlier increments have.
_CHANGES = (
    WAIT_FOR_DEVICE
    + _SLOWLY
    + _HIDE_REST
    + _COMPLAIN
    + """
device=$1 bytes=$2 seconds=$3 file=$4 whole=$8
slowly "$5" "$6"
wait_for_device "$device" "$bytes" "$seconds"
echo "$size"
[ "$whole" -ge "$size" ] || whole=$size
rm -f "$file"
# What is less than a cluster takes all of one.
qemu-img create -q -f qcow2 -o "cluster_size=$7" -b "$device" -F raw "$file" "$whole"
# The connection is watched as soon as all has come, while the last of it is still read. That all has come is told too:
# qemu-io takes a list that breaks off for a short one.
said=$({ { receive; echo all-has-come >&4; exec 4>&-; watch; } | qemu-io -C -f qcow2 "$file" >&4 2>&1; } 4>&1) ||
    complain "$?" "$said"
case $said in
*all-has-come*) ;;
*) echo "the list of what has changed has not come to its end" >&2; exit 1 ;;
esac
hide_rest "$file" "$size" "$whole"
qemu-img rebase -u -b '' "$file"
"""
)

_COMPARISON = (
    WAIT_FOR_DEVICE
    + _SLOWLY
    + _HIDE_REST
    + _COMPLAIN
    + """
device=$1 bytes=$2 seconds=$3 file=$4 cluster=$7 whole=$8 earlier=$9 earlier_bytes=${10}
slowly "$5" "$6"
wait_for_device "$earlier" "$earlier_bytes" "$seconds"
earlier_size=$size
wait_for_device "$device" "$bytes" "$seconds"
[ "$whole" -ge "$size" ] || whole=$size
rm -f "$file" "$file.earlier"
trap 'rm -f "$file.earlier"' EXIT
trap 'exit 1' HUP INT TERM PIPE
# Behind its end the earlier disk had zeroes.
qemu-img create -q -f qcow2 -b "$earlier" -F raw "$file.earlier" "$earlier_size"
qemu-img create -q -f qcow2 -o "cluster_size=$cluster" -b "$device" -F raw "$file" "$whole"
qemu-img rebase -f qcow2 -b "$file.earlier" -F qcow2 "$file"
# What is behind its SIZE the backups before may lack, equal or not: all of that is kept, as of changes that are told.
qemu-img rebase -u -b "$device" -F raw "$file"
said=$(
    from=$earlier_bytes
    while [ "$from" -lt "$size" ]; do
        length=$((size - from))
        [ "$length" -le "${11}" ] || length=${11}
        echo "read -q $from $length"
        from=$((from + length))
    done | qemu-io -C -f qcow2 "$file" 2>&1
) || complain "$?" "$said"
hide_rest "$file" "$size" "$whole"
qemu-img rebase -u -b '' "$file"
"""
)


class Manner(NamedTuple):
    """How hard a backup may work: NICE and IONICE of its datastore, None for as hard as anything, and its BWLIMIT.

    `bytes_per_second` is 0 without limit.
    """

    nice: Optional[int] = None
    io_nice: Optional[int] = None
    bytes_per_second: int = 0

    @property
    def words(self) -> tuple[str, str]:
        """Return NICE and IONICE as the scripts take them."""
        return "" if self.nice is None else str(self.nice), "" if self.io_nice is None else str(self.io_nice)


class Target(NamedTuple):
    """A disk's file on the host, and the device that it is made of whole; that is there with `size_bytes` at least.

    `earlier_bytes` is how long it may have been at the increment before, where that was longer.
    """

    device: str
    size_bytes: int
    file: str
    earlier_bytes: int = 0


def prepare(host: Host, directory: str, document: bytes) -> None:
    """Make the directory anew, with the VM's XML in it as base64."""
    with host.feed(f"Preparing {directory}", Step(_PREPARE, (directory,))) as feed:
        feed.send(base64.encodebytes(document))
        feed.end()
        feed.finish()


def remove(host: Host, directory: str) -> None:
    """Remove the directory with all that is in it; absent is done."""
    host.run(f"Removing {directory}", Step(_REMOVE + 'remove "$1"\n', (directory,)))


def full(host: Host, target: Target, manner: Manner) -> Step:
    """Return the step that makes a file of all of a disk; holes stay holes."""
    return Step(_FULL, (*_common(host, target, manner), manner.bytes_per_second), is_long=True)


def changes(
    host: Host,
    target: Target,
    manner: Manner,
    ranges: Callable[[int], Iterable[tuple[int, int]]],
    cluster_bytes: int = LARGEST_CLUSTER_BYTES,
) -> None:
    """Make a file of ranges of a disk, each an offset and a length in bytes.

    Arguments: `ranges` returns them for a device that has so many bytes. The file grows by `cluster_bytes` at a time, a
    power of two.
    """
    values = (*_common(host, target, manner), cluster_bytes, target.earlier_bytes)
    pace = Pace(manner.bytes_per_second)
    with host.feed(f"Writing {target.file}", Step(_CHANGES, values)) as feed:
        told = feed.line()
        if not told:
            feed.finish()
        for reads in _together(_reads(ranges(int(told)))):
            feed.send("".join(f"read -q {start} {length}\n" for start, length in reads).encode())
            feed.stdin.flush()
            pace.keep(sum(length for _, length in reads))
        feed.end()
        feed.finish()


def _reads(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, length in ranges:
        for start in range(offset, offset + length, _LONGEST_READ_BYTES):
            yield start, min(_LONGEST_READ_BYTES, offset + length - start)


def _together(reads: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield reads in their order, so many at a time as are worth to be told and do not take long."""
    found: list[tuple[int, int]] = []
    together = 0
    for start, length in reads:
        found.append((start, length))
        together += length
        if together >= _LONGEST_READ_BYTES:
            yield found
            found, together = [], 0
    if found:
        yield found


def comparison(
    host: Host, target: Target, manner: Manner, earlier: tuple[str, int], cluster_bytes: int = LARGEST_CLUSTER_BYTES
) -> Step:
    """Return the step that makes a file of what differs from an earlier disk: its device and its size in bytes.

    It grows by `cluster_bytes` at a time, a power of two.
    """
    values = (*_common(host, target, manner), cluster_bytes, target.earlier_bytes, *earlier, _LONGEST_READ_BYTES)
    return Step(_COMPARISON, values, is_long=True)


def _common(host: Host, target: Target, manner: Manner) -> tuple[object, ...]:
    return (target.device, target.size_bytes, host.settings.device_timeout_seconds, target.file, *manner.words)
