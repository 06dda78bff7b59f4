"""What an image is, told from its first bytes, and which images are never given to qemu-img."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from linstor_un.errors import UnusableImage
from linstor_un.hosts import formats
from linstor_un.hosts.formats import ImageFormat
from tests.linstor_un.actions.datastore.material import FORMS, MIB, PACKINGS, in_form, in_package, noise

PROGRAMS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    made = tmp_path / "raw"
    made.write_bytes(noise(1, 3 * MIB + 100))
    return made


def head(image: Path) -> bytes:
    with image.open("rb") as file:
        return file.read(formats.PROBE_BYTES)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "raw"])
def test_formats_and_sizes_are_those_that_qemu_img_tells(form: str, raw: Path) -> None:
    image = in_form(raw, form)
    told = json.loads(subprocess.run(["qemu-img", "info", "--output=json", image], capture_output=True).stdout)
    found = formats.probe(head(image))
    assert (found.name, found.virtual_bytes) == (told["format"], told["virtual-size"])
    assert not found.is_raw
    assert found.least_bytes <= image.stat().st_size


@pytest.mark.parametrize("content", [b"", b"\0", b"QFI", b"conecti", bytes(5000), b"LUKS\xba\xbe" + bytes(600)])
def test_everything_else_is_raw(content: bytes) -> None:
    assert formats.probe(content) == ImageFormat("raw")
    assert formats.compression(content) is None


@pytest.mark.parametrize("packing", PACKINGS)
def test_packages_are_known_by_their_content(packing: str, raw: Path) -> None:
    assert formats.compression(head(in_package(raw, packing))) == PROGRAMS[packing]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "raw"])
def test_a_file_that_ends_within_its_header_is_cut_short(form: str, raw: Path) -> None:
    whole = head(in_form(raw, form))
    # Long enough to be known, too short to say anything.
    length = 0x44 if form == "vdi" else 9
    with pytest.raises(UnusableImage, match="cut short within its header|no metadata|made of several files"):
        formats.probe(whole[:length])


def refusal(content: bytes) -> str:
    with pytest.raises(UnusableImage) as refused:
        formats.probe(content)
    return str(refused.value)


def vmdk(capacity: int, descriptor: bytes, descriptor_sectors: int = 20, harmless: bytes = b"") -> bytes:
    """A sparse vmdk with a descriptor behind the header, and another behind that which the header names instead."""
    at = 21 if harmless else 1
    header = struct.pack("<4sIIQQQQ", b"KDMV", 1, 3, capacity, 128, at, descriptor_sectors)
    return header.ljust(512, b"\0") + descriptor.ljust(20 * 512, b"\0") + harmless


SPARSE = b'# Disk DescriptorFile\ncreateType="monolithicSparse"\n'


def test_a_vmdk_that_would_make_qemu_read_other_files_is_refused() -> None:
    assert formats.probe(vmdk(8, SPARSE)) == ImageFormat("vmdk", 4096)
    extent = b'RW 100 FLAT "/etc/shadow" 0\n'
    # Without capacity qemu takes the descriptor's word for everything.
    assert "several files" in refusal(vmdk(0, SPARSE + extent))
    # qemu takes the first type in quotes, wherever another is without.
    tricked = b'createType=monolithicSparse\ncreateType="monolithicFlat"\n'
    assert "several files" in refusal(vmdk(8, tricked + extent))
    assert "several files" in refusal(vmdk(8, b'createType="twoGbMaxExtentSparse"\n'))
    assert "several files" in refusal(vmdk(8, b""))
    parent = SPARSE + b'parentFileNameHint="/etc/shadow"\n'
    assert "has a parent" in refusal(vmdk(8, parent))
    # Behind the end that the header tells, and within what qemu reads.
    assert "has a parent" in refusal(vmdk(8, SPARSE + bytes(5000) + parent, descriptor_sectors=1))
    # Where qemu looks for it, and not where the header says that the descriptor is.
    assert "has a parent" in refusal(vmdk(8, parent, harmless=SPARSE))
    assert formats.probe(vmdk(8, b"", harmless=SPARSE)) == ImageFormat("vmdk", 4096)
    assert "only the descriptor" in refusal(b"# Disk DescriptorFile\n" + extent)


def qcow2(version: int = 3, backing: int = 0, encryption: int = 0, features: int = 0) -> bytes:
    header = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, 4096, encryption)
    return header.ljust(72, b"\0") + struct.pack(">Q", features)


def test_a_qcow2_that_needs_another_file_or_a_key_is_refused() -> None:
    assert formats.probe(qcow2()) == ImageFormat("qcow2", 4096)
    assert formats.probe(qcow2(version=2, features=4)) == ImageFormat("qcow2", 4096)
    assert "has a backing file" in refusal(qcow2(backing=104))
    assert "keeps its data in another file" in refusal(qcow2(features=4))
    assert "is encrypted" in refusal(qcow2(encryption=1))
    assert "is encrypted" in refusal(qcow2(encryption=2))
    assert "is of version 1" in refusal(qcow2(version=1))


def test_a_vpc_that_needs_a_parent_is_refused(raw: Path) -> None:
    content = bytearray(head(in_form(raw, "vpc")))
    struct.pack_into(">I", content, 60, 4)
    assert "has a parent" in refusal(bytes(content))


def test_a_vdi_says_how_long_its_file_must_be(raw: Path) -> None:
    # Headers and four blocks of 1 MiB, of which the last may be there in part.
    assert formats.probe(head(in_form(raw, "vdi"))).least_bytes == 1024 + 3 * MIB + 1
