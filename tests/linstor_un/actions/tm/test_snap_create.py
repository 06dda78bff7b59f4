"""tm/snap_create: a snapshot of a disk of a VM that does not run."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from linstor_sandbox import Pool
from tests.conftest import World
from tests.linstor_un.living import killed_while, snapshots, start
from tests.linstor_un.scenes import add_image, failure, last, own, replicas, run, sentence, volume


def test_of_both_kinds_of_disk(world: World) -> None:
    vm = start(world)
    world.cloud.poweroff(vm)
    for disk_id, resource in enumerate((own(vm), volume(world.cloud.images[1]))):
        world.cloud.snapshot_create(vm, vm.disk(disk_id))
        assert "snapshot-0" in snapshots(world, resource)
        # A VM's own disk is asked for first: its volume may have another name.
        assert last(world, "snap_create").counts == {"rest": 3 + (resource == own(vm)), "ssh": 0}


def test_of_a_suspended_vm(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.suspend(vm)
    world.cloud.snapshot_create(vm, vm.disk(0))
    world.cloud.resume(vm)
    assert snapshots(world, volume(world.cloud.images[1])) == {"snapshot-0"}


def test_a_replica_that_is_away_is_no_snapshot(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    resource = volume(world.cloud.images[1])
    world.sandbox.set_node(min(replicas(world, resource)), online=False)
    assert "bring the offline nodes back and retry" in failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert snapshots(world, resource) == set()


@pytest.mark.parametrize("after_work", [False, True])
def test_a_snapshot_whose_answer_is_lost_is_taken_again(world: World, after_work: bool) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    world.sandbox.faults.drop(r"POST .*/snapshots", after_work=after_work)
    world.cloud.snapshot_create(vm, vm.disk(0))
    assert snapshots(world, volume(world.cloud.images[1])) == {"snapshot-0"}


def test_two_lost_answers_leave_no_snapshot(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    world.sandbox.faults.drop(r"POST .*/snapshots", after_work=True, times=2)
    assert "went away" in failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert snapshots(world, volume(world.cloud.images[1])) == set()


def test_a_dead_host_of_the_vm_does_not_matter(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    world.sandbox.refuse_ssh("node1")
    world.cloud.snapshot_create(vm, vm.disk(0))


@pytest.mark.parametrize("verb", ["snap_create", "snap_delete", "snap_revert"])
def test_volatile_disks_and_unknown_ones_have_no_snapshots(world: World, verb: str) -> None:
    vm = start(world, "DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16]")
    before = world.sandbox.snapshot_of_state()
    place = f"node1:/var/lib/one//datastores/100/{vm.identifier}/disk."
    assert "is volatile" in sentence(run(world, f"{verb} {place}0 0 {vm.identifier} 100"))
    assert "oned knows no disk 5" in sentence(run(world, f"{verb} {place}5 0 {vm.identifier} 100"))
    assert world.sandbox.snapshot_of_state() == before


def test_a_thick_pool_has_no_snapshots(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 2048),))
    add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    world.cloud.poweroff(vm)
    before = world.sandbox.snapshot_of_state()
    told = failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert "keep disks that need snapshots in a pool of kind LVM_THIN" in told
    assert world.sandbox.snapshot_of_state() == before


def test_a_stopped_driver_leaves_no_snapshot(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    with killed_while(world, r"POST .*/snapshots", signal.SIGTERM, seconds=1):
        told = failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert "was stopped by SIGTERM and took back what it had made" in told
    assert snapshots(world, volume(world.cloud.images[1])) == set()
