"""A world that has come to the moment before one call of an entry script, and forks of it in which the call is made.

A fork costs a few milliseconds where building the world again would cost seconds. All of a world's memory is forked;
its files are put back before each fork, and its addresses stay the same.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World, build_world
from tests.faults.scenes import Counterpart, Scene
from tests.faults.source import Source
from tests.forks import forks

T = TypeVar("T")

# Short, so that a cell in which something hangs is over in seconds.
SETTINGS = (
    'CONNECT_TIMEOUT="1"\nFAILOVER_TIMEOUT="1"\nREQUEST_TIMEOUT="2"\nDEVICE_TIMEOUT="2"\nIN_USE_TIMEOUT="1"\nLOCK_TIMEOUT="5"\n'
    'SSH_CONNECT_TIMEOUT="1"\nFREEZE_TIMEOUT="2"\nHOLD_TIMEOUT="3"\nCOMMAND_TIMEOUT="6"\n'
    'ONED_TIMEOUT="2"\nSOURCE_TIMEOUT="5"\n'
)
LONGEST_CALL_SECONDS = 60
# Where there is such a place: what is synchronised to a disk would cost more than all the rest.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_CELL_SECONDS = 200
_PR_SET_PDEATHSIG = 1
_RESTORED = "linstor_un.conf files sandbox/volumes sandbox/hosts/*/[!b]* frontend bin locks oned temporary"


class Reached(BaseException):
    """The scene is over: what oned would do after the call is of no interest."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


class CellFailed(RuntimeError):
    """A fork has ended by an error of its own."""


@dataclass
class Stage:
    """One call of one script, about to be made; `call` makes it, as oned does, as often as it is called."""

    world: World
    folder: Path
    call: Callable[[], Call]
    counterpart: Counterpart
    source: Source
    # What a script has when nothing is wrong.
    environment: Mapping[str, str]
    # The process of which the scripts are forks, itself no part of the world.
    server: int = 0
    # Whether nothing but a cancel has ended the call.
    was_cancelled: bool = False
    mended: threading.Event = field(default_factory=threading.Event)

    def try_out(self, task: Callable[[], T]) -> T:
        """The result of a task in a fork; what it does to the world is forgotten."""
        self._put_files_back()
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            os.close(reading)
            _report(writing, lambda: self._in_fork(task))
        os.close(writing)
        data = _read(reading, process)
        os.close(reading)
        os.waitpid(process, 0)
        for left in self.processes():
            _kill(left)
        good, result = pickle.loads(data) if data else (False, f"it has taken longer than {_CELL_SECONDS} s")
        if not good:
            raise CellFailed(result)
        return result  # type: ignore[no-any-return]

    def _in_fork(self, task: Callable[[], T]) -> T:
        die_with_parent()
        self.world.sandbox.resume()
        self.world.cloud.rpc.resume()
        self.source.resume()
        return task()

    def processes(self) -> dict[int, str]:
        """What runs on this world's hosts and its front-end: process ids and command lines."""
        mark = str(self.folder).encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) == self.server:
                continue
            try:
                if mark in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
        return {number: " ".join(command.split("\0"))[:200] for number, command in found.items() if command}

    def pause(self) -> None:
        """Stop every thread and keep the files as they are now."""
        self.world.sandbox.pause()
        self.world.cloud.rpc.pause()
        self.source.pause()
        deadline = time.monotonic() + 5
        while threading.active_count() > 1:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.01)
        self._shell(f"mkdir -p ../kept && cp -a --parents {_RESTORED} ../kept")

    def _put_files_back(self) -> None:
        self._shell(f"rm -rf {_RESTORED} && cp -a ../kept/. .")

    def _shell(self, script: str) -> None:
        subprocess.run(["sh", "-ec", script], cwd=self.folder, check=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: nothing of a run that was killed goes on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def perform(scene: Scene, task: Callable[[Stage], T]) -> T:
    """Play a scene up to its call in a world of its own, and return what the task makes of the stage."""
    with tempfile.TemporaryDirectory(prefix="linstor-un-faults-", dir=_MEMORY) as name, ExitStack() as stack:
        folder = Path(name) / "world"
        settings = SETTINGS + scene.world.get("configuration", "")
        world = build_world(stack, folder, port=_free_port(), **{**scene.world, "configuration": settings})
        scripts = world.cloud.scripts
        if scene.with_backups:
            world.install_backups()
        (folder / "temporary").mkdir()
        scripts.environment = {**scripts.environment, "TMPDIR": str(folder / "temporary")}
        source = stack.enter_context(Source(_free_port()))
        forked = stack.enter_context(forks(folder, scripts.environment))
        scripts.launch = forked
        script = scene.play(world, source) if scene.is_fetched else scene.play(world)
        counterpart = next(script)
        try:
            _intercept(stage_of(world, counterpart, source, forked.server), scene, task)
            next(script, None)
        except Reached as reached:
            return reached.result  # type: ignore[no-any-return]
        raise AssertionError(f"{scene.name} does not come to {scene.verb}")


def stage_of(world: World, counterpart: Counterpart = None, source: Optional[Source] = None, server: int = 0) -> Stage:
    """The stage of a world whose call is not known yet, or never."""
    scripts = world.cloud.scripts
    return Stage(world, world.folder.parent, _no_call, counterpart, source or Source(0), scripts.environment, server)


def _no_call() -> Call:
    raise AssertionError("it has not come to the call")


def _intercept(stage: Stage, scene: Scene, task: Callable[[Stage], object]) -> None:
    """Have the task done in the place of the call: what oned knows must be as it is while the call is made."""
    world = stage.world
    once = world.cloud.scripts._run

    def run(*arguments: Any) -> Call:
        kind, verb, _, argv, _ = arguments
        if f"{kind}/{verb}" != scene.verb or (scene.directory and "/disk." in argv[0]):
            return once(*arguments)
        world.cloud.scripts._run = once  # type: ignore[method-assign]
        world.cloud.scripts.timeout = LONGEST_CALL_SECONDS
        stage.call = lambda: once(*arguments)
        stage.pause()
        try:
            raise Reached(task(stage))
        finally:
            # The threads that the world's end asks to stop have to be there.
            world.sandbox.resume()
            world.cloud.rpc.resume()

    world.cloud.scripts._run = run  # type: ignore[method-assign]


def _free_port() -> int:
    """A port from below those that connections take by themselves, so that it stays free between forks."""
    import random
    import socket

    while True:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def _report(writing: int, task: Callable[[], object]) -> None:
    try:
        answer = (True, task())
    except BaseException:
        answer = (False, traceback.format_exc())
    with os.fdopen(writing, "wb") as pipe:
        pickle.dump(answer, pipe)
    os._exit(0)


def _read(reading: int, process: int) -> bytes:
    deadline = time.monotonic() + _CELL_SECONDS
    data = b""
    while True:
        if not select.select([reading], [], [], max(0, deadline - time.monotonic()))[0]:
            _kill(process)
            return b""
        block = os.read(reading, 1 << 16)
        if not block:
            return data
        data += block


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
