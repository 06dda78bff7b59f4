"""move: bring images, and disks of VMs that are powered off, from other datastores into one of linstor_un."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, Optional

import click

from linstor_un.cli import completion, holding
from linstor_un.cli.moving import waiting
from linstor_un.cli.output import Cell, Report, changing, is_agreed, reporting
from linstor_un.cli.relocating import notes, origin, plan, steps
from linstor_un.cli.relocating.notes import Note
from linstor_un.cli.relocating.plan import Known, Move
from linstor_un.cli.relocating.steps import Site
from linstor_un.driver import configuration_path
from linstor_un.errors import DriverError
from linstor_un.opennebula import catalogue
from linstor_un.opennebula.model import Datastore
from linstor_un.settings import from_configuration, read_configuration

LEFT = 3
DONE, NOTHING, WOULD, FAILED, REFUSED = "done", "nothing", "would", "failed", "refused"
COLUMNS = ("outcome", "image", "name", "from", "to", "new_image", "size_mib", "vm", "templates", "note")
_COLOURS = {DONE: "green", FAILED: "red", REFUSED: "yellow"}
_HELP = """\
Bring images, and disks of VMs that are powered off, into a datastore of linstor_un.

IMAGE is an id or a name. Images come from datastores of fs (also those of shared, ssh, qcow2 and fs_lvm), ceph, lvm
and dev, and from another datastore of linstor_un. The new image has the old one's name, type, owner, rights and
attributes once its bytes are the same; the old one is renamed NAME-moved, or deleted with --delete. The persistent
image of a VM that is powered off is detached, moved and attached again. VM templates that name the old image by its id
are listed. Run it on the front-end where oned runs. After an interruption run it again: it goes on. See docs/move.md.

\b
Examples:
  linstor-un move debian-12 --to fast-images --dry-run
  linstor-un move 17 18 23 --to fast-images
  linstor-un move --vm 12 --to fast-images --delete
  linstor-un move --vm web1 --disk 1 --to fast-images

\b
Exit codes:
  0  all are there
  1  failed: the sentence on stderr says why, and nothing was changed
  3  something was refused or has failed: each is listed with its reason
"""


class Told(NamedTuple):
    """What came of one image or disk; `subject` is how sentences call it."""

    outcome: str
    subject: str
    move: Optional[Move]
    note: str = ""
    new_id: Optional[int] = None


class Errand(NamedTuple):
    """What is asked for, and what is to be done of it; `templates` are the VM templates that name each old image."""

    moves: Sequence[Move]
    told: Sequence[Told]
    templates: Mapping[int, Sequence[str]]


@click.command(help=_HELP)
@click.argument("images", type=completion.NAMED_IMAGE, metavar="IMAGE...", nargs=-1)
@click.option(
    "--to",
    "target",
    type=completion.TARGET,
    required=True,
    metavar="DATASTORE",
    help="The image datastore, by id or name.",
)
@click.option("--vm", type=completion.NAMED_VM, default="", metavar="VM", help="The disks of this VM, by id or name.")
@click.option("--disk", type=click.IntRange(0), metavar="N", help="Only this disk of the VM.")
@click.option("--delete", is_flag=True, help="Delete the old images when the new ones are right.")
@changing
@reporting
def command(
    report: Report,
    images: tuple[str, ...],
    target: str,
    vm: str,
    disk: Optional[int],
    delete: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Plan, ask, and move."""
    if bool(images) == bool(vm):
        raise click.UsageError("Name images, or a VM with --vm.")
    if disk is not None and not vm:
        raise click.UsageError("--disk goes with --vm.")
    configuration = read_configuration(configuration_path())
    if not dry_run:
        holding.check_user(from_configuration(configuration), "move")
    known = plan.look()
    datastore = plan.target_of(known, target)
    moves, refused = _of_vm(known, vm, disk, datastore) if vm else _of_images(known, images, datastore)
    errand = _sorted(configuration, moves, refused, delete)
    _show(report, errand, delete)
    told = list(errand.told)
    question = f"Move {len(errand.moves)} to {datastore.label}?"
    if errand.moves and is_agreed(report, question, dry_run, yes):
        told += _run(report, configuration, errand, delete)
    elif errand.moves and dry_run:
        told += [Told(WOULD, move.label, move) for move in errand.moves]
    _rows(report, told, errand.templates)
    sys.exit(LEFT if any(item.outcome in (REFUSED, FAILED) for item in told) else 0)


def _of_images(known: Known, words: Sequence[str], target: Datastore) -> tuple[list[Move], list[Told]]:
    moves: dict[int, Move] = {}
    refused = []
    for word in words:
        entry = plan.entry_of(known, word)
        try:
            move = plan.of(known, entry, target)
            moves[move.image_id] = move
        except DriverError as error:
            refused.append(Told(REFUSED, entry.image.label, None, str(error)))
    return list(moves.values()), refused


def _of_vm(known: Known, word: str, disk: Optional[int], target: Datastore) -> tuple[list[Move], list[Told]]:
    moves, refused = plan.of_vm(known, catalogue.vm_of(word), disk, target)
    return moves, [Told(REFUSED, label, None, reason) for label, reason in refused]


