"""Moving a VM: its disks are relinked and never copied, its files move with the last line, its source stays usable."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox.opennebula import LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.datastores import Datastore
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import (
    NOTHING,
    add_image,
    again,
    attached,
    cdrom_at,
    content,
    definition,
    failure,
    files,
    homes,
    last,
    link,
    links,
    own,
    path,
    refuse_all,
    replicas,
    requests,
    run,
    share_directories,
    state,
    stranger,
    volume,
    what_is_left,
)

CHECKPOINT = b"the memory of a suspended VM"


def second_system(world: World) -> Datastore:
    return world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))


def small_vm(world: World, host: str = "node1") -> VirtualMachine:
    """A VM with a disk of a non-persistent image, a persistent one and a context."""
    first, second = add_image(world), add_image(world, 2, persistent=True)
    template = f'DISK=[IMAGE_ID={first.identifier}] DISK=[IMAGE_ID={second.identifier}] CONTEXT=[NETWORK="YES"]'
    return world.cloud.instantiate(template, host, world.system)


def swap_vm(world: World, host: str = "node1") -> VirtualMachine:
    """The cheapest VM: one swap disk."""
    return world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", host, world.system)


def foreign_host(world: World, vm: VirtualMachine, disk_id: int = 0) -> str:
    """A host where the disk has no replica and the VM is not."""
    return next(node for node in world.cloud.hosts if node not in replicas(world, own(vm, disk_id)) | {vm.host})


def leave_files(world: World, vm: VirtualMachine, host: str = "") -> None:
    """Put into the VM's directory what a suspended VM has there, and links that must not be followed."""
    outside = world.sandbox.host(host or vm.host) / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"not the VM's")
    path(world, vm, "checkpoint", host).write_bytes(CHECKPOINT)
    path(world, vm, "sparse", host).write_bytes(b"")
    path(world, vm, "vm.xml", host).write_text("<VM/>")
    path(world, vm, "elsewhere", host).symlink_to(outside)
    path(world, vm, "disk.7", host).symlink_to(outside / "precious")
    (path(world, vm, "disk.9.snap", host)).mkdir()
    path(world, vm, "disk.9.snap/0", host).write_bytes(b"a snapshot of another driver's disk")


def test_a_cold_migration_takes_links_files_and_attachments_along(world: World) -> None:
    vm = small_vm(world)
    leave_files(world, vm)
    iso = path(world, vm, "disk.2").read_bytes()
    target = foreign_host(world, vm)
    source = vm.host
    started = len(world.sandbox.requests)
    world.cloud.poweroff(vm)
    world.cloud.migrate_cold(vm, target)

    assert [link(world, vm, number) for number in (0, 1)] == [own(vm), "one-image-1"]
    assert set(links(world)) == {f"{target}:100/0/disk.0", f"{target}:100/0/disk.1"}
    assert path(world, vm, "checkpoint").read_bytes() == CHECKPOINT
    assert path(world, vm, "disk.2").read_bytes() == iso
    assert path(world, vm, "deployment.0").exists() and path(world, vm, "vm.xml").exists()
    assert path(world, vm, "disk.9.snap/0").read_bytes() == b"a snapshot of another driver's disk"
    assert path(world, vm, "elsewhere").is_symlink()
    assert not path(world, vm, "disk.7").is_symlink(), "a link is the disk's own line's to make"
    assert files(world, source) == ["100"]
    assert (world.sandbox.host(source) / "outside" / "precious").read_bytes() == b"not the VM's"
    assert not requests(world, "(POST|PUT|DELETE) .*(spawn|snapshot|clone|definitions/[^/]+$)", started), (
        "a move makes, copies and deletes no volume"
    )
    assert world.sandbox.read(own(vm), 0, 4 << 20) == content(1)
    world.cloud.resume(vm)
    assert world.cloud.hypervisor.running[vm.identifier] == target


