"""Start-up: an action's process beside an interpreter that has imported the driver's requirements, and by module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench.figures import Module, Row
from bench.scripts import REFERENCE, Sample, launch, rows
from bench.setting import Part, Setting, Table
from bench.world import World

_REFERENCE = f"{REFERENCE[0]} {REFERENCE[1]} '{REFERENCE[2]}'"
_NOTHING = ("python3", "-c", "pass")
_SHOWN_PACKAGES = 20


def measure(setting: Setting) -> list[Row]:
    """An action that asks nobody, one that asks LINSTOR, and two that ask LINSTOR, oned and a host."""
    with setting.world("startup") as world:
        image = world.cloud.create_datablock(world.images, 4)
        template = f"DISK=[IMAGE_ID={image.identifier}]"
        world.cloud.terminate(world.instantiate(template))
        world.scripts.samples.clear()
        plain = [Row(" ".join(_NOTHING)), Row(_REFERENCE)]
        imported: list[Sample] = []
        for run in range(setting.runs):
            setting.tell(f"startup: run {run + 1} of {setting.runs}")
            _processes(world, plain)
            world.scripts.referring, world.scripts.importing = True, False
            _actions(world, template)
            world.scripts.referring, world.scripts.importing = False, True
            _actions(world, template)
        imported = [sample for sample in world.scripts.samples if sample.modules]
        measured = rows([sample for sample in world.scripts.samples if not sample.modules])
        world.cloud.delete_image(image)
    for row in measured:
        row.modules = _least([sample.modules for sample in imported if sample.row == row.name])
    return [*plain, *measured]


def _processes(world: World, plain: Sequence[Row]) -> None:
    for row, command in zip(plain, (_NOTHING, REFERENCE)):
        figures = launch(command, world.scripts.environment, world.scripts.directory).figures
        row.add({name: figures[name] for name in ("cpu_ms", "wall_ms", "memory_mib")})


def _actions(world: World, template: str) -> None:
    path = world.files / "image"
    path.write_bytes(bytes(4096))
    world.cloud.stat(world.images, str(path))
    world.cloud.monitor(world.images)
    world.cloud.terminate(world.instantiate(template))


def _least(runs: Sequence[Mapping[str, Module]]) -> dict[str, Module]:
    """Each module with the least of its times: they are wall times, and any delay of the machine is in the others."""
    found: dict[str, Module] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        seen = [run[name] for run in runs if name in run]
        found[name] = Module(min(module.milliseconds for module in seen), seen[-1].importer)
    return found


def tables(measured: list[Row]) -> list[Table]:
    """The processes, and what each package takes of them."""
    shown = ("cpu_ms", "cpu_ratio", "wall_ms", "memory_mib")
    columns = ["process", "CPU ms", "× reference", "wall ms", "memory MiB", "modules"]
    processes = [[row.name, *(row.shown(figure) for figure in shown), str(len(row.modules) or "-")] for row in measured]
    return [Table("Start-up", columns, processes), _by_package([row for row in measured if row.modules])]


def _by_package(measured: Sequence[Row]) -> Table:
    costs: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(measured))
    for number, row in enumerate(measured):
        for name, module in row.modules.items():
            costs[name.partition(".")[0]][number] += module.milliseconds
    ordered = sorted(costs.items(), key=lambda item: -max(item[1]))
    shown, rest = ordered[:_SHOWN_PACKAGES], ordered[_SHOWN_PACKAGES:]
    lines = [[name, *_milliseconds(cost)] for name, cost in shown]
    if rest:
        lines.append(
            [f"{len(rest)} more", *_milliseconds([sum(column) for column in zip(*(cost for _, cost in rest))])]
        )
    lines.append(["all", *_milliseconds([sum(column) for column in zip(*costs.values())])])
    note = "Wall times of imports alone, the least of all runs; `./dev bench` keeps them by module in its file."
    return Table("Start-up by package (ms)", ["package", *(row.name for row in measured)], lines, [note])


def _milliseconds(values: Sequence[float]) -> list[str]:
    return [f"{value:.1f}" if value else "-" for value in values]


PART = Part("startup", "an action's process, by module", measure, tables)
