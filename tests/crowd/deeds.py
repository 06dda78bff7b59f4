"""What users and operators do: each deed chooses what it is done to, and returns what does it."""

from __future__ import annotations

import gzip
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional

from linstor_sandbox.opennebula import Image, ImageState, LcmState, VirtualMachine, VmState
from linstor_sandbox.opennebula.machines import Disk
from linstor_sandbox.opennebula.scripts import Call
from tests.crowd.model import BLOCK, Model
from tests.linstor_un.scenes import MIB, volume

Deed = Callable[[], object]
_BUSY_VMS, _BUSY_IMAGES = 30, 30
_PARKED = (VmState.STOPPED, VmState.UNDEPLOYED)


def choose(model: Model, draw: random.Random) -> Optional[Deed]:
    """What is done next to no VM; None where it is a VM's turn, or what was drawn cannot be done."""
    chance = draw.random()
    if chance < 0.12 or len(model.images(ImageState.READY, ImageState.USED)) < 5:
        return _with_image(model, draw)
    if chance < (0.3 if len(model.machines()) < _BUSY_VMS else 0.15):
        return _instantiate(model, draw)
    return None


def choose_for(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    """What is done next to a VM; None where it cannot be done to what was drawn."""
    if vm.identifier in model.again:
        return draw.choice((model.again[vm.identifier], _simply("terminate")(model, draw, vm)))
    if vm.lcm_state.name.endswith("_FAILURE"):
        return _recover(model, draw, vm)
    return draw.choice(_OF_VMS[vm.state])(model, draw, vm)


# --- images -----------------------------------------------------------------------------------------------------------


def _with_image(model: Model, draw: random.Random) -> Optional[Deed]:
    known = model.images(ImageState.READY, ImageState.USED, ImageState.ERROR)
    if len(known) < 5 or draw.random() < (0.4 if len(known) < _BUSY_IMAGES else 0.1):
        return draw.choice((_import, _import, _datablock))(model, draw)
    return draw.choice((_clone, _toggle, _delete, _delete, _image_snapshot))(model, draw, draw.choice(known))


def _import(model: Model, draw: random.Random) -> Deed:
    texts = {_offset(draw, 8): model.text("image") for _ in range(3)}
    number, kind = model.serial, draw.choice(("raw", "gz", "qcow2"))
    persistent, type = draw.random() < 0.3, draw.choice(("OS", "OS", "OS", "CDROM"))

    def deed() -> None:
        path = _file(model.world.folder / f"import-{number}", texts, kind)
        before = model.world.cloud.create_image(model.world.images, str(path), "", persistent, type)
        path.unlink()
        model.texts[volume(before)] = texts

    return deed


def _file(path: Path, texts: Mapping[int, str], kind: str) -> Path:
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        for offset, text in texts.items():
            file.seek(offset)
            file.write(text.encode().ljust(BLOCK, b"."))
    if kind == "gz":
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    elif kind == "qcow2":
        made = path.with_suffix(".qcow2")
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", path, made], check=True)
        made.replace(path)
    return path


def _datablock(model: Model, draw: random.Random) -> Deed:
    size, fs, persistent = draw.choice((4, 8, 12)), draw.choice(("", "", "ext4")), draw.random() < 0.6

    def deed() -> None:
        image = model.world.cloud.create_datablock(model.world.images, size, fs, persistent=persistent)
        model.texts[volume(image)] = None if fs else {}

    return deed


def _clone(model: Model, draw: random.Random, image: Image) -> Optional[Deed]:
    if image.persistent or image.state == ImageState.ERROR or volume(image) not in model.texts:
        return None
    # Nobody writes to it: it cannot be persistent before the clone is done.
    texts = model.texts[volume(image)]

    def deed() -> None:
        model.texts[volume(model.world.cloud.clone_image(image))] = texts

    return deed


def _toggle(model: Model, draw: random.Random, image: Image) -> Deed:
    def deed() -> None:
        with model.world.cloud.lock:
            if image.state == ImageState.READY and not image.snapshots.all and image.type != "CDROM":
                image.persistent = not image.persistent

    return deed


def _delete(model: Model, draw: random.Random, image: Image) -> Deed:
    def deed() -> None:
        model.world.cloud.delete_image(image)

    model.doomed.add(image.identifier)
    return deed


def _image_snapshot(model: Model, draw: random.Random, image: Image) -> Optional[Deed]:
    if not image.snapshots.all:
        return None
    snapshot, cloud, resource = draw.choice(image.snapshots.all), model.world.cloud, volume(image)
    what = draw.choice(("delete", "revert", "flatten"))

    def deed() -> None:
        if what == "delete":
            cloud.image_snapshot_delete(image, snapshot.identifier)
            return
        act = cloud.image_snapshot_revert if what == "revert" else cloud.image_snapshot_flatten
        act(image, snapshot.identifier)
        model.texts[resource] = model.kept[resource, snapshot.identifier]

    return deed


# --- VMs --------------------------------------------------------------------------------------------------------------


def _instantiate(model: Model, draw: random.Random) -> Deed:
    disks = [disk for disk in (_a_disk(model, draw) for _ in range(draw.choice((1, 1, 2, 3)))) if disk]
    template = " ".join([*dict.fromkeys(disks), *draw.choice(([], ['CONTEXT=[NETWORK="YES"]']))])
    host, system = draw.choice(model.world.cloud.hosts), draw.choice(model.systems)
    if not disks:
        return _datablock(model, draw)

    def deed() -> None:
        with model.lock:
            vm = model.world.cloud.create_vm(template, system)
            model.busy.add(vm.identifier)
        try:
            _begin_and_deploy(model, vm, host, draw.choice(model.systems))
        finally:
            model.busy.discard(vm.identifier)

    return deed


def _a_disk(model: Model, draw: random.Random) -> str:
    if draw.random() < 0.25:
        return draw.choice(("DISK=[TYPE=swap,SIZE=4]", "DISK=[TYPE=fs,FORMAT=raw,SIZE=8]", _FORMATTED))
    # Whoever made it knows by now what is in it.
    images = [image for image in model.images(ImageState.READY, ImageState.USED) if volume(image) in model.texts]
    return f"DISK=[IMAGE_ID={draw.choice(images).identifier}]" if images else ""


_FORMATTED = "DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=8]"


def _begin_and_deploy(model: Model, vm: VirtualMachine, host: str, system: object) -> None:
    for disk in vm.disks:
        model.begin(vm, disk)
    model.world.cloud.deploy(vm, host, system)  # type: ignore[arg-type]


def _deploy(model: Model, draw: random.Random, vm: VirtualMachine) -> Deed:
    host, system = draw.choice(model.world.cloud.hosts), draw.choice(model.systems)
    if vm.state == VmState.PENDING:
        return lambda: _begin_and_deploy(model, vm, host, system)
    return lambda: model.world.cloud.deploy(vm, host, system)


def _write(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    disk = _drawn_disk(draw, vm)
    if disk is None or model.texts[model.resource(vm, disk)] is None:
        return None
    resource, offset, text = model.resource(vm, disk), _offset(draw, disk.size), model.text(f"VM {vm.identifier}")

    def deed() -> None:
        guest = model.world.sandbox.guest(f"one-{vm.identifier}")
        guest.write(disk.attributes["TARGET"], text.encode().ljust(BLOCK, b"."), offset)
        model.write(resource, offset, text)

    return deed


def _snapshot(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    disk = _drawn_disk(draw, vm, images_only=True)
    if disk is None:
        return None

    def deed() -> None:
        snapshot = model.world.cloud.snapshot_create(vm, disk)
        resource = model.resource(vm, disk)
        model.kept[resource, snapshot.identifier] = model.texts[resource]

    return deed


def _with_snapshot(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    disk, cloud = _drawn_disk(draw, vm, images_only=True), model.world.cloud
    if disk is None or not vm.snapshots_of(disk).all:
        return _snapshot(model, draw, vm)
    snapshot, resource = draw.choice(vm.snapshots_of(disk).all), model.resource(vm, disk)
    if vm.state == VmState.POWEROFF and draw.random() < 0.6:

        def revert() -> None:
            cloud.snapshot_revert(vm, disk, snapshot)
            model.texts[resource] = model.kept[resource, snapshot.identifier]

        return revert
    return lambda: cloud.snapshot_delete(vm, disk, snapshot)


def _save_as(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    disk = _drawn_disk(draw, vm, images_only=True)
    if disk is None:
        return None
    resource, number = model.resource(vm, disk), -1
    # A larger snapshot makes an image whose volume is larger than oned says.
    fitting = [snapshot for snapshot in vm.snapshots_of(disk).all if snapshot.size <= disk.size]
    if fitting and vm.state not in _PARKED and draw.random() < 0.6:
        number = draw.choice(fitting).identifier

    def deed() -> None:
        image = model.world.cloud.disk_saveas(vm, disk, "", number)
        model.texts[volume(image)] = model.texts[resource] if number < 0 else model.kept[resource, number]

    return deed


def _resize(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    # More than an extent of the pool, within which a volume need not grow.
    disk, more = _drawn_disk(draw, vm), draw.choice((8, 16))
    if disk is None or disk.size > 64:
        return None
    size = disk.size + more
    return lambda: model.world.cloud.resize_disk(vm, disk, size)


def _attach(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    template, number = _a_disk(model, draw), vm.next_disk_id()
    if not template or len(vm.disks) > 4:
        return None

    def deed() -> None:
        disk = model.world.cloud.attach(vm, template)
        assert disk.disk_id == number
        model.begin(vm, disk)

    return deed


def _detach(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    if len(vm.disks) < 2:
        return None
    disk = draw.choice(vm.disks)
    return lambda: model.world.cloud.detach(vm, disk)


def _migrate(model: Model, draw: random.Random, vm: VirtualMachine) -> Optional[Deed]:
    host = draw.choice([name for name in model.world.cloud.hosts if name != vm.host])
    cloud, system, off = model.world.cloud, draw.choice(model.systems), draw.random() < 0.5
    if vm.state == VmState.ACTIVE and draw.random() < 0.6:
        if draw.random() < 0.2 and system is not vm.current.datastore:
            return lambda: cloud.migrate_live(vm, vm.host, system)
        return lambda: cloud.migrate_live(vm, host)
    return lambda: cloud.migrate_cold(vm, host, system, off)


def _simply(name: str) -> Callable[[Model, random.Random, VirtualMachine], Deed]:
    """A deed that needs no more than the VM."""

    def choose(model: Model, _: random.Random, vm: VirtualMachine) -> Deed:
        def deed() -> None:
            getattr(model.world.cloud, name)(vm)

        deed.__qualname__ = name
        return deed

    return choose


def _recover(model: Model, draw: random.Random, vm: VirtualMachine) -> Deed:
    ways = ["retry", "retry", "retry", "delete", "recreate"]
    moves = (LcmState.PROLOG_MIGRATE_FAILURE, LcmState.PROLOG_MIGRATE_POWEROFF_FAILURE)
    if vm.lcm_state in moves and not _was_killed(model, vm):
        ways.append("failure")
    if vm.lcm_state == LcmState.EPILOG_FAILURE:
        ways.append("success")
    way = draw.choice(ways)
    if way in ("success", "failure"):
        return _remembered(model, vm, way)
    return _simply(f"recover_{way}")(model, draw, vm)


def _remembered(model: Model, vm: VirtualMachine, way: str) -> Deed:
    """Give up what has failed, which is remembered among the calls: nobody is called for what is left of it."""

    def deed() -> None:
        _remember(model, f"recover-{way}", vm)
        getattr(model.world.cloud, f"recover_{way}")(vm)

    deed.__qualname__ = f"recover_{way}"
    return deed


def _remember(model: Model, verb: str, vm: VirtualMachine) -> None:
    argv = [f"{vm.host}:{vm.directory}", str(vm.identifier), str(vm.current.datastore_id)]
    model.world.cloud.calls.append(Call("onevm", verb, argv, "", 0, "", "", 0.0))


def _was_killed(model: Model, vm: VirtualMachine) -> bool:
    """Whether its move was killed: it may have come to its end, so that there is nothing to go back to."""
    moves = [call for call in model.world.cloud.calls if call.verb == "mv" and call.argv[-2] == str(vm.identifier)]
    return moves[-1].exit_code == 255


def _drawn_disk(draw: random.Random, vm: VirtualMachine, images_only: bool = False) -> Optional[Disk]:
    found = [disk for disk in vm.disks if disk.type != "CDROM" and not (images_only and disk.volatile)]
    return draw.choice(found) if found else None


def _offset(draw: random.Random, mib: int) -> int:
    return draw.randrange(mib * MIB // BLOCK) * BLOCK


_Choice = Callable[[Model, random.Random, VirtualMachine], Optional[Deed]]
_AT_REST: Sequence[_Choice] = (_snapshot, _with_snapshot, _save_as, _migrate, _simply("terminate"))
_OF_VMS: Mapping[VmState, Sequence[_Choice]] = {
    VmState.PENDING: (_deploy,),
    VmState.ACTIVE: (
        *(_write, _write, _write, *_AT_REST, _with_snapshot, _migrate, _resize, _attach, _detach),
        *(_simply(name) for name in ("suspend", "stop", "undeploy", "poweroff", "recover_delete", "recover_recreate")),
    ),
    VmState.POWEROFF: (*_AT_REST, _with_snapshot, _resize, _attach, _detach, _simply("resume"), _simply("resume")),
    VmState.SUSPENDED: (*_AT_REST, _simply("resume"), _simply("resume"), _simply("stop")),
    VmState.STOPPED: (_deploy, _deploy, _save_as, _simply("terminate")),
    VmState.UNDEPLOYED: (_deploy, _deploy, _save_as, _resize, _simply("terminate")),
}
