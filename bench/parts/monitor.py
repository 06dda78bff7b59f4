"""What monitoring, and making a disk among many, cost by the number of volumes that exist."""

from __future__ import annotations

from bench.figures import Row
from bench.scripts import rows
from bench.setting import Part, Setting, Table
from bench.world import World

_NODES = 200
_SHOWN = ("requests", "received_bytes", "cpu_ms", "memory_mib", "wall_ms")


def measure(setting: Setting) -> list[Row]:
    """In a cluster of 200 nodes with so many volumes; a real one is measured as it is."""
    if setting.real is not None:
        with setting.world("monitor") as world:
            return _among(world, setting, "the volumes that there are")
    found: list[Row] = []
    nodes = tuple(f"node{number}" for number in range(1, _NODES + 1))
    for count in setting.volumes:
        with setting.world(f"monitor-{count}", nodes, nodes, count) as world:
            found += _among(world, setting, f"{count} volumes")
    return found


def _among(world: World, setting: Setting, what: str) -> list[Row]:
    cloud = world.cloud
    image = cloud.create_datablock(world.images, 4)
    template = f"DISK=[IMAGE_ID={image.identifier}]"
    cloud.terminate(world.instantiate(template))
    world.scripts.samples.clear()
    world.scripts.referring = True
    with world.scripts.named(what):
        for run in range(setting.runs):
            setting.tell(f"monitor: {what}, run {run + 1} of {setting.runs}")
            cloud.monitor(world.images)
            cloud.monitor(world.system)
            cloud.terminate(world.instantiate(template))
    cloud.delete_image(image)
    measured = rows(world.scripts.samples)
    for row in measured:
        row.name = f"{row.name.partition(',')[0]}, {what}"
    return [row for row in measured if not row.name.startswith("datastore/rm")]


def tables(measured: list[Row]) -> list[Table]:
    """By action, so that each is seen to grow or not."""
    columns = ["action", "LINSTOR requests", "bytes from LINSTOR", "CPU ms", "memory MiB", "wall ms"]
    ordered = sorted(measured, key=lambda row: row.name.partition(",")[0])
    note = f"In the sandbox with {_NODES} nodes, each volume with three replicas and a snapshot."
    return [Table("Among many volumes", columns, [[row.name, *map(row.shown, _SHOWN)] for row in ordered], [note])]


PART = Part("monitor", "monitoring, and a VM's disk, among many volumes", measure, tables)
