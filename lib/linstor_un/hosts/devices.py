"""The devices of volumes on a host, and the links under which the hypervisor finds them."""

from __future__ import annotations

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

_LINK = (
    WAIT_FOR_DEVICE
    + MAKE_DIRECTORY
    + """
device=$1 bytes=$2 seconds=$3 directory=$4 link=$5 access=$6
wait_for_device "$device" "$bytes" "$seconds"
if ! [ -r "$device" ] || { [ "$access" = write ] && ! [ -w "$device" ]; }; then
    echo "$device is not accessible for $(id -un): add that user to the device's group (disk), or add a udev rule" >&2
    exit 1
fi
if [ -e "$link" ] && ! [ -L "$link" ]; then
    echo "$link exists and is no link: move it away" >&2
    exit 1
fi
make_directory "$directory"
# By one program, which is killed before or after: a second name would stay and look like another VM's disk.
ln -sfT "$device" "$link"
"""
)

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


def wait(host: Host, device: str, size_bytes: int) -> None:
    """Wait until the device is there and has at least `size_bytes`; raises CommandFailed."""
    script = WAIT_FOR_DEVICE + 'wait_for_device "$1" "$2" "$3"\n'
    host.run(f"Waiting for {device}", Step(script, (device, size_bytes, host.settings.device_timeout_seconds)))
