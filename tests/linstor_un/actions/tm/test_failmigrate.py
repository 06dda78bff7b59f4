"""tm/failmigrate: nothing is left on the destination; the source is not touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox.opennebula import HypervisorFailed
from tests.conftest import World
from tests.linstor_un.living import EVERY_KIND, places, start, two_primaries, write
from tests.linstor_un.scenes import attached, last, own, volume


@pytest.mark.parametrize("rest_version", ["1.27.0", "1.29.1"])
def test_twice_is_as_once(make_world: Callable[..., World], rest_version: str) -> None:
    world = make_world(rest_version=rest_version)
    vm = start(world, EVERY_KIND)
    before = places(world)
    world.sandbox.fail_virsh("migrate", "finish")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node3")
    call = last(world, "failmigrate")
    assert call.counts["ssh"] == 2
    again = world.cloud.scripts.migration("linstor_un", "failmigrate", call.argv, call.stdin)
    assert again.succeeded, again.stderr
    assert places(world) == before
    write(world, vm, 0, "it runs")


def test_a_destination_that_died_does_not_matter(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1] DISK=[TYPE=swap,SIZE=4]")
    world.sandbox.fail_virsh("migrate", "perform")
    migrate = world.cloud.hypervisor.migrate

    def and_die(*arguments: object) -> None:
        try:
            migrate(*arguments)  # type: ignore[arg-type]
        finally:
            world.sandbox.refuse_ssh("node2")

    world.cloud.hypervisor.migrate = and_die  # type: ignore[method-assign, assignment]
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node2")
    assert last(world, "failmigrate").succeeded
    assert two_primaries(world) == {}
    for resource in (volume(world.cloud.images[1]), own(vm, 1)):
        assert attached(world, resource) <= {"node1"}
    write(world, vm, 0, "it runs")
