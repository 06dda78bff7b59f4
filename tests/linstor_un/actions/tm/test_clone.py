"""A VM's own copy of a non-persistent image: one base snapshot for all its clones, or a copy; nobody else's bytes."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from linstor_sandbox import OLD_DATA, Pool
from linstor_sandbox.opennebula import LcmState, Refused, VirtualMachine, VmState
from linstor_sandbox.opennebula.images import Image
from tests.conftest import IMAGE_TEMPLATE, SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import (
    MIB,
    add_image,
    again,
    attached,
    content,
    definition,
    failure,
    homes,
    last,
    link,
    own,
    post,
    refuse_all,
    replicas,
    requests,
    run,
    sentence,
    state,
    volume,
    volumes,
    write_behind,
)

SNAPSHOTS = r"POST /v1/resource-definitions/[^/]+/snapshots$"
RESTORES = r"POST .*/snapshot-restore-resource"


def system(world: World, name: str, **attributes: str) -> Any:
    """A system datastore like the article's with other attributes."""
    template = SYSTEM_TEMPLATE.replace("linstor-system", name)
    return world.cloud.create_datastore(template + "".join(f' {key}="{value}"' for key, value in attributes.items()))


def clone(world: World, image: Image, host: str = "node1", size: int = 0, datastore: Any = None) -> VirtualMachine:
    """A VM whose disk 0 is a clone of the image."""
    wanted = f",SIZE={size}" if size else ""
    return world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}{wanted}]", host, datastore or world.system)


def test_a_clone_has_the_images_bytes_and_writing_to_it_touches_nobody_else(world: World) -> None:
    image = add_image(world)
    one, two = clone(world, image, "node1"), clone(world, image, "node3")
    assert link(world, one, 0) == own(one)
    assert world.sandbox.read(own(one), 0, 4 * MIB) == content(1)
    assert world.sandbox.device_size(own(one)) >= 4 * MIB
    world.sandbox.write(own(one), b"one's", MIB)
    assert world.sandbox.read(own(two), 0, 4 * MIB) == content(1)
    assert world.sandbox.read(volume(image), 0, 4 * MIB) == content(1)
    properties = definition(world, own(two))["props"]
    assert {key: properties[f"Aux/one/{key}"] for key in ("VM_ID", "DISK_ID", "DS_ID")} == {
        "VM_ID": "1",
        "DISK_ID": "0",
        "DS_ID": "100",
    }
    assert "Aux/one/VM_ID" not in definition(world, volume(image))["props"]
    assert "Aux/one/INCOMPLETE" not in properties


def test_the_first_clone_takes_the_base_snapshot_and_all_share_it(world: World) -> None:
    image = add_image(world)
    made = [clone(world, image, node) for node in world.cloud.hosts]
    assert len(requests(world, SNAPSHOTS)) == 1
    assert len(requests(world, RESTORES)) == 3
    assert list(definition(world, volume(image))["snapshots"]) == ["linstor_un-base"]
    assert not requests(world, r"/clone")
    for vm in made:
        world.cloud.terminate(vm)
    assert list(definition(world, volume(image))["snapshots"]) == ["linstor_un-base"], "kept for the next VM"
    world.cloud.delete_image(image)
    assert volumes(world) == set()


def test_a_thin_clone_allocates_nothing_of_its_own_where_the_pool_can_share(world: World) -> None:
    image = add_image(world)
    vm = clone(world, image)
    assert world.sandbox.allocated(own(vm)) <= world.sandbox.allocated(volume(image))


@pytest.mark.parametrize("mode", ["snapshot", "copy"])
def test_a_larger_size_grows_the_clone_and_shows_zeroes_behind_the_image(world: World, mode: str) -> None:
    image = add_image(world)
    vm = clone(world, image, size=24, datastore=system(world, mode, CLONE_MODE=mode))
    assert world.sandbox.device_size(own(vm)) >= 24 * MIB
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    assert not world.sandbox.read(own(vm), 4 * MIB).strip(b"\0")
    assert definition(world, own(vm))["volumes"]["0"] == 24 * 1024
    assert definition(world, volume(image))["volumes"]["0"] == 4 * 1024


