"""Where the bytes of an image come from: a file of the front-end, http, or whatever OpenNebula's downloader brings."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, Optional, Protocol

from linstor_un import log
from linstor_un.errors import MissingDependency, UnusableImage
from linstor_un.hosts import formats
from linstor_un.hosts.pipes import Pace, widen

SILENCE_SECONDS = 600
_BLOCK_BYTES = 4 << 20
# Of what a host was told beforehand: what comes in smaller pieces is written while the next is read.
_PIECE_BYTES = 1 << 20
_ZEROES = bytes(_BLOCK_BYTES)
# What downloader.sh understands; everything else is a path of the front-end.
SCHEMES = frozenset(
    {
        "http",
        "https",
        "s3",
        "ssh",
        "rbd",
        "lxd",
        "docker",
        "restic",
        "restic+rbd",
        "rsync",
        "rsync+rbd",
        "netapp",
        "purefa",
        "onebex",
    }
)
_OWN_SCHEMES = frozenset({"http", "https"})
# A part of a URL that is never sent.
AS_IT_IS = "#raw"
_OF_BACKUPS = frozenset({"restic", "restic+rbd", "rsync", "rsync+rbd"})
# downloader.sh puts the URL into a line of shell: quoted for http, between double quotes or bare for others.
_HTTP_URL = r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]+"
_SSH_URL = r"ssh://[A-Za-z0-9_][A-Za-z0-9._@-]*:[A-Za-z0-9._~:/@+,=%-]+"
_OTHER_URL = r"[a-z0-9+]+://[A-Za-z0-9._~:/][A-Za-z0-9._~:/?#@&+,=%-]*"


class Reader(Protocol):
    """Something that bytes are read from; `close` tells whether all of them came."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, empty at the end."""

    def close(self) -> None:
        """Give it back."""


def blocks(reader: Reader) -> Iterator[bytes]:
    """Yield all that there is to read; raises as the reader does."""
    while block := reader.read(_BLOCK_BYTES):
        yield block


class ImageSource:
    """A stream of an image's bytes: counted, throttled, checked against its checksums, and decompressed.

    `size_bytes` is the length of what is read from outside where that is known beforehand; with `as_it_is` the bytes
    are a disk's own, whatever they look like.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        size_bytes: Optional[int],
        checksums: Mapping[str, str],
        bytes_per_second: int,
        decompress: bool,
        as_it_is: bool = False,
    ) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self._meter = _Meter(name, reader, size_bytes, checksums, bytes_per_second)
        self._decompressor: Optional[_Decompressor] = None
        self._head = b""
        try:
            self.format = formats.ImageFormat("raw") if as_it_is else self._look(decompress)
        except BaseException:
            self.close()
            raise
        self.is_compressed = self._decompressor is not None

    @property
    def is_of_backup(self) -> bool:
        """Tell whether it comes from a backup, which has a whole device: that is longer than the disk's SIZE."""
        return _is_of_backup(self.name)

    def _look(self, decompress: bool) -> formats.ImageFormat:
        head = self._meter.peek(formats.FIRST_BYTES)
        program = formats.compression(head) if decompress else None
        if program is None:
            return formats.probe(self._meter.peek(formats.probe_bytes(head)))
        self._decompressor = _Decompressor(program, self._meter)
        self._head = self._decompressor.read(formats.FIRST_BYTES)
        self._head += self._decompressor.read(formats.probe_bytes(self._head) - formats.FIRST_BYTES)
        return formats.probe(self._head)

    @property
    def sure_bytes(self) -> int:
        """How many bytes of data come for sure behind those that were yielded, before a hole or the end."""
        return 0 if self._decompressor else self._meter.sure_bytes

    def blocks(self) -> Iterator[bytes]:
        """Yield the (decompressed) bytes; raises UnusableImage where they are cut short or not what was promised."""
        if self._decompressor:
            yield self._head
            yield from blocks(self._decompressor)
            self._decompressor.finish()
        else:
            while block := self._meter.read(_PIECE_BYTES if self.sure_bytes else _BLOCK_BYTES):
                yield block
        self._meter.finish()

    def close(self) -> None:
        """Give everything back, in whatever state it is."""
        if self._decompressor:
            self._decompressor.close()
        self._meter.close()