def test_a_host_without_a_replica_is_attached_and_detached_and_replicas_never_move(world: World) -> None:
    vm = swap_vm(world)
    before = replicas(world, own(vm))
    away = stranger(world, own(vm))
    world.cloud.migrate_cold(vm, away)
    assert attached(world, own(vm)) == {away}
    for holder in sorted(before):
        world.cloud.migrate_cold(vm, holder)
        assert attached(world, own(vm)) == set()
    assert homes(world, own(vm)) == {**dict.fromkeys(before, "replica"), away: "tie-breaker"}


@pytest.mark.parametrize(
    ("rest", "prepare", "lcm"),
    [
        ("running", lambda world, vm: None, 8),
        ("poweroff", lambda world, vm: world.cloud.poweroff(vm), 43),
        ("suspended", lambda world, vm: world.cloud.suspend(vm), 45),
    ],
)
def test_every_kind_of_cold_migration_is_recovered_from_a_failed_move(
    world: World, rest: str, prepare: Callable[[World, VirtualMachine], None], lcm: int
) -> None:
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4] DISK=[TYPE=swap,SIZE=8]", "node1", world.system)
    seen: list[int] = []
    prepare(world, vm)
    world.cloud.scripts.observers.append(lambda call: seen.append(int(vm.lcm_state)))
    before = vm.state
    world.sandbox.faults.fail(rf"POST .*/{own(vm, 1)}/.*make-available", 998, "the second disk's attachment")
    assert "the second disk's attachment" in failure(lambda: world.cloud.migrate_cold(vm, "node2"))
    assert seen == [lcm, lcm]
    assert [link(world, vm, number, "node1") for number in (0, 1)] == [own(vm, 0), own(vm, 1)]
    assert vm.lcm_state.name.endswith("FAILURE")

    world.cloud.recover_retry(vm)
    assert (vm.host, vm.state) == ("node2", before)
    assert set(links(world)) == {"node2:100/0/disk.0", "node2:100/0/disk.1"}
    assert files(world, "node1") == ["100"]


def test_the_source_is_usable_until_the_directory_has_moved(world: World) -> None:
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4] DISK=[TYPE=swap,SIZE=8]", "node1", world.system)
    away = foreign_host(world, vm)
    world.cloud.migrate_cold(vm, away)
    world.cloud.poweroff(vm)
    # The last line fails: the destination cannot take the files.
    target = next(node for node in world.cloud.hosts if node != away)
    blocked = world.sandbox.host(target) / "var/lib/one/datastores/100/0/deployment.0"
    blocked.mkdir(parents=True)
    (blocked / "in the way").write_bytes(b"")
    reason = failure(lambda: world.cloud.migrate_cold(vm, target))
    assert "deployment.0" in reason and target in reason
    assert last(world, "mv").argv[0].endswith("/0"), "the disks had moved"
    assert [link(world, vm, number, away) for number in (0, 1)] == [own(vm, 0), own(vm, 1)]
    assert path(world, vm, "deployment.1", away).exists()

    world.cloud.recover_failure(vm)
    assert (vm.host, vm.state) == (away, VmState.POWEROFF)
    world.cloud.resume(vm)
    assert world.cloud.hypervisor.running[vm.identifier] == away
    world.cloud.terminate(vm)
    assert what_is_left(world)["volumes"] == []


def test_recover_failure_of_a_running_vm_starts_it_at_its_source_without_any_driver(world: World) -> None:
    vm = small_vm(world, "node3")
    world.sandbox.faults.fail(r"POST .*/one-image-1/.*make-available", 998, "no second disk")
    failure(lambda: world.cloud.migrate_cold(vm, "node2"))
    calls = len(world.cloud.calls)
    world.cloud.recover_failure(vm)
    assert [call.verb for call in world.cloud.calls[calls:]] == ["context"]
    assert world.cloud.hypervisor.running[vm.identifier] == "node3"
    world.cloud.terminate(vm)
    assert set(links(world)) <= {"node2:100/0/disk.0"}, "only what oned never asks to remove"
    assert attached(world, "one-image-1") == set()


