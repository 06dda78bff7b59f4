"""The task that gives every definition the replica count of its group."""

from __future__ import annotations

from linstor_sandbox import Sandbox

from .rest import Rest


def replicas(rest: Rest, name: str) -> list[str]:
    return [node for node, flags in rest.flags(name).items() if not flags]


def test_more_and_fewer_than_the_group_asks_for(box: Sandbox, rest: Rest) -> None:
    rest.spawn("three", select_filter={"place_count": 3})
    rest.spawn("one", select_filter={"place_count": 1})
    rest.spawn("two")
    box.write("three", b"bytes")
    assert box.run_balance() == (1, 1)
    assert [len(replicas(rest, name)) for name in ("three", "one", "two")] == [2, 2, 2]
    assert box.read("three", 0, 5) == b"bytes"
    assert box.run_balance() == (0, 0)


def test_what_is_in_use_stays(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 3})
    for node in ("node1", "node2", "node3"):
        opened = box.open(node, "vol", "w")
        box.run_balance()
        assert node in replicas(rest, "vol")
        box.close(opened)
        rest.ok("POST", "/v1/resource-definitions/vol/autoplace", {"select_filter": {"place_count": 3}})


def test_a_property_keeps_the_task_away(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 1}, resource_definition_props={"BalanceResourcesEnabled": "false"})
    assert box.run_balance() == (0, 0)


def test_definitions_without_drbd_are_left_alone(box: Sandbox, rest: Rest) -> None:
    rest.group("plain", layer_stack=["STORAGE"])
    rest.spawn("vol", group="plain", select_filter={"place_count": 1})
    assert box.run_balance() == (0, 0)


def test_a_group_that_asks_for_more_is_carried_out_at_once(rest: Rest) -> None:
    rest.spawn("vol")
    rest.ok("PUT", "/v1/resource-groups/group", {"select_filter": {"place_count": 3}})
    assert len(replicas(rest, "vol")) == 3
