"""map: the placement as a picture, in the terminal or as one page for a browser."""

from __future__ import annotations

import json
from typing import IO, Optional

import click

from linstor_un.cli import completion
from linstor_un.cli import inventory as inventories
from linstor_un.cli.mapping import page, picture, text
from linstor_un.cli.output import Cell, Report, reporting
from linstor_un.cli.status import Filter
from linstor_un.driver import configuration_path
from linstor_un.settings import read_configuration

_HELP = """\
Draw what is where: nodes with their pools, the VMs on them, their volumes and where those are.

As text, or with --html as one page that needs no other file and no network: point at a volume or a VM to see what
belongs together, click to keep it, and type to find something. `FILE#VOLUME` in the browser begins with that volume.

\b
Examples:
  linstor-un map                               in the terminal
  linstor-un map --html /tmp/map.html          for a browser
  linstor-un map --vm 12                       only that VM's volumes
"""


@click.command(help=_HELP)
@click.option("--html", type=click.File("w", "utf-8"), metavar="FILE", help="Write a page for a browser; - is stdout.")
@click.option(
    "--node", type=completion.NODE, default="", metavar="NODE", help="Only what is on this node, or attached there."
)
@click.option("--datastore", type=completion.DATASTORE, metavar="ID", help="Only the volumes in this datastore.")
@click.option("--vm", type=completion.VM, metavar="ID", help="Only the volumes of this VM.")
@click.option("--image", type=completion.IMAGE, metavar="ID", help="Only the volume of this image.")
@reporting
def command(
    report: Report,
    html: Optional[IO[str]],
    node: str,
    datastore: Optional[int],
    vm: Optional[int],
    image: Optional[int],
) -> None:
    """Draw the picture."""
    inventory = inventories.read(read_configuration(configuration_path()))
    wanted = Filter(node, datastore, vm, image)
    wanted.check(inventory)
    drawn = picture.of(inventory, wanted)
    if html is not None:
        html.write(page.page(drawn))
    elif report.form == "json":
        click.echo(json.dumps(page.plain(drawn), indent=2))
    elif report.form == "csv":
        columns = ("volume", "of", "node", "role", "primary", "good")
        rows: list[tuple[Cell, ...]] = [
            (volume.name, volume.of, *spot) for volume in drawn.volumes for spot in volume.spots
        ]
        report.rows(columns, rows)
    else:
        click.echo("\n".join(text.lines(drawn)))
