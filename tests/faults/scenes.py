"""The scenes: for every verb, and what makes it go another way, how a cloud comes to call it.

A scene is a generator: it yields once, before oned makes the call that the scene is named after, and yields what undoes
the verb in OpenNebula, where there is such a thing.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import VirtualMachine
from linstor_sandbox.opennebula.images import Image
from linstor_sandbox.opennebula.scripts import Call, launch
from tests.conftest import CHECKOUT, SYSTEM_TEMPLATE, World
from tests.faults.source import Source
from tests.linstor_un.hosts.hosts_in_a_box import replace_tool
from tests.linstor_un.living import write
from tests.linstor_un.mixed import mixed
from tests.linstor_un.scenes import add_image, content, volume

Counterpart = Optional[Callable[[World, Call], object]]
Play = Callable[..., Iterator[Counterpart]]


@dataclass(frozen=True)
class Scene:
    """How it comes to one call of `verb`, such as tm/clone; of its form for directories where that is meant.

    Where the image `is_fetched` it is played with the Source that has it.
    """

    name: str
    play: Play
    directory: bool = False
    is_fetched: bool = False
    with_backups: bool = False
    world: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verb(self) -> str:
        """Kind and name of the script."""
        return "/".join(self.name.split("/")[:2])


SCENES: dict[str, Scene] = {}
# Replicas on node1 and node2 alone: node3 is a host without one.
TWO_HOLDERS: Mapping[str, Any] = {"pools": (Pool("data", "LVM_THIN", 20480, ("node1", "node2")),)}
# And a VM that moves from node1 to node2 is attached on neither.
ONE_HOLDER: Mapping[str, Any] = {"pools": (Pool("data", "LVM_THIN", 20480, ("node3",)),)}
SINGLE = SYSTEM_TEMPLATE.replace("linstor-system", "single").replace('AUTO_PLACE="2"', 'AUTO_PLACE="1"')
OTHER = SYSTEM_TEMPLATE.replace("linstor-system", "other")
CLONED = "DISK=[IMAGE_ID=0]"
# As curl, it gives up nothing by itself that has begun.
DOWNLOADER = """#!/bin/sh
exec python3 -c 'import shutil, sys, urllib.request as web
answer = web.urlopen(sys.argv[1].replace("s3:", "http:"))
shutil.copyfileobj(answer, sys.stdout.buffer)
sys.exit("transfer closed with %d bytes remaining" % answer.length if answer.length else 0)' "$2"
"""
VOLATILE = "DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=8]"


def scene(
    name: str, directory: bool = False, is_fetched: bool = False, with_backups: bool = False, **world: Any
) -> Callable[[Play], Play]:
    """Remember the function below as a scene; `world` are arguments of build_world."""

    def remember(play: Play) -> Play:
        SCENES[name] = Scene(name, play, directory, is_fetched, with_backups, world)
        return play

    return remember


# --- what undoes what -------------------------------------------------------------------------------------------------


def delete_vm(world: World, _made: Call) -> None:
    """`onevm recover --delete` of the newest VM."""
    world.cloud.recover_delete(world.cloud.machines[-1])


def delete_image(world: World, _made: Call) -> None:
    """`oneimage delete` of the newest image, as if oned had got its SOURCE."""
    image = world.cloud.images[-1]
    image.source = f"/dev/drbd/by-res/{volume(image)}/0"
    world.cloud._image_call(image, world.cloud.datastore(image.datastore_id), "rm")


def fail_migration(world: World, made: Call) -> None:
    """What oned does after a premigrate that failed."""
    world.cloud.scripts.migration("linstor_un", "failmigrate", made.argv, made.stdin)


def delete_snapshot(world: World, made: Call) -> None:
    """`onevm disk-snapshot-delete` of what the call was to take."""
    world.cloud.scripts.transfer_line(" ".join(["SNAP_DELETE", "linstor_un", *made.argv]))


def fail_backup(world: World, made: Call) -> None:
    """What oned does after a prebackup that failed."""
    failed = made.stdin.replace("</VM>", "<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>")
    world.cloud.scripts.migration("linstor_un", made.verb.replace("pre", "post"), made.argv, failed)


# --- what scenes have in common ---------------------------------------------------------------------------------------


def start(world: World, template: str = CLONED, host: str = "node1") -> VirtualMachine:
    """A VM that runs."""
    return world.cloud.instantiate(template, host, world.system)


def start_off(world: World, template: str = CLONED, host: str = "node1") -> VirtualMachine:
    """A VM in POWEROFF."""
    vm = start(world, template, host)
    world.cloud.poweroff(vm)
    return vm


def image_with_snapshots(world: World) -> Image:
    """A persistent image with snapshots 0 and 1, in nobody's use, and younger content."""
    image = add_image(world, persistent=True)
    vm = start(world)
    for text in ("state 0", "state 1"):
        write(world, vm, 0, text)
        world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "now")
    world.cloud.terminate(vm)
    return image


