"""Deleting: what is the VM's own goes, wherever the line points and however often it comes; images are detached."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from linstor_sandbox.opennebula import LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.images import ImageState
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import (
    NOTHING,
    add_image,
    again,
    attached,
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
    run,
    sentence,
    state,
    stranger,
    succeed,
    volume,
    volumes,
    what_is_left,
)

DISK = "delete {}:/var/lib/one//datastores/100/{}/disk.{} {} {}"
DIRECTORY = "delete {}:/var/lib/one//datastores/100/{} {} 100"


def foreign_volume(world: World, name: str, **properties: str) -> dict[str, Any]:
    """A volume that no action of this OpenNebula has made."""
    body = {
        "resource_definition_name": name,
        "volume_sizes": [4096],
        "select_filter": {"place_count": 2, "storage_pool_list": ["data"]},
        "resource_definition_props": properties,
    }
    address = f"{world.sandbox.uri}/v1/resource-groups/DfltRscGrp/spawn"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    urllib.request.urlopen(request).read()
    return definition(world, name)


def full_vm(world: World, host: str = "node1") -> VirtualMachine:
    """A VM with a disk of every kind; image 0 is the clone's, 1 persistent, 2 a CDROM."""
    add_image(world)
    add_image(world, 2, persistent=True)
    add_image(world, 3, type="CDROM")
    return world.cloud.instantiate(
        "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] DISK=[IMAGE_ID=2] DISK=[TYPE=fs,FORMAT=raw,SIZE=4] "
        'DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]',
        host,
        world.system,
    )


def swap_vm(world: World, host: str = "node1") -> VirtualMachine:
    return world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", host, world.system)


def test_recover_delete_of_a_running_vm_deletes_its_own_disks_and_detaches_the_images(world: World) -> None:
    before = len(world.sandbox.requests)
    vm = full_vm(world, "node3")
    world.cloud.recover_delete(vm)
    assert all(call.succeeded for call in world.cloud.calls[-6:])
    assert volumes(world) == {"one-image-0", "one-image-1", "one-image-2"}
    assert [attached(world, name) for name in sorted(volumes(world))] == [set(), set(), set()]
    assert links(world) == {} and files(world, "node3") == ["100"]
    assert world.sandbox.read("one-image-1", 0, 4 << 20) == content(2)
    assert world.cloud.image(1).state == ImageState.ERROR
    deletions = [request.path for request in world.sandbox.requests[before:] if request.method == "DELETE"]
    assert not [path for path in deletions if path.endswith(("one-image-0", "one-image-1", "one-image-2"))]


def test_the_same_deletes_again_on_every_host_change_nothing(world: World) -> None:
    vm = full_vm(world)
    world.cloud.recover_delete(vm)
    before = state(world)
    for host in world.cloud.hosts:
        for disk in vm.disks:
            succeed(world, DISK.format(host, 0, disk.disk_id, 0, 101 if not disk.volatile else 100))
        succeed(world, DIRECTORY.format(host, 0, 0))
    assert state(world) == before


def test_recover_delete_of_a_prolog_whose_parts_never_existed(world: World) -> None:
    first, second = add_image(world), add_image(world, 2, persistent=True)
    vm = world.cloud.create_vm(
        f"DISK=[TYPE=swap,SIZE=4] DISK=[IMAGE_ID={first.identifier}] DISK=[IMAGE_ID={second.identifier}]", world.system
    )
    world.sandbox.faults.fail(r"POST /v1/resource-definitions$", 998, "no clone today", times=-1)
    assert "no clone today" in failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    world.sandbox.faults.clear()
    assert link(world, vm, 0) == own(vm)
    world.cloud.recover_delete(vm)
    assert volumes(world) == {volume(first), volume(second)}
    assert links(world) == {} and files(world, "node1") == ["100"]


def test_recover_delete_of_a_failed_move_cleans_both_hosts(world: World) -> None:
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4] DISK=[TYPE=swap,SIZE=8]", "node1", world.system)
    world.sandbox.faults.fail(rf"POST .*/{own(vm, 1)}/.*make-available", 998, "not the second")
    failure(lambda: world.cloud.migrate_cold(vm, "node2"))
    assert len(links(world)) == 3
    world.cloud.recover_delete(vm)
    assert what_is_left(world) == NOTHING


def test_an_image_whose_line_has_failed_is_detached_with_the_vms_directory(world: World) -> None:
    image = volume(add_image(world, persistent=True))
    host = stranger(world, image)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", host, world.system)
    world.cloud.poweroff(vm)
    world.sandbox.faults.fail(rf"GET .*/{image}/resources", 998)
    call = run(world, DISK.format(host, vm.identifier, 0, vm.identifier, world.images.identifier))
    assert not call.succeeded and attached(world, image) == {host}
    succeed(world, DIRECTORY.format(host, vm.identifier, vm.identifier))
    assert attached(world, image) == set()


