"""datastore/snap_flatten: the image is what a snapshot was, and has none any more."""

from __future__ import annotations

import pytest

from linstor_sandbox.opennebula import ActionFailed
from tests.conftest import World
from tests.linstor_un.actions.datastore.image_snapshots import image_with_snapshots
from tests.linstor_un.living import snapshots, text, twice
from tests.linstor_un.scenes import own, volume


def test_to_an_older_one_and_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_with_snapshots(world)
    twice(world, monkeypatch)
    world.cloud.image_snapshot_flatten(image, 1)
    assert text(world, volume(image)) == "state 1"
    assert snapshots(world, volume(image)) == set()
    clone = world.cloud.clone_image(image)
    assert text(world, volume(clone)) == "state 1"
    image.persistent = False
    vm = world.cloud.instantiate("DISK=[IMAGE_ID=0]", "node2", world.system)
    assert text(world, own(vm)) == "state 1"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_interrupted_anywhere_it_ends_the_same(world: World, number: int) -> None:
    image = image_with_snapshots(world)
    pattern = r"snapshot-rollback" if number == 1 else rf"DELETE .*/snapshot-{number - 2}$"
    world.sandbox.faults.fail(pattern, 998, after_work=True)
    with pytest.raises(ActionFailed):
        world.cloud.image_snapshot_flatten(image, 1)
    world.cloud.image_snapshot_flatten(image, 1)
    assert text(world, volume(image)) == "state 1"
    assert snapshots(world, volume(image)) == set()


def test_a_snapshot_that_is_gone_is_told_before_the_others_go(world: World) -> None:
    image = image_with_snapshots(world)
    world.cloud.image_snapshot_delete(image, 1)
    lost = image.snapshots.create("lost", 4)
    with pytest.raises(ActionFailed, match=f"has no snapshot snapshot-{lost.identifier} to flatten to"):
        world.cloud.image_snapshot_flatten(image, lost.identifier)
    assert snapshots(world, volume(image)) == {"snapshot-0", "snapshot-2"}
