"""datastore/cp: every byte of an image arrives in the volume, and what must not arrive leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import World
from tests.linstor_un.actions.datastore.material import (
    FORMS,
    MIB,
    PACKINGS,
    THIN_AND_THICK,
    add_datastore,
    as_qemu_reads_it,
    cp,
    definitions,
    disk,
    holds,
    in_form,
    in_package,
    noise,
    nothing_left,
    refused,
    source,
    stat,
    succeeded,
)

MakeWorld = Callable[..., World]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_arrives_byte_for_byte_on_thin_and_thick_pools(form: str, make_world: MakeWorld) -> None:
    world = make_world(pools=THIN_AND_THICK)
    thick = add_datastore(world, "thick", 'STORAGE_POOL="thick" REPLICA_COUNT="1"')
    content = disk(1, 9 * MIB + 777)
    image = in_form(Path(world.file("disk", content)), form)
    expected = as_qemu_reads_it(image, form)
    size = -(-len(expected) // MIB)
    packings = PACKINGS if form in ("raw", "qcow2", "vmdk", "vhdx", "vdi") else ("gz",)
    paths = [image, *(in_package(image, packing) for packing in packings)]
    for path in paths[:2]:
        succeeded(stat(world, str(path)), f"{size}\n")
    for identifier, path in enumerate(paths):
        succeeded(cp(world, str(path), size, identifier), f"{source(identifier)} raw\n")
        holds(world, f"one-image-{identifier}", expected)
        data = len(content) - content.count(bytes(4096)) * 4096
        assert world.sandbox.allocated(f"one-image-{identifier}") <= data + 4 * 65536, "zeroes take room in the pool"
    for identifier, path in enumerate(paths[:2], 10):
        succeeded(cp(world, str(path), size, identifier, thick), f"{source(identifier)} raw\n")
        holds(world, f"one-image-{identifier}", expected)


@pytest.mark.parametrize("pool", ["data", "thick"])
def test_images_of_any_length_arrive_with_zeroes_behind_them(pool: str, make_world: MakeWorld) -> None:
    world = make_world(pools=THIN_AND_THICK)
    datastore = add_datastore(world, "other", f'STORAGE_POOL="{pool}" REPLICA_COUNT="2"')
    lengths = [1, 511, 513, 4097, 65537, MIB - 1, MIB + 1, 3 * MIB + 4095, 4 * MIB]
    for identifier, length in enumerate(lengths):
        content = noise(length, length)
        size = -(-length // MIB)
        path = world.file(f"{length}", content)
        assert stat(world, path, datastore).stdout == f"{size}\n"
        succeeded(cp(world, path, size, identifier, datastore), f"{source(identifier)} raw\n")
        holds(world, f"one-image-{identifier}", content)


def test_zeroes_of_an_image_are_zeroes_on_a_thick_pool_also_where_they_are_all_there_is(make_world: MakeWorld) -> None:
    world = make_world(pools=THIN_AND_THICK)
    thick = add_datastore(world, "thick", 'STORAGE_POOL="thick" REPLICA_COUNT="2"')
    path = world.file("zeroes", bytes(5 * MIB))
    succeeded(cp(world, path, 6, datastore=thick), f"{source(7)} raw\n")
    holds(world, "one-image-7", b"")


def test_oned_makes_an_image_of_a_file(world: World) -> None:
    content = disk(3, 2 * MIB + 5)
    image = world.cloud.create_image(world.images, world.file("disk", content), persistent=True)
    assert (image.size, image.source, image.format) == (3, source(0), "raw")
    holds(world, "one-image-0", content)
    properties = definitions(world)["one-image-0"]["props"]
    owner = {"Aux/one/IMAGE_ID": "0", "Aux/one/REGTIME": str(image.registered)}
    assert {**properties, **owner} == properties
    assert "Aux/one/INCOMPLETE" not in properties


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("MD5", "has MD5 5d41402abc4b2a76b9719d911017c592"),
        ("SHA1", "has SHA1 aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"),
    ],
)
def test_a_wrong_checksum_is_named_and_leaves_nothing(kind: str, reason: str, world: World) -> None:
    path = world.file("hello", b"hello")
    right = hashlib.new(kind, b"hello").hexdigest()
    refused(cp(world, path, 1, attributes={kind: right[:-1] + "0"}), reason, f"should have {right[:-1]}0")
    nothing_left(world)
    succeeded(cp(world, path, 1, attributes={kind: right.upper()}), f"{source(7)} raw\n")


def test_a_checksum_is_that_of_the_file_and_not_of_what_is_packed_in_it(world: World) -> None:
    content = disk(5, MIB)
    package = in_package(Path(world.file("disk", content)), "gz")
    digests = {kind: hashlib.new(kind, package.read_bytes()).hexdigest() for kind in ("MD5", "SHA1")}
    succeeded(cp(world, str(package), 1, attributes=digests), f"{source(7)} raw\n")
    holds(world, "one-image-7", content)
    unpacked = {"MD5": hashlib.md5(content).hexdigest()}
    refused(cp(world, str(package), 1, 8, attributes=unpacked), "has MD5", "correct the checksum")


def test_no_decompress_takes_the_packed_bytes_themselves(world: World) -> None:
    as_is = add_datastore(world, "as-is", 'STORAGE_POOL="data" REPLICA_COUNT="1" NO_DECOMPRESS="YES"')
    package = in_package(Path(world.file("disk", noise(1, 100_000))), "gz")
    assert stat(world, str(package), as_is).stdout == "1\n"
    succeeded(cp(world, str(package), 1, datastore=as_is), f"{source(7)} raw\n")
    holds(world, "one-image-7", package.read_bytes())


def test_a_transfer_takes_at_least_as_long_as_its_limit_says(world: World) -> None:
    slow = add_datastore(world, "slow", 'STORAGE_POOL="data" REPLICA_COUNT="1" LIMIT_TRANSFER_BW="1m"')
    content = noise(1, MIB)
    call = cp(world, world.file("disk", content), 1, datastore=slow)
    succeeded(call, f"{source(7)} raw\n")
    holds(world, "one-image-7", content)
    # A lower bound cannot fail on a slow machine.
    assert call.seconds >= 1


def test_what_does_not_fit_is_refused_and_leaves_nothing(world: World) -> None:
    raw = Path(world.file("disk", disk(1, 3 * MIB + 1)))
    qcow2 = in_form(raw, "qcow2")
    for path in (raw, qcow2, in_package(raw, "gz"), in_package(qcow2, "xz")):
        refused(cp(world, str(path), 3), f"Image {path} has", "does not fit into 3 MiB", "SIZE of at least 4 MiB")
        nothing_left(world)


def test_a_packed_stream_that_ends_early_or_is_damaged_leaves_nothing(world: World) -> None:
    raw = Path(world.file("disk", noise(1, 2 * MIB)))
    for image, packings in ((raw, PACKINGS), (in_form(raw, "qcow2"), ("gz",))):
        for packing in packings:
            whole = in_package(image, packing).read_bytes()
            damaged = bytearray(whole)
            damaged[len(whole) // 2] ^= 0xFF
            for content in (whole[: len(whole) // 2], bytes(damaged)):
                path = world.file("broken", content)
                refused(cp(world, path, 2), f"Image {path} ", "provide the whole file")
    nothing_left(world)


def test_an_image_cut_short_within_its_data_leaves_nothing(world: World) -> None:
    raw = Path(world.file("disk", noise(1, 2 * MIB)))
    for form in ("qcow2", "vhdx", "vmdk", "stream-optimised vmdk", "vdi", "vpc"):
        whole = in_form(raw, form).read_bytes()
        # A vhdx is longer than its data: its blocks have 8 MiB.
        path = world.file("cut", whole[: 9_000_000 if form == "vhdx" else len(whole) - 2 * MIB + 700_000])
        refused(cp(world, path, 3), "cut short")
        nothing_left(world)


def test_images_that_need_other_files_or_keys_are_refused(world: World) -> None:
    raw = Path(world.file("secret.raw", noise(1, MIB)))
    plain = {form: in_form(raw, form) for form in ("qcow2", "vmdk")}
    made = {
        "backing": ["-f", "qcow2", "-b", str(plain["qcow2"]), "-F", "qcow2"],
        "data": ["-f", "qcow2", "-o", f"data_file={world.folder}/other,data_file_raw=on"],
        "parent": ["-f", "vmdk", "-b", str(plain["vmdk"]), "-F", "vmdk"],
        "split": ["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
        "flat": ["-f", "vmdk", "-o", "subformat=monolithicFlat"],
    }
    for name, options in made.items():
        size = [] if "-b" in options else ["1M"]
        subprocess.run(["qemu-img", "create", "-q", *options, world.folder / name, *size], check=True)
    encrypted = bytearray(plain["qcow2"].read_bytes())
    encrypted[35] = 2
    world.file("key", bytes(encrypted))
    reasons = {
        "backing": "has a backing file: flatten it",
        "data": "keeps its data in another file",
        "parent": "has a parent: flatten it",
        "split": "only the descriptor",
        "flat": "only the descriptor",
        "key": "is encrypted: decrypt it",
    }
    for name, reason in reasons.items():
        path = f"{world.folder}/{name}"
        refused(stat(world, path), reason, "qemu-img convert")
        refused(cp(world, path, 1), reason, "qemu-img convert")
    nothing_left(world)


def test_only_allowed_paths_become_images(world: World) -> None:
    top = world.folder.parent
    inside = Path(world.file("inside", b"inside"))
    places = {name: top / name for name in ("files-too", "secret", "secret-too")}
    for place in places.values():
        place.mkdir()
        (place / "image").write_bytes(b"outside")
    (world.folder / "link").symlink_to(places["secret"] / "image")
    (world.folder / "directory-link").symlink_to(places["secret"])
    (places["secret"] / "way-back").symlink_to(inside)
    safe_only = add_datastore(world, "safe", 'STORAGE_POOL="data" REPLICA_COUNT="1"')
    restricted = world.cloud.create_datastore(
        f'NAME="restricted" TYPE="IMAGE_DS" DISK_TYPE="BLOCK" DS_MAD="linstor_un" TM_MAD="linstor_un" '
        f'STORAGE_POOL="data" REPLICA_COUNT="1" RESTRICTED_DIRS="{places["secret"]}/"'
    )
    forbidden = [
        (safe_only, f"{world.folder}/link"),
        (safe_only, f"{world.folder}/directory-link/image"),
        (safe_only, f"{world.folder}/../secret/image"),
        (safe_only, f"{world.folder}/./..//files/../secret/image"),
        (safe_only, f"{places['files-too']}/image"),
        (safe_only, f"{places['secret']}/absent"),
        (safe_only, f"{world.folder}/directory-link/absent"),
        (safe_only, f"{world.folder}/../secret"),
        (safe_only, "/proc/self/environ"),
        (safe_only, "/dev/zero"),
        (restricted, f"{places['secret']}/image"),
        (restricted, f"{places['secret']}"),
        (restricted, f"{world.cloud.var}/.one/one_auth"),
        (restricted, "/var/lib/one/config"),
        (restricted, "/etc/one/oned.conf"),
    ]
    for datastore, path in forbidden:
        for call in (stat(world, path, datastore), cp(world, path, 1, datastore=datastore)):
            refused(call, f"Image path {path} is not allowed", "is restricted", "SAFE_DIRS")
    allowed = [
        (safe_only, str(inside)),
        (safe_only, f"{world.folder}/../files/inside"),
        (safe_only, f"{places['secret']}/way-back"),
        (restricted, f"{places['secret-too']}/image"),
    ]
    for datastore, path in allowed:
        assert stat(world, path, datastore).stdout == "1\n", path
    nothing_left(world)


def test_what_is_no_file_is_refused(world: World) -> None:
    (world.folder / "directory").mkdir()
    os.mkfifo(world.folder / "fifo")
    world.file("empty", b"")
    Path(world.file("empty.gz", gzip.compress(b"")))
    cases = {
        f"{world.folder}/directory": "is a directory: PATH must name a file",
        f"{world.folder}/fifo": "is no regular file: PATH must name a file",
        f"{world.folder}/absent": "cannot be read (No such file or directory): correct PATH",
        f"{world.folder}/empty/below": "cannot be read (Not a directory): correct PATH",
        f"{world.folder}/empty": "is empty: provide another file",
        f"{world.folder}/empty.gz": "is empty: provide another file",
        "/dev/null": "is no regular file",
        "relative/path": "is neither a URL nor an absolute path",
        "": "<IMAGE/PATH> is missing",
        "file:///etc/passwd": "has a scheme that is not allowed",
        "/a\nb": "has control characters",
    }
    for path, reason in cases.items():
        refused(stat(world, path), reason)
        refused(cp(world, path, 1), reason)
    nothing_left(world)
