"""What storage pools can still store with the asked replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_sandbox import Pool, Sandbox
from linstor_un import log
from linstor_un.cluster import placement, pools
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.placement import Placement
from linstor_un.cluster.pools import storable_kib
from linstor_un.settings import Settings, for_datastore


def stored_one_by_one(sizes: Sequence[int], replica_count: int) -> int:
    """Store unit after unit, each on the nodes with the most left, until one finds no place."""
    left = sorted(sizes)
    stored = 0
    while len(left) >= replica_count and left[-replica_count] > 0:
        for number in range(1, replica_count + 1):
            left[-number] -= 1
        left.sort()
        stored += 1
    return stored


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 5))
def test_as_much_is_storable_as_can_really_be_stored(sizes: list[int], replica_count: int) -> None:
    assert storable_kib(sizes, replica_count) == stored_one_by_one(sizes, replica_count)


def test_small_cases_are_all_right() -> None:
    for count in (1, 2, 3):
        for sizes in product(range(6), repeat=3):
            assert storable_kib(sizes, count) == stored_one_by_one(sizes, count), (sizes, count)


@given(st.lists(st.integers(0, 1 << 60), min_size=1, max_size=40), st.integers(1, 32))
def test_more_room_never_stores_less_and_more_replicas_never_more(sizes: list[int], replica_count: int) -> None:
    now = storable_kib(sizes, replica_count)
    assert 0 <= now <= sum(sizes) // replica_count
    assert storable_kib([*sizes, 1 << 30], replica_count) >= now
    assert storable_kib([sizes[0] + 1000, *sizes[1:]], replica_count) >= now
    assert storable_kib(sizes, replica_count + 1) <= now


@pytest.mark.parametrize(
    ("sizes", "replica_count", "storable"),
    [
        ([], 1, 0),
        ([10], 2, 0),
        ([10], 1, 10),
        ([10, 10, 10], 2, 15),
        ([100, 10, 10], 2, 20),
        ([100, 0, 0], 2, 0),
        ([10, 10, 10], 3, 10),
        ([5, 5], 0, 0),
        ([5, 5], -1, 0),
    ],
)
def test_known_cases(sizes: list[int], replica_count: int, storable: int) -> None:
    assert storable_kib(sizes, replica_count) == storable


MIB = 1024


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return a cluster whose nodes have pools of different sizes."""
    root: Path = tmp_path_factory.mktemp("pools")
    made = (
        Pool("data", "LVM_THIN", 1000, ("node1", "node2")),
        Pool("data", "LVM_THIN", 4000, ("node3",)),
        Pool("slow", "LVM", 3000, ("node2", "node3")),
    )
    with Sandbox(root, nodes=("node1", "node2", "node3", "node4"), pools=made) as sandbox:
        yield sandbox
        assert sandbox.exceptions == []


@pytest.fixture(autouse=True)
def gateway(sandbox: Sandbox) -> Iterator[Gateway]:
    """Return the way to the cluster."""
    log.start("test/pools")
    made = Gateway(Settings(controllers=(sandbox.uri,)))
    yield made
    made.close()


def placed(**attributes: str) -> Placement:
    """Return the placement of a datastore with these attributes."""
    return placement.of(for_datastore({}, attributes, "datastore 1"), "datastore 1")


def capacity(gateway: Gateway, **attributes: str) -> tuple[float, float]:
    """Return what a datastore with these attributes can store, free and in all, in MiB."""
    found = pools.capacity(gateway, placed(**attributes))
    return found.free_kib / MIB, found.total_kib / MIB


def test_pools_are_read_and_diskless_ones_are_none(gateway: Gateway) -> None:
    found = {(pool.node, pool.name): pool for pool in pools.of(gateway)}
    assert set(found) == {("node1", "data"), ("node2", "data"), ("node3", "data"), ("node2", "slow"), ("node3", "slow")}
    assert found["node1", "data"].total_kib == 1000 * MIB
    assert found["node1", "data"].oversubscription == 20.0
    assert found["node2", "slow"].oversubscription == 1.0
    assert found["node2", "slow"].provider == "LVM"


