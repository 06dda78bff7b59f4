"""datastore/stat: tell the size of an image in MiB before it is registered; oned waits 90 s for it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import NoReturn, Optional

from linstor_un import log
from linstor_un.actions import datastore_action
from linstor_un.actions.datastore_action import DatastoreAction
from linstor_un.driver import Call
from linstor_un.errors import UnusableImage
from linstor_un.hosts import sources
from linstor_un.hosts.sources import ImageSource
from linstor_un.opennebula.model import Image
from linstor_un.units import MIB

# oned gives up after 90 s; a sentence in time is worth more than an answer too late.
_DEADLINE_SECONDS = 75
# What has not answered by then may still be had by the downloader.
_HTTP_SECONDS = 30


class _TooLate(BaseException):
    """The time is over; not an Exception, so that nobody takes it for one of the source's own."""


def run(call: Call) -> None:
    """Print the size of the disk in the image, in MiB, rounded up."""
    action = datastore_action.decode(call, image="without id")
    image = action.need_image()
    try:
        with _in_time(), closing(_open(action, image)) as source:
            size_bytes = _size(source)
    except _TooLate:
        size_bytes = image.size_mib * MIB
        if not size_bytes:
            raise UnusableImage(
                f"The size of image {image.path} is known only when it is read, which takes more than "
                f"{_DEADLINE_SECONDS} s: give the image a SIZE, or provide it uncompressed or as qcow2"
            ) from None
    call.answer(str(-(-size_bytes // MIB)))


@contextmanager
def _in_time() -> Iterator[None]:
    """Let the block end by _TooLate when the time is over, whatever it waits for."""
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(_DEADLINE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def _give_up(_number: int, _frame: Optional[FrameType]) -> NoReturn:
    raise _TooLate


def _open(action: DatastoreAction, image: Image) -> ImageSource:
    settings = action.settings
    if image.path.startswith(("http://", "https://")) and sources.is_plain_url(image.path):
        # The server tells the length of what it offers; the downloader would have to fetch all of it.
        seconds = min(settings.source_timeout_seconds, _HTTP_SECONDS)
        try:
            return sources.from_url(
                image.path, "", {}, {}, decompress=not settings.no_decompress, silence_seconds=seconds
            )
        except UnusableImage as failure:
            log.info(f"{failure}; trying the downloader")
    return datastore_action.open_source(action, image)


def _size(source: ImageSource) -> int:
    known: Optional[int] = source.format.virtual_bytes
    if known is None and not source.is_compressed:
        known = source.size_bytes
    if known is None:
        known = sum(len(block) for block in source.blocks())
    if not known:
        raise UnusableImage(f"Image {source.name} is empty: provide another file")
    return known