def test_a_smaller_size_than_the_images_is_refused(world: World) -> None:
    image = add_image(world)
    before = state(world)
    vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier},SIZE=3]", world.system)
    assert "a disk cannot be smaller than its image" in failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert vm.lcm_state == LcmState.PROLOG_FAILURE
    assert state(world) == before


def test_copy_makes_an_independent_volume_and_no_snapshot(world: World) -> None:
    image = add_image(world)
    vm = clone(world, image, datastore=system(world, "copies", CLONE_MODE="copy"))
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    assert definition(world, volume(image))["snapshots"] == {}
    assert world.sandbox.allocated(own(vm)) <= 3 * MIB, "zeroes of the image are not written to a thin pool"
    assert attached(world, volume(image)) == set(), "the image was attached for the copy alone"


def test_a_copy_on_a_node_without_the_image_attaches_it_there_for_as_long_as_it_takes(world: World) -> None:
    image = add_image(world)
    before = homes(world, volume(image))
    away = next(node for node, role in before.items() if role == "tie-breaker")
    single = system(world, "single", AUTO_PLACE="1", NODE_LIST=away, CLONE_MODE="copy")
    vm = clone(world, image, datastore=single)
    assert replicas(world, own(vm)) == {away}
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    assert homes(world, volume(image)) == before, "the tie-breaker is one again"


def test_without_clone_mode_the_disk_is_a_copy(world: World) -> None:
    image = add_image(world)
    template = SYSTEM_TEMPLATE.replace('CLONE_MODE="snapshot" ', "").replace("linstor-system", "plain")
    clone(world, image, datastore=world.cloud.create_datastore(template))
    assert definition(world, volume(image))["snapshots"] == {}


def test_a_pool_without_snapshots_is_copied_and_shows_no_old_data(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 2048),))
    image = add_image(world)
    vm = clone(world, image, size=8)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    behind = world.sandbox.read(own(vm), 4 * MIB)
    assert OLD_DATA not in behind and not behind.strip(b"\0")
    assert definition(world, volume(image))["snapshots"] == {}, "no failed snapshot keeps the name"
    world.cloud.terminate(vm)
    world.cloud.delete_image(image)
    assert volumes(world) == set()


@pytest.mark.parametrize("kind", ["ZFS", "ZFS_THIN", "FILE_THIN"])
def test_other_pools_are_cloned_too(make_world: Callable[..., World], kind: str) -> None:
    world = make_world(pools=(Pool("data", kind, 2048),))
    image = add_image(world)
    one, two = clone(world, image), clone(world, image, "node3", size=8)
    assert world.sandbox.read(own(one), 0, 4 * MIB) == world.sandbox.read(own(two), 0, 4 * MIB) == content(1)
    for vm in (one, two):
        world.cloud.terminate(vm)
    world.cloud.delete_image(image)
    assert volumes(world) == set()


def test_an_image_opened_for_writing_loses_its_base_and_later_clones_have_the_new_bytes(world: World) -> None:
    image = add_image(world)
    before = clone(world, image)
    image.persistent = True
    world.cloud.terminate(before)
    writer = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node2", world.system)
    assert definition(world, volume(image))["snapshots"] == {}
    world.sandbox.write(volume(image), b"changed by its owner", 3 * MIB)
    world.cloud.terminate(writer)
    image.persistent = False
    after = clone(world, image, "node3")
    assert world.sandbox.read(own(after), 3 * MIB, 20) == b"changed by its owner"
    assert world.sandbox.read(own(after), 0, 3 * MIB) == content(1)[: 3 * MIB]
    assert list(definition(world, volume(image))["snapshots"]) == ["linstor_un-base"]


def test_an_earlier_clone_keeps_its_bytes_when_the_base_goes(world: World) -> None:
    image = add_image(world)
    early = clone(world, image)
    image.persistent, image.vms = True, []
    world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node2", world.system)
    world.sandbox.write(volume(image), b"changed", 0)
    assert world.sandbox.read(own(early), 0, 4 * MIB) == content(1)