def back_up(world: World, vm: VirtualMachine, mode: Optional[str] = None) -> Image:
    """`onevm backup`."""
    datastore, _ = world.install_backups()
    return world.cloud.backup(vm, datastore, mode)


def with_group(world: World) -> None:
    """Have the resource group that the first volume of the datastores makes."""
    world.cloud.delete_image(world.cloud.create_datablock(world.images, 4))


def with_downloader(world: World) -> None:
    """An installation in which OpenNebula's downloader.sh fetches images."""
    remotes = world.folder.parent / "remotes"
    for kind in ("datastore", "tm"):
        shutil.copytree(CHECKOUT / kind, remotes / kind)
    (remotes / "lib").symlink_to(CHECKOUT / "lib")
    downloader = remotes / "datastore" / "downloader.sh"
    downloader.write_text(DOWNLOADER)
    downloader.chmod(0o755)
    world.cloud.scripts.remotes = remotes
    # A fork's library lies in the checkout, where there is no such file.
    world.cloud.scripts.launch = launch


# --- images -----------------------------------------------------------------------------------------------------------


@scene("datastore/stat/raw")
def stat(world: World) -> Iterator[Counterpart]:
    path = world.file("disk.raw", content(1))
    yield None
    world.cloud.stat(world.images, path)


@scene("datastore/stat/packed")
def stat_packed(world: World) -> Iterator[Counterpart]:
    path = world.file("disk.gz", gzip.compress(content(1)))
    yield None
    world.cloud.stat(world.images, path)


@scene("datastore/stat/http", is_fetched=True)
def stat_http(world: World, source: Source) -> Iterator[Counterpart]:
    url = source.offer("disk.gz", gzip.compress(content(1)))
    yield None
    world.cloud.stat(world.images, url)


@scene("datastore/stat/downloader", is_fetched=True)
def stat_downloader(world: World, source: Source) -> Iterator[Counterpart]:
    with_downloader(world)
    url = source.offer("disk.raw", content(1)).replace("http:", "s3:")
    yield None
    world.cloud.stat(world.images, url)


@scene("datastore/monitor")
def datastore_monitor(world: World) -> Iterator[Counterpart]:
    add_image(world)
    yield None
    world.cloud.monitor(world.images)


@scene("datastore/cp/raw")
def cp_raw(world: World) -> Iterator[Counterpart]:
    path = world.file("disk.raw", content(1))
    yield delete_image
    world.cloud.create_image(world.images, path)


@scene("datastore/cp/qcow2", **TWO_HOLDERS)
def cp_qcow2(world: World) -> Iterator[Counterpart]:
    with_group(world)
    raw, image = world.file("disk.raw", content(1)), world.folder / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    yield delete_image
    world.cloud.create_image(world.images, str(image))


