"""tm/snap_create_live: the VM is held for one request of LINSTOR, and let go whatever happens."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.faults import Fault
from linstor_sandbox.opennebula import ActionFailed
from linstor_un.hosts import virsh
from tests.conftest import World
from tests.linstor_un.cluster.tls import among, standby, starting
from tests.linstor_un.hosts.hosts_in_a_box import host
from tests.linstor_un.living import guest, held_for_one_request, holds, killed_while, snapshots, start, text, write
from tests.linstor_un.scenes import MIB, add_image, failure, last, own, sentence, volume

SNAPSHOT = r"POST .*/snapshots"


def test_a_cloned_and_a_persistent_disk_while_the_guest_is_frozen(world: World) -> None:
    vm = start(world)
    resources = own(vm), volume(world.cloud.images[1])
    for disk_id, resource in enumerate(resources):
        write(world, vm, disk_id, "before")
        world.cloud.snapshot_create(vm, vm.disk(disk_id))
        assert snapshots(world, resource) == {"snapshot-0"} | ({"linstor_un-base"} & snapshots(world, resource))
        # A VM's own disk is asked for first: its volume may have another name.
        assert last(world, "snap_create_live").counts == {"rest": 3 + (resource == own(vm)), "ssh": 1}
        write(world, vm, disk_id, "after")
    assert [begin.what for begin, _ in holds(world)] == ["freeze", "freeze"]
    assert held_for_one_request(world)
    world.cloud.poweroff(vm)
    for disk_id, resource in enumerate(resources):
        world.cloud.snapshot_revert(vm, vm.disk(disk_id), vm.snapshots[disk_id].get(0))
        assert text(world, resource) == "before"


@pytest.mark.parametrize("agent", ["off", "hung", "late"])
def test_a_guest_without_a_good_agent_is_suspended(make_world: Callable[..., World], agent: str) -> None:
    world = make_world(configuration='FREEZE_TIMEOUT="1"\n')
    vm = start(world, "DISK=[IMAGE_ID=0]")
    guest(world, vm).agent, guest(world, vm).agent_seconds = agent, 1.3
    world.cloud.snapshot_create(vm, vm.disk(0))
    suspended = [
        (a, b) for a, b in zip(world.sandbox.domains.events, world.sandbox.domains.events[1:]) if a.what == "suspend"
    ]
    assert [end.what for _, end in suspended] == ["resume"]
    assert suspended[0][1].requests - suspended[0][0].requests == 1
    write(world, vm, 0, "it runs")


@pytest.mark.parametrize(("agent", "command"), [("on", "domfsthaw"), ("off", "resume")])
def test_a_vm_whose_holder_is_killed_on_its_host_is_let_go(world: World, agent: str, command: str) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    guest(world, vm).agent = agent
    tools, mark = world.sandbox.host(vm.host), world.folder / "killed"
    tool = tools / "steps" / "virsh"
    # All processes of its session, which is that of the script.
    kill = (
        'for n in /proc/[0-9]*; do set -- $(cat $n/stat 2>/dev/null); [ "${6:-}" != $own ] || kill -9 ${n#/proc/}; done'
    )
    tool.write_text(
        f"#!/bin/sh\ncase $* in *{command}*) [ -e {mark} ] || "
        f"{{ touch {mark}; set -- $(cat /proc/$$/stat); own=$6; {kill}; }} ;; esac\n"
        f'exec {tools}/bin/virsh "$@"\n'
    )
    tool.chmod(0o755)
    assert "Killed" in failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert mark.exists()
    write(world, vm, 0, "it runs")


def test_a_guest_that_stayed_frozen_is_let_go_by_the_next_snapshot(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    guest(world, vm).freeze()
    world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "it runs")


def test_an_agent_that_freezes_when_all_is_over_is_thawed(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='FREEZE_TIMEOUT="1"\n')
    vm = start(world, "DISK=[IMAGE_ID=0]")
    guest(world, vm).agent, guest(world, vm).agent_seconds = "late", 2.5
    world.cloud.snapshot_create(vm, vm.disk(0))
    assert [event.what for event in world.sandbox.domains.events] == ["suspend", "resume", "freeze", "thaw"]
    write(world, vm, 0, "it runs")


def test_what_the_file_system_writes_together_is_in_the_snapshot_together(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=0]")
    target = vm.disk(0).attributes["TARGET"]
    with guest(world, vm).at_once():
        guest(world, vm).write(target, b"one")
        guest(world, vm).write(target, b"one", 2 * MIB)
    world.cloud.snapshot_create(vm, vm.disk(0))
    guest(world, vm).write(target, b"two")
    world.cloud.poweroff(vm)
    world.cloud.snapshot_revert(vm, vm.disk(0), vm.snapshots[0].get(0))
    assert world.sandbox.read(own(vm), 0, 3) == world.sandbox.read(own(vm), 2 * MIB, 3) == b"one"


@pytest.mark.parametrize("broken", ["refuses", "satellite", "loses both answers"])
def test_a_failed_snapshot_is_gone_and_the_vm_runs(world: World, broken: str) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    if broken == "refuses":
        world.sandbox.faults.fail(SNAPSHOT, 998)
    elif broken == "satellite":
        world.sandbox.break_satellite("node1", "snapshot")
        world.sandbox.break_satellite("node2", "snapshot")
        world.sandbox.break_satellite("node3", "snapshot")
    else:
        world.sandbox.faults.drop(SNAPSHOT, after_work=True, times=2)
    assert failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert snapshots(world, volume(world.cloud.images[1])) == set()
    assert len(holds(world)) == (2 if broken == "loses both answers" else 1) and held_for_one_request(world)
    write(world, vm, 0, "it runs")
    world.sandbox.mend()
    assert world.cloud.snapshot_create(vm, vm.disk(0)).identifier == 1


def test_a_vm_is_not_held_while_another_controller_takes_over(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    box = world.sandbox
    fault = Fault("do", re.compile(SNAPSHOT), ends=True, action=box.stop_controller)
    with standby(knocked=starting(world, 3)) as other:
        among(world, box.uri, other)
        box.faults.add(fault)
        world.cloud.snapshot_create(vm, vm.disk(0))
    assert snapshots(world, volume(world.cloud.images[1])) == {"snapshot-0"}
    assert len(holds(world)) == 2
    # The version, the nodes and what was left of the first try are asked for between the two.
    assert held_for_one_request(world)
    write(world, vm, 0, "it runs")


@pytest.mark.parametrize("agent", ["on", "off"])
def test_a_killed_driver_leaves_no_vm_held(world: World, agent: str) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    guest(world, vm).agent = agent
    with killed_while(world, SNAPSHOT), pytest.raises(ActionFailed):
        world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "it runs", wait=True)
    assert len(holds(world)) == 1
    (world.folder.parent / "locks" / f"linstor_un-{volume(world.cloud.images[1])}.lock").unlink()


def test_a_controller_that_hangs_holds_no_vm_for_long(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='HOLD_TIMEOUT="1"\nREQUEST_TIMEOUT="3"\n')
    vm = start(world, "DISK=[IMAGE_ID=1]")
    hang = world.sandbox.faults.hang(SNAPSHOT, 2)
    told = failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    hang.release()
    assert "was held for 1 s without an answer and is let go" in told
    begin, end = holds(world)[0]
    assert end.moment - begin.moment < 2
    assert snapshots(world, volume(world.cloud.images[1])) == set()
    write(world, vm, 0, "it runs")


def test_a_virsh_that_nothing_can_end_is_given_up_and_the_vm_runs(make_world: Callable[..., World]) -> None:
    timeouts = ("FREEZE_TIMEOUT", "HOLD_TIMEOUT", "SSH_CONNECT_TIMEOUT", "IN_USE_TIMEOUT")
    world = make_world(configuration="".join(f'{name}="1"\n' for name in timeouts))
    add_image(world)
    vm = start(world, "DISK=[IMAGE_ID=0]")
    answers, met = threading.Event(), iter((True,))
    world.sandbox.watch = lambda _, command, __: command != "virsh" or not next(met, False) or answers.wait()
    world.sandbox.watch_command(vm.host, "virsh")
    with pytest.raises(ActionFailed) as failed:
        world.cloud.snapshot_create(vm, vm.disk(0))
    answers.set()
    assert "has not done it in 5 s; look there for what hangs" in sentence(failed.value.call)
    assert not snapshots(world, own(vm))
    write(world, vm, 0, "it runs")
    world.cloud.snapshot_create(vm, vm.disk(0))


def test_a_vm_that_cannot_be_let_go_is_named_and_has_no_snapshot(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.sandbox.fail_virsh("domfsthaw", times=3)
    told = failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert "stays frozen: let it go with virsh" in told
    assert snapshots(world, volume(world.cloud.images[1])) == set()


def test_one_failed_thaw_is_tried_again(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.sandbox.fail_virsh("domfsthaw", times=2)
    world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "it runs")


def test_a_thick_pool_has_no_snapshots(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 2048),))
    add_image(world)
    add_image(world, 2, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=1]", "node1", world.system)
    before = world.sandbox.snapshot_of_state()
    told = failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert "Storage driver 'LVM' does not support snapshots" in told
    assert "keep disks that need snapshots in a pool of kind LVM_THIN, ZFS" in told
    assert world.sandbox.snapshot_of_state() == before
    write(world, vm, 0, "it runs")


def test_a_dead_host_and_a_vm_that_does_not_run(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    world.sandbox.domains.drop_host("node1")
    assert "failed to get domain" in failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    world.sandbox.refuse_ssh("node1")
    with pytest.raises(ActionFailed) as failed:
        world.cloud.snapshot_create(vm, vm.disk(0))
    assert "host node1 does not answer over ssh" in sentence(failed.value.call)
    assert snapshots(world, volume(world.cloud.images[1])) == set()


def test_all_is_made_ready_again_when_an_agent_has_taken_its_time(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    guest(world, vm).agent = "off"
    events, seen = world.sandbox.domains.events, []
    with virsh.held(host(world.sandbox, "node1"), vm.deploy_id, lambda: seen.append(len(events))):
        assert [event.what for event in events] == ["suspend"]
    assert seen == [0, 0], "before the agent is asked, and before the VM stands still"


def test_libvirt_that_does_not_suspend_is_told_and_the_vm_runs(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    guest(world, vm).agent = "off"
    world.sandbox.fail_virsh("suspend")
    told = failure(lambda: world.cloud.snapshot_create(vm, vm.disk(0)))
    assert "virsh suspend" in told and "failed or took more than" in told
    assert snapshots(world, volume(world.cloud.images[1])) == set()
    write(world, vm, 0, "it runs")
