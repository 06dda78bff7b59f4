"""Backups from a host of the sandbox to the server and back, with a driver that does no more than it must."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.opennebula import ActionFailed, Cloud, Datastore, Image, LcmState, Refused, VirtualMachine, VmState
from linstor_sandbox.opennebula.backup_server import TEMPLATE, TEMPLATES, BackupServer
from linstor_sandbox.opennebula.markup import element
from tests.linstor_sandbox.opennebula.captured import (
    CAPTURED_CONF,
    CAPTURED_DATASTORES,
    StubDriver,
    captured_capacity,
    write_script,
)

# Each increment has one cluster more, filled with its number.
PREBACKUP = f"""#!{sys.executable}
import base64, re, subprocess, sys
vm = sys.stdin.read()
host, folder = sys.argv[1].split(":")
number = int(re.search(r"<LAST_INCREMENT_ID><!\\[CDATA\\[(-?\\d+)", vm).group(1)) + 1
made = base64.b64encode(vm.encode()).decode()
script = [f"rm -rf $1/backup", f"mkdir -p $1/backup", f"echo {{made}} > $1/backup/vm.xml", "cd $1/backup"]
for disk in sys.argv[2].split(":"):
    file = f"disk.{{disk}}.{{number}}"
    script.append(f"qemu-img create -q -f qcow2 {{file}} 1M")
    script.append(f"qemu-io -c 'write -P {{number + 1}} {{number * 64}}k 64k' {{file}}")
