"""An ssh connection that breaks off after so many bytes have passed, in whichever direction."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import NoReturn


def run(arguments: list[str], environment: dict[str, str], limit: int) -> NoReturn:
    """Run a command between this process's input and output; kill it when `limit` bytes have passed."""
    child = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    ways = {0: child.stdin.fileno(), child.stdout.fileno(): 1}
    while limit > 0 and child.stdout.fileno() in ways:
        for source in select.select(list(ways), [], [])[0]:
            data = os.read(source, min(limit, 65536))
            if not data:
                os.close(ways.pop(source))
                continue
            limit -= len(data)
            _write(ways[source], data)
    if limit > 0:
        # Of a command that a signal has ended, ssh says no more than that.
        os._exit(code if (code := child.wait()) >= 0 else 255)
    os.killpg(child.pid, signal.SIGKILL)
    sys.stderr.write("client_loop: send disconnect: Broken pipe\n")
    os._exit(255)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
