"""Every action: CPU, wall time, memory, LINSTOR requests, ssh connections, bytes."""

from __future__ import annotations

import gzip
import random
import subprocess
from contextlib import suppress
from unittest.mock import patch

from bench import budgets
from bench.figures import Row
from bench.scripts import rows
from bench.setting import Part, Setting, Table
from bench.world import World
from linstor_sandbox.opennebula import HypervisorFailed, VirtualMachine
from linstor_sandbox.opennebula.images import Image

MIB = 1 << 20
_IMAGE_MIB = 4
_TWO_DISKS = "DISK=[IMAGE_ID={clone}] DISK=[IMAGE_ID={persistent}]"
_DISKS = f'{_TWO_DISKS} DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]'
# What rows are named after, the number of the host (2 has no replica), and the disk.
_ONE_DISK = (
    ("first of an image", 0, "IMAGE_ID={clone}"),
    ("later", 0, "IMAGE_ID={clone}"),
    ("without a replica", 2, "IMAGE_ID={clone}"),
    ("larger", 0, "IMAGE_ID={clone},SIZE=16"),
    ("of a CDROM", 0, "IMAGE_ID={cdrom}"),
    ("plain", 0, "TYPE=fs,FORMAT=raw,SIZE=4"),
    ("ext4", 0, "TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16"),
)


def measure(setting: Setting) -> list[Row]:
    """Go through the life of images and VMs so many times, and once before for what is imported."""
    with setting.world("actions") as world:
        for run in range(setting.runs + 1):
            setting.tell(f"actions: run {run} of {setting.runs}" if run else "actions: first run, for what is imported")
            world.scripts.importing, world.scripts.referring = run == 0, run > 0
            Life(world).live()
        return rows(world.scripts.samples)


def tables(measured: list[Row]) -> list[Table]:
    """What it takes, and where the time goes."""
    costs = ("ssh", "oned", "cpu_ms", "cpu_ratio", "children_cpu_ms", "memory_mib")
    columns = ["action", "LINSTOR", "of", "ssh", "oned", "CPU ms", "× reference", "children's CPU ms", "memory MiB"]
    taken = [[row.name, row.shown("requests"), _allowed(row), *map(row.shown, costs)] for row in measured]
    beside = [[name, str(allowed.minimal), str(allowed.besides), allowed.why] for name, allowed in _beside(measured)]
    notes = [
        "LINSTOR: requests, of the minimal sequence, what the driver asks besides (see below) and one to find the "
        "controller.",
        "× the CPU of `python3 -c 'import lxml.etree, linstor'`, which runs before each.",
    ]
    times = ("wall_ms", "linstor_ms", "ssh_ms", "own_ms", "idle_ms", "sent_bytes", "received_bytes")
    waits = ["action", "wall ms", "LINSTOR ms", "ssh ms", "the rest ms", "of that idle ms", "bytes to", "bytes from"]
    return [
        Table("Actions: what they take", columns, taken, notes),
        Table("Actions: what they ask besides", ["action", "minimal", "besides", "what for"], beside),
        Table("Actions: where their time goes", waits, [[row.name, *map(row.shown, times)] for row in measured]),
        Table(
            "Actions: what they ask of LINSTOR", ["action", "requests"], [[row.name, _asked(row)] for row in measured]
        ),
    ]


def _allowed(row: Row) -> str:
    allowed = budgets.requests(row.name)
    return "-" if allowed is None else str(allowed)


def _beside(measured: list[Row]) -> list[tuple[str, budgets.Allowed]]:
    named = {row.name for row in measured}
    return [(name, allowed) for name, allowed in budgets.REQUESTS.items() if allowed.besides and name in named]


def _asked(row: Row) -> str:
    lines = [(line.replace(" /v1/", " "), count) for line, count in row.requests.items()]
    return "; ".join(f"{count:g} × {line}" if count != 1 else line for line, count in lines) or "-"


