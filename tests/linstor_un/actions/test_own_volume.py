"""A VM's own volume has another name while an earlier one of its name waits for an offline node before it is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import LcmState, VirtualMachine
from linstor_un.naming import Names
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.living import snapshots, two_primaries, write
from tests.linstor_un.scenes import (
    MIB,
    NOTHING,
    add_image,
    attached,
    content,
    definition,
    failure,
    last,
    link,
    own,
    post,
    replicas,
    volume,
    volumes,
    what_is_left,
)

NODES = ("node1", "node2", "node3", "node4")
MEMORY = "one-vm-0-checkpoint"
TEMPLATE = "DISK=[IMAGE_ID=0] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16] DISK=[TYPE=swap,SIZE=4]"


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A host without a pool, and three nodes with one: two are left when one is away."""
    pool = Pool("data", "LVM_THIN", 20480, ("node2", "node3", "node4"))
    world = make_world(nodes=NODES, pools=(pool,), configuration='IN_USE_TIMEOUT="1"\n')
    # So that a disk is placed where nodes answer, and not where its image is.
    world.system.attributes["CLONE_MODE"] = "copy"
    add_image(world)
    return world


def lose_a_replica_of(world: World, resource: str) -> str:
    """A node that has a replica goes offline."""
    node = min(replicas(world, resource))
    world.sandbox.set_node(node, online=False)
    return node


def recreated(world: World) -> tuple[VirtualMachine, str, list[str]]:
    """A VM that was recreated while a node with replicas is offline, the node, and the volumes that its disks have."""
    vm = world.cloud.instantiate(TEMPLATE, "node1", world.system)
    world.sandbox.write(own(vm), b"of the first life", 0)
    away = lose_a_replica_of(world, own(vm))
    disks = [own(vm, disk_id) for disk_id in range(3)]
    waiting = [name for name in disks if away in replicas(world, name)]
    world.cloud.recover_recreate(vm)
    assert {name for name in volumes(world) if "DELETE" in definition(world, name)["flags"]} == set(waiting)
    world.cloud.deploy(vm, "node1", world.system)
    return vm, away, [f"{name}-2" if name in waiting else name for name in disks]


def linked(world: World, vm: VirtualMachine) -> list[str]:
    """The volumes that the links of the VM's disks lead to."""
    return [link(world, vm, disk_id) for disk_id in range(3)]


def test_a_vm_that_is_recreated_while_a_node_is_away_runs_and_nothing_is_left(world: World) -> None:
    vm, away, disks = recreated(world)
    assert vm.lcm_state == LcmState.RUNNING
    assert linked(world, vm) == disks
    assert world.sandbox.read(disks[0], 0, 4 * MIB) == content(1)
    assert f"{own(vm)} is deleted and waits for its offline nodes" in last(world, "clone").stderr
    world.sandbox.set_node(away, online=True)
    assert volumes(world) == {"one-image-0", *disks}
    write(world, vm, 0, "it runs")
    world.cloud.terminate(vm)
    assert what_is_left(world) == {**NOTHING, "volumes": ["one-image-0"]}


@pytest.mark.parametrize("is_back", [False, True], ids=["away", "back"])
def test_whatever_is_done_with_such_a_vm_is_done_with_its_newer_volumes(world: World, is_back: bool) -> None:
    vm, away, disks = recreated(world)
    if is_back:
        world.sandbox.set_node(away, online=True)
    disk, name = vm.disk(0), disks[0]
    write(world, vm, 0, "before")
    world.cloud.snapshot_create(vm, disk)
    assert snapshots(world, name) == {"snapshot-0"}
    write(world, vm, 0, "after")
    there = "node4" if away != "node4" else "node3"
    world.cloud.migrate_live(vm, there)
    assert two_primaries(world) == {}
    assert linked(world, vm) == disks
    world.cloud.resize_disk(vm, disk, 8)
    assert world.sandbox.device_size(name) >= 8 * MIB
    world.cloud.poweroff(vm)
    world.cloud.snapshot_revert(vm, disk, vm.snapshots[0].get(0))
    assert world.sandbox.read(name, 0, 6) == b"before"
    world.cloud.snapshot_delete(vm, disk, vm.snapshots[0].get(0))
    assert snapshots(world, name) == set()
    world.cloud.migrate_cold(vm, "node1")
    world.cloud.resume(vm)
    assert linked(world, vm) == disks
    saved = world.cloud.disk_saveas(vm, disk, "saved")
    assert world.sandbox.read(volume(saved), 0, 6) == b"before"
    world.cloud.undeploy(vm)
    assert all(attached(world, resource) == set() for resource in disks)
    world.cloud.deploy(vm, "node1", world.system)
    assert vm.lcm_state == LcmState.RUNNING
    world.cloud.terminate(vm)
    world.cloud.delete_image(saved)
    world.sandbox.set_node(away, online=True)
    assert what_is_left(world) == {**NOTHING, "volumes": ["one-image-0"]}