@pytest.mark.parametrize("operation", ["stop", "undeploy"])
def test_a_parked_vm_keeps_its_volumes_and_comes_back_anywhere(world: World, operation: str) -> None:
    vm = small_vm(world, "node3")
    leave_files(world, vm)
    before = {name: replicas(world, name) for name in (own(vm), "one-image-1")}
    getattr(world.cloud, operation)(vm)
    assert links(world) == {}
    assert {name: attached(world, name) for name in before} == {own(vm): set(), "one-image-1": set()}
    assert files(world, "node3") == ["100"]
    parked = world.frontend / "datastores/100/0"
    assert (parked / "checkpoint").read_bytes() == CHECKPOINT
    assert sorted(found.name for found in parked.iterdir() if found.is_symlink()) == ["elsewhere"]
    assert not [connection for connection in world.sandbox.connections if connection.host == "onefe"]

    target = stranger(world, own(vm))
    other = second_system(world)
    world.cloud.deploy(vm, target, other)
    assert link(world, vm, 0) == own(vm) and link(world, vm, 1) == "one-image-1"
    assert path(world, vm, "checkpoint").read_bytes() == CHECKPOINT
    assert not parked.exists()
    assert definition(world, own(vm))["props"]["Aux/one/DS_ID"] == str(other.identifier)
    assert {name: replicas(world, name) for name in before} == before
    assert world.sandbox.read("one-image-1", 0, 4 << 20) == content(2)


@pytest.mark.parametrize(("operation", "failed"), [("stop", 41), ("undeploy", 42)])
def test_a_failed_parking_is_retried(world: World, operation: str, failed: int) -> None:
    vm = swap_vm(world)
    world.frontend.joinpath("datastores").mkdir()
    world.frontend.joinpath("datastores/100").write_text("a file where a directory must be")
    assert "datastores/100" in failure(lambda: getattr(world.cloud, operation)(vm))
    assert vm.lcm_state == failed
    assert link(world, vm, 0) == own(vm)
    world.frontend.joinpath("datastores/100").unlink()
    world.cloud.recover_retry(vm)
    assert links(world) == {}


@pytest.mark.parametrize(("operation", "failed"), [("stop", 49), ("undeploy", 50)])
def test_a_failed_return_is_retried_and_another_host_finds_the_files(world: World, operation: str, failed: int) -> None:
    vm = swap_vm(world)
    getattr(world.cloud, operation)(vm)
    world.sandbox.refuse_ssh("node2")
    assert "node2" in failure(lambda: world.cloud.deploy(vm, "node2", world.system))
    assert vm.lcm_state == failed
    assert (world.frontend / "datastores/100/0/deployment.0").exists()
    world.sandbox.refuse_ssh("node2", False)
    world.cloud.recover_retry(vm)
    assert link(world, vm, 0, "node2") == own(vm)
    assert path(world, vm, "deployment.0").exists()


def test_the_same_line_with_the_failed_state_of_a_release_that_keeps_it_does_the_same(world: World) -> None:
    vm = swap_vm(world)
    line = "mv node1:/var/lib/one//datastores/100/0{0} onefe:/var/lib/one//datastores/100/0{0} 0 100"
    for lcm in (41, 42):
        vm.become(VmState.ACTIVE, LcmState(lcm))
        assert run(world, line.format("/disk.0")).succeeded
        assert link(world, vm, 0) == own(vm), "the disk's line changes nothing at the source"
    assert run(world, line.format("")).succeeded
    assert links(world) == {}
    back = "mv onefe:/var/lib/one//datastores/100/0{0} node2:/var/lib/one//datastores/100/0{0} 0 100"
    vm.place("node2", 1, world.system)
    for lcm in (49, 50):
        vm.become(VmState.ACTIVE, LcmState(lcm))
        assert run(world, back.format("/disk.0")).succeeded
        assert run(world, back.format("")).succeeded
    assert link(world, vm, 0, "node2") == own(vm)


