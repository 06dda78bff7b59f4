"""Tables on the terminal and on pages."""

from __future__ import annotations

import pytest

from bench.report import markdown, show
from bench.setting import Table

TABLE = Table("Speed", ["way", "ms", "of"], [["a|b", "12 (-3–14)", "yes"], ["c", "-", "no"]], ["Slow."])


def test_a_page_has_figures_on_the_right() -> None:
    assert markdown([TABLE]).splitlines() == [
        "### Speed",
        "",
        "| way | ms | of |",
        "| --- | ---: | --- |",
        "| a\\|b | 12 (-3–14) | yes |",
        "| c | - | no |",
        "",
        "Slow.",
    ]


def test_a_terminal_shows_everything(capsys: pytest.CaptureFixture[str]) -> None:
    show([TABLE])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Speed", "a|b", "12 (-3–14)", "Slow."))