class Life:
    """Some images and VMs from their beginning to their end; what needs a running guest, in a sandbox alone."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cloud = world.cloud
        self.named = world.scripts.named

    def live(self) -> None:
        """Do everything once and leave nothing."""
        self.clone, self.persistent, self.cdrom = self.make_images()
        self.use_disk_by_disk()
        self.back_up()
        vm = self.world.instantiate(self.numbered(_DISKS))
        self.use_disks(vm)
        self.move(vm)
        self.cloud.terminate(vm)
        self.use_images()
        with self.named("that VMs were cloned from"):
            self.cloud.delete_image(self.clone)
        for image in list(self.cloud.images):
            self.cloud.delete_image(image)
        self.cloud.monitor(self.world.system)

    def make_images(self) -> tuple[Image, Image, Image]:
        """A raw image, one that is persistent, a CDROM; besides one of each way to make an image."""
        raw = self.world.files / "raw"
        raw.write_bytes(random.Random(0).randbytes(_IMAGE_MIB * MIB))
        (self.world.files / "raw.gz").write_bytes(gzip.compress(raw.read_bytes(), 1))
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(raw), f"{raw}.qcow2"], check=True)
        create, images = self.cloud.create_image, self.world.images
        with self.named("raw"):
            found = create(images, str(raw)), create(images, str(raw), persistent=True)
            cdrom = create(images, str(raw), type="CDROM")
        with self.named("gzip"):
            create(images, f"{raw}.gz")
        with self.named("qcow2"):
            create(images, f"{raw}.qcow2")
        self.cloud.create_datablock(images, _IMAGE_MIB)
        with self.named("ext4"):
            self.cloud.create_datablock(images, 16, "ext4")
        self.cloud.clone_image(found[0])
        return (*found, cdrom)

    def use_disk_by_disk(self) -> None:
        """Each kind of disk in a VM of its own."""
        started = []
        for name, host, disk in _ONE_DISK:
            with self.named(name):
                started.append((name, self.world.instantiate(f"DISK=[{self.numbered(disk)}]", host)))
        with self.named("by copy"):
            copied = self.world.instantiate(self.numbered("DISK=[IMAGE_ID={clone}]"), datastore=self.world.copies)
        for name, vm in [*started, ("", copied)]:
            with self.named(name if "CDROM" in name else ""):
                self.cloud.terminate(vm)

    def numbered(self, template: str) -> str:
        """A template with the images' ids."""
        return template.format(**{name: getattr(self, name).identifier for name in ("clone", "persistent", "cdrom")})

    def back_up(self) -> None:
        """Two disks of a VM of its own: full, as increments, and brought back."""
        if not self.world.cluster.is_sandbox:
            return
        vm, datastore = self.world.instantiate(self.numbered(_TWO_DISKS)), self.world.backups
        with self.named("full"):
            self.cloud.backup(vm, datastore, "FULL", fs_freeze="AGENT")
        with self.named("first increment"):
            self.cloud.backup(vm, datastore, "INCREMENT")
        with self.named("next increment"):
            self.cloud.backup(vm, datastore)
        self.cloud.poweroff(vm)
        with self.named("next increment"):
            kept = self.cloud.backup(vm, datastore)
        self.cloud.restore_in_place(vm, kept)
        with self.named("with kept increments"):
            self.cloud.terminate(vm)

    def use_disks(self, vm: VirtualMachine) -> None:
        """Snapshots, growing, and saving as."""
        disk = vm.disk(0)
        if self.world.cluster.is_sandbox:
            self.cloud.snapshot_create(vm, vm.disk(1))
        with self.named("running"):
            self.cloud.resize_disk(vm, vm.disk(2), 16)
        self.cloud.poweroff(vm)
        with self.named("off"):
            self.cloud.resize_disk(vm, vm.disk(2), 32)
        for each in (disk, vm.disk(1)):
            self.cloud.snapshot_create(vm, each)
        with self.named("for a disk that is saved"):
            self.cloud.disk_saveas(vm, disk, "saved")
        known = vm.snapshots_of(disk)
        self.cloud.snapshot_revert(vm, disk, known.all[-1])
        self.cloud.snapshot_delete(vm, disk, known.all[-1])
        self.cloud.resume(vm)

    def move(self, vm: VirtualMachine) -> None:
        """To a host without replicas and back, live and not; away to the front-end and back; to sleep and awake."""
        nodes = self.world.cluster.nodes
        self.cloud.migrate_live(vm, nodes[2])
        refused = patch.object(self.cloud.hypervisor, "migrate", side_effect=HypervisorFailed("refused"))
        with refused, suppress(HypervisorFailed):
            self.cloud.migrate_live(vm, nodes[1])
        with self.named("to a host with replicas"):
            self.cloud.migrate_cold(vm, nodes[1])
        with self.named("to a host without"):
            self.cloud.migrate_cold(vm, nodes[2])
        if not self.world.cluster.is_sandbox:
            return
        with self.named("parked"):
            self.cloud.undeploy(vm)
        with self.named("brought back"):
            self.cloud.deploy(vm, nodes[0], self.world.system)
        self.cloud.suspend(vm)
        self.cloud.resume(vm)

    def use_images(self) -> None:
        """What is left to be done with images: their snapshots, and a marketplace."""
        snapshots = self.persistent.snapshots
        if len(snapshots.all) > 1:
            self.cloud.image_snapshot_delete(self.persistent, snapshots.all[-1].identifier)
        self.cloud.image_snapshot_revert(self.persistent, snapshots.all[0].identifier)
        self.cloud.image_snapshot_flatten(self.persistent, snapshots.all[0].identifier)
        self.world.export(self.clone)


PART = Part("actions", "every action: CPU, time, memory, requests, ssh connections, bytes", measure, tables)
