"""`./dev mutation`: puts every small defect into the modules that must not fail, and says which ones no test finds."""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from tests import page
from tests.conftest import CHECKOUT, SHARED
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.targets import TARGETS, Target

COMMAND = "./dev mutation"
# Tests take longer beside others; what has not ended after this never will.
_SHORTEST_LIMIT_SECONDS = 60.0
_TIMES_AS_LONG = 5


@dataclass(frozen=True)
class Outcome:
    """What came of the mutants of a module."""

    target: Target
    tried: int
    survivors: Sequence[Mutant]

    @property
    def wrong(self) -> list[str]:
        """What is to be done: survivors that nobody has explained, and explanations that are not needed."""
        names = {mutant.name for mutant in self.survivors}
        unexplained = [f"no test finds {name}" for name in sorted(names - set(self.target.equivalents))]
        return unexplained + [f"a test finds {name}" for name in sorted(set(self.target.equivalents) - names)]

    def row(self) -> str:
        """A row of the table."""
        killed = self.tried - len(self.survivors)
        explained = sum(mutant.name in self.target.equivalents for mutant in self.survivors)
        return f"| {self.target.shown} | {self.tried} | {killed} | {len(self.survivors)} | {explained} |"


class Copies:
    """Copies of the checkout, one for each process: a defect is put into a copy and the tests are run there."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._written = 0
        for number in range(count):
            self._free.put(self._copy(folder / str(number) / "checkout"))

    def _copy(self, to: Path) -> Path:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=CHECKOUT, stdout=-1, check=True
        )
        for name in listed.stdout.decode().split("\0"):
            if (CHECKOUT / name).is_file():
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, to / name)
        (to.parent / "shared").symlink_to(SHARED)
        return to

    @contextmanager
    def with_module(self, path: Path, source: str) -> Iterator[Path]:
        """A copy of the checkout in which the module is another."""
        copy = self._free.get()
        module = copy / path
        original = module.read_text(encoding="utf-8")
        try:
            self._write(module, source)
            yield copy
        finally:
            self._write(module, original)
            self._free.put(copy)

    def _write(self, module: Path, source: str) -> None:
        module.write_text(source, encoding="utf-8")
        # Bytecode is known by its source's second, which two defects may share.
        self._written += 1
        os.utime(module, (self._written, self._written))


def is_found(target: Target, copies: Copies, source: str, longest: Optional[float] = None) -> bool:
    """Whether a test of the target fails, or none ends in so many seconds, with this source of its module."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *target.tests]
    with (
        copies.with_module(target.path, source) as copy,
        subprocess.Popen(
            command,
            cwd=copy,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
    ):
        try:
            return process.wait(longest) != 0
        except subprocess.TimeoutExpired:
            # With all that a defect keeps from ending.
            os.killpg(process.pid, signal.SIGKILL)
            return True


def run(target: Target, copies: Copies, pool: ThreadPoolExecutor) -> Outcome:
    """Try every mutant of a target; raises RuntimeError where its tests fail without any."""
    original = (CHECKOUT / target.path).read_text(encoding="utf-8")
    started = time.monotonic()
    if is_found(target, copies, original):
        raise RuntimeError(f"the tests of {target.shown} fail as it is: python -m pytest -x {' '.join(target.tests)}")
    longest = _SHORTEST_LIMIT_SECONDS + _TIMES_AS_LONG * (time.monotonic() - started)
    every = mutants(original, target.functions)
    found = pool.map(lambda mutant: is_found(target, copies, mutant.source, longest), every)
    survivors = []
    for mutant, was_found in zip(every, found):
        if not was_found:
            survivors.append(mutant)
            print(f"\n{mutant.name}\n{mutant.diff(original, str(target.path))}", flush=True)
    return Outcome(target, len(every), survivors)


def table(outcomes: Sequence[Outcome]) -> str:
    """The result per module, and why no test finds what none finds, in Markdown."""
    head = [
        "| module | defects tried | found by tests | not found | of these no defects |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = [
        f"- {outcome.target.shown}, `{name}`: {reason}."
        for outcome in outcomes
        for name, reason in outcome.target.equivalents.items()
    ]
    return "\n".join([*head, *(outcome.row() for outcome in outcomes), "", *rows])


def main(arguments: list[str]) -> int:
    """Try the mutants that are asked for; 0 when every survivor is explained."""
    options = _options(arguments)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="linstor-un-mutation-") as folder,
        ThreadPoolExecutor(options.processes) as pool,
    ):
        copies = Copies(Path(folder), options.processes)
        outcomes = [run(target, copies, pool) for target in TARGETS if options.pattern in target.shown]
    minutes = (time.monotonic() - started) / 60
    shown = table(outcomes)
    shown += f"\n\n`{COMMAND}`: {minutes:.0f} minutes with {options.processes} processes."
    wrong = [line for outcome in outcomes for line in outcome.wrong]
    print("\n".join(["", shown, "", *wrong]))
    if options.table:
        page.put(options.table, COMMAND, shown)
    return 1 if wrong else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("pattern", nargs="?", default="", help="a part of the modules' names")
    processes = os.cpu_count() or 1
    parser.add_argument("-n", dest="processes", type=int, default=processes, help=f"processes ({processes})")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="put the table into this page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
