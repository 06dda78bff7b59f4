"""adopt: take over datastores of LINBIT's add-on with VMs running, or make an image of a volume that is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

from linstor_un.cli import completion
from linstor_un.cli.adopting import attributes, takeover, volume
from linstor_un.cli.adopting.scripts import Scripts
from linstor_un.cli.adopting.takeover import Mark, Takeover
from linstor_un.cli.installation import tree
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.cli.output import Report, changing, is_agreed, progress, reporting
from linstor_un.cluster import snapshots
from linstor_un.driver import configuration_path
from linstor_un.naming import BASE_SNAPSHOT
from linstor_un.opennebula import changes
from linstor_un.opennebula.survey import Store
from linstor_un.settings import read_configuration

EXIT_FOUND = 3
DONE, WOULD, LEFT = "done", "would", "left"

_HELP = """\
Take over what is in LINSTOR already; no byte is copied and nothing is renamed.

\b
Examples:
  linstor-un adopt datastore 100 --dry-run
  linstor-un adopt image backup-of-db --datastore 101 --name db
"""
_DATASTORE_HELP = """\
Take over datastores of LINBIT's add-on (TM_MAD="linstor") while their VMs run, or with --undo give them back.

ID is an image datastore; the add-on's system datastores go with it, and all its image datastores have to be named,
since all of them have the same transfer scripts. Volumes keep their names and say whose they are, the datastores get
this driver and its attributes, and the add-on's transfer scripts are replaced by this driver's, since oned goes on
calling them for VMs that it knows. Each item is shown before; --undo brings back exactly what was. See docs/adopt.md.

\b
Exit codes:
  0  all of it is this driver's, or the add-on's again
  1  failed: what is missing is done by running it again
  3  something is in the way: each is named, and nothing was changed

\b
Examples:
  linstor-un adopt datastore 100 --dry-run
  linstor-un adopt datastore 100 102
  linstor-un adopt datastore 100 102 --undo
"""
_IMAGE_HELP = """\
Make an image of a LINSTOR resource that is there; its volume stays as it is, and stays when the image is deleted.

\b
Exit codes:
  0  the image is there
  1  failed, or the volume cannot be an image: nothing was changed

\b
Examples:
  linstor-un adopt image backup-of-db --datastore 101 --name db --dry-run
  linstor-un adopt image backup-of-db --datastore 101 --name db --persistent