def test_a_disk_that_is_attached_anew_while_the_earlier_one_waits(world: World) -> None:
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node1", world.system)
    disk = world.cloud.attach(vm, "DISK=[IMAGE_ID=0]")
    away = lose_a_replica_of(world, own(vm, 1))
    world.cloud.detach(vm, disk)
    assert world.cloud.attach(vm, "DISK=[IMAGE_ID=0]").disk_id == 1
    assert link(world, vm, 1) == f"{own(vm, 1)}-2"
    world.cloud.detach(vm, vm.disk(1))
    assert f"{own(vm, 1)}-2" not in volumes(world)
    world.sandbox.set_node(away, online=True)
    assert volumes(world) == {"one-image-0", own(vm)}


def test_a_vm_that_is_recreated_in_another_system_datastore_discards_what_could_not_be_deleted(world: World) -> None:
    vm = world.cloud.instantiate(TEMPLATE, "node1", world.system)
    world.sandbox.faults.fail(f"DELETE .*/resource-definitions/{own(vm)}", times=-1)
    world.cloud.recover_recreate(vm)
    world.sandbox.faults.clear()
    assert own(vm) in volumes(world)
    another = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "another"))
    world.cloud.deploy(vm, "node1", another)
    assert vm.lcm_state == LcmState.RUNNING
    assert "discarding" in last(world, "clone").stderr
    world.cloud.terminate(vm)
    assert what_is_left(world) == {**NOTHING, "volumes": ["one-image-0"]}


def test_a_vm_is_suspended_again_while_its_earlier_memory_waits(world: World) -> None:
    world.system.attributes["CHECKPOINT_AUTO_PLACE"] = "2"
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    world.cloud.suspend(vm)
    away = lose_a_replica_of(world, MEMORY)
    world.cloud.resume(vm)
    assert "DELETE" in definition(world, MEMORY)["flags"]
    world.cloud.suspend(vm)
    assert f"{MEMORY}-2" in volumes(world)
    world.cloud.resume(vm)
    assert vm.lcm_state == LcmState.RUNNING
    assert f"{MEMORY}-2" not in volumes(world)
    world.sandbox.set_node(away, online=True)
    assert MEMORY not in volumes(world)


def test_a_retry_does_not_wait_for_what_an_earlier_try_has_left(world: World) -> None:
    vm = world.cloud.create_vm(TEMPLATE, world.system)
    world.sandbox.faults.fail(f"PUT .*/{own(vm, 1)}$", times=-1)
    failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert own(vm) in volumes(world)
    lose_a_replica_of(world, own(vm))
    world.sandbox.faults.clear()
    world.cloud.recover_retry(vm)
    assert vm.lcm_state == LcmState.RUNNING
    assert link(world, vm, 0) == f"{own(vm)}-2"


def test_names_that_are_all_taken_are_told_with_the_remedy(world: World) -> None:
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node1", world.system)
    made = definition(world, own(vm))
    for name in Names().successors(own(vm))[1:]:
        body = {"resource_definition_name": name, "volume_sizes": [4096], "resource_definition_props": made["props"]}
        post(world, f"/v1/resource-groups/{made['group']}/spawn", body)
    # Enough of the nodes that every volume has a replica on one of them.
    for node in ("node2", "node3"):
        world.sandbox.set_node(node, online=False)
    world.cloud.recover_recreate(vm)
    told = failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert f"{own(vm)} of an earlier VM or image is still being deleted: bring its offline nodes back" in told
    assert "`linstor node lost`" in told
