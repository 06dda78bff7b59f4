"""What one action asks of LINSTOR and of hosts: counted and timed between it and them, whoever they are."""

from __future__ import annotations

import os
import re
import selectors
import shlex
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Union, cast

_BLOCK_BYTES = 1 << 16
_LOG = "LINSTOR_UN_BENCH_SSH"
# The host is the first word that is neither an option nor the value of one; what follows it may have many lines.
_SSH = """#!/bin/sh
value=
for word; do
    if [ "$value" ]; then value=; continue; fi
    case $word in
    -o | -p | -l | -i | -F | -J) value=yes ;;
    -*) ;;
    *) break ;;
    esac
done
echo "$$ $word" >"${log}"
exec {ssh} "$@"
"""

# Names of volumes, groups and nodes, and numbers in others.
_NAMES = (
    (r"(/resource-definitions/|[?&]resources=|[?&]resource_definitions=)[^/?&]+", r"\1VOLUME"),
    (r"/resource-groups/[^/?]+", "/resource-groups/GROUP"),
    (r"(/resources/|/resource-connections/|[?&]nodes=)[^/?&]+", r"\1NODE"),
    (r"(/resource-connections/NODE/)[^/?]+", r"\1NODE"),
    (r"(?<!/v)[0-9]+", "N"),
)

Interval = tuple[float, float]
_Source = Union[int, socket.socket]


@dataclass
class Traffic:
    """What was asked: each request's line, with what differs from run to run left out, and each connection's host."""

    requests: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    sent_bytes: int = 0
    received_bytes: int = 0
    linstor: list[Interval] = field(default_factory=list)
    ssh: list[Interval] = field(default_factory=list)


def covered(intervals: Iterable[Interval]) -> float:
    """Seconds that lie in any of the intervals."""
    seconds, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        seconds += max(0.0, last - max(first, end))
        end = max(end, last)
    return seconds


def line_of(request: bytes) -> str:
    """`METHOD /path` of a request that begins with these bytes, without what differs from run to run."""
    words = request.partition(b"\r\n")[0].decode("ascii", "replace").split(" ")
    if len(words) < 2:
        return words[0]
    path = words[1]
    for pattern, instead in _NAMES:
        path = re.sub(pattern, instead, path)
    return f"{words[0]} {path}"


def install_ssh(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with an `ssh` before the real one that tells a meter of each connection."""
    real = shutil.which("ssh", path=environment["PATH"]) or "ssh"
    folder.mkdir()
    script = folder / "ssh"
    script.write_text(_SSH.replace("{ssh}", shlex.quote(real)).replace("{log}", _LOG), encoding="utf-8")
    script.chmod(0o755)
    return {**environment, "PATH": f"{folder}{os.pathsep}{environment['PATH']}"}


def _nothing() -> None:
    pass


class _Conversation:
    """One connection of the action's to the controller, with all that is said in it passed on."""

    def __init__(self, meter: Meter, client: socket.socket) -> None:
        self._meter = meter
        self._client = client
        self._server = socket.create_connection(meter.controller)
        for end in (client, self._server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asked: Optional[float] = None
        self._answered = 0.0
        meter.watch(client, self.from_client)
        meter.watch(self._server, self.from_server)

    def from_client(self) -> None:
        """A piece of a request; what comes after an answer is the next one."""
        data = self._received(self._client, self._server)
        if not data:
            return
        if self._asked is None or self._answered:
            self._note()
            self._asked = time.monotonic()
            self._meter.traffic.requests[line_of(data)] += 1
        self._meter.traffic.sent_bytes += len(data)

    def from_server(self) -> None:
        """A piece of an answer."""
        data = self._received(self._server, self._client)
        self._meter.traffic.received_bytes += len(data)
        if data:
            self._answered = time.monotonic()

    def _received(self, source: socket.socket, target: socket.socket) -> bytes:
        try:
            data = source.recv(_BLOCK_BYTES)
            if data:
                target.sendall(data)
                return data
        except OSError:
            pass
        self.close()
        return b""

    def _note(self) -> None:
        if self._asked is not None:
            self._meter.traffic.linstor.append((self._asked, self._answered or time.monotonic()))
        self._asked, self._answered = None, 0.0

    def close(self) -> None:
        """End both ways; may be done twice."""
        self._note()
        for end in (self._client, self._server):
            self._meter.forget(end)
            end.close()


class Meter:
    """For a `with` block: an address for LS_CONTROLLERS and a log for `ssh`, for one action; afterwards `traffic`."""

    def __init__(self, controller: tuple[str, int], folder: Path) -> None:
        self.controller = controller
        self.traffic = Traffic()
        self._selector = selectors.DefaultSelector()
        self._actions: dict[_Source, Callable[[], None]] = {}
        self._conversations: list[_Conversation] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._log = folder / f"ssh-{self._listener.getsockname()[1]}"
        os.mkfifo(self._log)
        self._fifo = os.open(self._log, os.O_RDWR | os.O_NONBLOCK)
        self._running: dict[int, float] = {}
        self._ended, self._end = os.pipe()
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What the action must have in its environment."""
        return {"LS_CONTROLLERS": f"http://127.0.0.1:{self._listener.getsockname()[1]}", _LOG: str(self._log)}

    def __enter__(self) -> Meter:
        self.watch(self._listener, self._accept)
        self.watch(self._fifo, self._read_log)
        self.watch(self._ended, self._stop)
        self._thread.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        os.close(self._end)
        self._thread.join()
        for conversation in self._conversations:
            conversation.close()
        for process in list(self._running):
            self._finish(process)
        self._listener.close()
        os.close(self._fifo)
        os.close(self._ended)
        self._log.unlink()
        self._selector.close()

    def watch(self, source: _Source, action: Callable[[], None]) -> None:
        """Do this when there is something to be read."""
        self._selector.register(source, selectors.EVENT_READ)
        self._actions[source] = action

    def forget(self, source: _Source) -> None:
        """Watch it no more."""
        if self._actions.pop(source, None):
            self._selector.unregister(source)

    def _serve(self) -> None:
        # What has come by the end is still counted.
        while ready := self._selector.select(0 if self._is_over else None):
            for key, _ in ready:
                # One may have closed another.
                self._actions.get(cast(_Source, key.fileobj), _nothing)()

    def _stop(self) -> None:
        self._is_over = True
        self.forget(self._ended)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            self._conversations.append(_Conversation(self, client))
        except OSError:
            # As a controller that is not there.
            client.close()

    def _read_log(self) -> None:
        for line in os.read(self._fifo, _BLOCK_BYTES).decode("utf-8", "replace").splitlines():
            process, _, host = line.partition(" ")
            self.traffic.hosts[host] += 1
            self._follow(int(process))

    def _follow(self, process: int) -> None:
        now = time.monotonic()
        try:
            descriptor = os.pidfd_open(process)
        except OSError:
            self.traffic.ssh.append((now, now))
            return
        self._running[descriptor] = now
        self.watch(descriptor, lambda: self._finish(descriptor))

    def _finish(self, descriptor: int) -> None:
        self.traffic.ssh.append((self._running.pop(descriptor), time.monotonic()))
        self.forget(descriptor)
        os.close(descriptor)
