"""What is printed: tables, JSON and CSV of the same rows, and colours where a person looks."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from linstor_un.cli.output import Cell, Report, is_agreed
from tests.conftest import CHECKOUT

COLUMNS = ("name", "size_mib", "in_use")
ROWS: list[tuple[Cell, ...]] = [("one-image-1", 8, True), ('a "quoted", name', 10240, None)]


def printed(report: Report, color: bool = False) -> str:
    @click.command()
    def show() -> None:
        report.rows(COLUMNS, ROWS)

    return CliRunner().invoke(show, color=color).output


def test_a_table_has_numbers_to_the_right_and_cuts_nothing_off() -> None:
    assert printed(Report()).splitlines() == [
        "NAME              SIZE MIB  IN USE",
        "one-image-1              8  True",
        'a "quoted", name     10240',
    ]
    assert printed(Report(is_quiet=True)).splitlines()[0] == "one-image-1           8  True"


def test_programs_get_the_same_rows() -> None:
    assert json.loads(printed(Report("json"))) == [dict(zip(COLUMNS, row)) for row in ROWS]
    rows = list(csv.reader(io.StringIO(printed(Report("csv")))))
    assert rows == [list(COLUMNS), *[["" if cell is None else str(cell) for cell in row] for row in ROWS]]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_nothing_but_rows_is_printed_for_programs(form: str) -> None:
    @click.command()
    def show() -> None:
        Report(form).say("words")

    assert CliRunner().invoke(show).output == ""


def test_colours_are_for_terminals() -> None:
    code = "from linstor_un.cli.output import Report; Report().say('words', 'red'); Report().rows(('a',), [(1,)])"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")}
    piped = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert piped == b"words\nA\n1\n"
    terminal, end = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=end) as process:
        os.close(end)
        shown = b""
        try:
            while block := os.read(terminal, 4096):
                shown += block
        except OSError:
            # Nobody has the other end any more.
            pass
        finally:
            os.close(terminal)
    assert process.returncode == 0
    assert b"\x1b[31mwords\x1b[0m" in shown and b"\x1b[1mA\x1b[0m" in shown


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("\n", False), ("n\n", False)])
def test_a_terminal_is_asked(answer: str, agreed: bool) -> None:
    code = (
        "import sys; from linstor_un.cli.output import Report, is_agreed;"
        "sys.exit(10 + is_agreed(Report(), 'Do this?', False, False))"
    )
    terminal, end = pty.openpty()
    os.write(terminal, answer.encode())
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "lib")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdin=end, capture_output=True, check=False)
    os.close(terminal)
    os.close(end)
    assert (done.returncode, b"Do this? [y/N]" in done.stdout + done.stderr) == (10 + agreed, True)


def test_a_dry_run_does_nothing_whatever_else_is_said() -> None:
    assert not is_agreed(Report(is_quiet=True), "Do this?", dry_run=True, yes=True)
    assert is_agreed(Report(is_quiet=True), "Do this?", dry_run=False, yes=True)
