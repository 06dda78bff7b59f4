"""The disks of other storages, byte by byte as a VM sees them: in files, in Ceph, and devices of hosts."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Callable, NamedTuple, Protocol

from linstor_un.errors import CommandFailed, UnusableImage
from linstor_un.hosts import formats, qemu_nbd, sources
from linstor_un.hosts.devices import WAIT_FOR_DEVICE
from linstor_un.hosts.runner import Feed, Host, Step
from linstor_un.hosts.sources import Reader

_SIZE = """
if [ -b "$1" ]; then lsblk -bndo SIZE "$1" | head -n 1 | tr -d ' '; else stat -L -c %s -- "$1"; fi
"""
_READ = """
watch
exec dd if="$1" bs=4M status=none </dev/null
"""
_RBD_SIZE = """
image=$1
shift
rbd "$@" info --format json "$image"
"""
_RBD_READ = """
image=$1
shift
watch
exec rbd "$@" export --no-progress "$image" - </dev/null
"""
_DIGEST = (
    WAIT_FOR_DEVICE
    + """
wait_for_device "$1" "$2" "$3"
watch
exec 4>&1 </dev/null
# dd has its last words when its output has ended: the digest is not to stand among them.
sum=$(dd if="$1" bs=4M count="$2" iflag=fullblock,count_bytes status=progress 2>&4 | sha256sum)
printf '\\n%s\\n' "$sum"
"""
)
_MOST_BYTES = 64 << 10


class Origin(Protocol):
    """A disk that can be read, from its beginning, as often as need be."""

    @property
    def size_bytes(self) -> int:
        """Return its length."""

    def open(self) -> Reader:
        """Return its bytes; raises a DriverError, as reading does."""


class RawFile(NamedTuple):
    """A file of the front-end whose bytes are the disk's own."""

    path: str
    size_bytes: int

    def open(self) -> Reader:
        """Return its bytes; raises UnusableImage."""
        try:
            return sources.File(os.open(self.path, os.O_RDONLY))
        except OSError as failure:
            raise _unreadable(self.path, failure) from None


class Qcow2File(NamedTuple):
    """A qcow2 file of the front-end; qemu-nbd reads the disk in it, and nothing but this file."""

    path: str
    size_bytes: int

    def open(self) -> Reader:
        """Return the disk's bytes; raises MissingDependency and UnusableImage."""
        file = {"driver": "file", "filename": self.path}
        return qemu_nbd.Export("json:" + json.dumps({"driver": "qcow2", "file": file, "backing": None}), self.path)


class OnHost(NamedTuple):
    """What a script prints on a host."""

    host: Host
    what: str
    step: Step
    size_bytes: int

    def open(self) -> Reader:
        """Return what the script prints; raises as Host.run, also when all of it was read."""
        return _Printed(self.host.feed(self.what, self.step))


class _Printed:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._is_at_end = False

    def read(self, size: int) -> bytes:
        block = self._feed.stdout.read(size)
        if not block and not self._is_at_end:
            self._is_at_end = True
            self._feed.finish()
        return block

    def close(self) -> None:
        if not self._is_at_end:
            self._feed.stop()


def of_file(path: str, image_format: str) -> Origin:
    """Return the disk in a file of the front-end, raw or qcow2; raises UnusableImage for what is neither."""
    try:
        known = os.stat(path)
        if not stat.S_ISREG(known.st_mode):
            raise UnusableImage(f"{path} is no file: the image cannot be read, see `oneimage show`")
        if image_format == "raw":
            return RawFile(path, known.st_size)
        with open(path, "rb") as file:
            found = formats.probe(file.read(formats.PROBE_BYTES))
    except OSError as failure:
        raise _unreadable(path, failure) from None
    if found.name != "qcow2" or image_format != "qcow2" or found.virtual_bytes is None:
        raise UnusableImage(
            f"{path} is {found.name} and OpenNebula says {image_format}: only raw and qcow2 can be read; convert it "
            "with `qemu-img convert -O qcow2`, and make an image of the result"
        )
    return Qcow2File(path, found.virtual_bytes)


def _unreadable(path: str, failure: OSError) -> UnusableImage:
    return UnusableImage(
        f"{path} cannot be read on the front-end ({failure.strerror}): mount the datastore here, and be oneadmin"
    )


def of_device(host: Host, path: str) -> Origin:
    """Return a device, or a raw file, of a host; raises as Host.run."""
    size = _whole(host.run(f"Looking at {path}", Step(_SIZE, (path,))), path)
    return OnHost(host, f"Reading {path}", Step(_READ, (path,)), size)


def of_rbd(host: Host, image: str, options: Sequence[str]) -> Origin:
    """Return an image of Ceph, with the options of `rbd` that its cluster takes; raises as Host.run."""
    values = (image, *options)
    told = host.run(f"Looking at {image}", Step(_RBD_SIZE, values))
    try:
        size = str(json.loads(told)["size"])
    except (ValueError, KeyError, TypeError):
        size = ""
    return OnHost(host, f"Reading {image}", Step(_RBD_READ, values), _whole(size, image))


def _whole(text: str, what: str) -> int:
    if not text.strip().isdigit():
        raise CommandFailed(
            f"The size of {what} is not known ({text.strip()[:80]!r}): see whether it can be read there"
        )
    return int(text)


def _unheard(_: int) -> None:
    """Take a number of bytes that nobody wants to know."""


def digest(origin: Origin, show: Callable[[int], None] = _unheard) -> str:
    """Return the SHA-256 of a disk, in hexadecimal digits; raises a DriverError where it cannot be read.

    `show` is told how many bytes were read.
    """
    import hashlib

    found, left = hashlib.sha256(), origin.size_bytes
    with closing(origin.open()) as reader:
        for block in sources.blocks(reader):
            found.update(block)
            left -= len(block)
            show(origin.size_bytes - left)
    if left:
        raise UnusableImage("The image became longer or shorter while it was read: run this again when nothing uses it")
    return found.hexdigest()


def digest_of_device(host: Host, device: str, size_bytes: int, show: Callable[[int], None] = _unheard) -> str:
    """Return the SHA-256 of the first bytes of a device on a host; raises as Host.run.

    `show` is told how many bytes were read, each second.
    """
    what, values = f"Comparing {device}", (device, size_bytes, host.settings.device_timeout_seconds)
    found, complaints = "", []
    with host.feed(what, Step(_DIGEST, values)) as feed:
        for line in _lines(feed):
            count = re.match(r"([0-9]+) bytes? ", line)
            if count:
                show(int(count.group(1)))
            elif re.fullmatch(r"[0-9a-f]{64} +-", line):
                found = line.split()[0]
            elif not re.fullmatch(r"[0-9]+\+[0-9]+ records (in|out)", line):
                complaints.append(line)
        feed.finish()
    if complaints:
        host.judge(what, 1, "\n".join(complaints).encode())
    return found


def _lines(feed: Feed) -> Iterator[str]:
    """Yield what dd says when it says it; it ends a line that it will write again with a carriage return."""
    rest = b""
    while block := os.read(feed.stdout.fileno(), _MOST_BYTES):
        *lines, rest = re.split(rb"[\r\n]+", rest + block)
        yield from (line.decode("utf-8", "replace") for line in lines if line)
    if rest:
        yield rest.decode("utf-8", "replace")
