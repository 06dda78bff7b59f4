"""vmm/kvm/save_linstor_un: the VM's memory on a replicated volume, or the VM runs on."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import ActionFailed, VirtualMachine
from linstor_sandbox.opennebula.datastores import Datastore
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.living import guest, killed_while, start, text, write
from tests.linstor_un.scenes import MIB, add_image, attached, definition, last, own, replicas, volumes

SWAP = "DISK=[TYPE=swap,SIZE=4]"


def checkpoint(vm: VirtualMachine) -> str:
    return f"one-vm-{vm.identifier}-checkpoint"


def runs_on(world: World, vm: VirtualMachine) -> None:
    assert vm.lcm_state.name == "RUNNING"
    assert guest(world, vm).state == "running"
    write(world, vm, 0, "it runs")


def failed_save(world: World, vm: VirtualMachine) -> str:
    with pytest.raises(ActionFailed) as failed:
        world.cloud.suspend(vm)
    return failed.value.call.stderr


@pytest.mark.parametrize("memory_mib", [64, 700])
def test_the_memory_is_on_a_volume_of_sufficient_size(world: World, memory_mib: int) -> None:
    vm = world.cloud.instantiate(f"MEMORY={memory_mib} {SWAP}", "node1", world.system)
    world.cloud.suspend(vm)
    found = definition(world, checkpoint(vm))
    assert len(replicas(world, checkpoint(vm))) == 1, "CHECKPOINT_AUTO_PLACE"
    assert attached(world, checkpoint(vm)) == set()
    assert world.sandbox.device_size(checkpoint(vm)) >= (memory_mib + 512) * MIB
    assert found["props"]["Aux/one/VM_ID"] == str(vm.identifier)
    assert "Aux/one/INCOMPLETE" not in found["props"]
    state = world.sandbox.snapshot_of_state()
    assert (state["domains"], state["open"]) == ([], [])


def test_the_replica_count_is_the_checkpoints_own(make_world: Callable[..., World]) -> None:
    world = make_world()
    system = world.cloud.create_datastore(
        SYSTEM_TEMPLATE.replace('CHECKPOINT_AUTO_PLACE="1"', 'CHECKPOINT_REPLICA_COUNT="3"').replace("-system", "-sys3")
    )
    vm = world.cloud.instantiate(SWAP, "node1", system)
    world.cloud.suspend(vm)
    assert len(replicas(world, checkpoint(vm))) == 3
    assert len(replicas(world, own(vm))) == 2


def test_requests_and_connections(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    world.cloud.suspend(vm)
    counts = last(world, "save_linstor_un").counts
    # The version, is there one already, spawn, complete; and where the host has no replica: attach, look, detach.
    assert counts["ssh"] == 1 and counts["rest"] in (4, 7)


@pytest.mark.parametrize("broken", ["libvirt", "no room in the volume", "no room in the pool", "node", "ssh"])
def test_a_failed_save_lets_the_vm_run_and_removes_the_volume(make_world: Callable[..., World], broken: str) -> None:
    world = make_world(configuration='DEVICE_TIMEOUT="1"\n')
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    if broken == "libvirt":
        world.sandbox.fail_virsh("save")
    elif broken == "no room in the volume":
        guest(world, vm).memory_kib = 900 * 1024
    elif broken == "no room in the pool":
        for node in world.cloud.hosts:
            world.sandbox.fill_pool(node, "data", 8)
    elif broken == "node":
        world.sandbox.set_node("node1", online=False, satellite_only=True)
    else:
        world.sandbox.refuse_ssh("node1")
    assert failed_save(world, vm)
    world.sandbox.refuse_ssh("node1", False)
    world.sandbox.set_node("node1", online=True, satellite_only=True)
    runs_on(world, vm)
    if broken == "ssh":
        # Whether libvirt has saved the VM is not known then, so that the volume stays until the next save.
        assert "is not known" in last(world, "save_linstor_un").stderr
    else:
        assert checkpoint(vm) not in volumes(world)
    for node in world.cloud.hosts:
        world.sandbox.fill_pool(node, "data", 16384)
    guest(world, vm).memory_kib = 128 * 1024
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    runs_on(world, vm)


def test_a_block_job_that_ends_is_waited_for(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.sandbox.fail_virsh("save", message="Requested operation is not valid: domain has active block job")
    world.cloud.suspend(vm)
    assert guest(world, vm).state == "saved"


def test_saved_twice_is_saved_once(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.cloud.suspend(vm)
    call = last(world, "save_linstor_un")
    before = world.sandbox.read(checkpoint(vm), 0, 4096)
    again = world.cloud.scripts.local_action("save_linstor_un", call.argv, call.stdin)
    assert again.succeeded, again.stderr
    assert world.sandbox.read(checkpoint(vm), 0, 4096) == before
    world.cloud.resume(vm)
    runs_on(world, vm)


def test_killed_after_libvirt_has_saved_it(world: World) -> None:
    """The mark of an incomplete volume stays, and libvirt knows that the image is complete."""
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    with killed_while(world, r"PUT .*checkpoint", signal.SIGKILL), pytest.raises(ActionFailed):
        world.cloud.suspend(vm)
    assert guest(world, vm).state == "saved"
    for lock in (world.folder.parent / "locks").iterdir():
        lock.unlink()
    vm.become(type(vm.state).SUSPENDED)
    vm.is_saved = True
    world.cloud.resume(vm)
    runs_on(world, vm)
    assert checkpoint(vm) not in volumes(world)


def test_an_older_checkpoint_of_a_vm_that_runs_is_replaced(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.cloud.suspend(vm)
    world.sandbox.faults.fail(r"DELETE .*checkpoint", 998)
    world.cloud.resume(vm)
    assert checkpoint(vm) in volumes(world)
    write(world, vm, 0, "newer")
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    assert text(world, own(vm)) == "newer"
    assert checkpoint(vm) not in volumes(world)


def test_the_volume_goes_with_the_vm(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.cloud.suspend(vm)
    world.cloud.terminate(vm)
    assert volumes(world) == set()


def test_thick_pools_hold_memory_too(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 4096),))
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    runs_on(world, vm)


STOCK = """#!/bin/sh
echo "$0 $*" > "$HOME/stock"
cat > "$HOME/stock.xml"
exit {status}
"""


@pytest.mark.parametrize("other", ["system datastore", "disk"])
@pytest.mark.parametrize("status", [0, 3])
def test_another_drivers_vm_is_the_stock_actions(world: World, other: str, status: int) -> None:
    add_image(world)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    if other == "disk":
        vm.disk(0).attributes["TM_MAD"] = "ceph"
    else:
        attributes = {"TM_MAD": "ssh", "TYPE": "SYSTEM_DS", "REPLICA_COUNT": "as many as you like"}
        vm.current.datastore = Datastore(900, "ssh-system", "SYSTEM_DS", attributes)
    home = world.sandbox.host("node1") / "var"
    script = home / "tmp/one/vmm/kvm/save"
    script.parent.mkdir(parents=True)
    script.write_text(STOCK.format(status=status))
    script.chmod(0o755)
    before = world.sandbox.snapshot_of_state()["resource_definitions"]
    if status:
        assert "vmm/kvm/save on node1 failed" in failed_save(world, vm)
    else:
        world.cloud.suspend(vm)
    call = last(world, "save_linstor_un")
    words = (home / "lib/one/stock").read_text().split()
    assert [word.replace(str(world.sandbox.host("node1")), "") for word in words[1:]] == call.argv
    assert (home / "lib/one/stock.xml").read_text() == call.action_data
    assert world.sandbox.snapshot_of_state()["resource_definitions"] == before


def test_input_that_makes_no_sense_changes_nothing(world: World) -> None:
    vm = start(world, SWAP)
    before = world.sandbox.snapshot_of_state()
    path = f"/var/lib/one//datastores/100/{vm.identifier}/checkpoint"
    world.cloud.suspend(vm)
    good = last(world, "save_linstor_un")
    world.cloud.resume(vm)
    scripts = world.cloud.scripts
    bad: tuple[tuple[list[str], str], ...] = (
        ([vm.deploy_id, path, "node1", "99", "node1"], good.stdin),
        (["-x", path, "node1", str(vm.identifier), "node1"], good.stdin),
        ([vm.deploy_id, "/x/../../etc/passwd", "node1", str(vm.identifier), "node1"], good.stdin),
        ([vm.deploy_id, path, "-oProxyCommand=x", str(vm.identifier), "node1"], good.stdin),
        ([vm.deploy_id, path, "node1"], good.stdin),
        (good.argv, ""),
    )
    for argv, stdin in bad:
        call = scripts.local_action("save_linstor_un", argv, stdin)
        assert not call.succeeded and "defect" not in call.stderr
    after = world.sandbox.snapshot_of_state()
    assert set(after["resource_definitions"]) == set(before["resource_definitions"])
    runs_on(world, vm)


def test_memory_is_not_given_up_while_libvirt_does_not_answer(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.cloud.suspend(vm)
    call = last(world, "save_linstor_un")
    before = world.sandbox.read(checkpoint(vm), 0, 4096)
    for command in ("domstate", "save-image-dumpxml", "list"):
        world.sandbox.fail_virsh(command, message="failed to connect to the hypervisor")
    again = world.cloud.scripts.local_action("save_linstor_un", call.argv, call.stdin)
    assert not again.succeeded and "does not say whether" in again.stderr
    assert world.sandbox.read(checkpoint(vm), 0, 4096) == before
    world.cloud.resume(vm)
    runs_on(world, vm)


def test_a_save_whose_answer_was_lost_keeps_the_memory(world: World) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.sandbox.fail_virsh("save", "answer", "Disconnected from qemu:///system due to end of file")
    for command in ("domstate", "save-image-dumpxml", "list"):
        world.sandbox.fail_virsh(command, message="failed to connect to the hypervisor")
    failed_save(world, vm)
    assert guest(world, vm).state == "saved" and checkpoint(vm) in volumes(world)


def test_more_replicas_than_nodes_are_refused_by_the_attributes_own_name(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='NODE_LIST="node1 node2"\n')
    system = world.cloud.create_datastore(
        SYSTEM_TEMPLATE.replace('CHECKPOINT_AUTO_PLACE="1"', 'CHECKPOINT_REPLICA_COUNT="3"').replace("-system", "-sys3")
    )
    vm = world.cloud.instantiate(SWAP, "node1", system)
    assert 'CHECKPOINT_REPLICA_COUNT="3" contradicts NODE_LIST="node1 node2"' in failed_save(world, vm)
    runs_on(world, vm)


@pytest.mark.parametrize("request_that_fails", ["PUT .*checkpoint", "DELETE .*checkpoint/resources/"])
def test_a_vm_that_is_saved_stays_saved_whatever_linstor_says_then(world: World, request_that_fails: str) -> None:
    vm = world.cloud.instantiate(SWAP, "node1", world.system)
    world.sandbox.faults.fail(request_that_fails, 998)
    world.cloud.suspend(vm)
    assert guest(world, vm).state == "saved"
    world.cloud.resume(vm)
    runs_on(world, vm)
    assert checkpoint(vm) not in volumes(world)
