"""Pipes that much data goes through."""

from __future__ import annotations

import fcntl
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
