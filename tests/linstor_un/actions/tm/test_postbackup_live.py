"""tm/postbackup_live: a backup that is cancelled or fails leaves a VM that runs, and nothing else."""

from __future__ import annotations

import threading
import time

import pytest

from linstor_sandbox.opennebula import ActionFailed, LcmState
from tests.conftest import World
from tests.linstor_un.backing_up import Site, passing
from tests.linstor_un.living import snapshots, start
from tests.linstor_un.scenes import own


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_a_backup_that_is_cancelled_leaves_nothing(site: Site) -> None:
    vm = start(site.world, "DISK=[IMAGE_ID=0]")
    site.server.hang()
    failed: list[ActionFailed] = []

    def back_up() -> None:
        with pytest.raises(ActionFailed) as raised:
            site.cloud.backup(vm, site.datastore, "INCREMENT", fs_freeze="AGENT")
        failed.append(raised.value)

    thread = threading.Thread(target=back_up)
    thread.start()
    while not site.server.hangs:
        time.sleep(0.02)
    site.cloud.backup_cancel(vm)
    thread.join()
    assert failed and vm.lcm_state == LcmState.RUNNING
    assert not site.staged(vm).exists() and passing(site.world) == set()
    assert snapshots(site.world, own(vm)) == set()
    site.write(vm, 0, b"it runs")
