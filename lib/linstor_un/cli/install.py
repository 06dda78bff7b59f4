"""install: put the driver into OpenNebula, and its lines into oned.conf."""

from __future__ import annotations

from collections.abc import Sequence

import click

from linstor_un import __version__
from linstor_un.cli.installation import mixed_modes, shown, tree
from linstor_un.cli.installation import plan as plans
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.cli.installation.plan import Plan
from linstor_un.cli.output import Report, changing, is_agreed, reporting
from linstor_un.errors import OpenNebulaMissing

_OLDEST_RELEASE = (5, 12)


@click.command()
@click.option("--root", default="", metavar="DIR", help="An OpenNebula in this folder, or prepared below it.")
@click.option("--python", default="", metavar="PATH", help="The interpreter that is to run the driver.")
@click.option("--mixed", default="", metavar="DRIVERS", help="Let VMs be in system datastores of ssh,shared,local too.")
@changing
@reporting
def command(report: Report, root: str, python: str, mixed: str, dry_run: bool, yes: bool) -> None:
    """Put the driver into OpenNebula and edit its configuration.

    Copies the scripts, the library and linstor_un.conf into the remotes folder, and adds to oned.conf and vmm_execrc
    what the driver needs: nothing else in them changes. What was there is kept for `uninstall`. Shows first what it
    will do, and asks. A linstor_un.conf that was edited is never touched. Running it again changes nothing.

    \b
    Examples:
      linstor-un install --dry-run
      linstor-un install --yes
      linstor-un install --mixed ssh,shared         see docs/mixed.md; also local, qcow2, and ceph for its images
      linstor-un install --python /opt/linstor_un/bin/python3
      ONE_LOCATION=/opt/one linstor-un install      a self-contained OpenNebula
      linstor-un install --root /srv/image          packages, installed below a folder
    """
    carry_out(report, _planned(root, python, mixed_modes.parse(mixed)), dry_run, yes)


def _planned(root: str, python: str, modes: Sequence[str]) -> Plan:
    found = tree.find(root)
    check_release(found.release())
    return plans.installation(found, python, modes)


def check_release(release: str) -> None:
    """Check that the driver knows this OpenNebula; raises OpenNebulaMissing."""
    numbers = tuple(int(number) for number in release.split(".")[:2] if number.isdigit())
    if numbers and numbers < _OLDEST_RELEASE:
        raise OpenNebulaMissing(f"OpenNebula {release} is too old for {DRIVER}: upgrade it to 5.12 or newer")


def carry_out(report: Report, plan: Plan, dry_run: bool, yes: bool) -> None:
    """Show a plan that installs, ask, and do it."""
    before = plans.present(plan.tree, plan.journal)
    if plan.is_empty:
        report.say(f"{before} is installed in {plan.tree.here(plan.tree.remotes)}: nothing to do.")
        if not report.is_for_people:
            shown.show(report, plan)
        return
    assert plan.python is not None, "an installation has one"
    release = plan.tree.release()
    report.say(f"{DRIVER} {__version__} for OpenNebula {release or '(of unknown release)'}, run by {plan.python.path}")
    report.say(f"There now: {before or 'no driver of this name'}.\n")
    shown.show(report, plan)
    if is_agreed(report, "Install this?", dry_run, yes):
        plans.install(plan)
        report.say(f"\nInstalled. `linstor-un uninstall` puts back what was there: it is in {plan.journal.folder}.")
        say_restart(report, plan)


def say_restart(report: Report, plan: Plan) -> None:
    """Say what has to be restarted."""
    if plan.restarts:
        report.say(f"oned reads its configuration anew with `{plan.tree.restart()}`: do that now.", bold=True)
    else:
        report.say("Nothing has to be restarted.")
