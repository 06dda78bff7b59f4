"""One cluster and one OpenNebula that many calls with bad input are made against, and what each of them must show."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from xml.sax.saxutils import escape

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.opennebula import Cloud, LcmState, VmState
from linstor_sandbox.opennebula.datastores import Datastore
from linstor_sandbox.opennebula.machines import Disk, VirtualMachine
from linstor_sandbox.opennebula.registry import SESSION
from tests.conftest import CHECKOUT, NODES

TOKEN = "tOkEn-that-nobody-may-see"
PASSWORD = SESSION.partition(":")[2]
SECRETS = (TOKEN, PASSWORD)
_SYSTEM = 'TYPE="SYSTEM_DS" STORAGE_POOL="data" AUTO_PLACE="2" CLONE_MODE="snapshot" TM_MAD="linstor_un"'
_IMAGES = 'TYPE="IMAGE_DS" STORAGE_POOL="data" AUTO_PLACE="2" DISK_TYPE="BLOCK" DS_MAD="linstor_un" TM_MAD="linstor_un"'
SYSDIR = "/var/lib/one//datastores/100"
Changes = Mapping[str, Optional[str]]


@dataclass(frozen=True)
class Case:
    """One call: `script` with `arguments` and `stdin`, which must end in a sentence that has all of `says`.

    `xml` goes to stdin as base64; `configuration` is appended to linstor_un.conf, `environment` to what oned's drivers
    have, `system` to the attributes of the system datastore. `@NAME@` stands for what `Bench.places` says.
    """

    title: str
    script: str
    arguments: Sequence[str]
    says: Sequence[str]
    stdin: bytes = b""
    xml: Optional[bytes] = None
    configuration: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    system: Changes = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What oned sees of a call."""

    status: int
    stdout: str
    stderr: str

    @property
    def sentence(self) -> str:
        """Return the last line of stderr."""
        return (self.stderr.splitlines() or [""])[-1]


def elements(values: Changes) -> str:
    """Return XML elements with these texts; a value of None leaves its element out."""
    return "".join(f"<{name}>{escape(text)}</{name}>" for name, text in values.items() if text is not None)


def document(
    image: Optional[Changes] = None,
    datastore: Optional[Changes] = None,
    *,
    name: str = "linstor-images",
    image_xml: Optional[str] = None,
    datastore_xml: Optional[str] = None,
) -> bytes:
    """Return a <DS_DRIVER_ACTION_DATA> good but for these changes of image 7 and of the datastore's attributes."""
    described: Changes = {"ID": "7", "NAME": "debian", "PATH": "", "SOURCE": "", "FS": "", "SIZE": "8", **(image or {})}
    template: Changes = {
        "STORAGE_POOL": "data",
        "REPLICA_COUNT": "2",
        "BRIDGE_LIST": "node1 node2 node3",
        "LS_TOKEN": TOKEN,
        "SAFE_DIRS": "@IMAGES@",
        "RESTRICTED_DIRS": "/",
        **(datastore or {}),
    }
    if image_xml is None:
        image_xml = f"<IMAGE>{elements(described)}<TEMPLATE><DEV_PREFIX>sd</DEV_PREFIX></TEMPLATE></IMAGE>"
    if datastore_xml is None:
        head = elements({"ID": "101", "NAME": name, "TM_MAD": "linstor_un"})
        datastore_xml = f"<DATASTORE>{head}<TEMPLATE>{elements(template)}</TEMPLATE></DATASTORE>"
    return f"<DS_DRIVER_ACTION_DATA>{image_xml}{datastore_xml}</DS_DRIVER_ACTION_DATA>".encode(
        "utf-8", "surrogateescape"
    )


def on(verb: str, title: str, says: Sequence[str], xml: bytes, identifier: str = "7", **more: Any) -> Case:
    """Return the case of a datastore action, called as by OpenNebula 6.8 and newer."""
    return Case(title, f"datastore/{verb}", (identifier,), says, xml=xml, **more)


def line(text: str, title: str, says: Sequence[str], **more: Any) -> Case:
    """Return the case of a line of a transfer script, split at blanks as one_tm does."""
    verb, *arguments = text.split(" ")
    return Case(title, f"tm/{verb}", tuple(arguments), says, **more)


