"""A part of the matrix that is another one after each commit; `./dev matrix` is all of it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import CHECKOUT, commit

CELLS = 12


def test_a_part_of_the_matrix_that_changes_with_the_commit() -> None:
    seed = commit()
    # In a process of its own: scripts are forked from an interpreter, and none with the threads of a test runner.
    done = subprocess.run(
        [sys.executable, "-m", "tests.matrix", "--sample", str(CELLS), "--seed", seed, "-n", "2"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
