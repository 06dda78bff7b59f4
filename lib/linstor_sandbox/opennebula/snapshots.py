"""Snapshots of a disk or an image, as oned lists them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Optional

from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.errors import Refused


@dataclass
class Snapshot:
    """One snapshot; `size` is the disk's at that time, in MiB."""

    identifier: int
    name: str
    size: int
    date: int
    is_active: bool = False

    def xml(self) -> str:
        """The SNAPSHOT element; parents exist only in trees, which orphans are not in."""
        values = {
            **({"ACTIVE": "YES"} if self.is_active else {}),
            "DATE": str(self.date),
            "ID": str(self.identifier),
            "NAME": self.name,
            "PARENT": "-1",
            "SIZE": str(self.size),
        }
        return markup.element("SNAPSHOT", markup.attributes(values))


@dataclass
class Snapshots:
    """All snapshots of one disk; a persistent image and the VM's disk share the list."""

    allow_orphans: str = "NO"
    next_id: int = 0
    all: list[Snapshot] = field(default_factory=list)

    @property
    def total_size(self) -> int:
        """MiB of all of them, as quotas count."""
        return sum(snapshot.size for snapshot in self.all)

    def create(self, name: str, size: int) -> Snapshot:
        """A new one; its id is never given again."""
        snapshot = Snapshot(self.next_id, name, size, int(time.time()))
        self.next_id += 1
        self.all.append(snapshot)
        return snapshot

    def get(self, identifier: int) -> Snapshot:
        """One by its id."""
        for snapshot in self.all:
            if snapshot.identifier == identifier:
                return snapshot
        raise Refused("Snapshot does not exist")

    def drop(self, snapshot: Snapshot) -> None:
        """Forget one."""
        self.all.remove(snapshot)

    def activate(self, snapshot: Snapshot) -> None:
        """The disk goes on from this one."""
        for other in self.all:
            other.is_active = other is snapshot

    def clear(self) -> None:
        """Forget all, as a flatten does."""
        self.allow_orphans, self.next_id, self.all = "", 0, []

    def xml(self, disk_id: Optional[int] = None) -> str:
        """The SNAPSHOTS element of an image, or of a VM's disk."""
        if not self.allow_orphans:
            return "<SNAPSHOTS></SNAPSHOTS>"
        return markup.element(
            "SNAPSHOTS",
            markup.cdata("ALLOW_ORPHANS", self.allow_orphans),
            markup.cdata("CURRENT_BASE", -1),
            "" if disk_id is None else markup.cdata("DISK_ID", disk_id),
            markup.cdata("NEXT_SNAPSHOT", self.next_id),
            *(snapshot.xml() for snapshot in self.all),
        )
