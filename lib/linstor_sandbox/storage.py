"""Bytes: one sparse file per volume, copies that keep holes, and old data where a pool would show it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

KIB = 1024
MIB = 1024 * KIB
OLD_DATA = (b"old data of a former volume in this pool\n" * 100)[:4096]
_OLD_MIB = OLD_DATA * (MIB // len(OLD_DATA))
FULL_OLD_DATA = 128 * MIB
"""Up to this size (bytes) a volume on a thick pool is full of old data; beyond, every MiB begins with 64 KiB of it."""
_FICLONE = 0x40049409


@dataclass
class Content:
    """The bytes of a volume or snapshot; `shared` is what it shares with what it was copied from (bytes).

    `written` says that somebody opened it for writing: as long as nobody has, its blocks need no counting.
    """

    path: Path
    size: int
    shared: int = 0
    written: bool = True
    _own: int = 0

    def allocated(self) -> int:
        """Allocated bytes, shared ones included."""
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def own(self) -> int:
        """Allocated bytes which it does not share with its origin."""
        return max(0, self.allocated() - self.shared) if self.written else self._own

    def settle(self) -> Content:
        """Count its blocks now and not again until it is written to."""
        self._own = max(0, self.allocated() - self.shared)
        self.written = False
        return self


class Store:
    """All volume files below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._serial = 0
        root.mkdir(parents=True, exist_ok=True)

    def _new_path(self, name: str) -> Path:
        self._serial += 1
        return self.root / f"{self._serial:06d}-{name}"

    def create(self, name: str, size: int, old_data: bool) -> Content:
        """A fresh volume: zeroes, or old data as on a thick pool."""
        content = Content(self._new_path(name), size)
        with content.path.open("xb") as file:
            file.truncate(size)
            if old_data:
                _fill(file.fileno(), 0, size)
        return content.settle()

    def promise(self, name: str, size: int) -> Content:
        """A fresh volume whose file is made by ensure(), when somebody needs it."""
        return Content(self._new_path(name), size, written=False)

    @staticmethod
    def ensure(content: Content) -> None:
        """The file of a volume is there."""
        if not content.path.exists():
            with content.path.open("xb") as file:
                file.truncate(content.size)

    def resize(self, content: Content, size: int, old_data: bool) -> None:
        """Cut or grow; what is new reads as on a fresh volume."""
        before = content.size
        self.ensure(content)
        with content.path.open("r+b") as file:
            file.truncate(size)
            if old_data and size > before:
                _fill(file.fileno(), before, size)
        content.size, content.written = size, True

    def copy(self, origin: Content, name: str, size: Optional[int] = None) -> Content:
        """A copy with the same holes, as a snapshot or a clone has it."""
        content = Content(self._new_path(name), origin.size)
        self.ensure(origin)
        copy_sparse(origin.path, content.path)
        content.shared = content.allocated()
        if size is not None and size != content.size:
            self.resize(content, size, False)
        return content.settle()

    def remove(self, content: Content) -> None:
        """Delete the bytes."""
        content.path.unlink(missing_ok=True)


def _fill(descriptor: int, start: int, end: int) -> None:
    """Write old data from start to end; only samples of it in a large volume."""
    step = MIB
    chunk = MIB if end - start <= FULL_OLD_DATA else 64 * KIB
    position = start
    while position < end:
        length = min(chunk, end - position)
        os.pwrite(descriptor, _OLD_MIB[:length], position)
        position += step


def data_extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is not a hole."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    copier: Callable[..., int] = getattr(os, "copy_file_range", _copy_by_hand)
    while start < end:
        try:
            start += copier(source, target, end - start, start, start)
        except OSError as exc:
            if exc.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            copier = _copy_by_hand


def _copy_by_hand(source: int, target: int, count: int, offset_src: int, offset_dst: int) -> int:
    return os.pwrite(target, os.pread(source, min(count, MIB), offset_src), offset_dst)


def copy_sparse(origin: Path, target: Path) -> None:
    """Copy a file with its holes; by reflink where the file system can."""
    with origin.open("rb") as source, target.open("xb") as destination:
        try:
            fcntl.ioctl(destination.fileno(), _FICLONE, source.fileno())
            return
        except OSError:
            pass
        size = os.fstat(source.fileno()).st_size
        destination.truncate(size)
        for start, end in data_extents(source.fileno(), size):
            _copy_range(source.fileno(), destination.fileno(), start, end)
