"""tm/mkimage: make a volatile disk, with the file system that the VM's template asks for.

Arguments: SIZE_MB FORMAT HOST:SYSDIR/disk.N VMID DSID (of the system datastore).
"""

from __future__ import annotations

from linstor_un.actions import transfer, volatile
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.hosts import filesystems
from linstor_un.opennebula import arguments


def run(call: Call) -> None:
    """Make the disk; the file system is known to oned alone, FORMAT is the image format and must be raw."""
    arguments.expect(call.arguments, "SIZE_MB", "FORMAT", "HOST:PATH", "VMID", "DSID")
    size_mib = arguments.size_mib(call.arguments[0])
    place = arguments.disk_place(call.arguments[2], arguments.identifier(call.arguments[3], "VMID"))
    if call.arguments[1].lower() != "raw":
        raise InvalidInput(
            f"FORMAT {call.arguments[1][:40]!r} of disk {place.disk_id} is not possible on a volume: use raw, which "
            'DRIVER="raw" in TM_MAD_CONF of oned.conf makes sure of'
        )
    action = transfer.begin(call, place, arguments.identifier(call.arguments[4], "DSID"))
    kind = action.need_disk(place.disk_id).file_system
    if kind:
        filesystems.check(kind, action.settings.supported_file_systems)
    volatile.make(action, place, size_mib, kind)
