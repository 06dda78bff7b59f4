"""datastore/clone: an image with the bytes of another, where the new image's datastore wants it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_un.naming import BASE_SNAPSHOT
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    MIB,
    add_datastore,
    clone,
    cp,
    definitions,
    disk,
    holds,
    nothing_left,
    refused,
    remove,
    replicas,
    request,
    source,
    succeeded,
)
from tests.linstor_un.scenes import write_behind

MakeWorld = Callable[..., World]
POOLS = (Pool("data", "LVM_THIN", 20480), Pool("fast", "ZFS_THIN", 20480), Pool("thick", "LVM", 20480))
CONTENT = disk(1, 5 * MIB + 512)


@pytest.fixture
def original(make_world: MakeWorld) -> World:
    """A world with three kinds of pool and image 7 in the datastore on `data`."""
    world = make_world(pools=POOLS)
    succeeded(cp(world, world.file("disk", CONTENT), 6), f"{source(7)} raw\n")
    return world


def target(world: World, mode: str, text: str) -> Datastore:
    return add_datastore(world, "target", f'CLONE_MODE="{mode}" {text}')


def snapshots(world: World, resource: str) -> list[str]:
    return list(definitions(world)[resource]["snapshots"])


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_a_clone_has_the_bytes_and_is_its_own(mode: str, original: World) -> None:
    datastore = target(original, mode, 'STORAGE_POOL="data" REPLICA_COUNT="2"')
    for warning in ("", "discarding one-image-8"):
        succeeded(clone(original, source(7), 6, 8, datastore), f"{source(8)}\n", warning)
    holds(original, "one-image-8", CONTENT)
    assert set(replicas(original, "one-image-8").values()) == {"data"}
    assert len(replicas(original, "one-image-8")) == 2
    # What stays is the snapshot that all later clones share.
    assert snapshots(original, "one-image-7") == ([BASE_SNAPSHOT] if mode == "snapshot" else [])
    assert snapshots(original, "one-image-8") == []
    properties = definitions(original)["one-image-8"]["props"]
    assert properties["Aux/one/IMAGE_ID"] == "8"
    assert not {"Aux/one/INCOMPLETE", "Aux/one/VM_ID"} & set(properties)
    original.sandbox.write("one-image-8", b"changed")
    holds(original, "one-image-7", CONTENT)
    succeeded(remove(original, source(7)), "")
    assert original.sandbox.read("one-image-8", 7, 1000) == CONTENT[7:1007]


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
@pytest.mark.parametrize(("pool", "count"), [("fast", 1), ("fast", 3), ("thick", 2)])
def test_a_clone_is_placed_as_its_own_datastore_says(mode: str, pool: str, count: int, original: World) -> None:
    datastore = target(original, mode, f'STORAGE_POOL="{pool}" REPLICA_COUNT="{count}"')
    # Behind SIZE as well.
    content = write_behind(original, "one-image-7")
    succeeded(clone(original, source(7), 6, 8, datastore), f"{source(8)}\n")
    holds(original, "one-image-8", content)
    assert list(replicas(original, "one-image-8").values()) == [pool] * count


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_clone_in_the_same_pool_has_the_replicas_that_are_asked(mode: str, count: int, original: World) -> None:
    datastore = target(original, mode, f'STORAGE_POOL="data" REPLICA_COUNT="{count}"')
    succeeded(clone(original, source(7), 6, 8, datastore), f"{source(8)}\n")
    holds(original, "one-image-8", CONTENT)
    assert list(replicas(original, "one-image-8").values()) == ["data"] * count


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_a_clone_is_encrypted_where_its_datastore_says(mode: str, original: World) -> None:
    request(original, "POST", "/v1/encryption/passphrase", {"new_passphrase": "word"})
    datastore = target(original, mode, 'STORAGE_POOL="data" REPLICA_COUNT="2" ENCRYPTION="yes"')
    succeeded(clone(original, source(7), 6, 8, datastore), f"{source(8)}\n")
    holds(original, "one-image-8", CONTENT)
    layers = [found["layers"] for found in definitions(original)["one-image-8"]["resources"].values()]
    assert layers.count(["DRBD", "LUKS", "STORAGE"]) == 2, layers


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_a_clone_of_a_thick_pool_shows_nothing_of_what_was_there(mode: str, original: World) -> None:
    thick = target(original, mode, 'STORAGE_POOL="thick" REPLICA_COUNT="1"')
    succeeded(cp(original, original.file("disk", CONTENT), 6, 9, thick), f"{source(9)} raw\n")
    warning = "does not support snapshots" if mode == "snapshot" else ""
    succeeded(clone(original, source(9), 6, 10, thick), f"{source(10)}\n", warning)
    holds(original, "one-image-10", CONTENT)


def test_an_image_is_cloned_while_a_vm_has_it_open(original: World) -> None:
    node = next(iter(replicas(original, "one-image-7")))
    opened = original.sandbox.open(node, "one-image-7", "r")
    for identifier, mode in enumerate(("copy", "snapshot"), 8):
        original.images.attributes["CLONE_MODE"] = mode
        succeeded(clone(original, source(7), 6, identifier), f"{source(identifier)}\n")
        holds(original, f"one-image-{identifier}", CONTENT)
    original.sandbox.close(opened)


@pytest.mark.parametrize("mode", ["copy", "snapshot"])
def test_what_cannot_be_cloned_leaves_nothing(mode: str, world: World) -> None:
    world.images.attributes["CLONE_MODE"] = mode
    refused(clone(world, source(7), 6, 8), "LINSTOR has no replica of one-image-7 to clone", "linstor resource list")
    refused(clone(world, "/dev/sda", 6, 8), "SOURCE '/dev/sda' names no LINSTOR volume")
    refused(clone(world, "", 6, 8), "names no LINSTOR volume")
    refused(clone(world, source(8), 6, 8), "cannot be cloned into itself")
    refused(clone(world, source(7), 0, 8), "<IMAGE/SIZE> is missing or 0")
    nothing_left(world)


def test_oned_clones_an_image_into_another_datastore(original: World) -> None:
    image = original.cloud.create_image(original.images, original.file("disk", CONTENT))
    cloned = original.cloud.clone_image(image, datastore=target(original, "copy", 'STORAGE_POOL="fast" AUTO_PLACE="1"'))
    assert (cloned.source, cloned.format) == (source(1), "raw")
    holds(original, "one-image-1", CONTENT)
