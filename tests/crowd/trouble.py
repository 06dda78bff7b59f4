"""What goes wrong while the crowd is at work, and how all is mended."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from typing import Callable, Optional

from linstor_sandbox import answers
from linstor_sandbox.faults import Fault
from tests.conftest import World
from tests.faults.faults import mend
from tests.faults.stage import stage_of

_HANG_SECONDS = 6.0
_FARTHEST_REQUEST = 12
_FARTHEST_CONNECTION = 3


class Trouble:
    """Draws, before a deed, what goes wrong during it: at its nth request or ssh connection, or anybody else's."""

    def __init__(self, world: World, rate: float) -> None:
        self.world = world
        self.rate = rate
        self.made: dict[str, int] = {}
        self._connections: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._offline = ""
        self._until = 0
        if rate:
            world.sandbox.watch = self._watch

    def draw(self, draw: random.Random, number: int) -> str:
        """Let it go wrong, or not, during deed `number`; what was chosen."""
        if self._offline and number >= self._until:
            self.world.sandbox.set_node(self._offline, online=True)
            self._offline = ""
        if draw.random() >= self.rate:
            return ""
        name = draw.choice([*_AT_REQUESTS, "ssh exit", "ssh hang", "offline"])
        nth = draw.randrange(_FARTHEST_REQUEST)
        self.made[name] = self.made.get(name, 0) + 1
        if name.startswith("ssh"):
            with self._lock:
                self._connections.append((nth % _FARTHEST_CONNECTION, name))
        elif name == "offline":
            self._lose(draw, number)
        else:
            self.world.sandbox.faults.add(_AT_REQUESTS[name](self.world, nth))
        return f"{name} at {nth}"

    def _lose(self, draw: random.Random, number: int) -> None:
        """A host without power, for some deeds; never two at once, which would take all replicas of some volumes."""
        node, last = draw.choice(self.world.cloud.hosts), number + draw.randrange(3, 15)
        if not self._offline:
            self._offline, self._until = node, last
            self.world.sandbox.set_node(node, online=False)

    def _watch(self, _host: str, command: str, _process: int) -> bool:
        """Whether an ssh connection of the driver goes on; OpenNebula's own do."""
        if command != "ssh" or "virsh" in self.world.sandbox.asking.command:
            return True
        with self._lock:
            self._connections = [(number - 1, name) for number, name in self._connections]
            met = next((item for item in self._connections if item[0] < 0), None)
            if met is None:
                return True
            self._connections.remove(met)
        if met[1] == "ssh hang":
            self.world.sandbox.stopping.wait(_HANG_SECONDS)
        return False

    def mend(self) -> None:
        """Everything works again, and two hours have passed."""
        self._connections, self._offline = [], ""
        watch = self.world.sandbox.watch
        mend(stage_of(self.world))
        self.world.sandbox.watch = watch


def _rest(kind: str, after_work: bool = False, seconds: Optional[float] = None) -> Callable[[World, int], Fault]:
    def fault(_: World, nth: int) -> Fault:
        body = answers.plain_error(answers.FAIL_UNKNOWN_ERROR, "injected failure")
        return Fault(kind, re.compile(""), skip=nth, after_work=after_work, body=body, seconds=seconds)

    return fault


def _at(act: Callable[[World], object], after_work: bool = False, ends: bool = False) -> Callable[[World, int], Fault]:
    def fault(world: World, nth: int) -> Fault:
        made = Fault("do", re.compile(""), skip=nth, after_work=after_work, ends=ends)
        made.action = lambda: act(world)
        return made

    return fault


def _kill(number: int) -> Callable[[World], None]:
    """Kill the script that has run longest."""

    def act(world: World) -> None:
        for process in world.cloud.scripts.running[:1]:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    return act


_AT_REQUESTS: dict[str, Callable[[World, int], Fault]] = {
    "error": _rest("answer"),
    "done, error": _rest("answer", after_work=True),
    "dropped": _rest("drop"),
    "done, dropped": _rest("drop", after_work=True),
    "hangs": _rest("hang", seconds=30),
    "fail-over": _at(lambda world: world.sandbox.fail_over(), ends=True),
    "done, fail-over": _at(lambda world: world.sandbox.fail_over(), after_work=True, ends=True),
    "SIGKILL": _at(_kill(signal.SIGKILL)),
    "done, SIGKILL": _at(_kill(signal.SIGKILL), after_work=True),
    "SIGTERM": _at(_kill(signal.SIGTERM)),
    "done, SIGTERM": _at(_kill(signal.SIGTERM), after_work=True),
}