def test_a_degraded_image_is_cloned_from_the_replica_that_is_there(world: World) -> None:
    image = add_image(world)
    gone = sorted(replicas(world, volume(image)))[1]
    world.sandbox.set_node(gone, online=False)
    here = next(node for node in world.cloud.hosts if node != gone)
    # Two replicas of the clone are still possible on the two nodes that are left.
    vm = clone(world, image, here)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    assert len(replicas(world, own(vm))) == 2
    assert gone not in definition(world, volume(image))["snapshots"]["linstor_un-base"]["nodes"]
    world.sandbox.set_node(gone, online=True)
    other = clone(world, image, here)
    base = definition(world, volume(image))["snapshots"]["linstor_un-base"]
    assert gone in base["nodes"], "a base that misses a replica is taken anew once it is back"
    assert world.sandbox.read(own(other), 0, 4 * MIB) == content(1)
    assert len(replicas(world, own(other))) == 2


def test_a_satellite_that_cannot_take_the_snapshot_leaves_nothing_half_made(world: World) -> None:
    image = add_image(world)
    world.sandbox.break_satellite(sorted(replicas(world, volume(image)))[0], "snapshot")
    vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier}]", world.system)
    reason = failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert "Taking snapshot linstor_un-base of one-image-0 failed" in reason
    assert own(vm) not in volumes(world)
    assert definition(world, volume(image))["snapshots"] == {}
    world.cloud.recover_retry(vm)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


def test_encryption_in_one_datastore_alone_is_copied_into_the_layers_that_were_asked_for(world: World) -> None:
    post(world, "/v1/encryption/passphrase", {"new_passphrase": "x"})
    image = add_image(world)
    vm = clone(world, image, datastore=system(world, "crypt", ENCRYPTION="yes"))
    found = definition(world, own(vm))
    assert found["layers"] == ["DRBD", "LUKS", "STORAGE"]
    assert {tuple(item["layers"]) for item in found["resources"].values() if not item["flags"]} == {
        ("DRBD", "LUKS", "STORAGE")
    }
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    assert definition(world, volume(image))["snapshots"] == {}