@scene("datastore/cp/thick", pools=(Pool("data", "LVM", 20480),))
def cp_thick(world: World) -> Iterator[Counterpart]:
    path = world.file("disk.gz", gzip.compress(content(1)))
    yield delete_image
    world.cloud.create_image(world.images, path)


@scene("datastore/cp/http", is_fetched=True)
def cp_http(world: World, source: Source) -> Iterator[Counterpart]:
    with_group(world)
    url = source.offer("disk.raw", content(1))
    yield delete_image
    world.cloud.create_image(world.images, url)


@scene("datastore/cp/http-packed", is_fetched=True, **TWO_HOLDERS)
def cp_http_packed(world: World, source: Source) -> Iterator[Counterpart]:
    with_group(world)
    url = source.offer("disk.gz", gzip.compress(content(1)))
    yield delete_image
    world.cloud.create_image(world.images, url)


@scene("datastore/cp/downloader", is_fetched=True)
def cp_downloader(world: World, source: Source) -> Iterator[Counterpart]:
    with_group(world)
    with_downloader(world)
    url = source.offer("disk.gz", gzip.compress(content(1)))
    yield delete_image
    world.cloud.create_image(world.images, url)


@scene("datastore/mkfs/plain")
def mkfs_plain(world: World) -> Iterator[Counterpart]:
    yield delete_image
    world.cloud.create_datablock(world.images, 4)


@scene("datastore/mkfs/ext4")
def mkfs_ext4(world: World) -> Iterator[Counterpart]:
    with_group(world)
    yield delete_image
    world.cloud.create_datablock(world.images, 4, "ext4")


@scene("datastore/clone/copy")
def clone_image(world: World) -> Iterator[Counterpart]:
    original = add_image(world)
    yield delete_image
    world.cloud.clone_image(original)


@scene("datastore/clone/snapshot", configuration='CLONE_MODE="snapshot"\n')
def clone_image_snapshot(world: World) -> Iterator[Counterpart]:
    original = add_image(world)
    yield delete_image
    world.cloud.clone_image(original)


@scene("datastore/rm/plain")
def rm(world: World) -> Iterator[Counterpart]:
    image = add_image(world)
    yield None
    world.cloud.delete_image(image)


@scene("datastore/rm/base")
def rm_with_base(world: World) -> Iterator[Counterpart]:
    image = add_image(world)
    world.cloud.terminate(start(world))
    yield None
    world.cloud.delete_image(image)


@scene("datastore/snap_delete")
def image_snap_delete(world: World) -> Iterator[Counterpart]:
    image = image_with_snapshots(world)
    yield None
    world.cloud.image_snapshot_delete(image, 0)


@scene("datastore/snap_revert")
def image_snap_revert(world: World) -> Iterator[Counterpart]:
    image = image_with_snapshots(world)
    yield None
    world.cloud.image_snapshot_revert(image, 0)


@scene("datastore/snap_flatten")
def image_snap_flatten(world: World) -> Iterator[Counterpart]:
    image = image_with_snapshots(world)
    yield None
    world.cloud.image_snapshot_flatten(image, 0)


@scene("datastore/export/idle")
def export_idle(world: World) -> Iterator[Counterpart]:
    image = add_image(world)
    yield None
    world.cloud.export_image(image)


@scene("datastore/export/used")
def export_used(world: World) -> Iterator[Counterpart]:
    image = add_image(world, persistent=True)
    start(world)
    yield None
    world.cloud.export_image(image)


# --- making a VM's disks ----------------------------------------------------------------------------------------------


@scene("tm/clone/first")
def clone_first(world: World) -> Iterator[Counterpart]:
    add_image(world)
    yield delete_vm
    start(world)


@scene("tm/clone/later-larger", **TWO_HOLDERS)
def clone_larger(world: World) -> Iterator[Counterpart]:
    add_image(world)
    world.cloud.terminate(start(world))
    yield delete_vm
    start(world, "DISK=[IMAGE_ID=0,SIZE=8]", "node3")


