"""The demonstration's own idea of an image's bytes, which is what the driver's work is compared with."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from linstor_sandbox.demo.guests import compare
from linstor_sandbox.demo.images import MIB, ImageProblem, prepare
from linstor_sandbox.demo.volumes import differences


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A disk of 4 MiB with data at both ends and zeroes between."""
    image = tmp_path / "raw"
    image.write_bytes(os.urandom(70000) + bytes(4 * MIB - 140000) + os.urandom(70000))
    return image


def blocks(path: Path) -> Iterator[bytes]:
    """A file's content in blocks that do not meet its end."""
    content = path.read_bytes()
    return (content[offset : offset + 300000] for offset in range(0, len(content), 300000))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "demo"
    made.mkdir()
    return made


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk", "vhdx", "vdi"])
def test_every_format_gives_the_same_bytes(form: str, raw: Path, folder: Path, tmp_path: Path) -> None:
    image = tmp_path / f"image.{form}"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", form, raw, image], check=True)
    prepared = prepare(str(image), folder)
    assert prepared.path == str(folder / image.name)
    assert prepared.size_mib == 4
    assert compare(blocks(prepared.reference), raw) == ""


@pytest.mark.parametrize("form", ["gz", "bz2", "xz", "zst"])
def test_packed_images_are_unpacked(form: str, raw: Path, folder: Path, tmp_path: Path) -> None:
    image = tmp_path / f"image.{form}"
    if form == "zst":
        subprocess.run(["zstd", "-q", "-o", image, raw], check=True)
    else:
        pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[form]
        image.write_bytes(pack(raw.read_bytes()))
    assert compare(blocks(prepare(str(image), folder).reference), raw) == ""


def test_the_made_image_is_a_clean_ext4(folder: Path) -> None:
    prepared = prepare(None, folder)
    assert prepared.is_ext4
    subprocess.run(["e2fsck", "-f", "-n", prepared.path], check=True, capture_output=True)
    told = subprocess.run(["debugfs", "-R", "cat /etc/hostname", prepared.path], capture_output=True, check=True)
    assert told.stdout == b"demo\n"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("/nowhere/image", "/nowhere/image is no file"),
        ("http://127.0.0.1:9/image", "cannot download http://127.0.0.1:9"),
    ],
)
def test_an_image_that_cannot_be_had_is_named(wanted: str, reason: str, folder: Path) -> None:
    with pytest.raises(ImageProblem, match=reason):
        prepare(wanted, folder)


def test_comparison_finds_a_single_wrong_byte(raw: Path, tmp_path: Path) -> None:
    content = bytearray(raw.read_bytes())
    content[3 * MIB] ^= 1
    other = tmp_path / "other"
    other.write_bytes(content)
    assert compare(blocks(other), raw) == f"the bytes differ from offset {3 * MIB} on"


def test_comparison_wants_zeroes_behind_the_end(raw: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    longer.write_bytes(raw.read_bytes() + bytes(100))
    assert compare(blocks(longer), raw) == ""
    longer.write_bytes(raw.read_bytes() + b"old data of the pool")
    assert compare(blocks(longer), raw) == f"the bytes differ from offset {4 * MIB} on"


def test_comparison_wants_every_byte(raw: Path, tmp_path: Path) -> None:
    shorter = tmp_path / "shorter"
    shorter.write_bytes(raw.read_bytes()[:-10])
    assert compare(blocks(shorter), raw) == f"there are {4 * MIB - 10} bytes and {4 * MIB} were expected"


def test_differences_of_states_name_what_is_left() -> None:
    before = {"resources": {"a": 1}, "files": {}}
    after = {"resources": {"a": 1, "b": 2}, "files": {"node1": ["disk.0"]}}
    assert differences(before, before) == []
    assert differences(before, after) == ["/files/node1 is left: ['disk.0']", "/resources/b is left: 2"]
    assert differences({"a": 1}, {"a": 2}) == ["/a was 1 and is 2"]
