"""Images: their states and how oned shows one."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from linstor_sandbox.opennebula import markup
from linstor_sandbox.opennebula.backups import Increment
from linstor_sandbox.opennebula.errors import Refused
from linstor_sandbox.opennebula.releases import Release
from linstor_sandbox.opennebula.snapshots import Snapshots


class ImageState(enum.IntEnum):
    """States of an image, as oned numbers them."""

    INIT = 0
    READY = 1
    USED = 2
    DISABLED = 3
    LOCKED = 4
    ERROR = 5
    CLONE = 6
    DELETE = 7
    USED_PERS = 8


_TYPES = {"OS": 0, "CDROM": 1, "DATABLOCK": 2, "BACKUP": 6}
_DISK_TYPES = {"FILE": 0, "CD_ROM": 1, "BLOCK": 2, "RBD": 3}


@dataclass
class Image:
    """An image as oned keeps it: `size` in MiB, `disk_type` fixed at creation from its datastore."""

    identifier: int
    name: str
    datastore_id: int
    datastore: str
    type: str = "OS"
    persistent: bool = False
    path: str = ""
    source: str = ""
    format: str = ""
    fs: str = ""
    size: int = 0
    disk_type: str = "BLOCK"
    cloning_id: int = -1
    cloning_operations: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    state: ImageState = ImageState.INIT
    previous_state: ImageState = ImageState.INIT
    vms: list[int] = field(default_factory=list)
    registered: int = 0
    modified: int = 0
    snapshots: Snapshots = field(default_factory=Snapshots)
    target_snapshot: int = -1
    increments: list[Increment] = field(default_factory=list)
    backup_disk_ids: list[int] = field(default_factory=list)
    owner_id: int = 0
    group_id: int = 0
    granted: frozenset[str] = markup.OWNERS_RIGHTS

    def become(self, state: ImageState) -> None:
        """Take a new state; while it is LOCKED the state before is remembered, otherwise both are the same."""
        self.previous_state = self.state if state == ImageState.LOCKED else state
        self.state = state

    def begin_cloning(self) -> None:
        """It is being read: nobody may delete it meanwhile, nor may a VM begin to use it that did not yet."""
        if self.state not in (ImageState.READY, ImageState.USED, ImageState.CLONE):
            raise Refused(f"[one.image.clone] Cannot clone image in state: {self.state.name}")
        self.cloning_operations += 1
        if self.state == ImageState.READY:
            self.become(ImageState.CLONE)

    def end_cloning(self) -> None:
        """The last clone sets it free."""
        self.cloning_operations -= 1
        if self.state == ImageState.CLONE and not self.cloning_operations:
            self.become(ImageState.READY)

    @property
    def immutable(self) -> bool:
        """It is linked, never cloned, although it is not persistent: a CDROM."""
        return self.type == "CDROM" or self.attributes.get("PERSISTENT_TYPE") == "IMMUTABLE"

    @property
    def shareable(self) -> bool:
        """It is persistent, and several VMs may have it at once; OpenNebula has this since 6.0."""
        return self.persistent and self.attributes.get("PERSISTENT_TYPE") == "SHAREABLE"

    def xml(self, release: Release) -> str:
        """The IMAGE element with the element names of a release."""
        return markup.element(
            "IMAGE",
            markup.owner(self.name, self.identifier, self.granted, self.owner_id, self.group_id),
            markup.text("TYPE", _TYPES[self.type]),
            markup.text("DISK_TYPE", _DISK_TYPES[self.disk_type]),
            markup.text("PERSISTENT", int(self.persistent)),
            markup.text("REGTIME", self.registered),
            markup.text("MODTIME", self.modified) if release.has_modification_time else "",
            markup.cdata("SOURCE", self.source),
            markup.cdata("PATH", self.path),
            self._format_xml(release),
            markup.text("SIZE", self.size),
            markup.text("STATE", int(self.state)),
            markup.text("PREV_STATE", int(self.previous_state)) if release.has_format else "",
            markup.text("RUNNING_VMS", len(self.vms)),
            markup.text("CLONING_OPS", self.cloning_operations),
            markup.text("CLONING_ID", self.cloning_id),
            markup.text("TARGET_SNAPSHOT", self.target_snapshot),
            markup.text("DATASTORE_ID", self.datastore_id),
            markup.text("DATASTORE", self.datastore),
            markup.ids("VMS", self.vms),
            "<CLONES></CLONES><APP_CLONES></APP_CLONES>",
            markup.element("TEMPLATE", markup.attributes(self.attributes)),
            self.snapshots.xml(),
            self._backup_xml(release) if release.has_backups else "",
        )

    def _backup_xml(self, release: Release) -> str:
        increments = markup.element("BACKUP_INCREMENTS", *(increment.xml() for increment in self.increments))
        return increments + (markup.ids("BACKUP_DISK_IDS", self.backup_disk_ids) if release.has_backup_disks else "")

    def _format_xml(self, release: Release) -> str:
        if release.has_format:
            return markup.cdata("FORMAT", self.format) + markup.cdata("FS", self.fs)
        return markup.cdata("FSTYPE", self.fs or self.format)
