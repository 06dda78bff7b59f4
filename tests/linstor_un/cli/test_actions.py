"""actions shows what runs now, for whom, and what is known of what it does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from click.testing import CliRunner, Result

from linstor_sandbox.faults import Fault
from linstor_sandbox.opennebula import ActionFailed
from linstor_un import locks
from linstor_un.cli import actions
from linstor_un.cli.verbs import command
from linstor_un.settings import read_configuration
from tests.conftest import CHECKOUT, World
from tests.linstor_un import living
from tests.linstor_un.cli.clouds import Estate
from tests.linstor_un.cli.planted import D0
from tests.linstor_un.scenes import add_image

MIB = 1 << 20


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["actions", *arguments], catch_exceptions=False)


@pytest.fixture
def here(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose front-end this process is on."""
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    return world


def rows(world: World) -> list[dict[str, Any]]:
    """What is shown of this world's actions; other tests have theirs on this machine."""
    own = living.drivers(world)
    return [row for row in json.loads(run("--json").output) if row["process"] in own]


def seen_at(world: World, pattern: str) -> list[dict[str, Any]]:
    """Let the rows be looked at when LINSTOR gets such a request."""
    seen: list[dict[str, Any]] = []
    world.sandbox.faults.add(Fault("do", re.compile(pattern), action=lambda: seen.extend(rows(world))))
    return seen


def make_image(world: World) -> None:
    world.cloud.create_image(world.images, world.file("disk.raw", b"disk" * 1024))


def test_an_image_that_is_made(here: World) -> None:
    seen = seen_at(here, "POST /v1/resource-groups/.*/spawn")
    began = time.strftime("%Y-%m-%d %H:%M:", time.localtime(time.time() - 2))
    make_image(here)
    [row] = seen
    assert (row["action"], row["of"], row["volumes"]) == ("datastore/cp", "image 0", "one-image-0")
    assert (row["step"], row["done_bytes"], row["total_bytes"]) == ("Creating one-image-0", None, None)
    assert row["since"] >= began
    assert rows(here) == [], "it has ended"


