"""Bytes: one sparse file per volume, copies that keep holes, and old data where a pool would show it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

KIB = 1024
MIB = 1024 * KIB
OLD_DATA = (b"old data of a former volume in this pool\n" * 100)[:4096]
_OLD_MIB = OLD_DATA * (MIB // len(OLD_DATA))
FULL_OLD_DATA = 128 * MIB
"""Up to this size (bytes) a volume on a thick pool is full of old data; beyond, every MiB begins with 64 KiB of it."""
CHUNK = 64 * KIB
"""What a thin pool allocates at once (bytes): copies of one another differ by so much or more."""
LARGEST_FILE = (16 << 40) - 4096
"""More bytes has no file on ext4: what a volume has beyond is not there to be read or written."""
SECTOR = 4 * KIB
"""What is remembered of guests' writes (bytes): the smallest block that any pool has is larger."""
_FICLONE = 0x40049409


@dataclass
class Content:
    """The bytes of a volume or snapshot; `family` is the first of those that were copied from one another.

    `written` says that somebody opened it for writing: as long as nobody has, its blocks need no counting.
    `stamps` are those of the latest writes of guests, by sector: copies with unlike stamps have been written since.
    """

    path: Path
    size: int
    family: Path
    written: bool = True
    stamps: dict[int, int] = field(default_factory=dict)
    _allocated: int = 0
    _chunks: dict[tuple[int, int], int] = field(default_factory=dict)
    _chunks_of: int = 0

    def allocated(self) -> int:
        """Allocated bytes."""
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def settled(self) -> int:
        """Allocated bytes, counted anew only where somebody may have written."""
        return self.allocated() if self.written else self._allocated

    def stamp(self, offset: int, length: int) -> None:
        """Remember that these bytes were written just now, whatever they were before."""
        now = time.monotonic_ns()
        self.stamps.update(dict.fromkeys(range(offset // SECTOR, -(-(offset + length) // SECTOR)), now))

    def mapped(self, block: int) -> set[int]:
        """The numbers of the blocks of so many bytes that are not holes."""
        if not self.path.exists():
            return set()
        with self.path.open("rb") as file:
            extents = list(data_extents(file.fileno(), min(self.size, LARGEST_FILE)))
        return {number for start, end in extents for number in range(start // block, -(-end // block))}

    def settle(self) -> Content:
        """Count its blocks now and not again until it is written to."""
        self._allocated = self.allocated()
        self.written = False
        return self

    def chunks(self) -> dict[tuple[int, int], int]:
        """{(number, hash of its data): allocated bytes} of every chunk that is not a hole."""
        if not self._allocated and not self.written:
            return {}
        changed = self.path.stat().st_mtime_ns
        if changed != self._chunks_of:
            self._chunks = _chunks(self.path, self.size)
            # A file's time is coarse: what was written just now may be followed by more that has the same.
            self._chunks_of = changed if time.time_ns() - changed > 100_000_000 else 0
        return self._chunks


def taken(contents: Iterable[Content]) -> int:
    """Allocated bytes of all together: what copies of one another have in common counts once."""
    families: dict[Path, list[Content]] = {}
    for content in contents:
        families.setdefault(content.family, []).append(content)
    return sum(
        family[0].settled()
        if len(family) == 1
        else sum({chunk: size for content in family for chunk, size in content.chunks().items()}.values())
        for family in families.values()
    )


def differences(left: Content, right: Content, block: int) -> Iterator[tuple[int, str]]:
    """(number, same, different, left_only or right_only) of each block of so many bytes that one of two copies has.

    What was not written by a guest, but by a tool of a host, differs only where its bytes do.
    """
    mine, theirs = left.mapped(block), right.mapped(block)
    with ExitStack() as stack:
        files = [stack.enter_context(one.path.open("rb")).fileno() for one in (left, right) if one.path.exists()]
        for number in sorted(mine | theirs):
            if number in mine and number in theirs:
                one, other = (os.pread(file, block, number * block) for file in files)
                sectors = range(number * block // SECTOR, (number + 1) * block // SECTOR)
                same = one == other and all(left.stamps.get(at) == right.stamps.get(at) for at in sectors)
                yield number, "same" if same else "different"
            else:
                yield number, "left_only" if number in mine else "right_only"


class Store:
    """All volume files below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._serial = 0
        root.mkdir(parents=True, exist_ok=True)

    def _new(self, name: str, size: int) -> Content:
        self._serial += 1
        path = self.root / f"{self._serial:06d}-{name}"
        return Content(path, size, path)

    def create(self, name: str, size: int, old_data: bool) -> Content:
        """A fresh volume: zeroes, or old data as on a thick pool."""
        content = self._new(name, size)
        with content.path.open("xb") as file:
            file.truncate(min(size, LARGEST_FILE))
            if old_data:
                _fill(file.fileno(), 0, size)
        return content.settle()

    def promise(self, name: str, size: int) -> Content:
        """A fresh volume whose file is made by ensure(), when somebody needs it."""
        content = self._new(name, size)
        content.written = False
        return content

    @staticmethod
    def ensure(content: Content) -> None:
        """The file of a volume is there."""
        if not content.path.exists():
            with content.path.open("xb") as file:
                file.truncate(min(content.size, LARGEST_FILE))

    def resize(self, content: Content, size: int, old_data: bool) -> None:
        """Cut or grow; what is new reads as on a fresh volume."""
        before = content.size
        self.ensure(content)
        with content.path.open("r+b") as file:
            file.truncate(min(size, LARGEST_FILE))
            if old_data and size > before:
                _fill(file.fileno(), before, size)
        content.size, content.written = size, True

    def copy(self, origin: Content, name: str, size: Optional[int] = None) -> Content:
        """A copy with the same holes, as a snapshot or a clone has it."""
        content = self._new(name, origin.size)
        content.family, content.stamps = origin.family, dict(origin.stamps)
        self.ensure(origin)
        copy_sparse(origin.path, content.path)
        if size is not None and size != content.size:
            self.resize(content, size, False)
        return content.settle()

    def remove(self, content: Content) -> None:
        """Delete the bytes."""
        content.path.unlink(missing_ok=True)


def punch(content: Content, offset: int, length: int) -> None:
    """Make a hole."""
    subprocess.run(
        ["fallocate", "--punch-hole", "--offset", str(offset), "--length", str(length), str(content.path)], check=True
    )


def _fill(descriptor: int, start: int, end: int) -> None:
    """Write old data from start to end; only samples of it in a large volume."""
    step = MIB
    chunk = MIB if end - start <= FULL_OLD_DATA else 64 * KIB
    position = start
    while position < end:
        length = min(chunk, end - position)
        os.pwrite(descriptor, _OLD_MIB[:length], position)
        position += step


def _chunks(path: Path, size: int) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    with path.open("rb", buffering=0) as file:
        for start, end in data_extents(file.fileno(), size):
            for number in range(start // CHUNK, -(-end // CHUNK)):
                key = number, hash(os.pread(file.fileno(), CHUNK, number * CHUNK))
                part = min(end, (number + 1) * CHUNK) - max(start, number * CHUNK)
                found[key] = found.get(key, 0) + part
    return found


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
