"""What the demonstration shows: steps, actions with time and cost, checks, tables, and the conclusion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.table import Table

from linstor_sandbox.opennebula import Call


class Report:
    """Writes to the terminal; a check that fails is remembered."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self.failures: list[str] = []
        self.checks = 0
        self.actions: list[Call] = []

    def step(self, title: str) -> None:
        """A new part of the story."""
        self._console.print(f"\n[bold]{title}[/bold]")

    def command(self, text: str) -> None:
        """What an administrator or a user typed."""
        self._console.print("  $ ", end="")
        self._console.print(text, style="cyan", markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self._console.print(f"    {text}", style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A sign of life while something takes long."""
        with self._console.status(what):
            yield

    def action(self, call: Call) -> None:
        """One run of an entry script."""
        self.actions.append(call)
        mark = "[green]ok[/green]" if call.succeeded else f"[red]exit {call.exit_code}[/red]"
        cost = f"{call.seconds:6.2f} s  {call.counts.get('rest', 0):3} REST  {call.counts.get('ssh', 0):2} ssh"
        self._console.print(f"    {mark} {cost}  ", end="")
        arguments = " ".join(_short(argument) for argument in call.argv_shown)
        line = f"{call.kind}/{call.verb} {arguments}"
        self._console.print(line, markup=False, no_wrap=True, overflow="ellipsis")

    def check(self, what: str, right: bool, otherwise: str = "") -> None:
        """A claim that can be wrong; `otherwise` is shown when it is."""
        self.checks += 1
        if right:
            self._console.print(f"    [green]✓[/green] {what}")
        else:
            self.failed(f"{what}: {otherwise}" if otherwise else f"not so: {what}")

    def failed(self, what: str) -> None:
        """Something is wrong: the demonstration goes on if it can, and ends with a failure."""
        self.failures.append(what)
        self._console.print("    [red]✗[/red] ", end="")
        self._console.print(what, style="red", markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table with a title."""
        table = Table(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
        )
        for number, column in enumerate(columns):
            table.add_column(column, no_wrap=number == 0)
        for row in rows:
            table.add_row(*row)
        self._console.print()
        self._console.print(table)

    def conclude(self, seconds: float) -> None:
        """The last lines: how much was done, and whether everything was right."""
        rest = sum(call.counts.get("rest", 0) for call in self.actions)
        ssh = sum(call.counts.get("ssh", 0) for call in self.actions)
        self._console.print(
            f"\n{len(self.actions)} actions, {rest} REST calls, {ssh} ssh connections, {self.checks} checks "
            f"in {seconds:.0f} s"
        )
        if self.failures:
            self._console.print(f"[red bold]{len(self.failures)} wrong:[/red bold]")
            for failure in self.failures:
                self._console.print(f"  {failure}", markup=False, soft_wrap=True)
        else:
            self._console.print("[green bold]Nothing is left, and every byte was right.[/green bold]")


def _short(argument: str) -> str:
    """Arguments as people read them: the usual directories shortened."""
    return argument.replace("/var/lib/one//datastores/", "…/").replace("/dev/drbd/by-res/", "…/")
