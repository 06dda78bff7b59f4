"""Whole lives of VMs: every line twice, many VMs at once, moves round and round; at the end nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from linstor_sandbox import OLD_DATA, Pool
from linstor_sandbox.opennebula import VirtualMachine
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import (
    MIB,
    NOTHING,
    add_image,
    attached,
    content,
    definition,
    homes,
    link,
    links,
    own,
    replicas,
    requests,
    state,
    volume,
    volumes,
    what_is_left,
)

EVERY_KIND = (
    "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] DISK=[IMAGE_ID=2] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16] "
    'DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]'
)
A_FEW = 'DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] CONTEXT=[NETWORK="YES"]'


def add_images(world: World) -> None:
    """Image 0 is cloned, 1 is persistent, 2 is a CDROM."""
    add_image(world)
    add_image(world, 2, persistent=True)
    add_image(world, 3, type="CDROM")


def delete_everything(world: World) -> None:
    for image in list(world.cloud.images):
        world.cloud.delete_image(image)
    assert what_is_left(world) == NOTHING


class Twice:
    """oned, every line of whose transfer scripts runs a second time and must then change nothing."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.verbs: set[str] = set()
        self._once = world.cloud.scripts.transfer_line
        monkeypatch.setattr(world.cloud.scripts, "transfer_line", self.run)

    def run(self, line: str) -> Call:
        first = self._once(line)
        assert first.succeeded, first.stderr
        before = state(self.world)
        second = self._once(line)
        assert second.succeeded, f"{line}: {second.stderr}"
        assert state(self.world) == before, line
        verb = first.verb
        self.verbs.add(verb if "/disk." in " ".join(first.argv) else f"{verb} directory")
        return second


def test_every_line_of_a_life_and_its_moves_twice_is_as_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_images(world)
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    twice = Twice(world, monkeypatch)
    vm = world.cloud.instantiate(EVERY_KIND, "node1", world.system)
    world.cloud.migrate_cold(vm, "node3")
    world.cloud.resize_disk(vm, vm.disk(0), 24)
    world.cloud.poweroff(vm)
    world.cloud.migrate_cold(vm, "node3", other)
    world.cloud.terminate(vm)
    moves = {"mv", "mv directory", "delete", "delete directory", "mvds", "resize"}
    assert twice.verbs == {"clone", "ln", "mkimage", "mkswap", "context"} | moves
    monkeypatch.undo()
    delete_everything(world)


def test_every_line_of_parking_and_coming_back_twice_is_as_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    add_images(world)
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    vm = world.cloud.instantiate(EVERY_KIND, "node3", world.system)
    twice = Twice(world, monkeypatch)
    world.cloud.stop(vm)
    world.cloud.deploy(vm, "node2", other)
    world.cloud.undeploy(vm)
    world.cloud.resize_disk(vm, vm.disk(3), 32)
    world.cloud.terminate(vm)
    assert twice.verbs == {"mv", "mv directory", "context", "resize", "delete", "delete directory", "mvds"}
    assert [found for found in world.frontend.rglob("*") if found.name not in ("datastores", "100", "101", "102")] == []
    monkeypatch.undo()
    delete_everything(world)


def test_every_line_of_hot_plugging_and_of_a_clean_up_twice_is_as_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_images(world)
    twice = Twice(world, monkeypatch)
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node3", world.system)
    # Not while it runs: nothing of oned's calls a line again for a disk that a guest has open.
    world.cloud.poweroff(vm)
    for template in ("DISK=[IMAGE_ID=0]", "DISK=[IMAGE_ID=1]", "DISK=[IMAGE_ID=2]", "DISK=[TYPE=fs,FORMAT=raw,SIZE=4]"):
        disk = world.cloud.attach(vm, template)
        world.cloud.detach(vm, disk)
        world.cloud.attach(vm, template)
    world.cloud.recover_delete(vm)
    world.cloud.enable_image(world.cloud.image(1))
    assert twice.verbs == {"mkswap", "clone", "ln", "mkimage", "delete", "mvds", "delete directory"}
    monkeypatch.undo()
    delete_everything(world)


