"""Hundreds of VMs by several workers: how many in a minute, and which part of the time is the driver's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

from bench.figures import Row
from bench.setting import Part, Setting, Table, together
from bench.world import World
from linstor_sandbox.opennebula import VirtualMachine

_IMAGE_MIB = 4
_FIGURES = ("wall_ms", "linstor_ms", "ssh_ms", "own_ms", "waited_ms", "cpu_ms")


def measure(setting: Setting) -> list[Row]:
    """All VMs instantiated from one image, then migrated, snapshotted, and deleted; once, as each VM is a run."""
    with setting.world("crowd", recorded_times=True) as world:
        world.scripts.meters.clear()
        image = world.cloud.create_datablock(world.images, _IMAGE_MIB)
        template = f'DISK=[IMAGE_ID={image.identifier}] CONTEXT=[NETWORK="YES"]'
        machines = [world.cloud.create_vm(template, world.system) for _ in range(setting.vms)]
        found = []
        for name, act in _phases(world).items():
            setting.tell(f"crowd: {setting.vms} VMs are to {name}")
            found.append(_phase(world, setting.workers, f"{name} {setting.vms}", act, machines))
        world.cloud.delete_image(image)
    return [*found, _all(found)]


def _phases(world: World) -> dict[str, Callable[[VirtualMachine], object]]:
    cloud, nodes = world.cloud, world.cluster.nodes

    def next_node(vm: VirtualMachine) -> str:
        return nodes[(nodes.index(vm.host) + 1) % len(nodes)]

    live = world.cluster.is_sandbox
    return {
        "instantiate": lambda vm: cloud.deploy(vm, nodes[vm.identifier % len(nodes)], world.system),
        "migrate": lambda vm: (cloud.migrate_live if live else cloud.migrate_cold)(vm, next_node(vm)),
        "snapshot": lambda vm: _snapshot(world, vm),
        "delete": cloud.terminate,
    }


def _snapshot(world: World, vm: VirtualMachine) -> None:
    # Without a guest there is nothing to freeze.
    if not world.cluster.is_sandbox:
        world.cloud.poweroff(vm)
    world.cloud.snapshot_create(vm, vm.disk(0))


def _phase(
    world: World,
    workers: int,
    name: str,
    act: Callable[[VirtualMachine], object],
    machines: Sequence[VirtualMachine],
) -> Row:
    world.scripts.samples.clear()
    seconds = together(workers, act, machines)
    row = Row(name)
    for sample in world.scripts.samples:
        row.add({figure: sample.figures[figure] for figure in _FIGURES})
    row.add({"seconds": seconds, "per_minute": 60 * len(machines) / seconds, **_shares(row)})
    return row


def _shares(row: Row) -> dict[str, float]:
    """Of all actions' wall time, the part in per cent that is neither LINSTOR's nor an ssh command's.

    Of that a part is none of the driver's where other programs keep the processors busy: the second figure is without.
    """
    own, wall, waited = (sum(row.figures[figure]) for figure in ("own_ms", "wall_ms", "waited_ms"))
    return {"share": 100 * own / wall, "working_share": 100 * (own - waited) / (wall - waited)}


def _all(phases: Sequence[Row]) -> Row:
    row = Row("all")
    for phase in phases:
        for figure in _FIGURES:
            row.figures.setdefault(figure, []).extend(phase.figures[figure])
    row.add({"seconds": sum(phase.median("seconds") for phase in phases), **_shares(row)})
    return row


def tables(measured: list[Row]) -> list[Table]:
    """By phase; of actions the middle, and the least and the most."""
    shown = ("seconds", "per_minute", *_FIGURES, "share", "working_share")
    columns = ["VMs", "seconds", "a minute", "action ms", "LINSTOR ms", "ssh ms", "the rest ms", "of that queued ms"]
    columns += ["CPU ms", "share %", "without queueing %"]
    notes = [
        "The share is of all actions' wall time together what is neither LINSTOR's nor an ssh command's; queueing is "
        "for a processor of this machine, on which in the sandbox LINSTOR and all hosts are too.",
        "In the sandbox satellites take as long as was recorded of real ones.",
    ]
    return [Table("A crowd", columns, [[row.name, *map(row.shown, shown)] for row in measured], notes)]


PART = Part("crowd", "hundreds of VMs by many workers at once", measure, tables)
