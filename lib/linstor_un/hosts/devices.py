"""The devices of volumes on a host, and the links under which the hypervisor finds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from linstor_un.hosts.runner import Host, Step

# Read from sysfs, without opening: a device that is Primary elsewhere cannot be opened and is there all the same.
WAIT_FOR_DEVICE = """
wait_for_device() {
    limit=$(($(date +%s) + $3)) pause=0.05
    while :; do
        size=$(lsblk -bndo SIZE "$1" 2>/dev/null | head -n 1 | tr -d ' ') || size=
        [ "${size:-0}" -ge "$2" ] && return 0
        if [ "$(date +%s)" -ge "$limit" ]; then
            echo "device $1 has ${size:-no} bytes instead of $2 after $3 s; see 'drbdadm status' there" >&2
            exit 1
        fi
        sleep "$pause"
        pause=0.2
    done
}
"""

# Prints one link by which a VM's disk below the datastores of $1 has the device $2, if there is one; not VM $3's. What
# cannot be read (lost+found), and what goes away meanwhile, is nothing to fail for.
FIND_LINK = """
find_link() {
    [ -d "$1" ] || return 0
    find "$1" -mindepth 3 -maxdepth 3 -name 'disk.*' -lname "$2" ! -path "*/${3:-none}/disk.*" -print -quit \\
        2>/dev/null || true
}
"""

# Makes a VM's directory where another's alias may be (directories.alias).
MAKE_DIRECTORY = """
make_directory() {
    [ ! -L "$1" ] || rm -f "$1"
    mkdir -p "$1"
}
"""

_CHECK_DEVICE = (
    WAIT_FOR_DEVICE
    + """
check_device() {
    wait_for_device "$1" "$2" "$3"
    if ! [ -r "$1" ] || { [ "$4" = write ] && ! [ -w "$1" ]; }; then
        echo "$1 is not accessible for $(id -un): add that user to the device's group (disk), or add a udev rule" >&2
        exit 1
    fi
}
"""
)

_LINK = (
    _CHECK_DEVICE
    + MAKE_DIRECTORY
    + """
device=$1 bytes=$2 seconds=$3 directory=$4 link=$5 access=$6
check_device "$device" "$bytes" "$seconds" "$access"
if [ -e "$link" ] && ! [ -L "$link" ]; then
    echo "$link exists and is no link: move it away" >&2
    exit 1
fi
make_directory "$directory"
# By one program, which is killed before or after: a second name would stay and look like another VM's disk.
ln -sfT "$device" "$link"
"""
)

# In a directory that is there; whatever lies there instead of a link is not ours to remove.
_KEEP_LINK = """
device=$1 directory=$2 link=$3
if [ -e "$link" ] && ! [ -L "$link" ]; then
    echo "$link is no link to $device: a backup was restored in place, which puts a file there; see docs/mixed.md" >&2
    exit 1
fi
if [ -d "$directory" ] && [ "$(readlink "$link")" != "$device" ]; then ln -sfT "$device" "$link"; fi
"""

_UNLINK = (
    FIND_LINK
    + """
link=$1 device=$2 datastores=$3
[ -L "$link" ] && device=$(readlink "$link") && rm -f "$link"
echo "$device"
find_link "$datastores" "$device"
"""
)


def link(host: Host, device: str, path: str, size_bytes: int, read_only: bool = False) -> Step:
    """Make `path` a link to `device`, once the device is there, large enough and accessible."""
    directory = path.rpartition("/")[0]
    seconds = host.settings.device_timeout_seconds
    return Step(_LINK, (device, size_bytes, seconds, directory, path, "read" if read_only else "write"))


def check(host: Host, device: str, size_bytes: int, read_only: bool = False) -> Step:
    """Wait until `device` is there, large enough and accessible."""
    seconds = host.settings.device_timeout_seconds
    script = _CHECK_DEVICE + 'check_device "$@"\n'
    return Step(script, (device, size_bytes, seconds, "read" if read_only else "write"))


def keep_link(device: str, path: str) -> Step:
    """Let `path` be a link to `device`, wherever that is, if its directory is there; a file at `path` is an error."""
    return Step(_KEEP_LINK, (device, path.rpartition("/")[0], path))


class Unlinked(NamedTuple):
    """What a link pointed to, and whether another VM's disk on the same host is a link to the same device."""

    device: str
    is_used_by_others: bool


def unlink(host: Host, device: str, path: str) -> Unlinked:
    """Remove the link at `path`; where there is none, look for others to `device`."""
    datastores = path.rsplit("/", 3)[0]
    printed = host.run(f"Unlinking {path}", Step(_UNLINK, (path, device, datastores))).splitlines()
    return Unlinked(printed[0] if printed else device, len(printed) > 1)


def is_linked(host: Host, device: str, datastores: str, besides: int = -1) -> bool:
    """Tell whether a VM's disk on the host, in any datastore below `datastores`, is a link to the device.

    `besides` is the VM whose own disks do not count: where hosts share a file system, they show on all of them.
    """
    step = Step(FIND_LINK + 'find_link "$1" "$2" "$3"\n', (datastores, device, besides))
    return bool(host.run(f"Looking for links to {device}", step).strip())


def is_link(host: Host, path: str) -> bool:
    """Tell whether there is a link at `path`, wherever it leads."""
    step = Step('[ ! -L "$1" ] || echo "$1"\n', (path,))
    return bool(host.run(f"Looking for {path}", step).strip())


def files(host: Host, paths: Sequence[str]) -> list[str]:
    """Return those of the paths at which there is a file and no link."""
    step = Step('for path do [ -L "$path" ] || [ ! -f "$path" ] || echo "${path##*/}"; done\n', tuple(paths))
    found = host.run("Looking for files", step).splitlines()
    return [path for path in paths if path.rpartition("/")[2] in found]


def wait(host: Host, device: str, size_bytes: int) -> None:
    """Wait until the device is there and has at least `size_bytes`; raises CommandFailed."""
    script = WAIT_FOR_DEVICE + 'wait_for_device "$1" "$2" "$3"\n'
    host.run(f"Waiting for {device}", Step(script, (device, size_bytes, host.settings.device_timeout_seconds)))
