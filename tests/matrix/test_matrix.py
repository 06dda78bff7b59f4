"""A part of the matrix that is another one after each commit; `./dev matrix` is all of it."""

from __future__ import annotations

from tests.commands import try_a_part

CELLS = 12


def test_a_part_of_the_matrix_that_changes_with_the_commit() -> None:
    try_a_part("tests.matrix", CELLS)
