"""datastore/snap_revert: an image as it was at any of its snapshots; the others stay."""

from __future__ import annotations

import pytest

from linstor_sandbox.opennebula import ActionFailed
from tests.conftest import World
from tests.linstor_un.actions.datastore.image_snapshots import image_with_snapshots
from tests.linstor_un.living import snapshots, text, twice
from tests.linstor_un.scenes import MIB, attached, last, volume


def test_to_any_of_them_and_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_with_snapshots(world)
    twice(world, monkeypatch)
    for number, size in ((2, 8), (0, 4), (1, 8)):
        world.cloud.image_snapshot_revert(image, number)
        assert text(world, volume(image)) == f"state {number}"
        assert snapshots(world, volume(image)) == {"snapshot-0", "snapshot-1", "snapshot-2"}
        assert image.size == size and size * MIB <= world.sandbox.device_size(volume(image)) < (size + 4) * MIB
        assert not attached(world, volume(image)), "the tie-breaker is one again"
    assert last(world, "snap_revert").counts == {"rest": 5, "ssh": 0}


def test_a_node_that_is_away_is_told_and_nothing_changes(world: World) -> None:
    image = image_with_snapshots(world)
    world.sandbox.set_node("node2", online=False)
    before = world.sandbox.snapshot_of_state()
    with pytest.raises(ActionFailed, match="satellites are not connected"):
        world.cloud.image_snapshot_revert(image, 0)
    assert world.sandbox.snapshot_of_state() == before
    assert image.size == 8


def test_what_oned_forgets_of_a_linear_image_is_deleted(world: World) -> None:
    image = image_with_snapshots(world)
    image.snapshots.allow_orphans = "LINEAR"
    world.cloud.image_snapshot_revert(image, 1)
    assert snapshots(world, volume(image)) == {"snapshot-0", "snapshot-1"}
    assert [item.identifier for item in image.snapshots.all] == [0, 1]
