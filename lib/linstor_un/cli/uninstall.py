"""uninstall: put back what was there before the driver."""

from __future__ import annotations

import click

from linstor_un.cli import install
from linstor_un.cli.installation import plan as plans
from linstor_un.cli.installation import shown, tree
from linstor_un.cli.output import Report, changing, is_agreed, reporting


@click.command()
@click.option("--root", default="", metavar="DIR", help="An OpenNebula in this folder, or prepared below it.")
@changing
@reporting
def command(report: Report, root: str, dry_run: bool, yes: bool) -> None:
    """Put back, to the byte, what was there before the driver.

    Where oned.conf or vmm_execrc were edited since, only the driver's lines go; a linstor_un.conf that was edited
    stays. LINSTOR's volumes are not touched, and VMs that run go on; what OpenNebula does with their disks fails from
    then on, unless the driver that was there before can do it.

    \b
    Examples:
      linstor-un uninstall --dry-run
      linstor-un uninstall --yes
    """
    plan = plans.removal(tree.find(root))
    report.say(f"Back to what was there before {plans.present(plan.tree, plan.journal)}:\n")
    shown.show(report, plan)
    if is_agreed(report, "Do this?", dry_run, yes):
        plans.remove(plan)
        report.say("\nDone.")
        install.say_restart(report, plan)
