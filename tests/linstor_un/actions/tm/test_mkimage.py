"""A volatile disk: empty, or with the file system that the VM's template asks for; never with old data."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from linstor_sandbox import OLD_DATA, Pool
from linstor_sandbox.opennebula import VirtualMachine
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import (
    MIB,
    again,
    attached,
    definition,
    failure,
    homes,
    last,
    link,
    links,
    own,
    path,
    refuse_all,
    replicas,
    run,
    sentence,
    volumes,
)


def start(world: World, disk: str, host: str = "node1") -> VirtualMachine:
    return world.cloud.instantiate(f"DISK=[TYPE=fs,FORMAT=raw,{disk}]", host, world.system)


def kind(world: World, resource: str) -> str:
    """What blkid takes the volume's bytes for."""
    file = world.folder / "bytes"
    file.write_bytes(world.sandbox.read(resource))
    done = subprocess.run(
        ["blkid", "-o", "value", "-s", "TYPE", str(file)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("file_system", "size"), [("ext4", 16), ("ext3", 16), ("ext2", 4), ("xfs", 320)], ids=lambda value: str(value)
)
def test_a_disk_has_the_file_system_of_the_template(world: World, file_system: str, size: int) -> None:
    vm = start(world, f"FS={file_system},SIZE={size}")
    assert kind(world, own(vm)) == file_system
    assert world.sandbox.device_size(own(vm)) >= size * MIB
    assert link(world, vm, 0) == own(vm)
    properties = definition(world, own(vm))["props"]
    assert {key: properties[f"Aux/one/{key}"] for key in ("VM_ID", "DISK_ID", "DS_ID")} == {
        "VM_ID": "0",
        "DISK_ID": "0",
        "DS_ID": "100",
    }
    assert "Aux/one/INCOMPLETE" not in properties


def test_a_disk_without_a_file_system_is_empty_and_allocates_nothing(world: World) -> None:
    vm = start(world, "SIZE=512")
    assert not world.sandbox.read(own(vm), 0, 8 * MIB).strip(b"\0")
    assert world.sandbox.allocated(own(vm)) == 0


def test_a_raw_disk_in_a_thick_pool_shows_no_old_data(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 1024),))
    vm = start(world, "SIZE=8")
    found = world.sandbox.read(own(vm))
    assert len(found) >= 8 * MIB
    assert OLD_DATA not in found and not found.strip(b"\0")


def test_a_formatted_disk_in_a_thick_pool_shows_no_old_data(make_world: Callable[..., World]) -> None:
    world = make_world(pools=(Pool("data", "LVM", 1024),))
    vm = start(world, "FS=ext4,SIZE=16")
    assert kind(world, own(vm)) == "ext4"
    assert OLD_DATA not in world.sandbox.read(own(vm))


def test_a_host_without_a_replica_makes_and_formats_the_disk_too(world: World) -> None:
    hosts = {}
    for node in world.cloud.hosts:
        vm = start(world, "FS=ext4,SIZE=16", node)
        assert kind(world, own(vm)) == "ext4"
        assert len(replicas(world, own(vm))) == 2
        hosts[node] = homes(world, own(vm))[node]
        assert attached(world, own(vm)) <= {node}
    assert set(hosts.values()) <= {"replica", "attached"}


def test_the_replica_count_holds_after_balancing(world: World) -> None:
    for count in (1, 3):
        template = SYSTEM_TEMPLATE.replace("linstor-system", f"x{count}").replace(
            'AUTO_PLACE="2"', f'AUTO_PLACE="{count}"'
        )
        vm = world.cloud.instantiate("DISK=[TYPE=swap,SIZE=4]", "node1", world.cloud.create_datastore(template))
        world.sandbox.run_balance()
        assert len(replicas(world, own(vm))) == count


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "RAW "])
def test_another_format_than_raw_is_refused(world: World, form: str) -> None:
    vm = world.cloud.create_vm("DISK=[TYPE=fs,FORMAT=raw,SIZE=4]", world.system)
    vm.place("node1", 0, world.system)
    line = f"mkimage 4 {form} node1:/var/lib/one//datastores/100/0/disk.0 0 100"
    call = run(world, line)
    if form.strip().lower() == "raw":
        assert call.succeeded
        return
    assert f"FORMAT '{form}' of disk 0 is not possible on a volume: use raw" in sentence(call)
    assert volumes(world) == set()


def test_a_file_system_that_is_not_supported_is_refused_before_anything_is_made(world: World) -> None:
    vm = world.cloud.create_vm("DISK=[TYPE=fs,FORMAT=raw,FS=ntfs,SIZE=4]", world.system)
    reason = failure(lambda: world.cloud.deploy(vm, "node1", world.system))
    assert "File system 'ntfs' is not supported: use one of ext2, ext3, ext4, xfs" in reason
    assert volumes(world) == set()


def test_a_disk_too_small_for_its_file_system_leaves_nothing(world: World) -> None:
    vm = world.cloud.create_vm("DISK=[TYPE=fs,FORMAT=raw,FS=xfs,SIZE=4]", world.system)
    reason = failure(lambda: world.cloud.deploy(vm, "node2", world.system))
    assert "Preparing one-vm-0-disk-0 on node2 failed" in reason
    assert volumes(world) == set() and links(world) == {}


def test_a_host_that_does_not_answer_leaves_nothing_and_the_retry_works(world: World) -> None:
    vm = world.cloud.create_vm("DISK=[TYPE=swap,SIZE=4] DISK=[TYPE=fs,FORMAT=raw,SIZE=4]", world.system)
    world.sandbox.refuse_ssh("node3")
    assert "host node3 does not answer" in failure(lambda: world.cloud.deploy(vm, "node3", world.system))
    assert volumes(world) == set()
    world.sandbox.refuse_ssh("node3", False)
    world.cloud.recover_retry(vm)
    assert set(links(world)) == {"node3:100/0/disk.0", "node3:100/0/disk.1"}


def test_a_left_over_of_an_earlier_life_is_made_anew(world: World) -> None:
    vm = start(world, "SIZE=4")
    world.cloud.hypervisor.end(vm)
    world.sandbox.write(own(vm), b"of the earlier life", 0)
    assert again(world, last(world, "mkimage")).succeeded
    assert not world.sandbox.read(own(vm)).strip(b"\0")


NO_SENSE = [
    ("mkimage 4 raw node1:/d/100/0/disk.0 0", "takes 5 arguments"),
    ("mkimage 4 raw evil:/x node1:/d/100/0/disk.0 0 100", "takes 5 arguments"),
    ("mkimage 0 raw node1:/d/100/0/disk.0 0 100", "The size is '0'"),
    ("mkimage -4 raw node1:/d/100/0/disk.0 0 100", "The size is '-4'"),
    ("mkimage 99999999999 raw node1:/d/100/0/disk.0 0 100", "must be a number of MiB"),
    ("mkimage 4 raw node1:/d/100/0/disk.x 0 100", "is not below a datastore"),
    ("mkimage 4 raw node1:/d/100/0 0 100", "must end in disk.<id>"),
    ("mkimage 4 raw node1:/d/100/0/disk.3 0 100", "oned knows no disk 3"),
]


def test_lines_that_make_no_sense_change_nothing(world: World) -> None:
    vm = world.cloud.create_vm("DISK=[TYPE=fs,FORMAT=raw,SIZE=4]", world.system)
    vm.place("node1", 0, world.system)
    refuse_all(world, NO_SENSE)
    assert not path(world, vm, "disk.0").exists()
