"""Guests: what runs inside of domains - memory, an agent that freezes file systems, writes to disks."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable, Optional

from ..storage import Content, punch

AGENTS = ("on", "off", "hung", "late")
"""It answers; there is none; it never answers; it freezes, but long after it was asked."""
_TICK = 0.02


class GuestHeld(RuntimeError):
    """The guest cannot write: its file systems are frozen, it is paused, or it does not run."""


class AgentSilent(RuntimeError):
    """The guest agent did not do what it was asked to."""


class Guest:
    """The operating system of one VM, wherever its domain is; `agent` is one of AGENTS.

    `agent_seconds` is how long a late agent takes to freeze, and how long libvirt waits for a hung one.
    """

    def __init__(self, name: str, stopping: threading.Event, suspended_io: threading.Lock) -> None:
        self.name = name
        self.agent = "on"
        self.agent_seconds = 5.0
        self.memory_kib = 0
        self.seed = b""
        self.state = "off"
        self.frozen = False
        self.disks: Callable[[str], Optional[Content]] = lambda _target: None
        self._stopping = stopping
        self._suspended_io = suspended_io
        self._free = threading.Condition(threading.RLock())
        self._agent_busy = threading.Lock()

    # --- what the hypervisor does -----------------------------------------------------------------------------------

    def boot(self, memory_kib: int) -> None:
        """Begin with a memory that no guest ever had."""
        with self._free:
            self.memory_kib, self.seed = memory_kib, secrets.token_bytes(16)
            self.frozen = False
        self.become("running")

    def become(self, state: str) -> None:
        """running, paused, saved or off."""
        with self._free:
            self.state = state
            self._free.notify_all()

    # --- the agent --------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """domfsfreeze: wait for what the guest is writing, then hold further writes; AgentSilent."""
        with self._asked():
            if self.agent == "late":
                self._run_for(self.agent_seconds)
            with self._free:
                if self.frozen:
                    raise AgentSilent(
                        "internal error: unable to execute QEMU agent command 'guest-fsfreeze-freeze': "
                        "The command guest-fsfreeze-freeze has been disabled for this instance"
                    )
                self.frozen = True

    def thaw(self) -> bool:
        """domfsthaw: let writes go on; whether they were held. AgentSilent."""
        with self._asked(), self._free:
            was_frozen, self.frozen = self.frozen, False
            self._free.notify_all()
            return was_frozen

    def set_clock(self) -> None:
        """domtime: the guest's clock is the host's; AgentSilent."""
        with self._asked():
            pass

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """libvirt asks an agent one thing at a time; whoever asks next waits, also for one whose client has gone."""
        if self.agent == "off":
            raise AgentSilent("Guest agent is not responding: QEMU guest agent is not connected")
        if not self._agent_busy.acquire(timeout=30):
            raise AgentSilent("Timed out during operation: cannot acquire state change lock")
        try:
            if self.agent == "hung" or self.state != "running":
                self._stopping.wait(self.agent_seconds)
                raise AgentSilent("Guest agent is not responding: guest agent didn't respond to synchronization")
            yield
        finally:
            self._agent_busy.release()

    def _run_for(self, seconds: float) -> None:
        """Let the guest itself have run for so long; time in which it is paused does not count."""
        while seconds > 0 and not self._stopping.is_set() and self.state != "off":
            began = time.monotonic()
            self._stopping.wait(_TICK)
            seconds -= time.monotonic() - began if self.state == "running" else 0

    # --- what programs in it do -------------------------------------------------------------------------------------

    def write(self, target: str, data: bytes, offset: int = 0, wait: bool = False) -> None:
        """Write to a disk (`vda`); a guest that is held waits, or is GuestHeld: nothing is ever written meanwhile."""
        with self._held_disk(target, wait) as content:
            descriptor = os.open(content.path, os.O_WRONLY)
            try:
                os.pwrite(descriptor, data, offset)
            finally:
                os.close(descriptor)
            content.stamp(offset, len(data))

    def discard(self, target: str, offset: int, length: int, wait: bool = False) -> None:
        """Give blocks of a disk back to the pool, as fstrim does; held as a write is."""
        with self._held_disk(target, wait) as content:
            punch(content, offset, length)

    @contextmanager
    def _held_disk(self, target: str, wait: bool) -> Iterator[Content]:
        """A disk that nobody freezes meanwhile."""
        with self._free:
            while self.frozen or self.state != "running":
                if not wait or self._stopping.is_set() or self.state == "off":
                    raise GuestHeld(f"{self.name} is {'frozen' if self.frozen else self.state} and cannot write")
                self._free.wait(_TICK)
            content = self.disks(target)
            if content is None:
                raise GuestHeld(f"{self.name} has no disk {target}")
            with self._suspended_io:
                yield content

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What a file system writes together: it is frozen before or after, never in between."""
        with self._free:
            yield