def test_recreate_makes_the_disks_anew_on_another_host(world: World) -> None:
    vm = full_vm(world)
    world.sandbox.write(own(vm), b"of the first life", 0)
    world.cloud.recover_recreate(vm)
    assert vm.state == VmState.PENDING
    assert volumes(world) == {"one-image-0", "one-image-1", "one-image-2"}
    world.cloud.deploy(vm, "node2", world.system)
    assert world.sandbox.read(own(vm), 0, 4 << 20) == content(1)
    assert all(name.startswith("node2:") for name in links(world))


def test_a_dead_host_does_not_keep_the_volumes(world: World) -> None:
    vm = swap_vm(world)
    away = stranger(world, own(vm))
    world.cloud.migrate_cold(vm, away)
    world.sandbox.set_node(away, online=False)
    world.cloud.lose_host(vm)
    world.cloud.recover_delete(vm)
    assert all(call.succeeded for call in world.cloud.calls[-2:])
    world.sandbox.set_node(away, online=True)
    assert volumes(world) == set()


def test_a_dead_host_with_a_replica_gives_it_up_when_it_is_back(world: World) -> None:
    vm = swap_vm(world)
    holder = sorted(node for node, role in homes(world, own(vm)).items() if role == "replica")[0]
    world.cloud.migrate_cold(vm, holder)
    world.sandbox.set_node(holder, online=False)
    world.cloud.lose_host(vm)
    world.cloud.recover_delete(vm)
    assert all(call.succeeded for call in world.cloud.calls[-2:])
    world.sandbox.set_node(holder, online=True)
    assert volumes(world) == set()


def test_a_disk_whose_snapshots_wait_for_a_node_is_deleted_but_for_these(world: World) -> None:
    add_image(world)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    world.cloud.poweroff(vm)
    world.cloud.snapshot_create(vm, vm.disk(0))
    away = next(node for node in replicas(world, own(vm)) if node != "node1")
    line = DISK.format("node1", vm.identifier, 0, vm.identifier, world.images.identifier)
    world.sandbox.set_node(away, online=False)
    for _ in range(2):
        assert "`linstor-un audit --repair` removes the rest" in succeed(world, line).stderr
    assert replicas(world, own(vm)) <= {away}
    # A disk of that number that is made meanwhile has another volume.
    world.cloud.recover_recreate(vm)
    world.cloud.deploy(vm, "node1", world.system)
    assert link(world, vm, 0) == f"{own(vm)}-2"
    world.sandbox.set_node(away, online=True)
    world.cloud.terminate(vm)
    assert not {name for name in volumes(world) if name.startswith(own(vm))}


def test_snapshots_that_wait_for_the_vms_own_host_keep_nothing_else_from_being_deleted(world: World) -> None:
    add_image(world)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    host = stranger(world, own(vm))
    world.cloud.migrate_cold(vm, host)
    world.cloud.poweroff(vm)
    world.cloud.snapshot_create(vm, vm.disk(0))
    away = next(iter(replicas(world, own(vm))))
    for node in (away, host):
        world.sandbox.set_node(node, online=False)
    succeed(world, DISK.format(host, vm.identifier, 0, vm.identifier, world.images.identifier))
    for node in (away, host):
        world.sandbox.set_node(node, online=True)
    world.cloud.terminate(vm)
    assert own(vm) not in volumes(world)


def test_a_disk_whose_snapshots_wait_for_a_node_and_that_is_open_stays(world: World) -> None:
    add_image(world)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    world.cloud.snapshot_create(vm, vm.disk(0))
    away = next(node for node in replicas(world, own(vm)) if node != "node1")
    world.sandbox.set_node(away, online=False)
    call = run(world, DISK.format("node1", vm.identifier, 0, vm.identifier, world.images.identifier))
    assert not call.succeeded and "is open on node1" in sentence(call)
    assert "Aux/one/DELETED" not in definition(world, own(vm))["props"]


def test_a_host_without_ssh_keeps_its_files_and_nothing_else(world: World) -> None:
    vm = swap_vm(world, "node3")
    world.cloud.poweroff(vm)
    world.sandbox.refuse_ssh("node3")
    world.cloud.terminate(vm)
    assert volumes(world) == set()
    assert set(links(world)) == {"node3:100/0/disk.0"}, "a dangling link"


def test_a_vm_that_oned_does_not_know_loses_what_its_name_says(world: World) -> None:
    vm = full_vm(world)
    for machine in list(world.cloud.hypervisor.running):
        world.cloud.hypervisor.end(world.cloud.machine(machine))
    world.cloud.machines.remove(vm)
    for number in range(5):
        succeed(world, DISK.format("node1", 0, number, 0, 101 if number < 3 else 100))
    assert volumes(world) == {"one-image-0", "one-image-1", "one-image-2"}
    assert links(world) == {}
    assert [attached(world, name) for name in sorted(volumes(world))] == [set(), set(), set()]
    succeed(world, DIRECTORY.format("node1", 0, 0))
    assert files(world, "node1") == ["100"]