done = subprocess.run(["ssh", host, "sh", "-se", "--", folder], input="\\n".join(script).encode(), capture_output=True)
sys.stderr.buffer.write(done.stderr)
sys.exit(done.returncode)
"""
POSTBACKUP = '#!/bin/sh\ncat > "${0%/*}/told"\nssh "${1%%:*}" rm -rf "${1#*:}/backup"\n'


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "sandbox", nodes=("kvm1",), pools=()) as box:
        yield box


@pytest.fixture
def driver(tmp_path: Path) -> StubDriver:
    driver = StubDriver(tmp_path / "remotes")
    for live in ("", "_live"):
        write_script(driver.remotes / "tm" / "linstor_un" / f"prebackup{live}", PREBACKUP)
        write_script(driver.remotes / "tm" / "linstor_un" / f"postbackup{live}", POSTBACKUP)
    return driver


@pytest.fixture
def cloud(driver: StubDriver, sandbox: Sandbox, tmp_path: Path) -> Iterator[Cloud]:
    environment = sandbox.environment()
    var = tmp_path / "var"
    with Cloud(driver.remotes, var, ("kvm1",), environment=environment, tm_mad_conf=CAPTURED_CONF) as cloud:
        for template in CAPTURED_DATASTORES:
            captured_capacity(cloud.create_datastore(template))
        yield cloud


@pytest.fixture
def server(driver: StubDriver, tmp_path: Path) -> BackupServer:
    return BackupServer(driver.remotes, tmp_path / "backups")


@pytest.fixture
def datastore(cloud: Cloud, server: BackupServer) -> Datastore:
    return cloud.create_datastore(TEMPLATE)


@pytest.fixture
def vm(cloud: Cloud) -> VirtualMachine:
    """It runs, as far as oned knows."""
    image = cloud.create_datablock(cloud.datastore(100), 1)
    config = 'BACKUP_CONFIG=[MODE="INCREMENT"]'
    vm = cloud.create_vm(f"{config} DISK=[IMAGE_ID={image.identifier}] DISK=[TYPE=fs,SIZE=1]", cloud.datastore(101))
    vm.place("kvm1", 0, cloud.datastore(101))
    vm.become(VmState.ACTIVE, LcmState.RUNNING)
    return vm


def listed(cloud: Cloud, vm: VirtualMachine, image: Image, increment: int = -1, template: str = "") -> dict[str, str]:
    """What the scripts of a transfer driver are told by `ls`."""
    datastore = cloud.datastore(image.datastore_id)
    document = element("DS_DRIVER_ACTION_DATA", datastore.xml(), vm.xml(), image.xml(cloud.release), template)
    call = cloud.scripts.datastore(datastore.ds_mad, "ls", ["-i", str(increment)], document)
    assert call.succeeded, call.stderr
    found: dict[str, str] = json.loads(call.stdout)
    return found


def downloaded(cloud: Cloud, folder: Path, url: str) -> list[int]:
    """The first byte of each cluster of what the downloader brings."""
    command = [str(cloud.scripts.remotes / "datastore" / "downloader.sh"), "--nodecomp", url, "-"]
    done = subprocess.run(command, env=dict(cloud.scripts.environment), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "got.qcow2").write_bytes(done.stdout)
    subprocess.run(["qemu-img", "convert", "-O", "raw", folder / "got.qcow2", folder / "got"], check=True)
    data = (folder / "got").read_bytes()
    return [data[start] for start in range(0, len(data), 65536)][:4]


def test_increments_are_stored_listed_brought_and_removed(
    cloud: Cloud, server: BackupServer, datastore: Datastore, vm: VirtualMachine, tmp_path: Path
) -> None:
    for _ in range(3):
        image = cloud.backup(vm, datastore)
    first = image.increments[0].source
    folder = f"var/lib/one/datastores/{datastore.identifier}/{vm.identifier}"
    assert server.files[0].startswith(folder) and len(server.files) == 6
    assert (server.stored(104, vm.identifier, first) / "disk.0.0").exists()
    chain = ",".join(f"{one.identifier}:{one.source}" for one in image.increments)
    # As OpenNebula's own: where the message names no increment the paths are those of the first.
    assert listed(cloud, vm, image) == {"0": f"rsync://104//{chain}/{folder}/{first}/disk.0.0"}
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image, 0)["0"]) == [1, 0, 0, 0]
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image)["0"]) == [1, 2, 3, 0]
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image, 1)["0"]) == [1, 2, 0, 0]
    named = "<TEMPLATE><INCREMENT_ID>1</INCREMENT_ID></TEMPLATE>"
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image, 1, named)["0"]) == [1, 2, 0, 0]
    cloud.delete_image(image)
    assert server.files == [] and vm.backups.ids == [] and vm.backups.image_id == -1


def test_increments_beyond_keep_last_are_merged(
    cloud: Cloud, server: BackupServer, datastore: Datastore, vm: VirtualMachine, tmp_path: Path
) -> None:
    for _ in range(4):
        image = cloud.backup(vm, datastore, keep_last=2)
    shown = [(increment.identifier, increment.parent, increment.type) for increment in image.increments]
    assert shown == [(2, -1, "FULL"), (3, 2, "INCREMENT")]
    assert "ERROR" not in image.attributes and vm.backups.config["ACTIVE_FLATTEN"] == "NO"
    assert len(server.files) == 4
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image)["0"]) == [1, 2, 3, 4]
    # The first is no longer 0, and found only where the message names it.
    assert listed(cloud, vm, image, 2)["0"].endswith("disk.0.3")
    named = "<TEMPLATE><INCREMENT_ID>2</INCREMENT_ID></TEMPLATE>"
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image, 2, named)["0"]) == [1, 2, 3, 0]
    assert image.state.name == "READY"


def test_restic_has_the_paths_of_the_host_and_names_what_it_merges_anew(
    cloud: Cloud, driver: StubDriver, vm: VirtualMachine, tmp_path: Path
) -> None:
    server = BackupServer(driver.remotes, tmp_path / "backups", "restic")
    datastore = cloud.create_datastore(TEMPLATES["restic"])
    for _ in range(3):
        image = cloud.backup(vm, datastore)
    sources = [increment.source for increment in image.increments]
    chain = ",".join(f"{number}:{source}" for number, source in enumerate(sources))
    folder = f"/var/lib/one/datastores/101/{vm.identifier}/backup"
    assert listed(cloud, vm, image) == {"0": f"restic://104//{chain}{folder}/disk.0.0"}
    named = "<TEMPLATE><INCREMENT_ID>1</INCREMENT_ID></TEMPLATE>"
    assert listed(cloud, vm, image, 1, named)["0"].endswith("disk.0.1")
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image, 1, named)["0"]) == [1, 2, 0, 0]
    image = cloud.backup(vm, datastore, keep_last=2)
    assert [increment.identifier for increment in image.increments] == [2, 3]
    assert image.increments[0].source not in sources
    assert downloaded(cloud, tmp_path, listed(cloud, vm, image)["0"]) == [1, 2, 3, 4]
    cloud.delete_image(image)
    assert server.files == []


def test_full_backups_beyond_keep_last_are_deleted(
    cloud: Cloud, server: BackupServer, datastore: Datastore, vm: VirtualMachine
) -> None:
    made = [cloud.backup(vm, datastore, "FULL", keep_last=2).identifier for _ in range(3)]
    assert vm.backups.ids == made[1:]
    assert [image.identifier for image in cloud.images if image.type == "BACKUP"] == made[1:]
    assert len(server.files) == 4


def test_when_the_next_backup_is_a_full_one(cloud: Cloud, datastore: Datastore, vm: VirtualMachine) -> None:
    def anew() -> bool:
        image = cloud.backup(vm, datastore)
        return len(image.increments) == 1

    assert anew() and not anew()
    cloud.backup(vm, datastore, reset=True)
    assert not anew()
    cloud.backup(vm, datastore, backup_volatile=True)
    assert not anew()
    cloud.backup(vm, datastore, "FULL")
    cloud.configure_backup(vm, mode="INCREMENT")
    assert anew() and not anew()
    vm.become(VmState.POWEROFF)
    cloud.attach(vm, "DISK=[TYPE=swap,SIZE=1]")
    assert not anew()
    cloud.attach(vm, "DISK=[TYPE=fs,SIZE=1]")
    assert anew()
    cloud.restore_in_place(vm, cloud.images[-1])
    assert anew()


def test_a_release_without_increments(cloud: Cloud, datastore: Datastore, vm: VirtualMachine) -> None:
    cloud.release = type(cloud.release).parse("7.0")
    cloud.configure_backup(vm, mode="INCREMENT")
    assert not cloud.backup(vm, datastore).increments


@pytest.mark.parametrize(
    ("release", "after", "marked"),
    [("7.4", True, True), ("7.2", True, False), ("6.8", True, False), ("6.6", False, False)],
)
def test_what_is_called_after_a_failure(
    release: str, after: bool, marked: bool, cloud: Cloud, driver: StubDriver, datastore: Datastore, vm: VirtualMachine
) -> None:
    cloud.release = type(cloud.release).parse(release)
    write_script(driver.remotes / "tm" / "linstor_un" / "prebackup_live", "#!/bin/sh\nexit 1\n")
    with pytest.raises(ActionFailed):
        cloud.backup(vm, datastore)
    assert (cloud.calls[-1].verb == "postbackup_live") is after
    assert ("<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>" in cloud.calls[-1].stdin) is marked
    assert vm.lcm_state == LcmState.RUNNING and "LAST_DATASTORE_ID" not in vm.backups.config


def test_a_backup_that_fails_on_the_server(
    cloud: Cloud, server: BackupServer, datastore: Datastore, vm: VirtualMachine
) -> None:
    server.fail("backup")
    with pytest.raises(ActionFailed, match="Error copying backup: injected failure"):
        cloud.backup(vm, datastore)
    assert cloud.calls[-1].verb == "postbackup_live" and "FAILURE" in cloud.calls[-1].stdin
    assert vm.backups.ids == []
    assert len(cloud.backup(vm, datastore).increments) == 1


def test_a_backup_that_hangs_is_cancelled(
    cloud: Cloud, server: BackupServer, datastore: Datastore, vm: VirtualMachine, sandbox: Sandbox
) -> None:
    with pytest.raises(Refused, match="no backup in progress"):
        cloud.backup_cancel(vm)
    failures: list[ActionFailed] = []

    def back_up() -> None:
        try:
            cloud.backup(vm, datastore)
        except ActionFailed as failed:
            failures.append(failed)

    server.hang()
    thread = threading.Thread(target=back_up)
    thread.start()
    while thread.is_alive() and not server.hangs:
        time.sleep(0.01)
    with pytest.raises(Refused, match="wrong state"):
        cloud.backup(vm, datastore)
    cloud.backup_cancel(vm)
    thread.join()
    assert "Backup cancelled" in failures[0].call.stderr
    assert server.files == [] and not server.hangs
    assert not (sandbox.host("kvm1") / vm.directory.lstrip("/") / "backup").exists()
    assert vm.lcm_state == LcmState.RUNNING


def test_a_backup_to_new_images(cloud: Cloud, server: BackupServer, datastore: Datastore, vm: VirtualMachine) -> None:
    image = cloud.backup(vm, datastore, backup_volatile=True)
    made = cloud.restore_to_new_images(image, cloud.datastore(100), name="again")
    assert [(one.name, one.type, one.size) for one in made] == [
        ("again-disk-0", "OS", 1),
        ("again-disk-1", "DATABLOCK", 1),
    ]
    paths = [call.action_data for call in cloud.calls if call.verb == "cp"]
    assert f"rsync://104//0:{image.source}/" in paths[0] and "<FROM_BACKUP_DS><![CDATA[104]]>" in paths[0]
    (only,) = cloud.restore_to_new_images(image, cloud.datastore(100), disk=1)
    assert only.name == f"{vm.identifier}-{image.source}-disk-1"


def test_only_a_vm_that_is_off_is_restored(cloud: Cloud, datastore: Datastore, vm: VirtualMachine) -> None:
    image = cloud.backup(vm, datastore)
    with pytest.raises(Refused, match="must be in poweroff"):
        cloud.restore_in_place(vm, image)


def test_a_base_path_for_backups(
    cloud: Cloud, driver: StubDriver, server: BackupServer, datastore: Datastore, vm: VirtualMachine
) -> None:
    settings = driver.remotes / "etc" / "datastore" / "datastore.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("# BACKUP_BASE_PATH=/nowhere\nBACKUP_BASE_PATH=/var/tmp/base\n")
    with pytest.raises(ActionFailed, match=f"/var/tmp/base/{vm.identifier}/backup"):
        cloud.backup(vm, datastore)
