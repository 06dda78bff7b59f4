"""upgrade: replace the driver that is installed, the bash one included, by this version of it."""

from __future__ import annotations

import click

from linstor_un.cli import install
from linstor_un.cli.installation import plan as plans
from linstor_un.cli.installation import tree
from linstor_un.cli.installation.journal import Journal
from linstor_un.cli.output import Report, changing, reporting
from linstor_un.errors import NotInstalled


@click.command()
@click.option("--root", default="", metavar="DIR", help="An OpenNebula in this folder, or prepared below it.")
@click.option("--python", default="", metavar="PATH", help="The interpreter that is to run the driver.")
@changing
@reporting
def command(report: Report, root: str, python: str, dry_run: bool, yes: bool) -> None:
    """Replace an older version, or the bash linstor_un of 2019 to 2021, in place.

    Datastores, images and VMs keep their names and go on; linstor_un.conf stays. Does what `install` does, where the
    driver is installed already.

    \b
    Examples:
      linstor-un upgrade --dry-run
      linstor-un upgrade --yes
    """
    found = tree.find(root)
    install.check_release(found.release())
    if not plans.present(found, Journal(found).read()):
        raise NotInstalled(
            f"There is no linstor_un in {found.here(found.remotes)} to be upgraded: use `linstor-un install`"
        )
    install.carry_out(report, plans.installation(found, python), dry_run, yes)
