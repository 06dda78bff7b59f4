"""Rows of several runs, and the file that they are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.figures import FIGURES, Module, Results, Row, medians, read


def test_results_are_the_same_when_they_are_read_again(tmp_path: Path) -> None:
    row = Row("tm/clone, later", requests={"GET /v1/controller/version": 1}, modules={"os": Module(0.4, "site")})
    row.add({"requests": 5, "cpu_ms": 71.23456})
    row.add({"requests": 5, "cpu_ms": 70})
    results = Results({"python": "3.11.7"}, {"actions": [row], "data": []})
    path = tmp_path / "folder" / "bench.json"
    results.write(path)
    assert read(path) == results
    assert read(path).row("actions", "tm/clone, later").figures["cpu_ms"] == [71.2346, 70]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"made": {}, "parts": {"actions": [{"name": "x"}]}}', '{"parts": 1}']
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        read(path)


def test_a_figure_is_shown_with_its_spread() -> None:
    row = Row("x", {"cpu_ms": [81.4, 79.6, 95.0], "requests": [3, 3, 3], "copy_ratio": [0.5]})
    assert [row.shown(name) for name in ("cpu_ms", "requests", "copy_ratio", "ssh")] == ["81 (80–95)", "3", "0.50", "-"]


def test_the_middle_of_what_is_counted_by_name() -> None:
    assert medians([{"a": 1, "b": 1}, {"a": 1}, {"a": 2}]) == {"a": 1}


def test_every_figure_says_what_it_is() -> None:
    assert all(figure.meaning and (figure.exact or figure.least > 0) for figure in FIGURES.values())
