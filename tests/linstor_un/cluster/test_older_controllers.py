"""Controllers of older releases: what they do not know is not sent to them, and the older way comes to the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un.cluster import placement, replicas, snapshots, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.placement import Placement
from linstor_un.errors import AlreadyExists, ControllerFailed, NoRoom
from linstor_un.settings import for_datastore
from tests.conftest import World

NODES = ("n1", "n2", "n3", "n4")
AUTO = "DrbdOptions/auto-add-quorum-tiebreaker"


@contextmanager
def cluster(folder: Path, version: str) -> Iterator[tuple[Sandbox, Gateway, Placement]]:
    """A controller of a version, and a placement with two replicas of volumes."""
    with Sandbox(folder, NODES, (Pool("data", "LVM_THIN", 4096, NODES[:3]),), version) as sandbox:
        attributes = {"STORAGE_POOL": "data", "REPLICA_COUNT": "2", "LS_CONTROLLERS": sandbox.uri}
        settings = for_datastore({"FAILOVER_TIMEOUT": "1"}, attributes, "the datastore")
        gateway = Gateway(settings)
        yield sandbox, gateway, placement.of(settings, "the datastore")
        gateway.close()
        assert sandbox.exceptions == []


def flags(sandbox: Sandbox, name: str = "vol") -> dict[str, set[str]]:
    """The flags of each resource by its node."""
    found = sandbox.snapshot_of_state()["resource_definitions"][name]["resources"]
    return {node: set(item["flags"]) for node, item in found.items()}


def tie_breaker(sandbox: Sandbox) -> str:
    """The node that is the volume's tie-breaker."""
    return next(node for node, found in flags(sandbox).items() if "TIE_BREAKER" in found)


def props(sandbox: Sandbox) -> dict[str, str]:
    """The properties of the volume."""
    return dict(sandbox.snapshot_of_state()["resource_definitions"]["vol"]["props"])


@pytest.mark.parametrize("version", ["1.13.0", "1.20.0", "1.21.0", "1.22.0"])
def test_a_volume_is_made_with_its_properties_where_the_answer_says_or_a_look(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (sandbox, gateway, wanted):
        home = volumes.create(gateway, "vol", 8 << 10, wanted, {"Aux/one/VM_ID": "7"})
        assert len(home.nodes) == 2 and home.providers == {"LVM_THIN"}
        assert set(home.nodes) == {node for node, found in flags(sandbox).items() if "DISKLESS" not in found}
        assert props(sandbox)["Aux/one/VM_ID"] == "7"
        with pytest.raises(AlreadyExists):
            volumes.create(gateway, "vol", 8 << 10, wanted, {})
        assert volumes.find(gateway, "vol") is not None


def test_a_volume_that_finds_no_place_leaves_nothing_behind(tmp_path: Path) -> None:
    with cluster(tmp_path, "1.13.0") as (sandbox, gateway, wanted):
        with pytest.raises(NoRoom, match="LINSTOR finds no place for 2 replicas of vol"):
            volumes.create(gateway, "vol", 1 << 30, wanted, {})
        assert sandbox.snapshot_of_state()["resource_definitions"] == {}


@pytest.mark.parametrize("version", ["1.20.0", "1.21.0"])
def test_the_property_against_balancing_goes_to_those_that_balance(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (sandbox, gateway, wanted):
        volumes.create(gateway, "vol", 8 << 10, wanted.with_one_replica().on(["n1"]), {})
        assert ("BalanceResourcesEnabled" in props(sandbox)) is (version == "1.21.0")


@pytest.mark.parametrize("version", ["1.18.0", "1.19.0"])
def test_what_is_attached_is_no_tie_breaker_any_more(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (sandbox, gateway, wanted):
        volumes.create(gateway, "vol", 8 << 10, wanted.on(["n1", "n2"]), {})
        node = tie_breaker(sandbox)
        replicas.attach(gateway, "vol", node)
        assert flags(sandbox)[node] == {"DISKLESS", "DRBD_DISKLESS"}
        # Or LINSTOR would take it away here.
        replicas.attach(gateway, "vol", ({"n3", "n4"} - {node}).pop())
        assert set(flags(sandbox)) == set(NODES)


@pytest.mark.parametrize("version", ["1.21.0", "1.22.0"])
def test_a_volume_is_attached_beside_a_node_that_is_offline(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (sandbox, gateway, wanted):
        volumes.create(gateway, "vol", 8 << 10, wanted.on(["n1", "n2"]), {})
        sandbox.set_node("n2", online=False)
        assert replicas.attach(gateway, "vol", "n4")
        assert "n4" in flags(sandbox)


@pytest.mark.parametrize("version", ["1.22.0", "1.23.0"])
def test_a_tie_breaker_outlives_a_deletion_that_comes_too_late(tmp_path: Path, version: str) -> None:
    """What was attached when somebody looked has become the tie-breaker before the deletion."""
    with cluster(tmp_path, version) as (sandbox, gateway, wanted):
        volumes.create(gateway, "vol", 8 << 10, wanted.on(["n1", "n2"]), {})
        gateway.delete_resource("vol", tie_breaker(sandbox))
        assert tie_breaker(sandbox)
        assert AUTO not in props(sandbox)
        assert props(sandbox)["DrbdOptions/Resource/quorum"] == "majority"


@pytest.mark.parametrize("version", ["1.17.0", "1.18.0"])
def test_snapshots_are_taken_of_all_or_of_none(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (sandbox, gateway, wanted):
        for name in ("vol", "other"):
            volumes.create(gateway, name, 8 << 10, wanted, {})
        assert snapshots.take_together(gateway, {"vol": "snap", "other": "snap"})
        assert not snapshots.take_together(gateway, {"vol": "snap", "other": "snap"}), "they are there"
        assert [len(snapshots.of(gateway, name)) for name in ("vol", "other")] == [1, 1]
        for node, found in flags(sandbox, "other").items():
            if "DISKLESS" not in found:
                sandbox.set_disk_state("other", node, "Inconsistent")
        with pytest.raises(Exception, match="other"):
            snapshots.take_together(gateway, {"vol": "later", "other": "later"})
        assert snapshots.find(gateway, "vol", "later") is None


def test_what_is_older_is_refused_by_a_sentence(world: World) -> None:
    world.sandbox.cluster.version = "1.12.0"
    attributes = {"LS_CONTROLLERS": world.sandbox.uri}
    gateway = Gateway(for_datastore({"FAILOVER_TIMEOUT": "1"}, attributes, "the datastore"))
    pattern = r"LINSTOR \S+ at \S+ \(REST 1\.12\.0\) is too old for this driver: upgrade it to 1\.18 or newer"
    with pytest.raises(ControllerFailed, match=pattern):
        gateway.connect()
