"""tm/postbackup: what only a backup needed is removed, and nothing of that makes a good backup a failed one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox.opennebula import ActionFailed
from tests.conftest import World
from tests.linstor_un.backing_up import Site
from tests.linstor_un.living import snapshots, start
from tests.linstor_un.scenes import last, own, volume

MakeWorld = Callable[..., World]


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_it_may_come_twice_and_before_there_was_anything(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.poweroff(vm)
    site.cloud.backup(vm, site.datastore, "FULL")
    call = last(site.world, "postbackup")
    for _ in range(2):
        assert site.cloud.scripts.migration("linstor_un", "postbackup", call.argv, call.stdin).succeeded


def test_a_host_that_is_gone_by_then_is_a_warning(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.poweroff(vm)
    site.cloud.backup(vm, site.datastore, "FULL")
    call = last(site.world, "postbackup")
    site.world.sandbox.set_node(vm.host, online=False)
    done = site.cloud.scripts.migration("linstor_un", "postbackup", call.argv, call.stdin)
    assert done.succeeded and "the next backup of VM 0 removes what is left" in done.stderr


def test_after_a_failure_the_snapshots_of_this_backup_go_and_the_base_stays(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.cloud.poweroff(vm)
    site.cloud.backup(vm, site.datastore, "INCREMENT")
    base = snapshots(site.world, own(vm))
    site.cloud.backup(vm, site.datastore)
    call = last(site.world, "postbackup")
    failed = call.stdin.replace("</VM>", "<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>")
    assert site.cloud.scripts.migration("linstor_un", "postbackup", call.argv, failed).succeeded
    assert snapshots(site.world, own(vm)) == base


@pytest.mark.parametrize("mode", ["INCREMENT", "FULL"])
def test_a_first_backup_that_has_failed_untold_leaves_nothing_on_an_image_that_is_given_back(
    make_world: MakeWorld, mode: str
) -> None:
    # Before 7.3.80 nobody says that it has failed.
    site = Site(make_world(release="7.2"))
    vm = start(site.world)
    image = volume(site.world.cloud.images[1])
    site.server.fail("backup")
    with pytest.raises(ActionFailed):
        site.cloud.backup(vm, site.datastore, "INCREMENT")
    assert any(name.startswith("backup-") for name in snapshots(site.world, image))
    # As long as the VM is there its next backup would remove it.
    site.cloud.configure_backup(vm, mode=mode)
    site.cloud.terminate(vm)
    assert snapshots(site.world, image) == set()
