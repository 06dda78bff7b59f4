"""Where LINSTOR is asked to put a volume, and what the attributes must not say."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Optional

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un import log
from linstor_un.cluster import placement, volumes
from linstor_un.cluster.codes import NOT_FOUND_RESOURCE_GROUP, Entry
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.placement import Placement
from linstor_un.errors import AlreadyExists, InvalidSetting, NotFound
from linstor_un.naming import is_resource_name
from linstor_un.settings import for_datastore

ORIGIN = "datastore 100 (linstor-images)"


def of(prefix: str = "one", **attributes: str) -> Placement:
    """Return the placement of a datastore with these attributes."""
    return placement.of(for_datastore({"PREFIX": prefix}, attributes, ORIGIN), ORIGIN)


def test_attributes_become_a_group_of_our_own_that_says_the_same() -> None:
    made = of(STORAGE_POOL="data", AUTO_PLACE="2")
    assert made.is_own_group
    assert made.group.startswith("one-data-x2-")
    assert made.select_filter == {"place_count": 2, "storage_pool_list": ["data"], "layer_stack": ["DRBD", "STORAGE"]}
    assert made.properties == {}, "balancing follows the group, which says what was asked"
    assert (made.replica_count, made.layers) == (2, ("DRBD", "STORAGE"))


def test_every_attribute_reaches_the_filter() -> None:
    made = of(
        STORAGE_POOL="data ssd",
        REPLICA_COUNT="3",
        LAYER_LIST="DRBD,LUKS,STORAGE",
        PROVIDERS="LVM_THIN",
        REPLICAS_ON_SAME="rack=1",
        REPLICAS_ON_DIFFERENT="room",
        DO_NOT_PLACE_WITH="one-image-1",
        DO_NOT_PLACE_WITH_REGEX="one-vm-.*",
        DISKLESS_POOL="diskless",
    )
    assert made.select_filter == {
        "place_count": 3,
        "storage_pool_list": ["data", "ssd"],
        "storage_pool_diskless_list": ["diskless"],
        "layer_stack": ["DRBD", "LUKS", "STORAGE"],
        "provider_list": ["LVM_THIN"],
        "replicas_on_same": ["Aux/rack=1"],
        "replicas_on_different": ["Aux/room"],
        "not_place_with_rsc": ["one-image-1"],
        "not_place_with_rsc_regex": "one-vm-.*",
    }


def test_encryption_is_what_is_asked_for() -> None:
    assert of(STORAGE_POOL="data", REPLICA_COUNT="2", ENCRYPTION="yes").layers == ("DRBD", "LUKS", "STORAGE")
    assert of(STORAGE_POOL="data", REPLICA_COUNT="1", ENCRYPTION="yes", LAYER_LIST="STORAGE").layers == (
        "LUKS",
        "STORAGE",
    )
    assert of(RESOURCE_GROUP="fast", ENCRYPTION="yes").select_filter["layer_stack"] == ["DRBD", "LUKS", "STORAGE"]


@pytest.mark.parametrize("where", [{"STORAGE_POOL": "data", "REPLICA_COUNT": "2"}, {"RESOURCE_GROUP": "fast"}])
def test_thin_pools_zero_what_they_give_out_unless_it_is_said_that_they_do_not(where: dict[str, str]) -> None:
    assert of(**where).thin_pool_zero
    assert not of(**where, THIN_POOL_ZERO="no").thin_pool_zero
    assert Placement("fast", None, (), {}).thin_pool_zero


def test_the_same_attributes_share_a_group_and_others_do_not() -> None:
    base = of(STORAGE_POOL="data", REPLICA_COUNT="2")
    assert of(STORAGE_POOL="data", AUTO_PLACE="2", CLONE_MODE="snapshot", BRIDGE_LIST="a").group == base.group
    assert of(STORAGE_POOL="data", REPLICA_COUNT="2", LAYER_LIST="DRBD,STORAGE").group == base.group
    others = [
        of(STORAGE_POOL="data", REPLICA_COUNT="3"),
        of(STORAGE_POOL="data2", REPLICA_COUNT="2"),
        of(STORAGE_POOL="data", REPLICA_COUNT="2", ENCRYPTION="yes"),
        of(STORAGE_POOL="data", REPLICA_COUNT="2", REPLICAS_ON_DIFFERENT="room"),
        of(STORAGE_POOL="data", NODE_LIST="node1 node2"),
        of("two", STORAGE_POOL="data", REPLICA_COUNT="2"),
    ]
    assert len({base.group, *(made.group for made in others)}) == 7


def test_the_next_version_of_the_driver_finds_the_groups_of_this_one() -> None:
    assert of(STORAGE_POOL="data", AUTO_PLACE="2").group == "one-data-x2-4a644215"
    assert of(STORAGE_POOL="fast.nvme_1-a", REPLICA_COUNT="1").group.startswith("one-fast_nvme_1-a-x1-")


@pytest.mark.parametrize("pool", ["data", "x" * 48, "a.b", "0pool", "_"])
def test_the_name_of_a_group_is_one_that_linstor_takes(pool: str) -> None:
    for prefix in ("o", "abcdefghij"):
        assert is_resource_name(of(prefix, STORAGE_POOL=pool, REPLICA_COUNT="32").group)


def test_an_operators_group_is_used_as_it_is() -> None:
    made = of(RESOURCE_GROUP="fast")
    assert (made.group, made.is_own_group, made.replica_count, made.select_filter) == ("fast", False, None, {})
    assert made.properties == {}
    assert made.layers == ()


def test_the_pool_that_linstor_takes_by_itself_may_be_named_beside_a_group() -> None:
    assert of(RESOURCE_GROUP="fast", DISKLESS_POOL="DfltDisklessStorPool").group == "fast"


def test_a_count_beside_a_group_is_kept_from_balancing() -> None:
    assert of(RESOURCE_GROUP="fast", REPLICA_COUNT="3").properties == {"BalanceResourcesEnabled": "false"}
    assert of(RESOURCE_GROUP="fast", NODE_LIST="a b").properties == {"BalanceResourcesEnabled": "false"}


def test_a_list_of_nodes_is_a_count_too() -> None:
    made = of(STORAGE_POOL="data", NODE_LIST="node1 node2 node3")
    assert made.replica_count == made.select_filter["place_count"] == 3
    assert made.select_filter["node_name_list"] == ["node1", "node2", "node3"]
    assert of(STORAGE_POOL="data", NODE_LIST="node1 node2", REPLICA_COUNT="2").replica_count == 2


def test_a_placement_on_nodes_keeps_everything_else() -> None:
    made = of(STORAGE_POOL="data", REPLICA_COUNT="3")
    moved = made.on(["node3", "node1"])
    assert moved.select_filter == {**made.select_filter, "node_name_list": ["node3", "node1"], "place_count": 2}
    assert moved.group == made.group
    assert moved.otherwise == made
    assert "node_name_list" not in made.select_filter


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "STORAGE_POOL is missing from .*: set it, or set RESOURCE_GROUP"),
        ({"REPLICA_COUNT": "2"}, "STORAGE_POOL is missing"),
        ({"STORAGE_POOL": "data"}, "REPLICA_COUNT is missing from .*: set it, or set NODE_LIST or RESOURCE_GROUP"),
        (
            {"STORAGE_POOL": "data", "NODE_LIST": "a b c", "REPLICA_COUNT": "2"},
            'REPLICA_COUNT="2" of .* contradicts NODE_LIST="a b c".* its 3 nodes: remove one of them',
        ),
        ({"STORAGE_POOL": "data", "NODE_LIST": "a A"}, 'NODE_LIST="a A" of .* names a node twice'),
        (
            {"STORAGE_POOL": "data", "REPLICA_COUNT": "2", "LAYER_LIST": "STORAGE"},
            'LAYER_LIST="STORAGE" of .* has no DRBD and cannot hold 2 replicas: set REPLICA_COUNT to 1, or add DRBD',
        ),
        (
            {"STORAGE_POOL": "data", "NODE_LIST": "a b", "LAYER_LIST": "LUKS,STORAGE"},
            "no DRBD and cannot hold 2 replicas",
        ),
        ({"RESOURCE_GROUP": "fast", "NODE_LIST": "a b", "REPLICA_COUNT": "3"}, "contradicts NODE_LIST"),
        (
            {"RESOURCE_GROUP": "fast", "REPLICA_COUNT": "2", "LAYER_LIST": "STORAGE"},
            "no DRBD and cannot hold 2 replicas",
        ),
        (
            {"RESOURCE_GROUP": "fast", "DISKLESS_POOL": "clients"},
            'DISKLESS_POOL="clients" of .* has no effect beside RESOURCE_GROUP="fast": give that group the pool',
        ),
    ],
)
def test_what_says_too_little_or_contradicts_itself_is_refused(attributes: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words) as refusal:
        of(**attributes)
    assert ORIGIN in str(refusal.value)


def test_one_replica_needs_no_drbd() -> None:
    made = of(STORAGE_POOL="data", REPLICA_COUNT="1", LAYER_LIST="STORAGE")
    assert made.layers == ("STORAGE",)
    assert of(RESOURCE_GROUP="fast", LAYER_LIST="STORAGE").layers == ("STORAGE",), "the group says how many"


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "box", pools=(Pool("data", "LVM_THIN", 1000),)) as box:
        yield box
        assert box.exceptions == []


@pytest.fixture
def gateway(sandbox: Sandbox) -> Iterator[Gateway]:
    log.start("test/placement")
    made = Gateway(for_datastore({}, {"LS_CONTROLLERS": sandbox.uri}, ORIGIN))
    yield made
    made.close()


def spawn(gateway: Gateway, made: Placement, name: str = "one-image-1") -> list[Entry]:
    body = {"resource_definition_name": name, "volume_sizes": [4096]}
    return placement.in_group(gateway, made, partial(gateway.spawn, made.group, body))


def groups(gateway: Gateway) -> dict[str, dict[str, object]]:
    return {group["name"]: group for group in gateway.get("Looking for groups", ("resource-groups",))}


def told() -> list[str]:
    return [line for line in log.lines() if not line.startswith("DEBUG")]


def test_a_group_of_our_own_is_made_when_it_is_first_needed(gateway: Gateway) -> None:
    made = of(STORAGE_POOL="data", REPLICA_COUNT="2")
    for name in ("one-image-1", "one-image-2"):
        spawn(gateway, made, name)
    found = groups(gateway)[made.group]
    assert found["description"] == (
        'Made by linstor_un for {"layer_stack": ["DRBD", "STORAGE"], "place_count": 2, "storage_pool_list": ["data"]}'
    )
    assert found["select_filter"] == {**made.select_filter, "storage_pool": "data"}
    assert told() == [f"INFO: test/placement: made resource group {made.group}"]


def test_the_description_of_a_group_is_no_longer_than_is_read(gateway: Gateway) -> None:
    made = of(STORAGE_POOL="data", REPLICA_COUNT="2", DO_NOT_PLACE_WITH=" ".join(f"volume-{n}" for n in range(50)))
    spawn(gateway, made)
    assert len(str(groups(gateway)[made.group]["description"])) == 200


def test_that_another_action_has_just_made_the_group_is_as_good(gateway: Gateway) -> None:
    made = of(STORAGE_POOL="data", REPLICA_COUNT="2")
    spawn(gateway, made)
    log.start("test/placement")
    answers = [missing(NOT_FOUND_RESOURCE_GROUP), None]
    assert placement.in_group(gateway, made, partial(answer, answers)) == []
    assert answers == []
    assert told() == []


def missing(code: int) -> NotFound:
    error = NotFound("LINSTOR does not find it")
    error.code = code
    return error


def answer(answers: list[Optional[Exception]]) -> list[Entry]:
    """Answer a request as it is meant to be answered next."""
    error = answers.pop(0)
    if error is not None:
        raise error
    return []


def test_what_else_is_missing_is_not_made(gateway: Gateway) -> None:
    error = missing(NOT_FOUND_RESOURCE_GROUP + 1)
    with pytest.raises(NotFound) as raised:
        placement.in_group(gateway, of(STORAGE_POOL="data", REPLICA_COUNT="2"), partial(answer, [error]))
    assert raised.value is error
    assert list(groups(gateway)) == ["DfltRscGrp"]


def test_a_group_that_cannot_be_made_is_an_error(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.faults.fail("POST /v1/resource-groups$", 501)
    with pytest.raises(AlreadyExists, match="injected failure"):
        spawn(gateway, of(STORAGE_POOL="data", REPLICA_COUNT="2"))


def test_a_group_of_the_operators_is_never_made(gateway: Gateway) -> None:
    with pytest.raises(NotFound) as raised:
        spawn(gateway, of(RESOURCE_GROUP="fast", REPLICA_COUNT="2"))
    assert str(raised.value) == (
        "LINSTOR has no resource group fast: create it with `linstor resource-group create fast`, or correct "
        "RESOURCE_GROUP"
    )


@pytest.mark.parametrize("attributes", [{"STORAGE_POOL": "data", "REPLICA_COUNT": "2"}, {"RESOURCE_GROUP": "group"}])
def test_a_volume_that_is_there_to_be_read_once_has_one_replica_and_keeps_it(attributes: dict[str, str]) -> None:
    usual = of(**attributes)
    once = usual.with_one_replica()
    assert once.replica_count == 1 and once.group == usual.group
    assert once.properties == {"BalanceResourcesEnabled": "false"} and usual.properties == {}


def test_the_nodes_that_one_volume_wishes_are_no_others_fate(tmp_path: Path) -> None:
    """The group that its first volume makes says what the datastore asks for, or none had a tie-breaker elsewhere."""
    with Sandbox(tmp_path, ("n1", "n2", "n3", "n4"), (Pool("data", "LVM_THIN", 4096),)) as sandbox:
        log.start("test")
        attributes = {"STORAGE_POOL": "data", "REPLICA_COUNT": "2", "LS_CONTROLLERS": sandbox.uri}
        settings = for_datastore({}, attributes, ORIGIN)
        gateway, wanted = Gateway(settings), placement.of(settings, ORIGIN)
        assert volumes.create(gateway, "vol", 8 << 10, wanted.on(["n3", "n4"]), {}).nodes == ("n3", "n4")
        gateway.close()
        state = sandbox.snapshot_of_state()
        group = state["resource_groups"][wanted.group]["select_filter"]
        assert {key: group[key] for key in wanted.select_filter} == wanted.select_filter
        assert "node_name_list" not in group
        assert sorted(state["resource_definitions"]["vol"]["resources"])[1:] == ["n3", "n4"], "and a tie-breaker"
