"""evacuate moves what is on a node elsewhere, leaves what has no other place, and goes on where it was interrupted."""

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
from click.testing import Result

from linstor_sandbox.faults import Fault
from linstor_un import locks
from linstor_un.cli import evacuate
from linstor_un.settings import read_configuration
from tests.conftest import CHECKOUT, HONEST_TIMES, World
from tests.linstor_un import living
from tests.linstor_un.cli.clouds import GROUP, NODES, Estate
from tests.linstor_un.cli.planted import D0, definition, drop, know_snapshot, open_volume, outdated, snapshot
from tests.linstor_un.cli.test_audit import look, read_until
from tests.linstor_un.cli.test_place import BALANCE, place, run, where

# What has a replica on node2, and whether a VM is there with it.
ON_NODE2 = ("one-image-0", "one-image-1", D0, "one-vm-1-disk-0", "one-vm-1-disk-1")
FOR_VM_1 = {"one-vm-1-disk-0", "one-vm-1-disk-1"}


def move(*arguments: str) -> Result:
    return run("evacuate", *arguments, "--yes")


def roles(estate: Estate, node: str) -> dict[str, str]:
    """What is on a node."""
    found = {item.name: where(estate, item.name).get(node, "") for item in estate.sandbox.cluster.definitions}
    return {name: role for name, role in found.items() if role}


def copies(estate: Estate) -> dict[str, int]:
    names = [item.name for item in estate.sandbox.cluster.definitions]
    return {name: list(where(estate, name).values()).count("disk") for name in names}


def test_what_is_done_stands_on_a_line_of_its_own_beside_the_bar(estate: Estate) -> None:
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "linstor_un.cli", "evacuate", "node2", "--yes"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib"), "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = read_until(terminal).decode()
    os.close(terminal)
    assert process.returncode == 0, shown
    # What a terminal has of a line is what comes after it was cleared last.
    done = [line.split("\r\x1b[K")[-1] for line in shown.split("\r\n") if "done " in line]
    assert len(done) >= len(ON_NODE2)
    assert [line for line in done if not line.startswith("\x1b[32mdone ")] == []
    assert "100%" in shown


def rows(result: Result) -> dict[str, dict[str, Any]]:
    return {row["volume"]: row for row in json.loads(result.output)}


def test_everything_is_elsewhere_and_nothing_is_wrong(estate: Estate) -> None:
    open_volume(estate, "one-vm-1-disk-0", "node2")
    before = copies(estate)
    result = move("node2")
    assert result.exit_code == 0, result.output
    assert roles(estate, "node2") == dict.fromkeys(FOR_VM_1, "diskless"), "the VM there goes on"
    assert copies(estate) == before
    assert look().findings == ()
    assert not any(BALANCE in item.props for item in estate.sandbox.cluster.definitions)
    assert not any(item.props.keys() - {"StorPoolName", "DiskfulBy"} for item in estate.sandbox.cluster.resources())
    estate.sandbox.openings.drop_host("node2")


def test_what_disks_are_made_of_goes_too(estate: Estate) -> None:
    assert "linstor_un-base" in definition(estate, "one-image-0").snapshots
    move("node2")
    assert "linstor_un-base" not in definition(estate, "one-image-0").snapshots


def test_tie_breakers_are_made_elsewhere_and_stay_on(estate: Estate) -> None:
    assert roles(estate, "node2")["one-vm-3-disk-0"] == "tie-breaker"
    move("node2")
    assert where(estate, "one-vm-3-disk-0") == {"node4": "disk", "node1": "disk", "node3": "tie-breaker"}
    assert all("False" not in item.props.values() for item in estate.sandbox.cluster.definitions)


def test_done_twice_is_done_once(estate: Estate) -> None:
    move("node2")
    after = estate.sandbox.snapshot_of_state()
    again = move("node2")
    assert (again.exit_code, "Nothing has to be moved off node2" in again.output) == (0, True)
    assert estate.sandbox.snapshot_of_state() == after


def test_a_dry_run_shows_where_and_changes_nothing(estate: Estate) -> None:
    before = estate.sandbox.snapshot_of_state()
    shown = run("evacuate", "node2", "--dry-run")
    assert shown.exit_code == 0 and "Nothing was changed" in shown.output
    [line] = [line for line in shown.output.splitlines() if line.startswith("one-vm-1-disk-0")]
    assert line.split()[-1] == "diskless" and "data" in line
    found = rows(run("evacuate", "node2", "--dry-run", "--json"))
    assert {row["outcome"] for row in found.values()} == {"would"} and set(ON_NODE2) < set(found)
    assert estate.sandbox.snapshot_of_state() == before


def test_nobody_at_a_terminal_has_to_say_yes(estate: Estate) -> None:
    before = estate.sandbox.snapshot_of_state()
    assert "say --yes" in run("evacuate", "node2").output
    assert estate.sandbox.snapshot_of_state() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("node9",), "no node node9"),
        (("node2", "--target", "node9"), "no node node9"),
        (("node2", "--target", "NODE2"), "evacuated to itself"),
        (("node2", "--target", "node4"), "node4 is OFFLINE"),
    ],
)
def test_nodes_that_make_no_sense(estate: Estate, arguments: tuple[str, ...], words: str) -> None:
    estate.sandbox.set_node("node4", online=False)
    result = move(*arguments)
    assert result.exit_code == 1 and words in result.output