def test_a_link_that_leads_to_anothers_image_does_not_make_it_deletable(world: World) -> None:
    vm = swap_vm(world)
    victim = add_image(world, persistent=True)
    owner = world.cloud.instantiate(f"DISK=[IMAGE_ID={victim.identifier}]", "node1", world.system)
    disk = path(world, vm, "disk.0")
    disk.unlink()
    disk.symlink_to(world.sandbox.host("node1") / f"dev/drbd/by-res/{volume(victim)}/0")
    world.cloud.terminate(vm)
    assert volumes(world) == {volume(victim)}
    assert link(world, owner, 0) == volume(victim)
    assert world.cloud.hypervisor.running == {owner.identifier: "node1"}


def test_the_directory_form_sweeps_left_overs_of_this_vm_only(world: World) -> None:
    machines = [swap_vm(world) for _ in range(12)]
    one, eleven = machines[1], machines[11]
    foreign_volume(world, "one-vm-1-checkpoint", **{"Aux/one/VM_ID": "1"})
    foreign_volume(world, "one-vm-1-disk-7", **{"Aux/one/VM_ID": "1", "Aux/one/DISK_ID": "7"})
    foreign_volume(world, "one-vm-1-notours", **{"Aux/one/VM_ID": "1"})
    foreign_volume(world, "one-vm-1-disk-8", **{"Aux/one/VM_ID": "11"})
    foreign_volume(world, "one-vm-1-disk-9")
    foreign_volume(world, "two-vm-1-disk-0", **{"Aux/one/VM_ID": "1"})
    foreign_volume(world, "one-image-1", **{"Aux/one/VM_ID": "1"})
    before = volumes(world)
    world.cloud.terminate(one)
    assert before - volumes(world) == {"one-vm-1-disk-0", "one-vm-1-disk-7", "one-vm-1-checkpoint"}
    assert link(world, eleven, 0) == "one-vm-11-disk-0"
    assert files(world, "node1").count("100/11/disk.0") == 1


def test_a_vm_that_lives_on_keeps_its_volumes_when_a_directory_is_deleted(world: World) -> None:
    """A directory of a VM can be deleted while the VM is not ending: what a migration left on a host, for example."""
    vm = swap_vm(world)
    succeed(world, DIRECTORY.format("node2", 0, 0))
    assert volumes(world) == {own(vm)}
    assert world.cloud.hypervisor.running[0] == "node1"


def test_a_volume_of_our_name_with_another_owner_is_left_alone(world: World) -> None:
    vm = swap_vm(world)
    foreign = foreign_volume(world, "one-vm-0-disk-3", **{"Aux/one/VM_ID": "99"})
    nobodys = foreign_volume(world, "one-vm-0-disk-4")
    world.cloud.hypervisor.end(vm)
    vm.become(VmState.ACTIVE, LcmState.EPILOG)
    for number in (3, 4):
        succeed(world, DISK.format("node1", 0, number, 0, 100))
    world.cloud.terminate(vm)
    assert volumes(world) == {"one-vm-0-disk-3", "one-vm-0-disk-4"}
    assert definition(world, "one-vm-0-disk-3") == foreign
    assert definition(world, "one-vm-0-disk-4") == nobodys


def test_a_disk_that_is_still_open_is_a_sentence_and_the_retry_deletes_it(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='IN_USE_TIMEOUT="1"')
    vm = swap_vm(world)
    world.cloud.hypervisor.end(vm)
    world.cloud.hypervisor.running.clear()
    opened = world.sandbox.open("node1", own(vm), "w", holder="a hung qemu")
    reason = failure(lambda: world.cloud.terminate(vm))
    assert f"{own(vm)} cannot be deleted because it is open on node1" in reason
    assert vm.lcm_state == LcmState.EPILOG_FAILURE
    world.sandbox.close(opened)
    world.cloud.recover_retry(vm)
    assert what_is_left(world) == NOTHING


def test_a_failed_attach_is_cleaned_by_its_delete(world: World) -> None:
    vm = swap_vm(world)
    image = add_image(world)
    disk = world.cloud.attach(vm, f"DISK=[IMAGE_ID={image.identifier}]")
    assert link(world, vm, disk.disk_id) == own(vm, disk.disk_id)
    world.cloud.detach(vm, disk)
    assert own(vm, disk.disk_id) not in volumes(world)
    assert link(world, vm, 0) == own(vm)


