"""The stand-in makes the calls that a real oned made in the captured flows: argv and stdin, element by element."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from linstor_sandbox.opennebula import (
    ActionFailed,
    Cloud,
    Datastore,
    HypervisorFailed,
    Image,
    Refused,
    Release,
    VirtualMachine,
    VmState,
    other_storages,
)
from linstor_sandbox.opennebula.backup_server import TEMPLATE as BACKUPS
from linstor_sandbox.opennebula.backup_server import BackupServer
from tests.linstor_sandbox.opennebula.captured import StubDriver, captured_capacity, write_script

SHARED = Path(__file__).resolve().parents[4] / "shared"
CAPTURES = SHARED / "opennebula-calls"

pytestmark = pytest.mark.skipif(
    not CAPTURES.is_dir(), reason="the captures (../shared/opennebula-calls) are not beside the checkout"
)

FOUR_DISKS = (
    "DISK=[IMAGE_ID={persistent}] DISK=[IMAGE_ID={other}] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16] "
    'DISK=[TYPE=swap,SIZE=16] CONTEXT=[SET_HOSTNAME="x",NETWORK="NO",SSH_PUBLIC_KEY="ssh-rsa AAAA"]'
)
IMAGE, VIRTIO = "/var/srv-img64.raw", {"DEV_PREFIX": "vd"}
# What a clock or chance decides.
VARYING = {"DATE", "REGTIME", "MODTIME", "STIME", "ETIME", "PSTIME", "PETIME", "RSTIME", "RETIME", "DEPLOY_ID", "UUID"}
# Bookkeeping of oned that no driver reads and the stand-in does not keep.
IGNORED = VARYING | {"ACTION", "REQUEST_ID", "ESTIME", "EETIME"}
BOOKKEEPING = (
    *("NAME", "TEMPLATE/SUBMIT_ON_HOLD", "USER_TEMPLATE"),
    *(f"HISTORY_RECORDS/HISTORY/{name}" for name in ("SEQ", "UID", "GID", "PLAN_ID", "ACTION_ID")),
)

Call = tuple[str, str, list[str]]


class Flow:
    """One captured flow: its driver calls step by step; the periodic monitors of a busy oned are left out."""

    def __init__(self, name: str) -> None:
        self.records: list[dict[str, Any]] = [
            record
            for record in json.loads((CAPTURES / f"{name}.json").read_text(encoding="utf-8"))
            if record["type"] in ("ds", "tm", "vmm")
        ]

    def calls(self, *steps: str) -> list[Call]:
        return [_call(record) for record in self.step_records(*steps) if record["action"] != "monitor"]

    def step_records(self, *steps: str) -> list[dict[str, Any]]:
        return [record for record in self.records if not steps or record["step"] in steps]

    def image_names(self) -> dict[int, str]:
        names = {}
        for record in self.records:
            if record["type"] == "ds" and record["action"] in ("cp", "mkfs", "clone"):
                image = etree.fromstring(record["stdin"].encode()).find("IMAGE")
                assert image is not None
                names[int(image.findtext("ID", ""))] = image.findtext("NAME", "")
        return names


def _call(record: dict[str, Any]) -> Call:
    return record["type"], record["action"], record["argv"]


def made_calls(cloud: Cloud, since: int = 0) -> list[Call]:
    """The stand-in's calls in the form of the captures."""
    return [
        ("ds" if call.kind == "datastore" else call.kind, call.verb, [_as_captured(cloud, word) for word in call.argv])
        for call in cloud.calls[since:]
        if call.verb != "monitor"
    ]


def _as_captured(cloud: Cloud, argument: str) -> str:
    return argument.replace(f"{cloud.var}/vms", "/var/lib/one/vms")


def start(cloud: Cloud, flow: Flow) -> tuple[Image, Image]:
    """The two images that most flows begin with, numbered and named as in the capture."""
    names = flow.image_names()
    cloud.next_image_id = min(names)
    cloud.next_request_id = int(next(record for record in flow.records if record["action"] == "stat")["argv"][0])
    first = next(record for record in flow.records if record["type"] == "tm" and record["action"] != "monitor")
    cloud.next_vm_id = int(first["argv"][2])
    images = [create_captured(cloud, names[min(names) + number], persistent=number == 0) for number in (0, 1)]
    return images[0], images[1]


def create_captured(cloud: Cloud, name: str, persistent: bool = False) -> Image:
    datastore = cloud.datastore(100)
    attributes = {"DEV_PREFIX": "vd"}
    return cloud.create_image(datastore, "/var/srv-img64.raw", name, persistent, attributes=attributes)