def test_only_to_the_nodes_that_are_named(estate: Estate) -> None:
    assert move("node2", "--target", "node4").exit_code == 0
    assert all(where(estate, name).get("node4") == "disk" for name in ON_NODE2)


def test_what_has_no_other_place_stays_and_the_rest_goes(estate: Estate) -> None:
    # Their other replica is on node3.
    result = move("node2", "--target", "node3")
    assert result.exit_code == evacuate.LEFT
    stays = {name for name, role in roles(estate, "node2").items() if role == "disk"}
    assert stays == {"one-image-1", *FOR_VM_1}
    assert "refused  one-vm-1-disk-0 of disk 0 of VM 1 (vm-1) stays: None of node3 may have" in result.output
    assert result.output.count("refused  ") == 3


def test_the_last_good_copy_stays(estate: Estate) -> None:
    estate.sandbox.set_disk_state(D0, "node1", "Outdated")
    outdated(estate, "one-image-0", 2)
    estate.sandbox.cluster.touch()
    result = move("node2", "--json")
    found = rows(result)
    assert result.exit_code == evacuate.LEFT
    assert (found[D0]["outcome"], found["one-image-0"]["outcome"]) == ("refused", "refused")
    assert "Outdated on node1" in found[D0]["note"] and "is up to date" in found["one-image-0"]["note"]
    assert where(estate)["node2"] == "disk" and where(estate, "one-image-1").get("node2") != "disk"


def test_pools_are_not_promised_twice(estate: Estate) -> None:
    for name in ON_NODE2:
        estate.sandbox.satellites.refresh(definition(estate, name))
        estate.sandbox.write(name, b"x" * (8 << 20))
    # There is room for one of them on node4, and for none elsewhere.
    for node, room in (("node1", 2), ("node3", 2), ("node4", 12)):
        estate.sandbox.fill_pool(node, "data", free_mib=room)
    try:
        found = rows(run("evacuate", "node2", "--dry-run", "--json"))
    finally:
        for node in NODES:
            estate.sandbox.fill_pool(node, "data", free_mib=1 << 20)
    outcomes = [found[name]["outcome"] for name in ON_NODE2]
    assert sorted(outcomes) == ["refused"] * 4 + ["would"]


