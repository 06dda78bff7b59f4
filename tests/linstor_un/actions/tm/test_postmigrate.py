"""tm/postmigrate: the source lets go, also when it is run late or twice, or the source is dead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.hosts.hosts_in_a_box import replace_tool
from tests.linstor_un.living import EVERY_KIND, places, start, two_primaries, write
from tests.linstor_un.scenes import (
    attached,
    cdrom_at,
    files,
    homes,
    last,
    link,
    links,
    own,
    share_directories,
    volume,
)


def postmigrate_again(world: World) -> None:
    call = last(world, "postmigrate")
    again = world.cloud.scripts.migration("linstor_un", "postmigrate", call.argv, call.stdin)
    assert again.succeeded, again.stderr


@pytest.mark.parametrize("rest_version", ["1.27.0", "1.29.1"])
def test_twice_is_as_once(make_world: Callable[..., World], rest_version: str) -> None:
    world = make_world(rest_version=rest_version)
    vm = start(world, EVERY_KIND)
    world.cloud.migrate_live(vm, "node2")
    expected = places(world)
    postmigrate_again(world)
    assert places(world) == expected
    assert two_primaries(world) == {}


def test_a_controller_that_is_away_is_told_and_the_vm_stays(world: World) -> None:
    vm = start(world, EVERY_KIND)
    scripts, once = world.cloud.scripts, world.cloud.scripts.migration

    def without_controller(mad: str, verb: str, argv: list[str], stdin: str) -> object:
        if verb == "postmigrate":
            world.sandbox.stop_controller()
        return once(mad, verb, argv, stdin)

    scripts.migration = without_controller  # type: ignore[method-assign, assignment]
    world.cloud.migrate_live(vm, "node2")
    assert not last(world, "postmigrate").succeeded
    assert vm.host == "node2"
    world.sandbox.start_controller()
    assert two_primaries(world) != {}
    scripts.migration = once  # type: ignore[method-assign]
    postmigrate_again(world)
    assert two_primaries(world) == {}
    assert all(name.startswith("node2:") for name in links(world))
    write(world, vm, 0, "here")


def test_a_source_that_does_not_answer_is_left_as_it_is(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1] DISK=[TYPE=swap,SIZE=4]")
    migrate = world.cloud.hypervisor.migrate

    def and_die(*arguments: object) -> None:
        migrate(*arguments)  # type: ignore[arg-type]
        world.sandbox.refuse_ssh("node1")

    world.cloud.hypervisor.migrate = and_die  # type: ignore[method-assign, assignment]
    world.cloud.migrate_live(vm, "node2")
    call = last(world, "postmigrate")
    assert call.succeeded and "stays there" in call.stderr
    assert two_primaries(world) == {}
    for resource in (volume(world.cloud.images[1]), own(vm, 1)):
        assert attached(world, resource) <= {"node2"}
    world.sandbox.refuse_ssh("node1", False)
    assert [name for name in files(world, "node1") if name.endswith("deployment.0")]


def test_within_a_host_that_does_not_answer_the_directory_that_was_left_stays(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    relink = world.cloud.scripts.migration

    def and_die(mad: str, verb: str, argv: list[str], stdin: str) -> object:
        world.sandbox.refuse_ssh("node1", verb == "postmigrate")
        return relink(mad, verb, argv, stdin)

    world.cloud.scripts.migration = and_die  # type: ignore[method-assign, assignment]
    world.cloud.migrate_live(vm, "node1", other)
    call = last(world, "postmigrate")
    assert call.succeeded and "stays there" in call.stderr
    world.sandbox.refuse_ssh("node1", False)
    assert link(world, vm, 0) == own(vm)


def test_a_cdrom_leaves_a_host_that_shares_the_vms_directory(world: World) -> None:
    cdrom, source, target = cdrom_at(world)
    share_directories(world, source, target)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={cdrom.identifier}]", source, world.system)
    world.cloud.migrate_live(vm, target)
    assert attached(world, volume(cdrom)) == set()
    assert link(world, vm, 0) == volume(cdrom)


def test_an_image_that_another_vm_has_there_stays(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=2]")
    world.cloud.instantiate("DISK=[IMAGE_ID=2]", "node1", world.system)
    resource = volume(world.cloud.images[2])
    world.cloud.migrate_live(vm, "node2")
    assert "node1" in homes(world, resource)
    assert [name for name in links(world) if name.startswith("node1:")] != []
    postmigrate_again(world)
    assert [opened for opened in world.sandbox.snapshot_of_state()["open"] if opened[0] == "node1"]


def test_a_directory_that_cannot_be_removed_does_not_keep_two_primaries(world: World) -> None:
    vm = start(world, EVERY_KIND)
    rm = replace_tool(world.sandbox, "node1", "rm", "echo 'rm: cannot remove: Input/output error' >&2\nexit 1")
    world.cloud.migrate_live(vm, "node2")
    assert "Input/output error" in last(world, "postmigrate").stderr
    assert two_primaries(world) == {}
    rm.unlink()
    postmigrate_again(world)
    assert all(name.startswith("node2:") for name in links(world))


@pytest.mark.parametrize("fault", ["GET .*view/resources", "PUT .*/resource-connections"])
def test_oned_asks_once_and_one_error_of_linstor_is_no_reason_to_leave_two_primaries(world: World, fault: str) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] DISK=[IMAGE_ID=2]", "node3")
    migrate = world.cloud.hypervisor.migrate

    def and_fail(*arguments: object) -> None:
        migrate(*arguments)  # type: ignore[arg-type]
        world.sandbox.faults.fail(fault)

    world.cloud.hypervisor.migrate = and_fail  # type: ignore[method-assign, assignment]
    world.cloud.migrate_live(vm, "node2")
    call = last(world, "postmigrate")
    assert call.succeeded and "injected failure" in call.stderr and "trying again" in call.stderr
    assert two_primaries(world) == {}
    assert all(name.startswith("node2:") for name in links(world))
    for image in world.cloud.images[1:3]:
        assert attached(world, volume(image)) <= {"node2"}