class _Meter:
    """Counts, throttles and hashes what is read from outside."""

    def __init__(
        self, name: str, reader: Reader, size_bytes: Optional[int], checksums: Mapping[str, str], bytes_per_second: int
    ) -> None:
        self.name = name
        self._reader = reader
        self._size_bytes = size_bytes
        self._pace = Pace(bytes_per_second)
        self._read = 0
        self._ahead = b""
        self._checksums = dict(checksums)
        self._hashes = {}
        if checksums:
            import hashlib

            self._hashes = {kind: hashlib.new(kind.lower(), usedforsecurity=False) for kind in checksums}

    @property
    def sure_bytes(self) -> int:
        left = max(0, self._size_bytes - self._read) if self._size_bytes is not None else 0
        return min(left, self._reader.data_bytes) if isinstance(self._reader, File) else left

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size:
            block = self._from_outside(size - len(self._ahead))
            if not block:
                break
            self._ahead += block
        return self._ahead

    def read(self, size: int) -> bytes:
        if self._ahead:
            block, self._ahead = self._ahead[:size], self._ahead[size:]
            return block
        return self._from_outside(size)

    def _from_outside(self, size: int) -> bytes:
        block = self._reader.read(size)
        self._read += len(block)
        log.progress(self._read, self._size_bytes)
        for item in self._hashes.values():
            item.update(block)
        self._pace.keep(len(block))
        return block

    def finish(self) -> None:
        while self.read(_BLOCK_BYTES):
            pass
        # What the host does with it from now on it does not say.
        log.progress()
        self._reader.close()
        if self._size_bytes is not None and self._read != self._size_bytes:
            raise UnusableImage(
                f"Image {self.name} is cut short: {self._read} bytes came of {self._size_bytes}; fetch it again"
            )
        for kind, item in self._hashes.items():
            if item.hexdigest() != self._checksums[kind]:
                raise UnusableImage(
                    f"Image {self.name} has {kind} {item.hexdigest()} and should have {self._checksums[kind]}: "
                    "fetch it again, or correct the checksum"
                )

    def close(self) -> None:
        try:
            self._reader.close()
        except UnusableImage:
            pass


class _Decompressor:
    """A decompressing process, fed by a thread of its own while its output is read."""

    def __init__(self, program: str, source: _Meter) -> None:
        self._program = program
        self._source = source
        self._failure: Optional[BaseException] = None
        try:
            self._process = subprocess.Popen(
                [program, "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError:
            raise MissingDependency(
                f"{program} is missing on the front-end and image {source.name} needs it: install it"
            ) from None
        widen(self._process.stdin)
        widen(self._process.stdout)
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        try:
            for block in blocks(self._source):
                self._process.stdin.write(block)
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        except BaseException as failure:  # raised again where the bytes are read
            self._failure = failure
            self._process.kill()

    def read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.read(size)

    def finish(self) -> None:
        assert self._process.stderr is not None
        errors = self._process.stderr.read().decode("utf-8", "replace")
        status = self._process.wait()
        self._thread.join()
        if self._failure:
            raise self._failure
        # zstd and gzip end with 2 for a mere warning, such as trailing garbage.
        if status not in (0, 2) or (status == 2 and "warning" not in errors.lower() and self._program != "gzip"):
            reason = " ".join(errors.split())[-200:] or f"exit status {status}"
            raise UnusableImage(f"Image {self._source.name} cannot be decompressed ({reason}): provide the whole file")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        # Its stdin is the thread's, which may be waiting for the source.
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


class File:
    """A file of the front-end, by the descriptor that was checked; its holes are known without being read."""

    def __init__(self, descriptor: int) -> None:
        self._file: BinaryIO = os.fdopen(descriptor, "rb", 0)
        self._position = 0
        self._data_from = 0
        self._hole_from = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, empty at the end."""
        if self._position >= self._data_from:
            self._data_from = self._next_data()
        if self._data_from - self._position >= size:
            block = _ZEROES[:size]
        else:
            block = os.pread(self._file.fileno(), size, self._position)
        self._position += len(block)
        return block

    @property
    def data_bytes(self) -> int:
        """How many bytes there are before the next hole, as the file was when this was first asked of them."""
        if self._position >= self._hole_from:
            # Some file systems look at each page on the way.
            self._hole_from = self._next_hole()
        return self._hole_from - self._position

    def _next_hole(self) -> int:
        try:
            return os.lseek(self._file.fileno(), self._position, os.SEEK_HOLE)
        except OSError:
            return self._position

    def _next_data(self) -> int:
        try:
            return os.lseek(self._file.fileno(), self._position, os.SEEK_DATA)
        except OSError as failure:
            # Behind the last data is the end; a file system that does not know of holes says something else.
            return os.fstat(self._file.fileno()).st_size if failure.errno == errno.ENXIO else self._position

    def close(self) -> None:
        """Close it."""
        self._file.close()


class _Program:
    """The output of downloader.sh.

    A server of backups first puts a chain of increments together, which takes as long as it takes.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], silence_seconds: int) -> None:
        self._name = name
        self._silence_seconds = silence_seconds
        self._has_begun = not _is_of_backup(name)
        # A file, since a pipe that nobody reads stops whoever has much to say; and a group, to end all that it started.
        self._errors = os.memfd_create("downloader.sh")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        widen(self._process.stdout)
        self._is_at_end = False

    def read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        blocks = []
        while size:
            longest = self._silence_seconds if self._has_begun else None
            if not select.select([self._process.stdout], [], [], longest)[0]:
                raise _silent(self._name, self._silence_seconds)
            self._has_begun = True
            blocks.append(os.read(self._process.stdout.fileno(), size))
            size -= len(blocks[-1])
            if not blocks[-1]:
                break
        self._is_at_end = not any(blocks)
        return b"".join(blocks)

    def close(self) -> None:
        assert self._process.stdout is not None
        if self._process.returncode is not None:
            return
        if not self._is_at_end:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.stdout.close()
        if self._process.wait() and self._is_at_end:
            said = os.pread(self._errors, _BLOCK_BYTES, max(0, os.fstat(self._errors).st_size - _BLOCK_BYTES))
            reason = " ".join(said.decode("utf-8", "replace").split())[-300:]
            raise UnusableImage(
                f"Image {self._name} cannot be fetched ({reason or 'downloader.sh failed'}): correct PATH"
            )