def test_another_pool_in_the_system_datastore_is_copied_into_that_pool(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM_THIN", 2048), Pool("fast", "LVM_THIN", 2048)))
    image = add_image(world)
    vm = clone(world, image, datastore=system(world, "fast", STORAGE_POOL="fast"))
    resources = definition(world, own(vm))["resources"]
    assert {item["pool"] for item in resources.values() if not item["flags"]} == {"fast"}
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


@pytest.mark.parametrize("mode", ["snapshot", "copy"])
@pytest.mark.parametrize("pool", ["data", "fast", "thick"])
def test_what_is_behind_size_is_the_disks_too(make_world: Callable[..., World], mode: str, pool: str) -> None:
    # A device of ZFS has hardly more than it was asked for.
    pools = (Pool("data", "LVM_THIN", 2048), Pool("fast", "ZFS", 2048), Pool("thick", "LVM", 2048))
    world = make_world(pools=pools)
    image = add_image(world)
    expected = write_behind(world, volume(image))
    vm = clone(world, image, datastore=system(world, "x", STORAGE_POOL=pool, CLONE_MODE=mode))
    made = world.sandbox.read(own(vm))
    assert made == expected + bytes(len(made) - len(expected))
    again = clone(world, image, datastore=system(world, "y", STORAGE_POOL=pool, CLONE_MODE=mode))
    assert len(made) == world.sandbox.device_size(own(again)), "no copy is longer than its like"


@pytest.mark.parametrize("mode", ["snapshot", "copy"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_system_datastores_replica_count_holds_also_after_balancing(world: World, mode: str, count: int) -> None:
    image = add_image(world)
    vm = clone(world, image, datastore=system(world, "x", AUTO_PLACE=str(count), CLONE_MODE=mode))
    assert len(replicas(world, own(vm))) == count
    world.sandbox.run_balance()
    assert len(replicas(world, own(vm))) == count
    assert len(replicas(world, volume(image))) == 2
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


def test_a_resource_group_of_the_operators_is_used(world: World) -> None:
    post(world, "/v1/resource-groups", {"name": "vms", "select_filter": {"place_count": 3, "storage_pool": "data"}})
    image = add_image(world)
    template = 'NAME="grouped" TYPE="SYSTEM_DS" RESOURCE_GROUP="vms" CLONE_MODE="snapshot" TM_MAD="linstor_un"'
    vm = clone(world, image, datastore=world.cloud.create_datastore(template))
    found = definition(world, own(vm))
    assert found["group"] == "vms"
    world.sandbox.run_balance()
    assert len(replicas(world, own(vm))) in (2, 3)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


@pytest.mark.parametrize("mode", ["snapshot", "copy"])
def test_a_host_with_a_replica_gets_none_attached_and_one_without_is_attached(world: World, mode: str) -> None:
    image = add_image(world)
    chosen = system(world, mode, CLONE_MODE=mode)
    for node in world.cloud.hosts:
        vm = clone(world, image, node, datastore=chosen)
        found = homes(world, own(vm))
        assert found[node] in ("replica", "attached")
        assert list(found.values()).count("replica") == 2
        assert attached(world, own(vm)) == ({node} if found[node] == "attached" else set())


def test_a_failed_link_leaves_no_volume_and_the_retry_works(world: World) -> None:
    image = add_image(world)
    clone(world, image)
    before = state(world)
    world.sandbox.refuse_ssh("node2")
    vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier}]", world.system)
    reason = failure(lambda: world.cloud.deploy(vm, "node2", world.system))
    assert "host node2 does not answer over ssh" in reason
    assert state(world)["resource_definitions"] == before["resource_definitions"]
    world.sandbox.refuse_ssh("node2", False)
    world.cloud.recover_retry(vm)
    assert link(world, vm, 0) == own(vm)


def test_a_retry_makes_the_disk_anew_because_nobody_has_used_it_yet(world: World) -> None:
    vm = clone(world, add_image(world))
    world.cloud.hypervisor.end(vm)
    world.sandbox.write(own(vm), b"half a copy", 0)
    vm.become(VmState.ACTIVE, LcmState.PROLOG)
    assert again(world, last(world, "clone")).succeeded
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


def test_a_disk_that_somebody_has_open_is_not_made_anew(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='IN_USE_TIMEOUT="1"')
    vm = clone(world, add_image(world))
    world.sandbox.write(own(vm), b"the guest's", 0)
    reason = sentence(again(world, last(world, "clone")))
    assert own(vm) in reason and "node1" in reason
    assert world.sandbox.read(own(vm), 0, 11) == b"the guest's"
    assert world.cloud.hypervisor.running[vm.identifier] == "node1"


def test_a_volume_of_our_name_that_is_somebody_elses_is_refused_and_stays(world: World) -> None:
    image = add_image(world)
    group = definition(world, volume(image))["group"]
    post(
        world,
        f"/v1/resource-groups/{group}/spawn",
        {"resource_definition_name": "one-vm-0-disk-0", "volume_sizes": [4096]},
    )
    world.sandbox.write("one-vm-0-disk-0", b"another cloud's", 0)
    before = state(world)
    vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier}]", world.system)
    reason = failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert "one-vm-0-disk-0 that was not made for this image or VM" in reason
    assert world.sandbox.read("one-vm-0-disk-0", 0, 15) == b"another cloud's"
    found = state(world)
    found["resource_definitions"][volume(image)]["snapshots"] = {}
    assert found["resource_definitions"] == before["resource_definitions"]


def test_a_cluster_that_is_full_is_a_sentence_with_numbers(world: World) -> None:
    image = add_image(world)
    chosen = system(world, "copies", CLONE_MODE="copy")
    for node in world.cloud.hosts:
        world.sandbox.fill_pool(node, "data", 0)
    vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier},SIZE=4096]", chosen)
    reason = failure(lambda: world.cloud.deploy(vm, "node1", chosen))
    assert "LINSTOR finds no place for 2 replicas of one-vm-0-disk-0 (4 GiB)" in reason
    assert "data on node1 has" in reason
    assert own(vm) not in volumes(world)


