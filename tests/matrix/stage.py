"""The world that flows are played in, and what holds for every call that its oned makes."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable

from linstor_sandbox.opennebula import ActionFailed, Release, VirtualMachine
from linstor_sandbox.opennebula.images import Image
from linstor_sandbox.opennebula.scripts import Call
from linstor_un.naming import resource_of
from tests.conftest import IMAGE_TEMPLATE, SYSTEM_TEMPLATE, World, build_world
from tests.forks import forks
from tests.linstor_un import living
from tests.linstor_un.scenes import MIB, content, link, own, post
from tests.matrix.rows import Row

# Where there is such a place: what is synchronised to a disk would cost more than all the rest.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Long, as a machine that does much else at the same time is no fault of anybody's.
_SETTINGS = 'CONNECT_TIMEOUT="60"\nSSH_CONNECT_TIMEOUT="60"\nLOCK_TIMEOUT="60"\n'
_DATASTORE = ("stat", "cp", "mkfs", "rm", "clone", "monitor", "snap_delete", "snap_revert", "snap_flatten", "export")
# How many arguments a line of a transfer script has (opennebula-contract.md, 1.2); the context's vary.
_ARGUMENTS = {
    "clone": 4,
    "ln": 4,
    "mkimage": 5,
    "mkswap": 4,
    "mv": 4,
    "mvds": 4,
    "delete": 3,
    "cpds": 5,
    "snap_create": 4,
    "snap_create_live": 4,
    "snap_delete": 4,
    "snap_revert": 4,
    "resize": 4,
    "restore": 5,
    "premigrate": 5,
    "postmigrate": 5,
    "failmigrate": 5,
    "prebackup": 6,
    "prebackup_live": 6,
    "postbackup": 6,
    "postbackup_live": 6,
}
_WITH_VM = ("migrate", "backup")
_SOURCE = r"/dev/(drbd/by-res/[\w-]+/0|[\w/-]+)"
_PRINTED = {"stat": r"\d+\n", "cp": rf"{_SOURCE} raw\n", "mkfs": rf"{_SOURCE}\n", "clone": rf"{_SOURCE}\n"}


class Stage:
    """A world of a row, which is empty before each flow and after it."""

    def __init__(self, world: World, row: Row) -> None:
        self.world = world
        self.row = row
        self.cloud = world.cloud
        self.sandbox = world.sandbox
        self.system = world.system
        self.images = world.images
        self.other = world.cloud.create_datastore(self._template(SYSTEM_TEMPLATE, "linstor-system", "other"))
        if row.attributes:
            self._prepare()
            self.system = world.cloud.create_datastore(self._template(SYSTEM_TEMPLATE, "linstor-system", "own-system"))
            text = self._template(IMAGE_TEMPLATE, "linstor-images", "own-images")
            self.images = world.cloud.create_datastore(f'{text} SAFE_DIRS="{world.folder}"')
        self._seen = 0

    def _prepare(self) -> None:
        """What an operator does in LINSTOR before."""
        post(self.world, "/v1/encryption/passphrase", {"new_passphrase": "a secret of the cluster"})
        placement = {"place_count": 2, "storage_pool_list": ["data"]}
        post(self.world, "/v1/resource-groups", {"name": "outside", "select_filter": placement})
        wanted = {"override_props": {"StorPoolNameDrbdMeta": "meta"}}
        post(self.world, "/v1/resource-groups/outside", wanted, method="PUT")

    def _template(self, text: str, name: str, other: str) -> str:
        """The article's template under another name, with the row's attributes in the place of its own."""
        own = re.findall(r'(\w+)="', self.row.attributes)
        kept = [item for item in re.findall(r'\w+="[^"]*"', text) if item.partition("=")[0] not in own]
        return " ".join([*kept, self.row.attributes]).replace(f'"{name}"', f'"{other}"')

    @property
    def release(self) -> Release:
        """The release of OpenNebula."""
        return self.row.release

    def image(self, seed: int = 1, persistent: bool = False, type: str = "OS", mib: int = 4) -> Image:
        """An image of a file, by the driver, whose content is `content(seed)`."""
        path = self.world.file(f"{seed}.raw", content(seed, mib))
        return self.cloud.create_image(self.images, path, persistent=persistent, type=type)

    def disks(self) -> str:
        """A template with a disk of each kind: one that is cloned, a persistent one, a CDROM and two volatile ones."""
        made = [self.image(), self.image(2, persistent=True), self.image(3, type="CDROM")]
        disks = " ".join(f"DISK=[IMAGE_ID={image.identifier}]" for image in made)
        return f'{disks} DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16] DISK=[TYPE=swap,SIZE=4] CONTEXT=[NETWORK="YES"]'

    def machine(self, template: str = "", host: str = "node1") -> VirtualMachine:
        """A running VM; without a template with a disk that is cloned and a persistent one."""
        if not template:
            made = [self.image(), self.image(2, persistent=True)]
            template = " ".join(f"DISK=[IMAGE_ID={image.identifier}]" for image in made) + ' CONTEXT=[NETWORK="YES"]'
        return self.cloud.instantiate(template, host, self.system)

    def write(self, vm: VirtualMachine, disk_id: int, text: str) -> None:
        """Let the guest write a text at the beginning of a disk."""
        living.write(self.world, vm, disk_id, text)

    def text(self, vm: VirtualMachine, disk_id: int) -> str:
        """What the guest has written at the beginning of a disk, as it is on the volume that the disk is."""
        return living.text(self.world, self.volume(vm, disk_id))

    def content(self, vm: VirtualMachine, disk_id: int) -> bytes:
        """All of a disk, as far as OpenNebula knows it."""
        return self.sandbox.read(self.volume(vm, disk_id), 0, vm.disk(disk_id).size * MIB)

    def volume(self, vm: VirtualMachine, disk_id: int) -> str:
        """The volume that a disk's link leads to where the VM is."""
        expected = own(vm, disk_id)
        if vm.disk(disk_id).attributes.get("CLONE") == "NO":
            expected = resource_of(vm.disk(disk_id).attributes["SOURCE"]) or ""
        if self.row.can_move:
            assert link(self.world, vm, disk_id) == expected, f"disk {disk_id} on {vm.host}"
        return expected

    def reason(self, attempt: Callable[[], object]) -> str:
        """What a user sees at the image or the VM when this attempt fails, as it must."""
        try:
            attempt()
        except ActionFailed as failed:
            return self.release.reason(failed.call.stderr)
        raise AssertionError("it did not fail")

    def delete_all(self) -> None:
        """Terminate and delete whatever is left, which must succeed."""
        for vm in self.cloud.machines:
            if vm.state.name != "DONE":
                self.cloud.terminate(vm)
        for image in list(self.cloud.images):
            self.cloud.delete_image(image)

    def check_calls(self) -> None:
        """Every call since the last time was in the form of the release, and said what oned can read."""
        calls = self.cloud.calls[self._seen :]
        self._seen = len(self.cloud.calls)
        for call in calls:
            if self._is_ours(call):
                shown = f"{call.kind}/{call.verb} {call.argv_shown}"
                self._check_form(call, shown)
                self._check_answer(call, shown)

    def _is_ours(self, call: Call) -> bool:
        return call.kind != "datastore" or call.verb in _DATASTORE

    def _check_form(self, call: Call, shown: str) -> None:
        verb = call.verb.partition(".")[0]
        if call.kind == "datastore" or verb == "monitor":
            assert self._form(call) == self._expected_form(), shown
            assert call.action_data.startswith("<DS_DRIVER_ACTION_DATA>"), shown
        elif call.kind == "tm":
            assert verb == "context" or len(call.argv) == _ARGUMENTS[verb], shown
            assert bool(call.stdin) is verb.partition("_")[0].endswith(_WITH_VM), shown
        else:
            assert len(call.argv) == 5 and base64.b64decode(call.stdin).startswith(b"<VMM_DRIVER_ACTION_DATA>"), shown

    def _form(self, call: Call) -> tuple[str, ...]:
        """The arguments without what they are, and whether there is something on stdin."""
        words = ["-" if word == "-" else "id" if word.isdigit() else "data" for word in call.argv]
        return (*words, *(["stdin"] if call.stdin else []))

    def _expected_form(self) -> tuple[str, ...]:
        if self.release.version >= (6, 8):
            return ("id", "stdin")
        return ("-", "id", "stdin") if self.release.stdin_option else ("data", "id")

    def _check_answer(self, call: Call, shown: str) -> None:
        if not call.succeeded:
            reason = self.release.reason(call.stderr)
            assert len(reason) > 20 and "\n" not in reason and "--8<" not in reason, (shown, call.stderr)
            assert not re.match(r"(ERROR|INFO|WARN|DEBUG):|-$|Unexpected", reason), (shown, call.stderr)
            assert call.stdout == "", shown
        elif call.kind == "datastore" and call.verb in _PRINTED:
            assert re.fullmatch(_PRINTED[call.verb], call.stdout), (shown, call.stdout)
        elif call.verb == "monitor":
            assert re.fullmatch(r"(\w+_MB=\d+\n){3}", call.stdout), (shown, call.stdout)
        if call.succeeded and self.release.version >= (7, 0):
            # What is no line of a log would be lost, and what is one must not begin with a number.
            assert all(re.match(r"WARN: [a-z]", line) for line in call.stderr.splitlines()), (shown, call.stderr)


@contextmanager
def stage(row: Row) -> Iterator[Stage]:
    """The stage of a row, in a world of its own, whose scripts are forks of one interpreter."""
    with tempfile.TemporaryDirectory(prefix="linstor-un-matrix-", dir=_MEMORY) as name, ExitStack() as stack:
        folder = Path(name) / "world"
        settings = _SETTINGS + row.world.get("configuration", "")
        world = build_world(stack, folder, **{**row.world, "configuration": settings})
        world.install_backups()
        scripts = world.cloud.scripts
        (folder / "temporary").mkdir()
        scripts.environment = {**scripts.environment, "TMPDIR": str(folder / "temporary")}
        scripts.launch = stack.enter_context(forks(folder, scripts.environment))
        yield Stage(world, row)
        assert world.sandbox.exceptions == [], "the sandbox itself has failed"


def import_information(call: Call) -> Sequence[str]:
    """The names of what `export` has printed, in order."""
    return re.findall(r"^\s*<(\w+)>", call.stdout, re.MULTILINE)


def as_json(value: object) -> str:
    """A value to be compared and shown."""
    return json.dumps(value, sort_keys=True, default=str)
