"""A persistent image goes back: detached, unlinked, its data where it belongs; a user's SOURCE decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from linstor_sandbox.opennebula import LcmState, VmState
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World
from tests.linstor_un.living import two_primaries
from tests.linstor_un.scenes import (
    MIB,
    NOTHING,
    add_image,
    again,
    attached,
    content,
    definition,
    homes,
    last,
    link,
    links,
    own,
    refuse_all,
    replicas,
    run,
    state,
    stranger,
    volume,
    volumes,
    what_is_left,
)


def test_terminate_gives_the_image_back_with_what_was_written(world: World) -> None:
    image = add_image(world, persistent=True)
    before = homes(world, volume(image))
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", stranger(world, volume(image)), world.system)
    world.sandbox.write(volume(image), b"kept", MIB)
    world.cloud.terminate(vm)
    assert homes(world, volume(image)) == before
    assert links(world) == {}
    assert world.sandbox.read(volume(image), 0, MIB) == content(1)[:MIB]
    assert world.sandbox.read(volume(image), MIB, 4) == b"kept"
    assert image.state == ImageState.READY
    world.cloud.delete_image(image)
    assert what_is_left(world) == NOTHING


@pytest.mark.parametrize("are_diskless", [False, True])
def test_no_two_primaries_outlive_a_migration_whose_end_was_killed(
    make_world: Callable[..., World], are_diskless: bool
) -> None:
    world = make_world(nodes=("node1", "node2", "node3", "node4"))
    resource = volume(add_image(world, persistent=True))
    holders = replicas(world, resource)
    source, target = sorted(set(world.cloud.hosts) - holders if are_diskless else holders)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", source, world.system)
    once = world.cloud.scripts.migration

    def without_end(mad: str, verb: str, argv: Sequence[str], stdin: str) -> Call:
        return once(mad, "premigrate", argv, stdin)

    world.cloud.scripts.migration = without_end  # type: ignore[method-assign]
    world.cloud.migrate_live(vm, target)
    assert two_primaries(world) != {}
    world.cloud.terminate(vm)
    assert two_primaries(world) == {}
    assert not attached(world, resource)


def test_once_more_is_as_once(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", stranger(world, volume(image)), world.system)
    world.cloud.terminate(vm)
    before = state(world)
    assert again(world, last(world, "mvds")).succeeded
    assert state(world) == before


def test_a_stopped_vm_gives_its_image_back_from_the_front_end(world: World) -> None:
    image = add_image(world, persistent=True)
    before = homes(world, volume(image))
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node3", world.system)
    world.cloud.stop(vm)
    world.cloud.terminate(vm)
    assert last(world, "mvds").argv[0].startswith("onefe:")
    assert homes(world, volume(image)) == before
    assert list((world.frontend / "datastores/100").iterdir()) == []


def test_the_retry_of_an_epilog_names_the_last_host_where_nothing_is(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", world.system)
    world.cloud.undeploy(vm)
    vm.become(VmState.ACTIVE, LcmState.EPILOG_FAILURE)
    world.cloud.recover_retry(vm)
    assert last(world, "mvds").argv[0].startswith("node1:")
    assert attached(world, volume(image)) == set() and links(world) == {}


def test_a_dead_host_gives_the_image_back_all_the_same(world: World) -> None:
    image = add_image(world, persistent=True)
    before = homes(world, volume(image))
    away = stranger(world, volume(image))
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", away, world.system)
    world.sandbox.set_node(away, online=False)
    world.cloud.lose_host(vm)
    world.cloud.terminate(vm)
    assert image.state == ImageState.READY
    world.sandbox.set_node(away, online=True)
    assert homes(world, volume(image)) == before


def test_what_a_failed_migration_left_attached_elsewhere_is_detached_too(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}] DISK=[TYPE=swap,SIZE=4]", "node1", world.system)
    away = stranger(world, volume(image))
    if away == "node1":
        world.cloud.migrate_cold(vm, "node2")
    world.cloud.poweroff(vm)
    world.sandbox.faults.fail(rf"POST .*/{own(vm, 1)}/.*make-available", 998, "not now")
    with pytest.raises(Exception, match="not now"):
        world.cloud.migrate_cold(vm, away)
    assert attached(world, volume(image)) == {away}
    world.cloud.recover_failure(vm)
    world.cloud.terminate(vm)
    assert attached(world, volume(image)) == set()


def detach_of(world: World, image: Image) -> str:
    return f"mvds node1:/var/lib/one//datastores/100/0/disk.0 {image.source} 0 101"


def test_a_volatile_disk_with_save_and_the_source_of_anothers_image_touches_that_image_never(world: World) -> None:
    victim = add_image(world, persistent=True)
    owner = world.cloud.instantiate(f"DISK=[IMAGE_ID={victim.identifier}]", "node2", world.system)
    before = definition(world, volume(victim))
    attack = f'DISK=[TYPE=fs,FORMAT=raw,SIZE=4,SAVE=YES,SOURCE="{victim.source}"]'
    vm = world.cloud.instantiate(attack, "node2", world.system)
    assert link(world, vm, 0) == own(vm)
    world.cloud.terminate(vm)
    call = last(world, "mvds")
    assert call.argv[1] == victim.source, "oned believes the template"
    assert own(vm) not in volumes(world), "the volatile disk is gone like any other"
    assert definition(world, volume(victim)) == before
    assert link(world, owner, 0) == volume(victim)
    assert world.cloud.hypervisor.running[owner.identifier] == "node2"

    other = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node2", world.system)
    world.cloud.detach(other, world.cloud.attach(other, attack))
    assert last(world, "mvds").argv[1] == victim.source
    assert own(other, 1) not in volumes(world)
    assert definition(world, volume(victim)) == before


def test_the_source_in_the_line_does_not_decide_for_an_image_disk_either(world: World) -> None:
    image, other = add_image(world, persistent=True), add_image(world, 2, persistent=True)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", world.system)
    bystander = world.cloud.instantiate(f"DISK=[IMAGE_ID={other.identifier}]", "node1", world.system)
    before = homes(world, volume(other))
    world.cloud.hypervisor.end(vm)
    vm.become(VmState.ACTIVE, LcmState.EPILOG)
    assert run(world, detach_of(world, other)).succeeded
    assert homes(world, volume(other)) == before
    assert link(world, bystander, 0) == volume(other)
    assert link(world, vm, 0) == "", "the VM's own image was released"


def test_a_vm_that_oned_has_forgotten_gives_its_image_back(world: World) -> None:
    image = add_image(world, persistent=True)
    away = stranger(world, volume(image))
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", away, world.system)
    world.cloud.hypervisor.end(vm)
    world.cloud.machines.remove(vm)
    assert run(world, detach_of(world, image).replace("node1", away)).succeeded
    assert attached(world, volume(image)) == set()
    assert links(world) == {}


NO_SENSE = [
    ("mvds node1:/d/100/0/disk.0 /dev/drbd/by-res/one-image-0/0 0", "takes 4 arguments"),
    ("mvds node1:/d/100/0 /dev/drbd/by-res/one-image-0/0 0 101", "must end in disk.<id>"),
    ("mvds node1:/d/100/7/disk.0 /etc/passwd 7 101", "names no LINSTOR volume"),
    ("mvds node1:/d/100/7/disk.0 /dev/drbd/by-res/../../sda/0 7 101", "names no LINSTOR volume"),
]


def test_lines_that_make_no_sense_change_nothing(world: World) -> None:
    refuse_all(world, NO_SENSE)
