"""What LINSTOR keeps in the pools of a host, volumes and snapshots, block by block: with DRBD's and LUKS's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from ..drbd import LUKS_HEADER
from ..model import Cluster, Node, StoragePool
from ..storage import KIB, Content, differences


@dataclass(frozen=True)
class Backing:
    """A volume in a pool, or a snapshot of one; `size` (bytes) counts what DRBD and LUKS keep beside the content."""

    pool: StoragePool
    uuid: str
    thin_id: int
    name: str
    snapshot: str
    size: int
    layers: tuple[str, ...]
    content: Content

    @property
    def header(self) -> int:
        """Bytes before the content."""
        return LUKS_HEADER * KIB if "LUKS" in self.layers else 0

    def metadata(self, block: int) -> set[int]:
        """The numbers of the blocks with DRBD's meta-data; the first may hold the end of the content too."""
        if "DRBD" not in self.layers:
            return set()
        return set(range((self.header + self.content.size) // block, -(-self.size // block)))


def of_host(cluster: Cluster, node: Node, family: str) -> list[Backing]:
    """The volumes and snapshots in the pools of one family of a host, each volume before its snapshots."""
    return [found for found in _all(cluster, node) if found.pool.kind.family == family]


def _all(cluster: Cluster, node: Node) -> Iterator[Backing]:
    for definition in cluster.definitions:
        resource = definition.resources.get(node.name)
        for number in sorted(definition.volumes) if resource else ():
            assert resource is not None
            name = f"{definition.name}_{number:05d}"
            yield from _member(resource.pool, (definition.uuid, number), name, "", resource.layers)
        for snapshot in definition.snapshots:
            replica = snapshot.replicas.get(node.name)
            for number in sorted(snapshot.volumes) if replica else ():
                assert replica is not None
                name = f"{definition.name}_{number:05d}"
                yield from _member(replica.pool, (snapshot.uuid, number), name, snapshot.name, replica.layers)


def _member(pool: StoragePool, key: tuple[str, int], name: str, snapshot: str, layers: list[str]) -> Iterator[Backing]:
    stored = pool.members.get(key)
    if stored is not None:
        yield Backing(pool, key[0], stored.thin_id, name, snapshot, stored.size * KIB, tuple(layers), stored.content)


def changes(left: Optional[Backing], right: Backing, block: int) -> list[tuple[int, str]]:
    """(number, same, different, left_only or right_only) of every block of so many bytes that is not empty in both.

    DRBD writes its meta-data whenever a volume is opened: they always differ.
    """
    shift = right.header // block
    before = left.content if left else Content(right.content.path.with_name("none"), 0, right.content.family)
    kinds = {number + shift: kind for number, kind in differences(before, right.content, block)}
    kinds.update(dict.fromkeys(range(shift), "same" if left else "right_only"))
    mine, theirs = left.metadata(block) if left else set(), right.metadata(block)
    for number in mine | theirs:
        in_left = number in mine or kinds.get(number, "right_only") != "right_only"
        in_right = number in theirs or kinds.get(number, "left_only") != "left_only"
        kinds[number] = "different" if in_left and in_right else "left_only" if in_left else "right_only"
    return sorted(kinds.items())


def runs(blocks: Sequence[tuple[int, str]]) -> Iterator[tuple[str, int, int]]:
    """(kind, first number, count) of blocks of one kind that lie side by side."""
    for (_, kind), found in itertools.groupby(enumerate(blocks), lambda one: (one[1][0] - one[0], one[1][1])):
        numbers = [number for _, (number, _) in found]
        yield kind, numbers[0], len(numbers)
