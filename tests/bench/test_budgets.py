"""Which budgets hold, and which row is the worst."""

from __future__ import annotations

from bench.budgets import BUDGETS, REQUESTS, tables
from bench.figures import Results, Row


def lines(results: Results) -> dict[tuple[str, str], list[str]]:
    (table,) = tables(results)
    return {(row[0], row[1]): list(row[2:]) for row in table.rows}


def test_the_worst_row_is_named() -> None:
    rows = [
        Row("tm/ln", {"cpu_ratio": [1.1, 1.2, 1.3], "requests": [2], "oned": [1]}),
        Row("tm/clone, later", {"cpu_ratio": [1.4, 1.5, 1.6], "requests": [7], "oned": [1]}),
    ]
    found = lines(Results({}, {"actions": rows}))
    cpu = "CPU of its own, times the reference's"
    assert found["actions", cpu] == ["at most 1.3 ×", "1.50 (1.40–1.60): tm/clone, later", "missed by 1 of 2"]
    assert found["actions", "LINSTOR requests"] == [
        "minimal sequence and what is said",
        "7 for 5: tm/clone, later",
        "missed by 1 of 2",
    ]
    assert found["actions", "requests to oned"][-1] == "yes"


def test_whatever_is_asked_beside_the_minimal_sequence_is_for_something() -> None:
    assert all(bool(allowed.besides) == bool(allowed.why) for allowed in REQUESTS.values())
    assert REQUESTS["tm/ln"].requests == 3
    assert REQUESTS["tm/context"].requests == 0


def test_where_more_is_better() -> None:
    rows = [Row("cp of a raw file", {"copy_ratio": [0.95]}), Row("clone by copy", {"copy_ratio": [0.5]})]
    (found,) = lines(Results({}, {"data": rows})).values()
    assert found == ["at least 0.9", "0.50: clone by copy", "missed by 1 of 2"]


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert tables(Results({}, {"crowd": []})) == []
    assert {budget.part for budget in BUDGETS} == {"startup", "actions", "data", "clone", "monitor", "crowd"}
