"""File systems and swap on new volumes."""

from __future__ import annotations

from linstor_un.errors import InvalidInput
from linstor_un.hosts.devices import WAIT_FOR_DEVICE
from linstor_un.hosts.runner import Host, Step

_MAKE = (
    WAIT_FOR_DEVICE
    + """
device=$1 bytes=$2 seconds=$3 kind=$4
wait_for_device "$device" "$bytes" "$seconds"
case $kind in
swap) mkswap "$device" >/dev/null ;;
ext*) "mkfs.$kind" -q -F "$device" ;;
xfs | btrfs) "mkfs.$kind" -q -f "$device" ;;
*) "mkfs.$kind" "$device" >/dev/null ;;
esac
"""
)
SWAP = "swap"


def check(kind: str, supported: tuple[str, ...]) -> None:
    """Check that volumes may be formatted with `kind`; raises InvalidInput naming those that are supported."""
    if kind not in supported:
        raise InvalidInput(
            f"File system {kind[:40]!r} is not supported: use one of {', '.join(supported)}, or extend SUPPORTED_FS in "
            "linstor_un.conf"
        )


def make(host: Host, device: str, size_bytes: int, kind: str) -> Step:
    """Make a file system, or swap, on the device."""
    return Step(_MAKE, (device, size_bytes, host.settings.device_timeout_seconds, kind), is_long=True)