@scene("tm/clone/copy", **TWO_HOLDERS)
def clone_copy(world: World) -> Iterator[Counterpart]:
    add_image(world)
    copying = world.cloud.create_datastore(OTHER.replace('"snapshot"', '"copy"'))
    yield delete_vm
    world.cloud.instantiate(CLONED, "node3", copying)


@scene("tm/clone/fewer-replicas")
def clone_single(world: World) -> Iterator[Counterpart]:
    add_image(world)
    single = world.cloud.create_datastore(SINGLE)
    yield delete_vm
    world.cloud.instantiate(CLONED, "node3", single)


@scene("tm/ln/persistent", **TWO_HOLDERS)
def ln_persistent(world: World) -> Iterator[Counterpart]:
    add_image(world, persistent=True)
    yield delete_vm
    start(world, host="node3")


@scene("tm/ln/cdrom")
def ln_cdrom(world: World) -> Iterator[Counterpart]:
    add_image(world, type="CDROM")
    yield delete_vm
    start(world)


@scene("tm/mkimage", **TWO_HOLDERS)
def mkimage(world: World) -> Iterator[Counterpart]:
    with_group(world)
    yield delete_vm
    start(world, VOLATILE, "node3")


@scene("tm/mkswap", pools=(Pool("data", "LVM", 20480),))
def mkswap(world: World) -> Iterator[Counterpart]:
    yield delete_vm
    start(world, "DISK=[TYPE=swap,SIZE=4]")


@scene("tm/context")
def context(world: World) -> Iterator[Counterpart]:
    yield delete_vm
    start(world, 'CONTEXT=[NETWORK="YES"]')


# --- moving -----------------------------------------------------------------------------------------------------------


