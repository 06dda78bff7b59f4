"""tm/restore: a VM's disks get what a backup has, all of them or none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import ActionFailed, VirtualMachine
from linstor_sandbox.opennebula.images import Image
from linstor_un.cli.auditing import examination
from linstor_un.settings import read_configuration
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.backing_up import Site
from tests.linstor_un.living import killed_at, killed_while, snapshots, start
from tests.linstor_un.scenes import (
    MIB,
    add_image,
    again,
    definition,
    failure,
    last,
    link,
    links,
    own,
    post,
    refuse_all,
    run,
    volume,
    volumes,
)

MakeWorld = Callable[..., World]
LINE = "restore {}:/var/lib/one//datastores/100/{} {} {} {} {}"


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def backed_up(site: Site, backups: int = 1) -> tuple[VirtualMachine, Image, list[list[bytes]]]:
    """A VM with a clone and a persistent disk, powered off, whose disks were something else at each backup."""
    vm = start(site.world)
    moments = []
    for number in range(backups):
        for disk_id in (0, 1):
            data = b"backup %d of disk %d" % (number, disk_id)
            for offset in (number * MIB, len(site.content(vm, disk_id)) - 512):
                site.write(vm, disk_id, data, offset)
        moments.append([site.content(vm, disk_id) for disk_id in (0, 1)])
        image = site.cloud.backup(vm, site.datastore, "INCREMENT" if backups > 1 else "FULL", keep_last=0)
    for disk_id in (0, 1):
        site.write(vm, disk_id, b"since then")
    site.cloud.poweroff(vm)
    return vm, image, moments


def contents(site: Site, vm: VirtualMachine) -> list[bytes]:
    return [site.content(vm, disk_id) for disk_id in (0, 1)]


def test_all_disks_come_back_as_of_any_increment(site: Site) -> None:
    vm, image, moments = backed_up(site, 3)
    before = links(site.world)
    for number, moment in [*enumerate(moments), (-1, moments[-1])]:
        site.cloud.restore_in_place(vm, image, number)
        assert contents(site, vm) == moment
    assert links(site.world) == before
    site.cloud.resume(vm)
    site.write(vm, 0, b"it runs")


def test_a_chain_in_a_repository_of_restic_comes_back_in_place_and_as_images(world: World) -> None:
    site = Site(world, "restic")
    vm, image, moments = backed_up(site, 3)
    for number, moment in enumerate(moments):
        site.cloud.restore_in_place(vm, image, number)
        assert contents(site, vm) == moment
        assert [site.brought_back(image, disk_id, number) for disk_id in (0, 1)] == moment
    site.cloud.resume(vm)
    for number in range(3):
        site.write(vm, 0, b"%d" % number * 1000, number * 400_000)
        image = site.cloud.backup(vm, site.datastore, keep_last=2)
    now = contents(site, vm)
    site.cloud.poweroff(vm)
    site.cloud.restore_in_place(vm, image, image.increments[0].identifier)
    assert [increment.type for increment in image.increments] == ["FULL", "INCREMENT"] and contents(site, vm) != now
    site.cloud.restore_in_place(vm, image)
    assert contents(site, vm) == now


def test_one_disk_comes_back_and_the_other_stays(site: Site) -> None:
    vm, image, (moment,) = backed_up(site)
    now = contents(site, vm)
    site.cloud.restore_in_place(vm, image, disk=1)
    assert contents(site, vm) == [now[0], moment[1]]


def test_snapshots_that_oned_forgets_are_gone_and_those_of_the_image_stay(site: Site) -> None:
    vm, image, _ = backed_up(site)
    for disk_id in (0, 1):
        site.cloud.snapshot_create(vm, vm.disk(disk_id))
    site.cloud.restore_in_place(vm, image, disk=1)
    assert 0 not in vm.snapshots and 1 in vm.snapshots
    assert "snapshot-0" not in snapshots(site.world, own(vm))
    assert "snapshot-0" in snapshots(site.world, volume(site.world.cloud.images[1]))
    assert not any(name.startswith("restore-") for name in snapshots(site.world, own(vm)))


def test_a_disk_that_has_grown_gets_zeroes_behind_and_one_that_is_smaller_is_refused(site: Site) -> None:
    vm, image, (moment,) = backed_up(site)
    site.cloud.resize_disk(vm, vm.disk(0), 12)
    site.cloud.restore_in_place(vm, image)
    now = contents(site, vm)
    assert len(now[0]) >= 12 * MIB
    assert now == [moment[0] + bytes(len(now[0]) - len(moment[0])), moment[1]]
    stored = str(site.stored(vm, image, 1))
    subprocess.run(["qemu-img", "resize", "-q", stored, "9M"], check=True)
    # From a pool that rounds up to more, and nothing is where this one has no room.
    site.cloud.restore_in_place(vm, image)
    assert contents(site, vm) == now
    subprocess.run(["qemu-io", "-c", "write -P 7 8M 64k", stored], check=True, stdout=subprocess.DEVNULL)
    with pytest.raises(ActionFailed, match="has data up to"):
        site.cloud.restore_in_place(vm, image)
    assert contents(site, vm) == now


@pytest.mark.parametrize("is_compared", [False, True])
def test_what_a_disk_had_before_it_became_smaller_is_not_in_the_way(make_world: MakeWorld, is_compared: bool) -> None:
    site = Site(make_world(configuration='BACKUP_COMPARE="yes"\n' if is_compared else ""))
    for node in site.cloud.hosts if is_compared else ():
        site.world.sandbox.refuse_sudo(node, "ALL")
    vm = start(site.world)
    disk, moments = vm.disk(0), {}

    def back_up() -> Image:
        image = site.cloud.backup(vm, site.datastore, "INCREMENT", keep_last=2)
        moments[image.increments[-1].identifier] = site.content(vm, 0)
        return image

    back_up()
    site.cloud.snapshot_create(vm, disk)
    site.cloud.resize_disk(vm, disk, 400)
    site.write(vm, 0, b"large", 390 * MIB)
    back_up()
    site.cloud.poweroff(vm)
    site.cloud.snapshot_revert(vm, disk, vm.snapshots[0].get(0))
    disk.attributes["SIZE"] = "4"
    site.cloud.resume(vm)
    back_up()
    # OpenNebula's scripts merge the smaller one into the larger, which stays as long as it is.
    image = back_up()
    site.cloud.poweroff(vm)
    for increment in [item.identifier for item in image.increments]:
        made = site.brought_back(image, 0, increment)
        assert made == moments[increment] + bytes(len(made) - len(moments[increment]))
        site.cloud.restore_in_place(vm, image, increment)
        assert site.content(vm, 0) == moments[increment]


def test_older_controllers_do_not_tell_how_long_a_device_is(make_world: MakeWorld) -> None:
    site = Site(make_world(rest_version="1.13.0"))
    vm, image, moments = backed_up(site, 2)
    for number, moment in enumerate(moments):
        site.cloud.restore_in_place(vm, image, number)
        assert contents(site, vm) == moment
        assert [site.brought_back(image, disk_id, number) for disk_id in (0, 1)] == moment


@pytest.mark.parametrize("broken", ["download", "second disk", "ls"])
def test_where_it_fails_all_disks_are_as_they_were(site: Site, broken: str) -> None:
    vm, image, _ = backed_up(site)
    now, before = contents(site, vm), (volumes(site.world), links(site.world))
    if broken == "second disk":
        # The first is written by then.
        stored = site.stored(vm, image, 1)
        stored.write_bytes(stored.read_bytes()[:200_000])
    else:
        site.server.fail(broken)
    assert failure(lambda: site.cloud.restore_in_place(vm, image))
    assert contents(site, vm) == now and (volumes(site.world), links(site.world)) == before
    assert not any(name.startswith("restore-") for name in snapshots(site.world, own(vm)))


def test_one_that_was_killed_lets_nobody_start_the_vm_and_the_next_goes_on_from_what_was(site: Site) -> None:
    vm, image, (moment,) = backed_up(site)
    now = contents(site, vm)
    line = LINE.format(vm.host, vm.identifier, vm.identifier, image.identifier, -1, -1)
    # The first disk is written by then.
    with killed_while(site.world, r"POST .*/one-image-1/\S*make-available"):
        run(site.world, line)
    assert site.world.sandbox.read(own(vm)) == moment[0]
    assert link(site.world, vm, 0) == ""
    assert any(name.startswith("restore-") for name in snapshots(site.world, own(vm)))
    stored = site.stored(vm, image, 1)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:200_000])
    assert not run(site.world, line).succeeded
    assert contents(site, vm) == now
    stored.write_bytes(whole)
    again(site.world, last(site.world, "restore"))
    assert contents(site, vm) == moment


def test_what_a_restore_could_not_delete_goes_with_the_image(site: Site) -> None:
    vm, _, _ = backed_up(site)
    resource, kept = volume(site.world.cloud.images[1]), f"restore-{vm.identifier}"
    post(site.world, f"/v1/resource-definitions/{resource}/snapshots", {"name": kept})
    now = site.content(vm, 1)
    site.cloud.terminate(vm)
    assert kept not in snapshots(site.world, resource)
    assert site.world.sandbox.read(resource, 0, len(now)) == now


def test_a_chain_of_backups_ends_with_a_restore_and_what_was_kept_for_it_goes(site: Site) -> None:
    vm, image, _ = backed_up(site, 2)
    disks = (own(vm), volume(site.world.cloud.images[1]))
    assert all(any(name.startswith("backup-") for name in snapshots(site.world, disk)) for disk in disks)
    site.cloud.restore_in_place(vm, image, disk=0)
    assert not any(name.startswith("backup-") for disk in disks for name in snapshots(site.world, disk))
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 1 and site.brought_back(image, 1) == site.content(vm, 1)


def test_after_one_that_was_killed_the_vm_does_not_move_and_its_image_goes_back_whole(site: Site) -> None:
    vm, image, _ = backed_up(site)
    now, resource = contents(site, vm), link(site.world, vm, 1)
    with killed_while(site.world, r"POST .*/one-image-1/\S*make-available"):
        run(site.world, LINE.format(vm.host, vm.identifier, vm.identifier, image.identifier, -1, -1))
    site.world.sandbox.write(resource, b"half of the backup")
    for disk_id in (0, 1):
        path = f"/var/lib/one//datastores/100/{vm.identifier}/disk.{disk_id}"
        moved = run(site.world, f"mv {vm.host}:{path} node2:{path} {vm.identifier} 100")
        assert not moved.succeeded and "half restored" in moved.stderr and link(site.world, vm, disk_id) == ""
    site.cloud.terminate(vm)
    assert site.world.sandbox.read(resource, 0, len(now[1])) == now[1]
    assert not any(name.startswith("restore-") for name in snapshots(site.world, resource))


def test_a_pool_without_snapshots_is_a_sentence(make_world: MakeWorld) -> None:
    world = make_world(pools=(Pool("data", "LVM_THIN", 20480), Pool("thick", "LVM", 20480)))
    site = Site(world)
    vm, image, _ = backed_up(site)
    site.cloud.terminate(vm)
    template = SYSTEM_TEMPLATE.replace("linstor-system", "thick").replace('STORAGE_POOL="data"', 'STORAGE_POOL="thick"')
    thick = site.cloud.create_datastore(template)
    other = site.cloud.instantiate(f"DISK=[IMAGE_ID={add_image(world).identifier}]", "node1", thick)
    site.cloud.poweroff(other)
    place = f"{other.host}:/var/lib/one//datastores/{thick.identifier}/{other.identifier}"
    call = run(world, f"restore {place} {other.identifier} {image.identifier} -1 0")
    assert not call.succeeded and "restore the backup as new images" in call.stderr
    assert link(world, other, 0) == own(other)


def test_what_makes_no_sense_changes_nothing(site: Site) -> None:
    vm, image, _ = backed_up(site)
    here = f"{vm.host}:/var/lib/one//datastores/100/{vm.identifier} {vm.identifier}"
    refuse_all(
        site.world,
        [
            (f"restore {here} {image.identifier} -1 7", f"Backup {image.identifier} has no disk 7, but 0, 1"),
            (f"restore {here} 99 -1 -1", "oned no longer knows the backup image"),
            (f"restore {here} {image.identifier} last -1", "INCREMENTID is 'last' and must be a number"),
            (f"restore {here} {image.identifier}", "takes 5 arguments"),
        ],
    )


def test_a_vm_that_runs_is_refused(site: Site) -> None:
    vm, image, _ = backed_up(site)
    site.cloud.resume(vm)
    now = contents(site, vm)
    call = run(site.world, LINE.format(vm.host, vm.identifier, vm.identifier, image.identifier, -1, -1))
    assert not call.succeeded and "is open on" in call.stderr and contents(site, vm) == now


# --- killed -----------------------------------------------------------------------------------------------------------


def three_backed_up(site: Site) -> tuple[VirtualMachine, Image, str, list[bytes]]:
    """A VM with a clone and two persistent disks, powered off; its backup, the line of a restore, and what they had."""
    for seed in range(3):
        add_image(site.world, seed, persistent=seed > 0)
    vm = site.cloud.instantiate(
        " ".join(f"DISK=[IMAGE_ID={number}]" for number in range(3)), "node1", site.world.system
    )
    moment = contents_of(site, vm)
    image = site.cloud.backup(vm, site.datastore, "FULL")
    for disk_id in range(3):
        site.write(vm, disk_id, b"since then %d" % disk_id)
    site.cloud.poweroff(vm)
    return vm, image, LINE.format(vm.host, vm.identifier, vm.identifier, image.identifier, -1, -1), moment


def contents_of(site: Site, vm: VirtualMachine) -> list[bytes]:
    return [site.world.sandbox.read(disk, 0, 4 * MIB) for disk in disks_of(vm)]


def disks_of(vm: VirtualMachine) -> tuple[str, str, str]:
    return own(vm), "one-image-1", "one-image-2"


@contextmanager
def broken_download(site: Site, vm: VirtualMachine, image: Image, disk_id: int) -> Iterator[None]:
    stored = site.stored(vm, image, disk_id)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:200_000])
    try:
        yield
    finally:
        stored.write_bytes(whole)


# Each disk's link is removed by one command, and made by another.
KILLS = [("rm", number) for number in range(3)] + [("ln", number) for number in range(3)]


@pytest.mark.parametrize(("command", "number"), KILLS)
def test_wherever_one_was_killed_a_next_that_fails_leaves_all_disks_of_one_moment(
    site: Site, command: str, number: int
) -> None:
    vm, image, line, moment = three_backed_up(site)
    before, now = links(site.world), contents_of(site, vm)
    with killed_at(site.world, vm.host, command, number):
        assert not run(site.world, line).succeeded
    with broken_download(site, vm, image, 1):
        assert not run(site.world, line).succeeded
    assert contents_of(site, vm) in (now, moment)
    assert links(site.world) == before
    again(site.world, last(site.world, "restore"))
    assert contents_of(site, vm) == moment and links(site.world) == before
    assert not any(name.startswith("restore-") for disk in disks_of(vm) for name in snapshots(site.world, disk))


@pytest.mark.parametrize(("command", "number"), KILLS)
def test_wherever_one_was_killed_the_images_of_a_vm_that_ends_are_of_one_moment(
    site: Site, command: str, number: int
) -> None:
    vm, _, line, moment = three_backed_up(site)
    now = contents_of(site, vm)
    with killed_at(site.world, vm.host, command, number):
        assert not run(site.world, line).succeeded
    site.cloud.terminate(vm)
    images = [site.world.sandbox.read(disk, 0, 4 * MIB) for disk in disks_of(vm)[1:]]
    assert images in (now[1:], moment[1:])


@pytest.mark.parametrize("undone", [0, 1, 2])
def test_one_that_was_killed_while_it_took_back_is_taken_back_by_the_next(site: Site, undone: int) -> None:
    vm, image, line, _ = three_backed_up(site)
    before, now = links(site.world), contents_of(site, vm)
    with broken_download(site, vm, image, 2):
        with killed_while(site.world, rf"POST .*/{disks_of(vm)[undone]}/snapshot-rollback"):
            run(site.world, line)
        assert not run(site.world, line).succeeded
    assert contents_of(site, vm) == now and links(site.world) == before


@pytest.mark.parametrize(("moment", "command", "number"), [("writing", "", 0), ("linking", "ln", 1)])
def test_one_disk_that_is_restored_after_one_of_all_was_killed_leaves_the_others_whole(
    site: Site, moment: str, command: str, number: int
) -> None:
    vm, image, line, then = three_backed_up(site)
    before, now = links(site.world), contents_of(site, vm)
    killed = (
        killed_at(site.world, vm.host, command, number)
        if command
        else killed_while(site.world, r"POST .*/one-image-2/\S*make-available")
    )
    with killed:
        assert not run(site.world, line).succeeded
    site.cloud.restore_in_place(vm, image, disk=1)
    others = then if moment == "linking" else now
    assert contents_of(site, vm) == [others[0], then[1], others[2]] and links(site.world) == before
    assert not any(name.startswith("restore-") for disk in disks_of(vm) for name in snapshots(site.world, disk))
    site.cloud.resume(vm)
    site.cloud.terminate(vm)


def killed_half_way(site: Site, line: str) -> None:
    """Restore until the first two of three disks are written."""
    with killed_while(site.world, r"POST .*/one-image-2/\S*make-available"):
        assert not run(site.world, line).succeeded


def test_a_disk_that_is_half_restored_is_not_grown_snapshotted_saved_nor_backed_up(site: Site) -> None:
    vm, _, line, _ = three_backed_up(site)
    killed_half_way(site, line)
    size = definition(site.world, own(vm))["volumes"]
    for attempt in (
        lambda: site.cloud.resize_disk(vm, vm.disk(0), 9),
        lambda: site.cloud.snapshot_create(vm, vm.disk(0)),
        lambda: site.cloud.disk_saveas(vm, vm.disk(0), "saved"),
        lambda: site.cloud.backup(vm, site.datastore),
    ):
        assert "is half restored from a backup: repeat `onevm restore`" in failure(attempt)
    assert definition(site.world, own(vm))["volumes"] == size
    assert run(site.world, line).succeeded
    site.cloud.resize_disk(vm, vm.disk(0), 9)
    site.cloud.backup(vm, site.datastore)


def test_audit_links_no_disk_that_is_half_restored(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in site.cloud.scripts.environment.items():
        monkeypatch.setenv(name, value)
    vm, _, line, _ = three_backed_up(site)
    killed_half_way(site, line)
    configuration = read_configuration(os.environ["LINSTOR_UN_CONF"])
    found = [item for item in examination.once(configuration, True).findings if item.node]
    assert {(item.kind, item.subject, item.repair) for item in found} == {
        ("no-link", f"{vm.host}:100/{vm.identifier}/disk.{disk_id}", None) for disk_id in range(3)
    }
    assert run(site.world, line).succeeded
    assert examination.once(configuration, True).findings == ()


def test_what_a_restore_could_not_delete_is_no_half_of_one_where_the_vm_was_parked(site: Site) -> None:
    vm, _, _ = backed_up(site)
    resource, kept = volume(site.world.cloud.images[1]), f"restore-{vm.identifier}"
    post(site.world, f"/v1/resource-definitions/{resource}/snapshots", {"name": kept})
    site.world.sandbox.write(resource, b"since the restore")
    now = site.content(vm, 1)
    site.cloud.undeploy(vm)
    site.cloud.terminate(vm)
    assert site.world.sandbox.read(resource, 0, len(now)) == now
    assert kept not in snapshots(site.world, resource)