@pytest.mark.parametrize("kind", ["LVM", "ZFS"])
def test_every_line_twice_on_other_pools(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    world = make_world(pools=(Pool("data", kind, 2048),))
    add_image(world)
    Twice(world, monkeypatch)
    template = "DISK=[IMAGE_ID=0] DISK=[TYPE=fs,FORMAT=raw,SIZE=8]"
    vm = world.cloud.instantiate(template, "node2", world.system)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    assert OLD_DATA not in world.sandbox.read(own(vm, 1))
    world.cloud.terminate(vm)
    monkeypatch.undo()
    delete_everything(world)


def start_at_once(world: World, template: str, datastore: Datastore, count: int) -> list[VirtualMachine]:
    """So many VMs of one template, spread over the hosts, all at the same time."""
    hosts = [world.cloud.hosts[number % len(world.cloud.hosts)] for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        started = list(pool.map(lambda host: world.cloud.instantiate(template, host, datastore), hosts))
    return sorted(started, key=lambda vm: vm.identifier)


def terminate_at_once(world: World, machines: list[VirtualMachine]) -> None:
    with ThreadPoolExecutor(len(machines)) as pool:
        list(pool.map(world.cloud.terminate, machines))


@pytest.mark.parametrize(("mode", "count"), [("snapshot", 15), ("copy", 6)])
def test_many_vms_at_once_from_one_image_and_deleted_at_once(
    make_world: Callable[..., World], mode: str, count: int
) -> None:
    world = make_world(configuration='LOCK_TIMEOUT="300"')
    image = add_image(world)
    datastore = world.cloud.create_datastore(
        SYSTEM_TEMPLATE.replace("linstor-system", "many").replace('"snapshot"', f'"{mode}"')
    )
    template = f"DISK=[IMAGE_ID={image.identifier}] DISK=[TYPE=swap,SIZE=4]"
    started = start_at_once(world, template, datastore, count)
    assert [vm.identifier for vm in started] == list(range(count))
    assert len(world.cloud.hypervisor.running) == count
    assert links(world) == {
        f"{vm.host}:{datastore.identifier}/{vm.identifier}/disk.{number}": own(vm, number)
        for vm in started
        for number in (0, 1)
    }
    snapshots = requests(world, r"POST .*/snapshots$")
    assert len(snapshots) == (1 if mode == "snapshot" else 0), "one base snapshot serves them all"
    assert list(definition(world, volume(image))["snapshots"]) == (["linstor_un-base"] if mode == "snapshot" else [])
    for vm in started:
        assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
        world.sandbox.write(own(vm), f"VM {vm.identifier}".encode(), MIB)
    assert {world.sandbox.read(own(vm), MIB, 8).rstrip(b"\0") for vm in started} == {
        f"VM {vm.identifier}".encode() for vm in started
    }
    assert not requests(world, rf"POST .*/{volume(image)}/resources/.*make-available"), "read where there is a replica"
    assert all(len(replicas(world, own(vm))) == 2 for vm in started)

    terminate_at_once(world, started)
    assert volumes(world) == {volume(image)}
    assert world.sandbox.read(volume(image), 0, 4 * MIB) == content(1)
    delete_everything(world)


def test_several_vms_share_a_cdrom_at_once(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='LOCK_TIMEOUT="300"')
    cdrom = add_image(world, type="CDROM")
    started = start_at_once(world, f"DISK=[IMAGE_ID={cdrom.identifier}]", world.system, 6)
    assert set(links(world).values()) == {volume(cdrom)} and len(links(world)) == 6
    terminate_at_once(world, started)
    assert links(world) == {} and attached(world, volume(cdrom)) == set()
    delete_everything(world)


@pytest.mark.parametrize("rest_version", ["1.27.0", "1.28.0"])
def test_the_tie_breaker_and_the_quorum_outlive_all_attaching_and_detaching(
    make_world: Callable[..., World], rest_version: str
) -> None:
    world = make_world(rest_version=rest_version)
    image = add_image(world, persistent=True)
    before = definition(world, volume(image))
    assert before["props"]["DrbdOptions/Resource/quorum"] == "majority"
    vm = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node3", world.system)
    for host in ("node1", "node3", "node2"):
        world.cloud.migrate_cold(vm, host)
        assert definition(world, volume(image))["props"] == before["props"]
    world.cloud.stop(vm)
    world.cloud.deploy(vm, "node3", world.system)
    world.cloud.terminate(vm)
    for host in world.cloud.hosts:
        again = world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", host, world.system)
        world.cloud.recover_delete(again)
        world.cloud.enable_image(image)
        assert definition(world, volume(image))["props"] == before["props"]
    assert definition(world, volume(image)) == before
    assert sorted(homes(world, volume(image)).values()) == ["replica", "replica", "tie-breaker"]
    assert "DrbdOptions/auto-add-quorum-tiebreaker" not in before["props"]
    assert not [
        request
        for request in world.sandbox.requests
        if request.method == "DELETE" and "/resources/" in request.path and "keep_tiebreaker=True" not in request.query
    ], "the plain DELETE of a resource"


def test_a_volume_keeps_its_tie_breaker_on_four_nodes_wherever_the_vm_goes(make_world: Callable[..., World]) -> None:
    world = make_world(nodes=("node1", "node2", "node3", "node4"))
    vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node1", world.system)
    before = definition(world, own(vm))["props"]
    for host in ("node4", "node3", "node2", "node1", "node4"):
        world.cloud.migrate_cold(vm, host)
        roles = sorted(homes(world, own(vm)).values())
        assert roles.count("replica") == 2 and len(roles) >= 3
        assert definition(world, own(vm))["props"] == before
        assert homes(world, own(vm))[host] != "tie-breaker" or host not in attached(world, own(vm))


def test_replica_counts_stay_after_balancing_in_the_middle_of_a_life(world: World) -> None:
    add_images(world)
    single = world.cloud.create_datastore(
        SYSTEM_TEMPLATE.replace("linstor-system", "single").replace('AUTO_PLACE="2"', 'AUTO_PLACE="1"')
    )
    vm = world.cloud.instantiate(EVERY_KIND, "node1", single)
    expected = {name: len(replicas(world, name)) for name in volumes(world)}
    assert {expected[own(vm, number)] for number in (0, 3, 4)} == {1}
    assert {expected[f"one-image-{number}"] for number in range(3)} == {2}
    for host in ("node2", "node3"):
        world.sandbox.run_balance()
        world.cloud.migrate_cold(vm, host)
        assert {name: len(replicas(world, name)) for name in volumes(world)} == expected


def test_a_life_through_an_oned_that_knows_no_multicall(world: World) -> None:
    world.cloud.rpc.multicall_allowed = False
    add_images(world)
    vm = world.cloud.instantiate(A_FEW, "node1", world.system)
    world.cloud.migrate_cold(vm, "node2")
    world.cloud.stop(vm)
    world.cloud.deploy(vm, "node3", world.system)
    assert [link(world, vm, number) for number in (0, 1)] == [own(vm), "one-image-1"]
    world.cloud.terminate(vm)
    delete_everything(world)


def test_a_life_on_a_front_end_that_is_a_host(make_world: Callable[..., World]) -> None:
    world = make_world(configuration='FRONTEND_HOSTNAME="node2"', frontend_host="node2")
    world.cloud.frontend = "node2"
    add_images(world)
    vm = world.cloud.instantiate(A_FEW, "node2", world.system)
    assert world.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    world.cloud.migrate_cold(vm, "node1")
    world.cloud.undeploy(vm)
    world.cloud.deploy(vm, "node2", world.system)
    world.cloud.resize_disk(vm, vm.disk(0), 24)
    world.cloud.undeploy(vm)
    world.cloud.terminate(vm)
    assert links(world) == {}
    delete_everything(world)
