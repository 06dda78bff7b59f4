"""place puts a replica on a node or takes it, and refuses what would lose the last good copy."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from typing import Any, Callable

import pytest
from click.testing import CliRunner, Result

from linstor_sandbox.faults import Fault
from linstor_sandbox.seeding import place as put
from linstor_un import locks
from linstor_un.cli.verbs import command
from linstor_un.settings import read_configuration
from tests.conftest import CHECKOUT, World
from tests.linstor_un.cli.clouds import GROUP, Estate
from tests.linstor_un.cli.planted import D0, definition, drop, flag, know_snapshot, open_volume, outdated, snapshot
from tests.linstor_un.cli.test_audit import read_until

BALANCE = "BalanceResourcesEnabled"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def place(*arguments: str) -> Result:
    return run("place", *arguments, "--yes")


def where(estate: Any, name: str = D0) -> dict[str, str]:
    """Where a volume is: `disk`, `diskless` or `tie-breaker`."""
    return {
        item.node.name: "tie-breaker" if item.tie_breaker else "diskless" if item.diskless else "disk"
        for item in estate.sandbox.definition(name).resources
    }


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ") and result.output.count("\n") == 1
    for word in words:
        assert word in result.output, result.output


def test_a_replica_is_put_on_a_node_and_the_tie_breaker_goes(estate: Estate) -> None:
    # The volume is on node1 and node2, and node3 has the tie-breaker.
    result = place(D0, "--add", "node4")
    assert (result.exit_code, result.output.split()[0]) == (0, "done")
    assert where(estate) == {"node1": "disk", "node2": "disk", "node4": "disk"}
    assert estate.sandbox.resource(D0, "node4").pool.name == "data"  # type: ignore[union-attr]


def test_a_tie_breaker_gets_the_disk(estate: Estate) -> None:
    assert "where the tie-breaker is, in pool data" in place(D0, "--add", "node3").output
    assert where(estate) == {"node1": "disk", "node2": "disk", "node3": "disk"}


def test_what_is_attached_for_a_vm_gets_the_disk(estate: Estate) -> None:
    # VM 0 on node1 has image 1, whose replicas are on node2 and node3.
    assert "where it is attached without" in place("vm-0-disk-1", "--add", "node1").output
    assert where(estate, "one-image-1")["node1"] == "disk"


def test_a_replica_is_taken_and_its_node_may_stay_the_tie_breaker(estate: Estate) -> None:
    place(D0, "--add", "node4")
    result = place(D0, "--remove", "node2")
    assert result.exit_code == 0 and "node2 is its tie-breaker now" in result.output
    assert where(estate) == {"node1": "disk", "node4": "disk", "node2": "tie-breaker"}


def test_what_a_vm_has_open_becomes_diskless_and_the_vm_goes_on(estate: Estate) -> None:
    open_volume(estate, D0, "node1")
    result = place(D0, "--remove", "node1")
    assert result.exit_code == 0 and "VM 0 (vm-0) goes on there over the network" in result.output
    assert where(estate) == {"node1": "diskless", "node2": "disk"}
    assert estate.sandbox.satellites.openings.primaries(definition(estate, D0)) == {"node1"}
    estate.sandbox.openings.drop_host("node1")


def test_it_stays_attached_for_a_vm_that_is_off(estate: Estate) -> None:
    place("one-vm-2-disk-0", "--add", "node1")
    assert where(estate, "one-vm-2-disk-0")["node3"] == "disk", "VM 2 is off on node3"
    place("one-vm-2-disk-0", "--remove", "node3")
    assert where(estate, "one-vm-2-disk-0")["node3"] == "diskless"


def test_done_twice_is_done_once(estate: Estate) -> None:
    for arguments in ((D0, "--add", "node4"), (D0, "--remove", "node2")):
        place(*arguments)
        after = estate.sandbox.snapshot_of_state()
        again = place(*arguments)
        assert (again.exit_code, again.output.split()[0]) == (0, "nothing")
        assert estate.sandbox.snapshot_of_state() == after


@pytest.mark.parametrize("arguments", [("--add", "node4"), ("--add", "node3"), ("--remove", "node2")])
def test_a_dry_run_changes_nothing(estate: Estate, arguments: tuple[str, ...]) -> None:
    before = estate.sandbox.snapshot_of_state()
    result = run("place", D0, *arguments, "--dry-run", "--json")
    [row] = json.loads(result.output)
    assert (row["outcome"], row["volume"], row["node"]) == ("would", D0, arguments[1])
    assert estate.sandbox.snapshot_of_state() == before


def test_somebody_who_watches_sees_how_much_is_synced(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estate.sandbox.cluster, "sync_seconds", 5.0)
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "linstor_un.cli", "place", D0, "--add", "node4", "--yes"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib"), "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = read_until(terminal).decode()
    os.close(terminal)
    assert process.returncode == 0, shown
    percents = [int(number) for number in re.findall(r"([0-9]+)%", shown)]
    assert percents == sorted(percents)
    # Click 7 shows nothing yet of what has only begun.
    assert percents[-1] == 100 and len(set(percents) - {0, 100}) > 1, "and something between them"


def test_nobody_at_a_terminal_has_to_say_yes(estate: Estate) -> None:
    before = estate.sandbox.snapshot_of_state()
    result = run("place", D0, "--add", "node4")
    assert result.exit_code == 2 and "say --yes" in result.output
    assert estate.sandbox.snapshot_of_state() == before


@pytest.mark.parametrize(
    "arguments", [(), ("--add", "node1", "--remove", "node2"), ("--remove", "node1", "--pool", "x")]
)
def test_one_thing_at_a_time(arguments: tuple[str, ...]) -> None:
    assert run("place", D0, *arguments).exit_code == 2


def test_opennebulas_numbers_name_a_volume(estate: Estate) -> None:
    place("image-2", "--add", "node1")
    assert where(estate, "one-image-2")["node1"] == "disk"
    place("vm-1-disk-0", "--add", "node4")
    assert where(estate, "one-vm-1-disk-0")["node4"] == "disk"
    refused(place("vm-99-disk-0", "--add", "node4"), "vm-99-disk-0", "linstor-un status volumes")


def test_a_volume_that_is_not_opennebulas_by_its_name(estate: Estate) -> None:
    estate.volume("backup", 0)
    place("backup", "--add", "node4")
    assert where(estate, "backup")["node4"] == "disk"
    estate.sandbox.set_node("node2", online=False)
    estate.sandbox.cluster.touch()
    refused(place("backup", "--remove", "node2"), "may be open on node2", "linstor node lost node2")


def test_the_last_good_copy_stays(estate: Estate) -> None:
    drop(estate, D0, "replica", 1)
    estate.sandbox.cluster.touch()
    refused(place(D0, "--remove", "node1"), "last good copy", f"place {D0} --add NODE")


def test_a_good_copy_stays_while_the_others_are_behind(estate: Estate) -> None:
    place(D0, "--add", "node4")
    estate.sandbox.set_disk_state(D0, "node2", "Outdated")
    refused(place(D0, "--remove", "node1"), "Outdated on node2", "status volumes --syncing")
    assert place(D0, "--remove", "node2").exit_code == 0, "the one that is behind may go"


def test_the_quorum_stays(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [f"node{number}" for number in range(1, 6)]
    world = make_world(nodes=nodes)
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    put(world.sandbox, "backup", nodes[:4], tie_breaker="node5")
    world.sandbox.set_disk_state("backup", "node2", "Outdated")
    for node in ("node3", "node4"):
        world.sandbox.set_node(node, online=False)
    # Two of four and the tie-breaker may write; one of three may not.
    refused(place("backup", "--remove", "node2"), "no quorum", "1 of 3 replicas", "bring node3 and node4 back")


def test_unknown_and_offline_nodes_and_those_that_leave(estate: Estate) -> None:
    refused(place(D0, "--add", "node9"), "no node node9", "node1, node2, node3 and node4")
    refused(place(D0, "--remove", "node9"), "no node node9")
    estate.sandbox.set_node("node4", online=False)
    refused(place(D0, "--add", "node4"), "node4 is OFFLINE", "take another node")
    estate.sandbox.set_node("node4", online=True)
    estate.sandbox.cluster.nodes["node4"].flags.add("EVACUATE")
    try:
        refused(place(D0, "--add", "node4"), "EVACUATE", "linstor node restore node4")
    finally:
        estate.sandbox.cluster.nodes["node4"].flags.clear()


def test_an_offline_node_gives_its_replica_up_where_no_vm_is(estate: Estate) -> None:
    estate.sandbox.set_node("node2", online=False)
    estate.sandbox.cluster.touch()
    result = place(D0, "--remove", "node2")
    assert result.exit_code == 0 and "it goes when node2 is back" in result.output
    estate.sandbox.set_node("node2", online=True)
    assert "node2" not in where(estate)
    estate.sandbox.set_node("node3", online=False)
    estate.sandbox.cluster.touch()
    refused(place("one-vm-2-disk-0", "--remove", "node3"), "may be open on node3", "VM 2 (vm-2)")


def test_a_pool_that_is_too_full_or_not_there(estate: Estate) -> None:
    estate.sandbox.satellites.refresh(definition(estate, D0))
    estate.sandbox.write(D0, b"x" * (8 << 20))
    estate.sandbox.fill_pool("node4", "data", free_mib=1)
    try:
        refused(place(D0, "--add", "node4"), "Pool data on node4 has 0.00 GiB free", "free space there")
    finally:
        estate.sandbox.fill_pool("node4", "data", free_mib=1 << 20)
    refused(place(D0, "--add", "node4", "--pool", "fast"), "no pool fast", "its pools are data")
    refused(place(D0, "--add", "node1", "--pool", "fast"), "in pool data, and not in fast", "--remove node1")


def test_nothing_to_copy_from(estate: Estate) -> None:
    outdated(estate, D0, 2)
    estate.sandbox.cluster.touch()
    refused(place(D0, "--add", "node4"), "Outdated on node1 and Outdated on node2", "bring back the node")


def test_without_drbd_there_is_one_copy(estate: Estate) -> None:
    for item in definition(estate, "one-image-2").resources:
        item.layers = ["STORAGE"]
    estate.sandbox.cluster.touch()
    refused(place("one-image-2", "--add", "node1"), "no DRBD layer", "LAYER_LIST")


def test_what_is_on_its_way_out_is_waited_for(estate: Estate) -> None:
    flag(estate, D0, "DELETE", "DRBD_DELETE", role="tie-breaker")
    estate.sandbox.cluster.touch()
    refused(place(D0, "--add", "node3"), "DELETE", f"linstor resource list -r {D0}")


def test_a_volume_that_an_action_has_is_left_to_it(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linstor_un.cli.holding._WAIT_SECONDS", 0.01)
    directory = read_configuration(os.environ["LINSTOR_UN_CONF"])["LOCK_DIR"]
    before = estate.sandbox.snapshot_of_state()
    with locks.volume_lock(directory, D0, 1):
        refused(place(D0, "--add", "node4"), f"process {os.getpid()}", D0)
    assert estate.sandbox.snapshot_of_state() == before


def test_balancing_does_not_take_back_what_was_asked_for(estate: Estate) -> None:
    result = place(D0, "--add", "node4")
    assert f"resource group {GROUP} asks for 2 replicas" in result.output
    assert definition(estate, D0).props[BALANCE] == "false"
    estate.sandbox.run_balance()
    assert list(where(estate).values()).count("disk") == 3
    place(D0, "--remove", "node2")
    assert BALANCE not in definition(estate, D0).props, "there are as many as the group asks for"


def test_fewer_than_the_datastore_asks_for_is_said(estate: Estate) -> None:
    assert "the datastore asks for 2 replicas" in place(D0, "--remove", "node2").output


@pytest.mark.parametrize(
    ("rest_version", "words"), [("1.27.0", "a revert leaves replicas only"), ("1.24.0", "refuses")]
)
def test_a_new_replica_has_no_older_snapshots(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, rest_version: str, words: str
) -> None:
    monkeypatch.setattr(estate.sandbox.cluster, "version", rest_version)
    know_snapshot(estate, 2)
    snapshot(estate, D0, "snapshot-2")
    result = run("place", D0, "--add", "node4", "--dry-run")
    assert "snapshot-2 is not on node4" in result.output and words in result.output
    assert "snapshot-2 stays on node2" in run("place", D0, "--remove", "node2", "--dry-run").output


def test_it_waits_until_the_data_is_there(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estate.sandbox.cluster, "sync_seconds", 3600)
    assert "it is copied from now on" in place(D0, "--add", "node4", "--no-wait").output
    assert "it is being copied" in place(D0, "--add", "node4", "--no-wait").output
    waited: list[float] = []

    def finish(seconds: float) -> None:
        waited.append(seconds)
        estate.sandbox.resource(D0, "node4").synced_at = 0.0  # type: ignore[union-attr]
        estate.sandbox.cluster.touch()

    monkeypatch.setattr("time.sleep", finish)
    result = place(D0, "--add", "node4")
    assert result.exit_code == 0 and "up to date now" in result.output
    assert len(waited) == 1


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (lambda estate: estate.sandbox.definition(D0).resources.pop("node4"), "is gone"),
        (lambda estate: estate.sandbox.set_node("node4", online=False), "node4 went away"),
    ],
)
def test_what_comes_between_is_said(
    estate: Estate, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Estate], object], words: str
) -> None:
    monkeypatch.setattr(estate.sandbox.cluster, "sync_seconds", 3600)

    def interfere(_: float) -> None:
        happens(estate)
        estate.sandbox.cluster.touch()

    monkeypatch.setattr("time.sleep", interfere)
    refused(place(D0, "--add", "node4"), words, "run this again")


def test_a_replica_that_nobody_fills_is_not_waited_for_for_ever(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(D0, "--add", "node4")
    clock = iter(range(0, 1 << 20, 60))
    monkeypatch.setattr("linstor_un.cli.moving.waiting.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("linstor_un.cli.moving.waiting.time.sleep", lambda _: None)
    estate.sandbox.set_disk_state(D0, "node4", "Inconsistent")
    monkeypatch.setattr("linstor_un.cli.moving.waiting.unfinished", lambda _: ["node4"])
    monkeypatch.setattr("linstor_un.cluster.inventory._SYNCING", frozenset())
    refused(place(D0, "--add", "node4"), "is not copied", f"drbdadm status {D0}")


@pytest.mark.parametrize("after_work", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("request_", "arguments", "disks"),
    [
        ("POST .*/resources$", ("--add", "node4"), ["node1", "node2", "node4"]),
        ("PUT .*/toggle-disk/diskful", ("--add", "node3"), ["node1", "node2", "node3"]),
        ("DELETE .*/resources/node2", ("--remove", "node2"), ["node1"]),
        (f"PUT .*/{D0}$", ("--add", "node4"), ["node1", "node2", "node4"]),
    ],
    ids=["create", "toggle", "delete", "balance"],
)
def test_killed_at_a_request_it_is_run_again(
    estate: Estate, request_: str, arguments: tuple[str, ...], disks: list[str], after_work: bool
) -> None:
    killing = Fault("do", re.compile(request_), after_work=after_work, action=lambda: kill.pop()())
    estate.sandbox.faults.add(killing)
    process = subprocess.Popen(
        [sys.executable, "-m", "linstor_un.cli", "place", D0, *arguments, "--yes"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
    )
    kill = [lambda: process.send_signal(signal.SIGKILL)]
    assert process.wait() == -signal.SIGKILL
    assert place(D0, *arguments).exit_code == 0
    assert [node for node, role in sorted(where(estate).items()) if role == "disk"] == disks
    assert definition(estate, D0).props[BALANCE] == "false"
