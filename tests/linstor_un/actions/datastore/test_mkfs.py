"""datastore/mkfs: empty datablocks, formatted or not, that show nothing of what their pool held before."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from linstor_sandbox import OLD_DATA
from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    MIB,
    THIN_AND_THICK,
    add_datastore,
    definitions,
    holds,
    mkfs,
    nothing_left,
    refused,
    remove,
    source,
    succeeded,
)

MakeWorld = Callable[..., World]


@pytest.fixture
def both(make_world: MakeWorld) -> World:
    """A world with a thin and a thick pool; `thick` is the name of the second one's datastore."""
    return make_world(pools=THIN_AND_THICK)


def file_system(device: bytes) -> str:
    """The file system on a device, by its magic numbers and its features."""
    if device.startswith(b"XFSB"):
        return "xfs"
    assert device[1080:1082] == b"\x53\xef", "no file system that we know"
    has_journal = device[1116] & 4
    has_extents = device[1120] & 0x40
    return "ext4" if has_extents else "ext3" if has_journal else "ext2"


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_a_datablock_is_formatted_as_asked(kind: str, both: World, tmp_path: Path) -> None:
    thick = add_datastore(both, "thick", 'STORAGE_POOL="thick" REPLICA_COUNT="1"')
    for identifier, datastore in enumerate((both.images, thick)):
        succeeded(mkfs(both, 6, {"FORMAT": "raw", "FS": kind}, identifier, datastore), f"{source(identifier)}\n")
        device = both.sandbox.read(f"one-image-{identifier}")
        assert file_system(device) == kind
        assert OLD_DATA[:64] not in device
        dump = tmp_path / "device"
        dump.write_bytes(device)
        subprocess.run(["e2fsck", "-f", "-n", dump], check=True, capture_output=True)


def test_a_datablock_is_formatted_with_xfs(world: World) -> None:
    image = world.cloud.create_datablock(world.images, 320, "xfs")
    assert image.source == source(0)
    assert file_system(world.sandbox.read("one-image-0", 0, MIB)) == "xfs"


@pytest.mark.parametrize("elements", [{}, {"FORMAT": "raw", "FS": ""}, {"FSTYPE": "raw"}, {"FORMAT": "qcow2"}])
def test_a_raw_datablock_is_all_zeroes(elements: dict[str, str], both: World) -> None:
    thick = add_datastore(both, "thick", 'STORAGE_POOL="thick" REPLICA_COUNT="2"')
    for identifier, datastore in enumerate((both.images, thick)):
        succeeded(mkfs(both, 5, elements, identifier, datastore), f"{source(identifier)}\n")
        holds(both, f"one-image-{identifier}", b"")
    assert both.sandbox.allocated("one-image-0") == 0, "zeroes take room in the pool"


@pytest.mark.parametrize("elements", [{"FORMAT": "save_as", "FS": ""}, {"FSTYPE": "save_as"}])
def test_a_save_as_only_gets_the_name_of_its_volume(elements: dict[str, str], world: World) -> None:
    call = mkfs(world, 5, elements)
    succeeded(call, f"{source(7)}\n")
    assert call.counts == {"rest": 0, "ssh": 0}
    nothing_left(world)
    # The save-as failed, and its image goes.
    succeeded(remove(world, source(7)), "")


@pytest.mark.parametrize(
    ("size", "elements", "reason"),
    [
        (5, {"FS": "btrfs"}, "File system 'btrfs' is not supported: use one of ext2, ext3, ext4, xfs"),
        (5, {"FS": "ext4; reboot"}, "File system 'ext4; reboot' is not supported"),
        (5, {"FSTYPE": "../ext4"}, "File system '../ext4' is not supported"),
        (0, {"FS": "ext4"}, "<IMAGE/SIZE> is missing or 0"),
        (-1, {}, "<IMAGE/SIZE> is -1 MiB and must be from 1"),
        (1 << 31, {}, "and must be from 1"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is(
    size: int, elements: dict[str, str], reason: str, world: World
) -> None:
    call = mkfs(world, size, elements)
    refused(call, reason)
    assert call.counts == {"rest": 0, "ssh": 0}


def test_a_file_system_that_cannot_be_made_leaves_nothing(make_world: MakeWorld) -> None:
    world = make_world(configuration='SUPPORTED_FS="ext4 nosuchfs xfs"\n')
    refused(mkfs(world, 5, {"FS": "nosuchfs"}), "a program is missing on node", "mkfs.nosuchfs", "install it there")
    # xfs needs more room than that.
    refused(mkfs(world, 5, {"FS": "xfs"}), "Preparing one-image-7 on node", "failed")
    nothing_left(world)


def test_the_same_call_twice_ends_as_one(world: World) -> None:
    for warning in ("", "discarding one-image-7"):
        succeeded(mkfs(world, 6, {"FS": "ext4"}), f"{source(7)}\n", warning)
        properties = definitions(world)["one-image-7"]["props"]
        assert "Aux/one/INCOMPLETE" not in properties
    assert list(definitions(world)) == ["one-image-7"]
    assert file_system(world.sandbox.read("one-image-7")) == "ext4"


def test_an_image_of_another_time_is_not_overwritten(world: World) -> None:
    world.cloud.create_datablock(world.images, 5, "ext4")
    before = world.sandbox.snapshot_of_state()
    refused(mkfs(world, 5, identifier=0), "already has a volume one-image-0 that was not made for this image", "PREFIX")
    assert world.sandbox.snapshot_of_state() == before
