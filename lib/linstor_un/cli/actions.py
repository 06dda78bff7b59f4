"""actions: which actions of the driver run now on this front-end, for whom, and what they do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

import click

from linstor_un import locks
from linstor_un.cli.auditing import makers
from linstor_un.cli.output import Cell, Report, repeatedly, reporting
from linstor_un.driver import configuration_path, remotes
from linstor_un.locks import Holder
from linstor_un.settings import from_configuration, read_configuration
from linstor_un.units import MIB

_FOLDERS = {"datastore/linstor_un": "datastore", "tm/linstor_un": "tm", "vmm/kvm": "vmm"}
_OVERRIDE = "_linstor_un"
# Of a script's command line: the interpreter, its options, and the script.
_FIRST_WORDS = 5
_PLACE = re.compile(r".*/\d+/(?P<vm>\d+)(?:/disk\.(?P<disk>\d+)|/checkpoint)?")
_UNKNOWN = "-"
_HELP = """\
Show which actions of the driver run now on this front-end: for which VM or image, since when, and what they do.

STEP is what an action that holds volumes has begun last: a request to LINSTOR or work on a host. DONE and TOTAL are
the MiB of an image that is fetched, where they are known; what a host copies by itself it does not say, and - is shown.
An action without VOLUMES waits for one, or needs none. `linstor-un` itself is shown while it holds a volume. Run it as
the user of the driver: the locks are for nobody else to read.

\b
Examples:
  linstor-un actions
  linstor-un actions --watch 2
  linstor-un actions --json
"""


class Running(NamedTuple):
    """A process of the driver; `began` in seconds since 1970."""

    process: int
    parent: int
    verb: str
    whose: str
    began: float


@click.command(help=_HELP)
@click.option("--watch", type=click.FloatRange(0.1), metavar="SECONDS", help="Again and again, until Ctrl-C.")
@reporting
def command(report: Report, watch: Optional[float]) -> None:
    """Show what runs."""
    repeatedly(report, watch, look, lambda shown: _print(report, shown))


def look() -> list[tuple[Cell, ...]]:
    """Return a row for each action that runs, those that have begun first first."""
    held: dict[int, list[Holder]] = {}
    for holder in locks.holders(from_configuration(read_configuration(configuration_path()))):
        held.setdefault(holder.process, []).append(holder)
    found = {item.process: item for item in _processes(os.path.realpath(remotes()), held)}
    # What is forked to become another program has, for a moment, its parent's words.
    return [
        _row(item, held.get(item.process, ()))
        for item in sorted(found.values(), key=lambda item: (item.began, item.process))
        if item.parent not in found
    ]


def _row(item: Running, holding: Sequence[Holder]) -> tuple[Cell, ...]:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.began))
    latest = next((holder for holder in holding if holder.step), None)
    volumes = " ".join(holder.resource for holder in holding)
    if latest is None:
        return item.process, item.verb, item.whose, since, None, None, None, volumes
    return item.process, item.verb, item.whose, since, latest.step, latest.done_bytes, latest.total_bytes, volumes


def _print(report: Report, rows: Sequence[tuple[Cell, ...]]) -> None:
    if not report.is_for_people:
        columns = ("process", "action", "of", "since", "step", "done_bytes", "total_bytes", "volumes")
        report.rows(columns, rows)
        return
    shown = [(*row[:4], row[4] or _UNKNOWN, _mib(row[5]), _mib(row[6]), row[7] or _UNKNOWN) for row in rows]
    report.rows(("process", "action", "of", "since", "step", "done_mib", "total_mib", "volumes"), shown)
    if not shown:
        report.say("No action runs.")


def _mib(size_bytes: Cell) -> str:
    return f"{size_bytes / MIB:.1f}" if isinstance(size_bytes, int) else _UNKNOWN


def _processes(root: str, held: Mapping[int, object]) -> Iterator[Running]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        process = int(name)
        words, parent = _words(process), _parent(process)
        began = makers.began_at(process) if words else None
        if began is None or parent is None:
            continue
        found = _action(root, words) or (_own(words) if process in held else None)
        if found is not None:
            yield Running(process, parent, *found, began)


def _words(process: int) -> list[str]:
    """Return a process's command line; nothing where it has ended or is another's secret."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return file.read().decode("utf-8", "replace").split("\0")[:-1]
    except OSError:
        return []


def _parent(process: int) -> Optional[int]:
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _action(root: str, words: Sequence[str]) -> Optional[tuple[str, str]]:
    """Return the action whose script a process runs, and whose it is; None where it is no script of the driver's."""
    for position, word in enumerate(words[:_FIRST_WORDS]):
        path = os.path.realpath(word) if word.startswith("/") else ""
        folder, _, verb = path[len(root) + 1 :].rpartition("/")
        kind = _FOLDERS.get(folder, "") if path.startswith(f"{root}/") else ""
        if kind and (kind != "vmm" or verb.endswith(_OVERRIDE)):
            return f"{kind}/{verb}", _whose(kind, verb, words[position + 1 :])
    return None


def _whose(kind: str, verb: str, arguments: Sequence[str]) -> str:
    """Return the VM's disk, the VM, the image or the datastore that an action is called for."""
    numbers = [word for word in arguments if word.isdigit()]
    if kind == "datastore" or verb == "monitor":
        what = "datastore" if verb == "monitor" else "image"
        return f"{what} {numbers[-1]}" if numbers else ""
    for match in filter(None, map(_PLACE.fullmatch, arguments)):
        disk = match.group("disk")
        return f"disk {disk} of VM {match.group('vm')}" if disk else f"VM {match.group('vm')}"
    return ""


def _own(words: Sequence[str]) -> Optional[tuple[str, str]]:
    """Return the verb of an operators' command that holds a volume; None for any other process."""
    for position, word in enumerate(words[:_FIRST_WORDS]):
        if word == "linstor_un.cli" or os.path.basename(word) == "linstor-un":
            return " ".join(["linstor-un", *words[position + 1 : position + 2]]), ""
    return None
