"""Chains of one full backup and ten increments: each point restores to exactly the bytes of its moment.

Between the backups the guest writes, writes the same again, writes zeroes and gives blocks back, wherever it likes; the
disk grows and goes back to a snapshot in the middle, and the VM moves. Backups fail at their datastore, kept snapshots
are deleted, replicas go and come elsewhere, and VMs are backed up while they are off.

`./dev test tests/linstor_un/test_backup_chains.py --chains 40` tries many; the commit decides which.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import ActionFailed, VirtualMachine
from linstor_sandbox.opennebula.images import Image
from tests.conftest import build_world, commit
from tests.linstor_un.backing_up import Site, toggle
from tests.linstor_un.living import snapshots
from tests.linstor_un.scenes import add_image, own, post, replicas, stranger

BLOCK = 4096
INCREMENTS = 10
KINDS = ("text", "same", "zeroes", "discard")
WRITE = st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.integers(1, 40), st.integers(1, 255))
# What happens before a backup beside the writes, now and then.
EVENT = st.sampled_from(["nothing", "nothing", "failure", "no base", "other replicas", "off"])
STEPS = st.lists(st.tuples(st.lists(WRITE, max_size=5), EVENT), min_size=INCREMENTS, max_size=INCREMENTS)
SIZES = st.lists(st.integers(2, 9) | st.integers(10, 40), min_size=1, max_size=2)


def write(site: Site, vm: VirtualMachine, disk_id: int, wanted: tuple[str, float, int, int]) -> None:
    """One write of the guest, anywhere on its disk."""
    kind, where, blocks, byte = wanted
    now = site.content(vm, disk_id)
    size = len(now)
    offset = int(where * size) // BLOCK * BLOCK
    length = min(blocks * BLOCK, size - offset)
    if kind == "discard":
        site.discard(vm, disk_id, offset, length)
        return
    data = {
        "text": bytes([byte]) * length,
        "same": now[offset : offset + length],
        "zeroes": bytes(length),
    }
    site.write(vm, disk_id, data[kind], offset)


def between(site: Site, vm: VirtualMachine, number: int) -> None:
    """What else happens to the VM before a backup."""
    disk = vm.disk(0)
    if number == 3:
        site.cloud.snapshot_create(vm, disk)
    elif number == 5:
        site.cloud.resize_disk(vm, disk, int(disk.attributes["SIZE"]) + 3)
    elif number == 6:
        site.cloud.migrate_live(vm, "node3")
    elif number == 8:
        site.cloud.poweroff(vm)
        site.cloud.snapshot_revert(vm, disk, vm.snapshots[0].get(0))
        site.cloud.resume(vm)


def happen(site: Site, vm: VirtualMachine, event: str) -> None:
    """What a backup may find that was not so at the one before."""
    if event == "failure":
        site.server.fail("backup")
        with pytest.raises(ActionFailed):
            site.cloud.backup(vm, site.datastore)
    elif event == "no base":
        for name in snapshots(site.world, own(vm)):
            if name.startswith("backup-"):
                post(site.world, f"/v1/resource-definitions/{own(vm)}/snapshots/{name}", None, "DELETE")
    elif event == "other replicas":
        came, went = stranger(site.world, own(vm)), min(replicas(site.world, own(vm)))
        for node, what in ((came, "diskful/data"), (went, "diskless")):
            toggle(site.world, own(vm), node, what)
    elif event == "off":
        site.cloud.poweroff(vm)


def points(site: Site, vm: VirtualMachine, image: Image, disk_id: int, folder: Path) -> list[bytes]:
    """What the chain has of a disk at each of its increments, put together as backup datastores do."""
    found, before = [], None
    for increment in image.increments:
        stored = site.server.stored(site.datastore.identifier, vm.identifier, increment.source)
        file = folder / f"disk.{disk_id}.{increment.identifier}"
        shutil.copy(stored / file.name, file)
        if before is not None:
            subprocess.run(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", str(before), str(file)], check=True)
        raw = folder / "raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", str(file), str(raw)], check=True)
        found.append(raw.read_bytes())
        before = file
    return found


def check(provider: str, is_compared: bool, sizes: Sequence[int], steps: Sequence[Any]) -> None:
    """Make the chain and compare each of its points with the disks of its moment."""
    configuration = 'BACKUP_COMPARE="yes"\n' if is_compared else ""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        pools = (Pool("data", provider, 20480),)
        site = Site(build_world(stack, Path(name) / "world", pools=pools, configuration=configuration))
        for node in site.cloud.hosts if is_compared else ():
            site.world.sandbox.refuse_sudo(node, "ALL")
        images = [add_image(site.world, seed, mib=size) for seed, size in enumerate(sizes)]
        template = " ".join(f"DISK=[IMAGE_ID={image.identifier}]" for image in images)
        vm = site.cloud.instantiate(template, "node1", site.world.system)
        disks = range(len(images))
        moments: list[list[bytes]] = [[] for _ in disks]
        for number, (writes, event) in enumerate([((), "nothing"), *steps]):
            between(site, vm, number)
            for position, wanted in enumerate(writes):
                write(site, vm, position % len(images), wanted)
            happen(site, vm, event)
            for disk_id in disks:
                moments[disk_id].append(site.content(vm, disk_id))
            image = site.cloud.backup(vm, site.datastore, "INCREMENT", keep_last=0)
            if event == "off":
                site.cloud.resume(vm)
        assert [increment.type for increment in image.increments] == ["FULL"] + ["INCREMENT"] * INCREMENTS
        for disk_id in disks:
            for point, moment in zip(points(site, vm, image, disk_id, Path(name)), moments[disk_id]):
                # One that has become smaller has zeroes behind its end, which hide what was there.
                assert point == moment + bytes(len(point) - len(moment))
        # And as a user restores it.
        assert site.brought_back(image, 0) == moments[0][-1]


@pytest.mark.parametrize(("provider", "is_compared"), [("LVM_THIN", False), ("ZFS", False), ("LVM_THIN", True)])
def test_each_point_of_a_chain_is_its_moment(provider: str, is_compared: bool, pytestconfig: pytest.Config) -> None:
    # The first example is always the plainest, the others are others after each commit.
    @seed(commit())
    @settings(
        max_examples=pytestconfig.getoption("--chains"),
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(sizes=SIZES, steps=STEPS)
    def each_point(sizes: list[int], steps: list[Any]) -> None:
        check(provider, is_compared, sizes, steps)

    each_point()