@pytest.mark.parametrize("how", ["dead", "no ssh"])
def test_a_vm_in_unknown_leaves_its_host_without_asking_it(world: World, how: str) -> None:
    vm = world.cloud.instantiate('DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]', "node1", world.system)
    source = foreign_host(world, vm)
    world.cloud.migrate_cold(vm, source)
    if how == "dead":
        world.sandbox.set_node(source, online=False)
    else:
        world.cloud.hypervisor.end(vm)
        world.sandbox.refuse_ssh(source)
    world.cloud.lose_host(vm)
    world.sandbox.clear_connections()
    target = sorted(replicas(world, own(vm)))[0]
    world.cloud.migrate_cold(vm, target)
    assert source not in {connection.host for connection in world.sandbox.connections}
    assert link(world, vm, 0, target) == own(vm)
    assert world.cloud.hypervisor.running[vm.identifier] == target
    assert attached(world, own(vm)) <= {source}
    world.sandbox.set_node(source, online=True)
    assert attached(world, own(vm)) == set(), "LINSTOR detaches when the host is back"


def test_a_vm_in_unknown_whose_move_failed_is_retried(world: World) -> None:
    vm = swap_vm(world)
    world.sandbox.set_node("node1", online=False)
    world.cloud.lose_host(vm)
    world.sandbox.refuse_ssh("node2")
    failure(lambda: world.cloud.migrate_cold(vm, "node2"))
    assert vm.lcm_state == 61
    world.sandbox.refuse_ssh("node2", False)
    world.sandbox.clear_connections()
    world.cloud.recover_retry(vm)
    assert {connection.host for connection in world.sandbox.connections} == {"node2"}
    assert link(world, vm, 0) == own(vm)


def test_a_source_that_does_not_answer_never_blocks_the_destination(world: World) -> None:
    vm = swap_vm(world)
    source = stranger(world, own(vm))
    world.cloud.migrate_cold(vm, source)
    world.cloud.poweroff(vm)
    world.sandbox.refuse_ssh(source)
    target = sorted(replicas(world, own(vm)))[0]
    world.cloud.migrate_cold(vm, target)
    assert link(world, vm, 0, target) == own(vm)
    assert attached(world, own(vm)) == set(), "detached by LINSTOR although the host does not answer"
    world.cloud.resume(vm)


def test_a_source_whose_links_are_gone_is_moved_all_the_same(world: World) -> None:
    vm = swap_vm(world)
    world.cloud.poweroff(vm)
    path(world, vm, "disk.0").unlink()
    world.cloud.migrate_cold(vm, "node2")
    assert link(world, vm, 0, "node2") == own(vm)
    # And once more without any directory at the source.
    world.cloud.migrate_cold(vm, "node3")
    assert run(world, "mv node2:/var/lib/one//datastores/100/0 node3:/var/lib/one//datastores/100/0 0 100").succeeded
    assert link(world, vm, 0, "node3") == own(vm)
    assert files(world, "node2") == ["100"]


def test_another_system_datastore_on_the_same_host_is_only_relinked(world: World) -> None:
    vm = small_vm(world)
    other = second_system(world)
    before = {name: homes(world, name) for name in (own(vm), "one-image-1")}
    world.cloud.poweroff(vm)
    world.cloud.snapshot_create(vm, vm.disks[0])
    world.cloud.migrate_cold(vm, "node1", other)
    assert {name: homes(world, name) for name in before} == before
    assert set(links(world)) == {"node1:102/0/disk.0", "node1:102/0/disk.1"}
    assert files(world, "node1") == ["100", "102", "102/0", *(f"102/0/{name}" for name in _VM_FILES)]
    assert definition(world, own(vm))["props"]["Aux/one/DS_ID"] == str(other.identifier)
    assert definition(world, own(vm))["props"]["Aux/one/VM_ID"] == "0"
    assert "Aux/one/DS_ID" not in definition(world, "one-image-1")["props"]
    world.cloud.snapshot_revert(vm, vm.disks[0], vm.snapshots_of(vm.disks[0]).get(0))
    world.cloud.resume(vm)
    world.cloud.migrate_cold(vm, "node1", world.system)
    assert definition(world, own(vm))["props"]["Aux/one/DS_ID"] == str(world.system.identifier)
    world.cloud.terminate(vm)
    assert files(world, "node1") == ["100", "102"]


