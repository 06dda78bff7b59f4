"""An action that oned has cancelled runs on beside the deletes that oned sends at once: they win, nothing is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from linstor_sandbox.faults import Fault
from linstor_sandbox.opennebula import ActionFailed, VmState
from linstor_sandbox.opennebula.machines import VirtualMachine
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import cp, disk, remove, source
from tests.linstor_un.scenes import add_image, links, succeed, volumes

DATASTORES = "/var/lib/one//datastores"
SLOW = 'REQUEST_TIMEOUT="20"\nLOCK_TIMEOUT="2"\n'
"""A request may take longer than an action waits for another one's lock."""


def deploying(world: World, vm: VirtualMachine, reached: Fault) -> threading.Thread:
    """Deploy the VM beside this test, which goes on when the deployment's action waits for this fault."""

    def deploy() -> None:
        with suppress(ActionFailed):
            world.cloud.deploy(vm, "node1", world.system)

    thread = threading.Thread(target=deploy)
    thread.start()
    while reached.remaining:
        time.sleep(0.01)
    return thread


@pytest.mark.parametrize(
    ("template", "request_"),
    [
        ("TYPE=fs,FORMAT=raw,SIZE=8", "GET .*storage-pools"),
        ("TYPE=fs,FORMAT=raw,SIZE=8", "POST .*/spawn"),
        ("IMAGE_ID=0", "GET .*/snapshots"),
        ("IMAGE_ID=0", "POST .*/snapshot-restore-resource"),
        ("IMAGE_ID=1", "POST .*/make-available"),
    ],
)
@pytest.mark.parametrize("after_work", [False, True])
def test_deletes_win_against_an_action_that_waits_for_linstor(
    make_world: Callable[..., World], template: str, request_: str, after_work: bool
) -> None:
    world = make_world(configuration=SLOW)
    world.system.attributes["PREFER_NODE"] = "yes"
    add_image(world)
    add_image(world, persistent=True)
    before = volumes(world)
    vm = world.cloud.create_vm(f"DISK=[{template}]", world.system)
    directory = f"node1:{DATASTORES}/{world.system.identifier}/{vm.identifier}"
    cancelled = deploying(world, vm, world.sandbox.faults.hang(request_, 4, after_work=after_work))
    succeed(world, f"delete {directory}/disk.0 {vm.identifier} {world.images.identifier}")
    vm.become(VmState.DONE)
    succeed(world, f"delete {directory} {vm.identifier} {world.system.identifier}")
    cancelled.join()
    assert volumes(world) == before
    assert links(world) == {}
    made_own = [call for call in world.cloud.calls if call.verb in ("clone", "mkimage")]
    assert not any(call.succeeded for call in made_own), "it was to be asked to stop"


def test_the_removal_of_an_image_stops_what_still_fills_it(make_world: Callable[..., World]) -> None:
    world = make_world(configuration=SLOW)
    reached = world.sandbox.faults.hang("POST .*/spawn", 4)
    filled: list[Call] = []
    filling = threading.Thread(target=lambda: filled.append(cp(world, world.file("disk", disk(1, 1000)), 1)))
    filling.start()
    while reached.remaining:
        time.sleep(0.01)
    assert remove(world, source(7)).succeeded
    filling.join()
    assert "stopped by SIGTERM" in filled[0].stderr
    assert volumes(world) == set()