def run_vm(cloud: Cloud, images: tuple[Image, Image], host: str = "kvm1") -> VirtualMachine:
    template = FOUR_DISKS.format(persistent=images[0].identifier, other=images[1].identifier)
    return cloud.instantiate(template, host, cloud.datastore(101))


def assert_same_documents(cloud: Cloud, flow: Flow, *steps: str, monitors: bool = False) -> None:
    """Every XML on stdin is the captured one, but for times; monitors only where none was periodic."""
    records = [record for record in flow.step_records(*steps) if record["type"] == "ds"]
    captured = [record["stdin"] for record in records if monitors or record["action"] != "monitor"]
    calls = [call for call in cloud.calls if call.kind == "datastore"]
    made = [call.action_data for call in calls if monitors or call.verb != "monitor"]
    assert len(made) == len(captured) > 0
    for one, other in zip(made, captured):
        assert leaves(one) == leaves(other)


def leaves(document: str) -> list[tuple[str, str]]:
    """Path and text of every element in document order, without those that vary."""
    root = etree.fromstring(document.encode())
    tree = root.getroottree()
    return [(tree.getelementpath(element), element.text or "") for element in root.iter() if element.tag not in IGNORED]


def test_create_and_terminate(cloud: Cloud) -> None:
    flow = Flow("vm-create-terminate")
    images = start(cloud, flow)
    for _ in range(2):
        cloud.terminate(run_vm(cloud, images))
    steps = ("setup", "create", "terminate", "create2", "terminate-hard")
    assert made_calls(cloud) == flow.calls(*steps)
    assert_same_documents(cloud, flow, "setup", monitors=True)
    assert [image.state.name for image in images] == ["READY", "READY"]


def test_cold_migration_in_every_state(cloud: Cloud) -> None:
    flow = Flow("vm-migrate-cold")
    vm = run_vm(cloud, start(cloud, flow))
    for host in ("kvm2", "kvm3", "kvm1"):
        cloud.migrate_cold(vm, host)
    cloud.poweroff(vm)
    cloud.migrate_cold(vm, "kvm2")
    assert vm.state == VmState.POWEROFF
    cloud.resume(vm)
    cloud.suspend(vm)
    cloud.migrate_cold(vm, "kvm3")
    cloud.resume(vm)
    expected = [call for step in _steps(flow) if step != "cleanup" for call in flow.calls(step)]
    assert made_calls(cloud) == expected

    cloud.recover_delete(vm)
    deletes = [call for call in flow.calls("cleanup") if call[0] == "tm"]
    assert made_calls(cloud)[len(expected) :] == deletes
    assert cloud.image(29).state.name == "ERROR"
    captured = (CAPTURES / "api" / "rpc-vm-7.xml").read_text(encoding="utf-8")
    vm.name = "vm-48922"
    assert leaves(vm.xml()) == [leaf for leaf in leaves(captured) if "SUBMIT_ON_HOLD" not in leaf[0]]


def test_stop_and_resume_on_other_hosts(cloud: Cloud) -> None:
    flow = Flow("vm-stop-resume")
    images = start(cloud, flow)
    vm = run_vm(cloud, images)
    cloud.stop(vm)
    for host in ("kvm1", "kvm2"):
        cloud.deploy(vm, host, cloud.datastore(101))
        cloud.stop(vm)
    cloud.terminate(vm)
    for image in images:
        cloud.delete_image(image)
    assert made_calls(cloud) == flow.calls()


def test_undeploy_and_resume_in_another_datastore(cloud: Cloud) -> None:
    flow = Flow("vm-undeploy-resume")
    images = start(cloud, flow)
    vm = run_vm(cloud, images)
    for host, datastore in (("kvm3", 101), ("kvm3", 102)):
        cloud.undeploy(vm)
        cloud.deploy(vm, host, cloud.datastore(datastore))
    cloud.poweroff(vm)
    cloud.undeploy(vm)
    cloud.terminate(vm)
    for image in images:
        cloud.delete_image(image)
    assert made_calls(cloud) == flow.calls()


