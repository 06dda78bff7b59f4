"""What oned believes to exist, and the bytes that guests and users have put there."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Callable, Optional

from linstor_sandbox.opennebula import Image, ImageState, VirtualMachine, VmState
from linstor_sandbox.opennebula.machines import Disk
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import own, volume

BLOCK = 4096
# Texts by the offset at which they are, zeroes everywhere else; None where a file system or swap was made.
Texts = Optional[Mapping[int, str]]


@dataclass
class Model:
    """One OpenNebula with what is in its volumes; sizes and snapshots are what oned says."""

    world: World
    texts: dict[str, Texts] = field(default_factory=dict)
    # By volume and snapshot id.
    kept: dict[tuple[str, int], Texts] = field(default_factory=dict)
    # What a VM's user will try again, because it has failed and oned has no state for that.
    again: dict[int, Callable[[], object]] = field(default_factory=dict)
    # Images that somebody has tried to delete.
    doomed: set[int] = field(default_factory=set)
    busy: set[int] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)
    serial: int = 0

    def __post_init__(self) -> None:
        copying = SYSTEM_TEMPLATE.replace("linstor-system", "linstor-copies").replace('"snapshot"', '"copy"')
        self.systems = [self.world.system, self.world.cloud.create_datastore(copying)]

    @contextmanager
    def reserved(self, draw: random.Random) -> Iterator[Optional[VirtualMachine]]:
        """A VM that is nobody else's for the length of the block, or None where all are."""
        with self.lock:
            free = [vm for vm in self.machines() if vm.identifier not in self.busy]
            vm = draw.choice(free) if free else None
            if vm is not None:
                self.busy.add(vm.identifier)
        try:
            yield vm
        finally:
            if vm is not None:
                self.busy.discard(vm.identifier)

    def machines(self) -> list[VirtualMachine]:
        """All VMs that are not done."""
        return [vm for vm in list(self.world.cloud.machines) if vm.state != VmState.DONE]

    def images(self, *states: ImageState) -> list[Image]:
        """The images in these states."""
        return [image for image in list(self.world.cloud.images) if image.state in states]

    def text(self, what: str) -> str:
        """A text that is nowhere else."""
        with self.lock:
            self.serial += 1
            return f"{what}, text {self.serial}"

    def resource(self, vm: VirtualMachine, disk: Disk) -> str:
        """The volume of a disk."""
        if disk.volatile or disk.yes("CLONE"):
            return own(vm, disk.disk_id)
        return volume(self.world.cloud.image(int(disk.attributes["IMAGE_ID"])))

    def begin(self, vm: VirtualMachine, disk: Disk) -> None:
        """A disk's content at its beginning: nothing, or the image's."""
        if disk.volatile:
            self.texts[own(vm, disk.disk_id)] = None if disk.type == "SWAP" or "FS" in disk.attributes else {}
        elif disk.yes("CLONE"):
            image = self.world.cloud.image(int(disk.attributes["IMAGE_ID"]))
            self.texts[own(vm, disk.disk_id)] = self.texts[volume(image)]

    def write(self, resource: str, offset: int, text: str) -> None:
        """A guest has written a text."""
        texts = self.texts[resource]
        assert texts is not None
        self.texts[resource] = {**texts, offset: text}
