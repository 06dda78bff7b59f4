"""Backups of a VM and of its disks' increments, as oned keeps them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.errors import Refused

_OF_ONE_BACKUP = ("LAST_DATASTORE_ID", "LAST_BRIDGE", "LAST_BACKUP_ID", "LAST_BACKUP_SIZE", "LAST_BACKUP_FORMAT")
_DEFAULTS = {"BACKUP_VOLATILE": "NO", "FS_FREEZE": "NONE", "INTERACTIVE": "NO"}
_FREEZES = ("NONE", "AGENT", "SUSPEND")


@dataclass
class Backups:
    """BACKUP_CONFIG of a VM, with where its chain of increments is, and the ids of its backup images."""

    config: dict[str, str] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)

    @property
    def is_increment(self) -> bool:
        """MODE is INCREMENT, and not FULL."""
        return self.config.get("MODE") == "INCREMENT"

    @property
    def includes_volatile(self) -> bool:
        """Volatile disks are backed up too."""
        return self.config.get("BACKUP_VOLATILE") == "YES"

    @property
    def keep_last(self) -> int:
        """So many backups or increments are kept, 0: all."""
        return int(self.config.get("KEEP_LAST", "0"))

    @property
    def image_id(self) -> int:
        """The image of the chain that the next increment goes to; -1: it will be a full backup."""
        return int(self.config.get("INCREMENTAL_BACKUP_ID", "-1"))

    def configure(self, given: Mapping[str, str], can_increment: bool, append: bool) -> None:
        """What a user asks for in BACKUP_CONFIG; with `append` the rest stays, otherwise it becomes the default."""
        before = self.is_increment, self.includes_volatile
        wanted = {name: value.upper() for name, value in given.items()}
        mode = wanted.get("MODE", "" if append else "FULL")
        if not append:
            self.config.pop("KEEP_LAST", None)
            self.config.update(_DEFAULTS)
        if wanted.get("FS_FREEZE", "NONE") not in _FREEZES:
            wanted["FS_FREEZE"] = "NONE"
        kept = ("KEEP_LAST", "BACKUP_VOLATILE", "FS_FREEZE", "INTERACTIVE")
        self.config.update({name: wanted[name] for name in kept if name in wanted})
        if not can_increment:
            self.config.pop("INCREMENT_MODE", None)
            self.config["MODE"] = "FULL"
        elif mode:
            self.config["MODE"] = "INCREMENT" if mode == "INCREMENT" else "FULL"
            how = wanted.get("INCREMENT_MODE", "" if append else "CBT")
            if how:
                self.config["INCREMENT_MODE"] = how if how == "SNAPSHOT" else "CBT"
        if not can_increment or (mode and before[0] + self.is_increment < 2) or before[1] != self.includes_volatile:
            self.begin_anew()

    def begin_anew(self) -> None:
        """The next backup is a full one; without BACKUP_CONFIG there is nothing to forget."""
        self.config.update(INCREMENTAL_BACKUP_ID="-1", LAST_INCREMENT_ID="-1")

    def forget(self, image_id: int) -> None:
        """A backup image is deleted."""
        self.ids.remove(image_id)
        if self.image_id == image_id:
            self.begin_anew()

    def clear_last(self) -> None:
        """A backup is over, well or not."""
        for name in _OF_ONE_BACKUP:
            self.config.pop(name, None)

    def xml(self) -> str:
        """The BACKUPS element of a VM."""
        config = markup.element("BACKUP_CONFIG", markup.attributes(self.config))
        return markup.element("BACKUPS", config, markup.ids("BACKUP_IDS", self.ids))


@dataclass
class Increment:
    """One increment of a backup image: size in MiB, time in seconds since the epoch."""

    identifier: int
    parent: int
    source: str
    size: int
    type: str
    date: int = field(default_factory=lambda: int(time.time()))

    def xml(self) -> str:
        """The INCREMENT element."""
        values = {"DATE": self.date, "ID": self.identifier, "PARENT_ID": self.parent, "SIZE": self.size}
        texts = {name: str(value) for name, value in values.items()}
        return markup.element("INCREMENT", markup.attributes({**texts, "SOURCE": self.source, "TYPE": self.type}))


def flattened(increments: Sequence[Increment], size: int, chain: str) -> list[Increment]:
    """The increments of an image after a flatten: the first of those that are left is a full one of this size (MiB).

    `chain` is the `id:source,...` that the driver printed.
    """
    sources = dict(part.split(":") for part in chain.split(","))
    left = [found for found in increments if str(found.identifier) in sources]
    if len(left) != len(sources):
        raise Refused(f"increments {chain} are not those of the image")
    for found in left:
        found.source = sources[str(found.identifier)]
    left[0].type, left[0].parent, left[0].size = "FULL", -1, size
    return left
