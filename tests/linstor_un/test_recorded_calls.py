"""Every call that a real oned made, argument by argument, flow by flow.

The recordings are in ../shared/opennebula-calls. Left out are the hook that current releases no longer call, LEFT_OUT,
and the calls that the recording driver was told to fail: it did nothing in them.
"""

from __future__ import annotations

import base64
import functools
import gzip
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from lxml import etree

from linstor_sandbox.opennebula import LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.backup_server import TEMPLATE as BACKUPS
from linstor_sandbox.opennebula.backups import Increment
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.images import Image
from linstor_sandbox.opennebula.machines import Disk
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import CHECKOUT, SHARED, World
from tests.linstor_sandbox.opennebula.captured import CAPTURED_DATASTORES
from tests.linstor_un.scenes import MIB, attached, content, links, post, volumes

CAPTURES = SHARED / "opennebula-calls"
FLOWS = sorted(path.stem for path in CAPTURES.glob("*.json"))
HOSTS = ("kvm1", "kvm2", "kvm3")
FRONTEND = "onefe"
RECORDED_IMAGE = "/var/srv-img64.raw"
RECORDED_SITE = "http://images.example.org"
REPLAYED = {
    "ds": {"stat", "cp", "mkfs", "clone", "rm", "monitor", "export", "snap_revert", "snap_delete", "snap_flatten"},
    "tm": {
        *("clone", "ln", "mkimage", "mkswap", "context", "mv", "mvds", "delete", "resize", "monitor", "cpds"),
        *("snap_create", "snap_create_live", "snap_delete", "snap_revert"),
        *("premigrate", "postmigrate", "failmigrate"),
        *("prebackup", "prebackup_live", "postbackup", "postbackup_live", "restore"),
    },
    "vmm": {"save_linstor_un", "restore_linstor_un"},
}
LEFT_OUT = {"vmm": {"restore"}}
# The images that oned made of the last full backup and of the increments, and the folder of the former.
FULL_BACKUP, INCREMENTS, FULL_SOURCE = 64, 70, "6a7238"
BACKUP_DATASTORE = 104
# Verbs that need a guest: in their flows what virsh was told is done too.
OF_GUESTS = {"snap_create_live", "cpds", "premigrate", "save_linstor_un"}
DEPLOYMENT = re.compile(r"/datastores/\d+/(\d+)/deployment\.\d+$")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IMAGE_MIB = 64
# What a call's record does not say and its flow's index does: VM 2's disk was asked for in another size.
SIZES = {(2, 0): 128}
DISK_PATH = re.compile(r"(\w+):/var/lib/one//datastores/(\d+)/(\d+)(?:/disk\.(\d+))?$")

