"""Reading the disk within an image file, by qemu-nbd and the protocol that it speaks: nothing is written anywhere.

qemu-img converts to files only; a client of NBD that does nothing but read is these few lines.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time

from linstor_un.errors import MissingDependency, UnusableImage

_START_SECONDS = 30
_GREETING = struct.Struct(">8s8sH")
_NO_ZEROES = 1 << 1
_FIXED = 1 << 0
_EXPORT_NAME = struct.pack(">8sII", b"IHAVEOPT", 1, 0)
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_REQUEST_MAGIC, _REPLY_MAGIC, _READ = 0x25609513, 0x67446698, 0
_LONGEST_READ_BYTES = 4 << 20


class Export:
    """The disk in one image, as qemu names it; `name` is how sentences call it."""

    def __init__(self, image: str, name: str) -> None:
        self._name = name
        self._position = 0
        self._directory = tempfile.mkdtemp(prefix="linstor_un-")
        path = os.path.join(self._directory, "nbd")
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._process = subprocess.Popen(
                ["qemu-nbd", "--read-only", "--socket", path, image],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except OSError:
            self._forget()
            raise MissingDependency(
                f"qemu-nbd is missing on the front-end and {name} needs it: install qemu-utils (EL: qemu-img)"
            ) from None
        try:
            self._connect(path)
            self.size_bytes = self._negotiate()
        except BaseException:
            self.close()
            raise

    def _connect(self, path: str) -> None:
        """Wait until it listens; there is nothing that says so."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._connection.connect(path)
                self._connection.settimeout(None)
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise self._unreadable() from None
            time.sleep(0.01)

    def _negotiate(self) -> int:
        first, second, flags = _GREETING.unpack(self._receive(_GREETING.size))
        if (first, second) != (b"NBDMAGIC", b"IHAVEOPT") or not flags & _FIXED:
            raise self._unreadable()
        self._send(struct.pack(">I", flags & (_FIXED | _NO_ZEROES)) + _EXPORT_NAME)
        size, _ = struct.unpack(">QH", self._receive(10))
        if not flags & _NO_ZEROES:
            self._receive(124)
        return int(size)

    def read(self, size: int) -> bytes:
        """Return the next bytes of the disk; raises UnusableImage where the image is damaged."""
        length = min(size, _LONGEST_READ_BYTES, self.size_bytes - self._position)
        if not length:
            return b""
        self._send(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, 0, self._position, length))
        magic, error, _ = _REPLY.unpack(self._receive(_REPLY.size))
        if magic != _REPLY_MAGIC or error:
            raise UnusableImage(
                f"{self._name} cannot be read at {self._position} ({os.strerror(error)}): see `qemu-img check`"
            )
        self._position += length
        return self._receive(length)

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            raise self._unreadable() from None

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                block = self._connection.recv(size - len(data))
            except OSError:
                block = b""
            if not block:
                raise self._unreadable()
            data += block
        return bytes(data)

    def _unreadable(self) -> UnusableImage:
        self._process.kill()
        assert self._process.stderr is not None
        reason = " ".join(self._process.stderr.read().decode("utf-8", "replace").split())[-300:]
        return UnusableImage(f"{self._name} cannot be read by qemu-nbd ({reason or 'it ended'}): see `qemu-img check`")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._forget()

    def _forget(self) -> None:
        self._connection.close()
        shutil.rmtree(self._directory, ignore_errors=True)