_VM_FILES = ("deployment.0", "disk.0", "disk.1", "disk.2")


def test_the_same_host_and_path_is_no_move(world: World) -> None:
    vm = swap_vm(world)
    vm.become(VmState.ACTIVE, LcmState.PROLOG_MIGRATE)
    before = state(world)
    for name in ("/disk.0", ""):
        place = f"node1:/var/lib/one//datastores/100/0{name}"
        assert run(world, f"mv {place} {place} 0 100").succeeded
    assert state(world) == before


def test_a_directory_that_both_hosts_share_is_not_removed(world: World) -> None:
    share_directories(world, "node1", "node2")
    vm = small_vm(world)
    path(world, vm, "checkpoint").write_bytes(CHECKPOINT)
    iso = path(world, vm, "disk.2").read_bytes()
    world.cloud.poweroff(vm)
    world.cloud.migrate_cold(vm, "node2")
    assert path(world, vm, "checkpoint").read_bytes() == CHECKPOINT
    assert path(world, vm, "disk.2").read_bytes() == iso
    assert link(world, vm, 0) == own(vm) and link(world, vm, 1) == "one-image-1"
    assert not [name for name in files(world, "node1") if "linstor_un" in name], "no mark is left"
    assert again(world, last(world, "mv")).succeeded
    assert path(world, vm, "checkpoint").exists()


def test_a_cdrom_leaves_a_host_that_shares_the_vms_directory(world: World) -> None:
    cdrom, source, target = cdrom_at(world)
    share_directories(world, source, target)
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={cdrom.identifier}]", source, world.system)
    world.cloud.migrate_cold(vm, target)
    assert attached(world, volume(cdrom)) == set()
    assert link(world, vm, 0) == volume(cdrom)


def test_a_cdrom_follows_and_leaves_only_where_no_other_vm_has_it(world: World) -> None:
    cdrom, source, target = cdrom_at(world)
    one, other = (
        world.cloud.instantiate(f"DISK=[IMAGE_ID={cdrom.identifier}]", source, world.system) for _ in range(2)
    )
    world.cloud.migrate_cold(one, target)
    assert attached(world, volume(cdrom)) == {source}, "the other VM still has it there"
    assert world.cloud.hypervisor.running[other.identifier] == source
    world.cloud.migrate_cold(other, target)
    assert attached(world, volume(cdrom)) == set()
    assert len(links(world)) == 2


def test_the_front_end_may_be_a_host(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='FRONTEND_HOSTNAME="node3"', frontend_host="node3")
    world.cloud.frontend = "node3"
    vm = swap_vm(world, "node3")
    path(world, vm, "checkpoint").write_bytes(CHECKPOINT)
    world.cloud.stop(vm)
    world.cloud.deploy(vm, "node3", world.system)
    assert link(world, vm, 0) == own(vm)
    away = stranger(world, own(vm))
    if away == "node3":
        assert attached(world, own(vm)) == {"node3"}
    world.cloud.stop(vm)
    world.cloud.deploy(vm, "node1", world.system)
    assert attached(world, own(vm)) <= {"node1"}, "the front-end is no place of the VM any more"
    assert set(links(world)) == {"node1:100/0/disk.0"}
    assert path(world, vm, "checkpoint").read_bytes() == CHECKPOINT
    world.cloud.terminate(vm)
    assert what_is_left(world) == NOTHING


