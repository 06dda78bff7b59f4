"""replicas gives a volume so many replicas, and takes none that is open or the last good one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from click.testing import Result

from linstor_sandbox.faults import Fault
from tests.conftest import CHECKOUT
from tests.linstor_un.cli.clouds import GROUP, NODES, Estate
from tests.linstor_un.cli.planted import D0, definition, flag, know_snapshot, open_volume, outdated, snapshot
from tests.linstor_un.cli.test_place import BALANCE, place, refused, run, where


def replicas(*arguments: str) -> Result:
    return run("replicas", *arguments, "--yes")


def disks(estate: Estate, name: str = D0) -> list[str]:
    return sorted(node for node, role in where(estate, name).items() if role == "disk")


def test_linstor_places_what_is_missing(estate: Estate) -> None:
    result = replicas(D0, "4")
    assert (result.exit_code, disks(estate)) == (0, list(NODES)), result.output
    assert result.output.startswith(f"done     place 2 replicas more of {D0}, on node3 and node4")


def test_it_asks_as_the_group_and_the_datastore_say(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    group = estate.sandbox.cluster.groups[GROUP].filter
    monkeypatch.setattr(group, "replicas_on_different", ["Aux/rack"])
    for node, rack in zip(NODES, ("a", "b", "b", "c")):
        monkeypatch.setitem(estate.sandbox.cluster.nodes[node].props, "Aux/rack", rack)
    replicas(D0, "3")
    assert disks(estate) == ["node1", "node2", "node4"]
    refused(replicas(D0, "4"), "needs 1 node more and none may have it", GROUP, "--add")


def test_what_is_beside_what_it_must_not_be_is_left_out(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    group = estate.sandbox.cluster.groups[GROUP].filter
    # It is on node4 and node1, and its tie-breaker on node2.
    monkeypatch.setattr(group, "not_place_with_rsc_regex", "one-vm-3-disk.*")
    result = run("replicas", D0, "3", "--dry-run")
    assert "on 1 of node3" in result.output
    replicas(D0, "3")
    assert disks(estate) == ["node1", "node2", "node3"]


def test_full_pools_are_left_out_though_linstor_would_promise_them(estate: Estate) -> None:
    estate.sandbox.satellites.refresh(definition(estate, D0))
    estate.sandbox.write(D0, b"x" * (8 << 20))
    for node in ("node3", "node4"):
        estate.sandbox.fill_pool(node, "data", free_mib=2)
    try:
        refused(replicas(D0, "3"), "needs 1 node more and none may have it")
        assert disks(estate) == ["node1", "node2"]
    finally:
        for node in ("node3", "node4"):
            estate.sandbox.fill_pool(node, "data", free_mib=1 << 20)


def test_an_encrypted_volume_stays_so(estate: Estate) -> None:
    for item in definition(estate, D0).resources:
        if not item.diskless:
            item.layers = ["DRBD", "LUKS", "STORAGE"]
    estate.sandbox.cluster.touch()
    asked: list[Any] = []

    def look(exchange: Any) -> None:
        if exchange.path.endswith("/autoplace"):
            asked.append(exchange.body)

    estate.sandbox.witness = look
    try:
        replicas(D0, "3")
    finally:
        estate.sandbox.witness = None
    assert [body["layer_list"] for body in asked] == [["DRBD", "LUKS", "STORAGE"]], "the group says DRBD,STORAGE"


def test_the_one_that_is_no_good_copy_goes_first(estate: Estate) -> None:
    replicas(D0, "3")
    [third] = set(disks(estate)) - {"node1", "node2"}
    estate.sandbox.set_disk_state(D0, third, "Outdated")
    replicas(D0, "2")
    assert disks(estate) == ["node1", "node2"]
    estate.sandbox.set_node("node2", online=False)
    estate.sandbox.cluster.touch()
    assert "node2" in replicas(D0, "1").output
    estate.sandbox.set_node("node2", online=True)
    assert disks(estate) == ["node1"]


def test_of_equals_the_one_in_the_fullest_pool_goes(estate: Estate) -> None:
    replicas(D0, "4")
    estate.sandbox.fill_pool("node3", "data", free_mib=4096)
    try:
        assert "off node3" in run("replicas", D0, "3", "--dry-run").output
        estate.sandbox.fill_pool("node1", "data", free_mib=1024)
        assert "off node3" in run("replicas", D0, "3", "--dry-run").output, "VM 0 is on node1"
    finally:
        for node in ("node1", "node3"):
            estate.sandbox.fill_pool(node, "data", free_mib=1 << 20)


def test_none_that_is_open_goes(estate: Estate) -> None:
    estate.sandbox.fill_pool("node1", "data", free_mib=1024)
    open_volume(estate, D0, "node1")
    try:
        replicas(D0, "1")
        assert where(estate) == {"node1": "disk"}, "and no tie-breaker of one"
    finally:
        estate.sandbox.openings.drop_host("node1")
        estate.sandbox.fill_pool("node1", "data", free_mib=1 << 20)


def test_more_that_are_open_than_may_stay(estate: Estate) -> None:
    place(D0, "--add", "node4")
    for node in ("node1", "node4"):
        definition(estate, D0).props["DrbdOptions/Net/allow-two-primaries"] = "yes"
        open_volume(estate, D0, node)
    refused(replicas(D0, "1"), "open on node1 and node4", "fewer than 2 replicas", "place --remove")
    for node in ("node1", "node4"):
        estate.sandbox.openings.drop_host(node)


def test_the_last_good_copy_stays(estate: Estate) -> None:
    outdated(estate, D0, 2)
    estate.sandbox.cluster.touch()
    refused(replicas(D0, "1"), "last good copy")
    refused(replicas(D0, "3"), "No replica", "is up to date")
    assert disks(estate) == ["node1", "node2"]


def test_what_linstor_counts_and_holds_no_data_is_said(estate: Estate) -> None:
    flag(estate, D0, "INACTIVE")
    estate.sandbox.cluster.touch()
    refused(replicas(D0, "2"), "LINSTOR counts 2 replicas", "1 of them", f"linstor resource list -r {D0}")


@pytest.mark.parametrize("count", ["1", "3", "4"])
def test_a_dry_run_changes_nothing(estate: Estate, count: str) -> None:
    before = estate.sandbox.snapshot_of_state()
    rows = json.loads(run("replicas", D0, count, "--dry-run", "--json").output)
    assert {row["outcome"] for row in rows} == {"would"}
    assert estate.sandbox.snapshot_of_state() == before


@pytest.mark.parametrize("count", ["1", "2", "3"])
def test_done_twice_is_done_once(estate: Estate, count: str) -> None:
    replicas(D0, count)
    after = estate.sandbox.snapshot_of_state()
    again = replicas(D0, count)
    assert (again.exit_code, again.output.split()[0]) == (0, "nothing")
    assert estate.sandbox.snapshot_of_state() == after
    assert len(disks(estate)) == int(count)


def test_nobody_at_a_terminal_has_to_say_yes_and_none_is_too_few(estate: Estate) -> None:
    assert "say --yes" in run("replicas", D0, "3").output
    assert run("replicas", D0, "0").exit_code == 2
    assert disks(estate) == ["node1", "node2"]


def test_balancing_leaves_the_count_alone(estate: Estate) -> None:
    for count, said in (("3", "false"), ("2", None), ("1", "false"), ("2", None)):
        replicas(D0, count)
        assert definition(estate, D0).props.get(BALANCE) == said
        estate.sandbox.run_balance()
        assert len(disks(estate)) == int(count)


def test_snapshots_that_new_replicas_do_not_have_are_named(estate: Estate) -> None:
    know_snapshot(estate, 2)
    snapshot(estate, D0, "snapshot-2")
    assert "snapshot-2 is not on node3 and node4" in replicas(D0, "4").output


def test_what_is_being_copied_is_waited_for(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estate.sandbox.cluster, "sync_seconds", 3600)
    waited: list[int] = []

    def finish(_: float) -> None:
        waited.append(len(disks(estate)))
        for item in definition(estate, D0).resources:
            item.synced_at = 0.0
        estate.sandbox.cluster.touch()

    monkeypatch.setattr("time.sleep", finish)
    assert replicas(D0, "3").exit_code == 0
    assert waited == [3]
    place(D0, "--add", "node4", "--no-wait")
    place(D0, "--add", "node3", "--no-wait")
    assert "all are up to date now" in replicas(D0, "4").output
    assert waited == [3, 4]
    replicas(D0, "3")
    place(D0, "--add", (set(NODES) - set(disks(estate))).pop(), "--no-wait")
    assert replicas(D0, "2").exit_code == 0
    assert waited == [3, 4, 4], "before any was taken"


@pytest.mark.parametrize("after_work", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("request_", "count"), [("POST .*/autoplace", 4), ("DELETE .*/resources/node.", 1), (f"PUT .*/{D0}$", 1)]
)
def test_killed_at_a_request_it_is_run_again(estate: Estate, request_: str, count: int, after_work: bool) -> None:
    if count == 1:
        replicas(D0, "3")
        definition(estate, D0).props.pop(BALANCE)
    killing = Fault("do", re.compile(request_), after_work=after_work, action=lambda: kill.pop()())
    estate.sandbox.faults.add(killing)
    process = subprocess.Popen(
        [sys.executable, "-m", "linstor_un.cli", "replicas", D0, str(count), "--yes"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
    )
    kill = [lambda: process.send_signal(signal.SIGKILL)]
    assert process.wait() == -signal.SIGKILL
    assert replicas(D0, str(count)).exit_code == 0
    assert len(disks(estate)) == count
    assert definition(estate, D0).props[BALANCE] == "false"