def test_pools_are_asked_for_by_name_and_node(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.clear_requests()
    found = pools.of(gateway, ["slow", "data"], ["node2"])
    assert [request.path for request in sandbox.requests].count("/v1/view/storage-pools") == 1
    assert {(pool.node, pool.name) for pool in found} == {("node2", "slow"), ("node2", "data")}


@pytest.mark.parametrize(
    ("attributes", "free"),
    [
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "1"}, 6000),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "2"}, 2000),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "3"}, 1000),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "4"}, 0),
        ({"STORAGE_POOL": "slow", "REPLICA_COUNT": "2"}, 3000),
        ({"STORAGE_POOL": "data slow", "REPLICA_COUNT": "2"}, 5000),
        ({"STORAGE_POOL": "data slow", "REPLICA_COUNT": "2", "PROVIDERS": "LVM"}, 3000),
        ({"STORAGE_POOL": "data", "NODE_LIST": "node1 node3"}, 1000),
        ({"STORAGE_POOL": "none", "REPLICA_COUNT": "1"}, 0),
    ],
)
def test_capacity_is_what_fits_with_the_asked_replicas(gateway: Gateway, attributes: dict[str, str], free: int) -> None:
    assert capacity(gateway, **attributes) == (free, free)


def test_an_offline_node_does_not_turn_capacity_to_zero(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.set_node("node1", online=False)
    try:
        assert capacity(gateway, STORAGE_POOL="data", REPLICA_COUNT="2") == (1000, 1000)
        assert capacity(gateway, STORAGE_POOL="data", REPLICA_COUNT="3") == (0, 0)
        assert any("pool data on node1 does not answer" in line for line in log.lines())
    finally:
        sandbox.set_node("node1", online=True)


def test_what_is_taken_is_not_free_and_still_part_of_the_whole(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.fill_pool("node3", "data", free_mib=500)
    try:
        free, total = capacity(gateway, STORAGE_POOL="data", REPLICA_COUNT="2")
        assert (free, total) == (1250, 2000)
    finally:
        sandbox.fill_pool("node3", "data", free_mib=4000)


def test_a_resource_groups_own_filter_holds_where_the_datastore_says_nothing(gateway: Gateway) -> None:
    body = {"name": "fast", "select_filter": {"place_count": 2, "storage_pool_list": ["slow"]}}
    gateway.create_resource_group(body)
    assert capacity(gateway, RESOURCE_GROUP="fast") == (3000, 3000)
    assert capacity(gateway, RESOURCE_GROUP="fast", REPLICA_COUNT="1") == (6000, 6000)
    assert capacity(gateway, RESOURCE_GROUP="fast", STORAGE_POOL="data") == (2000, 2000)


@pytest.mark.parametrize(
    ("attributes", "node", "nodes"),
    [
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "2"}, "node1", ["node1", "node3"]),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "2"}, "NODE1", ["node1", "node3"]),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "1"}, "node2", ["node2"]),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "2"}, "node4", None),
        ({"STORAGE_POOL": "data", "REPLICA_COUNT": "4"}, "node1", None),
        ({"STORAGE_POOL": "slow", "REPLICA_COUNT": "2"}, "node1", None),
        ({"STORAGE_POOL": "data", "NODE_LIST": "node2 node3"}, "node1", None),
    ],
)
def test_a_replica_near_the_vm_is_a_wish_that_changes_no_count(
    gateway: Gateway, attributes: dict[str, str], node: str, nodes: Optional[list[str]]
) -> None:
    wanted = placed(**attributes)
    near = pools.near(gateway, wanted, node, 10 * MIB)
    if nodes is None:
        assert near == wanted
    else:
        assert near.select_filter["node_name_list"] == nodes
        assert near.select_filter["place_count"] == len(nodes) == wanted.replica_count


def test_a_node_without_room_is_not_wished_for(gateway: Gateway) -> None:
    wanted = placed(STORAGE_POOL="data", REPLICA_COUNT="1")
    assert pools.near(gateway, wanted, "node1", 2000 * MIB) == wanted