def test_an_attach_that_fails_cleans_up_by_itself_and_its_id_is_used_again(world: World) -> None:
    vm = swap_vm(world)
    image = add_image(world)
    world.sandbox.refuse_ssh("node1")
    failure(lambda: world.cloud.attach(vm, f"DISK=[IMAGE_ID={image.identifier}]"))
    failure(lambda: world.cloud.attach(vm, "DISK=[TYPE=fs,FORMAT=raw,SIZE=4]"))
    assert volumes(world) == {own(vm), volume(image)}
    world.sandbox.refuse_ssh("node1", False)
    disk = world.cloud.attach(vm, f"DISK=[IMAGE_ID={image.identifier}]")
    assert disk.disk_id == 1
    assert world.sandbox.read(own(vm, 1), 0, 4 << 20) == content(1)


def test_detaching_a_cdrom_leaves_it_to_the_other_vm(world: World) -> None:
    cdrom = add_image(world, type="CDROM")
    host = stranger(world, volume(cdrom))
    machines = [swap_vm(world, host) for _ in range(2)]
    disks = [world.cloud.attach(vm, f"DISK=[IMAGE_ID={cdrom.identifier}]") for vm in machines]
    world.cloud.detach(machines[0], disks[0])
    assert last(world, "delete").argv[0].endswith("/disk.1")
    assert attached(world, volume(cdrom)) == {host}
    assert link(world, machines[1], 1) == volume(cdrom)
    world.cloud.detach(machines[1], disks[1])
    assert attached(world, volume(cdrom)) == set()


def test_files_of_others_and_what_links_lead_to_stay(world: World) -> None:
    vm = swap_vm(world)
    outside = world.sandbox.host("node1") / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"not the VM's")
    path(world, vm, "elsewhere").symlink_to(outside)
    neighbour = path(world, vm, "disk.0").parent.with_name("01")
    neighbour.mkdir()
    world.cloud.terminate(vm)
    assert (outside / "precious").read_bytes() == b"not the VM's"
    assert neighbour.is_dir()


def test_one_oned_without_multicall_and_one_that_is_away(world: World) -> None:
    vm = swap_vm(world)
    world.cloud.poweroff(vm)
    before = state(world)
    endpoint = world.cloud.var / ".one" / "one_endpoint"
    address = endpoint.read_text()
    endpoint.write_text("http://127.0.0.1:9/RPC2\n")
    assert "oned does not answer" in sentence(run(world, DISK.format("node1", 0, 0, 0, 100)))
    assert state(world) == before
    endpoint.write_text(address)
    world.cloud.rpc.multicall_allowed = False
    world.cloud.terminate(vm)
    assert what_is_left(world) == NOTHING


NO_SENSE = [
    ("delete node1:/d/100/0/disk.0 0", "takes 3 arguments"),
    ("delete node1:/ 0 100", "is not below a datastore"),
    ("delete node1:/var/lib/one 0 100", "is not below a datastore"),
    ("delete node1:/var/lib/one/datastores/100 100 100", "is not below a datastore"),
    ("delete node1:/var/lib/one/datastores/100/0/.. 0 100", "is not HOST:/path"),
    ("delete node1:/var/lib/one/datastores/100/0 5 100", "is not a path of VM 5"),
    ("delete node1:var/lib 0 100", "is not HOST:/path"),
    ("delete -oX:/d/100/0 0 100", "is not the name of a host"),
    ("delete node1:/d/100/$(id)/disk.0 0 100", "is not below a datastore"),
]


def test_lines_that_make_no_sense_delete_nothing(world: World) -> None:
    swap_vm(world)
    refuse_all(world, NO_SENSE)


def test_the_last_delete_again_is_done_already(world: World) -> None:
    vm = swap_vm(world)
    world.cloud.terminate(vm)
    before = state(world)
    assert again(world, last(world, "delete")).succeeded
    assert state(world) == before


def test_what_parking_has_put_into_the_front_end_goes_also_after_a_failed_return_elsewhere(world: World) -> None:
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node1", world.system)
    world.cloud.undeploy(vm)
    parked = world.frontend / "datastores" / str(world.system.identifier) / str(vm.identifier)
    assert parked.is_dir()
    world.sandbox.faults.fail("POST .*/make-available", times=-1)
    failure(lambda: world.cloud.deploy(vm, "node3", other))
    world.sandbox.faults.clear()
    world.cloud.recover_delete(vm)
    assert not parked.exists()
    assert what_is_left(world) == NOTHING


def test_the_end_of_a_vm_takes_the_lock_file_that_a_killed_saving_has_left(world: World) -> None:
    add_image(world)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    left = world.folder.parent / "locks" / f"linstor_un-one-vm-{vm.identifier}-checkpoint.lock"
    left.write_text("1")
    world.cloud.terminate(vm)
    assert not left.exists()
