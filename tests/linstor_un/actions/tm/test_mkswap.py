"""A swap disk."""

from __future__ import annotations

from collections.abc import Callable

from linstor_sandbox import OLD_DATA, Pool
from tests.conftest import World
from tests.linstor_un.scenes import MIB, attached, link, own, replicas, run, sentence, stranger, volumes


def test_a_swap_disk_is_swap_on_its_host(world: World) -> None:
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=16]", "node1", world.system)
    assert world.sandbox.read(own(vm), 4086, 10) == b"SWAPSPACE2"
    assert world.sandbox.device_size(own(vm)) >= 16 * MIB
    assert link(world, vm, 0) == own(vm)
    assert len(replicas(world, own(vm))) == 2


def test_every_host_gets_its_swap_wherever_the_replicas_are(world: World) -> None:
    machines = [world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", node, world.system) for node in world.cloud.hosts]
    for vm in machines:
        assert world.sandbox.read(own(vm), 4086, 10) == b"SWAPSPACE2"
        assert attached(world, own(vm)) == ({vm.host} & {stranger(world, own(vm))})


def test_swap_in_a_thick_pool_shows_no_old_data(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 1024),))
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=8]", "node1", world.system)
    found = world.sandbox.read(own(vm))
    assert b"SWAPSPACE2" in found and OLD_DATA not in found


def test_a_line_without_a_size_is_refused(world: World) -> None:
    assert "takes 4 arguments" in sentence(run(world, "mkswap node1:/d/100/0/disk.0 0 100"))
    assert "The size is 'many'" in sentence(run(world, "mkswap many node1:/d/100/0/disk.0 0 100"))
    assert volumes(world) == set()
