"""What a call does, step by step, recorded from a clean run.

REST requests, ssh connections, commands on hosts and on the front-end, requests to oned and to a source of images, and
the driver's own operations on files.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import CHECKOUT
from tests.faults.operations import Order
from tests.faults.picture import Picture, picture
from tests.faults.stage import Stage

FRONTEND = "front-end"
# What begins every script, and what only looks and says: a kill there is one at the next step that changes something.
_NO_STEPS = frozenset(
    ("sh", "env", "setsid", "ssh", "python3", "cat", "date", "tr", "id", "sed", "sleep", "head", "grep", "timeout")
) | {"lsblk", "readlink", "find"}
_WATCH = """#!/bin/sh
read -r _ _ _ _ _ session _ </proc/$$/stat
echo "{where} {command} $session" >>'{log}'
exec '{real}' "$@"
"""
# What is given as long as there is much to read or write: only oned's cancel ends it, and what shares its script.
_TAKE_LONG = frozenset(
    ("blkdiscard", "dd", "genisoimage", "gzip", "md5sum", "mkfs.ext4", "mkswap", "qemu-img", "qemu-io", "tar")
) | {"thin_delta", "zfs"}
_TAKE_LONG_WITH_MEMORY = frozenset(("virsh",))


@dataclass(frozen=True)
class Step:
    """The `number`th REST request (from 0), ssh connection, request to oned or a source, operation on a file, or run of
    `what` on `where`, which is, or shares its script with, what `takes_long`.
    """

    kind: str
    number: int
    where: str
    what: str
    takes_long: bool = False

    @property
    def name(self) -> str:
        """As it is called on the command line."""
        if self.kind == "rest":
            return f"rest{self.number + 1}-{self.what.split()[0]}-{self.what.rpartition('/')[2]}"
        if self.kind == "ssh":
            return f"ssh{self.number + 1}-{self.where}"
        if self.kind == "file":
            return f"file{self.number + 1}-{self.what.replace(' ', '-').replace('/', '-')}"
        if self.kind in ("oned", "source"):
            return f"{self.kind}{self.number + 1}"
        return f"{self.where}-{self.what}{self.number + 1}"

    @property
    def changes(self) -> bool:
        """Whether it is more than a question."""
        return not self.what.startswith("GET ")


@dataclass(frozen=True)
class Record:
    """A call that nothing has disturbed: its steps, what there was before and after, and after its counterpart."""

    steps: tuple[Step, ...]
    call: Call
    before: Picture
    after: Picture
    undone: tuple[Picture, ...]


def record(stage: Stage) -> Record:
    """Make the call in one fork and watch; make it and its counterpart, and the counterpart alone, in two more."""
    before = stage.try_out(lambda: picture(stage))
    steps, call, after = stage.try_out(lambda: _watched(stage))
    undone = ()
    if stage.counterpart:
        undone = (
            stage.try_out(lambda: _undone(stage, call, True)),
            stage.try_out(lambda: _undone(stage, call, False)),
        )
    return Record(steps, call, before, after, undone)


def _watched(stage: Stage) -> tuple[tuple[Step, ...], Call, Picture]:
    world = stage.world
    log = stage.folder / "steps"
    log.touch()
    _watch_programs(stage, log)
    files = stage.folder / "operations"
    files.touch()
    world.cloud.scripts.environment = {**stage.environment, **Order(str(stage.folder), str(files)).variable()}
    requests, connections, asked = (
        len(world.sandbox.requests),
        len(world.sandbox.connections),
        world.cloud.rpc.http_requests,
    )
    call = stage.call()
    assert call.succeeded, call.stderr
    lines = [f"{request.method} {request.path}" for request in world.sandbox.requests[requests:]]
    hosts = [connection.host for connection in world.sandbox.connections[connections:]]
    steps = [Step("rest", number, "", line) for number, line in enumerate(lines)]
    steps += [Step("ssh", number, host, "ssh") for number, host in enumerate(hosts)]
    steps += [Step("oned", number, FRONTEND, "") for number in range(world.cloud.rpc.http_requests - asked)]
    steps += [Step("source", number, FRONTEND, path) for number, path in enumerate(stage.source.server.requests)]
    steps += [Step("file", number, FRONTEND, line) for number, line in enumerate(files.read_text().splitlines())]
    return (*steps, *_commands(log, call)), call, picture(stage)


def _commands(log: Path, call: Call) -> Iterator[Step]:
    long = _TAKE_LONG | (_TAKE_LONG_WITH_MEMORY if call.kind == "vmm" else frozenset())
    lines = [line.split(" ") for line in log.read_text().splitlines()]
    seen: dict[tuple[str, str], int] = {}
    for where, command, session in lines:
        number = seen[where, command] = seen.get((where, command), -1) + 1
        takes_long = any((place, its) == (where, session) and other in long for place, other, its in lines)
        yield Step("command", number, where, command, takes_long)


def _undone(stage: Stage, call: Call, is_made: bool) -> Picture:
    assert stage.counterpart is not None
    if is_made:
        stage.call()
    stage.counterpart(stage.world, call)
    return picture(stage)


def _watch_programs(stage: Stage, log: Path) -> None:
    """Put a note before every tool of a host, and every program whose name is a word of the driver's source."""
    sandbox = stage.world.sandbox
    tools = {path.name for path in (sandbox.host("node1") / "bin").iterdir()}
    for command in sorted((_words() | tools) - _NO_STEPS):
        found = shutil.which(command)
        for node in stage.world.cloud.hosts:
            own = sandbox.host(node) / "bin" / command
            real = str(own) if own.exists() else found
            if real:
                _write(sandbox.host(node) / "steps" / command, node, command, log, real)
        if found:
            _write(stage.folder / "bin" / command, FRONTEND, command, log, found)


def _words() -> frozenset[str]:
    source = "".join(file.read_text() for file in (CHECKOUT / "lib" / "linstor_un").rglob("*.py"))
    return frozenset(re.findall(r"[a-z][\w.-]*", source))


def _write(path: Path, where: str, command: str, log: Path, real: str) -> None:
    path.write_text(_WATCH.format(where=where, command=command, log=log, real=os.path.realpath(real)))
    path.chmod(0o755)
