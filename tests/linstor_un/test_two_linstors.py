"""One OpenNebula whose datastores are on two LINSTORs: what is on one cannot be had on the other, and that is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import IMAGE_TEMPLATE, World
from tests.linstor_un.scenes import add_image, content, failure, own, state, volumes


@pytest.fixture
def both(make_world: Callable[..., World]) -> tuple[World, World]:
    """A world with an image, persistent or not, on the LINSTOR of another, where its image datastore says it is."""
    world, other = make_world(), make_world()
    template = IMAGE_TEMPLATE.replace("linstor-images", "elsewhere")
    elsewhere = world.cloud.create_datastore(f'{template} LS_CONTROLLERS="{other.sandbox.uri}"')
    world.images, other.images, other.cloud = elsewhere, elsewhere, world.cloud
    return world, other


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("mode", ["snapshot", "copy"])
def test_a_vm_is_refused_an_image_of_the_other_before_anything_is_made(
    both: tuple[World, World], persistent: bool, mode: str
) -> None:
    world, other = both
    add_image(other, persistent=persistent)
    world.system.attributes["CLONE_MODE"] = mode
    before = state(world), state(other)
    said = failure(lambda: world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node1", world.system))
    assert said.startswith(
        f"one-image-0 is an image of datastore {world.images.identifier} (elsewhere), whose LS_CONTROLLERS are another "
        "LINSTOR's than those of datastore 100 (linstor-system): deploy VM 0 in a system datastore of the image's"
    )
    assert (state(world), state(other)) == before


def test_the_same_linstor_may_be_named_in_two_ways(world: World) -> None:
    world.images.attributes["LS_CONTROLLERS"] = world.sandbox.uri.replace("127.0.0.1", "localhost")
    add_image(world)
    add_image(world, 2, persistent=True)
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0] DISK=[IMAGE_ID=1]", "node1", world.system)
    assert world.sandbox.read(own(vm)).startswith(content(1)[:64])
    world.cloud.terminate(vm)
    assert volumes(world) == {"one-image-0", "one-image-1"}