pytestmark = [
    pytest.mark.skipif(not FLOWS, reason="the recordings (../shared/opennebula-calls) are not beside the checkout"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A web server with the recorded images, and its folder."""
    folder = tmp_path_factory.mktemp("site")
    image = folder / "img64.raw"
    with image.open("wb") as file:
        file.write(content(64))
        file.truncate(IMAGE_MIB * MIB)
    (folder / "img64.raw.gz").write_bytes(gzip.compress(image.read_bytes(), 1))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(image), str(folder / "img64.qcow2")], check=True)
    (folder / "market").mkdir()
    (folder / "market" / "b98b0208f704d6a099084d420033cf8a").symlink_to(image)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()


def verb_of(record: dict[str, Any]) -> str:
    """The verb without the suffix of another system datastore's driver: one_tm falls back to it."""
    return str(record["action"]).partition(".")[0]


def is_ours(record: dict[str, Any]) -> bool:
    return record["type"] in REPLAYED and verb_of(record) in REPLAYED[record["type"]]


def is_replayed(record: dict[str, Any]) -> bool:
    return is_ours(record) and not record["exit_code"]


class Replay:
    """One flow: oned's knowledge of its VMs grows with its calls."""

    def __init__(self, world: World, flow: str, site: str, folder: Path) -> None:
        self.world = world
        self.records: list[dict[str, Any]] = json.loads((CAPTURES / f"{flow}.json").read_text(encoding="utf-8"))
        self.site = site
        self.folder = folder
        self.expected: set[str] = set()
        self.has_guests = any(verb_of(record) in OF_GUESTS for record in self.records)
        self.has_overrides = any(record["type"] == "vmm" for record in self.records)
        self.moved: list[str] = []
        self.persistent: dict[int, bool] = {}
        self.sizes: dict[int, int] = {}
        has_backups = any("backup" in record["action"] for record in self.records)
        self.server = world.install_backups()[1] if has_backups else None
        world.cloud.datastores.clear()
        for template in (*CAPTURED_DATASTORES, BACKUPS):
            world.cloud.create_datastore(template)
        assert world.cloud.datastores[-1].identifier == BACKUP_DATASTORE
        self._add_mixed_datastores()
        post(
            world,
            "/v1/resource-groups",
            {"name": "opennebula", "select_filter": {"place_count": 2, "storage_pool": "data"}},
        )

    def _add_mixed_datastores(self) -> None:
        """106 is an ssh system datastore, 107 the image datastore whose VMs run in it."""
        if any(record["action"] == "mv.ssh" for record in self.records):
            self.world.install_other_storages()
        ssh = {"TM_MAD": "ssh", "TYPE": "SYSTEM_DS", "SHARED": "NO"}
        images = {"TM_MAD": "linstor_un", "DS_MAD": "linstor_un", "TM_MAD_SYSTEM": "ssh", "DISK_TYPE": "BLOCK"}
        self.world.cloud.datastores += [
            Datastore(106, "ssh-system", "SYSTEM_DS", ssh),
            Datastore(107, "lin-ssh", "IMAGE_DS", images),
        ]

    def run(self) -> None:
        for record in self.records:
            self._move_as_ssh_does(record)
            if record["type"] == "virsh" and self.has_guests and not record["exit_code"]:
                self._hypervise(record)
            if "migrate" in record["action"] and record["type"] == "tm":
                self._learn_of_migration(record)
            elif record["type"] == "tm" and record["action"] != "monitor":
                self._learn_of_machine(record)
            if record["type"] == "ds":
                self._learn_of_image(record)
            if is_replayed(record):
                self._compare(record, self._call(record))
                self._expect(record)
                if verb_of(record).startswith("prebackup"):
                    self._store(record)
            if record["step"] == "attach" and record["action"].startswith("delete"):
                self._forget_disk(record)

    def _hypervise(self, record: dict[str, Any]) -> None:
        """What libvirt did between the driver's calls."""
        verb, hypervisor = record["action"], self.world.cloud.hypervisor
        words = record["argv"][1:]
        if verb == "create":
            match = DEPLOYMENT.search(words[-1])
            assert match
            hypervisor.start(self._machine(int(match.group(1))))
            return
        vm = next((vm for vm in self.world.cloud.machines if _is_named(vm, words)), None)
        if vm is None or (self.has_overrides and verb in ("save", "restore")):
            return
        if verb in ("destroy", "shutdown"):
            hypervisor.end(vm)
        elif verb == "migrate":
            hypervisor.migrate(vm, record["host"])
        elif verb == "save":
            hypervisor.save(vm, next(item for item in reversed(vm.history) if item.host == record["host"]))
        elif verb == "restore":
            hypervisor.restore(vm)

    def _store(self, record: dict[str, Any]) -> None:
        """What the backup datastore does with the files that were made, and what oned then knows."""
        match = DISK_PATH.match(record["argv"][0])
        assert match and self.server
        host, datastore, vm_id, _ = match.groups()
        config = {
            item.tag: item.text or "" for item in etree.fromstring(record["stdin"]).iterfind(".//BACKUP_CONFIG/*")
        }
        is_increment = config["MODE"] == "INCREMENT"
        number = int(config["LAST_INCREMENT_ID"]) + 1 if is_increment else 0
        source = f"{number:06x}" if is_increment else FULL_SOURCE
        staged = self.world.sandbox.host(host) / f"var/lib/one/datastores/{datastore}/{vm_id}/backup"
        disks = {f"disk.{disk_id}.{number}" for disk_id in record["argv"][1].split(":")}
        assert {path.name for path in staged.iterdir()} == {"vm.xml", *disks}, record["step"]
        assert not number or all((staged / disk).stat().st_size < MIB for disk in disks), record["step"]
        target = self.server.stored(BACKUP_DATASTORE, int(vm_id), source)
        shutil.copytree(staged, target, dirs_exist_ok=True)
        image = self._backup_image(INCREMENTS if is_increment else FULL_BACKUP, int(vm_id))
        image.source = source
        if is_increment:
            kind = "INCREMENT" if number else "FULL"
            image.increments.append(Increment(number, number - 1, source, 1, kind))

    def _backup_image(self, identifier: int, vm_id: int) -> Image:
        images = self.world.cloud.images
        found = next((image for image in images if image.identifier == identifier), None)
        if found is None:
            found = Image(identifier, "backup", BACKUP_DATASTORE, "backups", type="BACKUP", vms=[vm_id])
            images.append(found)
        return found

    # --- what oned knows --------------------------------------------------------------------------------------------

    def _learn_of_image(self, record: dict[str, Any]) -> None:
        image = etree.fromstring(record["stdin"].encode()).find("IMAGE")
        if image is not None and record["action"] in ("cp", "mkfs", "clone"):
            number = int(image.findtext("ID", ""))
            self.persistent[number] = image.findtext("PERSISTENT") == "1"
            self.sizes[number] = int(image.findtext("SIZE", ""))

    def _forget_disk(self, record: dict[str, Any]) -> None:
        """A disk whose hot attach has failed is none of the VM's any more."""
        vm = self._machine(int(record["argv"][1]))
        vm.disks = [disk for disk in vm.disks if not record["argv"][0].endswith(f"/disk.{disk.disk_id}")]

    def _move_as_ssh_does(self, record: dict[str, Any]) -> None:
        """Behind the lines of the disks, move the directory: that line is the ssh driver's, and not recorded."""
        is_its = record["action"] == "mv.ssh"
        ends = [argument.rpartition("/")[0] for argument in record["argv"][:2]] if is_its else []
        if self.moved and self.moved != ends:
            call = self.world.cloud.scripts.transfer_line(f"MV ssh {' '.join(self.moved)} 31 106")
            assert call.succeeded, call.stderr
        self.moved = ends

    def _learn_of_migration(self, record: dict[str, Any]) -> None:
        """The VM is where it goes to while it migrates, and where it was again when that has failed."""
        # A sixth argument names the system datastore's driver that relays.
        _, target, _, vm_id, datastore = record["argv"][:5]
        vm, system = self._machine(int(vm_id)), self.world.cloud.datastore(int(datastore))
        if record["action"] == "premigrate":
            vm.place(target, HOSTS.index(target), system)
        vm.become(VmState.ACTIVE, LcmState.MIGRATE)

    def _learn_of_failure(self, record: dict[str, Any]) -> None:
        source = record["argv"][0]
        vm = self._machine(int(record["argv"][3]))
        vm.place(source, HOSTS.index(source), vm.current.datastore)

    def _learn_of_machine(self, record: dict[str, Any]) -> None:
        argv = record["argv"]
        places = [match for match in map(DISK_PATH.match, argv) if match]
        if not places:
            return
        host, datastore, vm_id, disk_id = places[-1].groups()
        vm = self._machine(int(vm_id))
        system = self.world.cloud.datastore(int(datastore))
        known = bool(vm.history)
        if host != FRONTEND and (not known or vm.host != host or vm.current.datastore is not system):
            cleaning_the_source = record["action"] == "delete" and known and host in {item.host for item in vm.history}
            if not cleaning_the_source:
                vm.place(host, HOSTS.index(host), system)
        if disk_id is not None:
            self._learn_of_disk(vm, int(disk_id), record, system)
        self._set_state(vm, record, places)

    def _machine(self, identifier: int) -> VirtualMachine:
        cloud = self.world.cloud
        found = next((vm for vm in cloud.machines if vm.identifier == identifier), None)
        if found is None:
            found = VirtualMachine(identifier, f"vm-{identifier}", self._domain(identifier), {"MEMORY": "128"})
            cloud.machines.append(found)
        return found

    def _domain(self, vm_id: int) -> str:
        """The id that the recorded commands of virsh have for a VM's domain: of the commands behind its start."""
        is_its = False
        for record in self.records if self.has_guests else ():
            words = record["argv"]
            match = DEPLOYMENT.search(words[-1]) if record["type"] == "virsh" and words else None
            is_its = int(match.group(1)) == vm_id if match else is_its
            found = next((word for word in words if UUID.fullmatch(word)), None)
            if is_its and found and record["type"] in ("virsh", "vmm"):
                return str(found)
        return f"uuid-{vm_id}"

    def _learn_of_disk(self, vm: VirtualMachine, disk_id: int, record: dict[str, Any], system: Datastore) -> None:
        verb = verb_of(record)
        attributes = {"DISK_ID": str(disk_id), "TM_MAD": "linstor_un", "TARGET": f"vd{'abcdefghijklmnop'[disk_id]}"}
        if verb in ("mkimage", "mkswap"):
            attributes.update(SIZE=record["argv"][0], TYPE="fs" if verb == "mkimage" else "swap", FORMAT="raw")
            attributes.update(DATASTORE_ID=str(system.identifier))
        elif verb in ("clone", "ln"):
            source = record["argv"][0].partition(":")[2]
            image = int(source.rpartition("one-image-")[2].split("/")[0])
            size = SIZES.get((vm.identifier, disk_id), self.sizes[image])
            linked = verb == "ln"
            attributes.update(IMAGE_ID=str(image), SOURCE=source, CLONE="NO" if linked else "YES", SIZE=str(size))
            attributes.update(ORIGINAL_SIZE=str(self.sizes[image]), TYPE="BLOCK", DATASTORE_ID=record["argv"][-1])
            if linked and not self.persistent[image]:
                attributes.update(TYPE="CDROM", READONLY="YES")
        else:
            return
        with self.world.cloud.lock:
            others = [disk for disk in vm.disks if disk.disk_id != disk_id]
            vm.disks = sorted([*others, Disk(attributes)], key=lambda disk: disk.disk_id)

    def _set_state(self, vm: VirtualMachine, record: dict[str, Any], places: list[re.Match[str]]) -> None:
        verb, step = verb_of(record), record["step"]
        plugging = "attach" in step or "detach" in step
        if verb == "mv":
            source, target = places[0].group(1), places[1].group(1)
            parks = LcmState.EPILOG_STOP if "stop" in step else LcmState.EPILOG_UNDEPLOY
            returns = LcmState.PROLOG_RESUME if "resume" in step else LcmState.PROLOG_UNDEPLOY
            state = parks if target == FRONTEND else returns if source == FRONTEND else LcmState.PROLOG_MIGRATE
        elif verb == "cpds":
            runs = vm.identifier in self.world.cloud.hypervisor.running
            state = LcmState.HOTPLUG_SAVEAS if runs else LcmState.HOTPLUG_SAVEAS_POWEROFF
        elif verb == "resize":
            state = LcmState.DISK_RESIZE_POWEROFF if "poweroff" in step else LcmState.DISK_RESIZE
        elif verb in ("mvds", "delete"):
            state = LcmState.HOTPLUG if plugging else LcmState.EPILOG
        else:
            state = LcmState.HOTPLUG if plugging else LcmState.PROLOG
        vm.become(VmState.ACTIVE, state)

    # --- the call ---------------------------------------------------------------------------------------------------

    def _here(self, text: str) -> str:
        """The recorded text, but for the paths and the host that belong to the machine of the recording."""
        text = text.replace(RECORDED_IMAGE, str(self.folder / "img64.raw")).replace(RECORDED_SITE, self.site)
        return text.replace("<![CDATA[/var/tmp /tmp]]></SAFE_DIRS>", f"<![CDATA[{self.folder}]]></SAFE_DIRS>")

    def _call(self, record: dict[str, Any]) -> Call:
        scripts = self.world.cloud.scripts
        if "backup" in record["action"]:
            return scripts.migration("linstor_un", record["action"], record["argv"], record["stdin"])
        if record["stdin"] and "migrate" in record["action"]:
            data = base64.b64encode(record["stdin"].encode()).decode()
            return scripts.migration("linstor_un", record["action"], record["argv"], data)
        if record["type"] == "vmm":
            document = re.sub(r"/[\w/]*//datastores", "/var/lib/one//datastores", record["stdin"])
            data = base64.b64encode(document.encode()).decode()
            vm = self._machine(int(record["argv"][3]))
            mark = self.world.cloud.hypervisor
            (mark.saved if record["action"].startswith("save") else mark.restored)(vm)
            return scripts.local_action(record["action"], record["argv"], data)
        if record["type"] == "tm" and record["action"] != "monitor":
            argv = record["argv"]
            if record["action"] == "context":
                argv = [self._context(argv[0]), *argv[1:]]
            assert not record["stdin"]
            return scripts.transfer_line(" ".join([record["action"].upper(), "linstor_un", *argv]))
        assert record["stdin_encoding"] == "base64"
        data = base64.b64encode(self._here(record["stdin"]).encode()).decode()
        if record["type"] == "tm":
            return scripts.system_monitor("linstor_un", record["argv"], data)
        return scripts.datastore("linstor_un", record["action"], record["argv"], data)

    def _context(self, recorded: str) -> str:
        path = self.world.cloud.var / recorded.partition("/var/lib/one/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# Context variables generated by OpenNebula\n")
        return str(path)

    def _compare(self, record: dict[str, Any], call: Call) -> None:
        what = f"{record['step']}: {record['action']} {' '.join(record['argv'])}"
        assert call.succeeded, f"{what}: {call.stderr}"
        if record["action"] == "monitor":
            names = r"USED_MB=\d+\nTOTAL_MB=\d+\nFREE_MB=\d+\n"
            assert re.fullmatch(names, record["stdout"]) and re.fullmatch(names, call.stdout), what
        elif record["action"] == "export":
            made, recorded = (etree.fromstring(text.encode()) for text in (call.stdout, record["stdout"]))
            assert [child.tag for child in made][: len(recorded)] == [child.tag for child in recorded], what
            assert made.findtext("SIZE") == recorded.findtext("SIZE")
        elif record["type"] == "vmm":
            assert call.stdout == "", what
        else:
            assert call.stdout == record["stdout"], what

    # --- what must exist --------------------------------------------------------------------------------------------

    def _expect(self, record: dict[str, Any]) -> None:
        verb, argv = verb_of(record), record["argv"]
        if verb == "cpds":
            self.expected.add(argv[1].split("/")[-2])
        if verb == "failmigrate":
            self._learn_of_failure(record)
        if record["type"] == "ds":
            image = f"one-image-{argv[0]}"
            if verb in ("cp", "clone") or (verb == "mkfs" and "save_as" not in record["stdin"]):
                self.expected.add(image)
            elif verb == "rm":
                self.expected.discard(image)
            return
        places = [match for match in map(DISK_PATH.match, argv) if match]
        if not places:
            return
        _, _, vm_id, disk_id = places[-1].groups()
        own = f"one-vm-{vm_id}-disk-{disk_id}"
        if verb in ("clone", "mkimage", "mkswap"):
            self.expected.add(own)
        elif verb == "delete":
            gone = {own} if disk_id else {name for name in self.expected if name.startswith(f"one-vm-{vm_id}-")}
            self.expected -= gone


def _is_named(vm: VirtualMachine, words: list[str]) -> bool:
    """Whether a command of virsh is about this VM: by its domain, or a file in its directory."""
    return vm.deploy_id in words or any(re.search(rf"/datastores/\d+/{vm.identifier}/", word) for word in words)


@pytest.mark.parametrize("flow", FLOWS)
def test_a_recorded_flow(make_world: Callable[..., World], site: tuple[str, Path], flow: str) -> None:
    world = make_world(nodes=HOSTS, configuration='RESOURCE_GROUP="opennebula"\nFRONTEND_HOSTNAME="onefe"')
    replay = Replay(world, flow, *site)
    assert [record for record in replay.records if is_replayed(record)]
    replay.run()
    assert volumes(world) == replay.expected
    is_whole = all(is_ours(record) for record in replay.records if record["type"] in REPLAYED)
    # Where postmigrate was told to fail, the source keeps its links; a directory of the ssh driver's is its to remove.
    if is_whole and not replay.expected and flow not in ("vm-migrate-live", "sysds-ssh-mixed"):
        assert links(world) == {}
    assert [name for name in replay.expected if name.startswith("one-image") and attached(world, name)] == []


def test_no_recorded_verb_is_forgotten() -> None:
    records = [record for flow in FLOWS for record in json.loads((CAPTURES / f"{flow}.json").read_text())]
    seen = {(record["type"], verb_of(record)) for record in records if record["type"] in REPLAYED}
    assert seen == {(kind, verb) for table in (REPLAYED, LEFT_OUT) for kind in table for verb in table[kind]}
    assert all(
        (CHECKOUT / {"ds": "datastore/linstor_un", "tm": "tm/linstor_un", "vmm": "vmm/kvm"}[kind] / verb).exists()
        for kind in REPLAYED
        for verb in REPLAYED[kind]
    )
    assert len([record for record in records if is_replayed(record)]) > 750
