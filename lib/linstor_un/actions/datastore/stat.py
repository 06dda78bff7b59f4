"""datastore/stat: tell the size of an image in MiB before it is registered; oned waits 90 s for it."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Optional

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


def run(call: Call) -> None:
    """Print the size of the disk in the image, in MiB, rounded up."""
    action = datastore_action.decode(call, image="without id")
    image = action.need_image()
    with closing(_open(action, image)) as source:
        size_bytes = _size(source, image)
    call.answer(str(-(-size_bytes // MIB)))


def _open(action: DatastoreAction, image: Image) -> ImageSource:
    if image.path.startswith(("http://", "https://")) and sources.is_plain_url(image.path):
        # The server tells the length of what it offers; the downloader would have to fetch all of it.
        try:
            return sources.from_url(image.path, "", {}, {}, decompress=not action.settings.no_decompress)
        except UnusableImage as failure:
            log.info(f"{failure}; trying the downloader")
    return datastore_action.open_source(action, image)


def _size(source: ImageSource, image: Image) -> int:
    known: Optional[int] = source.format.virtual_bytes
    if known is None and not source.is_compressed:
        known = source.size_bytes
    if known is None:
        known = _count(source, image.size_mib * MIB)
    if not known:
        raise UnusableImage(f"Image {source.name} is empty: provide another file")
    return known


def _count(source: ImageSource, fallback_bytes: int) -> int:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    size = 0
    for block in source.blocks():
        size += len(block)
        if time.monotonic() > deadline:
            if fallback_bytes:
                return fallback_bytes
            raise UnusableImage(
                f"The size of image {source.name} is known only when all of it is read, which takes more than "
                f"{_DEADLINE_SECONDS} s: give the image a SIZE, or provide it uncompressed or as qcow2"
            )
    return size
