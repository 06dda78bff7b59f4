"""Figures of several runs: what each means, how it is shown, and the file that later runs are compared with."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What is measured: `least` of a change counts, in parts of the old value, and `at_least` in the figure's unit.

    Counts are `exact`: any change counts. Where more is better, `falls` is what is bad.
    """

    meaning: str
    unit: str = ""
    digits: int = 0
    exact: bool = False
    least: float = 0.1
    at_least: float = 0.0
    falls: bool = False
    judged: bool = True


FIGURES = {
    "requests": Figure("LINSTOR requests", exact=True),
    "ssh": Figure("ssh connections", exact=True),
    "ssh_per_host": Figure("ssh connections to one host", exact=True),
    "oned": Figure("requests to oned", exact=True),
    "cpu_ms": Figure("CPU of its own", "ms", at_least=5),
    "cpu_ratio": Figure("CPU of its own, times the reference's", "×", 2, at_least=0.08),
    "children_cpu_ms": Figure("CPU of what it started", "ms", least=0.3, at_least=20),
    "wall_ms": Figure("wall time", "ms", judged=False),
    "linstor_ms": Figure("time of LINSTOR requests", "ms", least=0.3, at_least=30),
    "ssh_ms": Figure("time of ssh commands", "ms", least=0.3, at_least=30),
    "own_ms": Figure("wall time without LINSTOR and ssh", "ms", judged=False),
    "waited_ms": Figure("waiting for a processor", "ms", judged=False),
    "idle_ms": Figure("waiting for neither CPU nor LINSTOR nor ssh", "ms", least=0.3, at_least=15),
    "memory_mib": Figure("peak memory", "MiB", 1, least=0.05, at_least=1),
    "sent_bytes": Figure("bytes to the controller", "B", at_least=200),
    "received_bytes": Figure("bytes from the controller", "B", at_least=1000),
    "seconds": Figure("time", "s", 2, least=0.3, at_least=0.3),
    "copy_ratio": Figure("speed of the copy, in parts of plain tools'", "", 2, falls=True, least=0.15),
    "whole_ratio": Figure("speed with all around it, in parts of plain tools'", "", 2, falls=True, least=0.15),
    "dd_ms": Figure("time of dd", "ms", judged=False),
    "qemu-img_ms": Figure("time of qemu-img", "ms", judged=False),
    "share": Figure("the driver's part of the wall time", "%", 1, judged=False),
    "working_share": Figure("the driver's part of the time that had a processor", "%", 1, least=0.3, at_least=3),
    "per_minute": Figure("VMs per minute", "", 0, judged=False),
}


@dataclass(frozen=True)
class Module:
    """What one imported module took by itself, in ms, and which module asked for it first."""

    milliseconds: float
    importer: str


@dataclass
class Row:
    """Something that was measured: of each figure the value of every run, and what was counted under which name."""

    name: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    requests: dict[str, float] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        """One more run."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(round(value, 4))

    def median(self, figure: str) -> float:
        """The middle value; KeyError where it was not measured."""
        return statistics.median(self.figures[figure])

    def shown(self, figure: str, spread: bool = True) -> str:
        """The median and, where it is not a count, the least and the most; `-` where it was not measured."""
        values = self.figures.get(figure)
        if not values:
            return "-"
        digits = FIGURES[figure].digits
        middle, least, most = (f"{value:.{digits}f}" for value in (self.median(figure), min(values), max(values)))
        return middle if least == most or not spread else f"{middle} ({least}–{most})"


@dataclass
class Results:
    """Everything that was measured by one run: `made` says where and how, `parts` has the rows of each part.

    `kept` says where and how parts were made that another run has measured.
    """

    made: dict[str, str]
    parts: dict[str, list[Row]]
    kept: dict[str, dict[str, str]] = field(default_factory=dict)

    def beside(self, before: Results) -> Results:
        """These results with the parts of others that they do not have themselves."""
        kept = {part: before.kept.get(part, before.made) for part in before.parts if part not in self.parts}
        return Results(self.made, {**{part: before.parts[part] for part in kept}, **self.parts}, kept)

    def row(self, part: str, name: str) -> Row:
        """A row by name; KeyError where there is none."""
        return {row.name: row for row in self.parts.get(part, [])}[name]

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """What `Results.write` wrote; raises OSError, and ValueError for a file of another kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: [_row(row) for row in rows] for part, rows in found["parts"].items()}
        return Results(dict(found["made"]), parts, found.get("kept", {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of ./dev bench ({error!r})") from None


def _row(found: Mapping[str, Any]) -> Row:
    modules = {name: Module(**module) for name, module in found["modules"].items()}
    return Row(found["name"], found["figures"], found["requests"], modules)


def medians(counted: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """How often each thing is counted, in the middle of several runs."""
    names = dict.fromkeys(name for counts in counted for name in counts)
    middles = {name: statistics.median(counts.get(name, 0) for counts in counted) for name in names}
    return {name: middle for name, middle in middles.items() if middle}
