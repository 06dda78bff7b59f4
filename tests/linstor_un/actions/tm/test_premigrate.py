"""tm/premigrate: everything is ready on the destination, and two primaries only between the two hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from linstor_sandbox.opennebula import ActionFailed, HypervisorFailed
from linstor_sandbox.opennebula.datastores import Datastore
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.living import EVERY_KIND, guest, places, start, text, two_primaries, write
from tests.linstor_un.scenes import (
    add_image,
    attached,
    failure,
    files,
    homes,
    last,
    link,
    links,
    own,
    path,
    requests,
    sentence,
    stranger,
    volume,
    what_is_left,
)

VERSIONS = pytest.mark.parametrize("rest_version", ["1.27.0", "1.29.1"])
WRITTEN = (0, 1, 3, 4)


@VERSIONS
def test_there_and_back_again_with_every_kind_of_disk(make_world: Callable[..., World], rest_version: str) -> None:
    world = make_world(rest_version=rest_version)
    vm = start(world, EVERY_KIND)
    neighbour = world.cloud.instantiate("DISK=[IMAGE_ID=2]", "node1", world.system)
    resources = [own(vm), volume(world.cloud.images[1]), own(vm, 3), own(vm, 4)]
    before, roles = links(world), {name: homes(world, name) for name in resources}
    for host in ("node2", "node3", "node1"):
        write(world, vm, 0, f"on the way to {host}")
        world.cloud.migrate_live(vm, host)
        assert two_primaries(world) == {}
        assert {name for name in links(world) if f"/{vm.identifier}/" in name} == {
            f"{host}:{world.system.identifier}/{vm.identifier}/disk.{number}" for number in range(5)
        }
        assert path(world, vm, "disk.5").is_file() and path(world, vm, "deployment.0").is_file()
        assert all(attached(world, name) <= {host} for name in resources)
        for disk_id in WRITTEN:
            write(world, vm, disk_id, f"arrived on {host}")
        assert text(world, resources[1]) == f"arrived on {host}"
    assert links(world) == before
    assert {name: homes(world, name) for name in resources} == roles
    assert link(world, neighbour, 0, "node1") == volume(world.cloud.images[2])
    assert world.sandbox.snapshot_of_state()["domains"] == [
        f"node1/one-{vm.identifier}",
        f"node1/one-{neighbour.identifier}",
    ]


@VERSIONS
def test_two_primaries_only_between_the_two_hosts(
    make_world: Callable[..., World], rest_version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(nodes=("node1", "node2", "node3", "node4"), rest_version=rest_version)
    add_image(world, persistent=True)
    resource = volume(world.cloud.images[0])
    diskless = sorted(set(world.cloud.hosts) - set(homes(world, resource)) | set(attached(world, resource)))
    outside = [node for node in world.cloud.hosts if homes(world, resource).get(node) != "replica"]
    assert diskless or outside
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", outside[0], world.system)
    seen: list[dict[str, list[str]]] = []
    migrate = world.cloud.hypervisor.migrate

    def look(*arguments: object) -> None:
        seen.append(two_primaries(world))
        migrate(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.cloud.hypervisor, "migrate", look)
    holder = next(node for node, role in homes(world, resource).items() if role == "replica")
    world.cloud.migrate_live(vm, outside[1])
    world.cloud.migrate_live(vm, holder)
    # Between two nodes without a replica there is no connection: it is allowed for all while it lasts.
    assert seen == [{resource: ["all"]}, {resource: ["/".join(sorted((holder, outside[1])))]}]
    assert two_primaries(world) == {}


def test_requests_and_connections(world: World) -> None:
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    target = stranger(world, volume(image)) if stranger(world, volume(image)) != "node1" else "node2"
    world.cloud.migrate_live(vm, target)
    # The version, make-available, what an earlier migration left (2), where the volume is, two primaries.
    assert last(world, "premigrate").counts == {"rest": 6, "ssh": 2}
    assert last(world, "postmigrate").counts["ssh"] == 2
    assert last(world, "postmigrate").counts["rest"] <= 4


@VERSIONS
def test_what_nobody_writes_to_needs_no_second_primary(make_world: Callable[..., World], rest_version: str) -> None:
    world = make_world(rest_version=rest_version)
    add_image(world, type="CDROM")
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    before = len(world.sandbox.requests)
    world.cloud.migrate_live(vm, "node3")
    # The version and make-available.
    assert last(world, "premigrate").counts["rest"] == 2
    assert not any("auto_manage_dual_primary" in (made.body or {}) for made in world.sandbox.requests[before:])


def test_requests_where_linstor_manages_two_primaries(make_world: Callable[..., World]) -> None:
    world = make_world(rest_version="1.29.1")
    add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    world.cloud.migrate_live(vm, "node3")
    assert last(world, "premigrate").counts == {"rest": 2, "ssh": 2}
    assert last(world, "postmigrate").counts == {"rest": 2, "ssh": 2}
    assert requests(world, "connections") == []


@pytest.mark.parametrize(
    ("release", "broken"),
    [("7.4", "linstor"), *(("6.10", what) for what in ("linstor", "device", "destination", "source", "other driver"))],
)
def test_a_failure_leaves_the_vm_on_the_source_and_nothing_on_the_destination(
    make_world: Callable[..., World], release: str, broken: str, tmp_path: Path
) -> None:
    world = make_world(release=release, configuration='DEVICE_TIMEOUT="1"\n')
    vm = start(world, EVERY_KIND)
    before = places(world)
    if broken == "linstor":
        world.sandbox.faults.fail(r"POST .*disk-3/resources/node2/make-available", 998)
    elif broken == "device":
        # Whatever is in the way of a link.
        path(world, vm, "disk.3", "node2").mkdir(parents=True)
    elif broken == "destination":
        world.sandbox.refuse_ssh("node2")
    elif broken == "source":
        world.sandbox.refuse_ssh("node1")
    else:
        vm.disk(4).attributes["TM_MAD"] = "ceph_un"
    assert failure(lambda: world.cloud.migrate_live(vm, "node2"))
    vm.disk(4).attributes["TM_MAD"] = "linstor_un"
    for node in ("node1", "node2"):
        world.sandbox.refuse_ssh(node, False)
    assert vm.host == "node1"
    after = places(world)
    if broken in ("source", "destination"):
        # What cannot be reached cannot be cleaned: its directory holds no more than a leftover.
        after["files"]["node2"] = before["files"]["node2"]
    assert after == before
    write(world, vm, 0, "it runs")
    world.cloud.migrate_live(vm, "node2")


@pytest.mark.parametrize(
    ("rest_version", "step"), [("1.27.0", "prepare"), ("1.27.0", "perform"), ("1.27.0", "finish"), ("1.29.1", "finish")]
)
def test_a_migration_that_fails_in_libvirt(make_world: Callable[..., World], rest_version: str, step: str) -> None:
    world = make_world(rest_version=rest_version)
    vm = start(world, EVERY_KIND)
    before = places(world)
    world.sandbox.fail_virsh("migrate", step)
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node2")
    assert last(world, "failmigrate").succeeded
    assert places(world) == before
    write(world, vm, 0, "it runs")


def test_a_third_node_that_is_away_does_not_matter(world: World) -> None:
    image = add_image(world, persistent=True)
    holders = [node for node, role in homes(world, volume(image)).items() if role == "replica"]
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", holders[0], world.system)
    third = next(node for node in world.cloud.hosts if node not in holders)
    world.sandbox.set_node(third, online=False)
    world.cloud.migrate_live(vm, holders[1])
    write(world, vm, 0, "here")
    assert two_primaries(world) == {}


def test_what_a_front_end_that_died_has_left_is_taken_back_by_the_next(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    scripts = world.cloud.scripts
    once = scripts.migration
    scripts.migration = lambda mad, verb, argv, stdin: once(mad, "premigrate", argv, stdin)  # type: ignore[method-assign]
    world.cloud.migrate_live(vm, "node2")
    scripts.migration = once  # type: ignore[method-assign]
    assert two_primaries(world) != {}
    world.cloud.migrate_live(vm, "node3")
    assert two_primaries(world) == {}
    assert "was still allowed to be primary on" in last(world, "premigrate").stderr


def test_within_a_host_to_another_system_datastore(world: World) -> None:
    vm = start(world, EVERY_KIND)
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    world.cloud.migrate_live(vm, "node1", other)
    below = [name for name in files(world, "node1") if f"/{vm.identifier}/" in name]
    assert below and all(name.startswith(f"{other.identifier}/") for name in below)
    assert link(world, vm, 0) == own(vm)
    write(world, vm, 0, "here")
    world.cloud.suspend(vm)
    world.cloud.resume(vm)
    world.cloud.migrate_live(vm, "node2")
    world.cloud.terminate(vm)
    assert links(world) == {}


@pytest.mark.parametrize("rest_version", ["1.27.0", "1.29.1"])
def test_a_vm_finds_its_disks_wherever_it_goes_after_a_move_within_its_host(
    make_world: Callable[..., World], rest_version: str
) -> None:
    world = make_world(rest_version=rest_version)
    vm = start(world, EVERY_KIND)
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    world.cloud.migrate_live(vm, "node1", other)
    world.cloud.migrate_live(vm, "node2")
    write(world, vm, 0, "there")
    world.cloud.migrate_live(vm, "node2", world.system)
    world.cloud.migrate_live(vm, "node1")
    write(world, vm, 0, "back")
    assert text(world, own(vm)) == "back"
    assert [name for name in files(world, "node2") if name.count("/")] == []
    world.cloud.poweroff(vm)
    world.cloud.migrate_cold(vm, "node1", other)
    world.cloud.resume(vm)
    assert link(world, vm, 0) == own(vm)
    world.cloud.terminate(vm)
    assert what_is_left(world)["files"] == {}


def test_a_failed_move_within_a_host_leaves_the_paths_that_the_vm_knows(world: World) -> None:
    vm = start(world, EVERY_KIND)
    other = world.cloud.create_datastore(SYSTEM_TEMPLATE.replace("linstor-system", "linstor-system2"))
    before = files(world, "node1")
    world.sandbox.fail_virsh("change-media")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node1", other)
    assert [name for name in files(world, "node1") if name.count("/")] == [name for name in before if name.count("/")]
    world.cloud.migrate_live(vm, "node1", other)
    world.sandbox.fail_virsh("change-media")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node1", world.system)
    world.cloud.migrate_live(vm, "node2")
    write(world, vm, 0, "there")


OTHER = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
cat > {log}.$(basename "$0")
"""


