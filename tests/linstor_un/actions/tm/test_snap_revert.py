"""tm/snap_revert: to the newest and to any older snapshot, with sizes changed in between; younger ones stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox import Pool
from tests.conftest import World
from tests.linstor_un.living import snapshots, start, text, write
from tests.linstor_un.scenes import MIB, add_image, attached, failure, last, link, own, run, sentence, stranger, volume


@pytest.mark.parametrize("disk_id", [0, 1])
def test_to_an_older_one_and_forward_again_with_sizes_changed(world: World, disk_id: int) -> None:
    vm = start(world)
    disk = vm.disk(disk_id)
    resource = own(vm) if disk_id == 0 else volume(world.cloud.images[1])
    taken = []
    for number, size in enumerate((4, 8, 16)):
        if size > disk.size:
            world.cloud.resize_disk(vm, disk, size)
        write(world, vm, disk_id, f"state {number}")
        taken.append(world.cloud.snapshot_create(vm, disk))
    write(world, vm, disk_id, "later")
    world.cloud.poweroff(vm)
    names = {f"snapshot-{snapshot.identifier}" for snapshot in taken}
    for snapshot in (taken[2], taken[0], taken[1]):
        world.cloud.snapshot_revert(vm, disk, snapshot)
        assert text(world, resource) == f"state {snapshot.identifier}"
        assert snapshot.size * MIB <= world.sandbox.device_size(resource) < (snapshot.size + 4) * MIB
        assert disk.size == snapshot.size
        assert names <= snapshots(world, resource)
        assert link(world, vm, disk_id) == resource
        assert set(attached(world, resource)) <= {vm.host}, "the tie-breaker is one again"
    world.cloud.resume(vm)
    write(world, vm, disk_id, "goes on")
    world.cloud.resize_disk(vm, disk, 24)
    assert world.sandbox.device_size(resource) >= 24 * MIB


def test_the_volume_is_back_on_a_host_without_a_replica(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", stranger(world, volume(image)), world.system)
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    world.cloud.poweroff(vm)
    world.cloud.snapshot_revert(vm, vm.disk(0), snapshot)
    assert last(world, "snap_revert").counts == {"rest": 5, "ssh": 1}
    world.cloud.resume(vm)


def test_a_disk_in_use_is_not_touched(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='IN_USE_TIMEOUT="1"\n')
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "now")
    before = world.sandbox.snapshot_of_state()
    place = f"node1:/var/lib/one//datastores/100/{vm.identifier}/disk.0"
    told = sentence(run(world, f"snap_revert {place} 0 {vm.identifier} 101"))
    assert "still in use" in told or "open" in told
    assert world.sandbox.snapshot_of_state() == before
    assert text(world, volume(world.cloud.images[1])) == "now"


def test_a_node_that_is_away_is_told_before_anything_changes(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "now")
    world.cloud.poweroff(vm)
    world.sandbox.set_node("node2", online=False)
    told = failure(lambda: world.cloud.snapshot_revert(vm, vm.disk(0), snapshot))
    assert "satellites are not connected" in told
    assert text(world, volume(world.cloud.images[1])) == "now"


def test_an_unknown_snapshot_is_a_sentence(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    place = f"node1:/var/lib/one//datastores/100/{vm.identifier}/disk.0"
    assert "snapshot-9" in sentence(run(world, f"snap_revert {place} 9 {vm.identifier} 101"))


def test_once_reverted_a_host_without_ssh_is_only_a_warning(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    write(world, vm, 0, "before")
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "after")
    world.cloud.poweroff(vm)
    world.sandbox.refuse_ssh("node1")
    world.cloud.snapshot_revert(vm, vm.disk(0), snapshot)
    assert text(world, volume(world.cloud.images[1])) == "before"
    assert "is rolled back and not yet back on node1" in last(world, "snap_revert").stderr


def test_a_base_snapshot_of_the_old_content_is_dropped(world: World) -> None:
    """An image whose VM was terminated, made non-persistent and cloned, and is persistent and reverted again."""
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "newer")
    world.cloud.terminate(vm)
    image.persistent = False
    clone = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    assert text(world, own(clone)) == "newer"
    world.cloud.terminate(clone)
    assert "linstor_un-base" in snapshots(world, volume(image))
    world.cloud.image_snapshot_revert(image, 0)
    assert snapshots(world, volume(image)) == {"snapshot-0"}


def test_zfs_keeps_the_younger_ones_too(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "ZFS_THIN", 4096),))
    add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    taken = []
    for number in range(2):
        write(world, vm, 0, f"state {number}")
        taken.append(world.cloud.snapshot_create(vm, vm.disk(0)))
    world.cloud.poweroff(vm)
    world.cloud.snapshot_revert(vm, vm.disk(0), taken[0])
    assert text(world, volume(world.cloud.images[0])) == "state 0"
    world.cloud.snapshot_revert(vm, vm.disk(0), taken[1])
    assert text(world, volume(world.cloud.images[0])) == "state 1"


def test_before_linstor_1_31_only_the_newest_and_that_is_said_beforehand(make_world: Callable[..., World]) -> None:
    world = make_world(rest_version="1.23.0")
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.cloud.poweroff(vm)
    for _ in range(2):
        world.cloud.snapshot_create(vm, vm.disk(0))
    before = world.sandbox.snapshot_of_state()
    told = failure(lambda: world.cloud.snapshot_revert(vm, vm.disk(0), vm.snapshots[0].get(0)))
    assert "newest snapshot only, and snapshot-1 is younger than snapshot-0" in told
    assert world.sandbox.snapshot_of_state() == before
    world.cloud.snapshot_revert(vm, vm.disk(0), vm.snapshots[0].get(1))


def test_what_oned_forgets_of_a_linear_disk_is_deleted(world: World) -> None:
    vm = start(world)
    for disk in vm.disks:
        disk.attributes["ALLOW_ORPHANS"] = "LINEAR" if disk.disk_id == 0 else "YES"
        for _ in range(3):
            world.cloud.snapshot_create(vm, disk)
    world.cloud.poweroff(vm)
    for disk in vm.disks:
        world.cloud.snapshot_revert(vm, disk, vm.snapshots_of(disk).get(1))
    assert [item.identifier for item in vm.snapshots[0].all] == [0, 1]
    assert snapshots(world, own(vm)) == {"snapshot-0", "snapshot-1"}
    assert snapshots(world, volume(world.cloud.images[1])) == {"snapshot-0", "snapshot-1", "snapshot-2"}


def test_what_cannot_be_deleted_then_is_a_warning_as_the_disk_has_changed(world: World) -> None:
    vm = start(world)
    disk = vm.disk(0)
    disk.attributes["ALLOW_ORPHANS"] = "LINEAR"
    for _ in range(2):
        world.cloud.snapshot_create(vm, disk)
    world.cloud.poweroff(vm)
    world.sandbox.faults.fail(r"DELETE .*/snapshots/snapshot-1$", times=-1)
    world.cloud.snapshot_revert(vm, disk, vm.snapshots_of(disk).get(0))
    assert "WARN: tm/snap_revert: snapshots of one-vm-0-disk-0 that are younger" in last(world, "snap_revert").stderr
