"""How much goes through pipes at a time."""

from __future__ import annotations

import fcntl
import time
from contextlib import suppress
from typing import IO, Optional

# Python has had a name for it since 3.10.
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)
_WIDE_BYTES = 1 << 20


def widen(pipe: Optional[IO[bytes]]) -> None:
    """Let the pipe hold 1 MiB instead of 64 KiB, so that whoever writes and whoever reads wait less for each other.

    What the kernel does not allow (/proc/sys/fs/pipe-max-size and pipe-user-pages-soft) stays as it is.
    """
    if pipe is not None:
        with suppress(OSError):
            fcntl.fcntl(pipe.fileno(), _SET_SIZE, _WIDE_BYTES)


class Pace:
    """Lets so many bytes per second pass in the long run; 0 is no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._limit = bytes_per_second
        self._started = time.monotonic()
        self._bytes = 0

    def keep(self, count: int) -> None:
        """Count some more bytes, and wait until all so far are due."""
        self._bytes += count
        if self._limit:
            time.sleep(max(0.0, self._started + self._bytes / self._limit - time.monotonic()))
