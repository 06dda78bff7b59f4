"""The image's own volume for a VM: persistent, or shared by several; never another's, and never a copy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from linstor_sandbox.opennebula import ActionFailed, HypervisorFailed, ImageState, VirtualMachine
from linstor_sandbox.opennebula.images import Image
from tests.conftest import World
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
    links,
    path,
    replicas,
    run,
    sentence,
    state,
    stranger,
    succeed,
    volume,
    volumes,
)

FOUR = ("node1", "node2", "node3", "node4")


def start(world: World, image: Image, host: str) -> VirtualMachine:
    return world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", host, world.system)


def test_a_persistent_image_is_linked_and_what_the_guest_writes_is_in_the_image(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = start(world, image, "node1")
    assert volumes(world) == {volume(image)}
    assert link(world, vm, 0) == volume(image)
    assert definition(world, volume(image))["snapshots"] == {}
    world.sandbox.write(volume(image), b"written by the guest", 2 * MIB)
    world.cloud.terminate(vm)
    again_vm = start(world, image, "node3")
    assert world.sandbox.read(volume(image), 2 * MIB, 20) == b"written by the guest"
    assert link(world, again_vm, 0) == volume(image)


def test_a_host_without_a_replica_is_attached_and_one_with_a_replica_gets_nothing(world: World) -> None:
    image = add_image(world, persistent=True)
    before = homes(world, volume(image))
    holder = sorted(replicas(world, volume(image)))[0]
    vm = start(world, image, holder)
    assert homes(world, volume(image)) == before
    world.cloud.terminate(vm)
    away = stranger(world, volume(image))
    start(world, image, away)
    assert homes(world, volume(image)) == {**before, away: "attached"}


def test_a_cdrom_is_shared_by_vms_on_one_and_on_several_hosts(world: World) -> None:
    cdrom = add_image(world, type="CDROM")
    away = stranger(world, volume(cdrom))
    others = sorted(replicas(world, volume(cdrom)))
    machines = [start(world, cdrom, host) for host in (away, away, *others)]
    assert len(world.cloud.hypervisor.running) == 4, "read-only disks can be open everywhere"
    assert set(links(world).values()) == {volume(cdrom)} and len(links(world)) == 4
    assert world.sandbox.read(volume(cdrom), 0, 4 * MIB) == content(1)

    world.cloud.terminate(machines[0])
    assert attached(world, volume(cdrom)) == {away}, "the second VM there has it"
    world.cloud.terminate(machines[2])
    assert attached(world, volume(cdrom)) == {away}
    world.cloud.terminate(machines[1])
    assert attached(world, volume(cdrom)) == set()
    world.cloud.terminate(machines[3])
    assert links(world) == {}
    assert volumes(world) == {volume(cdrom)}


def test_a_cdrom_keeps_its_base_snapshot_because_nobody_writes_to_it(world: World) -> None:
    image = add_image(world)
    world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", world.system)
    image.type = "CDROM"
    start(world, image, "node2")
    assert list(definition(world, volume(image))["snapshots"]) == ["linstor_un-base"]


def test_a_shareable_disk_is_linked_in_two_vms(world: World) -> None:
    image = add_image(world, persistent=True)
    one = start(world, image, "node1")
    one.disk(0).attributes["SHAREABLE"] = "YES"
    world.cloud.poweroff(one)
    image.vms.clear()
    image.become(ImageState.READY)
    two = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier},SHAREABLE=YES]", world.system)
    world.cloud.deploy(two, "node1", world.system)
    assert link(world, one, 0) == link(world, two, 0) == volume(image)
    before = homes(world, volume(image))
    world.cloud.terminate(two)
    assert homes(world, volume(image)) == before, "the other VM has it on the same host"
    assert link(world, one, 0) == volume(image)


def test_a_shareable_disk_is_written_to_on_one_host_alone(world: World) -> None:
    image = add_image(world, persistent=True)
    one = start(world, image, "node1")
    one.disk(0).attributes["SHAREABLE"] = "YES"
    image.vms.clear()
    image.become(ImageState.READY)
    before = homes(world, volume(image))
    two = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier},SHAREABLE=YES]", world.system)
    told = failure(lambda: world.cloud.deploy(two, "node2", world.system))
    assert "a VM on node1 writes to it" in told and f"deploy VM {two.identifier} on node1" in told
    assert homes(world, volume(image)) == before
    world.cloud.recover_recreate(two)
    world.cloud.deploy(two, "node1", world.system)
    with pytest.raises(ActionFailed, match="another VM on node1 has it"):
        world.cloud.migrate_live(one, "node2")
    assert homes(world, volume(image)) == before
    world.cloud.terminate(two)
    world.cloud.migrate_live(one, "node2")
    assert link(world, one, 0, "node2") == volume(image)


def test_a_shareable_disk_that_nobody_writes_to_moves_whoever_else_has_it(world: World) -> None:
    image = add_image(world, persistent=True)
    machines = []
    for _ in range(2):
        image.vms.clear()
        image.become(ImageState.READY)
        vm = world.cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier},SHAREABLE=YES]", world.system)
        vm.disk(0).attributes["READONLY"] = "YES"
        world.cloud.deploy(vm, "node1", world.system)
        machines.append(vm)
    # The stand-in's hypervisor opens every disk to write.
    with suppress(HypervisorFailed):
        world.cloud.migrate_live(machines[0], "node2")
    assert last(world, "premigrate").succeeded


def test_a_link_to_something_else_is_replaced(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = start(world, image, "node1")
    world.cloud.poweroff(vm)
    disk = path(world, vm, "disk.0")
    disk.unlink()
    disk.symlink_to(world.sandbox.host("node1") / "dev/drbd/by-res/one-image-99/0")
    assert again(world, last(world, "ln")).succeeded
    assert link(world, vm, 0) == volume(image)


def test_a_file_in_the_way_is_not_deleted(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = start(world, image, "node1")
    world.cloud.poweroff(vm)
    disk = path(world, vm, "disk.0")
    disk.unlink()
    disk.write_bytes(b"somebody's data")
    assert "disk.0 exists and is no link: move it away" in sentence(again(world, last(world, "ln")))
    assert disk.read_bytes() == b"somebody's data"


def test_a_host_that_is_no_node_of_linstor_is_a_sentence(make_world: Callable[..., World]) -> None:
    world = make_world()
    image = add_image(world, persistent=True)
    world.cloud.hosts.append("kvm9")
    before = state(world)
    reason = failure(lambda: start(world, image, "kvm9"))
    assert "Host kvm9 is not a node of LINSTOR" in reason and "linstor node create kvm9" in reason
    assert state(world) == before


def test_a_node_that_is_offline_is_a_sentence_and_nothing_is_attached(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=FOUR)
    image = add_image(world, persistent=True)
    before = homes(world, volume(image))
    away = next(node for node in FOUR if node not in before)
    world.sandbox.set_node(away, online=False, satellite_only=True)
    reason = failure(lambda: start(world, image, away))
    assert away in reason and "offline" in reason
    assert links(world) == {}
    world.sandbox.set_node(away, online=True)
    assert homes(world, volume(image)) == before


def test_a_host_that_does_not_answer_is_a_sentence_and_nothing_stays_attached(
    make_world: Callable[..., World],
) -> None:
    world = make_world(nodes=FOUR)
    image = add_image(world, persistent=True)
    before = homes(world, volume(image))
    for host in FOUR:
        world.sandbox.refuse_ssh(host)
        assert f"host {host} does not answer over ssh" in failure(lambda host=host: start(world, image, host))  # type: ignore[misc]
        image.vms.clear()
        image.become(ImageState.READY)
    # That the tie-breaker was taken for an attachment is seen by nobody: it votes all the same.
    assert {
        node: role.replace("attached", "tie-breaker") for node, role in homes(world, volume(image)).items()
    } == before


@pytest.mark.parametrize(
    "change",
    [
        {"SOURCE": "/dev/drbd/by-res/one-image-1/0"},
        {"CLONE": "YES"},
        {"IMAGE_ID": ""},
    ],
)
def test_an_image_that_is_not_the_disks_own_is_refused(world: World, change: dict[str, str]) -> None:
    image, other = add_image(world, persistent=True), add_image(world, 2, persistent=True)
    vm = start(world, image, "node1")
    world.cloud.poweroff(vm)
    line = f"ln onefe:{image.source} node1:/var/lib/one//datastores/100/0/disk.0 0 101"
    succeed(world, line)
    before = state(world)
    vm.disk(0).attributes.update(change)
    assert "no image but its own" in sentence(run(world, line))
    assert state(world) == before
    assert attached(world, volume(other)) == set()


def test_an_image_without_a_volume_is_a_sentence(world: World) -> None:
    image = world.cloud.register_image(world.images, "/dev/drbd/by-res/nothing-here/0", 8)
    image.persistent = True
    assert "nothing-here" in failure(lambda: start(world, image, "node1"))
    assert links(world) == {}


def test_a_volume_of_another_name_is_found_by_its_source(world: World) -> None:
    import json
    import urllib.request

    add_image(world)
    body = json.dumps({"resource_definition_name": "OpenNebula-Image-55", "volume_sizes": [8192]}).encode()
    group = definition(world, "one-image-0")["group"]
    address = f"{world.sandbox.uri}/v1/resource-groups/{group}/spawn"
    urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"})).read()
    image = world.cloud.register_image(world.images, "OpenNebula-Image-55", 8)
    image.persistent = True
    vm = start(world, image, "node2")
    assert link(world, vm, 0) == "OpenNebula-Image-55"
    world.cloud.terminate(vm)
    assert "OpenNebula-Image-55" in volumes(world)
    assert attached(world, "OpenNebula-Image-55") == set()
