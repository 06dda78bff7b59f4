"""tm/prebackup: the backup of a VM that does not run."""

from __future__ import annotations

import pytest

from linstor_sandbox.opennebula import ActionFailed, VmState
from tests.conftest import World
from tests.linstor_un.backing_up import Site, passing
from tests.linstor_un.living import holds, killed_while, snapshots, start
from tests.linstor_un.scenes import failure, homes, last, own, sentence, state, volume, volumes


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_a_vm_that_is_off_is_backed_up_and_stays_off(site: Site) -> None:
    vm = start(site.world)
    site.write(vm, 1, b"last words")
    site.cloud.poweroff(vm)
    content = [site.content(vm, disk_id) for disk_id in (0, 1)]
    image = site.cloud.backup(vm, site.datastore, "FULL", fs_freeze="AGENT")
    assert vm.state == VmState.POWEROFF and holds(site.world) == []
    assert [site.brought_back(image, disk_id) for disk_id in (0, 1)] == content


def test_it_goes_on_where_the_running_vm_left_off(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    site.write(vm, 0, b"last words")
    site.cloud.poweroff(vm)
    image = site.cloud.backup(vm, site.datastore)
    assert len(image.increments) == 2 and site.brought_back(image, 0) == site.content(vm, 0)


@pytest.mark.parametrize(
    "moment", [r"POST .*/snapshot/multi", r"POST .*snapshot-restore-resource", r"DELETE .*-backup"]
)
def test_one_that_was_killed_leaves_what_the_next_removes(site: Site, moment: str) -> None:
    vm = start(site.world)
    site.cloud.poweroff(vm)
    before = {name: homes(site.world, name) for name in (own(vm), volume(site.world.cloud.images[1]))}
    with killed_while(site.world, moment), pytest.raises(ActionFailed):
        site.cloud.backup(vm, site.datastore, "INCREMENT")
    image = site.cloud.backup(vm, site.datastore)
    assert site.brought_back(image, 0) == site.content(vm, 0)
    assert passing(site.world) == set() and not site.staged(vm).exists()
    assert {name: homes(site.world, name) for name in before} == before
    assert all(len(snapshots(site.world, name) - {"linstor_un-base"}) == 1 for name in before)


def test_one_that_oned_has_given_up_on_makes_way_for_the_vms_end(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.poweroff(vm)
    with killed_while(site.world, r"POST .*snapshot-restore-resource"), pytest.raises(ActionFailed):
        site.cloud.backup(vm, site.datastore, "FULL")
    site.cloud.terminate(vm)
    assert passing(site.world) == set() and own(vm) not in volumes(site.world)


def test_a_disk_of_another_driver_is_refused_by_name_and_a_vm_without_one_is_not(site: Site) -> None:
    vm = start(site.world)
    site.cloud.poweroff(vm)
    vm.disk(1).attributes["TM_MAD"] = "ceph"
    before = state(site.world)
    refused = failure(lambda: site.cloud.backup(vm, site.datastore))
    assert "Disk 1 of VM 0 is of TM_MAD ceph, of which linstor_un neither makes nor restores backups" in refused
    assert refused.endswith("move its image to a linstor_un datastore")
    assert state(site.world) == before
    vm.disk(1).attributes["TM_MAD"] = "linstor_un"
    site.cloud.backup(vm, site.datastore)


def test_what_is_no_order_is_refused(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.poweroff(vm)
    site.cloud.backup(vm, site.datastore, "FULL", fs_freeze="NONE")
    call = last(site.world, "prebackup")
    refused = site.cloud.scripts.migration("linstor_un", "prebackup", [*call.argv[:-1]], call.stdin)
    assert "takes 6 arguments" in sentence(refused)
    for change, words in (
        (("<FS_FREEZE><![CDATA[NONE]]>", "<FS_FREEZE><![CDATA[MAYBE]]>"), 'FS_FREEZE="MAYBE" is not valid'),
        (("<ID>0</ID>", "<ID>5</ID>"), "The action is called for VM 0 and its XML is of VM 5"),
        (("<BACKUP_CONFIG>", "<BACKUP_OTHER>"), "cannot be read"),
    ):
        document = call.stdin.replace(*change, 1)
        refused = site.cloud.scripts.migration("linstor_un", "prebackup", call.argv, document)
        assert words in sentence(refused), change
