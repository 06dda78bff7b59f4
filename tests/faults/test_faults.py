"""A part of the fault matrix that is another one after each commit; `./dev faults` is all of it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import CHECKOUT, commit

CELLS = 48


def test_a_part_of_the_matrix_that_changes_with_the_commit() -> None:
    seed = commit()
    # In a process of its own: a world is forked, which one with the threads of a test runner cannot be.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--sample", str(CELLS), "--seed", seed, "-n", "2"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
