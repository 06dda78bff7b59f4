"""Filling a device with an image, in one pass where its format allows that."""

from __future__ import annotations

from typing import NamedTuple

from linstor_un.errors import UnusableImage
from linstor_un.hosts import copies
from linstor_un.hosts.runner import Feed, Host
from linstor_un.hosts.sources import ImageSource
from linstor_un.units import MIB


class Target(NamedTuple):
    """A device on a host, which is there when it has `size_bytes`."""

    host: Host
    device: str
    size_bytes: int
    reads_zero: bool


def fill(target: Target, source: ImageSource, size_mib: int) -> None:
    """Give the device the content of an image of at most `size_mib`, with zeroes behind it.

    Raises UnusableImage, and as Host.run.
    """
    if source.format.is_raw:
        _fill_raw(target, source, size_mib)
        return
    form = source.format
    with copies.write_staged(*target, form.name) as feed:
        sent = _send(source, feed)
        if sent < form.least_bytes:
            raise UnusableImage(f"Image {source.name} is cut short: it has {sent} of at least {form.least_bytes} bytes")
        feed.end()
        feed.finish()


def _fill_raw(target: Target, source: ImageSource, size_mib: int) -> None:
    with copies.write(*target) as feed:
        sent = _send(source, feed, size_mib)
        feed.end()
        written = feed.line()
        if written and written != str(sent):
            raise UnusableImage(f"Only {written} of {sent} bytes of image {source.name} reached {target.device}: retry")
        feed.say("right")
        feed.finish()


def _send(source: ImageSource, feed: Feed, limit_mib: int = 0) -> int:
    """Feed the image to the host and return its length in bytes; raises UnusableImage above `limit_mib` (0: none)."""
    sent = 0
    for block in source.blocks():
        sent += len(block)
        if limit_mib and sent > limit_mib * MIB:
            raise does_not_fit(source.name, max(sent, source.size_bytes or 0), limit_mib)
        feed.send(block, source.sure_bytes)
    if not sent:
        raise UnusableImage(f"Image {source.name} is empty: provide another file")
    return sent


def check_fits(source: ImageSource, size_mib: int) -> None:
    """Check that the disk in the image fits into `size_mib` as far as its format says; raises UnusableImage.

    What comes from a backup has all of a device, and may have more: it is compared with the device that it comes to.
    """
    known = source.format.virtual_bytes
    if known is not None and source.is_of_backup:
        return
    if known is None and source.format.is_raw and not source.is_compressed:
        known = source.size_bytes
    if known is not None and known > size_mib * MIB:
        raise does_not_fit(source.name, known, size_mib)


def does_not_fit(name: str, size_bytes: int, size_mib: int) -> UnusableImage:
    """Return the error for an image that is larger than its volume."""
    return UnusableImage(
        f"Image {name} has {size_bytes} bytes and does not fit into {size_mib} MiB: give the image a SIZE of at least "
        f"{-(-size_bytes // MIB)} MiB"
    )
