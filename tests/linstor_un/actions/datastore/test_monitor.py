"""datastore/monitor: what can still be stored with the asked replicas, in three lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import act, add_datastore, refused, request, succeeded

MakeWorld = Callable[..., World]
UNEQUAL = (
    Pool("data", "LVM_THIN", 10240, ("node1",)),
    Pool("data", "LVM_THIN", 20480, ("node2",)),
    Pool("data", "LVM_THIN", 40960, ("node3",)),
    Pool("other", "LVM", 99999, ("node1", "node2")),
)


def monitor(world: World, datastore: Datastore) -> Call:
    return act(world, "monitor", datastore, "", datastore.identifier)


def lines(total: int, free: int) -> str:
    return f"USED_MB={total - free}\nTOTAL_MB={total}\nFREE_MB={free}\n"


def storable(sizes: Sequence[int], count: int) -> int:
    """How much fits when each byte needs `count` of these nodes, found by trying."""
    total = 0
    for step in (1 << bit for bit in range(20, -1, -1)):
        if sum(min(size, total + step) for size in sizes) >= count * (total + step):
            total += step
    return total


@pytest.mark.parametrize("count", [1, 2, 3])
def test_numbers_are_what_fits_with_its_replicas_on_unequal_pools(count: int, make_world: MakeWorld) -> None:
    world = make_world(pools=UNEQUAL)
    datastore = add_datastore(world, "unequal", f'STORAGE_POOL="data" REPLICA_COUNT="{count}"')
    total = storable([10240, 20480, 40960], count)
    assert total == {1: 71680, 2: 30720, 3: 10240}[count]
    succeeded(monitor(world, datastore), lines(total, total))
    world.sandbox.fill_pool("node1", "data", 1000)
    world.sandbox.fill_pool("node3", "data", 9000)
    succeeded(monitor(world, datastore), lines(total, storable([1000, 20480, 9000], count)))
    world.sandbox.set_node("node2", online=False)
    total = storable([10240, 40960], count)
    if count < 3:
        warning = "pool data on node2 does not answer and is not counted"
        succeeded(monitor(world, datastore), lines(total, storable([1000, 9000], count)), warning)
    else:
        refused(monitor(world, datastore), "Too few storage pools answer", "REPLICA_COUNT")


def test_what_images_take_is_used(make_world: MakeWorld) -> None:
    world = make_world(pools=(Pool("thick", "LVM", 10240),))
    datastore = add_datastore(world, "thick", 'STORAGE_POOL="thick" REPLICA_COUNT="3"')
    world.cloud.create_datablock(datastore, 1000)
    call = monitor(world, datastore)
    # DRBD's own metadata and whole extents come on top.
    pools = request(world, "GET", "/v1/view/storage-pools?storage_pools=thick")
    free = min(pool["free_capacity"] for pool in pools) // 1024
    assert 9200 < free < 9240
    succeeded(call, lines(10240, free))


def test_all_pools_of_the_datastore_count_and_none_else(make_world: MakeWorld) -> None:
    world = make_world(pools=UNEQUAL)
    datastore = add_datastore(world, "both", 'STORAGE_POOL="data other" REPLICA_COUNT="2"')
    total = storable([10240 + 99999, 20480 + 99999, 40960], 2)
    succeeded(monitor(world, datastore), lines(total, total))
    pinned = add_datastore(world, "pinned", 'STORAGE_POOL="data" NODE_LIST="node1 node2"')
    succeeded(monitor(world, pinned), lines(10240, 10240))
    thick_only = add_datastore(world, "kinds", 'STORAGE_POOL="data other" PROVIDERS="LVM" REPLICA_COUNT="1"')
    succeeded(monitor(world, thick_only), lines(2 * 99999, 2 * 99999))


@pytest.mark.parametrize("own", ["", 'REPLICA_COUNT="1"', 'STORAGE_POOL="other"'])
def test_a_resource_group_says_the_same_as_attributes_and_attributes_say_more(own: str, make_world: MakeWorld) -> None:
    world = make_world(pools=UNEQUAL)
    chosen = {"place_count": 3, "storage_pool_list": ["data"]}
    request(world, "POST", "/v1/resource-groups", {"name": "opennebula", "select_filter": chosen})
    datastore = add_datastore(world, "group", f'RESOURCE_GROUP="opennebula" {own}')
    if "STORAGE_POOL" in own:
        refused(monitor(world, datastore), "Too few storage pools answer")
    else:
        total = storable([10240, 20480, 40960], 1 if own else 3)
        succeeded(monitor(world, datastore), lines(total, total))


def test_a_resource_group_without_a_pool_counts_all_but_diskless_ones(make_world: MakeWorld) -> None:
    world = make_world(pools=UNEQUAL)
    request(world, "POST", "/v1/resource-groups", {"name": "anywhere", "select_filter": {"place_count": 2}})
    datastore = add_datastore(world, "anywhere", 'RESOURCE_GROUP="anywhere"')
    total = storable([10240 + 99999, 20480 + 99999, 40960], 2)
    succeeded(monitor(world, datastore), lines(total, total))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('STORAGE_POOL="nowhere" REPLICA_COUNT="1"', "Too few storage pools answer for the replicas of datastore"),
        ('STORAGE_POOL="data" REPLICA_COUNT="4"', "Too few storage pools answer for the replicas of datastore"),
        ('STORAGE_POOL="DfltDisklessStorPool" REPLICA_COUNT="1"', "Too few storage pools answer"),
        ('RESOURCE_GROUP="nowhere"', "nowhere"),
        ('REPLICA_COUNT="1"', "STORAGE_POOL is missing from datastore"),
        ('STORAGE_POOL="data"', "REPLICA_COUNT is missing from datastore"),
    ],
)
def test_no_capacity_is_an_error_and_not_zero(text: str, reason: str, world: World) -> None:
    refused(monitor(world, add_datastore(world, "wrong", text)), reason)


def test_no_capacity_while_all_nodes_are_away_is_an_error(world: World) -> None:
    for node in world.cloud.hosts:
        world.sandbox.set_node(node, online=False)
    refused(monitor(world, world.images), "Too few storage pools answer")


def test_oned_reads_the_numbers(world: World) -> None:
    call = world.cloud.monitor(world.images)
    assert (world.images.total_mb, world.images.free_mb, world.images.used_mb) == (30720, 30720, 0)
    assert call.counts == {"rest": 2, "ssh": 0}
