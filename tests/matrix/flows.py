"""What users do, from their first image to the end of their last VM; each flow begins in an empty world and ends there.

What a guest wrote is what its disks, its snapshots, its images and its backups must have, whatever the row.
"""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import pytest

from linstor_sandbox.opennebula import Refused, VirtualMachine
from linstor_sandbox.opennebula.hypervisor import HypervisorFailed
from linstor_sandbox.opennebula.images import Image, ImageState
from linstor_sandbox.opennebula.machines import VmState
from tests.linstor_un.backing_up import Site, has_all_of
from tests.linstor_un.living import text, two_primaries
from tests.linstor_un.mixed import mixed
from tests.linstor_un.scenes import (
    MIB,
    content,
    definition,
    homes,
    last,
    links,
    own,
    replicas,
    volume,
    volumes,
)
from tests.matrix.rows import Row
from tests.matrix.stage import Stage

Play = Callable[[Stage], None]


class Flow(NamedTuple):
    """What is done, and why a row has no such thing: a sentence, empty where it has."""

    play: Play
    lacks: Callable[[Row], str]


FLOWS: dict[str, Flow] = {}


def flow(name: str, lacks: Callable[[Row], str] = lambda _: "") -> Callable[[Play], Play]:
    """Give a flow its name in the table."""

    def keep(play: Play) -> Play:
        FLOWS[name] = Flow(play, lacks)
        return play

    return keep


def since(*version: int) -> Callable[[Row], str]:
    """A release that has this only from a version on."""
    shown = ".".join(map(str, version))
    return lambda row: "" if row.release.version >= version else f"OpenNebula has this since {shown}"


def moves(row: Row) -> str:
    """Volumes that can be on another host too."""
    return "" if row.can_move else "a volume without DRBD is on one node"


def takes_snapshots(row: Row) -> str:
    """Pools that can."""
    return "" if row.can_snapshot else "the pool takes no snapshots"


def plain(row: Row) -> str:
    """Volumes of which the pool can say what has changed."""
    return "a pool cannot say what has changed below LUKS" if "LUKS" in row.name else ""


def either(*reasons: Callable[[Row], str]) -> Callable[[Row], str]:
    """The first thing that a row lacks."""
    return lambda row: next((reason(row) for reason in reasons if reason(row)), "")


# --- images ---------------------------------------------------------------------------------------------------------


@flow("images of files")
def images_of_files(stage: Stage) -> None:
    raw = Path(stage.world.file("disk.raw", content(1)))
    made = [raw, raw.with_name("disk.raw.gz"), raw.with_name("disk.qcow2")]
    made[1].write_bytes(gzip.compress(content(1)))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", made[0], made[2]], check=True)
    for path in made:
        image = stage.cloud.create_image(stage.images, str(path))
        assert (image.size, image.state) == (4, ImageState.READY)
        assert image.format == ("raw" if stage.release.has_format else "")
        assert stage.sandbox.read(volume(image), 0, 4 * MIB) == content(1), path.name


@flow("datablocks, clones")
def datablocks_and_clones(stage: Stage) -> None:
    empty = stage.cloud.create_datablock(stage.images, 8)
    formatted = stage.cloud.create_datablock(stage.images, 16, "ext4", persistent=True)
    # What LUKS makes of blocks that nobody has written is nobody's, and here it is not made.
    assert "LUKS" in stage.row.name or stage.sandbox.read(volume(empty), 0, MIB) == bytes(MIB)
    assert stage.sandbox.read(volume(formatted), 1080, 2) == b"\x53\xef", "ext4's magic number"
    copied = stage.cloud.clone_image(stage.image())
    assert stage.sandbox.read(volume(copied), 0, 4 * MIB) == content(1)
    assert stage.cloud.monitor(stage.images).succeeded
    assert stage.images.free_mb > 0 and stage.images.total_mb >= stage.images.free_mb


@flow("export")
def export(stage: Stage) -> None:
    call = stage.cloud.export_image(stage.image())
    assert "<IMPORT_SOURCE>" in call.stdout and "<FORMAT>" in call.stdout


