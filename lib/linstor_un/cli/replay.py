"""replay: show the calls of actions that a log holds, and what one of them would do now."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from typing import NamedTuple, Optional, TextIO

import click

from linstor_un import recording
from linstor_un.cli import rehearsal
from linstor_un.cli.installation import interpreter, tree
from linstor_un.cli.output import DRY_RUN, Report, reporting
from linstor_un.errors import InvalidInput, NotFound
from linstor_un.recording import Recorded

# As `journalctl -t linstor_un` and /var/log/syslog show them: what is in front of the process's number is the time.
_OWN = re.compile(
    r"^(?P<time>.*?)\s?(?:\S+ )?linstor_un\[(?P<process>\d+)\]: INFO: (?P<kind>datastore|tm|vmm)/(?P<verb>\w+): "
    r"call (?P<part>\d+)/(?P<parts>\d+): (?P<text>.*)$"
)
# As oned writes a command that has failed, into its own log and a VM's.
_OPENNEBULAS = re.compile(
    r"^(?P<time>.*?) \[.*Command execution fail\w*(?: \(exit code: \d+\))?: \S*/"
    r"(?:(?P<kind>datastore|tm)/linstor_un/(?P<verb>\w+)|vmm/kvm/(?P<override>\w+_linstor_un)) (?P<words>.*)$"
)


class Found(NamedTuple):
    """A call in a log: when, by which process where that is known, of which action."""

    time: str
    process: str
    kind: str
    verb: str
    call: Recorded


@click.command()
@click.argument("log", type=click.File("r", errors="replace"))
@click.option("-N", "--number", type=int, metavar="N", help="Only the N-th call of the log; -1 is the last.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what the last call, or that one, would do now.")
@click.option("--root", default="", metavar="DIR", help="An OpenNebula in this folder.")
@reporting
def command(report: Report, log: TextIO, number: Optional[int], dry_run: bool, root: str) -> None:
    """Show the calls of actions that LOG holds, with their XML; - is stdin.

    Takes the system log, where each action leaves the line that it can be shown from, and oned.log and the log of a VM,
    where oned leaves the command lines of what has failed. Nothing secret is in them.

    With --dry-run the action runs now, with the settings of now, and changes nothing: what it asks LINSTOR and oned is
    asked and shown, and what it would change is shown as if it went well. It stops where what comes next depends on
    what came of that: a look at the changed volume, what a program on a host says.

    \b
    Examples:
      linstor-un replay /var/log/one/12.log
      journalctl -t linstor_un | linstor-un replay -
      journalctl -t linstor_un --since -1h | linstor-un replay --dry-run -
    """
    calls = list(calls_in(log))
    if not calls:
        raise NotFound("The log holds no call of an action: give the output of `journalctl -t linstor_un`")
    if dry_run or number is not None:
        calls = [_chosen(calls, -1 if number is None else number)]
    if dry_run:
        _rehearse(report, calls[0], root)
    else:
        _show(report, calls)


def _chosen(calls: list[Found], number: int) -> Found:
    place = number - 1 if number > 0 else len(calls) + number
    if number == 0 or not 0 <= place < len(calls):
        raise click.UsageError(f"The log holds {len(calls)} calls, and none with the number {number}.")
    return calls[place]


def calls_in(log: TextIO) -> Iterator[Found]:
    """Return the calls of a log in the order in which they are complete; raises InvalidInput."""
    begun: dict[tuple[str, str], list[str]] = {}
    for line in log:
        own = _OWN.match(line)
        opennebulas = None if own else _OPENNEBULAS.match(line)
        if own:
            key = (own["process"], own["verb"])
            texts = [*(begun.get(key, []) if own["part"] != "1" else []), own["text"]]
            begun[key] = texts
            # Of a call that the log does not hold whole nothing can be said.
            if own["part"] == own["parts"] == str(len(texts)):
                call = recording.read("".join(texts))
                yield Found(own["time"].strip(), own["process"], own["kind"], own["verb"], call)
        elif opennebulas:
            yield _of_opennebula(opennebulas)


def _of_opennebula(line: re.Match[str]) -> Found:
    try:
        words = shlex.split(line["words"])
    except ValueError:
        words = line["words"].split()
    # Up to 6.6 the XML is an argument: what is secret in it is hidden here, as oned has not done it.
    call = recording.read("".join(text.partition(": ")[2] for text in recording.lines(words, b"")))
    kind, verb = (line["kind"], line["verb"]) if line["kind"] else ("vmm", line["override"])
    return Found(line["time"].strip(), "", kind, verb, call)


def _show(report: Report, calls: list[Found]) -> None:
    rows = [(found.time, f"{found.kind}/{found.verb}", _words(found), _xml(found)) for found in calls]
    if not report.is_for_people:
        report.rows(("time", "action", "arguments", "xml"), rows)
        return
    for number, (time, action, words, xml) in enumerate(rows, 1):
        click.secho(f"{number}. {action} {words}", bold=True)
        report.say(f"   {time}" if time else "   (the log does not say when)")
        click.echo("".join(f"   {line}\n" for line in xml.splitlines()), nl=False)


def _words(found: Found) -> str:
    """Return the arguments as a shell would take them, with XML cut short: it is shown by itself."""
    document = found.call.document
    return " ".join("..." if document and len(word) > 100 else shlex.quote(word) for word in found.call.arguments)


def _xml(found: Found) -> str:
    if found.call.is_left_out:
        return "(its XML was too long for the log)"
    if not found.call.document:
        return ""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True, recover=True)
    tree = etree.fromstring(found.call.document, parser)
    return str(etree.tostring(tree, pretty_print=True, encoding="unicode"))


def _rehearse(report: Report, found: Found, root: str) -> None:
    if found.call.is_left_out or (found.kind == "datastore" and not found.call.document):
        raise InvalidInput(
            f"The log does not hold the XML of this call of {found.kind}/{found.verb}: give the system log, not oned's"
        )
    place = tree.find(root)
    interpreter.owner(place.here(place.remotes)).become()
    report.say(f"{found.kind}/{found.verb} {_words(found)}", bold=True)
    rows = []
    for kind, text in rehearsal.steps(place, found.kind, found.verb, found.call):
        rows.append((kind, text))
        if report.is_for_people:
            click.echo(f"  {kind:<8}{text}")
            sys.stdout.flush()
    if not report.is_for_people:
        report.rows(("kind", "what"), rows)
        return
    if rows and rows[-1][0] == rehearsal.CHANGES:
        report.say("It stops here: what comes next depends on how that goes.")
    report.say(DRY_RUN)
