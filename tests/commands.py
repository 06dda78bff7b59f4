"""What commands have in common that try much more than a test run has time for, and of which that tries a part."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import CHECKOUT, commit


def options(command: str, description: str, arguments: Sequence[str], things: str) -> argparse.Namespace:
    """Read a command's arguments; `things` are what it tries."""
    parser = argparse.ArgumentParser(prog=command, description=description)
    parser.add_argument("pattern", nargs="?", default="", help=f"a regular expression for the names of {things}")
    parser.add_argument("--list", action="store_true", help=f"only list the {things}")
    parser.add_argument("--sample", type=int, metavar="COUNT", help=f"only about so many {things}, drawn by --seed")
    parser.add_argument("--seed", default="", help=f"what decides which {things} are drawn, such as a commit's id")
    # Half of the time one of them waits.
    processes = 2 * (os.cpu_count() or 1)
    parser.add_argument("-n", dest="processes", type=int, default=processes, help=f"processes ({processes})")
    parser.add_argument("--table", type=Path, metavar="PAGE", help="put what is shown into this page")
    return parser.parse_args(arguments)


def told(shown: str, command: str, arguments: Sequence[str], started: float, processes: int) -> str:
    """What is shown, with the command that made it and how long it took since `started` (time.monotonic)."""
    minutes = (time.monotonic() - started) / 60
    return f"{shown}\n\n`{' '.join([command, *arguments])}`: {minutes:.0f} minutes with {processes} processes."


def try_a_part(module: str, count: int) -> None:
    """Run a sample that is another one after each commit, in a process of its own.

    Scripts are forked from an interpreter there, and none with the threads of a test runner can be.
    """
    seed = commit()
    done = subprocess.run(
        [sys.executable, "-m", module, "--sample", str(count), "--seed", seed, "-n", "2"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
