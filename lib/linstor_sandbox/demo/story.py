"""The story: two datastores, two images, two VMs that are written to, moved, suspended, grown, saved and deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.demo import volumes
from linstor_sandbox.demo.guests import BLOCK, Guest, compare
from linstor_sandbox.demo.images import MIB, PreparedImage
from linstor_sandbox.demo.report import Report
from linstor_sandbox.hosts.guests import Guest as VirtualGuest
from linstor_sandbox.opennebula import Cloud, Datastore, Image, VirtualMachine

NODES = ("node1", "node2", "node3")
REPLICAS = 2

SYSTEM_TEMPLATE = (
    'NAME="linstor-system" TYPE="SYSTEM_DS" STORAGE_POOL="data" AUTO_PLACE="2" CLONE_MODE="snapshot" '
    'CHECKPOINT_AUTO_PLACE="1" BRIDGE_LIST="node1 node2 node3" TM_MAD="linstor_un"'
)
IMAGES_TEMPLATE = (
    'NAME="linstor-images" TYPE="IMAGE_DS" STORAGE_POOL="data" AUTO_PLACE="2" '
    'BRIDGE_LIST="node1 node2 node3" DISK_TYPE="BLOCK" DS_MAD="linstor_un" TM_MAD="linstor_un"'
)
GREETING = "/written-by-the-guest"


class Story:
    """One demonstration; `remotes` has the entry scripts, everything that is made lies below `folder`."""

    def __init__(self, remotes: Path, folder: Path, image: PreparedImage, report: Report) -> None:
        self._remotes = remotes
        self._folder = folder
        self._prepared = image
        self._report = report

    def tell(self) -> None:
        """Start the sandbox and the stand-in oned, and go through everything."""
        pool_mib = max(20480, 8 * self._prepared.size_mib)
        pools = (Pool("data", "LVM_THIN", size_mib=pool_mib),)
        with Sandbox(self._folder / "sandbox", nodes=NODES, pools=pools) as self.sandbox:
            environment = self.sandbox.environment(LINSTOR_UN_CONF=str(self._configuration()))
            with Cloud(self._remotes, self._folder / "oned", hosts=NODES, environment=environment) as self.cloud:
                self._watch()
                self._acts()

    def _configuration(self) -> Path:
        """A linstor_un.conf with locks of its own: another demonstration has volumes of the same names."""
        locks, configuration = self._folder / "locks", self._folder / "linstor_un.conf"
        locks.mkdir()
        configuration.write_text(f'LOCK_DIR="{locks}"\n', encoding="utf-8")
        return configuration

    def _watch(self) -> None:
        scripts = self.cloud.scripts
        scripts.meters["rest"] = lambda: len(self.sandbox.requests)
        scripts.meters["ssh"] = lambda: len(self.sandbox.connections)
        scripts.observers.append(self._report.action)

    def _acts(self) -> None:
        self._report.step(f"A LINSTOR of three nodes with pool data, in a box at {self.sandbox.uri}")
        before = self.sandbox.snapshot_of_state()
        system, images = self._create_datastores()
        base, kept = self._import_images(images)
        guests = self._instantiate(base, kept, system)
        self._write(guests)
        self._migrate(guests)
        self._snapshot(guests[0])
        self._migrate_live(guests)
        self._suspend(guests[1])
        self._resize(guests[0])
        saved = self._save_as(guests[0])
        self._show_volumes()
        self._delete(guests, base, kept, saved)
        self._nothing_is_left(before)

    # --- acts -------------------------------------------------------------------------------------------------------

    def _create_datastores(self) -> tuple[Datastore, Datastore]:
        self._report.step("The two datastores")
        created = []
        for template in (SYSTEM_TEMPLATE, IMAGES_TEMPLATE):
            self._report.command(f"onedatastore create {template}")
            datastore = self.cloud.create_datastore(template)
            self.cloud.monitor(datastore)
            total, free = datastore.total_mb, datastore.free_mb
            right = 0 < free <= total
            self._report.check(f"{datastore.name}: {free} MiB free of {total} MiB", right, "no room was found")
            created.append(datastore)
        return created[0], created[1]

    def _import_images(self, images: Datastore) -> tuple[Image, Image]:
        prepared = self._prepared
        self._report.step(f"An image of {prepared.size_mib} MiB, and a persistent clone of it")
        self._report.command(f"oneimage create -d linstor-images --name base --path {prepared.path}")
        with self._report.working("importing the image"):
            base = self.cloud.create_image(images, prepared.path, "base")
        right = base.size == prepared.size_mib
        self._report.check(f"its size is {base.size} MiB", right, f"{prepared.size_mib} MiB were expected")
        self._check_image(base, prepared.reference, "it arrived byte for byte")
        self._report.command("oneimage clone base kept; oneimage persistent kept")
        with self._report.working("cloning the image"):
            kept = self.cloud.clone_image(base, "kept")
        kept.persistent = True
        self._check_image(kept, prepared.reference, "the clone has the same bytes")
        return base, kept

    def _instantiate(self, base: Image, kept: Image, system: Datastore) -> list[Guest]:
        self._report.step("Two VMs: one on a copy of the image, one on the persistent image itself")
        templates = (
            f"DISK=[IMAGE_ID={base.identifier}] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=32] DISK=[TYPE=swap,SIZE=16] "
            'CONTEXT=[NETWORK="NO",SET_HOSTNAME="copy"]',
            f'DISK=[IMAGE_ID={kept.identifier}] CONTEXT=[NETWORK="NO",SET_HOSTNAME="kept"]',
        )
        guests = []
        hosts = (NODES[0], self._hosts_with_replica(_resource(kept))[0])
        for number, (host, template) in enumerate(zip(hosts, templates)):
            self._report.command(f"onevm create and deploy on {host}: {template}")
            with self._report.working(f"instantiating VM {number}"):
                vm = self.cloud.instantiate(template, host, system)
            guests.append(Guest(self.sandbox, vm, 0, self._prepared.reference, self._folder / f"guest{number}.raw"))
        self._check_guests(guests, "reads the image's bytes from disk.0")
        return guests

    def _write(self, guests: list[Guest]) -> None:
        self._report.step("Both guests write")
        for guest in guests:
            if self._prepared.is_ext4:
                self._report.command(f"VM {guest.vm.identifier}: echo ... > {GREETING}")
                guest.write_file(GREETING, _greeting(guest.vm))
            else:
                self._report.command(f"VM {guest.vm.identifier}: random bytes at three places")
                _write_at_three_places(guest)
        self._check_guests(guests, "reads back what it wrote, and everything else is as it was")
        if self._prepared.is_ext4:
            self._check_files(guests)

    def _migrate(self, guests: list[Guest]) -> None:
        self._report.step("Cold migration")
        for guest in guests:
            before, target = guest.vm.host, self._next_host(guest)
            self._report.command(f"onevm migrate {guest.vm.identifier} {target}")
            with self._report.working(f"migrating VM {guest.vm.identifier}"):
                self.cloud.migrate_cold(guest.vm, target)
            gone = not guest.link(before).parent.exists()
            self._report.check(f"nothing of it is left on {before}", gone, f"{guest.link(before).parent} is there")
            moved = guest.link().parent / "deployment.0"
            self._report.check(f"its directory came along to {target}", moved.is_file(), f"{moved} is missing")
        self._check_guests(guests, "reads the same bytes on the new host")
        if self._prepared.is_ext4:
            self._check_files(guests)

    def _snapshot(self, guest: Guest) -> None:
        self._report.step("A snapshot of a running VM, and back to it")
        vm, disk = guest.vm, guest.vm.disk(0)
        number, events = vm.identifier, self.sandbox.domains.events
        before = len(events)
        self._report.command(f"onevm disk-snapshot-create {number} 0 before")
        snapshot = self.cloud.snapshot_create(vm, disk, "before")
        told = [event.what for event in events[before:]]
        asked = events[-1].requests - events[before].requests if len(told) == 2 else 0
        claim = "its file systems were frozen for one request of LINSTOR, and thawed"
        self._report.check(claim, told == ["freeze", "thaw"] and asked == 1, f"{told}, {asked} requests")
        kept = guest.keep()
        self._write_more(guest, "/written-after-the-snapshot")
        self._check_guests([guest], "has written something else since")
        self._report.command(f"onevm poweroff {number}; onevm disk-snapshot-revert {number} 0 0; onevm resume {number}")
        self.cloud.poweroff(vm)
        self.cloud.snapshot_revert(vm, disk, snapshot)
        guest.take(kept)
        self.cloud.resume(vm)
        self._check_guests([guest], "reads the bytes of the snapshot")
        self._report.command(f"onevm disk-snapshot-delete {number} 0 0")
        self.cloud.snapshot_delete(vm, disk, snapshot)

    def _migrate_live(self, guests: list[Guest]) -> None:
        self._report.step("Live migration")
        for guest in guests:
            before, target = guest.vm.host, self._next_host(guest)
            memory = self._inside(guest).seed
            self._report.command(f"onevm migrate --live {guest.vm.identifier} {target}")
            with self._report.working(f"migrating VM {guest.vm.identifier}"):
                self.cloud.migrate_live(guest.vm, target)
            self._check_domain(guest, memory)
            gone = not guest.link(before).parent.exists()
            self._report.check(f"nothing of it is left on {before}", gone, f"{guest.link(before).parent} is there")
            self._write_more(guest, "/written-after-the-move")
        pairs = volumes.with_two_primaries(self.sandbox.snapshot_of_state())
        self._report.check("no volume may be primary on two nodes any more", not pairs, ", ".join(pairs))
        self._check_guests(guests, "reads what it had written, and what it wrote there")

    def _suspend(self, guest: Guest) -> None:
        self._report.step("Suspend, and resume on another host")
        number, memory, target = guest.vm.identifier, self._inside(guest).seed, self._next_host(guest)
        self._report.command(f"onevm suspend {number}")
        self.cloud.suspend(guest.vm)
        checkpoint = f"one-vm-{number}-checkpoint"
        found = {volume.name: volume for volume in volumes.read(self.sandbox)}
        self._report.check(f"its memory is in {checkpoint}", checkpoint in found, "there is no such volume")
        self._report.command(f"onevm migrate {number} {target}; onevm resume {number}")
        self.cloud.migrate_cold(guest.vm, target)
        self.cloud.resume(guest.vm)
        self._check_domain(guest, memory)
        gone = checkpoint not in {volume.name for volume in volumes.read(self.sandbox)}
        self._report.check(f"{checkpoint} is gone", gone, "it is still there")
        self._check_guests([guest], "reads the same bytes there")

    def _save_as(self, guest: Guest) -> Image:
        self._report.step("The disk of a running VM, saved as an image")
        self._report.command(f"onevm disk-saveas {guest.vm.identifier} 0 saved")
        with self._report.working("saving the disk"):
            image = self.cloud.disk_saveas(guest.vm, guest.vm.disk(0), "saved")
        self._check_image(image, guest.reference, "it has the bytes of the disk")
        return image

    def _resize(self, guest: Guest) -> None:
        self._report.step("A larger disk")
        disk = guest.vm.disk(0)
        size = disk.size + 64
        self._report.command(f"onevm disk-resize {guest.vm.identifier} 0 {size}")
        self.cloud.resize_disk(guest.vm, disk, size)
        guest.grow(size)
        found = guest.size()
        right = found >= size * MIB
        self._report.check(f"the device on {guest.vm.host} has {found // MIB} MiB", right, f"{size} MiB were asked")
        self._check_guests([guest], "reads the same bytes, and zeroes where it is new")

    def _show_volumes(self) -> None:
        shown = volumes.read(self.sandbox)
        columns = ("volume", "size", "allocated", *NODES)
        self._report.table(
            "Volumes and where they are (* = in use by a VM)", columns, [volume.row(NODES) for volume in shown]
        )
        self.sandbox.run_balance()
        for volume in volumes.read(self.sandbox):
            right = volume.replicas == REPLICAS
            claim = f"{volume.name} has {REPLICAS} replicas, also after LINSTOR's balancing"
            self._report.check(claim, right, f"it has {volume.replicas}")

    def _delete(self, guests: list[Guest], base: Image, kept: Image, saved: Image) -> None:
        self._report.step("Everything is deleted again")
        for guest in guests:
            self._report.command(f"onevm terminate {guest.vm.identifier}")
            with self._report.working(f"terminating VM {guest.vm.identifier}"):
                self.cloud.terminate(guest.vm)
        self._only_images_are_left(base, kept, saved)
        self._check_image(kept, guests[1].reference, "the persistent image has what its guest wrote")
        self._check_image(base, self._prepared.reference, "the other image is as it was imported")
        self._check_image(saved, guests[0].reference, "the saved image lives on without the VM")
        for image in (base, kept, saved):
            self._report.command(f"oneimage delete {image.name}")
            self.cloud.delete_image(image)

    def _only_images_are_left(self, *images: Image) -> None:
        found = {volume.name: volume for volume in volumes.read(self.sandbox)}
        expected = {_resource(image) for image in images}
        self._report.check("only the images' volumes are left", set(found) == expected, ", ".join(found))
        for name in sorted(expected & set(found)):
            places = ", ".join(f"{place} on {node}" for node, place in found[name].places.items())
            right = not found[name].attached
            self._report.check(f"{name} is attached nowhere", right, places)

    def _nothing_is_left(self, before: Mapping[str, Any]) -> None:
        after = self.sandbox.snapshot_of_state()
        groups = sorted(set(after["resource_groups"]) - set(before["resource_groups"]))
        self._report.note(f"the datastores keep their resource groups ({', '.join(groups)}) and directories")
        few = len(groups) <= len(self.cloud.datastores)
        self._report.check("no more groups than datastores", few, f"there are {len(groups)}")
        left = volumes.differences(volumes.of_images_and_vms(before), volumes.of_images_and_vms(after))
        self._report.check("LINSTOR and the hosts are as they were at the start", not left, "; ".join(left[:5]))
        self._check_capacity()
        faults = self.sandbox.exceptions
        self._report.check("the sandbox itself had no fault", not faults, "".join(faults[:1]))

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check_guests(self, guests: list[Guest], claim: str) -> None:
        for guest in guests:
            with self._report.working(f"reading disk.0 of VM {guest.vm.identifier}"):
                told = guest.difference()
            self._report.check(f"VM {guest.vm.identifier} on {guest.vm.host} {claim}", not told, told)

    def _write_more(self, guest: Guest, name: str) -> None:
        if self._prepared.is_ext4:
            guest.write_file(name, os.urandom(3 * BLOCK))
        else:
            _write_at_three_places(guest)

    def _inside(self, guest: Guest) -> VirtualGuest:
        return self.sandbox.guest(f"one-{guest.vm.identifier}")

    def _check_domain(self, guest: Guest, memory: bytes) -> None:
        """The VM runs where oned believes it to be, with the memory that it had."""
        name = f"{guest.vm.host}/one-{guest.vm.identifier}"
        running = self.sandbox.snapshot_of_state()["domains"]
        inside = self._inside(guest)
        right = name in running and inside.state == "running" and inside.seed == memory
        claim = f"VM {guest.vm.identifier} runs on {guest.vm.host}, with the memory that it had"
        self._report.check(claim, right, f"{', '.join(running)} run; it is {inside.state}")

    def _check_files(self, guests: list[Guest]) -> None:
        for guest in guests:
            found, expected = guest.read_file(GREETING), _greeting(guest.vm)
            claim = f"VM {guest.vm.identifier} finds its file {GREETING}"
            self._report.check(claim, found == expected, f"it has {found[:60]!r}")
            faults = guest.file_system_faults()
            self._report.check(f"VM {guest.vm.identifier}: e2fsck finds the file system clean", not faults, faults)

    def _check_image(self, image: Image, reference: Path, claim: str) -> None:
        resource = _resource(image)
        with self._report.working(f"reading {resource}"):
            told = compare(self._blocks(resource), reference)
        self._report.check(f"{resource}: {claim}", not told, told)

    def _hosts_with_replica(self, resource: str) -> list[str]:
        (volume,) = (volume for volume in volumes.read(self.sandbox) if volume.name == resource)
        return [node for node in NODES if volume.places.get(node, "").startswith("replica")]

    def _next_host(self, guest: Guest) -> str:
        """Another host, and if there is one, without a replica: there it has to be attached over the network."""
        with_replica = self._hosts_with_replica(guest.device().split("/")[-2])
        others = [node for node in NODES if node != guest.vm.host]
        return min(others, key=lambda node: node in with_replica)

    def _blocks(self, resource: str) -> Iterator[bytes]:
        offset = 0
        while block := self.sandbox.read(resource, offset, 4 * MIB):
            yield block
            offset += len(block)

    def _check_capacity(self) -> None:
        for datastore in self.cloud.datastores:
            before = datastore.free_mb
            self.cloud.monitor(datastore)
            claim = f"{datastore.name}: all of its {datastore.total_mb} MiB are free again"
            self._report.check(claim, datastore.used_mb == 0, f"{datastore.used_mb} MiB are used, {before} were free")


def _resource(image: Image) -> str:
    """The resource that SOURCE names: /dev/drbd/by-res/RESOURCE/0."""
    return image.source.split("/")[-2]


def _greeting(vm: VirtualMachine) -> bytes:
    return f"VM {vm.identifier} wrote this.\n".encode() * 5000


def _write_at_three_places(guest: Guest) -> None:
    size = guest.reference.stat().st_size
    for part in (1, 2, 3):
        guest.write(part * (size - 4 * BLOCK) // 3 // BLOCK * BLOCK, os.urandom(2 * BLOCK))
