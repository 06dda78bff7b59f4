"""check: look at everything that the driver needs, and name what is wrong with its remedy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from linstor_un import log
from linstor_un.cli.checks import backups, datastores, facts, front_end, hosts, linstor, opennebula
from linstor_un.cli.checks.facts import Facts
from linstor_un.cli.checks.finding import ERROR, Finding
from linstor_un.cli.installation import interpreter, tree
from linstor_un.cli.output import Report, reporting

EXIT_FOUND = 3
CHECKS = (
    *front_end.CHECKS,
    *opennebula.CHECKS,
    *linstor.CHECKS,
    *hosts.CHECKS,
    *datastores.CHECKS,
    *backups.CHECKS,
)
_COLOURS = {ERROR: "red"}


@click.command()
@click.option("--root", default="", metavar="DIR", help="An OpenNebula in this folder.")
@reporting
def command(report: Report, root: str) -> None:
    """Look for everything that is wrong, and say what to do.

    Looks at the installation, oned.conf, oned, LINSTOR's controllers and nodes, each host over ssh, and the datastores.
    Changes nothing. Each finding has a name, by which docs/check.md explains it. Started by root it goes on as
    oneadmin, to see what the driver sees.

    \b
    Exit codes:
      0  nothing is wrong, or there are warnings only
      3  at least one error was found

    \b
    Examples:
      linstor-un check
      linstor-un check --quiet || mail -s linstor_un root
      linstor-un check --json | jq '.[].code'
    """
    log.start("check")
    found = tree.find(root)
    interpreter.owner(found.here(found.remotes)).become()
    if found.is_self_contained:
        # As oned starts the driver there, whatever this shell has.
        os.environ["ONE_LOCATION"] = os.path.dirname(found.var)
    seen = facts.gather(found)
    # What two datastores share would else be found twice.
    findings = list(dict.fromkeys(judge(seen)))
    show(report, seen, findings)
    if any(finding.severity == ERROR for finding in findings):
        sys.exit(EXIT_FOUND)


def judge(seen: Facts) -> Iterator[Finding]:
    """Return what all checks find."""
    for check in CHECKS:
        yield from check(seen)


def show(report: Report, seen: Facts, findings: list[Finding]) -> None:
    """Print the findings, and for people what was looked at."""
    if not report.is_for_people:
        columns = ("severity", "code", "what", "remedy", "documentation")
        report.rows(columns, [(*finding, finding.documentation) for finding in findings])
        return
    for finding in findings:
        title = click.style(finding.severity, fg=_COLOURS.get(finding.severity, "yellow"), bold=True)
        click.echo(click.wrap_text(f"{title}: {finding.what}.", _width(), "", "  "))
        click.echo(click.wrap_text(_sentence(finding.remedy), _width(), "  ", "  "))
        click.echo(f"  {finding.documentation}\n")
    for sentence in seen.left_out:
        report.say(sentence, "yellow")
    report.say(_summary(seen, findings), None if findings else "green")


def _width() -> int:
    import shutil

    return min(shutil.get_terminal_size().columns, 120)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _summary(seen: Facts, findings: list[Finding]) -> str:
    looked = [f"OpenNebula {seen.cloud.release}"] if seen.cloud else []
    looked += [f"LINSTOR {site.cluster.version}" for site in seen.sites if site.cluster]
    looked += [_counted(len(seen.hosts), "host"), _counted(len(seen.stores), "datastore")]
    if not findings:
        return f"Nothing is wrong: {', '.join(looked)}."
    errors = sum(finding.severity == ERROR for finding in findings)
    found = f"{_counted(errors, 'error')} and {_counted(len(findings) - errors, 'warning')}"
    return f"{found}: {', '.join(looked)}."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