def test_a_vm_that_ran_elsewhere_is_detached_from_a_front_end_that_was_its_host(
    make_world: Callable[..., World],
) -> None:
    world = make_world(
        nodes=("node1", "node2", "node3", "node4"), configuration='FRONTEND_HOSTNAME="node4"', frontend_host="node4"
    )
    world.cloud.frontend = "node4"
    vm = swap_vm(world)
    home = sorted(replicas(world, own(vm)))
    if "node4" in home:
        pytest.skip("the placement took the front-end")
    world.cloud.migrate_cold(vm, "node4")
    assert attached(world, own(vm)) >= {"node4"}
    world.cloud.undeploy(vm)
    world.cloud.deploy(vm, home[0], world.system)
    assert "node4" not in attached(world, own(vm))
    assert set(links(world)) == {f"{home[0]}:100/0/disk.0"}


NO_SENSE = [
    ("mv node1:/d/100/0/disk.0 node2:/d/100/0/disk.1 0 100", "are not the same disk"),
    ("mv node1:/d/100/0 node2:/d/100/0/disk.0 0 100", "are not the same disk"),
    ("mv node1:/d/100/0/disk.0 node2:/d/100/0/disk.0 7 100", "is not a path of VM 7"),
    ("mv node1:/d/100/0/disk.0 node2:/d/100/0/disk.0 0", "takes 4 arguments"),
    ("mv node1:/d/100/0/disk.0 node2;id:/d/100/0/disk.0 0 100", "is not the name of a host"),
    ("mv node1:/d/100/0/disk.0 node2:/d/100/../0/disk.0 0 100", "is not HOST:/path"),
    ("mv node1:/d/100/77/disk.0 node2:/d/100/77/disk.0 77 100", "oned knows no VM 77"),
    ("mv node1:/d/100/0/disk.5 node2:/d/100/0/disk.5 0 100", "oned knows no disk 5"),
    ("mv node1:/d/100/0/disk.0 nowhere:/d/100/0/disk.0 0 100", "Host nowhere is not a node of LINSTOR"),
    ("mv node1:/d/100/0/disk.0 node2:/d/100/0/disk.0 0 999", "oned knows no datastore 999"),
]


def test_lines_that_make_no_sense_are_sentences_and_change_nothing(world: World) -> None:
    vm = swap_vm(world)
    vm.become(VmState.ACTIVE, LcmState.PROLOG_MIGRATE)
    refuse_all(world, NO_SENSE)


def test_a_vm_in_unknown_gives_up_what_is_its_own_on_the_dead_host(world: World) -> None:
    cdrom, persistent = add_image(world, 3, type="CDROM"), add_image(world, persistent=True)
    template = f"DISK=[IMAGE_ID={cdrom.identifier}] DISK=[IMAGE_ID={persistent.identifier}]"
    vm = world.cloud.instantiate(template, stranger(world, volume(persistent)), world.system)
    source = vm.host
    world.cloud.hypervisor.end(vm)
    world.sandbox.refuse_ssh(source)
    world.cloud.lose_host(vm)
    world.sandbox.clear_connections()
    world.cloud.migrate_cold(vm, sorted(replicas(world, volume(persistent)))[0])
    assert source not in {connection.host for connection in world.sandbox.connections}
    assert attached(world, volume(persistent)) == set()


def test_a_source_that_does_not_answer_keeps_only_what_others_may_have_there(world: World) -> None:
    cdrom, persistent = add_image(world, 3, type="CDROM"), add_image(world, persistent=True)
    template = f"DISK=[IMAGE_ID={cdrom.identifier}] DISK=[IMAGE_ID={persistent.identifier}]"
    vm = world.cloud.instantiate(template, stranger(world, volume(persistent)), world.system)
    world.cloud.poweroff(vm)
    world.sandbox.refuse_ssh(vm.host)
    world.cloud.migrate_cold(vm, sorted(replicas(world, volume(persistent)))[0])
    assert attached(world, volume(persistent)) == set()
