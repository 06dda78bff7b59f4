"""What a system datastore can still store: the same numbers as an image datastore with the same placement."""

from __future__ import annotations

from linstor_sandbox.opennebula import ActionFailed
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import sentence


def test_capacity_counts_the_asked_replicas(world: World) -> None:
    world.cloud.monitor(world.system)
    assert (world.system.total_mb, world.system.free_mb, world.system.used_mb) == (30720, 30720, 0)
    world.cloud.instantiate("DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=64]", "node1", world.system)
    world.cloud.monitor(world.system)
    assert world.system.total_mb == 30720
    assert 0 < world.system.used_mb == world.system.total_mb - world.system.free_mb
    three = SYSTEM_TEMPLATE.replace("linstor-system", "three").replace('AUTO_PLACE="2"', 'AUTO_PLACE="3"')
    other = world.cloud.create_datastore(three)
    world.cloud.monitor(other)
    assert other.total_mb == 20480


def test_an_offline_node_takes_its_part_and_not_all(world: World) -> None:
    world.sandbox.set_node("node3", online=False)
    call = world.cloud.monitor(world.system)
    assert world.system.total_mb == 20480
    assert call.stdout.count("\n") == 3


def test_a_controller_that_is_away_is_a_sentence_and_oned_keeps_its_numbers(world: World) -> None:
    world.cloud.monitor(world.system)
    world.sandbox.stop_controller()
    try:
        world.cloud.monitor(world.system)
    except ActionFailed as failed:
        assert "No LINSTOR controller answers" in sentence(failed.call)
    else:
        raise AssertionError("it answered")
    assert world.system.free_mb == 30720
