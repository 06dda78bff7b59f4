"""What an image is, told from its first bytes: compressed or not, its format, and the size of the disk in it.

Read here and not by `qemu-img info`: the bytes may come from a pipe, and an image that names other files (a backing
file, an external data file, a descriptor with extents) would make qemu-img read files of the host for its owner.
"""

from __future__ import annotations

import struct
from typing import Callable, NamedTuple, Optional

from linstor_un.errors import UnusableImage

# In these formats what says how large the disk is may lie anywhere in the first MiBs; all else begins with it.
PROBE_BYTES = 4 << 20
FIRST_BYTES = 64 << 10
_FAR_READING = (b"vhdxfile", b"KDMV")
_COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_QCOW2_EXTERNAL_DATA = 1 << 2
_VMDK_DESCRIPTOR_BYTES = 20 * 512
# Where qemu looks for a parent, wherever the header says that the descriptor is.
_VMDK_PARENT_AT = 512
_VPC_DIFFERENCING = 4
_VHDX_METADATA_REGION = bytes.fromhex("06a27c8b90479a4bb8fe575f050f886e")
_VHDX_DISK_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")


class ImageFormat(NamedTuple):
    """The format of an image, in qemu-img's words, and the size of the disk in it where the format says it.

    `least_bytes` is how long the image's file must at least be, for a format in which qemu-img does not notice.
    """

    name: str
    virtual_bytes: Optional[int] = None
    least_bytes: int = 0

    @property
    def is_raw(self) -> bool:
        """Tell whether the bytes are the disk's own."""
        return self.name == "raw"


def compression(prefix: bytes) -> Optional[str]:
    """Return the program that decompresses what begins with `prefix`, or None for what is not compressed."""
    return next((program for magic, program in _COMPRESSIONS if prefix.startswith(magic)), None)


def probe_bytes(prefix: bytes) -> int:
    """Return how much `probe` needs of the image that begins with `prefix`, its first FIRST_BYTES."""
    return PROBE_BYTES if prefix.startswith(_FAR_READING) else FIRST_BYTES


def probe(prefix: bytes) -> ImageFormat:
    """Return the format of the image that begins with `prefix`, its first `probe_bytes` or all of it.

    Raises UnusableImage for an image that is cut short, encrypted, or needs other files.
    """
    for matches, read in _READERS:
        if matches(prefix):
            try:
                return read(prefix)
            except (struct.error, IndexError):
                raise UnusableImage("The image is cut short within its header: provide the whole file") from None
    return ImageFormat("raw")


def _qcow2(data: bytes) -> ImageFormat:
    version, backing = struct.unpack_from(">IQ", data, 4)
    if version not in (2, 3):
        raise UnusableImage(
            f"The qcow image is of version {version}: convert it to qcow2 with `qemu-img convert` and import the result"
        )
    size, encryption = struct.unpack_from(">QI", data, 24)
    features = struct.unpack_from(">Q", data, 72)[0] if version >= 3 else 0
    if backing:
        raise UnusableImage(
            "The qcow2 image has a backing file: flatten it with `qemu-img convert` and import the result"
        )
    if features & _QCOW2_EXTERNAL_DATA:
        raise UnusableImage("The qcow2 image keeps its data in another file: convert it with `qemu-img convert` first")
    if encryption:
        raise UnusableImage("The qcow2 image is encrypted: decrypt it with `qemu-img convert` first")
    return ImageFormat("qcow2", size)


def _vmdk(data: bytes) -> ImageFormat:
    capacity, _, descriptor_at, descriptor_sectors = struct.unpack_from("<QQQQ", data, 12)
    # As much of it as qemu reads, however little the header says that it has.
    descriptor = data[descriptor_at * 512 :][: max(descriptor_sectors * 512, _VMDK_DESCRIPTOR_BYTES)]
    kind = descriptor.partition(b'createType="')[2].partition(b'"')[0]
    # Without a capacity qemu opens the extents that the descriptor names.
    if not capacity or kind not in (b"monolithicSparse", b"streamOptimized"):
        raise UnusableImage(
            "The vmdk image is made of several files: convert it with `qemu-img convert` and import the result"
        )
    if b"parentFileNameHint" in descriptor + data[_VMDK_PARENT_AT:][:_VMDK_DESCRIPTOR_BYTES]:
        raise UnusableImage("The vmdk image has a parent: flatten it with `qemu-img convert` and import the result")
    return ImageFormat("vmdk", capacity * 512)


def _vmdk_descriptor(_: bytes) -> ImageFormat:
    raise UnusableImage(
        "The file is only the descriptor of a vmdk image: convert it with `qemu-img convert` and import the result"
    )


def _vdi(data: bytes) -> ImageFormat:
    (data_at,) = struct.unpack_from("<I", data, 0x158)
    size, block_bytes, _, _, allocated = struct.unpack_from("<QIIII", data, 0x170)
    # The last block may be there in part.
    return ImageFormat("vdi", size, data_at + (allocated - 1) * block_bytes + 1 if allocated else 0)


def _vpc(data: bytes) -> ImageFormat:
    (size,) = struct.unpack_from(">Q", data, 48)
    if struct.unpack_from(">I", data, 60)[0] == _VPC_DIFFERENCING:
        raise UnusableImage("The vpc image has a parent: flatten it with `qemu-img convert` and import the result")
    return ImageFormat("vpc", size)


def _vhdx(data: bytes) -> ImageFormat:
    metadata = _vhdx_entry(data, 192 * 1024 + 16, 192 * 1024 + 8, _VHDX_METADATA_REGION)
    (region,) = struct.unpack_from("<Q", data, metadata + 16)
    count = struct.unpack_from("<H", data, region + 10)[0]
    for number in range(count):
        entry = region + 32 + 32 * number
        if data[entry : entry + 16] == _VHDX_DISK_SIZE:
            (offset,) = struct.unpack_from("<I", data, entry + 16)
            return ImageFormat("vhdx", struct.unpack_from("<Q", data, region + offset)[0])
    raise UnusableImage("The vhdx image does not say how large its disk is: convert it with `qemu-img convert` first")


def _vhdx_entry(data: bytes, table: int, count_at: int, kind: bytes) -> int:
    (count,) = struct.unpack_from("<I", data, count_at)
    for number in range(min(count, 2047)):
        if data[table + 32 * number : table + 32 * number + 16] == kind:
            return table + 32 * number
    raise UnusableImage("The vhdx image has no metadata: it is damaged, provide another file")


def _starts_with(magic: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(magic)


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], ImageFormat]], ...] = (
    (_starts_with(b"QFI\xfb"), _qcow2),
    (_starts_with(b"KDMV"), _vmdk),
    (_starts_with(b"# Disk DescriptorFile"), _vmdk_descriptor),
    (_starts_with(b"vhdxfile"), _vhdx),
    (_starts_with(b"conectix"), _vpc),
    (lambda data: data[0x40:0x44] == b"\x7f\x10\xda\xbe", _vdi),
)
