"""The image that `virsh save` makes of a domain: its XML, and its memory, in a file or on a block device."""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Optional

_HEADER = struct.Struct(">16sIQ16s")
_MAGIC = b"LibvirtQemudSave"
_INCOMPLETE = b"LibvirtQemudPart"
_BLOCK = 4096
_STEP = 1 << 20
OTHER_STATE = 24 << 20
"""Bytes beside the RAM: 16 MiB of video RAM, and the state of the devices."""


class BadImage(RuntimeError):
    """What is read is no saved domain, or not all of it."""


@dataclass
class Saved:
    """What an image says: `seed` is what the memory's content follows from."""

    xml: str
    memory_kib: int
    seed: bytes


def size(saved: Saved) -> int:
    """Bytes of the image: every page of RAM has a header of 8 bytes."""
    memory = saved.memory_kib * 1024
    return _memory_offset(saved) + memory + memory // _BLOCK * 8 + OTHER_STATE


def write(descriptor: int, saved: Saved, capacity: Optional[int]) -> None:
    """Write the image, as much as `capacity` bytes can hold; OSError when it is larger. Its magic comes last."""
    xml = saved.xml.encode()
    os.pwrite(descriptor, _HEADER.pack(_INCOMPLETE, len(xml), saved.memory_kib, saved.seed) + xml, 0)
    for offset, block in _blocks(saved):
        if capacity is not None and offset + len(block) > capacity:
            raise OSError(28, "No space left on device")
        os.pwrite(descriptor, block, offset)
    os.pwrite(descriptor, _MAGIC, 0)


def read(descriptor: int) -> Saved:
    """Read an image and check that every part of the memory is what the guest had; BadImage."""
    head = os.pread(descriptor, _HEADER.size, 0)
    if head.startswith(_INCOMPLETE):
        raise BadImage("operation failed: save image is incomplete")
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        raise BadImage("operation failed: image magic is incorrect")
    _, length, memory_kib, seed = _HEADER.unpack(head)
    saved = Saved(os.pread(descriptor, length, _HEADER.size).decode("utf-8", "replace"), memory_kib, seed)
    for offset, block in _blocks(saved):
        if os.pread(descriptor, len(block), offset) != block:
            raise BadImage(f"internal error: the memory image is damaged at byte {offset}")
    return saved


def _memory_offset(saved: Saved) -> int:
    return (_HEADER.size + len(saved.xml.encode()) + _BLOCK - 1) // _BLOCK * _BLOCK


def _blocks(saved: Saved) -> list[tuple[int, bytes]]:
    """A sample of every MiB, and the end: the rest is as sparse as a guest's memory is in a box."""
    start, end = _memory_offset(saved), size(saved)
    offsets = [*range(start, end - _BLOCK, _STEP), end - _BLOCK]
    return [(offset, _block(saved.seed, offset - start)) for offset in offsets]


def _block(seed: bytes, place: int) -> bytes:
    return hashlib.sha256(seed + place.to_bytes(8, "big")).digest() * (_BLOCK // 32)