def test_other_drivers_are_called_once_with_the_same_input(make_world: Callable[..., World], tmp_path: Path) -> None:
    world = make_world()
    remotes = tmp_path / "remotes"
    for name in ("datastore", "tm", "vmm", "etc", "lib"):
        (remotes / name).mkdir(parents=True)
    checkout = world.cloud.scripts.remotes
    (remotes / "lib").rmdir()
    (remotes / "lib").symlink_to(checkout / "lib")
    _copy_scripts(checkout, remotes)
    for verb in ("premigrate", "postmigrate", "failmigrate"):
        script = remotes / "tm" / "ceph" / verb
        script.parent.mkdir(exist_ok=True)
        script.write_text(OTHER.format(log=tmp_path / "log"))
        script.chmod(0o755)
    vm = start(world, EVERY_KIND)
    world.cloud.scripts.remotes = remotes
    for disk_id in (3, 4):
        vm.disk(disk_id).attributes["TM_MAD"] = "ceph"
    world.sandbox.fail_virsh("migrate", "perform")
    with pytest.raises((HypervisorFailed, ActionFailed)):
        world.cloud.migrate_live(vm, "node2")
    arguments = f"node1 node2 /var/lib/one//datastores/{world.system.identifier}/{vm.identifier} {vm.identifier} "
    arguments += f"{world.system.identifier} linstor_un"
    assert (tmp_path / "log").read_text().splitlines() == [f"premigrate {arguments}", f"failmigrate {arguments}"]
    assert (tmp_path / "log.premigrate").read_text() == last(world, "premigrate").stdin


