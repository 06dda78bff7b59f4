"""datastore/rm: an image's volume goes with its snapshots, whatever happened before, and nothing else goes."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    clone,
    cp,
    definitions,
    mkfs,
    noise,
    nothing_left,
    refused,
    remove,
    request,
    source,
    succeeded,
)

MakeWorld = Callable[..., World]


def test_an_image_goes_and_goes_again(world: World) -> None:
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    for _ in range(2):
        succeeded(remove(world, source(7)), "")
        nothing_left(world)


def test_what_never_was_is_gone(world: World) -> None:
    succeeded(remove(world, source(7)), "")
    succeeded(remove(world, "one-image-7"), "")


def test_an_image_goes_with_its_snapshots(world: World) -> None:
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    for name in ("snapshot-0", "snapshot-3", "linstor_un-base"):
        request(world, "POST", "/v1/resource-definitions/one-image-7/snapshots", {"name": name})
    assert len(definitions(world)["one-image-7"]["snapshots"]) == 3
    succeeded(remove(world, source(7)), "")
    nothing_left(world)


def test_an_image_goes_while_its_clones_stay(world: World) -> None:
    world.images.attributes["CLONE_MODE"] = "snapshot"
    content = noise(1, 100_000)
    succeeded(cp(world, world.file("disk", content), 4), f"{source(7)} raw\n")
    succeeded(clone(world, source(7), 4, 8), f"{source(8)}\n")
    succeeded(remove(world, source(7)), "")
    assert list(definitions(world)) == ["one-image-8"]
    assert world.sandbox.read("one-image-8", 0, 100_000) == content


def test_a_volume_of_the_linbit_add_on_goes_by_its_bare_name(world: World) -> None:
    request(world, "POST", "/v1/resource-definitions", {"resource_definition": {"name": "OpenNebula-Image-7"}})
    succeeded(remove(world, "OpenNebula-Image-7"), "")
    nothing_left(world)


def test_what_was_not_made_for_the_image_is_left_alone(world: World) -> None:
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    names = ("database", "one-image-70", "one-vm-7-disk-0", "OpenNebula-Image-8")
    for name in names:
        request(world, "POST", "/v1/resource-definitions", {"resource_definition": {"name": name}})
    before = world.sandbox.snapshot_of_state()
    for foreign in (*(f"/dev/drbd/by-res/{name}/0" for name in names), *names, "/dev/sda", "/etc/passwd", "", "a b"):
        succeeded(remove(world, foreign), "", f"{foreign} was not made for image 7 and is left alone")
    succeeded(remove(world, source(7), 8), "", "was not made for image 8")
    assert world.sandbox.snapshot_of_state() == before


def test_a_volume_that_says_it_is_another_images_is_left_alone(world: World) -> None:
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    request(world, "PUT", "/v1/resource-definitions/one-image-7", {"override_props": {"Aux/one/IMAGE_ID": "8"}})
    refused(remove(world, source(7)), "one-image-7 has the name of image 7 and says that it is another's")
    assert list(definitions(world)) == ["one-image-7"]


def test_an_image_in_use_stays_and_the_node_is_named(make_world: MakeWorld) -> None:
    world = make_world(configuration='IN_USE_TIMEOUT="1"\n')
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    node = next(iter(definitions(world)["one-image-7"]["resources"]))
    opened = world.sandbox.open(node, "one-image-7", "w")
    refused(remove(world, source(7)), f"one-image-7 cannot be deleted because it is open on {node}", "retry")
    assert list(definitions(world)) == ["one-image-7"]
    world.sandbox.close(opened)
    succeeded(remove(world, source(7)), "")
    nothing_left(world)


def test_an_offline_node_does_not_hold_up_a_removal(world: World) -> None:
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    node = next(iter(definitions(world)["one-image-7"]["resources"]))
    world.sandbox.set_node(node, online=False)
    for _ in range(2):
        succeeded(remove(world, source(7)), "", "goes for good when its offline nodes are back")
    assert definitions(world)["one-image-7"]["flags"] == ["DELETE"]
    world.sandbox.set_node(node, online=True)
    nothing_left(world)


def test_oned_removes_an_image(world: World) -> None:
    image = world.cloud.create_datablock(world.images, 5, "ext4")
    world.cloud.delete_image(image)
    nothing_left(world)
    assert [call.verb for call in world.cloud.calls][-2:] == ["rm", "monitor"]


def test_the_lock_of_an_export_that_was_killed_goes_with_its_image(world: World) -> None:
    succeeded(mkfs(world, 5), f"{source(7)}\n")
    left = world.folder.parent / "locks" / "linstor_un-one-image-7-saved.lock"
    left.write_text("999999")
    succeeded(remove(world, source(7)), "")
    assert not left.exists()