def test_a_disk_of_a_vm(here: World) -> None:
    add_image(here)
    seen = seen_at(here, "POST .*/snapshot-restore-resource/.*")
    here.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", here.system)
    [row] = seen
    assert (row["action"], row["of"], row["volumes"]) == ("tm/clone", "disk 0 of VM 0", "one-vm-0-disk-0")
    assert row["step"].startswith("Restoring snapshot linstor_un-base of one-image-0")


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[Callable[[], bool]]:
    """Do something in a thread; gives what tells whether it still goes on."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield future.running
        future.result()


def test_how_much_of_an_image_has_come(here: World) -> None:
    here.images.attributes["LIMIT_TRANSFER_BW"] = "8m"
    path = here.file("disk.raw", os.urandom(8 * MIB))
    seen: list[dict[str, Any]] = []
    with meanwhile(lambda: here.cloud.create_image(here.images, path)) as goes_on:
        while goes_on() and not (seen and seen[-1]["done_bytes"]):
            seen += [row for row in rows(here) if row["action"] == "datastore/cp"]
        shown = run().output
    last = seen[-1]
    assert last["step"].startswith("Writing /dev/drbd/by-res/one-image-0/0 on node")
    assert last["total_bytes"] == 8 * MIB and 0 < last["done_bytes"] <= 8 * MIB
    [line] = [line for line in shown.splitlines() if line.split()[0] == str(last["process"])]
    assert re.search(r" 8\.0 +one-image-0$", line) and "DONE MIB" in shown


def test_what_waits_for_a_volume_holds_none(here: World) -> None:
    directory = read_configuration(os.environ["LINSTOR_UN_CONF"])["LOCK_DIR"]
    shown: list[str] = []
    with ThreadPoolExecutor(1) as pool, locks.volume_lock(directory, "one-image-0", 1):
        made = pool.submit(make_image, here)
        while not shown and not made.done():
            own = [str(process) for process in living.drivers(here)]
            lines = [line.split() for line in run().output.splitlines()]
            shown = next((line for line in lines if line[0] in own and line[1] == "datastore/cp"), [])
    made.result()
    assert shown[2:4] == ["image", "0"] and shown[-4:] == ["-"] * 4


def test_what_was_killed_is_not_shown(here: World) -> None:
    with living.killed_while(here, "POST /v1/resource-groups/.*/spawn"), pytest.raises(ActionFailed):
        make_image(here)
    directory = Path(read_configuration(os.environ["LINSTOR_UN_CONF"])["LOCK_DIR"])
    [left] = directory.iterdir()
    assert left.read_text().endswith("Creating one-image-0\n"), "what it did is in the lock that it has left"
    process = int(left.read_text().split()[0])
    assert process not in [row["process"] for row in json.loads(run("--json").output)]
    left.unlink()


CALLS = {
    "datastore/cp": ("PHhtbD4= 7", "image 7"),
    "datastore/monitor": ("PHhtbD4= 101", "datastore 101"),
    "tm/clone": (
        "fe:/dev/drbd/by-res/one-image-0/0 node1:/var/lib/one/datastores/100/12/disk.3 12 101",
        "disk 3 of VM 12",
    ),
    "tm/mkswap": ("8 node1:/var/lib/one/datastores/100/12/disk.2 12 100", "disk 2 of VM 12"),
    "tm/mv": ("node1:/var/lib/one/datastores/100/12 node2:/var/lib/one/datastores/100/12 12 100", "VM 12"),
    "tm/premigrate": ("node1 node2 /var/lib/one/datastores/100/12 12 100", "VM 12"),
    "tm/monitor": ("PHhtbD4= 100", "datastore 100"),
    "vmm/save_linstor_un": ("one-12 /var/lib/one/datastores/100/12/checkpoint node1 12 node1", "VM 12"),
    "vmm/save": ("one-12 /var/lib/one/datastores/100/12/checkpoint node1 12 node1", None),
}


@pytest.fixture
def scripts(here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """A remotes folder whose scripts all run and wait, with a fork of one of them, and the numbers of the processes."""
    root = tmp_path / "remotes"
    monkeypatch.setattr(actions, "remotes", lambda: str(root))
    folders = {"datastore": "datastore/linstor_un", "tm": "tm/linstor_un", "vmm": "vmm/kvm"}
    running = {}
    for action, (arguments, _) in CALLS.items():
        kind, verb = action.split("/")
        script = root / folders[kind] / verb
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text("#!/bin/sh\nexec 3<&0\n(read -r word <&3) &\necho runs\nread -r word\n")
        script.chmod(0o755)
        running[action] = subprocess.Popen(
            [script, *arguments.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
    for process in running.values():
        assert process.stdout is not None and process.stdout.readline() == b"runs\n"
    yield {action: process.pid for action, process in running.items()}
    for process in running.values():
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_whose_each_action_is(scripts: dict[str, int]) -> None:
    found = {row["action"]: (row["of"], row["process"]) for row in json.loads(run("--json").output)}
    assert found == {action: (of, scripts[action]) for action, (_, of) in CALLS.items() if of is not None}


def test_each_is_shown_once(scripts: dict[str, int]) -> None:
    lines = run("--csv").output.splitlines()
    assert lines[0] == "process,action,of,since,step,done_bytes,total_bytes,volumes"
    # Each script has forked.
    assert len(lines) == len(CALLS)


def test_nothing_runs(here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "remotes", lambda: str(tmp_path))
    assert run().output == "No action runs.\n"
    assert run("-q").output == ""
    assert json.loads(run("--json").output) == []


def test_it_is_shown_again_until_it_is_stopped(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "remotes", lambda: "/nowhere")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    assert run("--watch", "3").output.count("No action runs.") == 2
    assert waited == [3.0, 3.0]


def test_a_command_of_an_operator_that_holds_a_volume(estate: Estate) -> None:
    seen: list[dict[str, Any]] = []

    def look() -> None:
        seen.extend(row for row in json.loads(run("--json").output) if row["process"] == process.pid)

    estate.sandbox.faults.add(Fault("do", re.compile(f"POST .*/{D0}/resources$"), action=look))
    process = subprocess.Popen(
        [sys.executable, "-m", "linstor_un.cli", "place", D0, "--add", "node4", "--yes"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
        stdout=subprocess.DEVNULL,
    )
    assert process.wait() == 0
    [row] = seen
    assert (row["action"], row["step"], row["volumes"]) == ("linstor-un place", f"Placing {D0} on node4", D0)
