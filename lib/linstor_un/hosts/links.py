"""What lies on a host at one moment: the directories of VMs, the links to volumes in them, and the volumes' devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Union

from linstor_un.errors import DriverError
from linstor_un.hosts.runner import Host, Step

_HOSTS_AT_ONCE = 16

# Fields are separated by tabs, which no name here can have: datastores and VMs are numbers, disks disk.N.
_LIST = """
tab=$(printf '\\t')
if cd /dev/drbd/by-res 2>/dev/null; then
    for device in */0; do
        [ ! -e "$device" ] || echo "device$tab${device%/0}"
    done
fi
cd "$1" 2>/dev/null || exit 0
find . -mindepth 2 -maxdepth 2 -type d -path './[0-9]*/[0-9]*' -printf 'directory\\t%P\\t%i:%C@\\n' 2>/dev/null || true
find . -mindepth 3 -maxdepth 3 -path './[0-9]*/[0-9]*/*' ! -type l -printf 'file\\t%P\\n' 2>/dev/null || true
find . -mindepth 3 -maxdepth 3 -path './[0-9]*/[0-9]*/disk.*' -type l -printf '%P\\n' 2>/dev/null |
    while read -r path; do
        if [ -e "$path" ]; then there=yes; else there=no; fi
        # One that goes away meanwhile is none.
        target=$(readlink "$path") || continue
        echo "link$tab$path$tab$target$tab$there"
    done
"""


class Link(NamedTuple):
    """A link: where it leads, and whether there is something."""

    target: str
    is_dangling: bool


class Findings(NamedTuple):
    """What one host has; paths are relative to the datastores' directory, for example `100/7/disk.0`.

    `directories` are those of VMs, with what tells a directory from another: hosts that share it show the same. `files`
    are what is in them beside links, `devices` the volumes that have a device of DRBD.
    """

    directories: Mapping[str, str]
    links: Mapping[str, Link]
    files: frozenset[str]
    devices: frozenset[str]


def of(host: Host) -> Findings:
    """Return what the host has, over one connection; raises HostUnreachable, MissingDependency and CommandFailed."""
    step = Step(_LIST, (host.settings.datastore_location,))
    directories: dict[str, str] = {}
    links: dict[str, Link] = {}
    others: dict[str, set[str]] = {"file": set(), "device": set()}
    for line in host.run("Looking at the directories of VMs", step).splitlines():
        kind, path, *more = line.split("\t")
        if kind == "directory":
            directories[path] = more[0]
        elif kind == "link":
            links[path] = Link(more[0], more[1] == "no")
        else:
            others[kind].add(path)
    return Findings(directories, links, frozenset(others["file"]), frozenset(others["device"]))


def of_all(hosts: Iterable[Host]) -> dict[str, Union[Findings, DriverError]]:
    """Return what each host has, by its name, or why it cannot be known; many hosts at once."""
    listed = list(hosts)
    with ThreadPoolExecutor(min(len(listed), _HOSTS_AT_ONCE) or 1) as pool:
        return dict(zip((host.name for host in listed), pool.map(_attempt, listed)))


def _attempt(host: Host) -> Union[Findings, DriverError]:
    try:
        return of(host)
    except DriverError as error:
        return error
