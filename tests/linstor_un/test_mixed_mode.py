"""Mixed mode: whole lives of VMs whose directory is another driver's and whose disks are ours."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from linstor_sandbox.opennebula import ActionFailed, HypervisorFailed, Refused, VirtualMachine
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_un.cli import audit
from tests.conftest import IMAGE_TEMPLATE, World
from tests.linstor_un.living import killed_while, snapshots, text, twice, two_primaries, write
from tests.linstor_un.mixed import SYSTEM_DRIVERS, mixed
from tests.linstor_un.scenes import (
    add_image,
    attached,
    content,
    failure,
    last,
    link,
    links,
    own,
    path,
    replicas,
    requests,
    sentence,
    state,
    stranger,
    volume,
    volumes,
    what_is_left,
)

IMAGES = {"one-image-0", "one-image-1", "one-image-2"}
EVERY = 'DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1] DISK=[IMAGE_ID=2] DISK=[TYPE=fs,FORMAT=raw,SIZE=4] CONTEXT=[NETWORK="YES"]'
TWO = "DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1]"


def start(world: World, system: Datastore, template: str = EVERY, host: str = "node1") -> VirtualMachine:
    """A VM whose image 0 is cloned, 1 is persistent, 2 is a CDROM."""
    add_image(world)
    add_image(world, 2, persistent=True)
    add_image(world, 3, type="CDROM")
    return world.cloud.instantiate(template, host, system)


def its_volumes(vm: VirtualMachine) -> list[str]:
    """The volumes of disks 0 and 1."""
    return [own(vm), "one-image-1"]


def check_is_on(world: World, vm: VirtualMachine, host: str) -> None:
    """It runs there, writes to both disks, and every disk is a link to its volume there."""
    assert world.cloud.hypervisor.running[vm.identifier] == host
    for disk_id, name in enumerate(its_volumes(vm)):
        write(world, vm, disk_id, f"on {host}")
        assert text(world, name) == f"on {host}"
        assert link(world, vm, disk_id, host) == name
    assert two_primaries(world) == {}


@pytest.mark.parametrize("driver", SYSTEM_DRIVERS)
def test_a_life(world: World, driver: str) -> None:
    system, cloud = mixed(world, driver), world.cloud
    vm = start(world, system)
    others = [call.verb for call in cloud.calls if "." in call.verb]
    assert others == [f"clone.{driver}", f"ln.{driver}", f"ln.{driver}"]
    assert path(world, vm, "disk.3").is_file() and path(world, vm, "disk.4").is_file()
    check_is_on(world, vm, "node1")
    cloud.migrate_cold(vm, "node2", poff=False)
    check_is_on(world, vm, "node2")
    cloud.migrate_live(vm, "node3")
    check_is_on(world, vm, "node3")
    # What the cold migration has left attached went with the live one.
    assert all(attached(world, name) <= {"node3"} for name in its_volumes(vm))
    cloud.suspend(vm)
    cloud.resume(vm)
    check_is_on(world, vm, "node3")
    cloud.stop(vm)
    assert all(attached(world, name) == set() for name in its_volumes(vm))
    assert driver == "shared" or links(world) == {}
    assert (world.frontend / f"datastores/{system.identifier}/0/checkpoint").is_file()
    cloud.deploy(vm, "node1", system)
    check_is_on(world, vm, "node1")
    cloud.undeploy(vm)
    assert driver == "shared" or links(world) == {}
    cloud.deploy(vm, "node2", system)
    cloud.poweroff(vm)
    cloud.migrate_cold(vm, "node1")
    cloud.resume(vm)
    check_is_on(world, vm, "node1")
    cloud.terminate(vm)
    assert what_is_left(world) == {"volumes": sorted(IMAGES), "open": [], "domains": [], "files": {}}
    assert [name for name in IMAGES if attached(world, name)] == []


def test_disks_of_a_running_vm(world: World) -> None:
    vm = start(world, mixed(world), TWO)
    cloud, clone = world.cloud, vm.disks[0]
    disk = cloud.attach(vm, "DISK=[IMAGE_ID=2]")
    assert last(world, "ln.ssh").argv[1].endswith("/disk.2") and link(world, vm, 2) == "one-image-2"
    cloud.detach(vm, disk)
    assert path(world, vm, "disk.2").is_symlink() is False and attached(world, "one-image-2") == set()
    write(world, vm, 0, "kept")
    snapshot = cloud.snapshot_create(vm, clone)
    write(world, vm, 0, "lost")
    assert snapshots(world, own(vm)) == {f"snapshot-{snapshot.identifier}"}
    cloud.resize_disk(vm, clone, 8)
    saved = cloud.disk_saveas(vm, clone, "saved")
    assert text(world, volume(saved)) == "lost"
    cloud.poweroff(vm)
    cloud.snapshot_revert(vm, clone, snapshot)
    cloud.snapshot_delete(vm, clone, snapshot)
    cloud.resume(vm)
    assert text(world, own(vm)) == "kept" and snapshots(world, own(vm)) == set()
    cloud.terminate(vm)
    assert volumes(world) == {*IMAGES, volume(saved)}


def test_a_cdrom_stays_where_another_vm_has_it_and_nowhere_else(world: World) -> None:
    system = mixed(world)
    add_image(world, type="CDROM")
    host = stranger(world, "one-image-0")
    target, other = sorted(replicas(world, "one-image-0"))
    vm, neighbour = (world.cloud.instantiate("DISK=[IMAGE_ID=0]", host, system) for _ in range(2))
    world.cloud.migrate_cold(vm, target)
    world.cloud.migrate_cold(vm, other)
    assert attached(world, "one-image-0") == {host}
    world.cloud.migrate_cold(neighbour, target)
    world.cloud.terminate(neighbour)
    assert attached(world, "one-image-0") == set()
    world.cloud.terminate(vm)
    assert attached(world, "one-image-0") == set()


@pytest.mark.parametrize("driver", ["ssh", "shared"])
def test_recovery_deletes_and_makes_anew(world: World, driver: str) -> None:
    system = mixed(world, driver)
    vm = start(world, system)
    write(world, vm, 1, "persistent")
    world.cloud.recover_recreate(vm)
    assert volumes(world) == IMAGES and links(world) == {}
    world.cloud.deploy(vm, "node3", system)
    assert text(world, "one-image-1") == "persistent" and world.sandbox.read(own(vm)).startswith(content(1))
    world.cloud.recover_delete(vm)
    assert what_is_left(world) == {"volumes": sorted(IMAGES), "open": [], "domains": [], "files": {}}
    assert [name for name in IMAGES if attached(world, name)] == []


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"DISK_TYPE_SSH": "FILE"}, "DISK_TYPE 'FILE' by DISK_TYPE_SSH of its image datastore"),
        ({"LN_TARGET_SSH": "SYSTEM"}, 'sets LN_TARGET_SSH="NONE" in oned.conf'),
    ],
)
def test_a_mode_that_is_not_done_is_refused_before_anything_is_made(
    world: World, wrong: dict[str, str], part: str
) -> None:
    system = mixed(world, **wrong)
    add_image(world, persistent=True)
    before = state(world)
    assert part in failure(lambda: world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", system))
    assert state(world) == before


def test_no_disk_is_made_where_another_of_the_vm_cannot_be(world: World) -> None:
    system = mixed(world)
    add_image(world)
    # Made, or updated, when oned.conf said otherwise: each datastore has its own copy of the values.
    world.cloud.tm_mad_confs["linstor_un"]["DISK_TYPE_SSH"] = "FILE"
    world.images = world.cloud.create_datastore(IMAGE_TEMPLATE.replace("linstor-images", "stale"))
    add_image(world, 2)
    before = state(world)
    said = failure(lambda: world.cloud.instantiate(TWO, "node1", system))
    assert "Disk 1 of VM 0 has DISK_TYPE 'FILE' by DISK_TYPE_SSH of its image datastore" in said
    assert f"onedatastore update {world.images.identifier}`" in said
    assert state(world) == before


def test_a_driver_that_nobody_knows_is_refused_before_anything_is_made(world: World) -> None:
    values = {"LN_TARGET_FS_LVM_SSH": "NONE", "CLONE_TARGET_FS_LVM_SSH": "SELF", "DISK_TYPE_FS_LVM_SSH": "BLOCK"}
    mixed(world, TM_MAD_SYSTEM="ssh,fs_lvm_ssh", **values)
    confs = world.cloud.tm_mad_confs
    confs["fs_lvm_ssh"] = {**confs["ssh"], "NAME": "fs_lvm_ssh"}
    system = world.cloud.create_datastore('NAME="sys-lvm" TYPE="SYSTEM_DS" TM_MAD="fs_lvm_ssh"')
    add_image(world, persistent=True)
    before = state(world)
    said = failure(lambda: world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", system))
    assert "cannot be in a system datastore of 'fs_lvm_ssh'" in said
    assert "take 'fs_lvm_ssh' out of TM_MAD_SYSTEM" in said
    assert state(world) == before


def test_increments_of_another_drivers_backup_are_refused_before_anything_is_made(world: World) -> None:
    system = mixed(world)
    add_image(world)
    before = state(world)
    template = 'DISK=[IMAGE_ID=0] BACKUP_CONFIG=[MODE="INCREMENT"]'
    said = failure(lambda: world.cloud.instantiate(template, "node1", system))
    assert "has MODE=INCREMENT in BACKUP_CONFIG, and ssh, which backs up the VMs" in said
    assert state(world) == before


def test_oned_itself_refuses_what_its_configuration_does_not_name(world: World) -> None:
    world.install_other_storages()
    system = world.cloud.create_datastore('NAME="sys-ssh" TYPE="SYSTEM_DS" TM_MAD="ssh"')
    add_image(world)
    with pytest.raises(Refused, match="Image Datastore does not support transfer mode: ssh"):
        world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", system)


@pytest.mark.parametrize("request_killed", [r"POST .*/spawn", r"POST .*one-image-1/.*make-available"])
def test_an_instantiation_that_was_killed_is_repeated(world: World, request_killed: str) -> None:
    system = mixed(world)
    add_image(world)
    add_image(world, 2, persistent=True)
    image = volume(world.cloud.images[1])
    host = stranger(world, image)
    vm = world.cloud.create_vm(TWO, system)
    with killed_while(world, request_killed), pytest.raises(ActionFailed):
        world.cloud.deploy(vm, host, system)
    world.cloud.recover_retry(vm)
    check_is_on(world, vm, host)
    world.cloud.terminate(vm)
    assert volumes(world) == {"one-image-0", "one-image-1"} and links(world) == {}


@pytest.mark.parametrize("driver", ["ssh", "shared"])
def test_every_call_may_be_repeated(world: World, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system = mixed(world, driver)
    twice(world, monkeypatch)
    vm = start(world, system, TWO)
    world.cloud.migrate_cold(vm, "node2")
    world.cloud.detach(vm, world.cloud.attach(vm, "DISK=[IMAGE_ID=2]"))
    world.cloud.undeploy(vm)
    world.cloud.deploy(vm, "node3", system)
    check_is_on(world, vm, "node3")
    world.cloud.terminate(vm)
    assert volumes(world) == IMAGES and links(world) == {}


@pytest.mark.parametrize("driver", ["ssh", "shared"])
def test_a_move_that_was_killed_goes_back_or_on(world: World, driver: str) -> None:
    system = mixed(world, driver)
    add_image(world)
    add_image(world, 2, persistent=True)
    image = volume(world.cloud.images[1])
    source = sorted(replicas(world, image))[0]
    target = stranger(world, image)
    vm = world.cloud.instantiate(TWO, source, system)
    with killed_while(world, r"POST .*one-image-1/.*make-available"), pytest.raises(ActionFailed):
        world.cloud.migrate_cold(vm, target)
    world.cloud.recover_failure(vm)
    check_is_on(world, vm, source)
    with killed_while(world, r"POST .*one-image-1/.*make-available"), pytest.raises(ActionFailed):
        world.cloud.migrate_cold(vm, target)
    world.cloud.recover_retry(vm)
    check_is_on(world, vm, target)


def test_a_move_whose_directory_does_not_come_goes_back(world: World) -> None:
    vm = start(world, mixed(world))
    # Nothing can be put where the directory is to come.
    place = path(world, vm, "", "node2").parent
    place.write_text("in the way")
    with pytest.raises(ActionFailed, match="Command execution failed on node2"):
        world.cloud.migrate_cold(vm, "node2")
    world.cloud.recover_failure(vm)
    check_is_on(world, vm, "node1")
    place.unlink()
    world.cloud.migrate_cold(vm, "node2")
    check_is_on(world, vm, "node2")


@pytest.mark.parametrize("rest_version", ["1.27.0", "1.29.1"])
def test_a_live_migration_that_fails_and_is_told_to_nobody_is_tidied_up_by_the_next(
    make_world: Callable[..., World], rest_version: str
) -> None:
    world = make_world(rest_version=rest_version)
    vm = start(world, mixed(world))
    world.sandbox.domains.fail("migrate", "perform")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node2")
    assert world.cloud.hypervisor.running[vm.identifier] == "node1"
    world.cloud.migrate_live(vm, "node3")
    check_is_on(world, vm, "node3")
    assert all(attached(world, name) <= {"node3"} for name in its_volumes(vm))


def test_a_live_migration_whose_preparation_was_killed_fails_and_is_repeated(world: World) -> None:
    system = mixed(world)
    add_image(world)
    add_image(world, 2, persistent=True)
    target = stranger(world, "one-image-1")
    vm = world.cloud.instantiate(TWO, sorted(replicas(world, "one-image-1"))[0], system)
    source = vm.host
    # ssh takes no notice, and the hypervisor finds no device.
    with killed_while(world, r"POST .*one-image-1/.*make-available"), pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, target)
    check_is_on(world, vm, source)
    world.cloud.migrate_live(vm, target)
    check_is_on(world, vm, target)


def test_images_of_two_linstors_in_one_vm(world: World) -> None:
    # Two addresses are two LINSTORs, as far as the driver knows.
    system = mixed(world)
    add_image(world)
    second = world.sandbox.uri.replace("127.0.0.1", "localhost")
    template = IMAGE_TEMPLATE.replace("linstor-images", "second")
    world.images = world.cloud.create_datastore(f'{template} LS_CONTROLLERS="{second}"')
    add_image(world, 2, persistent=True)
    vm = world.cloud.instantiate(TWO, "node1", system)
    before = len(world.sandbox.requests)
    world.cloud.migrate_live(vm, "node2")
    # premigrate and postmigrate have asked each of them who it is.
    assert len(requests(world, "GET /v1/controller/version", before)) == 4
    check_is_on(world, vm, "node2")
    world.sandbox.domains.fail("migrate", "perform")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node3")
    world.cloud.migrate_live(vm, "node3")
    check_is_on(world, vm, "node3")
    assert all(attached(world, name) <= {"node3"} for name in its_volumes(vm))


def test_a_cold_migration_tidies_up_too(world: World) -> None:
    vm = start(world, mixed(world))
    world.sandbox.domains.fail("migrate", "perform")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node2")
    world.cloud.migrate_cold(vm, "node3")
    check_is_on(world, vm, "node3")
    assert all(attached(world, name) <= {"node1", "node3"} for name in its_volumes(vm))


@pytest.mark.parametrize("returns", [False, True])
def test_a_parked_vm_may_come_back_to_a_datastore_of_the_other_driver(world: World, returns: bool) -> None:
    # oned lets an administrator choose one, since it looks at a VM's disks at its first deployment only.
    ends = [mixed(world), world.system]
    first, other = reversed(ends) if returns else ends
    vm = start(world, first, f'{TWO} CONTEXT=[NETWORK="YES"]')
    check_is_on(world, vm, "node1")
    world.cloud.undeploy(vm)
    world.cloud.deploy(vm, "node2", other)
    check_is_on(world, vm, "node2")
    assert link(world, vm, 0, "node2", other.identifier) == own(vm)
    world.cloud.terminate(vm)
    assert volumes(world) == IMAGES and links(world) == {}


def test_the_disks_of_a_dead_host_are_linked_where_the_vm_goes(world: World) -> None:
    system = mixed(world)
    add_image(world)
    add_image(world, 2, persistent=True)
    vm = world.cloud.instantiate(TWO, stranger(world, "one-image-1"), system)
    write(world, vm, 1, "before")
    source = vm.host
    world.cloud.hypervisor.end(vm)
    world.sandbox.refuse_ssh(source)
    world.cloud.lose_host(vm)
    world.sandbox.clear_connections()
    world.cloud.migrate_cold(vm, sorted(replicas(world, "one-image-1"))[0])
    assert source not in {connection.host for connection in world.sandbox.connections}
    assert text(world, "one-image-1") == "before"
    check_is_on(world, vm, vm.host)
    assert attached(world, "one-image-1") == set()


@pytest.mark.parametrize("driver", SYSTEM_DRIVERS)
def test_another_datastore_of_the_same_driver(world: World, driver: str) -> None:
    vm = start(world, mixed(world, driver), TWO)
    other = world.cloud.create_datastore(f'NAME="other" TYPE="SYSTEM_DS" TM_MAD="{driver}"')
    (path(world, vm, "").parents[1] / str(other.identifier)).mkdir()
    world.cloud.migrate_cold(vm, "node2", other)
    check_is_on(world, vm, "node2")
    properties = world.sandbox.snapshot_of_state()["resource_definitions"][own(vm)]["props"]
    assert properties["Aux/one/DS_ID"] == str(other.identifier)
    assert {name.split(":")[1].split("/")[0] for name in links(world)} == {str(other.identifier)}


def test_another_datastore_while_the_vm_runs(world: World) -> None:
    first = mixed(world)
    vm = start(world, first, TWO)
    other = world.cloud.create_datastore('NAME="other" TYPE="SYSTEM_DS" TM_MAD="ssh"')
    world.cloud.migrate_live(vm, "node1", other)
    check_is_on(world, vm, "node1")
    # The VM still knows its disks by the paths that are gone, and moves on all the same.
    world.cloud.migrate_live(vm, "node2")
    check_is_on(world, vm, "node2")
    assert not path(world, vm, "", "node1", first.identifier).is_symlink()
    world.cloud.poweroff(vm)
    world.cloud.resume(vm)
    check_is_on(world, vm, "node2")


def test_a_file_instead_of_a_link_is_not_moved(world: World) -> None:
    vm = start(world, mixed(world), TWO)
    world.cloud.poweroff(vm)
    place = path(world, vm, "disk.1")
    place.unlink()
    place.write_bytes(b"restored")
    with pytest.raises(ActionFailed) as failed:
        world.cloud.migrate_cold(vm, "node2")
    assert "disk.1 is no link to" in sentence(failed.value.call)
    assert place.read_bytes() == b"restored"


def test_local_tells_only_the_first_disks_driver_and_the_vm_stays_where_it_is(world: World) -> None:
    system = mixed(world, "local")
    add_image(world, persistent=True)
    image = volume(world.cloud.images[0])
    vm = world.cloud.instantiate(
        "DISK=[TYPE=fs,FORMAT=raw,SIZE=4] DISK=[IMAGE_ID=0]", sorted(replicas(world, image))[0], system
    )
    before = vm.host
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, stranger(world, image))
    assert world.cloud.hypervisor.running[vm.identifier] == before
    assert attached(world, image) == set() and two_primaries(world) == {}


# --- what operators see -----------------------------------------------------------------------------------------------


def look() -> list[str]:
    """The kinds of what audit finds."""
    result = CliRunner().invoke(audit.command, ["--hosts", "--json"])
    return [finding["kind"] for finding in json.loads(result.stdout)]


def test_audit_finds_and_mends_what_moves_have_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = start(world, mixed(world))
    for name, value in world.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    assert look() == []
    world.sandbox.domains.fail("migrate", "perform")
    with pytest.raises(HypervisorFailed):
        world.cloud.migrate_live(vm, "node2")
    assert {"two-primaries"} <= set(look()) <= {"two-primaries", "unused-diskless"}
    assert CliRunner().invoke(audit.command, ["--repair", "--hosts", "--yes"]).exit_code == 0
    assert look() == [] and two_primaries(world) == {}
    check_is_on(world, vm, "node1")
    world.cloud.migrate_cold(vm, "node3")
    assert set(look()) <= {"unused-diskless"}


# --- images of other drivers in our system datastore ----------------------------------------------------------------


def foreign(world: World, driver: str, disk_type: str) -> None:
    """An image of another driver whose VMs may be in our system datastore."""
    world.install_other_storages()
    world.cloud.tm_mad_confs[driver].update(
        TM_MAD_SYSTEM="linstor_un",
        LN_TARGET_LINSTOR_UN="NONE",
        CLONE_TARGET_LINSTOR_UN="SELF",
        DISK_TYPE_LINSTOR_UN=disk_type,
    )
    store = world.cloud.create_datastore(
        f'NAME="others" TYPE="IMAGE_DS" TM_MAD="{driver}" DS_MAD="x" DISK_TYPE="{disk_type}"'
    )
    world.cloud.register_image(store, world.file("other.raw", content(9)), 4)


def test_a_disk_of_ceph_goes_wherever_the_vm_goes(world: World) -> None:
    add_image(world)
    foreign(world, "ceph", "RBD")
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1]", "node1", world.system)
    assert last(world, "clone.linstor_un").argv[1].endswith("/disk.1")
    world.cloud.migrate_cold(vm, "node2")
    world.cloud.migrate_live(vm, "node3")
    world.cloud.stop(vm)
    world.cloud.deploy(vm, "node1", world.system)
    assert link(world, vm, 0) == own(vm)
    store, _ = world.install_backups()
    said = failure(lambda: world.cloud.backup(vm, store))
    assert "Disk 1 of VM 0" in said, said
    world.cloud.terminate(vm)
    assert what_is_left(world)["files"] == {}


def test_a_file_in_our_directory_is_moved_while_nobody_writes_to_it(world: World) -> None:
    add_image(world)
    foreign(world, "ssh", "FILE")
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1]", "node1", world.system)
    with pytest.raises(ActionFailed) as failed:
        world.cloud.migrate_live(vm, "node2")
    assert "Disk 1 of VM 0 is a file of driver ssh in the VM's directory" in sentence(failed.value.call)
    assert world.cloud.hypervisor.running[vm.identifier] == "node1"
    world.cloud.migrate_cold(vm, "node2")
    assert path(world, vm, "disk.1").read_bytes() == content(9) and link(world, vm, 0) == own(vm)
