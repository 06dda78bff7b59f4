"""What is worse, and what is only different."""

from __future__ import annotations

from bench.comparison import regressions, remarks
from bench.figures import Module, Results, Row

PYTHON = {"python": "3.11.7", "python-linstor": "1.29.1"}


def results(row: Row, made: dict[str, str] = PYTHON, part: str = "actions") -> Results:
    return Results(made, {part: [row]})


def worse(old: dict[str, list[float]], new: dict[str, list[float]]) -> list[str]:
    return regressions(results(Row("tm/ln", old)), results(Row("tm/ln", new)))


def test_a_count_is_exact() -> None:
    line = "actions: tm/ln: LINSTOR requests: 3 → 4"
    assert worse({"requests": [3, 3, 3]}, {"requests": [4, 4, 4]}) == [line]
    assert worse({"requests": [4, 4, 4]}, {"requests": [3, 3, 3]}) == []
    assert worse({"requests": [3, 3, 3]}, {"requests": [3, 4, 3]}) == [], "one run of three had to ask again"


def test_a_time_is_worse_only_beyond_its_spread_and_its_margin() -> None:
    old = {"cpu_ratio": [1.20, 1.25, 1.30]}
    assert worse(old, {"cpu_ratio": [1.5, 1.6, 1.7]}) == [
        "actions: tm/ln: CPU of its own, times the reference's: 1.25 (1.20–1.30) → 1.60 (1.50–1.70) ×"
    ]
    assert worse(old, {"cpu_ratio": [1.2, 1.6, 1.7]}) == [], "the runs differ more among themselves"
    assert worse(old, {"cpu_ratio": [1.31, 1.32, 1.33]}) == [], "too little to be sure of"
    assert worse({"idle_ms": [-3, 0, 2]}, {"idle_ms": [95, 101, 103]}) != []
    assert worse({"idle_ms": [-3, 0, 2]}, {"idle_ms": [14, 14, 14]}) == []


def test_where_more_is_better_less_is_worse() -> None:
    assert worse({"copy_ratio": [0.95, 0.96, 0.97]}, {"copy_ratio": [0.5, 0.6, 0.7]}) != []
    assert worse({"copy_ratio": [0.5, 0.6, 0.7]}, {"copy_ratio": [0.95, 0.96, 0.97]}) == []


def test_what_depends_on_the_machine_and_its_load_alone_is_not_judged() -> None:
    assert worse({"wall_ms": [100]}, {"wall_ms": [900]}) == []


def test_requests_are_named() -> None:
    old = Row("tm/ln", {"requests": [2]}, {"GET /v1/controller/version": 1, "POST /v1/x": 1})
    new = Row(
        "tm/ln", {"requests": [4]}, {"GET /v1/controller/version": 1, "POST /v1/x": 2, "GET /v1/view/resources": 1}
    )
    (line,) = regressions(results(old), results(new))
    assert line.endswith("LINSTOR requests: 2 → 4 (1 more POST /v1/x, 1 more GET /v1/view/resources)")


MODULES = {"linstor_un.driver": Module(1.0, ""), "os": Module(0.5, "linstor_un.driver")}
ADDED = {
    "decimal": Module(3.0, "linstor_un.driver"),
    "_decimal": Module(1.5, "decimal"),
    "numbers": Module(1, "_decimal"),
}


def test_an_import_is_named_with_all_that_it_brings() -> None:
    old, new = Row("tm/ln", modules=MODULES), Row("tm/ln", modules={**MODULES, **ADDED})
    line = "actions: tm/ln: imports: decimal and 2 more, for linstor_un.driver, 5.5 ms"
    assert regressions(results(old), results(new)) == [line]
    assert regressions(results(new), results(old)) == []


def test_imports_of_another_python_are_not_compared() -> None:
    old, new = Row("tm/ln", modules=MODULES), Row("tm/ln", modules={**MODULES, **ADDED})
    other = {**PYTHON, "python": "3.13.0"}
    assert regressions(results(old), results(new, other)) == []
    assert remarks(results(old), results(new, other)) == ["python was 3.11.7 and is 3.13.0"]


def test_what_was_not_measured_both_times_is_said() -> None:
    old, new = results(Row("tm/ln")), results(Row("tm/mv"))
    assert remarks(old, new) == ["actions: tm/mv: was not measured", "actions: tm/ln: is not measured any more"]
    assert remarks(old, results(Row("raw"), part="data")) == ["data: was not measured"]
    assert regressions(old, new) == []
