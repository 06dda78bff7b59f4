"""What must exist, as the model has it, and what does: both thing by thing, under the name of the volume."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linstor_sandbox.opennebula import ImageState, VirtualMachine, VmState
from linstor_sandbox.opennebula.machines import LcmState
from linstor_sandbox.storage import Content, data_extents
from linstor_un.naming import Names
from tests.conftest import World
from tests.crowd.model import BLOCK, Model, Texts
from tests.linstor_un.living import two_primaries
from tests.linstor_un.scenes import attached, links, own, replicas, volume

Things = Mapping[str, str]
_PARKED = (VmState.STOPPED, VmState.UNDEPLOYED)
_REPLICAS = 2
_EXTENT_KIB = 4096
_FORMATTED = "a file system or swap"


def expected(model: Model) -> Things:
    """What the model says."""
    things: dict[str, str] = {}
    for image in model.images(*ImageState):
        snapshots = [snapshot.identifier for snapshot in image.snapshots.all]
        things.update(_volume(model, volume(image), image.size, snapshots))
    for vm in model.machines():
        things.update(_of_vm(model, vm))
    return things


def _volume(model: Model, name: str, mib: int, snapshots: list[int]) -> Iterator[tuple[str, str]]:
    texts = model.texts.get(name)
    yield f"{name}: size", f"{mib} MiB"
    yield f"{name}: replicas", str(_REPLICAS)
    yield f"{name}: bytes", _shown(texts)
    for identifier in snapshots:
        yield f"{name}: snapshot-{identifier}", _shown(model.kept[name, identifier])


def _shown(texts: Texts) -> str:
    return _FORMATTED if texts is None else repr(sorted(texts.items()))


def _of_vm(model: Model, vm: VirtualMachine) -> Iterator[tuple[str, str]]:
    if vm.state == VmState.PENDING:
        return
    for disk in vm.disks:
        resource = model.resource(vm, disk)
        if resource == own(vm, disk.disk_id):
            snapshots = [snapshot.identifier for snapshot in vm.snapshots_of(disk).all]
            yield from _volume(model, resource, disk.size, snapshots)
        if vm.state in _PARKED:
            continue
        place = f"{vm.host}:{vm.current.datastore_id}/{vm.identifier}/disk.{disk.disk_id}"
        yield f"{resource}: link {place}", "yes"
        if vm.lcm_state == LcmState.RUNNING:
            yield f"{resource}: open on {vm.host}", "r" if disk.type == "CDROM" else "w"
    if vm.is_saved:
        yield f"one-vm-{vm.identifier}-checkpoint: bytes", _FORMATTED
    if vm.lcm_state == LcmState.RUNNING:
        yield f"one-{vm.identifier}: domain", vm.host


def found(model: Model) -> Things:
    """What there is."""
    return dict(_found(model.world))


def _found(world: World) -> Iterator[tuple[str, str]]:
    state = world.sandbox.snapshot_of_state()
    definitions = state["resource_definitions"]

    def called(name: str) -> str:
        """What oned's disk is called whose volume has another name because that one was not free."""
        first = Names().first_name(name)
        return name if first in definitions else first

    placed = {place: called(name) for place, name in links(world).items() if not _is_alias(world, place)}
    for name, item in definitions.items():
        yield from ((f"{called(name)}: {what}", value) for what, value in _of_volume(world, name, item))
        for node in attached(world, name):
            if not any(place.startswith(f"{node}:") for place, to in placed.items() if to == called(name)):
                yield f"{called(name)}: attached on {node}", "without a link"
    for place, name in placed.items():
        yield f"{name}: link {place}", "yes"
    for node, name, mode in state["open"]:
        yield f"{called(name)}: open on {node}", mode
    for domain in state["domains"]:
        node, name = domain.split("/")
        yield f"{name}: domain", node
    for name, pairs in two_primaries(world).items():
        yield f"{called(name)}: two primaries", " ".join(pairs)
    yield from _files(world)


def _of_volume(world: World, name: str, item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    is_checkpoint = Names().first_name(name).endswith("-checkpoint")
    yield "bytes", _FORMATTED if is_checkpoint else _read(world, name)
    if not is_checkpoint:
        # All sizes are whole extents here; what was copied is as long as the device that it was copied from.
        yield "size", f"{next(iter(item['volumes'].values())) // _EXTENT_KIB * _EXTENT_KIB // 1024} MiB"
        yield "replicas", str(len(replicas(world, name)))
    if "Aux/one/INCOMPLETE" in item["props"] or item["flags"]:
        yield "incomplete or flagged", f"{item['flags']}"
    for snapshot in world.sandbox.definition(name).snapshots:
        if snapshot.name != "linstor_un-base":
            yield snapshot.name, _shown(_texts(next(iter(snapshot.contents.values()))))


def _is_alias(world: World, place: str) -> bool:
    node, _, path = place.partition(":")
    return (world.sandbox.host(node) / "var/lib/one/datastores" / path).parent.is_symlink()


def _read(world: World, name: str) -> str:
    contents = [replica.content(0) for replica in world.sandbox.definition(name).diskful()]
    shown = {_shown(_texts(content)) for content in contents if content is not None}
    return " or ".join(sorted(shown)) or "no replica has any"


def _texts(content: Content) -> Texts:
    """All blocks of a volume that are not zeroes; None where there are more than texts."""
    descriptor = os.open(content.path, os.O_RDONLY)
    texts = {}
    try:
        for start, end in data_extents(descriptor, content.size):
            for offset in range(start - start % BLOCK, end, BLOCK):
                block = os.pread(descriptor, BLOCK, offset)
                if block.strip(b"\0"):
                    texts[offset] = block.rstrip(b".").decode("latin-1")
    finally:
        os.close(descriptor)
    return None if any("\0" in text for text in texts.values()) else texts


def _files(world: World) -> Iterator[tuple[str, str]]:
    """What only lies about for the length of an action, and directories of VMs that are elsewhere."""
    tops = {node: world.sandbox.host(node) / "var" for node in world.cloud.hosts}
    for place, top in {**tops, "front-end": world.frontend, "locks": world.folder.parent / "locks"}.items():
        for path in top.rglob("*"):
            if re.search(r"linstor_un|\.new$|-saved", path.name):
                yield f"{place}: {path.relative_to(top)}", "a file"
            elif (path.is_dir() or path.is_symlink()) and re.fullmatch(
                r"(lib/one/)?datastores/\d+/\d+", str(path.relative_to(top))
            ):
                yield from _directory(world, place, path)


def _directory(world: World, place: str, path: Path) -> Iterator[tuple[str, str]]:
    vm = world.cloud.machine(int(path.name))
    is_parked = vm.state in _PARKED
    home = "front-end" if is_parked else vm.host if vm.state not in (VmState.DONE, VmState.PENDING) else ""
    is_current = bool(vm.history) and str(vm.current.datastore_id) == path.parent.name
    # A domain that has moved knows its disks by the datastore in which it was started.
    if path.is_symlink() and place == home and path.resolve().parent.name == str(vm.current.datastore_id):
        return
    if place != home or not is_current:
        inside = " ".join(sorted(file.name for file in path.iterdir()))
        yield f"one-vm-{vm.identifier}: directory {path.parent.name} on {place}", inside
