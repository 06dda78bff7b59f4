"""Backups of a VM as their tests make them: its disks' content at moments, and what comes back."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Optional

from linstor_sandbox.opennebula import VirtualMachine
from linstor_sandbox.opennebula.backup_server import BackupServer
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.images import Image
from tests.conftest import World
from tests.linstor_un.living import guest
from tests.linstor_un.scenes import homes, link, post, volumes


class Site:
    """A world with a backup datastore, and a running VM."""

    def __init__(self, world: World, driver: str = "rsync") -> None:
        self.world = world
        self.cloud = world.cloud
        self.datastore: Datastore
        self.server: BackupServer
        self.datastore, self.server = world.install_backups(driver)

    def write(self, vm: VirtualMachine, disk_id: int, data: bytes, offset: int = 0) -> None:
        """Have the guest write."""
        guest(self.world, vm).write(str(vm.disk(disk_id).attributes["TARGET"]), data, offset)

    def discard(self, vm: VirtualMachine, disk_id: int, offset: int, length: int) -> None:
        """Have the guest give blocks back, as fstrim does."""
        guest(self.world, vm).discard(str(vm.disk(disk_id).attributes["TARGET"]), offset, length)

    def content(self, vm: VirtualMachine, disk_id: int) -> bytes:
        """What a disk has now: all of its device, which is longer than OpenNebula knows."""
        return self.world.sandbox.read(link(self.world, vm, disk_id))

    def brought_back(self, image: Image, disk_id: int, increment: int = -1) -> bytes:
        """What a new image has that is made of a disk of a backup, as of an increment; the image goes again."""
        (made,) = self.cloud.restore_to_new_images(image, self.world.images, increment, disk_id)
        data = self.world.sandbox.read(f"one-image-{made.identifier}")
        self.cloud.delete_image(made)
        return data

    def stored(self, vm: VirtualMachine, image: Image, disk_id: int) -> Path:
        """The file that the newest backup of a disk consists of."""
        number, source = (image.increments[-1].identifier, image.increments[-1].source) if image.increments else (
            0,
            image.source,
        )  # fmt: skip
        return self.server.stored(self.datastore.identifier, vm.identifier, source) / f"disk.{disk_id}.{number}"

    def staged(self, vm: VirtualMachine, host: Optional[str] = None) -> Path:
        """The directory on a host in which the files are made."""
        top = self.world.sandbox.host(host or vm.host)
        return top / f"var/lib/one/datastores/{self.world.system.identifier}/{vm.identifier}/backup"


def has_all_of(device: bytes, content: bytes) -> None:
    """Check that a device, which may be longer in other layers, has this and nothing but zeroes behind it."""
    assert device[: len(content)] == content
    assert not device[len(content) :].strip(b"\0")


def is_qcow2(path: Path) -> bool:
    """Whether a file is a sound qcow2 image that needs no other."""
    checked = subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(path)], check=False)
    told = subprocess.run(["qemu-img", "info", str(path)], capture_output=True, text=True, check=True).stdout
    return checked.returncode == 0 and "file format: qcow2" in told and "backing file" not in told


def passing(world: World) -> set[str]:
    """The volumes that backups make to read, which none leaves."""
    return {name for name in volumes(world) if name.endswith(("-backup", "-earlier"))}


def toggle(world: World, resource: str, node: str, what: str) -> None:
    """Have an operator give a volume a replica on a node (`diskful/POOL`), or take it away (`diskless`)."""
    path = f"/v1/resource-definitions/{resource}/resources/{node}"
    if node not in homes(world, resource):
        post(world, f"{path}/make-available", {"diskful": False})
    post(world, f"{path}/toggle-disk/{what}", None, "PUT")
    while (homes(world, resource).get(node) == "replica") != what.startswith("diskful"):
        pass
