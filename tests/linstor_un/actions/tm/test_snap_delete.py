"""tm/snap_delete: in any order, also while the VM runs."""

from __future__ import annotations

from tests.conftest import World
from tests.linstor_un.living import holds, snapshots, start, text, write
from tests.linstor_un.scenes import add_image, last, replicas, run, succeed, volume


def test_in_any_order_while_the_vm_runs(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    resource, disk = volume(world.cloud.images[1]), vm.disk(0)
    taken = [world.cloud.snapshot_create(vm, disk) for _ in range(3)]
    write(world, vm, 0, "now")
    before = len(holds(world))
    for snapshot in (taken[1], taken[2], taken[0]):
        world.cloud.snapshot_delete(vm, disk, snapshot)
        assert f"snapshot-{snapshot.identifier}" not in snapshots(world, resource)
    assert snapshots(world, resource) == set()
    assert len(holds(world)) == before
    assert text(world, resource) == "now"
    assert last(world, "snap_delete").counts == {"rest": 3, "ssh": 0}


def test_absent_is_done(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    place = f"node1:/var/lib/one//datastores/100/{vm.identifier}/disk.0"
    succeed(world, f"snap_delete {place} 7 {vm.identifier} 101")


def test_a_node_that_is_away_deletes_its_part_when_it_returns(world: World) -> None:
    image = add_image(world, persistent=True)
    away, *_ = sorted(replicas(world, volume(image)))
    host = next(node for node in world.cloud.hosts if node != away)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", host, world.system)
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    world.sandbox.set_node(away, online=False)
    world.cloud.snapshot_delete(vm, vm.disk(0), snapshot)
    assert "goes for good when its offline nodes are back" in last(world, "snap_delete").stderr
    world.sandbox.set_node(away, online=True)
    assert snapshots(world, volume(image)) == set()
    assert not run(world, "snap_delete node1:/etc/passwd 0 0 101").succeeded
