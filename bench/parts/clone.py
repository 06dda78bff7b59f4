"""Disks from an image: one by one and many at once, beside LINSTOR's clone call and a snapshot for each clone."""

from __future__ import annotations

import time
from typing import Callable

from bench.cluster import PREFIX
from bench.figures import Row
from bench.rest import Refused, Rest
from bench.setting import Part, Setting, Table, together
from bench.world import World
from linstor_sandbox.opennebula import transfers
from linstor_sandbox.opennebula.images import Image

_IMAGE_MIB = 4
_POLL_SECONDS = 0.1
_CLONED = f"{PREFIX}-clone"
_SNAPSHOT = f"{PREFIX}-snapshot"


def measure(setting: Setting) -> list[Row]:
    """With satellites that take as long as real ones: the driver's ways, then LINSTOR's own, each from a new image."""
    count = setting.at_once
    rows = [Row(name) for name in ("first VM of an image", "a later VM", f"{count} VMs at once")]
    rows += [Row(name) for name in ("LINSTOR's clone call", f"{count} clone calls at once")]
    rows += [Row(name) for name in ("a snapshot for the clone", f"{count} snapshots for clones at once")]
    with setting.world("clone", recorded_times=True) as world:
        world.scripts.meters.clear()
        for run in range(setting.runs):
            setting.tell(f"clone: run {run + 1} of {setting.runs}")
            image = world.cloud.create_datablock(world.images, _IMAGE_MIB)
            for row, number in zip(rows[:3], (1, 1, count)):
                row.add(_by_driver(world, image, number))
            world.cloud.delete_image(image)
            image = world.cloud.create_datablock(world.images, _IMAGE_MIB)
            for row, way, number in zip(rows[3:], (_clone, _clone, _snapshot, _snapshot), (1, count, 1, count)):
                row.add(_by_linstor(world, image, way, number))
            world.cloud.delete_image(image)
    return rows


def _by_driver(world: World, image: Image, count: int) -> dict[str, float]:
    machines = [world.place(f"DISK=[IMAGE_ID={image.identifier}]", number % 2) for number in range(count)]
    before = len(world.scripts.samples)
    seconds = together(
        count, world.run, [transfers.prolog_line(vm, vm.disk(0), world.cloud.frontend) for vm in machines]
    )
    requests = sum(sample.figures["requests"] for sample in world.scripts.samples[before:])
    endings = [transfers.epilog(vm, vm.host) for vm in machines]
    for step in (0, 1):
        together(count, world.run, [lines[step] for lines in endings])
    for vm in machines:
        world.cloud.release_image(image, vm.identifier)
    return {"seconds": seconds, "requests": requests / count}


def _by_linstor(world: World, image: Image, way: Callable[[Rest, str, str], int], count: int) -> dict[str, float]:
    source, made = image.source.split("/")[-2], [f"{_CLONED}-{number}" for number in range(count)]
    rest = Rest(world.cluster.uri)
    requests: list[int] = []
    seconds = together(count, lambda name: requests.append(way(rest, source, name)), made)
    together(count, lambda name: rest("DELETE", f"/v1/resource-definitions/{name}"), made)
    return {"seconds": seconds, "requests": sum(requests) / count}


def _clone(rest: Rest, source: str, target: str) -> int:
    """LINSTOR's clone call, until it is complete; how many requests that took."""
    path = f"/v1/resource-definitions/{source}/clone"
    rest("POST", path, {"name": target})
    requests = 2
    while (status := rest("GET", f"{path}/{target}")["status"]) != "COMPLETE":
        if status == "FAILED":
            raise Refused(f"LINSTOR's clone of {source} has failed")
        requests += 1
        time.sleep(_POLL_SECONDS)
    return requests


def _snapshot(rest: Rest, source: str, target: str) -> int:
    """A snapshot of its own for each clone, restored and deleted."""
    snapshot = target.replace(_CLONED, _SNAPSHOT)
    path = f"/v1/resource-definitions/{source}"
    group = rest("GET", path)["resource_group_name"]
    rest("POST", f"{path}/snapshots", {"name": snapshot})
    rest("POST", "/v1/resource-definitions", {"resource_definition": {"name": target, "resource_group_name": group}})
    rest("POST", f"{path}/snapshot-restore-volume-definition/{snapshot}", {"to_resource": target})
    rest("POST", f"{path}/snapshot-restore-resource/{snapshot}", {"to_resource": target})
    rest("DELETE", f"{path}/snapshots/{snapshot}")
    return 6


def tables(measured: list[Row]) -> list[Table]:
    """Seconds, and requests for each disk."""
    columns = ["way", "seconds", "LINSTOR requests for each"]
    notes = [
        "The driver's seconds are those of whole actions, with the link on the host; LINSTOR's those of its calls.",
        "In the sandbox satellites take as long as was recorded of real ones.",
    ]
    return [
        Table(
            "Disks from an image",
            columns,
            [[row.name, *map(row.shown, ("seconds", "requests"))] for row in measured],
            notes,
        )
    ]


PART = Part("clone", "disks from an image, beside LINSTOR's own ways", measure, tables)