def _copy_scripts(checkout: Path, remotes: Path) -> None:
    """Entry scripts find the library beside their own folder, not where a link leads."""
    for kind in ("datastore", "tm"):
        (remotes / kind / "linstor_un").mkdir()
        for script in (checkout / kind / "linstor_un").iterdir():
            if script.is_file():
                copy = remotes / kind / "linstor_un" / script.name
                copy.write_bytes(script.read_bytes())
                copy.chmod(0o755)


def test_called_by_another_system_datastores_driver(world: World) -> None:
    """The ssh driver moves the directory and calls us with its name: we do our disks, and call nobody."""
    vm = start(world, "DISK=[IMAGE_ID=1]")
    ssh = Datastore(900, "ssh-system", "SYSTEM_DS", {"TM_MAD": "ssh", "TYPE": "SYSTEM_DS"})
    world.cloud.datastores.append(ssh)
    scripts, once = world.cloud.scripts, world.cloud.scripts.migration

    def relay(mad: str, verb: str, argv: list[str], stdin: str) -> object:
        return once(mad, verb, [*argv, "ssh"], stdin)

    scripts.migration = relay  # type: ignore[method-assign, assignment]
    world.cloud.migrate_live(vm, "node2")
    assert link(world, vm, 0, "node2") == volume(world.cloud.images[1])
    assert two_primaries(world) == {}
    assert path(world, vm, "deployment.0", "node1").exists()


def test_input_that_is_no_vm_changes_nothing(world: World) -> None:
    vm = start(world, "DISK=[IMAGE_ID=1]")
    before = places(world)
    directory = f"/var/lib/one//datastores/{world.system.identifier}/{vm.identifier}"
    argv = ["node1", "node2", directory, str(vm.identifier), str(world.system.identifier)]
    for stdin in ("", "PFZN", "PFZNPjxJRD43PC9JRD48L1ZNPg=="):
        assert sentence(world.cloud.scripts.migration("linstor_un", "premigrate", argv, stdin))
    assert places(world) == before
    assert guest(world, vm).state == "running"
