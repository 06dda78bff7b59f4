"""Looking at a host: what the driver's actions will need there, found out in one connection and without a change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from linstor_un.hosts.copies import IS_SAFE
from linstor_un.hosts.runner import Host, Step

# What the scripts of the other modules call that a small system may lack.
PROGRAMS = ("blkdiscard", "find", "lsblk", "mkswap", "qemu-img", "readlink", "setsid", "tar", "timeout", "virsh")
_SCRIPT = (
    IS_SAFE
    + """
staging=$1 datastores=$2 thin=$3
shift 3
echo "clock $(date +%s)"
echo "user $(id -un)"
for program; do
    command -v "$program" >/dev/null 2>&1 || echo "missing $program"
done
found=
for device in /dev/drbd[0-9]*; do
    [ -e "$device" ] || [ -L "$device" ] || continue
    found=yes
    if ! [ -r "$device" ] || ! [ -w "$device" ]; then
        echo "closed $device"
        break
    fi
done
if [ -z "$found" ] && [ "$(id -u)" != 0 ]; then
    case " $(id -nG) " in *" disk "*) ;; *) echo "closed -" ;; esac
fi
if ! [ -d "$staging" ]; then
    echo "staging absent"
elif ! [ -w "$staging" ]; then
    echo "staging closed"
elif ! is_safe "$staging"; then
    echo "staging open"
fi
[ -w "$datastores" ] || echo "datastores closed"
if [ "$thin" = yes ]; then
    sudo -n lvs --noheadings --separator ' ' -o vg_name,lv_name,metadata_percent -S 'segtype=thin-pool' 2>/dev/null |
        sed 's/^ */thin /' || true
fi
"""
)

# As hosts/changes.py asks pools for what has changed.
_INCREMENTS = """
is_vm_host=$1
shift
lacks() { command -v "$1" >/dev/null 2>&1 || { echo "program $1"; false; }; }
may() { sudo -n -l "$@" >/dev/null 2>&1; }
[ "$is_vm_host" = no ] || qemu-io -V >/dev/null 2>&1 || echo "program qemu-io"
for pool; do
    name=${pool#*:}
    case $pool in
    thin:*)
        path=/dev/mapper/$(echo "${name%%/*}" | sed s/-/--/g)-$(echo "${name#*/}" | sed s/-/--/g)
        may lvs || echo "right lvs"
        may dmsetup message "$path-tpool" 0 reserve_metadata_snap || echo "right dmsetup"
        ! lacks thin_delta || [ -r "${path}_tmeta" ] || may thin_delta || echo "right thin_delta"
        ;;
    zfs:*)
        lacks zstream >/dev/null || lacks zstreamdump >/dev/null || echo "program zstream"
        may zfs send || zfs allow "${name%%/*}" 2>/dev/null | grep -Eq "(user $(id -un)|everyone) .*send" ||
            echo "right zfs send"
        ;;
    esac
done
"""


class Inspection(NamedTuple):
    """What a host is like; `closed_device` is one that its user cannot open, `-` where there is none and it could not.

    `clock_ahead_seconds` is 0 where the clocks agree as far as the connection lets know; `metadata_percent` of thin
    pools (`group/pool`) is known only where the user may ask for it.
    """

    user: str
    missing_programs: tuple[str, ...]
    closed_device: str
    staging: str
    datastores: str
    clock_ahead_seconds: float
    metadata_percent: tuple[tuple[str, float], ...]


def inspect(host: Host, file_systems: Sequence[str], datastores: str, has_thin_pool: bool) -> Inspection:
    """Look at a host; raises HostUnreachable and CommandFailed."""
    programs = [*PROGRAMS, *(f"mkfs.{name}" for name in file_systems)]
    values = (host.settings.staging_directory, datastores, "yes" if has_thin_pool else "no", *programs)
    before = time.time()
    printed = host.run("Looking at the host", Step(_SCRIPT, values))
    return _read(printed, before, time.time())


def _read(printed: str, before: float, after: float) -> Inspection:
    said: dict[str, list[str]] = {}
    for line in printed.splitlines():
        key, _, value = line.partition(" ")
        said.setdefault(key, []).append(value.strip())
    clock = float(said["clock"][0])
    ahead = clock - after if clock > after else min(0.0, clock + 1 - before)
    return Inspection(
        user=said["user"][0],
        missing_programs=tuple(said.get("missing", ())),
        closed_device=said.get("closed", [""])[0],
        staging=said.get("staging", [""])[0],
        datastores=said.get("datastores", [""])[0],
        clock_ahead_seconds=ahead,
        metadata_percent=tuple(_thin(said.get("thin", ()))),
    )


def _thin(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    for group, pool, *percent in map(str.split, lines):
        # LVM does not know it of a pool that is not active.
        if percent:
            yield f"{group}/{pool}", float(percent[0])


def lacks_for_increments(host: Host, is_vm_host: bool, pools: Sequence[str]) -> tuple[str, ...]:
    """Return what increments of backups would lack on a host: `program NAME`, or `right COMMAND` of sudo.

    Arguments: `pools` are `thin:GROUP/POOL` and `zfs:POOL`. Raises HostUnreachable and CommandFailed.
    """
    step = Step(_INCREMENTS, ("yes" if is_vm_host else "no", *pools))
    return tuple(dict.fromkeys(host.run("Looking at the host", step).splitlines()))