def _sorted(configuration: Mapping[str, str], moves: Sequence[Move], refused: Sequence[Told], delete: bool) -> Errand:
    """Tell what is there already and what cannot be read from what is to be moved."""
    left: list[Move] = []
    told = list(refused)
    for move in moves:
        is_old_left = delete and move.source.datastore_id != move.target.datastore_id
        if plan.is_there(move) and not is_old_left:
            told.append(_nothing(move))
            continue
        try:
            if move.is_done:
                plan.check_deletion(move)
            elif not move.is_verified and not move.is_cloned:
                origin.of(move, from_configuration(configuration))
            left.append(move)
        except DriverError as error:
            told.append(Told(REFUSED, move.label, move, str(error)))
    return Errand(left, told, catalogue.templates_with([move.image_id for move in left]) if left else {})


def _nothing(move: Move) -> Told:
    new = move.new if move.is_done else move.old
    number = new.image.image_id if new is not None else move.image_id
    note = f"it is image {number} there" if number != move.image_id else "it is there"
    return Told(NOTHING, move.label, move, note, number)


def _show(report: Report, errand: Errand, delete: bool) -> None:
    """Show people what would be done, and what would not."""
    if not report.is_for_people:
        return
    for told in errand.told:
        if told.outcome == REFUSED or not report.is_quiet:
            text = f"{told.outcome:<8} {told.subject}: {told.note}"
            click.secho(text, fg=_COLOURS.get(told.outcome), err=told.outcome == REFUSED)
    if not errand.moves and not errand.told:
        report.say("Nothing is left to be moved.")
    if errand.moves and not report.is_quiet:
        columns = ("image", "name", "mib", "from", "to", "how", "vm", "old_image")
        report.rows(columns, [_planned(move, delete) for move in errand.moves])
        for image_id, names in errand.templates.items():
            for name in names:
                report.say(
                    f"VM template {name} names image {image_id} by its id: `onetemplate update {name.split()[0]}`, "
                    "with the new image's IMAGE_ID or its name"
                )


def _planned(move: Move, delete: bool) -> tuple[Cell, ...]:
    image, name = move.old.image, move.name
    how = "is put in its place" if move.is_verified else "cloned" if move.is_cloned else "read"
    how = "is there" if move.is_done else how
    vm = f"{move.vm.vm_id} ({move.vm.name})" if move.vm is not None else ""
    fate = "is deleted" if delete else f"becomes {name}-moved" + (", disabled" if image.is_persistent else "")
    return (image.image_id, name, image.size_mib, move.source.label, move.target.label, how, vm, fate)


def _run(report: Report, configuration: Mapping[str, str], errand: Errand, delete: bool) -> list[Told]:
    """Move one after the other; what fails leaves the others as they are to be."""
    found = []
    site = Site(configuration, lambda label: waiting.bar(report, label, 1), partial(waiting.clock, report))
    for wanted in errand.moves:
        try:
            now = steps.move(site, wanted, delete)
            number = now.new.image.image_id if now.new is not None else None
            told = Told(DONE, wanted.label, now, f"it is image {number} in {wanted.target.label}", number)
        except DriverError as error:
            told = Told(FAILED, wanted.label, wanted, f"{error}{_without_disk(wanted)}")
        except KeyboardInterrupt:
            text = f"{wanted.label}: ended before it was moved: run this again, it goes on{_without_disk(wanted)}"
            click.secho(f"{FAILED:<8} {text}", fg="red", err=True)
            raise
        if told.outcome == FAILED and report.is_for_people:
            click.secho(f"{told.outcome:<8} {told.subject}: {told.note}", fg="red", err=True)
        elif told.outcome == DONE:
            report.say(f"{told.outcome:<8} {told.subject}: {told.note}", "green")
        found.append(told)
    return found


def _without_disk(wanted: Move) -> str:
    """Return what a VM has to do without until this is run again."""
    vm_id = notes.read().get(wanted.image_id, Note()).vm_id
    entry = catalogue.image(wanted.image_id)
    if vm_id < 0 or (entry is not None and entry.image.vm_ids):
        return ""
    return f"; VM {vm_id} is without this disk until this was run again: do not start it before"


def _rows(report: Report, told: Sequence[Told], templates: Mapping[int, Sequence[str]]) -> None:
    """Print rows for programs; people have read the lines."""
    if report.is_for_people:
        return
    rows: list[tuple[Cell, ...]] = []
    for item in told:
        move = item.move
        if move is None:
            rows.append((item.outcome, None, item.subject, "", "", None, None, None, "", item.note))
            continue
        numbers = " ".join(name.split()[0] for name in templates.get(move.image_id, ()))
        vm_id = move.vm.vm_id if move.vm is not None else None
        ends = (move.source.name, move.target.name)
        size = move.old.image.size_mib
        rows.append((item.outcome, move.image_id, move.name, *ends, item.new_id, size, vm_id, numbers, item.note))
    report.rows(COLUMNS, rows)