def test_resize_and_its_failure(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("vm-resize")
    vm = run_vm(cloud, start(cloud, flow))
    for disk_id, size in ((1, 96), (0, 96), (2, 32)):
        cloud.resize_disk(vm, vm.disk(disk_id), size)
    assert cloud.image(50).size == 96
    driver.fail_once("tm", "resize")
    with pytest.raises(ActionFailed):
        cloud.resize_disk(vm, vm.disk(1), 128)
    assert vm.disk(1).size == 96
    cloud.poweroff(vm)
    cloud.resize_disk(vm, vm.disk(1), 192)
    # That virsh fails after a resize is a step which the stand-in does not have.
    steps = [step for step in _steps(flow) if step not in ("resize-virsh-fails", "cleanup")]
    assert made_calls(cloud) == flow.calls(*steps)


@contextmanager
def virsh_failing(folder: Path, command: str) -> Iterator[None]:
    """Let one of virsh's commands fail on every host."""
    ssh = folder / "bin" / "ssh"
    whole = ssh.read_text()
    ssh.write_text(f'#!/bin/sh\ncase "$*" in *{command}*) echo "error: injected failure" >&2; exit 1 ;; esac\n')
    yield
    ssh.write_text(whole)


def test_attach_and_detach(cloud: Cloud, driver: StubDriver, tmp_path: Path) -> None:
    flow = Flow("vm-attach")
    names = flow.image_names()
    vm = run_vm(cloud, start(cloud, flow))
    create_captured(cloud, names[37])
    create_captured(cloud, names[38], persistent=True)
    volatile = "DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=8]"
    templates = ("DISK=[IMAGE_ID=37]", "DISK=[IMAGE_ID=38]", volatile, "DISK=[TYPE=swap,SIZE=8]")
    for disk in [cloud.attach(vm, template) for template in templates]:
        cloud.detach(vm, disk)
    driver.fail_once("tm", "clone")
    with pytest.raises(ActionFailed):
        cloud.attach(vm, "DISK=[IMAGE_ID=37]")
    with virsh_failing(tmp_path, "attach-device"), pytest.raises(HypervisorFailed):
        cloud.attach(vm, "DISK=[IMAGE_ID=37]")
    assert [disk.disk_id for disk in vm.disks] == [0, 1, 2, 3]
    cloud.poweroff(vm)
    cloud.detach(vm, cloud.attach(vm, "DISK=[IMAGE_ID=37]"))
    steps = [step for step in _steps(flow) if step not in ("rm", "cleanup")]
    assert made_calls(cloud) == flow.calls(*steps)


def test_a_failed_prolog_is_retried_from_its_first_line(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("rec-prolog")
    images = start(cloud, flow)
    driver.fail_once("tm", "mkimage")
    with pytest.raises(ActionFailed, match="injected failure"):
        run_vm(cloud, images)
    vm = cloud.machines[-1]
    assert vm.lcm_state.name == "PROLOG_FAILURE"
    cloud.recover_retry(vm)
    cloud.recover_recreate(vm)
    cloud.deploy(vm, "kvm2", cloud.datastore(101))
    cloud.recover_delete(vm)
    steps = ("setup", "prolog-fails", "recover-retry", "recreate-running", "delete-running")
    assert made_calls(cloud) == flow.calls(*steps)
    cloud.enable_image(images[0])

    cloud.next_vm_id = 19
    driver.fail_once("tm", "context")
    before = len(cloud.calls)
    with pytest.raises(ActionFailed):
        run_vm(cloud, images)
    cloud.recover_retry(cloud.machines[-1])
    assert made_calls(cloud, before) == flow.calls("context-fails", "context-retry")


def test_a_failed_prolog_is_taken_for_done(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("rec-prolog")
    images = start(cloud, flow)
    cloud.next_vm_id = 16
    before = len(cloud.calls)
    driver.fail_once("tm", "clone")
    with pytest.raises(ActionFailed):
        run_vm(cloud, images)
    vm = cloud.machines[-1]
    cloud.recover_success(vm)
    assert vm.lcm_state.name == "RUNNING"
    assert made_calls(cloud, before) == flow.calls("prolog-fails2", "recover-success")


def test_a_failed_epilog_is_taken_for_done_and_the_rest_of_it_is_not_run(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("rec-epilog")
    images = start(cloud, flow)
    cloud.next_vm_id = 21
    before = len(cloud.calls)
    vm = run_vm(cloud, images)
    driver.fail_once("tm", "delete")
    with pytest.raises(ActionFailed):
        cloud.terminate(vm)
    assert vm.lcm_state.name == "EPILOG_FAILURE"
    cloud.recover_success(vm)
    assert vm.state.name == "DONE" and [image.vms for image in images] == [[], []]
    assert made_calls(cloud, before) == flow.calls("create2", "delete-fails", "success")


def test_failed_moves(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("rec-migrate")
    vm = run_vm(cloud, start(cloud, flow))
    for host, recover in (("kvm2", cloud.recover_retry), ("kvm1", cloud.recover_failure)):
        driver.fail_once("tm", "mv")
        with pytest.raises(ActionFailed):
            cloud.migrate_cold(vm, host)
        recover(vm)
    driver.fail_once("tm", "mv")
    with pytest.raises(ActionFailed):
        cloud.stop(vm)
    cloud.recover_retry(vm)
    driver.fail_once("tm", "mv")
    with pytest.raises(ActionFailed):
        cloud.deploy(vm, "kvm1", cloud.datastore(101))
    cloud.recover_retry(vm)
    for _ in ("restore-fails", "resume-ok"):
        cloud.suspend(vm)
        cloud.resume(vm)
    driver.fail_once("tm", "mv")
    with pytest.raises(ActionFailed):
        cloud.migrate_cold(vm, "kvm2")
    cloud.recover_delete(vm)
    assert made_calls(cloud) == flow.calls(*(step for step in _steps(flow) if step != "cleanup"))


def test_a_cdrom_is_linked(cloud: Cloud) -> None:
    flow = Flow("vm-cdrom")
    names = flow.image_names()
    cloud.next_image_id, cloud.next_request_id, cloud.next_vm_id = 77, 58, 27
    images = cloud.datastore(100)
    cdrom = cloud.create_image(images, "/var/srv-img64.raw", names[77], type="CDROM", attributes={"DEV_PREFIX": "hd"})
    other = create_captured(cloud, names[78])
    template = f'DISK=[IMAGE_ID={other.identifier}] DISK=[IMAGE_ID={cdrom.identifier}] CONTEXT=[NETWORK="NO"]'
    cloud.instantiate(template, "kvm1", cloud.datastore(101))
    assert made_calls(cloud) == flow.calls("setup", "create")


def test_images_from_files(cloud: Cloud) -> None:
    flow = Flow("img-create-file")
    names = flow.image_names()
    for number in (0, 1):
        create_captured(cloud, names[number], persistent=number == 1)
    assert made_calls(cloud) == flow.calls("create-nonpers", "create-persistent")
    assert_same_documents(cloud, flow, "create-nonpers", "create-persistent", monitors=True)


def test_datablocks(cloud: Cloud) -> None:
    flow = Flow("img-datablock")
    names = flow.image_names()
    cloud.next_image_id = 5
    images = cloud.datastore(100)
    cloud.create_datablock(images, 32, name=names[5], attributes={"DEV_PREFIX": "vd"})
    cloud.create_datablock(images, 32, "ext4", names[6], persistent=True)
    cloud.create_datablock(images, 32, name=names[7])
    steps = ("raw", "fs-ext4", "no-format")
    assert made_calls(cloud) == flow.calls(*steps)
    assert_same_documents(cloud, flow, *steps)
    cloud.delete_image(cloud.image(5))
    removed = next(record for record in flow.step_records("delete") if record["action"] == "rm")
    made = next(call for call in cloud.calls if call.verb == "rm")
    others = [leaf for leaf in leaves(removed["stdin"]) if not leaf[0].startswith("DATASTORE/IMAGES")]
    assert [leaf for leaf in leaves(made.action_data) if not leaf[0].startswith("DATASTORE/IMAGES")] == others


def test_clones_also_into_another_datastore(cloud: Cloud) -> None:
    flow = Flow("img-clone")
    clones = [record for record in flow.records if record["action"] == "clone"][:2]
    names = flow.image_names()
    cloud.next_image_id = 10
    original = create_captured(cloud, names[10])
    cloud.clone_image(original, names[11])
    cloud.clone_image(original, names[12], cloud.datastore(103))
    made = [call for call in cloud.calls if call.verb == "clone"]
    assert [call.argv for call in made] == [record["argv"] for record in clones]
    assert [leaves(call.action_data) for call in made] == [leaves(record["stdin"]) for record in clones]


def test_failures_of_image_actions(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("img-failures")
    names = flow.image_names()
    cloud.next_image_id, cloud.next_request_id = 13, 7
    images = cloud.datastore(100)
    driver.fail_once("datastore", "cp")
    with pytest.raises(ActionFailed):
        create_captured(cloud, names[13])
    cloud.delete_image(cloud.image(13))
    driver.fail_once("datastore", "mkfs")
    with pytest.raises(ActionFailed):
        cloud.create_datablock(images, 32, name=names[14])
    cloud.delete_image(cloud.image(14))
    driver.fail_once("datastore", "stat")
    with pytest.raises(ActionFailed):
        create_captured(cloud, "never")
    original = create_captured(cloud, names[15])
    driver.fail_once("datastore", "clone")
    with pytest.raises(ActionFailed):
        cloud.clone_image(original, names[16])
    driver.fail_once("datastore", "rm")
    with pytest.raises(ActionFailed):
        cloud.delete_image(original)
    assert original.state.name == "ERROR"
    cloud.delete_image(original, force=True)
    assert made_calls(cloud) == flow.calls()


def test_snapshots_of_disks_and_of_the_image_afterwards(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("vm-snapshots")
    images = start(cloud, flow)
    vm = run_vm(cloud, images)
    persistent, copied = vm.disk(0), vm.disk(1)
    gone = cloud.snapshot_create(vm, copied, "s0")
    first, second = (cloud.snapshot_create(vm, persistent, name) for name in ("s0", "s1"))
    with pytest.raises(Refused, match="wrong state RUNNING"):
        cloud.snapshot_revert(vm, persistent, first)
    cloud.snapshot_delete(vm, copied, gone)
    driver.fail_once("tm", "snap_create_live")
    with pytest.raises(ActionFailed):
        cloud.snapshot_create(vm, persistent, "sf")
    cloud.poweroff(vm)
    cloud.snapshot_create(vm, persistent, "s2")
    cloud.snapshot_create(vm, copied, "s1")
    cloud.snapshot_revert(vm, persistent, first)
    for verb, attempt in (("snap_revert", cloud.snapshot_revert), ("snap_delete", cloud.snapshot_delete)):
        driver.fail_once("tm", verb)
        with pytest.raises(ActionFailed):
            attempt(vm, persistent, second)
    captured = (CAPTURES / "api" / "vm-11.xml").read_text(encoding="utf-8")
    assert snapshot_elements(vm.xml()) == snapshot_elements(captured)
    cloud.migrate_cold(vm, "kvm2")
    cloud.migrate_cold(vm, "kvm2", cloud.datastore(102))
    cloud.terminate(vm)
    cloud.image_snapshot_revert(images[0], 3)
    cloud.image_snapshot_delete(images[0], 0)
    with pytest.raises(Refused, match="Cannot clone images with snapshots"):
        cloud.clone_image(images[0])
    cloud.image_snapshot_flatten(images[0], 3)
    for image in images:
        cloud.delete_image(image)
    assert made_calls(cloud) == flow.calls()
    assert_same_documents(cloud, flow)


def snapshot_elements(document: str) -> list[tuple[str, str]]:
    return [
        (path, text.strip()) for path, text in leaves(document) if path.startswith("SNAPSHOTS") and "DATE" not in path
    ]


def test_disks_saved_as_images(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("vm-saveas")
    vm = run_vm(cloud, start(cloud, flow))
    names = flow.image_names()
    persistent, copied = vm.disk(0), vm.disk(1)
    cloud.disk_saveas(vm, copied, names[43])
    cloud.disk_saveas(vm, persistent, names[44])
    cloud.snapshot_create(vm, copied, "s0")
    cloud.disk_saveas(vm, copied, names[45], 0)
    for kind, verb, number in (("datastore", "mkfs", 46), ("tm", "cpds", 47)):
        driver.fail_once(kind, verb)
        with pytest.raises(ActionFailed):
            cloud.disk_saveas(vm, copied, names[number])
        assert cloud.image(number).state.name == "ERROR"
    cloud.poweroff(vm)
    assert cloud.disk_saveas(vm, copied, names[48]).state.name == "READY"
    with pytest.raises(Refused, match="valid IMAGE_ID"):
        cloud.disk_saveas(vm, vm.disk(2), "volatile")
    cloud.resume(vm)
    cloud.suspend(vm)
    cloud.disk_saveas(vm, persistent, names[49])
    steps = [step for step in _steps(flow) if step not in ("rm", "cleanup")]
    assert made_calls(cloud) == flow.calls(*steps)
    assert_same_documents(cloud, flow, *steps)


def test_live_migration_and_its_failures(cloud: Cloud, driver: StubDriver, tmp_path: Path) -> None:
    flow = Flow("vm-migrate-live")
    vm = run_vm(cloud, start(cloud, flow))
    cloud.migrate_live(vm, "kvm2")
    cloud.migrate_live(vm, "kvm1")
    with virsh_failing(tmp_path, "migrate"), pytest.raises(HypervisorFailed, match="injected failure"):
        cloud.migrate_live(vm, "kvm2")
    assert (vm.host, vm.lcm_state.name) == ("kvm1", "RUNNING")
    driver.fail_once("tm", "premigrate")
    with pytest.raises(ActionFailed):
        cloud.migrate_live(vm, "kvm2")
    assert vm.host == "kvm1"
    driver.fail_once("tm", "postmigrate")
    cloud.migrate_live(vm, "kvm2")
    assert (vm.host, vm.lcm_state.name) == ("kvm2", "RUNNING")
    steps = [step for step in _steps(flow) if step != "cleanup"]
    assert made_calls(cloud) == flow.calls(*steps)
    captured = [record["stdin"] for record in flow.records if "migrate" in record["action"]]
    made = [call.action_data for call in cloud.calls if "migrate" in call.verb]
    for one, other in zip(made, captured):
        assert without_sequence(one) == without_sequence(other)


def test_images_in_a_system_datastore_of_ssh(cloud: Cloud, driver: StubDriver, tmp_path: Path) -> None:
    flow = Flow("sysds-ssh-mixed")
    system, images = _mixed_datastores(cloud, driver)
    names = flow.image_names()
    cloud.next_image_id, cloud.next_vm_id = min(names), 31
    made = [cloud.create_image(images, IMAGE, names[81 + number], number == 0, attributes=VIRTIO) for number in (0, 1)]
    disks = " ".join(f"DISK=[IMAGE_ID={image.identifier}]" for image in made)
    vm = cloud.instantiate(f"{disks} DISK=[TYPE=fs,FORMAT=raw,SIZE=8] CONTEXT=[NETWORK=NO]", "kvm1", system)
    relayed = tmp_path / "relayed"
    write_script(driver.remotes / "tm/linstor_un/premigrate", f'#!/bin/sh\necho "$@" > {relayed}\ncat >> {relayed}\n')
    cloud.migrate_live(vm, "kvm2")
    cloud.migrate_cold(vm, "kvm3", poff=False)
    cloud.snapshot_create(vm, vm.disks[0])
    cloud.delete_image(cloud.disk_saveas(vm, vm.disks[1], names[83]))
    cloud.resize_disk(vm, vm.disks[1], 96)
    attached = cloud.create_image(images, IMAGE, names[84], attributes=VIRTIO)
    cloud.detach(vm, cloud.attach(vm, f"DISK=[IMAGE_ID={attached.identifier}]"))
    cloud.delete_image(attached)
    cloud.undeploy(vm)
    cloud.deploy(vm, "kvm1", system)
    cloud.terminate(vm)
    for image in made:
        cloud.delete_image(image)
    # Of the transfer drivers' calls those of linstor_un, which ssh does not relay.
    ours = [call for call in made_calls(cloud) if call[0] == "ds" or "." in call[1]]
    assert ours == [call for call in flow.calls() if "migrate" not in call[1]]
    captured = next(record for record in flow.records if record["action"] == "premigrate")
    arguments, encoded = relayed.read_text().split("\n", 1)
    assert arguments.split() == captured["argv"]
    ignored = ("TEMPLATE/CONTEXT/", "TEMPLATE/AUTOMATIC", "TEMPLATE/SCHED")
    documents = [base64.b64decode(encoded).decode(), captured["stdin"]]
    one, other = ([leaf for leaf in without_sequence(text) if not leaf[0].startswith(ignored)] for text in documents)
    assert one == other


def _mixed_datastores(cloud: Cloud, driver: StubDriver) -> tuple[Datastore, Datastore]:
    """106 and 107 of the capture; what ssh does on hosts is left out, since there are none."""
    other_storages.install(driver.remotes, cloud.frontend)
    for verb in ("context", "mkimage", "mv", "delete"):
        write_script(driver.remotes / "tm/ssh" / verb, "#!/bin/sh\n")
    cloud.tm_mad_confs["ssh"] = other_storages.tm_mad_conf("ssh")
    conf = cloud.tm_mad_confs["linstor_un"]
    conf.update(CLONE_TARGET="SELF", TM_MAD_SYSTEM="ssh", LN_TARGET_SSH="NONE", CLONE_TARGET_SSH="SELF")
    conf["DISK_TYPE_SSH"] = "BLOCK"
    cloud.first_datastore_id += 2
    system = cloud.create_datastore('NAME="sys-ssh" TYPE="SYSTEM_DS" TM_MAD="ssh"')
    images = cloud.create_datastore(
        'NAME="lin-ssh-50284" TYPE="IMAGE_DS" DS_MAD="linstor_un" TM_MAD="linstor_un" SAFE_DIRS="/var/tmp /tmp" '
        'RESTRICTED_DIRS="/"'
    )
    assert (system.identifier, images.identifier) == (106, 107)
    return system, captured_capacity(images)


def without_sequence(document: str) -> list[tuple[str, str]]:
    """The VM as its drivers see it; what oned counts in its history is its own."""
    return [leaf for leaf in leaves(document) if not leaf[0].startswith(BOOKKEEPING)]


def test_live_migration_within_a_host(cloud: Cloud) -> None:
    flow = Flow("vm-migrate-ds")
    vm = run_vm(cloud, start(cloud, flow))
    cloud.migrate_cold(vm, "kvm1", cloud.datastore(102), poff=False)
    cloud.migrate_cold(vm, "kvm2", cloud.datastore(101), poff=False)
    cloud.migrate_live(vm, "kvm2", cloud.datastore(102))
    with pytest.raises(Refused, match="Cannot live migrate host and datastore at the same time"):
        cloud.migrate_live(vm, "kvm3", cloud.datastore(101))
    cloud.poweroff(vm)
    cloud.migrate_cold(vm, "kvm2", cloud.datastore(101))
    assert made_calls(cloud) == flow.calls(*(step for step in _steps(flow) if step != "cleanup"))


def test_older_releases_call_nothing_after_a_failed_premigrate(cloud: Cloud, driver: StubDriver) -> None:
    cloud.release = Release.parse("6.10")
    vm = run_vm(cloud, start(cloud, Flow("vm-migrate-live")))
    driver.fail_once("tm", "premigrate")
    with pytest.raises(ActionFailed):
        cloud.migrate_live(vm, "kvm2")
    assert cloud.calls[-1].verb == "premigrate"


def test_overrides_of_save_and_restore(cloud: Cloud, driver: StubDriver) -> None:
    flow = Flow("save-local")
    driver.override_save_and_restore()
    vm = run_vm(cloud, start(cloud, flow))
    vm.deploy_id = next(record["argv"][0] for record in flow.records if record["type"] == "vmm")
    cloud.suspend(vm)
    cloud.resume(vm)
    cloud.migrate_cold(vm, "kvm2", poff=False)
    assert made_calls(cloud) == flow.calls(*(step for step in _steps(flow) if step != "cleanup"))
    captured = [record["stdin"] for record in flow.records if record["type"] == "vmm"]
    made = [call.action_data for call in cloud.calls if call.kind == "vmm"]
    assert len(made) == len(captured) == 4
    for one, other in zip(made, captured):
        assert seen_by_overrides(one) == seen_by_overrides(other)


def seen_by_overrides(document: str) -> dict[str, str]:
    """What is in a message to the hypervisor's driver, without what is only there for one_vmm_exec itself."""
    text = re.sub(r"/[\w/]*//datastores", "/var/lib/one//datastores", document)
    names = ("TM_COMMAND", "DISK_TARGET_PATH", "VM/TEMPLATE/AUTO", *(f"VM/{name}" for name in BOOKKEEPING))
    return {path: found.strip() for path, found in leaves(text) if not path.startswith(names)}


# What the recording driver of the captures was not asked: the backup datastore's own driver.
OF_BACKUPS = ("backup", "increment_flatten", "stat")
CHAIN = ("706c50", "80f6f1", "8e261f")


def backup_datastore(cloud: Cloud, driver: StubDriver, folder: Path, *sources: str) -> tuple[Datastore, BackupServer]:
    """A backup datastore whose `backup` prints these, one after the other."""
    server = BackupServer(driver.remotes, folder / "backups")
    (folder / "sources").write_text("".join(f"{source} 3 raw\n" for source in sources))
    next_one = f"#!/bin/sh\ncat >/dev/null; sed -n 1p {folder}/sources; sed -i 1d {folder}/sources\n"
    write_script(driver.remotes / "datastore" / "rsync" / "backup", next_one)
    return cloud.create_datastore(BACKUPS), server


def backup_calls(cloud: Cloud, since: int) -> list[Call]:
    return [call for call in made_calls(cloud, since) if call[1] not in OF_BACKUPS]


def assert_same_vms(cloud: Cloud, flow: Flow) -> None:
    """What the scripts of backups are told of the VM, without what an updateconf on the way has dropped from it."""
    captured = [record["stdin"] for record in flow.records if "backup" in record["action"]]
    made = [call.stdin for call in cloud.calls if call.kind == "tm" and "backup" in call.verb]
    assert len(made) == len(captured) > 0
    for one, other in zip(made, captured):
        assert as_seen_by_backups(one) == as_seen_by_backups(other)


def as_seen_by_backups(document: str) -> list[tuple[str, str]]:
    return [leaf for leaf in without_sequence(document) if not leaf[0].startswith(("TEMPLATE/AUTO", "TEMPLATE/OS"))]


def test_full_backups_and_restores(cloud: Cloud, driver: StubDriver, tmp_path: Path) -> None:
    flow = Flow("vm-backup")
    datastore, server = backup_datastore(cloud, driver, tmp_path, "6a7236", "6a7237", "6a7238")
    images = start(cloud, flow)
    config = 'BACKUP_CONFIG=[BACKUP_VOLATILE="NO",FS_FREEZE="NONE",KEEP_LAST="4",MODE="FULL"] '
    three_disks = FOUR_DISKS.replace("DISK=[TYPE=swap,SIZE=16] ", "").format(
        persistent=images[0].identifier, other=images[1].identifier
    )
    vm = cloud.instantiate(config + three_disks, "kvm1", cloud.datastore(101))
    vm.deploy_id = flow.step_records("full-live")[0]["argv"][2]
    since = len(cloud.calls)
    assert cloud.backup(vm, datastore).identifier == 62
    driver.fail_once("tm", "prebackup_live")
    with pytest.raises(ActionFailed):
        cloud.backup(vm, datastore)
    assert vm.lcm_state.name == "RUNNING"
    cloud.backup(vm, datastore, backup_volatile=True)
    cloud.poweroff(vm)
    last = cloud.backup(vm, datastore)
    assert (vm.state, last.identifier, last.vms) == (VmState.POWEROFF, 64, [23])
    cloud.restore_in_place(vm, last)
    cloud.restore_in_place(vm, last, disk=1)
    steps = [step for step in _steps(flow) if "full" in step or "fails" in step or "inplace" in step]
    assert backup_calls(cloud, since) == flow.calls(*steps)
    assert_same_vms(cloud, flow)

    stored = server.stored(104, 23, last.source)
    stored.mkdir(parents=True)
    (stored / "vm.xml").write_bytes(base64.b64encode(vm.xml().encode()))
    for disk in range(3):
        (stored / f"disk.{disk}.0").touch()
    restored = cloud.restore_to_new_images(last, cloud.datastore(100))
    assert [image.state.name for image in restored] == ["READY"] * 3
    captured = flow.step_records("restore-to-new-images")[0]["stdin"]
    made = [call.action_data for call in cloud.calls if call.verb == "cp"][-2]
    assert of_restored_disk(made) == of_restored_disk(captured)


def of_restored_disk(document: str) -> list[tuple[str, str]]:
    return [leaf for leaf in leaves(document) if leaf[0] != "IMAGE/ID" and not leaf[0].startswith("DATASTORE/IMAGES")]


def test_increments(cloud: Cloud, driver: StubDriver, tmp_path: Path) -> None:
    flow = Flow("vm-backup-incr")
    datastore, server = backup_datastore(cloud, driver, tmp_path, *CHAIN)
    images = start(cloud, flow)
    config = 'BACKUP_CONFIG=[FS_FREEZE="NONE",KEEP_LAST="2",MODE="INCREMENT",INCREMENT_MODE="SNAPSHOT"] '
    disks = FOUR_DISKS.format(persistent=images[0].identifier, other=images[1].identifier)
    vm = cloud.instantiate(config + disks, "kvm1", cloud.datastore(101))
    vm.deploy_id = flow.step_records("incr-0")[0]["argv"][2]
    since = len(cloud.calls)
    server.fail("increment_flatten")
    for _ in CHAIN:
        image = cloud.backup(vm, datastore)
    assert backup_calls(cloud, since) == flow.calls("incr-0", "incr-1", "incr-2-flatten")
    assert_same_vms(cloud, flow)
    assert "Error flattening backup increments: " in image.attributes.pop("ERROR")
    shown = etree.fromstring((CAPTURES / "api" / "images.xml").read_bytes())[0]
    (shown_error,) = shown.iter("ERROR")
    shown_error.getparent().remove(shown_error)
    datastore.name, image.datastore = "backup-rsync", "backup-rsync"
    assert of_pool(image.xml(cloud.release)) == of_pool(etree.tostring(shown, encoding="unicode"))
    shown_vm = (CAPTURES / "api" / "vm-24.xml").read_text(encoding="utf-8")
    assert of_pool(vm.xml(), "BACKUPS") == of_pool(shown_vm, "BACKUPS")


def of_pool(document: str, below: str = "") -> list[tuple[str, str]]:
    """Without the white space with which a command prints it; what a backup is called has a time in it."""
    return [(path, text.strip()) for path, text in leaves(document) if path.startswith(below) and path != "NAME"]


def test_export_to_a_marketplace(cloud: Cloud) -> None:
    flow = Flow("market-export")
    cloud.next_image_id = 71
    image = create_captured(cloud, flow.image_names()[71])
    cloud.datastore(100).images = [65, 66, 67, 71]
    call = cloud.export_image(image)
    record = next(record for record in flow.records if record["action"] == "export")
    assert call.argv == record["argv"]
    assert {(path, text.strip()) for path, text in leaves(call.action_data)} == {
        (path, text.strip()) for path, text in leaves(record["stdin"])
    }


def test_datastores_as_xmlrpc_shows_them(cloud: Cloud) -> None:
    captured = (CAPTURES / "api" / "rpc-ds-100.xml").read_text(encoding="utf-8")
    shown = cloud.datastore(100)
    shown.images = [65, 66, 67]
    assert leaves(shown.xml()) == leaves(captured)


def test_size_of_a_persistent_image_is_refused(cloud: Cloud) -> None:
    image = create_captured(cloud, "persistent", persistent=True)
    with pytest.raises(Refused, match="SIZE attribute is not supported for persistent image"):
        cloud.create_vm(f"DISK=[IMAGE_ID={image.identifier},SIZE=128]", cloud.datastore(101))


def _steps(flow: Flow) -> list[str]:
    return list(dict.fromkeys(record["step"] for record in flow.records))
