"""datastore/cp: bring an image into a new volume; prints SOURCE and FORMAT."""

from __future__ import annotations

from contextlib import closing

from linstor_un.actions import datastore_action, new_volume
from linstor_un.actions.new_volume import NewVolume
from linstor_un.cluster import placement as placements
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput, UnusableImage
from linstor_un.hosts import copies
from linstor_un.hosts.runner import Feed
from linstor_un.hosts.sources import ImageSource
from linstor_un.undo import Undo
from linstor_un.units import MIB


def run(call: Call) -> None:
    """Fetch IMAGE/PATH in one pass into a volume of IMAGE/SIZE."""
    action = datastore_action.decode(call)
    image = action.need_image()
    settings = action.settings
    placement = placements.of(settings, action.datastore.label)
    if not image.size_mib:
        raise InvalidInput("<IMAGE/SIZE> is missing or 0: give the image a SIZE in MiB")
    resource = action.names.image(image.image_id)
    with closing(datastore_action.open_source(action, image)) as source:
        datastore_action.check_fits(source, image.size_mib)
        gateway = action.gateway()
        with action.lock(resource), Undo() as undo:
            owner = datastore_action.owner(action, image)
            volume = new_volume.make(gateway, undo, resource, image.size_mib, placement, owner)
            _fill(volume, source, image.size_mib)
            new_volume.leave_writer(gateway, volume)
            new_volume.finish(gateway, volume)
            call.answer(f"{volume.device} raw")


def _fill(volume: NewVolume, source: ImageSource, size_mib: int) -> None:
    if source.format.is_raw:
        _fill_raw(volume, source, size_mib)
        return
    form = source.format
    with copies.write_staged(volume.writer, volume.device, volume.size_bytes, volume.reads_zero, form.name) as feed:
        sent = _send(source, feed)
        if sent < form.least_bytes:
            raise UnusableImage(f"Image {source.name} is cut short: it has {sent} of at least {form.least_bytes} bytes")
        feed.end()
        feed.finish()


def _fill_raw(volume: NewVolume, source: ImageSource, size_mib: int) -> None:
    with copies.write(volume.writer, volume.device, volume.size_bytes, volume.reads_zero) as feed:
        sent = _send(source, feed, size_mib)
        feed.end()
        written = feed.line()
        if written and written != str(sent):
            raise UnusableImage(f"Only {written} of {sent} bytes of image {source.name} reached {volume.device}: retry")
        feed.say("right")
        feed.finish()


def _send(source: ImageSource, feed: Feed, limit_mib: int = 0) -> int:
    """Feed the image to the host and return its length in bytes; raises UnusableImage above `limit_mib` (0: none)."""
    sent = 0
    for block in source.blocks():
        sent += len(block)
        if limit_mib and sent > limit_mib * MIB:
            raise datastore_action.does_not_fit(source.name, max(sent, source.size_bytes or 0), limit_mib)
        feed.send(block)
    if not sent:
        raise UnusableImage(f"Image {source.name} is empty: provide another file")
    return sent
