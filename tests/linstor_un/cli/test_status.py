"""status: what still fits, what is where and whose it is, as oned and LINSTOR have it."""

from __future__ import annotations

import csv
import io
import json
import time
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result

from linstor_sandbox.seeding import take
from linstor_un.cli import status, verbs
from tests.linstor_un.cli.clouds import GROUP, MIB, Estate
from tests.linstor_un.cli.planted import D0, know_snapshot, open_volume, outdated, snapshot


def run(*arguments: str) -> Result:
    return CliRunner().invoke(status.command, list(arguments), catch_exceptions=False)


def rows(*arguments: str) -> dict[str, list[dict[str, Any]]]:
    return cast(dict[str, list[dict[str, Any]]], json.loads(run("--json", *arguments).output))


def one(section: str, name: str, *arguments: str) -> dict[str, Any]:
    [found] = [row for row in rows(section, *arguments)[section] if name in list(row.values())[:2]]
    return found


def test_everything_for_people(estate: Estate) -> None:
    lines = run().output.splitlines()
    heads = [line.split()[0] for line in lines if line.isupper() or line in ("Datastores", "Nodes", "Volumes")]
    assert heads == ["Datastores", "ID", "Nodes", "NODE", "Volumes", "VOLUME"]
    [line] = [line for line in lines if line.startswith(D0)]
    assert line.split()[:6] == [D0, "disk", "0", "of", "VM", "0"]
    assert line.endswith("node1 node2 [node3]  up to date          0        100")


def test_what_still_fits_counts_the_replicas(estate: Estate) -> None:
    for node in ("node1", "node2", "node3", "node4"):
        estate.sandbox.fill_pool(node, "data", free_mib=10240)
    found = one("datastores", "linstor-system")
    assert (found["fits_gib"], found["replicas"], found["placement"], found["clones"]) == (20.0, 2, "data", "snapshot")
    # Four clones, a volatile disk and the memory of a VM, whose size oned does not know.
    assert (found["volumes"], found["given_gib"]) == (6, round(5 * MIB / 1024, 2))
    estate.sandbox.fill_pool("node1", "data", free_mib=1 << 20)


def test_a_datastore_that_makes_no_sense_says_so(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(estate.system.attributes, "STORAGE_POOL")
    found = one("datastores", "linstor-system")
    assert found["fits_gib"] is None and "STORAGE_POOL" in found["placement"]


def test_nodes_with_their_pools(estate: Estate) -> None:
    open_volume(estate, D0, "node1")
    found = one("nodes", "node1")
    assert (found["state"], found["pool"], found["kind"], found["vms"]) == ("ONLINE", "data", "LVM_THIN", 1)
    assert (found["primary"], found["attached"]) == (1, 1), "disk 0 of VM 0, and image 1"
    estate.sandbox.set_node("node4", online=False)
    assert one("nodes", "node4")["state"] == "OFFLINE"


def test_who_is_primary_and_what_is_not_up_to_date(estate: Estate) -> None:
    open_volume(estate, D0, "node1")
    outdated(estate, "one-vm-2-disk-0", 1)
    estate.sandbox.cluster.touch()
    assert one("volumes", D0)["places"] == "node1* node2 [node3]"
    assert one("volumes", "one-vm-2-disk-0")["state"] == "1 of 2 up to date"


def test_what_is_syncing(estate: Estate) -> None:
    assert rows("volumes", "--syncing")["volumes"] == []
    estate.sandbox.set_disk_state(D0, "node2", "Inconsistent")
    [found] = rows("volumes", "--syncing")["volumes"]
    assert found["volume"] == D0 and found["state"].startswith("syncing")


@pytest.mark.parametrize(
    ("arguments", "volumes"),
    [
        (("--vm", "0"), {D0, "one-image-1"}),
        (("--image", "0"), {"one-image-0"}),
        (("--node", "node4", "--vm", "3"), {"one-vm-3-disk-0", "one-vm-3-checkpoint"}),
        (("--node", "NODE4", "--vm", "0"), set()),
        (("--datastore", "101"), {"one-image-0", "one-image-1", "one-image-2"}),
    ],
)
def test_filters(estate: Estate, arguments: tuple[str, ...], volumes: set[str]) -> None:
    assert {row["volume"] for row in rows("volumes", *arguments)["volumes"]} == volumes


def test_snapshots_by_what_they_are_for(estate: Estate) -> None:
    know_snapshot(estate, 2)
    for name in ("snapshot-2", "snapshot-9", "save-as-one-image-7", "backup-0-3-1795000000-64", "restore-0"):
        snapshot(estate, D0, name)
    take(estate.sandbox, estate.sandbox.definition("one-image-2"), "daily").flags.clear()
    found = {row["snapshot"]: row["what"] for row in rows("snapshots")["snapshots"]}
    assert found == {
        "snapshot-2": "mine",
        "snapshot-9": "not OpenNebula's",
        "save-as-one-image-7": "being saved as image 7",
        "backup-0-3-1795000000-64": "backup 3 of VM 0",
        "restore-0": "before a restore of VM 0",
        "linstor_un-base": "VMs' disks are made of it",
        "daily": "not OpenNebula's",
    }


def test_one_section_as_csv(estate: Estate) -> None:
    assert run("--csv").exit_code == 2
    found = list(csv.DictReader(io.StringIO(run("--csv", "nodes").output)))
    assert [row["node"] for row in found] == ["node1", "node2", "node3", "node4"]


def test_it_is_shown_again_until_it_is_stopped(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        estate.sandbox.cluster.definitions.pop(D0)
        estate.sandbox.cluster.touch()
        if len(waited) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    result = run("volumes", "--watch", "5", "--vm", "0")
    assert (waited, result.exit_code) == ([5.0, 5.0], 0)
    assert result.output.count(D0) == 1 and result.output.count("one-image-1") == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--node node9", "LINSTOR has no node node9: there are node1, node2, node3, node4"),
        (
            "--datastore 1",
            "Datastore 1 is not one of linstor_un: there are datastore 100 (linstor-system), datastore 101",
        ),
        ("--vm 99", "OpenNebula has no VM 99, or it is done: see `onevm list`"),
        ("--image 99", "There is no image 99 in a datastore of linstor_un: see `oneimage list`"),
    ],
)
@pytest.mark.parametrize("verb", ["status", "map"])
def test_what_is_asked_for_and_is_not_there_is_said(estate: Estate, verb: str, words: str, says: str) -> None:
    result = CliRunner().invoke(verbs.command, [verb, *words.split()])
    assert (result.exit_code, says in result.output) == (1, True), result.output


def test_a_section_without_anything_says_so(estate: Estate) -> None:
    assert run("volumes", "--syncing").output == "No volumes to show.\n"
    assert (run("volumes", "--syncing", "--quiet").output, rows("volumes", "--syncing")) == ("", {"volumes": []})


def test_a_resource_group_says_how_many_replicas(estate: Estate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(estate.system.attributes, "STORAGE_POOL")
    monkeypatch.delitem(estate.system.attributes, "AUTO_PLACE")
    monkeypatch.setitem(estate.system.attributes, "RESOURCE_GROUP", GROUP)
    found = one("datastores", "linstor-system")
    assert (found["replicas"], found["placement"]) == (2, GROUP)
