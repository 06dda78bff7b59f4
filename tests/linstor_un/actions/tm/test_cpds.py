"""tm/cpds: a disk, or a snapshot of it, as a new image."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import ActionFailed, VirtualMachine
from tests.conftest import IMAGE_TEMPLATE, World
from tests.linstor_un.living import (
    guest,
    held_for_one_request,
    holds,
    killed_while,
    snapshots,
    start,
    text,
    twice,
    write,
)
from tests.linstor_un.scenes import (
    MIB,
    add_image,
    definition,
    failure,
    homes,
    last,
    own,
    run,
    sentence,
    volume,
    volumes,
    write_behind,
)

PLAIN = "DISK=[IMAGE_ID=0]"
SNAPSHOT = r"POST .*/snapshots$"


def by_snapshot(make_world: Callable[..., World], **more: object) -> World:
    """A world whose image datastore makes dependent images too."""
    return make_world(configuration='CLONE_MODE="snapshot"\n', **more)


def only_the_image_is_new(world: World, before: set[str], image: str, disk: str) -> None:
    assert volumes(world) - before == {image}
    assert not [name for name in snapshots(world, disk) if name.startswith("save-as")]
    assert set(homes(world, image).values()) <= {"replica", "tie-breaker"}
    properties = {key for key in definition(world, image)["props"] if key.startswith("Aux/one/")}
    assert properties - {"Aux/one/MADE_BY", "Aux/one/REGTIME"} == {"Aux/one/IMAGE_ID"}


Step = Callable[[World, VirtualMachine], object]
STATES: dict[str, tuple[Step, Step]] = {
    "running": (lambda world, vm: None, lambda world, vm: None),
    "poweroff": (lambda world, vm: world.cloud.poweroff(vm), lambda world, vm: world.cloud.resume(vm)),
    "suspended": (lambda world, vm: world.cloud.suspend(vm), lambda world, vm: world.cloud.resume(vm)),
    "stopped": (
        lambda world, vm: world.cloud.stop(vm),
        lambda world, vm: world.cloud.deploy(vm, "node2", world.system),
    ),
    "undeployed": (
        lambda world, vm: world.cloud.undeploy(vm),
        lambda world, vm: world.cloud.deploy(vm, "node2", world.system),
    ),
}


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_the_current_state_whatever_the_vm_does(make_world: Callable[..., World], mode: str) -> None:
    world = make_world() if mode == "copy" else by_snapshot(make_world)
    vm = start(world)
    for name, (before, after) in STATES.items():
        write(world, vm, 1, name)
        before(world, vm)
        known = volumes(world)
        image = world.cloud.disk_saveas(vm, vm.disk(1), name)
        assert text(world, volume(image)) == name
        assert image.size == 4 and 4 * MIB <= world.sandbox.device_size(volume(image)) < 8 * MIB
        only_the_image_is_new(world, known, volume(image), volume(world.cloud.images[1]))
        after(world, vm)
    assert len(holds(world)) == 1 and held_for_one_request(world)
    write(world, vm, 1, "and goes on")
    clone = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", world.system)
    assert text(world, own(clone)) == "undeployed"


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_a_snapshot_in_the_size_of_the_disk_while_the_vm_runs(make_world: Callable[..., World], mode: str) -> None:
    world = make_world() if mode == "copy" else by_snapshot(make_world)
    vm = start(world, PLAIN)
    disk = vm.disk(0)
    for number, size in enumerate((4, 16)):
        if size > disk.size:
            world.cloud.resize_disk(vm, disk, size)
        write(world, vm, 0, f"state {number}")
        world.cloud.snapshot_create(vm, disk)
    write(world, vm, 0, "later")
    held = len(holds(world))
    for number in (0, 1):
        known = volumes(world)
        image = world.cloud.disk_saveas(vm, disk, f"saved{number}", number)
        assert text(world, volume(image)) == f"state {number}"
        assert image.size == 16 and 16 * MIB <= world.sandbox.device_size(volume(image)) < 20 * MIB
        only_the_image_is_new(world, known, volume(image), own(vm))
        other = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node2", world.system)
        assert text(world, own(other)) == f"state {number}"
    assert len(holds(world)) == held
    assert {"snapshot-0", "snapshot-1"} <= snapshots(world, own(vm))


def test_the_image_lives_on_without_its_origin(make_world: Callable[..., World]) -> None:
    world = by_snapshot(make_world)
    vm = start(world, PLAIN)
    write(world, vm, 0, "kept")
    image = world.cloud.disk_saveas(vm, vm.disk(0), "saved")
    world.cloud.terminate(vm)
    assert text(world, volume(image)) == "kept"
    world.cloud.delete_image(image)
    assert volume(image) not in volumes(world)


def test_twice_is_as_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = start(world, PLAIN)
    write(world, vm, 0, "twice")
    twice(world, monkeypatch)
    assert text(world, volume(world.cloud.disk_saveas(vm, vm.disk(0), "saved"))) == "twice"


def test_the_vm_waits_for_the_snapshot_alone(world: World) -> None:
    vm = start(world, PLAIN)
    world.sandbox.faults.delay(r"POST .*/spawn", 0.5)
    world.cloud.disk_saveas(vm, vm.disk(0), "saved")
    begin, end = holds(world)[0]
    assert held_for_one_request(world)
    assert end.moment - begin.moment < last(world, "cpds").seconds - 0.5


def test_an_agent_that_is_off_suspends_the_vm_for_the_snapshot(world: World) -> None:
    vm = start(world, PLAIN)
    guest(world, vm).agent = "off"
    world.cloud.disk_saveas(vm, vm.disk(0), "saved")
    assert [begin.what for begin, _ in holds(world)] == ["suspend"] and held_for_one_request(world)


@pytest.mark.parametrize(
    "pattern",
    [r"POST .*/snapshots$", r"snapshot-restore-resource", r"POST .*/spawn", r"PUT .*one-image-3$"],
)
def test_a_failure_leaves_nothing_and_the_vm_runs(world: World, pattern: str) -> None:
    vm = start(world, PLAIN)
    known = volumes(world)
    world.sandbox.faults.fail(pattern, 998)
    assert failure(lambda: world.cloud.disk_saveas(vm, vm.disk(0), "saved"))
    assert volumes(world) == known
    assert not [name for name in snapshots(world, own(vm)) if name.startswith("save-as")]
    write(world, vm, 0, "it runs")
    image = world.cloud.images[-1]
    assert image.state.name == "ERROR"
    world.cloud.delete_image(image)


def test_a_killed_driver_leaves_the_vm_running_and_rm_takes_what_was_made(world: World) -> None:
    vm = start(world, PLAIN)
    known = volumes(world)
    with killed_while(world, r"POST .*/spawn"), pytest.raises(ActionFailed):
        world.cloud.disk_saveas(vm, vm.disk(0), "saved")
    write(world, vm, 0, "it runs", wait=True)
    for lock in (world.folder.parent / "locks").iterdir():
        lock.unlink()
    world.cloud.delete_image(world.cloud.images[-1])
    assert volumes(world) == known
    world.cloud.terminate(vm)


def test_thick_pools_copy_what_is_at_rest_and_refuse_what_is_not(make_world: Callable[..., World]) -> None:
    world = by_snapshot(make_world, pools=(Pool("data", "LVM", 2048),))
    add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    write(world, vm, 0, "thick")
    before = world.sandbox.snapshot_of_state()
    told = failure(lambda: world.cloud.disk_saveas(vm, vm.disk(0), "saved"))
    assert "keep disks that need snapshots in a pool of kind LVM_THIN" in told
    assert world.sandbox.snapshot_of_state() == before
    world.cloud.poweroff(vm)
    image = world.cloud.disk_saveas(vm, vm.disk(0), "saved")
    assert text(world, volume(image)) == "thick"


def test_a_dead_host_of_a_vm_that_is_off_does_not_matter(world: World) -> None:
    vm = start(world, PLAIN)
    write(world, vm, 0, "off")
    world.cloud.poweroff(vm)
    readers = [node for node, role in homes(world, own(vm)).items() if role == "replica"]
    dead = next((node for node in world.cloud.hosts if node not in readers), "")
    world.sandbox.refuse_ssh(dead)
    vm.current.host = dead
    assert text(world, volume(world.cloud.disk_saveas(vm, vm.disk(0), "saved"))) == "off"


def test_into_a_datastore_with_other_pools(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM_THIN", 8192), Pool("fat", "LVM", 4096)))
    fat = world.cloud.create_datastore(
        IMAGE_TEMPLATE.replace("linstor-images", "fat-images").replace('STORAGE_POOL="data"', 'STORAGE_POOL="fat"')
    )
    original = add_image(world)
    original.datastore_id, original.datastore = fat.identifier, fat.name
    vm = world.cloud.instantiate(PLAIN, "node1", world.system)
    write(world, vm, 0, "fat")
    image = world.cloud.disk_saveas(vm, vm.disk(0), "saved")
    pools = {found["pool"] for found in definition(world, volume(image))["resources"].values()}
    assert "fat" in pools and "data" not in pools
    assert text(world, volume(image)) == "fat"


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("pool", ["data", "fast"])
def test_what_is_behind_size_is_saved_too(make_world: Callable[..., World], pool: str, is_running: bool) -> None:
    world = make_world(pools=(Pool("data", "LVM_THIN", 8192), Pool("fast", "ZFS", 8192)))
    vm = start(world, PLAIN)
    other = IMAGE_TEMPLATE.replace("linstor-images", "other").replace('STORAGE_POOL="data"', f'STORAGE_POOL="{pool}"')
    original = world.cloud.images[0]
    datastore = world.cloud.create_datastore(other)
    original.datastore_id, original.datastore = datastore.identifier, datastore.name
    expected = write_behind(world, own(vm))
    if not is_running:
        world.cloud.poweroff(vm)
    for image in [world.cloud.disk_saveas(vm, vm.disk(0), name) for name in ("one", "two")]:
        made = world.sandbox.read(volume(image))
        assert image.size == 4 and made == expected + bytes(len(made) - len(expected))


def test_nothing_but_a_new_image_is_written_to(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0] DISK=[TYPE=swap,SIZE=4]")
    before = world.sandbox.snapshot_of_state()
    place, others = f"node1:/var/lib/one//datastores/100/{vm.identifier}/disk.", f"-1 {vm.identifier} 101"
    for disk_id, source in itertools.product((0, 1), ("/dev/sda", "one-vm-0-disk-1", "/dev/drbd/by-res/one-image-9/0")):
        if (disk_id, source) != (0, "/dev/drbd/by-res/one-image-9/0"):
            assert sentence(run(world, f"cpds {place}{disk_id} {source} {others}"))
    assert world.sandbox.snapshot_of_state() == before


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_a_snapshot_that_is_larger_than_the_disk_keeps_all_its_bytes(
    make_world: Callable[..., World], mode: str
) -> None:
    world = make_world() if mode == "copy" else by_snapshot(make_world)
    vm = start(world, PLAIN)
    world.cloud.snapshot_create(vm, vm.disk(0))
    world.cloud.resize_disk(vm, vm.disk(0), 64)
    world.cloud.snapshot_create(vm, vm.disk(0))
    world.cloud.poweroff(vm)
    world.cloud.snapshot_revert(vm, vm.disk(0), vm.snapshots[0].get(0))
    image = world.cloud.disk_saveas(vm, vm.disk(0), "saved", 1)
    assert image.size == 4 and world.sandbox.device_size(volume(image)) >= 64 * MIB
    assert "its volume is larger than its SIZE" in last(world, "cpds").stderr


@pytest.mark.parametrize("broken", ["cannot be thawed", "held too long", "stopped"])
def test_a_hold_that_fails_leaves_no_snapshot(make_world: Callable[..., World], broken: str) -> None:
    world = make_world(configuration='HOLD_TIMEOUT="1"\nREQUEST_TIMEOUT="5"\n')
    vm = start(world, PLAIN)
    before = snapshots(world, own(vm))
    if broken == "cannot be thawed":
        world.sandbox.fail_virsh("domfsthaw", times=3)
    elif broken == "held too long":
        world.sandbox.faults.delay(SNAPSHOT, 2, times=1)
    with killed_while(world, SNAPSHOT, signal.SIGTERM, seconds=0.5) if broken == "stopped" else nullcontext():
        failure(lambda: world.cloud.disk_saveas(vm, vm.disk(0), "saved"))
    assert snapshots(world, own(vm)) == before