def test_what_has_no_other_place_may_do_with_a_replica_fewer_where_one_is_left(
    estate: Estate, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(estate, "one-image-0", "replica", 0)
    monkeypatch.setattr(estate.sandbox.cluster.groups[GROUP].filter, "node_name_list", ["node2"])
    estate.sandbox.cluster.touch()
    found = rows(run("evacuate", "node2", "--dry-run", "--json"))
    assert "add a node with such a pool" in found["one-image-0"]["note"]
    assert "or do with" not in found["one-image-0"]["note"], "it is the only one"
    command = f"place {D0} --remove node2"
    assert found[D0]["note"].endswith(f"; or do with 1 replica: `linstor-un {command}`")
    assert run(*command.split(), "--yes").exit_code == 0
    assert where(estate).get("node2") != "disk"


def test_replicas_stay_as_different_as_the_group_asks(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estate.sandbox.cluster.groups[GROUP].filter, "replicas_on_different", ["rack"])
    for node, rack in zip(NODES, ("a", "b", "b", "a")):
        monkeypatch.setitem(estate.sandbox.cluster.nodes[node].props, "Aux/rack", rack)
    move("node2")
    # LINSTOR, which still counts the one on node2, would find no place.
    assert {node for node, role in where(estate).items() if role == "disk"} == {"node1", "node3"}


def test_others_volumes_only_where_they_are_asked_for(estate: Estate) -> None:
    estate.volume("backup", 0)
    move("node2")
    assert where(estate, "backup")["node2"] == "disk"
    move("node2", "--all")
    assert "node2" not in where(estate, "backup")


def test_a_volume_of_one_replica_and_one_of_three(estate: Estate) -> None:
    drop(estate, D0, "replica", 0)
    drop(estate, D0, "tie-breaker")
    estate.sandbox.cluster.touch()
    place("one-image-0", "--add", "node4")
    assert move("node2").exit_code == 0
    assert list(where(estate).values()).count("disk") == 1 and "node2" not in where(estate)
    assert copies(estate)["one-image-0"] == 3


def test_a_node_that_is_away_gives_up_what_no_vm_has_there(estate: Estate) -> None:
    estate.sandbox.set_node("node2", online=False)
    estate.sandbox.cluster.touch()
    result = move("node2", "--json")
    found = rows(result)
    assert {name for name in ON_NODE2 if found[name]["outcome"] == "refused"} == FOR_VM_1
    assert "may be open on node2" in found["one-vm-1-disk-0"]["note"]
    estate.sandbox.set_node("node2", online=True)
    assert copies(estate)[D0] == 2 and where(estate).get("node2") != "disk"


def test_snapshots_of_opennebulas_are_said_to_stay(estate: Estate) -> None:
    know_snapshot(estate, 2)
    snapshot(estate, D0, "snapshot-2")
    assert "snapshot-2 stays on node2" in rows(move("node2", "--json"))[D0]["note"]


def test_a_tie_breaker_without_another_place_stays(estate: Estate) -> None:
    estate.sandbox.set_node("node3", online=False)
    estate.sandbox.cluster.touch()
    result = move("node2")
    assert roles(estate, "node2")["one-vm-3-disk-0"] == "tie-breaker"
    assert "one-vm-3-disk-0" not in result.output, "it could not be elsewhere"


def test_so_many_at_a_time(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estate.sandbox.cluster, "sync_seconds", 3600)
    most: list[int] = []

    def finish_one(_: float) -> None:
        filled = [item for item in estate.sandbox.cluster.resources() if item.state() == "Inconsistent"]
        most.append(len(filled))
        filled[0].synced_at = 0.0
        estate.sandbox.cluster.touch()

    monkeypatch.setattr("time.sleep", finish_one)
    assert move("node2", "--parallel", "2").exit_code == 0
    assert max(most) == 2 and len(most) == len(ON_NODE2)


def test_a_volume_that_an_action_has_is_left_and_the_rest_goes(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linstor_un.cli.holding._WAIT_SECONDS", 0.01)
    with locks.volume_lock(read_configuration(os.environ["LINSTOR_UN_CONF"])["LOCK_DIR"], D0, 1):
        result = move("node2", "--json")
    found = rows(result)
    assert (result.exit_code, found[D0]["outcome"]) == (evacuate.LEFT, "failed")
    assert {row["outcome"] for name, row in found.items() if name != D0} == {"done"}
    assert move("node2").exit_code == 0
    assert "node2" not in where(estate)


def test_a_refusal_of_linstor_leaves_no_note(estate: Estate) -> None:
    estate.sandbox.faults.fail(f"POST .*/{D0}/resources")
    estate.sandbox.faults.fail(f"PUT .*/{D0}/resources/.*/toggle-disk")
    result = move("node2", "--json")
    assert rows(result)[D0]["outcome"] == "failed"
    assert not [item for item in definition(estate, D0).resources if "Aux/one/LEAVING" in item.props]


def test_a_vm_whose_host_is_evacuated_lives_on(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(nodes=NODES, **HONEST_TIMES)
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    cloud = world.cloud
    vm = living.start(world, living.EVERY_KIND)
    here = vm.host
    assert move(here).exit_code == 0
    assert look(hosts=True).findings == ()
    held = [name for name in world.sandbox.cluster.definitions if where(world, name.name).get(here) == "disk"]
    assert held == []
    cloud.snapshot_create(vm, vm.disk(0), "kept")
    cloud.migrate_live(vm, next(node for node in NODES if node != here))
    assert look(hosts=True).findings == ()
    cloud.poweroff(vm)
    cloud.resume(vm)
    image = cloud.images[0]
    other = cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", here, world.system)
    assert where(world, f"one-vm-{other.identifier}-disk-0")[here] == "diskless"
    cloud.terminate(vm)
    cloud.terminate(other)
    assert look(hosts=True).findings == ()


@pytest.mark.parametrize("after_work", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "request_",
    [
        "PUT .*/one-image-0/resources/node2$",
        "PUT .*/one-vm-1-disk-0/resources/node.*/toggle-disk/diskful",
        "PUT .*/one-vm-1-disk-0/resources/node2/toggle-disk/diskless",
        "PUT .*/one-vm-1-disk-0/resources/node2$",
        "POST .*/resources$",
        "DELETE .*/one-image-0/resources/node2",
        "DELETE .*/one-image-0/snapshots/linstor_un-base",
        "POST .*/one-vm-3-disk-0/resources$",
        "DELETE .*/one-vm-3-disk-0/resources/node3",
    ],
)
def test_killed_at_a_request_it_goes_on_when_run_again(estate: Estate, request_: str, after_work: bool) -> None:
    place("one-image-0", "--add", "node4")
    before = copies(estate)
    killing = Fault("do", re.compile(request_), after_work=after_work, action=lambda: kill.pop()())
    estate.sandbox.faults.add(killing)
    process = subprocess.Popen(
        [sys.executable, "-m", "linstor_un.cli", "evacuate", "node2", "--yes"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
        stdout=subprocess.DEVNULL,
    )
    kill = [lambda: process.send_signal(signal.SIGKILL)]
    assert process.wait() == -signal.SIGKILL
    result = move("node2")
    assert result.exit_code == 0, result.output
    assert roles(estate, "node2") == dict.fromkeys(FOR_VM_1, "diskless")
    assert copies(estate) == before
    kept = {"StorPoolName", "DiskfulBy"}
    assert not any(item.props.keys() - kept for item in estate.sandbox.cluster.resources())
    assert {item.kind for item in look().findings} <= {"unused-diskless"}