@scene("tm/mv/disk", **TWO_HOLDERS)
def mv_disk(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm, other = start_off(world), world.cloud.create_datastore(OTHER)
    yield delete_vm
    world.cloud.migrate_cold(vm, "node3", other)


@scene("tm/mv/directory", directory=True, **TWO_HOLDERS)
def mv_directory(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world, f'{CLONED} CONTEXT=[NETWORK="YES"]', "node3")
    yield delete_vm
    world.cloud.migrate_cold(vm, "node1")


@scene("tm/mv/park", directory=True, **TWO_HOLDERS)
def mv_park(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, f'{CLONED} CONTEXT=[NETWORK="YES"]', "node3")
    yield delete_vm
    world.cloud.undeploy(vm)


@scene("tm/mv/return-disk", **TWO_HOLDERS)
def mv_return_disk(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    world.cloud.undeploy(vm)
    yield delete_vm
    world.cloud.deploy(vm, "node3", world.system)


@scene("tm/mv/return-directory", directory=True)
def mv_return_directory(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, f'{CLONED} CONTEXT=[NETWORK="YES"]')
    world.cloud.undeploy(vm)
    yield delete_vm
    world.cloud.deploy(vm, "node3", world.system)


# --- in system datastores of another driver ---------------------------------------------------------------------------


@scene("tm/clone.ssh", **TWO_HOLDERS)
def clone_mixed(world: World) -> Iterator[Counterpart]:
    system = mixed(world)
    add_image(world)
    yield delete_vm
    world.cloud.instantiate(CLONED, "node3", system)


@scene("tm/ln.ssh", **TWO_HOLDERS)
def ln_mixed(world: World) -> Iterator[Counterpart]:
    system = mixed(world)
    add_image(world, persistent=True)
    yield None
    world.cloud.instantiate(CLONED, "node3", system)


@scene("tm/mv.ssh/move", nodes=("node1", "node2", "node3", "node4"), **TWO_HOLDERS)
def mv_mixed(world: World) -> Iterator[Counterpart]:
    system = mixed(world)
    add_image(world, persistent=True)
    vm = world.cloud.instantiate(CLONED, "node3", system)
    world.cloud.poweroff(vm)
    yield None
    world.cloud.migrate_cold(vm, "node4")


@scene("tm/mv.ssh/park", **TWO_HOLDERS)
def park_mixed(world: World) -> Iterator[Counterpart]:
    system = mixed(world)
    add_image(world)
    vm = world.cloud.instantiate(CLONED, "node3", system)
    yield None
    world.cloud.undeploy(vm)


# --- moving while it runs ---------------------------------------------------------------------------------------------


@scene("tm/premigrate/replicas")
def premigrate(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, f'{CLONED} CONTEXT=[NETWORK="YES"]')
    yield fail_migration
    world.cloud.migrate_live(vm, "node2")


@scene("tm/premigrate/diskless", **ONE_HOLDER)
def premigrate_diskless(world: World) -> Iterator[Counterpart]:
    vm = world.cloud.instantiate(VOLATILE, "node1", world.cloud.create_datastore(SINGLE))
    yield fail_migration
    world.cloud.migrate_live(vm, "node2")


@scene("tm/premigrate/managed", rest_version="1.29.1", **TWO_HOLDERS)
def premigrate_managed(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    yield fail_migration
    world.cloud.migrate_live(vm, "node3")


@scene("tm/postmigrate/replicas", **TWO_HOLDERS)
def postmigrate(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, f'{CLONED} CONTEXT=[NETWORK="YES"]', "node3")
    yield None
    world.cloud.migrate_live(vm, "node2")


@scene("tm/postmigrate/diskless", **ONE_HOLDER)
def postmigrate_diskless(world: World) -> Iterator[Counterpart]:
    vm = world.cloud.instantiate(VOLATILE, "node1", world.cloud.create_datastore(SINGLE))
    yield None
    world.cloud.migrate_live(vm, "node2")


@scene("tm/failmigrate", **TWO_HOLDERS)
def failmigrate(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    world.sandbox.fail_virsh("migrate", "prepare")
    yield None
    world.cloud.migrate_live(vm, "node3")


# --- snapshots, sizes, copies -----------------------------------------------------------------------------------------


@scene("tm/snap_create")
def snap_create(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world)
    yield delete_snapshot
    world.cloud.snapshot_create(vm, vm.disk(0))


@scene("tm/snap_create_live")
def snap_create_live(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    yield delete_snapshot
    world.cloud.snapshot_create(vm, vm.disk(0))


@scene("tm/snap_delete")
def snap_delete(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    yield None
    world.cloud.snapshot_delete(vm, vm.disk(0), snapshot)


@scene("tm/snap_revert", **TWO_HOLDERS)
def snap_revert(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, host="node3")
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    write(world, vm, 0, "younger")
    world.cloud.poweroff(vm)
    yield delete_vm
    world.cloud.snapshot_revert(vm, vm.disk(0), snapshot)


@scene("tm/resize/running")
def resize_running(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    yield delete_vm
    world.cloud.resize_disk(vm, vm.disk(0), 8)


@scene("tm/resize/off")
def resize_off(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world)
    yield delete_vm
    world.cloud.resize_disk(vm, vm.disk(0), 8)


@scene("tm/cpds/running-copied")
@scene("tm/cpds/running", configuration='CLONE_MODE="snapshot"\n')
def cpds_running(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    yield delete_image
    world.cloud.disk_saveas(vm, vm.disk(0), "saved")


@scene("tm/cpds/off")
def cpds_off(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world)
    yield delete_image
    world.cloud.disk_saveas(vm, vm.disk(0), "saved")


@scene("tm/cpds/snapshot", configuration='CLONE_MODE="snapshot"\n')
def cpds_snapshot(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world)
    snapshot = world.cloud.snapshot_create(vm, vm.disk(0))
    yield delete_image
    world.cloud.disk_saveas(vm, vm.disk(0), "saved", snapshot.identifier)


# --- ending -----------------------------------------------------------------------------------------------------------


@scene("tm/mvds", **TWO_HOLDERS)
def mvds(world: World) -> Iterator[Counterpart]:
    add_image(world, persistent=True)
    vm = start(world, host="node3")
    yield None
    world.cloud.terminate(vm)


@scene("tm/delete/own", **TWO_HOLDERS)
def delete_own(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, host="node3")
    yield None
    world.cloud.terminate(vm)


@scene("tm/delete/image", **TWO_HOLDERS)
def delete_persistent(world: World) -> Iterator[Counterpart]:
    add_image(world, persistent=True)
    vm = start(world, host="node3")
    yield None
    world.cloud.recover_delete(vm)


@scene("tm/delete/directory", directory=True)
def delete_directory(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, f'{CLONED} CONTEXT=[NETWORK="YES"]')
    world.cloud.hypervisor.end(vm)
    vm.disks.clear()
    yield None
    world.cloud.terminate(vm)


@scene("tm/monitor")
def system_monitor(world: World) -> Iterator[Counterpart]:
    add_image(world)
    yield None
    world.cloud.monitor(world.system)


# --- backups ----------------------------------------------------------------------------------------------------------


@scene("tm/prebackup_live/full", with_backups=True)
def full_backup(world: World) -> Iterator[Counterpart]:
    add_image(world)
    add_image(world, 2, persistent=True)
    vm = start(world, f"{CLONED} DISK=[IMAGE_ID=1]")
    world.cloud.configure_backup(vm, mode="FULL", fs_freeze="AGENT")
    yield fail_backup
    back_up(world, vm)


@scene("tm/prebackup_live/increment", with_backups=True, **TWO_HOLDERS)
def increment(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, host="node3")
    back_up(world, vm, "INCREMENT")
    write(world, vm, 0, "since then")
    yield fail_backup
    back_up(world, vm)


@scene("tm/prebackup/first", with_backups=True, **TWO_HOLDERS)
def first_backup(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world, host="node3")
    yield delete_vm
    back_up(world, vm, "INCREMENT")


@scene("tm/prebackup/compared", with_backups=True, configuration='BACKUP_COMPARE="yes"\n', **TWO_HOLDERS)
def compared_backup(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    back_up(world, vm, "INCREMENT")
    write(world, vm, 0, "since then")
    world.cloud.poweroff(vm)
    for node in ("node1", "node2"):
        # Which the driver does not believe.
        replace_tool(world.sandbox, node, "thin_delta", "echo 1.0.4")
    yield delete_vm
    back_up(world, vm)


@scene("tm/postbackup_live", with_backups=True)
def postbackup_live(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world)
    back_up(world, vm, "INCREMENT")
    yield None
    back_up(world, vm)


@scene("tm/postbackup/failed", with_backups=True)
def postbackup_failed(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start_off(world)
    back_up(world, vm, "INCREMENT")
    _, server = world.install_backups()
    server.fail("backup")
    yield None
    back_up(world, vm)


@scene("tm/restore", with_backups=True, **TWO_HOLDERS)
def restore_disks(world: World) -> Iterator[Counterpart]:
    add_image(world)
    add_image(world, 2, persistent=True)
    vm = start(world, f"{CLONED} DISK=[IMAGE_ID=1]", "node3")
    backup = back_up(world, vm, "FULL")
    write(world, vm, 0, "since then")
    write(world, vm, 1, "since then")
    world.cloud.poweroff(vm)
    yield None
    world.cloud.restore_in_place(vm, backup)


# --- memory -----------------------------------------------------------------------------------------------------------


@scene("vmm/save_linstor_un", **TWO_HOLDERS)
def save(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, host="node3")
    yield delete_vm
    world.cloud.suspend(vm)


@scene("vmm/restore_linstor_un", **TWO_HOLDERS)
def restore(world: World) -> Iterator[Counterpart]:
    add_image(world)
    vm = start(world, host="node3")
    world.cloud.suspend(vm)
    yield delete_vm
    world.cloud.resume(vm)