"""


class Item(NamedTuple):
    """One thing that is to change."""

    kind: str
    name: str
    what: str
    is_done: bool


@click.group(help=_HELP)
def command() -> None:
    """Run what is asked for."""


@command.command("datastore", help=_DATASTORE_HELP)
@click.argument("identifiers", metavar="ID...", type=completion.IMAGE_DATASTORE, nargs=-1, required=True)
@click.option("--undo", is_flag=True, help="Give the datastores back to the add-on.")
@click.option("--root", default="", metavar="DIR", help="An OpenNebula in this folder.")
@changing
@reporting
def adopt_datastore(
    report: Report, identifiers: tuple[int, ...], undo: bool, root: str, dry_run: bool, yes: bool
) -> None:
    """Show each item, then change it."""
    scripts = Scripts(tree.find(root))
    found = takeover.read(read_configuration(configuration_path()), identifiers)
    reasons = list(takeover.objections_to_undo(found) if undo else takeover.objections(found))
    if reasons:
        for reason in reasons:
            click.echo(f"{click.style('error', fg='red', bold=True)}: {reason}.", err=True)
        sys.exit(EXIT_FOUND)
    marks = list(found.marks())
    items = _items_to_undo(found, marks, scripts) if undo else _items(found, marks, scripts)
    pending = [item for item in items if not item.is_done]
    if report.is_for_people and not report.is_quiet:
        report.rows(("kind", "name", "change"), [item[:3] for item in pending])
    if not pending:
        report.say("Nothing is left to be done.")
    is_to_be = bool(pending) and is_agreed(report, f"Change these {len(pending)} items?", dry_run, yes)
    if is_to_be:
        (_give_back if undo else _take)(report, found, marks, scripts)
        report.say("Done.")
    if not report.is_for_people:
        outcomes = [(*item[:3], LEFT if item.is_done else DONE if is_to_be else WOULD) for item in items]
        report.rows(("kind", "name", "change", "outcome"), outcomes)


def _items(found: Takeover, marks: Sequence[Mark], scripts: Scripts) -> list[Item]:
    """Return what is to change, in the order in which it does."""
    items = [Item("volume", mark.volume.resource, _said(mark), not mark.missing) for mark in marks]
    for store in found.pending:
        items.append(_of_store(store, store.datastore.attributes, attributes.adopted(store, found.system_disk_type)))
    items += [Item("datastore", store.datastore.label, "", True) for store in found.adopted]
    return [*items, Item("scripts", scripts.shown, f"those of {DRIVER}; the add-on's are kept", scripts.are_ours)]


def _said(mark: Mark) -> str:
    said = " ".join(f"{key}={value}" for key, value in sorted((mark.missing or mark.wanted.owner).items()))
    return f"{mark.wanted.label}: {said}"


def _of_store(store: Store, old: Mapping[str, str], new: Mapping[str, str]) -> Item:
    return Item("datastore", store.datastore.label, "; ".join(attributes.differences(old, new)), False)


def _items_to_undo(found: Takeover, marks: Sequence[Mark], scripts: Scripts) -> list[Item]:
    what = "the add-on's, as they were" if scripts.are_kept else "none, as before"
    items = [Item("scripts", scripts.shown, what, not scripts.are_kept and not scripts.are_ours)]
    for store in found.adopted:
        items.append(_of_store(store, store.datastore.attributes, attributes.before(store)))
    for mark in marks:
        words = [f"without {key}" for key in mark.said] + ([f"without snapshot {BASE_SNAPSHOT}"] if mark.base else [])
        items.append(Item("volume", mark.volume.resource, "; ".join(words), not words))
    return items


def _take(report: Report, found: Takeover, marks: Sequence[Mark], scripts: Scripts) -> None:
    """Change it in an order in which at each moment either driver finds what it needs."""
    for mark in progress(report, [mark for mark in marks if mark.missing], "Volumes"):
        mark.site.gateway.modify_resource_definition(mark.volume.resource, mark.missing)
    for store in found.pending:
        changes.update_datastore(store.datastore.datastore_id, attributes.adopted(store, found.system_disk_type))
    scripts.replace()


def _give_back(report: Report, found: Takeover, marks: Sequence[Mark], scripts: Scripts) -> None:
    scripts.put_back()
    for store in found.adopted:
        changes.update_datastore(store.datastore.datastore_id, attributes.before(store))
    for mark in progress(report, marks, "Volumes"):
        if mark.base:
            snapshots.forget(mark.site.gateway, mark.volume.resource, BASE_SNAPSHOT)
        if mark.said:
            mark.site.gateway.modify_resource_definition(mark.volume.resource, {}, mark.said)


@command.command("image", help=_IMAGE_HELP)
@click.argument("resource", type=completion.VOLUME)
@click.option(
    "--datastore", "datastore_id", type=completion.IMAGE_DATASTORE, required=True, metavar="ID", help="Its datastore."
)
@click.option("--name", required=True, help="The name of the image.")
@click.option("--type", "kind", type=click.Choice(["OS", "DATABLOCK", "CDROM"]), default="OS", help="Its type (OS).")
@click.option("--persistent", is_flag=True, help="VMs write to it; otherwise they get copies.")
@changing
@reporting
def adopt_image(
    report: Report,
    resource: str,
    datastore_id: int,
    name: str,
    kind: str,
    persistent: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Check that the volume can be an image, and register it."""
    found = volume.look(read_configuration(configuration_path()), resource, datastore_id, name)
    wanted = volume.template(found, name, kind, persistent)
    number = found.image.image_id if found.image else None
    if report.is_for_people and not report.is_quiet:
        report.rows(("attribute", "image"), list(wanted.items()))
    if found.image is not None:
        report.say(f"It is image {number} already.")
    question = f"Make image {name} of volume {found.volume.resource}?"
    is_to_be = found.image is None and is_agreed(report, question, dry_run, yes)
    if is_to_be:
        number = volume.register(found, wanted)
        report.say(f"Volume {found.volume.resource} is image {number} ({name}).")
    if not report.is_for_people:
        outcome = LEFT if found.image else DONE if is_to_be else WOULD
        report.rows(
            ("image", "name", "volume", "size_mib", "outcome"),
            [(number, name, found.volume.resource, int(wanted["SIZE"]), outcome)],
        )
