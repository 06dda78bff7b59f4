"""place: put a replica of a volume on a node, or take it from there."""

from __future__ import annotations

from typing import Optional

import click

from linstor_un.cli import completion, holding
from linstor_un.cli import inventory as inventories
from linstor_un.cli.moving import notes, rules, steps, telling, waiting
from linstor_un.cli.moving import scene as scenes
from linstor_un.cli.moving.scene import Scene
from linstor_un.cli.moving.telling import DONE, NOTHING, WOULD, Told
from linstor_un.cli.output import Report, changing, reporting
from linstor_un.driver import configuration_path
from linstor_un.errors import NotFound
from linstor_un.settings import from_configuration, read_configuration

_HELP = """\
Put a replica of a volume on a node, or take it from there.

VOLUME is its name in LINSTOR, or `image-3` or `vm-12-disk-0` in OpenNebula's numbers. A node that has the volume
without a disk, as its tie-breaker or for a VM, gets the disk. A replica that a VM has open becomes diskless, and the
VM goes on. What would lose the last good copy or the quorum is refused. Done already is done; after an interruption
it goes on.

\b
Examples:
  linstor-un place image-3 --add node4
  linstor-un place vm-12-disk-0 --add node4 --pool fast --no-wait
  linstor-un place one-vm-12-disk-0 --remove node1 --dry-run

\b
Exit codes:
  0  it is so
  1  refused or failed: the sentence on stderr says why
"""


@click.command(help=_HELP)
@click.argument("volume", type=completion.VOLUME)
@click.option("--add", type=completion.NODE, default="", metavar="NODE", help="Put a replica there.")
@click.option("--remove", type=completion.NODE, default="", metavar="NODE", help="Take the replica from there.")
@click.option(
    "--pool",
    type=completion.POOL,
    default="",
    metavar="POOL",
    help="In this pool; without it in one that the volume may be in.",
)
@click.option("--wait/--no-wait", default=True, help="Wait until the new replica is up to date (the default).")
@changing
@reporting
def command(
    report: Report, volume: str, add: str, remove: str, pool: str, wait: bool, dry_run: bool, yes: bool
) -> None:
    """Put a replica or take it."""
    if bool(add) == bool(remove):
        raise click.UsageError("Name one node: --add NODE or --remove NODE.")
    if pool and not add:
        raise click.UsageError("--pool goes with --add.")
    configuration = read_configuration(configuration_path())
    if not dry_run:
        holding.check_user(from_configuration(configuration), "place")
    scene = scenes.find(inventories.read(configuration), volume)
    told = _add(report, scene, add, pool, wait, dry_run, yes) if add else _remove(report, scene, remove, dry_run, yes)
    if told is not None:
        telling.line(report, told)
        telling.rows(report, [told])


def _add(report: Report, scene: Scene, node: str, pool: str, wait: bool, dry_run: bool, yes: bool) -> Optional[Told]:
    wanted = rules.addition(scene, node, pool)
    if wanted is None:
        text = f"{scene.resource} has a replica on {node}"
        is_filled = node.lower() not in {item.lower() for item in waiting.unfinished(scene)}
        if wait and not dry_run and not is_filled:
            waiting.until_up_to_date(report, scene, [node])
            return Told(DONE, scene.resource, node, text, "it is up to date now")
        return Told(NOTHING, scene.resource, node, text, "" if is_filled else "it is being copied")
    text, more = notes.said_of_addition(scene, wanted), "; ".join(notes.of_addition(scene, wanted))
    if not telling.is_agreed(report, [(text, more)], dry_run, yes):
        return Told(WOULD, scene.resource, wanted.node, text, more) if dry_run else None
    steps.put(scene, node, pool)
    if wait:
        waiting.until_up_to_date(report, scene, [node])
    return Told(DONE, scene.resource, wanted.node, text, more if wait else "it is copied from now on")


def _remove(report: Report, scene: Scene, node: str, dry_run: bool, yes: bool) -> Optional[Told]:
    wanted = rules.removal(scene, node)
    if wanted is None:
        return Told(NOTHING, scene.resource, node, f"{scene.resource} has no replica on {node}")
    text, more = notes.said_of_removal(scene, wanted), "; ".join(notes.of_removal(scene, wanted))
    if not telling.is_agreed(report, [(text, more)], dry_run, yes):
        return Told(WOULD, scene.resource, wanted.node, text, more) if dry_run else None
    steps.take(scene, node)
    return Told(DONE, scene.resource, wanted.node, text, "; ".join(filter(None, (_what_stays(scene, node), more))))


def _what_stays(scene: Scene, node: str) -> str:
    """Return what is on the node now; LINSTOR makes the tie-breaker of what has been a replica where it needs one."""
    try:
        there = scenes.again(scene).on(node)
    except NotFound:
        return ""
    if there is None:
        return ""
    if there.replica.is_tie_breaker:
        return f"{node} is its tie-breaker now, which takes no space"
    return "it is attached there" if there.replica.is_diskless else f"it goes when {node} is back"