# --- VMs ------------------------------------------------------------------------------------------------------------


@flow("every kind of disk")
def every_kind_of_disk(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    assert stage.cloud.monitor(stage.system).succeeded and stage.system.free_mb > 0
    stage.write(vm, 0, "mine")
    stage.write(vm, 1, "kept")
    stage.write(vm, 3, "volatile")
    assert [stage.text(vm, number) for number in (0, 1, 3)] == ["mine", "kept", "volatile"]
    assert stage.sandbox.read(volume(stage.cloud.images[2]), 0, 4 * MIB) == content(3)
    stage.cloud.terminate(vm)
    assert links(stage.world) == {} and volumes(stage.world) == {volume(image) for image in stage.cloud.images}
    assert stage.sandbox.read(volume(stage.cloud.images[0]), 0, 4 * MIB) == content(1)
    assert text(stage.world, volume(stage.cloud.images[1])) == "kept"


@flow("larger than its image")
def larger_than_its_image(stage: Stage) -> None:
    vm = stage.machine(f"DISK=[IMAGE_ID={stage.image().identifier},SIZE=12]")
    assert stage.sandbox.device_size(own(vm)) >= 12 * MIB
    assert stage.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


@flow("volatile FORMAT")
def volatile_format(stage: Stage) -> None:
    """Of any format that a user asks for, before OpenNebula kept users from it."""
    template = "DISK=[TYPE=fs,FORMAT=qcow2,SIZE=8]"
    if stage.release.forces_volatile_format:
        assert stage.machine(template).disk(0).attributes["FORMAT"] == "raw"
        return
    reason = stage.reason(lambda: stage.machine(template))
    assert "qcow2" in reason and "raw" in reason, reason


@flow("poweroff, resume")
def poweroff_and_resume(stage: Stage) -> None:
    vm = stage.machine()
    stage.write(vm, 0, "before")
    stage.cloud.poweroff(vm)
    stage.cloud.resume(vm)
    assert stage.text(vm, 0) == "before"


@flow("suspend, resume")
def suspend_and_resume(stage: Stage) -> None:
    vm = stage.machine()
    stage.cloud.suspend(vm)
    assert f"one-vm-{vm.identifier}-checkpoint" in volumes(stage.world)
    stage.cloud.resume(vm)
    stage.cloud.suspend(vm)
    if stage.row.can_move:
        stage.cloud.migrate_cold(vm, "node2")
    stage.cloud.resume(vm)
    stage.write(vm, 1, "after")
    assert stage.text(vm, 1) == "after"
    assert f"one-vm-{vm.identifier}-checkpoint" not in volumes(stage.world)


@flow("stop, resume elsewhere", moves)
def stop_and_resume(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    stage.write(vm, 0, "before")
    stage.cloud.stop(vm)
    assert links(stage.world) == {}
    stage.cloud.deploy(vm, "node3", stage.other)
    assert (vm.state, stage.text(vm, 0)) == (VmState.ACTIVE, "before")


@flow("undeploy, resume", moves)
def undeploy_and_resume(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    stage.write(vm, 1, "before")
    stage.cloud.undeploy(vm)
    stage.cloud.resize_disk(vm, vm.disk(3), 24)
    stage.cloud.deploy(vm, "node2", stage.other)
    assert stage.text(vm, 1) == "before" and stage.sandbox.device_size(own(vm, 3)) >= 24 * MIB
    stage.cloud.undeploy(vm)
    stage.cloud.terminate(vm)
    assert volumes(stage.world) == {volume(image) for image in stage.cloud.images}


@flow("cold migration", moves)
def cold_migration(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    stage.write(vm, 0, "before")
    if stage.row.can_snapshot:
        stage.cloud.snapshot_create(vm, vm.disk(0))
    for host, system, poff in (("node2", None, True), ("node3", None, False), ("node3", stage.other, True)):
        stage.cloud.migrate_cold(vm, host, system, poff)
        assert stage.text(vm, 0) == "before"
        assert {place.partition(":")[0] for place in links(stage.world)} == {host}


@flow("live migration", moves)
def live_migration(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    for host in ("node2", "node3", "node1"):
        stage.cloud.migrate_live(vm, host)
        stage.write(vm, 0, host)
        assert stage.text(vm, 0) == host
        assert {place.partition(":")[0] for place in links(stage.world)} == {host}
    assert two_primaries(stage.world) == {}
    stage.sandbox.fail_virsh("migrate")
    with pytest.raises(HypervisorFailed):
        stage.cloud.migrate_live(vm, "node3")
    stage.write(vm, 1, "stayed")
    assert stage.text(vm, 1) == "stayed" and two_primaries(stage.world) == {}


@flow("live to another datastore")
def live_to_another_datastore(stage: Stage) -> None:
    vm = stage.machine()
    stage.cloud.snapshot_create(vm, vm.disk(0))
    if not stage.release.moves_live_between_datastores:
        with pytest.raises(Refused, match="cannot be performed live"):
            stage.cloud.migrate_live(vm, "node1", stage.other)
        return
    stage.cloud.migrate_live(vm, "node1", stage.other)
    stage.write(vm, 0, "there")
    assert stage.text(vm, 0) == "there"


@flow("attach, detach")
def attach_and_detach(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    stage.image(4, persistent=True)
    for template in ("DISK=[IMAGE_ID=0]", "DISK=[IMAGE_ID=3]", "DISK=[TYPE=fs,FORMAT=raw,SIZE=4]"):
        # The world counts images on from flow to flow.
        numbers = [image.identifier for image in stage.cloud.images]
        wanted = template.replace("IMAGE_ID=0", f"IMAGE_ID={numbers[0]}").replace(
            "IMAGE_ID=3", f"IMAGE_ID={numbers[3]}"
        )
        disk = stage.cloud.attach(vm, wanted)
        stage.write(vm, disk.disk_id, "plugged")
        assert stage.text(vm, disk.disk_id) == "plugged"
        stage.cloud.detach(vm, disk)
        stage.cloud.poweroff(vm)
        stage.cloud.detach(vm, stage.cloud.attach(vm, wanted))
        stage.cloud.resume(vm)
    assert text(stage.world, volume(stage.cloud.images[3])) == "plugged"


@flow("shareable images", since(6, 0))
def shareable_images(stage: Stage) -> None:
    """Several VMs of one host write to one; whoever would on another is refused by a sentence."""
    image = stage.image(2, persistent=True)
    image.attributes["PERSISTENT_TYPE"] = "SHAREABLE"
    template = f"DISK=[IMAGE_ID={image.identifier}]"
    one, two = stage.machine(template), stage.machine(template)
    stage.write(one, 0, "of both")
    assert stage.text(two, 0) == "of both"
    other = stage.cloud.create_vm(template, stage.system)
    refusals = [lambda: stage.cloud.deploy(other, "node2", stage.system)]
    if stage.row.can_move:
        refusals.append(lambda: stage.cloud.migrate_live(one, "node2"))
    for number, refusal in enumerate(refusals):
        reason = stage.reason(refusal)
        assert ("shareable" if stage.row.can_move else "no DRBD layer") in reason, (number, reason)
    stage.cloud.recover_delete(other)
    stage.cloud.enable_image(image)
    stage.cloud.terminate(two)
    stage.write(one, 0, "of one")
    if stage.row.can_move:
        stage.cloud.migrate_live(one, "node2")
    assert stage.text(one, 0) == "of one"


@flow("another system datastore", moves)
def another_system_datastore(stage: Stage) -> None:
    """Mixed mode: the VM's directory is that of OpenNebula's own driver, the disks are volumes."""
    system = mixed(stage.world)
    made = stage.cloud.create_image(stage.world.images, stage.world.file("mixed.raw", content(1)))
    kept = stage.cloud.create_datablock(stage.world.images, 4, persistent=True)
    template = f'DISK=[IMAGE_ID={made.identifier}] DISK=[IMAGE_ID={kept.identifier}] CONTEXT=[NETWORK="YES"]'
    vm = stage.cloud.instantiate(template, "node1", system)
    stage.write(vm, 1, "before")
    stage.cloud.migrate_cold(vm, "node2")
    stage.cloud.migrate_live(vm, "node3")
    stage.cloud.snapshot_create(vm, vm.disk(0))
    stage.write(vm, 0, "late")
    saved = stage.cloud.disk_saveas(vm, vm.disk(0), "mixed")
    assert text(stage.world, volume(saved)) == "late"
    stage.cloud.undeploy(vm)
    assert links(stage.world) == {}
    stage.cloud.deploy(vm, "node1", system)
    assert (stage.text(vm, 0), stage.text(vm, 1)) == ("late", "before")
    verbs = [call.verb for call in stage.cloud.calls if call.verb.endswith(".ssh")]
    assert set(verbs) >= {"clone.ssh", "ln.ssh", "mv.ssh", "cpds.ssh", "snap_create_live.ssh"}
    stage.cloud.terminate(vm)
    assert volumes(stage.world) == {volume(image) for image in (made, kept, saved)}


# --- disks ----------------------------------------------------------------------------------------------------------


@flow("snapshots", takes_snapshots)
def snapshots(stage: Stage) -> None:
    vm = stage.machine()
    for disk in vm.disks:
        stage.write(vm, disk.disk_id, "first")
        stage.cloud.snapshot_create(vm, disk)
        stage.write(vm, disk.disk_id, "second")
    stage.cloud.poweroff(vm)
    for disk in vm.disks:
        stage.cloud.snapshot_create(vm, disk)
    _revert(stage, vm, 1)
    stage.cloud.resume(vm)
    assert [stage.text(vm, number) for number in (0, 1)] == ["second", "second"]
    for disk in vm.disks:
        stage.cloud.snapshot_delete(vm, disk, vm.snapshots_of(disk).get(1))
    stage.cloud.suspend(vm)
    stage.cloud.snapshot_create(vm, vm.disk(0))
    stage.cloud.snapshot_delete(vm, vm.disk(0), vm.snapshots_of(vm.disk(0)).get(2))
    if stage.release.reverts_suspended:
        _revert(stage, vm, 0)
    else:
        with pytest.raises(Refused, match="wrong state"):
            stage.cloud.snapshot_revert(vm, vm.disk(0), vm.snapshots_of(vm.disk(0)).get(0))
    stage.cloud.resume(vm)
    stage.cloud.poweroff(vm)
    _revert(stage, vm, 0)
    assert [stage.text(vm, number) for number in (0, 1)] == ["first", "first"]


def _revert(stage: Stage, vm: VirtualMachine, number: int) -> None:
    for disk in vm.disks:
        stage.cloud.snapshot_revert(vm, disk, vm.snapshots_of(disk).get(number))


@flow("snapshots of images", takes_snapshots)
def snapshots_of_images(stage: Stage) -> None:
    image = stage.image(2, persistent=True)
    vm = stage.machine(f"DISK=[IMAGE_ID={image.identifier}]")
    for number in range(2):
        stage.write(vm, 0, f"state {number}")
        stage.cloud.snapshot_create(vm, vm.disk(0))
    stage.write(vm, 0, "now")
    stage.cloud.terminate(vm)
    stage.cloud.image_snapshot_revert(image, 1)
    assert text(stage.world, volume(image)) == "state 1"
    stage.cloud.image_snapshot_delete(image, 1)
    stage.cloud.image_snapshot_flatten(image, 0)
    assert text(stage.world, volume(image)) == "state 0"


@flow("older snapshots", takes_snapshots)
def older_snapshots(stage: Stage) -> None:
    """Where LINSTOR goes back to the newest only, it says so before it touches anything."""
    vm = stage.machine()
    for number in range(2):
        stage.write(vm, 0, f"state {number}")
        stage.cloud.snapshot_create(vm, vm.disk(0))
    stage.cloud.poweroff(vm)
    known = vm.snapshots_of(vm.disk(0))
    if stage.sandbox.cluster.at_least("1.25.0"):
        stage.cloud.snapshot_revert(vm, vm.disk(0), known.get(0))
        assert stage.text(vm, 0) == "state 0"
    else:
        reason = stage.reason(lambda: stage.cloud.snapshot_revert(vm, vm.disk(0), known.get(0)))
        assert "snapshot-1 is younger than snapshot-0" in reason, reason
    stage.cloud.snapshot_revert(vm, vm.disk(0), known.get(1))
    assert stage.text(vm, 0) == "state 1"


@flow("LINEAR snapshots", either(since(7, 0), takes_snapshots))
def linear_snapshots(stage: Stage) -> None:
    """What is younger than the one that a revert goes back to oned forgets: nothing of it is left."""
    vm = stage.machine()
    for disk in vm.disks:
        disk.attributes["ALLOW_ORPHANS"] = "LINEAR"
        for number in range(3):
            stage.write(vm, disk.disk_id, f"state {number}")
            stage.cloud.snapshot_create(vm, disk)
    stage.cloud.poweroff(vm)
    if not stage.sandbox.cluster.at_least("1.25.0"):
        reason = stage.reason(lambda: _revert(stage, vm, 1))
        assert "delete the younger first" in reason, reason
        return
    _revert(stage, vm, 1)
    for disk in vm.disks:
        assert [item.identifier for item in vm.snapshots_of(disk).all] == [0, 1]
        assert _left(stage, stage.volume(vm, disk.disk_id)) == {"snapshot-0", "snapshot-1"}
        assert stage.text(vm, disk.disk_id) == "state 1"
    stage.cloud.terminate(vm)
    image = stage.cloud.images[1]
    stage.cloud.image_snapshot_revert(image, 0)
    assert text(stage.world, volume(image)) == "state 0"
    assert _left(stage, volume(image)) == {"snapshot-0"}


def _left(stage: Stage, resource: str) -> set[str]:
    return set(stage.sandbox.snapshot_of_state()["resource_definitions"][resource]["snapshots"])


@flow("resize")
def resize(stage: Stage) -> None:
    vm = stage.machine(stage.disks())
    for number in (0, 1, 3):
        stage.cloud.resize_disk(vm, vm.disk(number), 32)
    stage.cloud.poweroff(vm)
    for number in (0, 1, 3):
        stage.cloud.resize_disk(vm, vm.disk(number), 40)
        assert stage.sandbox.device_size(stage.volume(vm, number)) >= 40 * MIB
    assert stage.sandbox.read(own(vm), 0, 4 * MIB) == content(1)


@flow("save as", takes_snapshots)
def save_as(stage: Stage) -> None:
    vm = stage.machine()
    stage.write(vm, 0, "early")
    stage.cloud.snapshot_create(vm, vm.disk(0))
    stage.write(vm, 0, "late")
    made = {
        "early": stage.cloud.disk_saveas(vm, vm.disk(0), "of a snapshot", 0),
        "late": stage.cloud.disk_saveas(vm, vm.disk(0), "running"),
    }
    for name, saved in made.items():
        assert (saved.state, text(stage.world, volume(saved))) == (ImageState.READY, name)
    stage.cloud.suspend(vm)
    assert text(stage.world, volume(stage.cloud.disk_saveas(vm, vm.disk(0), "suspended"))) == "late"
    stage.cloud.resume(vm)
    stage.cloud.undeploy(vm)
    if stage.release.saves_parked_disks:
        assert text(stage.world, volume(stage.cloud.disk_saveas(vm, vm.disk(0), "parked"))) == "late"
        assert last(stage.world, "cpds").argv[0].startswith("onefe:")
    else:
        with pytest.raises(Refused, match="cannot be saved"):
            stage.cloud.disk_saveas(vm, vm.disk(0), "parked")


# --- backups --------------------------------------------------------------------------------------------------------


@flow("backup", either(since(6, 6), takes_snapshots))
def backup(stage: Stage) -> None:
    site = Site(stage.world)
    vm = stage.machine()
    for number in (0, 1):
        stage.write(vm, number, f"disk {number}")
    images = [stage.cloud.backup(vm, site.datastore)]
    stage.cloud.poweroff(vm)
    images.append(stage.cloud.backup(vm, site.datastore))
    expected = {number: stage.content(vm, number) for number in (0, 1)}
    for image in images:
        # Restored to images of the article's datastore, whatever the row's is.
        for number, bytes_then in expected.items():
            has_all_of(site.brought_back(image, number), bytes_then)
    _forget_backups(stage, vm)


@flow("increments", either(since(7, 2), takes_snapshots, plain))
def increments(stage: Stage) -> None:
    site = Site(stage.world)
    vm = stage.machine()
    moments = []
    image: Optional[Image] = None
    for number in range(3):
        stage.write(vm, 0, f"moment {number}")
        image = stage.cloud.backup(vm, site.datastore, "INCREMENT")
        moments.append(stage.content(vm, 0))
    assert image is not None and [item.type for item in image.increments] == ["FULL", "INCREMENT", "INCREMENT"]
    for number, moment in enumerate(moments):
        has_all_of(site.brought_back(image, 0, number), moment)
    _forget_backups(stage, vm)


@flow("restore in place", either(since(6, 10), takes_snapshots))
def restore_in_place(stage: Stage) -> None:
    site = Site(stage.world)
    vm = stage.machine()
    stage.write(vm, 0, "then")
    image = stage.cloud.backup(vm, site.datastore)
    stage.write(vm, 0, "now")
    stage.cloud.poweroff(vm)
    stage.cloud.restore_in_place(vm, image)
    stage.cloud.resume(vm)
    assert stage.text(vm, 0) == "then"
    _forget_backups(stage, vm)


def _forget_backups(stage: Stage, vm: VirtualMachine) -> None:
    stage.cloud.terminate(vm)
    for image in [image for image in stage.cloud.images if image.type == "BACKUP"]:
        stage.cloud.delete_image(image)


# --- what goes wrong ------------------------------------------------------------------------------------------------


@flow("no snapshots", lambda row: "the pool takes snapshots" if row.can_snapshot else "")
def no_snapshots(stage: Stage) -> None:
    """What needs one is refused by a sentence, and nothing has changed."""
    vm = stage.machine()
    before = volumes(stage.world)
    for attempt in (
        lambda: stage.cloud.snapshot_create(vm, vm.disk(0)),
        lambda: stage.cloud.backup(vm, stage.world.install_backups()[0]),
    ):
        reason = stage.reason(attempt)
        assert "snapshots" in reason and "LVM_THIN" in reason, reason
    assert volumes(stage.world) == before
    stage.write(vm, 0, "goes on")
    assert stage.text(vm, 0) == "goes on"


@flow("one node", lambda row: "volumes can be on any host" if row.can_move else "")
def one_node(stage: Stage) -> None:
    """A VM stays where its volumes are: whatever would bring it elsewhere is refused by a sentence."""
    vm = stage.machine()
    stage.write(vm, 0, "here")
    for reason in (
        stage.reason(lambda: stage.cloud.migrate_live(vm, "node2")),
        stage.reason(lambda: stage.cloud.migrate_cold(vm, "node2")),
    ):
        assert "no DRBD layer and is on node1 alone, so that no VM on node2 can have it" in reason, reason
    stage.cloud.recover_failure(vm)
    assert (vm.host, stage.text(vm, 0)) == ("node1", "here")
    stage.cloud.undeploy(vm)
    stage.cloud.deploy(vm, "node1", stage.other)
    assert stage.text(vm, 0) == "here"
    other = stage.cloud.create_vm("DISK=[TYPE=fs,FORMAT=raw,SIZE=4]", stage.system)
    assert "node1" in stage.reason(lambda: stage.cloud.deploy(other, "node2", stage.system))
    stage.cloud.recover_delete(other)


@flow("recovery", moves)
def recovery(stage: Stage) -> None:
    template = stage.disks()
    stage.sandbox.set_ssh("node2", "refuse")
    vm = stage.cloud.create_vm(template, stage.system)
    reason = stage.reason(lambda: stage.cloud.deploy(vm, "node2", stage.system))
    assert "node2" in reason, reason
    stage.sandbox.set_ssh("node2", "ok")
    stage.cloud.recover_retry(vm)
    stage.write(vm, 0, "runs")
    stage.cloud.recover_recreate(vm)
    stage.cloud.enable_image(stage.cloud.images[1])
    stage.cloud.deploy(vm, "node3", stage.system)
    assert stage.sandbox.read(own(vm), 0, 4 * MIB) == content(1)
    stage.cloud.recover_delete(vm)
    stage.cloud.enable_image(stage.cloud.images[1])
    assert volumes(stage.world) == {volume(image) for image in stage.cloud.images}


@flow("a node is offline", moves)
def a_node_is_offline(stage: Stage) -> None:
    """VMs go on, move and come back to where one of their disks' replicas is not."""
    vm = stage.machine(host="node3")
    stage.write(vm, 0, "before")
    stage.cloud.undeploy(vm)
    lost = sorted(replicas(stage.world, own(vm)))[-1]
    host = next(node for node in stage.cloud.hosts if node not in replicas(stage.world, own(vm)))
    stage.sandbox.set_node(lost, online=False)
    stage.cloud.deploy(vm, host, stage.system)
    stage.write(vm, 0, "meanwhile")
    stage.sandbox.set_node(lost, online=True)
    stage.cloud.migrate_live(vm, lost)
    assert stage.text(vm, 0) == "meanwhile"


@flow("tie-breakers", moves)
def tie_breakers(stage: Stage) -> None:
    """They and the quorum outlive all attaching and detaching, and a VM's disk is never one that may be taken away."""
    vm = stage.machine(f"DISK=[IMAGE_ID={stage.image(2, persistent=True).identifier}]")
    before = _roles(stage, vm)
    assert before == ["replica", "replica", "tie-breaker"]
    for host in ("node2", "node3", "node1"):
        stage.cloud.migrate_live(vm, host)
        assert homes(stage.world, stage.volume(vm, 0))[host] in ("replica", "attached")
        stage.cloud.migrate_cold(vm, "node2")
    stage.cloud.terminate(vm)
    image = stage.cloud.images[0]
    assert sorted(homes(stage.world, volume(image)).values()) == before
    properties = definition(stage.world, volume(image))["props"]
    assert properties["DrbdOptions/Resource/quorum"] == "majority"
    assert "DrbdOptions/auto-add-quorum-tiebreaker" not in properties


def _roles(stage: Stage, vm: VirtualMachine) -> list[str]:
    return sorted(homes(stage.world, stage.volume(vm, 0)).values())


@flow("what users read")
def what_users_read(stage: Stage) -> None:
    """The sentence is the same in each release, and there is nothing before it or behind it."""
    path = f"{stage.world.folder}/none.raw"
    attempts: Mapping[str, Callable[[], object]] = {
        f"Image file {path} cannot be read (No such file or directory): correct PATH or its permissions": (
            lambda: stage.cloud.create_image(stage.images, path)
        ),
        "LINSTOR finds no place for 2 replicas of one-image-": lambda: stage.cloud.create_datablock(
            stage.images, 9 << 30 >> 10
        ),
        "Host node9 is not a node of LINSTOR, so that ": lambda: _deploy_nowhere(stage),
    }
    for sentence, attempt in attempts.items():
        reason = stage.reason(attempt)
        assert reason.startswith(sentence), reason
    vm = stage.machine()
    stage.sandbox.set_node("node3", online=False)
    reason = stage.reason(lambda: stage.cloud.migrate_live(vm, "node3"))
    assert "node3" in reason, reason
    failed = [call.verb for call in stage.cloud.calls[-3:]]
    assert ("failmigrate" in failed) is stage.release.fails_migration_after_premigrate
    stage.sandbox.set_node("node3", online=True)
    assert stage.text(vm, 0) is not None and two_primaries(stage.world) == {}


def _deploy_nowhere(stage: Stage) -> None:
    """A host that LINSTOR does not know."""
    stage.cloud.hosts.append("node9")
    try:
        stage.machine(host="node9")
    finally:
        stage.cloud.hosts.remove("node9")