class Bench:
    """The cluster: image 0 (8 MiB), persistent image 1; VM 0 on node1 has disks 0 and 1 of them, and 2, volatile."""

    def __init__(self, sandbox: Sandbox, cloud: Cloud, folder: Path) -> None:
        self.sandbox = sandbox
        self.cloud = cloud
        self.folder = folder
        self.images_folder = folder / "images"
        self.locks = folder / "locks"
        self.canary = folder / "canary"
        for directory in (self.images_folder, self.locks):
            directory.mkdir()
        timeouts = 'CONNECT_TIMEOUT="1"\nFAILOVER_TIMEOUT="1"\nDEVICE_TIMEOUT="2"\nIN_USE_TIMEOUT="1"\n'
        self.configuration = f'LOCK_DIR="{self.locks}"\n{timeouts}'
        (self.images_folder / "plain.raw").write_bytes(b"disk" * 1024)
        self.places: dict[str, str] = {
            "IMAGES": str(self.images_folder),
            "CANARY": str(self.canary),
            "LOCKS": str(self.locks),
        }
        self._conf = folder / "linstor_un.conf"
        self._conf.write_text(self.configuration)
        self.cloud.scripts.environment = {**cloud.scripts.environment, "LINSTOR_UN_CONF": str(self._conf)}
        self.system = self._datastore("linstor-system", _SYSTEM)
        self.images = self._datastore("linstor-images", _IMAGES)
        cloud.create_datablock(self.images, 8)
        cloud.create_datablock(self.images, 8, persistent=True)
        self.machine = cloud.instantiate(
            "DISK=[IMAGE_ID=0,SIZE=8] DISK=[IMAGE_ID=1] DISK=[TYPE=fs,FORMAT=raw,SIZE=8]", "node1", self.system
        )
        self._hostile_machine()

    def _datastore(self, name: str, template: str) -> Datastore:
        return self.cloud.create_datastore(
            f'NAME="{name}" {template} LS_TOKEN="{TOKEN}" SAFE_DIRS="{self.images_folder}" RESTRICTED_DIRS="/"'
        )

    def _hostile_machine(self) -> None:
        """Add VM 66, whose disks are what nobody should have, and VM 67, which moves to a host that nobody knows."""
        common = {
            "IMAGE_ID": "0",
            "SIZE": "8",
            "ORIGINAL_SIZE": "8",
            "TM_MAD": "linstor_un",
            "DATASTORE_ID": "101",
            "TYPE": "BLOCK",
        }
        source = "/dev/drbd/by-res/one-image-0/0"
        disks = [
            {"CLONE": "YES", "SOURCE": source, "SIZE": "4"},
            {"CLONE": "NO", "SOURCE": "/etc/passwd"},
            {"CLONE": "NO", "SOURCE": "/dev/drbd/by-res/../../sda/0"},
            {"CLONE": "YES", "SOURCE": source, "SIZE": "0"},
            {"CLONE": "NO", "SOURCE": f"/dev/drbd/by-res/{'x' * 49}/0"},
            {"CLONE": "NO", "SOURCE": "/dev/drbd/by-res/one.image/0"},
        ]
        numbered = [Disk({**common, "DISK_ID": str(number), **disk}) for number, disk in enumerate(disks)]
        volatile = {"TYPE": "fs", "FORMAT": "raw", "SIZE": "8", "TM_MAD": "linstor_un", "DATASTORE_ID": "100"}
        numbered.append(Disk({**volatile, "DISK_ID": "6", "FS": "$(touch x)"}))
        numbered.append(Disk({**volatile, "DISK_ID": "7", "FS": "btrfs"}))
        machine = VirtualMachine(66, "hostile", "--domain=$(id)", {}, numbered, None, VmState.ACTIVE, LcmState.PROLOG)
        machine.place("node1", 0, self.system)
        moving = VirtualMachine(67, "moving", "deploy", {}, [], None, VmState.ACTIVE, LcmState.PROLOG_MIGRATE_POWEROFF)
        moving.place("node1", 0, self.system)
        moving.place("node9", 9, self.system)
        self.cloud.machines += [machine, moving]

    def image(self, name: str, content: bytes = b"disk" * 1024) -> str:
        """Return the path of a file that images may be made of."""
        path = self.images_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    def state(self) -> dict[str, object]:
        """Return all that a failed action must leave as it was; the driver's own resource groups are kept for later."""
        snapshot = self.sandbox.snapshot_of_state()
        groups = snapshot["resource_groups"]
        snapshot["resource_groups"] = {name: groups[name] for name in groups if not name.startswith("one-")}
        return {
            "cluster": snapshot,
            "front-end": sorted(str(path) for path in self.cloud.scripts.directory.rglob("*")),
            "locks": sorted(path.name for path in self.locks.iterdir()),
            "canary": self.canary.exists(),
        }

    @contextmanager
    def datastores_with(self, changes: Changes) -> Iterator[None]:
        """Let the system datastore of oned have other attributes for a moment."""
        before = dict(self.system.attributes)
        self.system.attributes.update({name: self.filled(text) for name, text in changes.items() if text is not None})
        for name in [name for name, text in changes.items() if text is None]:
            self.system.attributes.pop(name, None)
        try:
            yield
        finally:
            self.system.attributes.clear()
            self.system.attributes.update(before)

    def filled(self, text: str) -> str:
        """Return a case's text with `@NAME@` replaced."""
        for name, value in self.places.items():
            text = text.replace(f"@{name}@", value)
        return text

    def run(self, case: Case, remotes: Path = CHECKOUT) -> Outcome:
        """Run the case's entry script as oned does."""
        kind, verb = case.script.split("/")
        stdin = case.stdin
        if case.xml is not None:
            stdin = base64.b64encode(os.fsencode(self.filled(os.fsdecode(case.xml))))
        extra = {name: self.filled(value) for name, value in case.environment.items()}
        if case.configuration:
            self._conf.write_text(self.configuration + self.filled(case.configuration))
        try:
            with self.datastores_with(case.system):
                done = subprocess.run(
                    [
                        str(remotes / kind / "linstor_un" / verb),
                        *(os.fsencode(self.filled(word)) for word in case.arguments),
                    ],
                    input=stdin,
                    capture_output=True,
                    env={**self.cloud.scripts.environment, **extra},
                    cwd=self.cloud.scripts.directory,
                    timeout=60,
                    check=False,
                )
        finally:
            if case.configuration:
                self._conf.write_text(self.configuration)
        return Outcome(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Build the cluster; at the end nothing of its own may have failed."""
    with Sandbox(folder / "sandbox", nodes=NODES, pools=(Pool("data", "LVM_THIN", 20480),)) as sandbox:
        environment = {**os.environ, **sandbox.environment(), "LS_CONTROLLERS": sandbox.uri}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with Cloud(CHECKOUT, folder / "oned", hosts=NODES, environment=environment) as cloud:
            yield Bench(sandbox, cloud, folder)
        assert sandbox.exceptions == [], "the sandbox itself has failed"
