"""An image with three snapshots that a VM, now gone, has taken."""

from __future__ import annotations

from linstor_sandbox.opennebula.images import Image
from tests.conftest import World
from tests.linstor_un.living import write
from tests.linstor_un.scenes import add_image


def image_with_snapshots(world: World) -> Image:
    """A persistent image of 4, 8 and 8 MiB at its snapshots 0, 1 and 2."""
    image = add_image(world, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system)
    for number in range(3):
        if number == 1:
            world.cloud.resize_disk(vm, vm.disk(0), 8)
        write(world, vm, 0, f"state {number}")
        world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "state 2, and later")
    world.cloud.terminate(vm)
    assert [snapshot.identifier for snapshot in image.snapshots.all] == [0, 1, 2]
    return image
