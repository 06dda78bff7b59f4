"""zfs send: what has changed between two snapshots of a zvol, for zstream to show.

The stream has no data and a form of its own; what zstream prints of it is as of a real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from ..model import Cluster, Node
from . import backing
from .backing import Backing, runs
from .status import Output

BLOCK = 8192
"""volblocksize of a zvol that LINSTOR makes (bytes)."""
_FLAGS = {"-L", "--large-block", "-c", "--compressed", "-e", "--embed", "-w", "--raw", "-p", "--props"}


def run(cluster: Cluster, node: Node, arguments: Sequence[str], is_root: bool) -> Output:
    """`send [-i SNAPSHOT] SNAPSHOT`."""
    words = [word for word in arguments if word not in _FLAGS]
    if words[:1] != ["send"] or len(words) not in (2, 4) or (len(words) == 4 and words[1] != "-i"):
        return 2, "", "usage: send [-i snapshot] <snapshot>\n"
    name = words[-1]
    right = _snapshot(cluster, node, name)
    if right is None:
        return 1, "", f"cannot open '{name}': dataset does not exist\n"
    if not is_root:
        return 1, "", f"warning: cannot send '{name}': permission denied\n"
    if len(words) == 2:
        return 0, _stream(name, None, right), ""
    base = words[2] if "@" in words[2][1:] else f"{name.partition('@')[0]}@{words[2].lstrip('@')}"
    left = _snapshot(cluster, node, base)
    if left is None:
        return 1, "", f"cannot send '{name}': incremental source ({base}) does not exist\n"
    if left.name != right.name or not _earlier(cluster, left, right):
        return 1, "", f"cannot send '{name}': not an earlier snapshot from the same fs\n"
    return 0, _stream(name, left, right), ""


def _snapshot(cluster: Cluster, node: Node, dataset: str) -> Optional[Backing]:
    for volume in backing.of_host(cluster, node, "ZFS"):
        if volume.snapshot and dataset == f"{volume.pool.driver()}/{volume.name}@{volume.snapshot}":
            return volume
    return None


def _earlier(cluster: Cluster, left: Backing, right: Backing) -> bool:
    numbers = {
        snapshot.uuid: int(snapshot.props["SequenceNumber"])
        for definition in cluster.definitions
        for snapshot in definition.snapshots
    }
    return numbers[left.uuid] < numbers[right.uuid]


def _stream(name: str, left: Optional[Backing], right: Backing) -> str:
    begin = (
        ("hdrtype", "1"),
        ("features", "0"),
        ("magic", "2f5bacbac"),
        ("creation_time", "6921a5c0"),
        ("type", "3"),
        ("flags", "0x4"),
        ("toguid", _guid(right)),
        ("fromguid", _guid(left) if left else "0"),
        ("toname", name),
    )
    lines = ["BEGIN record", *(f"\t{key} = {value}" for key, value in begin), "", *_records(left, right)]
    return "\n".join([*lines, "END checksum = 0/0/0/0"]) + "\n"


def _guid(volume: Backing) -> str:
    return volume.uuid.replace("-", "")[:16]


def _records(left: Optional[Backing], right: Backing) -> Iterator[str]:
    """Those of a zvol, whose data are object 1."""
    found = backing.changes(left, right, BLOCK)
    changed = [(number, kind) for number, kind in found if kind != "same"]
    last = max((number for number, kind in found if kind != "left_only"), default=0)
    if changed:
        yield (
            f"OBJECT object = 1 type = 23 bonustype = 0 blksz = {BLOCK} bonuslen = 0 dn_slots = 1 raw_bonuslen = 0 "
            f"flags = 0 maxblkid = {last} indblkshift = 17 nlevels = 3 nblkptr = 1"
        )
        # The end is freed by whatever changes, and is told as the largest number that there is.
        yield f"FREE object = 1 offset = {(last + 1) * BLOCK} length = -1"
    for kind, first, count in runs(changed):
        if kind == "left_only":
            yield f"FREE object = 1 offset = {first * BLOCK} length = {count * BLOCK}"
        else:
            yield from (_write(number * BLOCK) for number in range(first, first + count))


def _write(offset: int) -> str:
    return (
        "WRITE object = 1 type = 23 checksum type = 7 compression type = 0 flags = 0 "
        f"offset = {offset} logical_size = {BLOCK} compressed_size = 0 payload_size = {BLOCK} props = 200000000 "
        f"salt = {'0' * 16} iv = {'0' * 24} mac = {'0' * 32}"
    )
