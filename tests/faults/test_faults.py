"""A part of the fault matrix that is another one after each commit; `./dev faults` is all of it."""

from __future__ import annotations

from tests.commands import try_a_part

CELLS = 48


def test_a_part_of_the_matrix_that_changes_with_the_commit() -> None:
    try_a_part("tests.faults", CELLS)
