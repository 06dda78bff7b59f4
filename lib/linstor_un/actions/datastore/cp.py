"""datastore/cp: bring an image into a new volume; prints SOURCE and FORMAT."""

from __future__ import annotations

from contextlib import closing

from linstor_un import settings as settings_room
from linstor_un.actions import datastore_action, new_volume
from linstor_un.actions.datastore_action import MIB
from linstor_un.actions.new_volume import NewVolume
from linstor_un.cluster import placement as placements
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput, UnusableImage
from linstor_un.hosts import copies
from linstor_un.hosts.runner import Feed
from linstor_un.hosts.sources import ImageSource
from linstor_un.locks import volume_lock
from linstor_un.undo import Undo


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
        lock = volume_lock(settings_room.lock_directory(settings), resource, settings.lock_timeout_seconds)
        with lock, Undo() as undo:
            owner = datastore_action.owner(action, image)
            volume = new_volume.make(gateway, undo, resource, image.size_mib, placement, owner)
            _fill(volume, source, image.size_mib)
            new_volume.leave_writer(gateway, volume)
            new_volume.finish(gateway, volume)
            call.answer(f"{volume.device} raw")


def _fill(volume: NewVolume, source: ImageSource, size_mib: int) -> None:
    if source.format.is_raw:
        feed = copies.write(volume.writer, volume.device, volume.size_bytes, volume.reads_zero)
        sent = _send(source, feed, volume.size_bytes, size_mib)
        written = copies.written(feed.finish())
        if written != sent:
            raise UnusableImage(f"Only {written} of {sent} bytes of image {source.name} reached {volume.device}: retry")
        return
    form = source.format
    feed = copies.write_staged(volume.writer, volume.device, volume.size_bytes, volume.reads_zero, form.name)
    sent = _send(source, feed, None, size_mib)
    if sent < form.least_bytes:
        feed.stop()
        raise UnusableImage(f"Image {source.name} is cut short: it has {sent} of at least {form.least_bytes} bytes")
    feed.finish()


def _send(source: ImageSource, feed: Feed, limit_bytes: int | None, size_mib: int) -> int:
    """Feed the image to the host and return its length; the host's own complaint wins over a broken pipe."""
    sent = 0
    try:
        for block in source.blocks():
            sent += len(block)
            if limit_bytes is not None and sent > limit_bytes:
                raise datastore_action.does_not_fit(source.name, max(sent, source.size_bytes or 0), size_mib)
            feed.stdin.write(block)
    except BrokenPipeError:
        feed.finish()
        raise UnusableImage(f"The host stopped reading image {source.name} after {sent // MIB} MiB: retry") from None
    except BaseException:
        feed.stop()
        raise
    if not sent:
        feed.stop()
        raise UnusableImage(f"Image {source.name} is empty: provide another file")
    return sent
