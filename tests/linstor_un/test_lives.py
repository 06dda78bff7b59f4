"""A VM's whole life: snapshots, migration, save, copies; every call of it twice, and at the end nothing is left."""

from __future__ import annotations

from typing import Callable

import pytest

from linstor_sandbox.opennebula.hypervisor import HypervisorFailed
from tests.conftest import HONEST_TIMES, SYSTEM_TEMPLATE, World
from tests.linstor_un.living import EVERY_KIND, holds, snapshots, start, text, twice, two_primaries, write
from tests.linstor_un.scenes import NOTHING, own, volume, what_is_left


@pytest.fixture(params=[{}, HONEST_TIMES], ids=["at once", "in time"])
def world(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> World:
    return make_world(**request.param)


def test_every_call_of_a_whole_life_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, other = world.cloud, world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("-system", "-system2"))
    twice(world, monkeypatch)
    vm = start(world, EVERY_KIND)
    copied, persistent = vm.disk(0), vm.disk(1)
    for disk in (copied, persistent):
        write(world, vm, disk.disk_id, "early")
        cloud.snapshot_create(vm, disk)
        write(world, vm, disk.disk_id, "middle")
    cloud.migrate_live(vm, "node2")
    saved = cloud.disk_saveas(vm, copied, "saved", 0)
    cloud.suspend(vm)
    cloud.snapshot_create(vm, persistent)
    cloud.migrate_cold(vm, "node3", other)
    cloud.resume(vm)
    cloud.stop(vm)
    now = cloud.disk_saveas(vm, persistent, "now")
    cloud.deploy(vm, "node1", world.system)
    cloud.migrate_live(vm, "node3")
    write(world, vm, 1, "late")
    cloud.undeploy(vm)
    cloud.deploy(vm, "node2", other)
    cloud.poweroff(vm)
    cloud.snapshot_revert(vm, copied, vm.snapshots[0].get(0))
    cloud.snapshot_revert(vm, persistent, vm.snapshots[1].get(1))
    cloud.resume(vm)
    assert (text(world, own(vm)), text(world, volume(cloud.images[1]))) == ("early", "middle")
    assert (text(world, volume(saved)), text(world, volume(now))) == ("early", "middle")
    cloud.snapshot_delete(vm, copied, vm.snapshots[0].get(0))
    assert two_primaries(world) == {}
    # A snapshot that is there already costs the VM the same moment again.
    assert {begin.what for begin, _ in holds(world)} == {"freeze"}
    cloud.terminate(vm)
    cloud.image_snapshot_revert(cloud.images[1], 0)
    cloud.image_snapshot_flatten(cloud.images[1], 1)
    assert text(world, volume(cloud.images[1])) == "middle"
    for image in list(cloud.images):
        cloud.delete_image(image)
    assert what_is_left(world) == NOTHING


def test_disks_are_plugged_into_a_running_vm_and_out_of_it(world: World) -> None:
    cloud, vm = world.cloud, start(world, "DISK=[IMAGE_ID=0]", host="node3")
    for template in ("DISK=[IMAGE_ID=0]", "DISK=[IMAGE_ID=1]", "DISK=[TYPE=fs,FORMAT=raw,SIZE=4]"):
        disk = cloud.attach(vm, template)
        write(world, vm, disk.disk_id, f"plugged {disk.disk_id}")
        resource = volume(cloud.images[1]) if disk.yes("PERSISTENT") else own(vm, disk.disk_id)
        assert text(world, resource) == f"plugged {disk.disk_id}"
        before = what_is_left(world)
        world.sandbox.fail_virsh("attach-device")
        with pytest.raises(HypervisorFailed):
            cloud.attach(vm, "DISK=[IMAGE_ID=0]")
        assert what_is_left(world) == before
        cloud.detach(vm, disk)
    assert text(world, volume(cloud.images[1])) == "plugged 1"
    cloud.terminate(vm)
    for image in list(cloud.images):
        cloud.delete_image(image)
    assert what_is_left(world) == NOTHING


def test_a_disk_that_is_attached_in_place_of_another_has_none_of_its_snapshots(world: World) -> None:
    cloud, vm = world.cloud, start(world, "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=0]")
    cloud.snapshot_create(vm, vm.disk(1))
    cloud.detach(vm, vm.disk(1))
    again = cloud.attach(vm, "DISK=[IMAGE_ID=0]")
    assert again.disk_id == 1 and vm.snapshots_of(again).all == [] and snapshots(world, own(vm, 1)) == set()
    cloud.snapshot_create(vm, again)
    assert snapshots(world, own(vm, 1)) == {"snapshot-0"}
