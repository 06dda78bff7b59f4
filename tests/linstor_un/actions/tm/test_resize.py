"""Growing a disk: never shrinking, seen by the host of a running VM, and refused where the pool cannot promise it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox.opennebula import LcmState, VirtualMachine, VmState
from tests.conftest import World
from tests.linstor_un.scenes import (
    MIB,
    add_image,
    content,
    definition,
    failure,
    homes,
    own,
    refuse_all,
    replicas,
    requests,
    run,
    sentence,
    state,
    succeed,
    volume,
)

LINE = "resize node1:/var/lib/one//datastores/100/0/disk.0 {} 0 100"


def start(world: World, size: int = 8) -> VirtualMachine:
    return world.cloud.instantiate(f"DISK=[TYPE=fs,FORMAT=raw,SIZE={size}]", "node1", world.system)


@pytest.mark.parametrize("kind", ["volatile", "clone", "persistent"])
@pytest.mark.parametrize("rest", ["running", "poweroff"])
def test_every_kind_of_disk_grows(world: World, kind: str, rest: str) -> None:
    if kind == "volatile":
        vm, resource = start(world), "one-vm-0-disk-0"
        world.sandbox.write(resource, content(1), 0)
    else:
        image = add_image(world, persistent=kind == "persistent")
        vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", world.system)
        resource = own(vm) if kind == "clone" else volume(image)
    if rest == "poweroff":
        world.cloud.poweroff(vm)
    world.sandbox.clear_connections()
    world.cloud.resize_disk(vm, vm.disk(0), 64)
    assert world.sandbox.device_size(resource) >= 64 * MIB
    assert definition(world, resource)["volumes"]["0"] == 64 * 1024
    assert world.sandbox.read(resource, 0, 4 * MIB) == content(1)
    waited = [connection.host for connection in world.sandbox.connections if str(64 * MIB) in connection.command]
    assert waited == (["node1"] if rest == "running" else []), "the host of a running VM is waited for, and no other"


def test_smaller_or_equal_changes_nothing_and_succeeds(world: World) -> None:
    start(world, 64)
    before = state(world)
    for size in (64, 63, 8):
        succeed(world, LINE.format(size))
    assert state(world) == before
    assert not requests(world, "PUT .*/volume-definitions/")


def test_a_volume_that_is_larger_than_oned_believes_is_left_alone(world: World) -> None:
    """`virsh blockresize` failed after an earlier resize: oned went back to the old size and asks for less now."""
    vm = start(world, 8)
    world.cloud.resize_disk(vm, vm.disk(0), 128)
    vm.disk(0).attributes["SIZE"] = "8"
    before = definition(world, own(vm))
    world.cloud.resize_disk(vm, vm.disk(0), 96)
    assert definition(world, own(vm)) == before


def test_an_undeployed_vm_grows_although_its_last_host_is_down(world: World) -> None:
    vm = start(world)
    world.cloud.undeploy(vm)
    world.sandbox.refuse_ssh("node1")
    world.sandbox.clear_connections()
    world.cloud.resize_disk(vm, vm.disk(0), 64)
    assert world.sandbox.device_size(own(vm)) >= 64 * MIB
    assert world.sandbox.connections == []


def test_a_dead_node_with_a_replica_is_a_sentence_and_later_the_disk_grows(world: World) -> None:
    vm = start(world)
    world.cloud.undeploy(vm)
    gone = sorted(replicas(world, own(vm)))[0]
    world.sandbox.set_node(gone, online=False)
    before = definition(world, own(vm))
    reason = failure(lambda: world.cloud.resize_disk(vm, vm.disk(0), 64))
    assert "Resizing one-vm-0-disk-0 failed" in reason and "linstor node list" in reason
    assert definition(world, own(vm)) == before
    world.sandbox.set_node(gone, online=True)
    world.cloud.resize_disk(vm, vm.disk(0), 64)
    assert world.sandbox.device_size(own(vm)) >= 64 * MIB


def test_a_host_that_never_sees_the_new_size_is_a_sentence(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=("node1", "node2", "node3", "node4"), configuration='DEVICE_TIMEOUT="1"')
    vm = start(world)
    away = next(node for node in world.cloud.hosts if node not in homes(world, own(vm)))
    vm.place(away, world.cloud.hosts.index(away), world.system)
    vm.become(VmState.ACTIVE, LcmState.DISK_RESIZE)
    reason = sentence(run(world, LINE.format(64).replace("node1", away)))
    assert f"on {away} failed: device" in reason and f"instead of {64 * MIB} after 1 s" in reason


def test_a_thin_pool_that_is_too_small_is_a_sentence_and_nothing_changes(world: World) -> None:
    vm = start(world)
    for node in world.cloud.hosts:
        world.sandbox.fill_pool(node, "data", 10)
    before = state(world)
    reason = failure(lambda: world.cloud.resize_disk(vm, vm.disk(0), 4096))
    assert "Pool data on node" in reason and "needs 4.0 GiB more" in reason
    assert state(world) == before
    assert vm.disk(0).size == 8


def test_a_resize_that_failed_half_way_is_finished_by_the_next_one(world: World) -> None:
    vm = start(world)
    world.sandbox.break_satellite(sorted(replicas(world, own(vm)))[0], "resize")
    failure(lambda: world.cloud.resize_disk(vm, vm.disk(0), 64))
    assert vm.disk(0).size == 8
    world.sandbox.mend()
    world.cloud.resize_disk(vm, vm.disk(0), 96)
    assert world.sandbox.device_size(own(vm)) >= 96 * MIB


def test_the_image_of_a_clone_keeps_its_size(world: World) -> None:
    image = add_image(world)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", world.system)
    before = definition(world, volume(image))
    world.cloud.resize_disk(vm, vm.disk(0), 64)
    assert definition(world, volume(image)) == before


NO_SENSE = [
    (LINE.format("big"), "The size is 'big'"),
    (LINE.format(-1), "The size is '-1'"),
    (LINE.format(10**11), "must be a number of MiB"),
    ("resize node1:/d/100/0/disk.0 64 0", "takes 4 arguments"),
    ("resize node1:/d/100/0/disk.9 64 0 100", "oned knows no disk 9"),
    ("resize node1:/d/100/5/disk.0 64 5 100", "oned knows no disk 0 of VM 5"),
]


def test_lines_that_make_no_sense_change_nothing(world: World) -> None:
    start(world)
    refuse_all(world, NO_SENSE)
