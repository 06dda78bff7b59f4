"""tm/mkswap: make a swap disk.

Arguments: SIZE_MB HOST:SYSDIR/disk.N VMID DSID (of the system datastore).
"""

from __future__ import annotations

from linstor_un.actions import transfer, volatile
from linstor_un.driver import Call
from linstor_un.hosts import filesystems
from linstor_un.opennebula import arguments


def run(call: Call) -> None:
    """Make the disk and format it as swap."""
    arguments.expect(call.arguments, "SIZE_MB", "HOST:PATH", "VMID", "DSID")
    size_mib = arguments.size_mib(call.arguments[0])
    place = arguments.disk_place(call.arguments[1], arguments.identifier(call.arguments[2], "VMID"))
    action = transfer.begin(call, place, arguments.identifier(call.arguments[3], "DSID"))
    volatile.make(action, place, size_mib, filesystems.SWAP)