def _is_of_backup(url: str) -> bool:
    return url.partition("://")[0] in _OF_BACKUPS


def is_plain_url(url: str) -> bool:
    """Tell whether no shell and no option parser can take any part of the URL for something else."""
    scheme = url.partition("://")[0]
    pattern = _HTTP_URL if scheme in _OWN_SCHEMES else _SSH_URL if scheme == "ssh" else _OTHER_URL
    return re.fullmatch(pattern, url) is not None


def from_file(
    name: str, descriptor: int, checksums: Mapping[str, str], limit: str = "", decompress: bool = True
) -> ImageSource:
    """Return the image in an open file of the front-end."""
    size = os.fstat(descriptor).st_size
    return ImageSource(name, File(descriptor), size, checksums, bandwidth(limit), decompress)


def from_url(
    url: str,
    downloader: str,
    environment: Mapping[str, str],
    checksums: Mapping[str, str],
    limit: str = "",
    decompress: bool = True,
    silence_seconds: int = SILENCE_SECONDS,
) -> ImageSource:
    """Return the image at a URL, through the installation's downloader.sh at path `downloader` where there is one.

    What is at a URL that ends with AS_IT_IS is neither decompressed nor converted: a disk on which somebody keeps an
    archive, or a disk for VMs of its own, begins like one. Raises UnusableImage for what cannot be fetched or, also
    where it is read later, sends nothing for that long, and for schemes that only the downloader knows where there is
    none.
    """
    if os.access(downloader, os.X_OK):
        command = [downloader, "--nodecomp", url, "-"]
        reader: Reader = _Program(url, command, environment, silence_seconds)
        return ImageSource(url, reader, None, checksums, bandwidth(limit), decompress, url.endswith(AS_IT_IS))
    scheme = url.partition("://")[0]
    if scheme not in _OWN_SCHEMES:
        raise UnusableImage(
            f"Image {url} needs OpenNebula's downloader.sh for {scheme}://, and {downloader} is not there"
        )
    reader, size = _http(url, silence_seconds)
    return ImageSource(url, reader, size, checksums, bandwidth(limit), decompress, url.endswith(AS_IT_IS))


def _silent(name: str, seconds: int) -> UnusableImage:
    return UnusableImage(
        f"Image {name} has sent nothing for {seconds} s: see what its server waits for, or raise SOURCE_TIMEOUT in "
        "linstor_un.conf"
    )


def _http(url: str, silence_seconds: int) -> tuple[Reader, Optional[int]]:
    import urllib.request
    from http.client import HTTPException, InvalidURL

    try:
        response = urllib.request.urlopen(url, timeout=silence_seconds)
    except InvalidURL:
        # Its own words show what it takes for the port, which may be a part of a password.
        raise UnusableImage(f"Image {url} cannot be fetched (its host or port is not valid): correct PATH") from None
    except (OSError, ValueError, HTTPException) as failure:
        if isinstance(getattr(failure, "reason", failure), socket.timeout):
            raise _silent(url, silence_seconds) from None
        raise UnusableImage(f"Image {url} cannot be fetched ({failure}): correct PATH") from None
    length = response.headers.get("Content-Length", "")
    return _Response(url, response, silence_seconds), int(length) if re.fullmatch("[0-9]{1,18}", length) else None


class _Response:
    """The body of an answer; `close` ends it for another thread that waits for more of it, too."""

    def __init__(self, url: str, response: BinaryIO, silence_seconds: int) -> None:
        self._url = url
        self._silence_seconds = silence_seconds
        self._response = response
        self._connection = socket.socket(fileno=os.dup(response.fileno()))

    def read(self, size: int) -> bytes:
        from http.client import HTTPException

        try:
            return self._response.read(size)
        except socket.timeout:
            raise _silent(self._url, self._silence_seconds) from None
        except (OSError, HTTPException) as failure:
            raise UnusableImage(
                f"Image {self._url} broke off ({failure or type(failure).__name__}): fetch it again"
            ) from None

    def close(self) -> None:
        # Closing the response itself would wait for whoever reads from it.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        self._response.close()


def bandwidth(limit: str) -> int:
    """Return LIMIT_TRANSFER_BW in bytes per second; 0 is no limit."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    return int(limit.rstrip("kKmMgG") or 0) * units.get(limit[-1:].lower(), 1)
