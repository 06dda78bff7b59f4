"""What tests of running VMs look at: what their guests wrote, how long they were held, where they may be primary."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from linstor_sandbox.hosts.domains import Event
from linstor_sandbox.hosts.guests import Guest
from linstor_sandbox.opennebula import VirtualMachine
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World
from tests.linstor_un.scenes import add_image, definition, state

TWO_DISKS = "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1]"
EVERY_KIND = (
    "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] DISK=[IMAGE_ID=2] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16] "
    'DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]'
)
TWO_PRIMARIES = "DrbdOptions/Net/allow-two-primaries"
BLOCK = 4096


def start(world: World, template: str = TWO_DISKS, host: str = "node1") -> VirtualMachine:
    """A running VM; image 0 is cloned, 1 is persistent, 2 is a CDROM."""
    add_image(world)
    add_image(world, 2, persistent=True)
    add_image(world, 3, type="CDROM")
    return world.cloud.instantiate(template, host, world.system)


def guest(world: World, vm: VirtualMachine) -> Guest:
    """What runs in the VM."""
    return world.sandbox.guest(f"one-{vm.identifier}")


def write(world: World, vm: VirtualMachine, disk_id: int, text: str, wait: bool = False) -> None:
    """Let the guest write a block of text at the beginning of a disk."""
    target = vm.disk(disk_id).attributes["TARGET"]
    guest(world, vm).write(target, text.encode().ljust(BLOCK, b"."), wait=wait)


def text(world: World, resource: str) -> str:
    """The text that a guest has written at the beginning of a volume."""
    return world.sandbox.read(resource, 0, BLOCK).rstrip(b".").decode("ascii", "replace")


def snapshots(world: World, resource: str) -> set[str]:
    """The snapshots of a volume, which must all be complete."""
    found = definition(world, resource)["snapshots"]
    assert all("SUCCESSFUL" in snapshot["flags"] for snapshot in found.values())
    return set(found)


def holds(world: World) -> list[tuple[Event, Event]]:
    """Every time that a guest was held and let go."""
    events = [event for event in world.sandbox.domains.events if event.what in ("freeze", "thaw", "suspend", "resume")]
    pairs = list(zip(events[::2], events[1::2]))
    assert all((a.what, b.what) in (("freeze", "thaw"), ("suspend", "resume")) for a, b in pairs), events
    assert len(events) % 2 == 0, events
    return pairs


def held_for_one_request(world: World) -> bool:
    """Whether LINSTOR was asked exactly once each time that a guest was held."""
    return all(end.requests - begin.requests == 1 for begin, end in holds(world))


def two_primaries(world: World) -> dict[str, list[str]]:
    """Volume by volume the pairs of nodes, or `all`, that may be primary at once."""
    found: dict[str, list[str]] = {}
    for name, item in world.sandbox.snapshot_of_state()["resource_definitions"].items():
        pairs = [pair.lower() for pair, props in item["connections"].items() if TWO_PRIMARIES in props]
        pairs += ["all"] if TWO_PRIMARIES in item["props"] else []
        if pairs:
            found[name] = sorted(pairs)
    return found


def places(world: World) -> dict[str, Any]:
    """Everything that exists, but for the directories of system datastores, which stay where a VM once was."""
    found = state(world)
    for below in found["files"].values():
        for name in [name for name in below if re.fullmatch(r"lib/one/datastores/\d+", name)]:
            del below[name]
    return found


def twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let oned make every call of ours that succeeds a second time, which must succeed and change nothing."""
    once: Callable[..., Call] = world.cloud.scripts._run

    def run(*arguments: Any) -> Call:
        first = once(*arguments)
        if not first.succeeded or "linstor_un" not in str(arguments[2].relative_to(world.cloud.scripts.remotes)):
            return first
        before = state(world)
        second = once(*arguments)
        what = f"{first.verb} {first.argv_shown}"
        assert second.succeeded, f"{what}: {second.stderr}"
        assert state(world) == before, what
        return second

    monkeypatch.setattr(world.cloud.scripts, "_run", run)


@contextmanager
def killed_while(
    world: World, pattern: str, number: int = signal.SIGKILL, seconds: Optional[float] = None
) -> Iterator[None]:
    """Kill the driver's process that makes a request matching `pattern` while LINSTOR works on it, for so long."""
    fault = world.sandbox.faults.hang(pattern, seconds)
    done = threading.Event()

    def kill() -> None:
        while not done.is_set():
            for process in drivers(world):
                if not fault.remaining:
                    os.kill(process, number)
                    return
            time.sleep(0.02)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        fault.release()


@contextmanager
def killed_at(world: World, host: str, command: str, number: int = 0) -> Iterator[None]:
    """Kill the driver's process when a command comes to be run on a host, which fails, for that many-th time from 0."""
    met = iter(range(1 << 30))

    def watch(where: str, what: str, _process: int) -> bool:
        if (where, what) != (host, command) or next(met) != number:
            return True
        for process in drivers(world):
            os.kill(process, signal.SIGKILL)
        return False

    world.sandbox.watch = watch
    world.sandbox.watch_command(host, command)
    try:
        yield
    finally:
        world.sandbox.watch = lambda _host, _command, _process: True


def drivers(world: World) -> list[int]:
    """The entry scripts that this world's oned has started."""
    home = f"HOME={world.cloud.var}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            is_script = len(words) > 1 and words[1].startswith(f"{world.cloud.scripts.remotes}/".encode())
            if is_script and home in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue
    return found
