"""audit: what OpenNebula's database, LINSTOR and the hosts do not agree on, and mending it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

import click

from linstor_un.cli import completion, holding
from linstor_un.cli.auditing import examination
from linstor_un.cli.auditing.examination import Examination
from linstor_un.cli.auditing.finding import NAME, SAFE, Finding
from linstor_un.cli.output import DRY_RUN, Report, changing, reporting
from linstor_un.driver import configuration_path
from linstor_un.errors import Busy, DriverError, NotFound
from linstor_un.settings import from_configuration, read_configuration
from linstor_un.undo import Stopped

FOUND = 3
MENDED, GONE, LEFT, FAILED, WOULD = "mended", "gone", "left", "failed", "would"
_COLOURS = {MENDED: "green", FAILED: "red", LEFT: "yellow"}


_HELP = """\
Compare OpenNebula's database with LINSTOR and the hosts, and say what is wrong.

Prints nothing where nothing is. What an action is working on is left alone, and so is what belongs to another
OpenNebula. The column REPAIR says what --repair does: `safe` things at once, `ask` after a yes, and `name` only
to a volume that --delete names. Each is looked at once more before it is touched.

\b
Examples:
  linstor-un audit                             what LINSTOR and OpenNebula do not agree on
  linstor-un audit --hosts                     the hosts too
  linstor-un audit --repair --dry-run          what would be mended
  linstor-un audit --repair --delete one-vm-12-disk-0

\b
Exit codes:
  0  nothing is wrong, or is left so
  1  failed: the sentence on stderr says why
  3  something is wrong, or was not mended
"""


@click.command(help=_HELP)
@click.argument("volumes", type=completion.VOLUME, nargs=-1, metavar="[VOLUME]...")
@click.option("--hosts", is_flag=True, help="Look at links and devices on the hosts too: one ssh connection each.")
@click.option("--repair", is_flag=True, help="Mend what is safe to mend, and ask about the rest.")
@click.option(
    "--delete",
    type=completion.VOLUME,
    multiple=True,
    metavar="NAME",
    help="Delete this volume, which may be the last copy of data.",
)
@changing
@reporting
def command(
    report: Report,
    volumes: tuple[str, ...],
    hosts: bool,
    repair: bool,
    delete: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    """Find what is wrong, and mend it where that is asked for."""
    if delete and not repair:
        raise click.UsageError("--delete goes with --repair.")
    configuration = read_configuration(configuration_path())
    if repair and not dry_run:
        holding.check_user(from_configuration(configuration), "audit --repair")
    found = examination.examine(configuration, hosts)
    chosen = _chosen(found, {*volumes, *delete} if volumes else ())
    _check_names(found, delete)
    _check_volumes(found, chosen, volumes)
    if not repair:
        _show(report, chosen)
        left = len(chosen)
    else:
        left = _repair(report, found, chosen, {name.lower() for name in delete}, dry_run, yes)
    sys.exit(FOUND if left else 0)


def _chosen(found: Examination, names: Collection[str]) -> Sequence[Finding]:
    wanted = {name.lower() for name in names}
    if not wanted:
        return found.findings
    return [item for item in found.findings if {item.resource.lower(), item.subject.lower()} & wanted]


def _check_names(found: Examination, delete: Sequence[str]) -> None:
    deletable = {item.subject.lower() for item in found.findings if item.repair and item.repair.consent == NAME}
    for name in delete:
        if name.lower() not in deletable:
            raise NotFound(
                f"{name} is nothing that was found to be left over: `linstor-un audit` names what may be deleted"
            )


def _check_volumes(found: Examination, chosen: Sequence[Finding], volumes: Sequence[str]) -> None:
    """Refuse the name of nothing, which would be found to be in order."""
    known = {subject.lower() for item in chosen for subject in (item.resource, item.subject)}
    for site in found.inventory.sites:
        known |= {*site.cluster.volumes, *found.inventory.wanted(site)}
    for name in volumes:
        if name.lower() not in known:
            raise NotFound(
                f"{name} is no volume of LINSTOR's, OpenNebula asks for none of this name, and nothing was found to be "
                "wrong with it: `linstor-un status volumes` shows their names"
            )


def _show(report: Report, findings: Sequence[Finding]) -> None:
    columns = ("kind", "subject", "node", "repair", "finding")
    rows = [
        (item.kind, item.subject, item.node, item.repair.consent if item.repair else "", item.text) for item in findings
    ]
    if rows or not report.is_for_people:
        report.rows(columns, rows)


def _repair(
    report: Report, found: Examination, chosen: Sequence[Finding], named: Collection[str], dry_run: bool, yes: bool
) -> int:
    """Mend item by item and return how many are left."""
    outcomes = []
    for finding in chosen:
        outcome, why = _mend(found, finding, named, dry_run, yes)
        what = finding.repair.what if finding.repair else finding.text
        outcomes.append((outcome, finding.kind, finding.subject, what, why))
        colour = _COLOURS.get(outcome)
        report.say(f"{outcome:<7} {finding.kind:<17} {what}" + (f": {why}" if why else ""), colour)
    if not report.is_for_people:
        report.rows(("outcome", "kind", "subject", "repair", "reason"), outcomes)
    elif dry_run and outcomes:
        report.say(DRY_RUN)
    return sum(outcome not in (MENDED, GONE) for outcome, *_ in outcomes)


def _mend(found: Examination, finding: Finding, named: Collection[str], dry_run: bool, yes: bool) -> tuple[str, str]:
    if finding.repair is None:
        return LEFT, "nothing does this but you"
    if finding.repair.consent == NAME and finding.subject.lower() not in named:
        return LEFT, f"it may be the last copy of data: --delete {finding.subject}"
    is_asked = finding.repair.consent not in (SAFE, NAME)
    if dry_run:
        return WOULD, finding.repair.reason + (", after a yes" if is_asked else "")
    if is_asked and not yes and not _is_agreed(finding):
        return LEFT, "you have not said yes"
    try:
        with holding.interruptible():
            is_mended = examination.mend(found.inventory, finding)
    except (Busy, Stopped):
        return LEFT, "an action works on it now"
    except DriverError as error:
        return FAILED, str(error)
    return (MENDED, finding.repair.reason) if is_mended else (GONE, "it is as it should be by now")


def _is_agreed(finding: Finding) -> bool:
    if finding.repair is None or sys.stdin is None or not sys.stdin.isatty():
        return False
    return click.confirm(f"{finding.text}\n{finding.repair.what} ({finding.repair.reason})?", err=True)