def test_an_image_whose_volume_is_gone_is_a_sentence(world: World) -> None:
    image = add_image(world)
    delete = urllib.request.Request(f"{world.sandbox.uri}/v1/resource-definitions/{volume(image)}", method="DELETE")
    urllib.request.urlopen(delete).read()
    vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier}]", world.system)
    assert volume(image) in failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert volumes(world) == set()


def test_oned_that_does_not_answer_is_a_sentence_and_nothing_changes(world: World) -> None:
    image = add_image(world)
    vm = clone(world, image)
    world.cloud.poweroff(vm)
    before = state(world)
    (world.cloud.var / ".one" / "one_endpoint").write_text("http://127.0.0.1:9/RPC2\n")
    reason = sentence(again(world, last(world, "clone")))
    assert "oned does not answer at http://127.0.0.1:9/RPC2" in reason and "one_endpoint" in reason
    assert state(world) == before


def test_credentials_that_oned_refuses_are_a_sentence(world: World) -> None:
    image = add_image(world)
    (world.cloud.var / ".one" / "one_auth").write_text("oneadmin:wrong\n")
    reason = failure(lambda: clone(world, image))
    assert "oned refused one.datastore.info" in reason and "ONE_AUTH" in reason


def test_a_vm_that_oned_does_not_know_is_a_sentence(world: World) -> None:
    image = add_image(world)
    before = state(world)
    line = f"clone onefe:/dev/drbd/by-res/{volume(image)}/0 node1:/var/lib/one//datastores/100/77/disk.0 77 101"
    assert "oned knows no disk 0 of VM 77" in sentence(run(world, line))
    assert state(world) == before


def test_an_oned_without_multicall_is_asked_one_by_one(world: World) -> None:
    image = add_image(world)
    world.cloud.rpc.multicall_allowed = False
    vm = clone(world, image)
    assert link(world, vm, 0) == own(vm)
    methods = {request.method for request in world.cloud.rpc.requests}
    assert {"one.vm.info", "one.datastore.info"} <= methods


def test_another_image_than_the_disks_own_is_not_cloned(world: World) -> None:
    first, second = add_image(world), add_image(world, 2)
    vm = clone(world, first)
    world.cloud.poweroff(vm)
    before = state(world)
    reason = sentence(
        run(world, f"clone onefe:{second.source} node1:/var/lib/one//datastores/100/0/disk.0 {vm.identifier} 101")
    )
    assert "no image but its own" in reason
    assert state(world) == before


NO_SENSE = [
    ("clone onefe:/dev/drbd/by-res/one-image-0/0 node1:/d/100/0/disk.0 0", "takes 4 arguments"),
    ("clone onefe:/etc/passwd node1:/d/100/0/disk.0 0 101", "names no LINSTOR volume"),
    ("clone onefe:/dev/drbd/by-res/one-image-0/0 node1:/d/100/1/disk.0 0 101", "is not a path of VM 0"),
    ("clone onefe:/dev/drbd/by-res/one-image-0/0 -oProxyCommand=x:/d/100/0/disk.0 0 101", "is not the name of a"),
    ("clone onefe:/dev/drbd/by-res/one-image-0/0 node1:/d/100/0/disk.0 zero 101", "VMID is 'zero'"),
]


def test_lines_that_make_no_sense_change_nothing(world: World) -> None:
    refuse_all(world, NO_SENSE)


def test_a_locked_persistent_image_is_oneds_to_refuse(world: World) -> None:
    image = add_image(world, persistent=True)
    clone(world, image)
    with pytest.raises(Refused):
        clone(world, image)


def test_an_image_datastore_of_the_article_without_clone_mode_serves_a_system_datastore_with_it(world: World) -> None:
    other = world.cloud.create_datastore(
        IMAGE_TEMPLATE.replace("linstor-images", "more") + f' SAFE_DIRS="{world.folder}"'
    )
    image = world.cloud.create_image(other, world.file("more.raw", content(5)))
    vm = clone(world, image)
    assert list(definition(world, volume(image))["snapshots"]) == ["linstor_un-base"]
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(5)
