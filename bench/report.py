"""Tables, on the terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich import table as rich_table
from rich.console import Console

from bench.setting import Table


def show(tables: Sequence[Table]) -> None:
    """Print tables, as wide as the terminal, or as they need to be where it is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=240)
    for table in tables:
        shown = rich_table.Table(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if _is_of_numbers(table, number) else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
        for note in table.notes:
            console.print(f"  {note}", style="dim", markup=False)


def _is_of_numbers(table: Table, column: int) -> bool:
    """Whether nothing but figures stands in a column."""
    return all(re.fullmatch(r"-|-?[\d.]+( \(.*\))?", row[column]) for row in table.rows)


def markdown(tables: Sequence[Table]) -> str:
    """The same tables for a page."""
    return "\n\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    sides = ["---:" if _is_of_numbers(table, number) else "---" for number in range(len(table.columns))]
    head = [_line(table.columns), _line(sides)]
    lines = [f"### {table.title}", "", *head, *(_line(row) for row in table.rows)]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
