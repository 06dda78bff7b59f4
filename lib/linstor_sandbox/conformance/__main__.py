"""`./dev conformance [--required] [SCENARIO ...]`: replay the recorded exchanges on a sandbox and compare."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..sandbox import Sandbox
from .comparison import differences
from .recordings import FOLDER, Exchange, scenarios
from .scenes import SCENES, Scene
from .stage import Stage


@dataclass
class Result:
    """What came of one scenario."""

    name: str
    exchanges: int = 0
    equal: int = 0
    different: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def replay(name: str, exchanges: list[Exchange], scene: Scene) -> Result:
    """Play one scenario from an empty sandbox."""
    result = Result(name)
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder, Sandbox(Path(folder), (), ()) as sandbox:
        stage = Stage(sandbox)
        stage.do(scene.before.get(0, []))
        for exchange in exchanges:
            stage.do(scene.before.get(exchange.number, []))
            if exchange.method or exchange.states:
                _compare(stage, exchange, scene, result)
        result.different += sandbox.exceptions
    return result


def _compare(stage: Stage, exchange: Exchange, scene: Scene, result: Result) -> None:
    result.exchanges += 1
    title = f"{result.name[:2]}/{exchange.number:03d} {exchange.line}"
    if exchange.number in scene.left_out:
        result.left_out.append(f"{title}: {scene.left_out[exchange.number]}")
        return
    stage.follow(exchange)
    found = (
        differences(exchange.status, exchange.answer, *stage.exchange(exchange))
        if exchange.method
        else _other_states(exchange.states, stage.states())
    )
    result.equal += not found
    if found:
        result.different.append(f"{title} ({exchange.note})" + "".join(f"\n      {text}" for text in found))


def _other_states(recorded: dict[str, str], own: dict[str, dict[str, str]]) -> list[str]:
    """Nothing where one of the sandbox's definitions is as the recorded one; the note does not name it."""
    return [] if recorded in own.values() else [f"no definition is {recorded}, but {own}"]


def _table(results: list[Result]) -> None:
    print(f"{'scenario':<26}{'exchanges':>10}{'compared':>10}{'equal':>10}{'different':>10}{'left out':>10}")
    for result in results:
        compared = result.exchanges - len(result.left_out)
        numbers = (result.exchanges, compared, result.equal, len(result.different), len(result.left_out))
        print(f"{result.name:<26}" + "".join(f"{number:>10}" for number in numbers))
    for title, lines in (
        ("left out", [line for result in results for line in result.left_out]),
        ("different", [line for result in results for line in result.different]),
    ):
        print(f"{title}:" if lines else f"{title}: nothing", *lines, sep="\n  ")


def main(wanted: list[str]) -> int:
    """Print the table; 1 when something compared is different, or nothing is there and `--required` says it must be."""
    required, wanted = "--required" in wanted, [name for name in wanted if name != "--required"]
    if not FOLDER.is_dir():
        print(f"conformance: nothing to compare with: there are no recorded exchanges in {FOLDER}")
        return int(required)
    results = [
        replay(name, exchanges, SCENES.get(name[:2], Scene()))
        for name, exchanges in scenarios().items()
        if not wanted or name[:2] in wanted
    ]
    _table(results)
    return int(any(result.different for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
