"""The arguments of transfer actions: hosts, paths below a system datastore, sources and numbers, all checked.

one_tm splits its lines at blanks, so that a user's text with a blank shifts every later argument: the number of
arguments and the form of each are part of the contract (opennebula-contract.md, 12).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from linstor_un.errors import InvalidInput
from linstor_un.opennebula.model import LARGEST_MIB

_HOST = r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"
_DOMAIN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_DIRECTORY = r"(?a)/(?:[\w.+@-]+/)*(\d{1,10})/(\d{1,10})"
NO_DISK = -1
_DISK = r"(?a)disk\.(\d{1,6})"


class Place(NamedTuple):
    """A VM's directory in a system datastore on a host, or one disk in it; `disk_id` is NO_DISK for the directory."""

    host: str
    directory: str
    datastore_id: int
    vm_id: int
    disk_id: int

    @property
    def is_disk(self) -> bool:
        """Tell whether a disk is named, and not the directory."""
        return self.disk_id != NO_DISK

    @property
    def path(self) -> str:
        """Return the absolute path of the disk, or of the directory where no disk is named."""
        return f"{self.directory}/disk.{self.disk_id}" if self.is_disk else self.directory

    @property
    def datastores(self) -> str:
        """Return the directory that all datastores are below."""
        return self.directory.rsplit("/", 2)[0]

    def in_datastore(self, datastore_id: int) -> Place:
        """Return the same place in another system datastore."""
        directory = f"{self.datastores}/{datastore_id}/{self.vm_id}"
        return self._replace(directory=directory, datastore_id=datastore_id)


def expect(arguments: Sequence[str], *names: str) -> None:
    """Check that there is one argument for each of `names`; raises InvalidInput."""
    if len(arguments) != len(names):
        raise InvalidInput(
            f"The action takes {len(names)} arguments ({' '.join(names)}) and got {len(arguments)} "
            f"({' '.join(arguments)[:200]}): a value with a blank in it shifts the others"
        )


def identifier(value: str, name: str) -> int:
    """Return an id of OpenNebula; raises InvalidInput."""
    if not re.fullmatch(r"[0-9]{1,10}", value):
        raise InvalidInput(f"{name} is {value[:80]!r} and must be a number")
    return int(value)


def size_mib(value: str) -> int:
    """Return a size in MiB; raises InvalidInput."""
    if not re.fullmatch(r"[0-9]{1,12}", value) or not 1 <= int(value) <= LARGEST_MIB:
        raise InvalidInput(f"The size is {value[:40]!r} and must be a number of MiB from 1 to {LARGEST_MIB}")
    return int(value)


def hostname(value: str) -> str:
    """Return the name of a host; raises InvalidInput for what ssh could take for anything else."""
    if not re.fullmatch(_HOST, value):
        raise InvalidInput(f"{value[:80]!r} is not the name of a host: use letters, digits, '.', '_' and '-'")
    return value


def domain(value: str) -> str:
    """Return the name of a domain; raises InvalidInput for what virsh could take for anything else."""
    if not re.fullmatch(_DOMAIN, value):
        raise InvalidInput(f"{value[:80]!r} is not the name of a domain: call the action as OpenNebula does")
    return value


def place(argument: str, vm_id: int) -> Place:
    """Read `HOST:SYSDIR` or `HOST:SYSDIR/disk.N` of the VM `vm_id`; raises InvalidInput.

    oned writes a double slash into the path (opennebula-seen.md); it is normalised here.
    """
    host, separator, path = argument.partition(":")
    if not separator or not path.startswith("/") or ".." in path.split("/"):
        raise InvalidInput(f"{argument[:200]!r} is not HOST:/path of a VM's directory or disk")
    path = "/" + posixpath.normpath(path).lstrip("/")
    directory, name = posixpath.split(path)
    disk = re.fullmatch(_DISK, name)
    match = re.fullmatch(_DIRECTORY, directory if disk else path)
    if not match:
        raise InvalidInput(f"{argument[:200]!r} is not below a datastore: it must end in <datastore>/<VM>[/disk.<id>]")
    if int(match.group(2)) != vm_id:
        raise InvalidInput(f"{argument[:200]!r} is not a path of VM {vm_id}")
    return Place(
        host=hostname(host),
        directory=match.group(0),
        datastore_id=int(match.group(1)),
        vm_id=vm_id,
        disk_id=int(disk.group(1)) if disk else NO_DISK,
    )


def disk_place(argument: str, vm_id: int) -> Place:
    """Read `HOST:SYSDIR/disk.N` of the VM `vm_id`; raises InvalidInput."""
    found = place(argument, vm_id)
    if not found.is_disk:
        raise InvalidInput(f"{argument[:200]!r} must end in disk.<id>")
    return found


def source(argument: str) -> str:
    """Return the SOURCE of `FE:SOURCE`; a source that has a colon itself comes without the front-end's name."""
    host, separator, path = argument.partition(":")
    return path if separator and re.fullmatch(_HOST, host) else argument
