"""move brings images and VMs' disks into this driver's datastore, whole, once, and wherever it was interrupted."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Optional

import click
import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import Image, ImageState, VirtualMachine, VmState
from linstor_un import locks
from linstor_un.cli.output import DRY_RUN
from tests.conftest import CHECKOUT, IMAGE_TEMPLATE, World, build_world, commit
from tests.linstor_un.cli.test_verbs import lines_to_type
from tests.linstor_un.cli.trees import SCRIPT
from tests.linstor_un.scenes import add_image, content, volume, write_behind
from tests.linstor_un.test_driver import until

MIB = 1 << 20
SHARED = {"NAME": "shared", "LN_TARGET": "NONE", "CLONE_TARGET": "SYSTEM", "SHARED": "YES", "DS_MIGRATE": "YES"}
RIGHTS = frozenset({"OWNER_U", "OWNER_M", "GROUP_U", "OTHER_U"})
CHANGES = frozenset(
    {"allocate", "clone", "delete", "rename", "chown", "chmod", "persistent", "enable", "update", "attach", "detach"}
)
Row = dict[str, Any]


class Stage:
    """A cloud with a datastore of files, whose transfer scripts do nothing, beside this driver's."""

    def __init__(self, world: World) -> None:
        self.world, self.cloud, self.sandbox = world, world.cloud, world.sandbox
        remotes = world.folder.parent / "remotes"
        for folder in ("datastore", "tm", "vmm"):
            shutil.copytree(CHECKOUT / folder, remotes / folder)
        (remotes / "lib").symlink_to(CHECKOUT / "lib")
        source = r"s/.*<SOURCE><..CDATA.\([^]]*\).*/\1/p"
        self._script(remotes / "datastore/fs/rm", f"rm $(base64 -d | sed -n '{source}')")
        self._script(remotes / "datastore/fs/monitor", "echo USED_MB=1 TOTAL_MB=100 FREE_MB=99")
        for verb in ("ln", "clone", "mvds", "delete"):
            self._script(remotes / "tm/shared" / verb, "exit 0")
        self.remotes = self.cloud.scripts.remotes = remotes
        self.cloud.tm_mad_confs["shared"] = SHARED
        self.files = self.cloud.create_datastore('NAME="files" TYPE="IMAGE_DS" DS_MAD="fs" TM_MAD="shared"')
        self.images = world.images

    @staticmethod
    def _script(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def image(self, name: str = "db", data: bytes = b"", form: str = "raw", persistent: bool = False) -> Image:
        """An image of the datastore of files."""
        data = data or content(7)
        path = Path(self.world.file(f"{name}.{form}", data))
        if form == "qcow2":
            raw = path.rename(path.with_suffix(".raw"))
            subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", raw, path], check=True)
        image = self.cloud.register_image(self.files, str(path), -(-len(data) // MIB), name)
        image.format, image.persistent = form, persistent
        return image

    def machine(self, *images: Image, state: VmState = VmState.POWEROFF) -> VirtualMachine:
        """A VM with a disk of each image, which is off."""
        disks = " ".join(f'DISK=[IMAGE_ID={image.identifier},DEV_PREFIX=vd,CACHE="none"]' for image in images)
        vm = self.cloud.create_vm(disks, self.world.system, "web")
        vm.place("node1", 0, self.world.system)
        vm.become(state)
        return vm

    def command(self, *words: object) -> list[str]:
        return [sys.executable, str(SCRIPT), "move", *map(str, words)]

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, as an operator does."""
        done = subprocess.run(
            self.command(*words),
            env=dict(self.cloud.scripts.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        self.cloud.wait_for_requests()
        return done

    def end_after(self, request: int, *words: object) -> bool:
        """Run the command, end it by force after so many of its requests that change something, and tell if it was."""
        with subprocess.Popen(
            self.command(*words),
            env=dict(self.cloud.scripts.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            first = len(self.cloud.rpc.requests)

            def watch(_: object) -> bool:
                methods = [asked.method for asked in self.cloud.rpc.requests[first:]]
                is_over = sum(method.split(".")[-1] in CHANGES for method in methods) >= request
                if is_over:
                    process.kill()
                return not is_over

            self.cloud.rpc.set_watch(watch)
            said = process.communicate(timeout=120)[1]
            self.cloud.rpc.set_watch(lambda _: True)
        self.cloud.wait_for_requests()
        assert process.returncode in (0, -signal.SIGKILL), said
        return process.returncode == -signal.SIGKILL

    def move(self, *words: object) -> Row:
        """Move one image, and return its row."""
        done = self.run(*words, "--to", self.images.name, "--yes", "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        [row] = json.loads(done.stdout)
        return row

    def found(self, name: str) -> Optional[Image]:
        return next((image for image in self.cloud.images if image.name == name), None)

    def there(self, name: str = "db") -> Image:
        """The image of this name, which has to be in the target."""
        image = self.found(name)
        assert image is not None
        assert (image.datastore_id, image.state) != (self.files.identifier, ImageState.ERROR)
        return image

    def bytes_of(self, image: Image) -> bytes:
        return self.sandbox.read(image.source.split("/")[-2], 0, image.size * MIB)

    def state(self) -> Any:
        """All that a move may change."""
        images = [(item.identifier, item.name, item.state, dict(item.attributes)) for item in self.cloud.images]
        disks = [[dict(disk.attributes) for disk in vm.disks] for vm in self.cloud.machines]
        return images, disks, dict(self.cloud.own_attributes), self.sandbox.snapshot_of_state()["resource_definitions"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        world = build_world(
            stack, tmp_path / "world", pools=(Pool("data", "LVM_THIN", 20480), Pool("fast", "LVM_THIN", 20480))
        )
        yield Stage(world)
        world.cloud.wait_for_requests()
        assert world.sandbox.exceptions == []


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_an_image_of_a_file_is_what_it_was(stage: Stage, form: str) -> None:
    old = stage.image(form=form, persistent=True)
    old.type, old.owner_id, old.group_id, old.granted = "DATABLOCK", 5, 6, RIGHTS
    old.attributes.update(DEV_PREFIX="vd", DESCRIPTION="<all & sundry>", MD5="0" * 32, LABELS="a,b")
    row = stage.move("db")
    new = stage.there()
    assert (row["outcome"], row["new_image"], row["image"]) == ("done", new.identifier, old.identifier)
    assert stage.bytes_of(new) == content(7)
    assert (new.type, new.owner_id, new.group_id, new.granted, new.persistent) == ("DATABLOCK", 5, 6, RIGHTS, True)
    kept = {"DEV_PREFIX": "vd", "DESCRIPTION": "<all & sundry>", "LABELS": "a,b", "MOVED_FROM": str(old.identifier)}
    assert new.attributes == kept
    assert (old.name, old.state) == ("db-moved", ImageState.DISABLED), "no VM may write to the old one any more"
    before = stage.state()
    assert stage.move(old.identifier)["outcome"] == stage.move("db")["outcome"] == "nothing"
    assert stage.state() == before


def test_a_disk_is_taken_as_it_is_whatever_it_begins_like(stage: Stage) -> None:
    for name, head in (("archive", gzip.compress(b"kept on a disk")), ("nested", b"QFI\xfb" + bytes(60))):
        data = head.ljust(4096, b"x") + content(3)[4096:]
        stage.image(name, data)
        stage.move(name)
        assert stage.bytes_of(stage.there(name)) == data


def test_an_image_of_this_driver_is_cloned_to_another_pool(stage: Stage) -> None:
    other = stage.cloud.create_datastore(IMAGE_TEMPLATE.replace("linstor-images", "fast").replace('"data"', '"fast"'))
    old = add_image(stage.world, 5, persistent=True)
    old.attributes["MOVED_FROM"] = "99"
    stage.images = other
    assert stage.move(old.identifier)["new_image"] == 1
    new = stage.there(f"image-{old.identifier}")
    assert (new.datastore_id, new.persistent, stage.bytes_of(new)) == (other.identifier, True, content(5))
    assert new.attributes["MOVED_FROM"] == str(old.identifier)
    assert {"one.image.clone"} < {asked.method for asked in stage.cloud.rpc.requests}


def test_what_a_guest_has_behind_size_is_compared_too(stage: Stage) -> None:
    fast = IMAGE_TEMPLATE.replace("linstor-images", "fast").replace('"data"', '"fast"')
    stage.images = stage.cloud.create_datastore(fast)
    old = add_image(stage.world, 5, persistent=True)
    expected = write_behind(stage.world, volume(old))
    wrong = add_image(stage.world, 5)
    wrong.name = f"linstor_un-move-{old.identifier}"
    wrong.datastore_id, wrong.datastore = stage.images.identifier, stage.images.name
    done = stage.run(old.identifier, "--to", "fast", "--yes", "--delete")
    assert done.returncode == 3
    assert f"has other bytes than image {old.identifier}" in done.stderr
    stage.cloud.delete_image(wrong)
    new = stage.move(old.identifier)["new_image"]
    assert stage.sandbox.read(f"one-image-{new}").startswith(expected)


def test_a_file_on_a_host_is_read_there(stage: Stage) -> None:
    data = content(4)
    (stage.sandbox.host("node2") / "var/lib/one/datastores/lv-one-0").write_bytes(data)
    volumes = stage.cloud.create_datastore(
        'NAME="volumes" TYPE="IMAGE_DS" DS_MAD="lvm" TM_MAD="shared" BRIDGE_LIST="nowhere node2"'
    )
    stage.cloud.register_image(volumes, "/var/lib/one/datastores/lv-one-0", 4, "lv")
    stage.move("lv")
    assert stage.bytes_of(stage.there("lv")) == data


def test_an_image_of_ceph_is_exported_on_a_host_of_its_datastore(stage: Stage) -> None:
    data = content(6)
    host = stage.sandbox.host("node3")
    (host / "var/tmp/pool-one-7").write_bytes(data)
    rbd = host / "steps/rbd"
    rbd.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4" = "--id libvirt --conf /etc/ceph/b.conf" ] || exit 3\n'
        'case "$5 $6 $7 $8" in\n'
        f'"info --format json pool/one-7") echo \'{{"size": {len(data)}}}\' ;;\n'
        f'"export --no-progress pool/one-7 -") cat {host}/var/tmp/pool-one-7 ;;\n'
        "*) exit 4 ;;\nesac\n"
    )
    rbd.chmod(0o755)
    ceph = stage.cloud.create_datastore(
        'NAME="ceph" TYPE="IMAGE_DS" DS_MAD="ceph" TM_MAD="shared" BRIDGE_LIST="node3" CEPH_USER="libvirt" '
        'CEPH_CONF="/etc/ceph/b.conf"'
    )
    stage.cloud.register_image(ceph, "pool/one-7", 4, "rbd")
    stage.move("rbd")
    assert stage.bytes_of(stage.there("rbd")) == data


def test_with_delete_the_old_one_goes_and_one_that_others_use_is_free_again(stage: Stage) -> None:
    old, kept = stage.image("a"), stage.image("b")
    stage.move("a", "--delete")
    stage.move("b")
    assert (stage.found("a-moved"), Path(old.source).exists()) == (None, False)
    assert kept.state == ImageState.READY
    assert stage.move("b", "--delete")["outcome"] == "done"
    assert (stage.found("b-moved"), Path(kept.source).exists()) == (None, False)
    stage.there("b")


def test_a_dry_run_shows_all_of_it_and_does_nothing(stage: Stage) -> None:
    stage.image(persistent=True)
    stage.cloud.vm_templates += [("other", "DISK=[IMAGE_ID=77]"), ("web", "DISK=[SIZE=1] DISK=[IMAGE_ID=0]")]
    before = stage.state()
    done = stage.run("db", "--to", "linstor-images", "--dry-run")
    assert done.returncode == 0, done.stderr
    for words in (
        "db-moved, disabled",
        "read",
        "datastore 102 (files)",
        "`onetemplate update 1`",
    ):
        assert words in done.stdout
    assert done.stdout.splitlines()[-1] == DRY_RUN
    assert "77" not in done.stdout
    [row] = json.loads(stage.run("0", "--to", "101", "--dry-run", "--json").stdout)
    assert (row["outcome"], row["templates"], row["new_image"]) == ("would", "1", None)
    assert stage.state() == before
    unsaid = stage.run("0", "--to", "101")
    assert (unsaid.returncode, "--dry-run to look only" in unsaid.stderr) == (2, True)


@pytest.mark.parametrize("line", lines_to_type("move"))
def test_what_the_documentation_types_works(stage: Stage, line: str) -> None:
    stage.images.name = "fast-images"
    stage.image("debian-12")
    for number in (17, 23):
        stage.cloud.next_image_id = number
        stage.image(f"image-{number}")
    stage.machine(stage.image("root", persistent=True), stage.image("data", content(9), persistent=True)).name = "web1"
    names = {image.name for image in stage.cloud.images}
    done = stage.run(*line.split()[2:], "--yes")
    assert done.returncode == 0, done.stderr
    assert (names == {image.name for image in stage.cloud.images}) == ("--dry-run" in line or "--delete" in line)


def test_what_cannot_be_moved_is_refused_and_nothing_happens(stage: Stage) -> None:
    reasons = {
        stage.image("locked").identifier: "is locked: wait until it is READY",
        stage.image("broken").identifier: "is in state ERROR: see what its ERROR says",
        stage.image("off").identifier: "is disabled: `oneimage enable` it first",
        stage.image("used").identifier: "is used by VM 0: wait until none has it",
        stage.image("running", persistent=True).identifier: "not powered off: `onevm poweroff 1`",
        stage.image("snapshots").identifier: "has snapshots",
        stage.image("backup").identifier: "is of type BACKUP",
        stage.image(
            "backed", b"QFI\xfb" + bytes([0, 0, 0, 3]) + bytes(7) + b"\1" + bytes(1 << 20)
        ).identifier: "backing",
        stage.image("gone").identifier: "cannot be read on the front-end (No such file or directory)",
        stage.image("vmdk").identifier: "only raw and qcow2 can be read",
    }
    named = {image.name: image for image in stage.cloud.images}
    named["locked"].become(ImageState.LOCKED)
    named["broken"].become(ImageState.ERROR)
    named["off"].become(ImageState.DISABLED)
    stage.machine(named["used"])
    stage.machine(named["running"], state=VmState.ACTIVE)
    named["snapshots"].snapshots.create("one", 4)
    named["backup"].type = "BACKUP"
    named["backed"].format, named["vmdk"].format = "qcow2", "vmdk"
    Path(named["gone"].source).unlink()
    before = stage.state()
    done = stage.run(*reasons, "--to", "linstor-images", "--yes", "--json")
    assert done.returncode == 3
    rows = json.loads(done.stdout)
    assert {row["outcome"] for row in rows} == {"refused"} and len(rows) == len(reasons)
    notes = " ".join(row["note"] for row in rows)
    assert [reason for reason in reasons.values() if reason not in notes] == []
    assert stage.state() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nosuch --to linstor-images", "There is no image nosuch"),
        ("999 --to linstor-images", "There is no image 999"),
        ("0 --to files", "files is no image datastore of linstor_un: there are datastore 101 (linstor-images)"),
        ("0 --to linstor-system", "is no image datastore"),
        ("² --to linstor-images", "There is no image ²"),
        ("9" * 5000 + " --to linstor-images", "There is no image 999"),
        ("--vm nosuch --to linstor-images", "There is no VM nosuch: name it by its id"),
        ("--vm ² --to linstor-images", "There is no VM ²: name it by its id"),
        ("--vm 9999999999 --to linstor-images", "There is no VM 9999999999: name it by its id"),
        ("--vm 0 --disk 7 --to linstor-images", "VM 0 (web) has no disk 7: it has 0"),
        ("--to linstor-images", "Name images, or a VM"),
        ("0 --vm 0 --to linstor-images", "Name images, or a VM"),
        ("0 --disk 1 --to linstor-images", "--disk goes with --vm"),
        ("0", "Missing option '--to'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_done(stage: Stage, words: str, says: str) -> None:
    stage.machine(stage.image())
    before = stage.state()
    done = stage.run(*words.split(), "--yes")
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert stage.state() == before


def test_bytes_that_differ_leave_the_old_image_as_it_was(stage: Stage) -> None:
    old = stage.image(persistent=True)
    wrong = add_image(stage.world, 8)
    wrong.name = f"linstor_un-move-{old.identifier}"
    done = stage.run("db", "--to", "linstor-images", "--yes", "--delete")
    assert done.returncode == 3
    assert f"has other bytes than image {old.identifier} (db)" in done.stderr
    assert (old.name, old.state, Path(old.source).read_bytes()) == ("db", ImageState.READY, content(7))


def test_what_a_user_writes_into_an_image_gives_nobody_anything(stage: Stage) -> None:
    other = add_image(stage.world, 9)
    other.name, other.owner_id = "anothers", 7
    mine = stage.image("mine", persistent=True)
    mine.owner_id = 5
    mine.attributes.update(MOVED_TO=str(other.identifier), MOVED_FROM=str(other.identifier))
    planted = add_image(stage.world, 7)
    planted.name, planted.owner_id = f"linstor_un-move-{mine.identifier}", 6
    stage.move("mine")
    new = stage.there("mine")
    assert (new.owner_id, stage.bytes_of(new)) == (5, content(7))
    assert new not in (other, planted)
    assert (other.name, other.owner_id, planted.owner_id) == ("anothers", 7, 6)
    for number in ("²", "9" * 5000):
        new.attributes["MOVED_FROM"] = mine.attributes["MOVED_TO"] = number
        done = stage.run("mine", mine.identifier, "--to", "linstor-images", "--dry-run")
        assert ("it is there" in done.stdout, "is disabled" in done.stderr) == (True, True)
    stage.cloud.own_attributes["LINSTOR_UN_MOVES"] = "[1]"
    done = stage.run("anothers", "--to", "files", "--yes")
    assert (done.returncode, "take it out with `oneuser update`" in done.stderr) == (1, True)


def test_what_does_not_arrive_is_told_and_the_next_run_does_it(stage: Stage) -> None:
    old = stage.image(persistent=True)
    cp = stage.remotes / "datastore/linstor_un/cp"
    good = cp.read_text()
    cp.write_text("#!/bin/sh\necho the pool burns >&2\nexit 1\n")
    done = stage.run("db", "--to", "linstor-images", "--yes")
    assert (done.returncode, "could not be copied" in done.stderr) == (3, True)
    assert (old.name, old.state) == ("db", ImageState.READY)
    cp.write_text(good)
    stage.move("db")
    assert stage.bytes_of(stage.there()) == content(7)
    assert {image.name for image in stage.cloud.images} == {"db", "db-moved"}


def test_a_driver_that_does_not_find_the_command_is_a_sentence_of_its_own(stage: Stage) -> None:
    old = stage.image(persistent=True)
    environment = dict(stage.cloud.scripts.environment)
    stage.cloud.scripts.environment = {**environment, "http_proxy": "http://127.0.0.1:1"}
    done = stage.run("db", "--to", "linstor-images", "--yes")
    assert (done.returncode, "run it on the front-end where oned runs" in done.stderr) == (3, True)
    assert [(image.name, image.state) for image in stage.cloud.images] == [("db", ImageState.READY)]
    stage.cloud.scripts.environment = environment
    assert stage.move(old.identifier)["outcome"] == "done"


@pytest.mark.parametrize("is_cloned", [False, True])
def test_somebody_who_watches_sees_how_far_each_part_is(stage: Stage, is_cloned: bool) -> None:
    if is_cloned:
        fast = IMAGE_TEMPLATE.replace("linstor-images", "fast").replace('"data"', '"fast"')
        stage.images = stage.cloud.create_datastore(fast)
    old = add_image(stage.world, 5) if is_cloned else stage.image("db")
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        stage.command(old.identifier, "--to", stage.images.name, "--yes"),
        env=dict(stage.cloud.scripts.environment),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = "".join(iter(lambda: read(terminal), ""))
    stage.cloud.wait_for_requests()
    os.close(terminal)
    assert process.returncode == 0, shown
    bars = re.findall(r"image ([0-9]+) \([^)]*\) ([a-z]+)[^\r\n]* 100%", shown)
    number, new = str(old.identifier), str(stage.there(old.name.removesuffix("-moved")).identifier)
    wanted = [(number, "compared" if is_cloned else "to"), (new, "compared")]
    drawn = list(dict.fromkeys(bars))
    # Click 7 draws nothing for what takes less than half a second.
    draws_all = hasattr(click.Command, "shell_complete")
    assert drawn == (wanted if draws_all else wanted[: len(drawn)])
    # Nobody knows how much oned's driver has cloned, but how long it takes is known.
    assert not draws_all or is_cloned == bool(
        re.search(r"cloned to datastore 103 \(fast\), \d:\d\d:\d\d +\[#+\]", shown)
    )
    assert not re.search(r"cloned to [^\r\n]*%", shown)


def read(terminal: int) -> str:
    """What has come at a terminal; nothing where nobody has its other end any more."""
    try:
        return os.read(terminal, 4096).decode()
    except OSError:
        return ""


def test_what_5_12_says_of_a_format_is_in_the_datastore(stage: Stage) -> None:
    stage.files.attributes["DRIVER"] = "qcow2"
    image = stage.image(form="qcow2")
    image.format = ""
    stage.move("db")
    assert stage.bytes_of(stage.there()) == content(7)


def test_two_runs_at_once_do_not_move_one_image_twice(stage: Stage) -> None:
    stage.image()
    directory = str(stage.world.folder.parent / "locks")
    with locks.volume_lock(directory, "move-of-image-0", 0):
        done = stage.run("db", "--to", "linstor-images", "--yes")
    assert (done.returncode, "move-of-image-0" in done.stderr) == (3, True)
    assert [image.name for image in stage.cloud.images] == ["db"]


def test_what_a_vm_has_written_since_it_was_compared_is_not_given_up(stage: Stage) -> None:
    old = stage.image(persistent=True)
    new = add_image(stage.world, 7)
    new.name = f"linstor_un-move-{old.identifier}"
    note = {"is_held": True, "new_id": new.identifier, "name": "db"}
    stage.cloud.own_attributes["LINSTOR_UN_MOVES"] = json.dumps({str(old.identifier): note})
    Path(old.source).write_bytes(content(8))
    assert old.state == ImageState.READY, "enabled again, after it was found to be the same"
    words = ("db", "--to", "linstor-images", "--yes", "--delete")
    assert "read" in stage.run(*words, "--dry-run").stdout
    done = stage.run(*words)
    assert (done.returncode, f"`oneimage delete {new.identifier}`" in done.stderr) == (3, True)
    assert (old.name, old.state, Path(old.source).read_bytes()) == ("db", ImageState.READY, content(8))
    stage.cloud.delete_image(new)
    stage.move("db", "--delete")
    assert stage.bytes_of(stage.there()) == content(8)


@pytest.mark.parametrize(("which", "says"), [("old", "was enabled again"), ("new", "is in state ERROR")])
def test_the_old_one_is_not_deleted_later_where_it_may_be_the_better(stage: Stage, which: str, says: str) -> None:
    old = stage.image(persistent=True)
    stage.move("db")
    new = stage.there()
    old.become(ImageState.READY) if which == "old" else new.become(ImageState.ERROR)
    for words in ((), ("--dry-run",)):
        done = stage.run(old.identifier, "--to", "linstor-images", "--yes", "--delete", *words)
        assert (done.returncode, says in done.stderr) == (3, True), done.stderr
    assert old in stage.cloud.images and Path(old.source).exists()


def test_what_was_moved_is_deleted_later_though_it_cannot_be_read_any_more(stage: Stage) -> None:
    old = stage.image()
    stage.move("db")
    Path(old.source).unlink()
    (stage.remotes / "datastore/fs/rm").write_text("#!/bin/sh\n")
    shown = stage.run("db", "--to", "linstor-images", "--delete", "--dry-run").stdout
    assert "is there" in shown and "is deleted" in shown
    stage.move("db", "--delete")
    assert old not in stage.cloud.images


def test_a_note_gives_way_to_the_vm_that_has_the_image_now(stage: Stage) -> None:
    old = stage.image(persistent=True)
    stage.cloud.own_attributes["LINSTOR_UN_MOVES"] = json.dumps({"0": {"vm_id": 0, "disk": {"TARGET": "vdz"}}})
    stage.machine()
    now = stage.machine(old)
    assert stage.move("db")["vm"] == now.identifier
    assert [disk.attributes["TARGET"] for disk in now.disks] == ["vda"]


# --- Disks of VMs -----------------------------------------------------------------------------------------------------


def test_the_disk_of_a_vm_that_is_off_is_the_new_image(stage: Stage) -> None:
    old, other = stage.image(persistent=True), stage.image("logs", content(9), persistent=True)
    vm = stage.machine(old, other)
    assert stage.move("--vm", "web", "--disk", 0)["vm"] == vm.identifier
    new = stage.there()
    disks = {disk.attributes["TARGET"]: disk.attributes for disk in vm.disks}
    assert (disks["vda"]["IMAGE_ID"], disks["vdb"]["IMAGE_ID"]) == (str(new.identifier), str(other.identifier))
    shown = {key: disks["vda"][key] for key in ("DEV_PREFIX", "CACHE", "TM_MAD", "DATASTORE_ID", "SOURCE")}
    wanted = {"DEV_PREFIX": "vd", "CACHE": "none", "TM_MAD": "linstor_un", "DATASTORE_ID": "101", "SOURCE": new.source}
    assert shown == wanted
    assert (vm.state, new.vms, old.vms) == (VmState.POWEROFF, [vm.identifier], [])
    assert stage.cloud.own_attributes == {"LINSTOR_UN_MOVES": "{}"}, "nothing is left to be done"
    assert stage.bytes_of(new) == content(7)
    assert stage.move("logs")["outcome"] == "done", "an image brings its VM along"
    assert [disk.attributes["TM_MAD"] for disk in vm.disks] == ["linstor_un"] * 2
    assert "Nothing is left to be moved." in stage.run("--vm", "web", "--to", "linstor-images").stdout


def test_disks_that_are_the_vms_own_are_refused_and_the_others_go(stage: Stage) -> None:
    vm = stage.machine(stage.image("base"), stage.image(persistent=True))
    done = stage.run("--vm", vm.identifier, "--to", "linstor-images", "--yes")
    assert done.returncode == 3
    assert (
        "disk 0 of VM 0 (web) is a copy of its image" in done.stderr and "`onevm disk-saveas 0 0 NAME`" in done.stderr
    )
    assert [disk.attributes["TM_MAD"] for disk in vm.disks] == ["shared", "linstor_un"]


def test_a_disk_that_a_vm_boots_from_by_number_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = stage.machine(stage.image(persistent=True))
    shown = vm.xml
    boot = "<TEMPLATE><OS><BOOT>nic0,disk0</BOOT></OS>"
    monkeypatch.setattr(vm, "xml", lambda *args, **more: shown(*args, **more).replace("<TEMPLATE>", boot, 1))
    done = stage.run("db", "--to", "linstor-images", "--yes")
    assert (done.returncode, "`onevm updateconf 0`" in done.stderr) == (3, True)
    assert vm.disks[0].attributes["TM_MAD"] == "shared"


def test_a_vm_whose_disk_does_not_arrive_has_it_as_before(stage: Stage) -> None:
    old = stage.image(persistent=True)
    vm = stage.machine(old)
    before = {key: value for key, value in vm.disks[0].attributes.items() if key != "DISK_ID"}
    (stage.remotes / "datastore/linstor_un/cp").write_text("#!/bin/sh\nexit 1\n")
    done = stage.run("--vm", vm.identifier, "--to", "linstor-images", "--yes")
    assert (done.returncode, "without this disk" in done.stderr) == (3, False)
    assert [{key: value for key, value in disk.attributes.items() if key != "DISK_ID"} for disk in vm.disks] == [before]
    assert (old.vms, old.state) == ([vm.identifier], ImageState.USED_PERS)
    assert stage.cloud.own_attributes == {"LINSTOR_UN_MOVES": "{}"}


def test_ctrl_c_leaves_the_vm_its_disk_and_says_how_to_go_on(stage: Stage) -> None:
    old = stage.image(persistent=True)
    vm = stage.machine(old)
    begun, over = stage.remotes / "begun", stage.remotes / "over"
    (stage.remotes / "datastore/linstor_un/cp").write_text(
        f"#!/bin/sh\ntouch {begun}\nwhile [ ! -e {over} ]; do sleep 0.1; done\nexit 1\n"
    )
    command = stage.command("db", "--to", "linstor-images", "--yes")
    environment = dict(stage.cloud.scripts.environment)
    # A shell lets what it runs in the background ignore Ctrl-C, this test perhaps.
    heeded = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=heeded) as process:
        try:
            until(begun.exists)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
        finally:
            over.touch()
    stage.cloud.wait_for_requests()
    assert process.returncode == 1, said
    assert "image 0 (db): ended before it was moved: run this again" in said
    assert ([disk.attributes["IMAGE_ID"] for disk in vm.disks], old.name) == (["0"], "db")


def test_a_disk_that_is_off_its_vm_comes_back_with_the_next_run(stage: Stage) -> None:
    vm = stage.machine(stage.image(persistent=True))
    script = stage.remotes / "tm/linstor_un/ln"
    good = script.read_text()
    script.write_text("#!/bin/sh\nexit 1\n")
    done = stage.run("--vm", vm.identifier, "--to", "linstor-images", "--yes")
    assert done.returncode == 3
    assert "VM 0 is without this disk until this was run again" in done.stderr
    assert vm.disks == []
    script.write_text(good)
    stage.move("--vm", vm.identifier)
    assert [disk.attributes["SOURCE"] for disk in vm.disks] == [stage.there().source]


# --- Ended by force ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["of a VM", "cloned"])
def test_a_run_goes_on_wherever_another_was_ended(stage: Stage, kind: str) -> None:
    if kind == "cloned":
        fast = IMAGE_TEMPLATE.replace("linstor-images", "fast").replace('"data"', '"fast"')
        stage.images = stage.cloud.create_datastore(fast)
    # A third of the points, others after each commit: all of them take a minute.
    steps = range(1 + sum(commit().encode()) % 3, 60, 3)
    for step in steps:
        name = f"db{step}"
        old = add_image(stage.world, step, persistent=True) if kind == "cloned" else stage.image(name, content(step))
        old.name, old.persistent, old.owner_id = name, True, 5
        vm = stage.machine(old)
        words = (old.identifier, "--to", stage.images.name, "--yes", "--delete")
        was_ended = stage.end_after(step, *words)
        done = stage.run(name, *words[1:])
        assert done.returncode == 0, f"after {step}: {done.stderr}"
        new = stage.there(name)
        assert [disk.attributes["SOURCE"] for disk in vm.disks] == [new.source], f"after {step}"
        assert (new.owner_id, stage.cloud.own_attributes) == (5, {"LINSTOR_UN_MOVES": "{}"})
        assert stage.bytes_of(new) == content(step)
        assert {image.name for image in stage.cloud.images} == {f"db{number}" for number in steps if number <= step}
        stored = set(stage.sandbox.snapshot_of_state()["resource_definitions"])
        assert stored == {volume(image) for image in stage.cloud.images}
        if not was_ended:
            break
    assert step > 12, "every request that changes something was the last one once"
