"""`./dev coverage`: which lines and branches of the driver the tests reach, in all its processes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import page
from tests.conftest import CHECKOUT
from tests.coverage.gaps import Gap, gaps

COMMAND = "./dev coverage"
LEAST_PERCENT = 90
# Its tests are about what a process loads, and coverage loads much.
_OTHERS = ("--ignore", "tests/bench")
# Beside the data that pyproject.toml names.
_FOLDER = CHECKOUT / ".venv" / "coverage"


def main(arguments: list[str]) -> int:
    """Run the tests and say what they reach and what they do not; 0 when that is enough."""
    options, for_pytest = _options(arguments)
    status = 0
    if not options.again:
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True)
        processes = [] if any(word.startswith("-n") for word in for_pytest) else ["-n", "3"]
        status = _coverage("run", "-m", "pytest", "-p", "no:cacheprovider", *_OTHERS, *processes, *for_pytest)
        _coverage("combine", "-q")
    _coverage("json", "-q", "-o", str(_FOLDER / "report.json"))
    report = json.loads((_FOLDER / "report.json").read_text(encoding="utf-8"))
    found = list(gaps(report))
    shown = f"{table(report, found)}\n\n`{COMMAND}`."
    print(f"\n{shown}\n")
    print("\n".join(f"no test reaches {gap}" for gap in found))
    percent = report["totals"]["percent_covered"]
    if percent < LEAST_PERCENT:
        print(f"{percent:.1f} % are less than {LEAST_PERCENT} %")
    if options.table:
        page.put(options.table, COMMAND, shown)
    return 1 if status or percent < LEAST_PERCENT else 0


def table(report: Mapping[str, Any], found: Sequence[Gap]) -> str:
    """The figures per module that has a gap, and of all, in Markdown."""
    head = ["| module | statements | missing | branches | missing | covered |", "|---|---:|---:|---:|---:|---:|"]
    incomplete = {gap.module for gap in found}
    rows = [
        _row(path.removeprefix("lib/linstor_un/"), file["summary"])
        for path, file in report["files"].items()
        if path.removeprefix("lib/linstor_un/") in incomplete
    ]
    complete = len(report["files"]) - len(rows)
    return "\n".join([*head, *rows, _row(f"all, and {complete} without a gap", report["totals"])])


def _row(name: str, numbers: Mapping[str, Any]) -> str:
    keys = ("num_statements", "missing_lines", "num_branches", "missing_branches")
    return f"| {name} | {' | '.join(str(numbers[key]) for key in keys)} | {numbers['percent_covered']:.1f} % |"


def _coverage(*arguments: str) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=CHECKOUT, env=environment).returncode


def _options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, epilog="other arguments go to pytest")
    parser.add_argument("--again", action="store_true", help="only say what the last run has reached")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="put the table into this page")
    return parser.parse_known_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
