"""datastore/snap_delete: a snapshot of an image whose VM is gone."""

from __future__ import annotations

import pytest

from tests.conftest import World
from tests.linstor_un.actions.datastore.image_snapshots import image_with_snapshots
from tests.linstor_un.living import snapshots, text, twice
from tests.linstor_un.scenes import last, volume


def test_in_any_order_and_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_with_snapshots(world)
    twice(world, monkeypatch)
    for number, left in ((1, {0, 2}), (0, {2}), (2, set())):
        world.cloud.image_snapshot_delete(image, number)
        assert snapshots(world, volume(image)) == {f"snapshot-{other}" for other in left}
    assert text(world, volume(image)) == "state 2, and later"
    assert last(world, "snap_delete").counts == {"rest": 3, "ssh": 0}


def test_an_image_with_snapshots_is_deleted_with_them(world: World) -> None:
    image = image_with_snapshots(world)
    world.cloud.delete_image(image)
    assert volume(image) not in world.sandbox.snapshot_of_state()["resource_definitions"]
