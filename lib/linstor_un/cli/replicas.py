"""replicas: give a volume so many replicas."""

from __future__ import annotations

from collections.abc import Sequence

import click

from linstor_un.cli import completion, holding
from linstor_un.cli import inventory as inventories
from linstor_un.cli.moving import choosing, notes, room, rules, steps, telling, waiting
from linstor_un.cli.moving import scene as scenes
from linstor_un.cli.moving.scene import Scene, listed, plural
from linstor_un.cli.moving.telling import DONE, NOTHING, WOULD, Told
from linstor_un.cli.output import Report, changing, reporting
from linstor_un.driver import configuration_path
from linstor_un.errors import NoRoom, NotReady
from linstor_un.settings import from_configuration, read_configuration

_HELP = """\
Give a volume N replicas: LINSTOR places what is missing, and what is too many is taken.

VOLUME is its name in LINSTOR, or `image-3` or `vm-12-disk-0` in OpenNebula's numbers. More are placed as its resource
group and datastore say, on nodes with room, and waited for. Fewer are left once all that are being copied are up to
date: first those go that are no good copies, last those on hosts of its VMs, of equals the one in the fullest pool;
never one that is open. What would lose the last good copy or the quorum is refused.

\b
Examples:
  linstor-un replicas image-3 3
  linstor-un replicas vm-12-disk-0 2 --dry-run

\b
Exit codes:
  0  it is so
  1  refused or failed: the sentence on stderr says why
"""


@click.command(help=_HELP)
@click.argument("volume", type=completion.VOLUME)
@click.argument("count", type=click.IntRange(1), metavar="N")
@changing
@reporting
def command(report: Report, volume: str, count: int, dry_run: bool, yes: bool) -> None:
    """Add or take replicas."""
    configuration = read_configuration(configuration_path())
    if not dry_run:
        holding.check_user(from_configuration(configuration), "replicas")
    scene = scenes.find(inventories.read(configuration), volume)
    have = len(scene.holders)
    if have < count:
        told = _raise(report, scene, count, dry_run, yes)
    elif have > count:
        told = _lower(report, scene, count, dry_run, yes)
    else:
        told = [_stay(report, scene, dry_run)]
    for item in told:
        telling.line(report, item)
    telling.rows(report, told)


def _stay(report: Report, scene: Scene, dry_run: bool) -> Told:
    """Wait for what an earlier run may have placed."""
    text = f"{scene.resource} has {plural(len(scene.holders), 'replica')}"
    nodes = waiting.unfinished(scene)
    if not nodes or dry_run:
        return Told(NOTHING, scene.resource, "", text, f"{listed(nodes)} is being copied to" if nodes else "")
    waiting.until_up_to_date(report, scene, nodes)
    return Told(DONE, scene.resource, listed(nodes), text, "all are up to date now")


def _raise(report: Report, scene: Scene, count: int, dry_run: bool, yes: bool) -> list[Told]:
    rules.check_copies(scene)
    nodes = _candidates(scene, count)
    missing = count - len(scene.holders)
    text = f"place {plural(missing, 'replica')} more of {scene.resource}, on {missing} of {listed(nodes)}"
    more = "; ".join([*notes.of_snapshots(scene, nodes), *notes.of_count(scene, count)])
    if not telling.is_agreed(report, [(text, more)], dry_run, yes):
        return [Told(WOULD, scene.resource, "", text, more)] if dry_run else []
    new = _place(scene, count)
    waiting.until_up_to_date(report, scene, new)
    text = f"place {plural(len(new), 'replica')} more of {scene.resource}, on {listed(new)}"
    return [Told(DONE, scene.resource, " ".join(new), text, more)]


def _candidates(scene: Scene, count: int) -> list[str]:
    """Return the nodes that LINSTOR may choose of; its own judgement of room counts what thin pools promise."""
    nodes = list(dict.fromkeys(pool.node for pool, _ in room.candidates(scene, scene.holders, {})))
    missing = count - len(scene.holders)
    if len(nodes) < missing:
        raise NoRoom(
            f"{scene.resource} needs {plural(missing, 'node')} more and {listed(nodes) or 'none'} may have it: the "
            f"others are away or too full, or resource group {scene.volume.group} or its datastore leaves them out; "
            f"free space, or name a node and a pool with `linstor-un place {scene.resource} --add`"
        )
    return sorted(nodes)


def _place(known: Scene, count: int) -> list[str]:
    """Have LINSTOR place what is missing by now, and return where."""
    with steps.held(known) as scene:
        before = {item.node for item in scene.holders}
        steps.leave_unbalanced(scene, count)
        wanted = {**scene.select_filter, "place_count": count, "node_name_list": _candidates(scene, count)}
        scene.site.gateway.autoplace(scene.resource, wanted, scene.layers)
        now = scenes.again(scene)
        if len(now.holders) < count:
            raise NotReady(
                f"LINSTOR counts {count} replicas of {scene.resource} and {len(now.holders)} of them hold data: see "
                f"`linstor resource list -r {scene.resource}` for those that are inactive or being deleted"
            )
        steps.let_balance(now, count)
    return sorted({item.node for item in now.holders} - before)


def _lower(report: Report, scene: Scene, count: int, dry_run: bool, yes: bool) -> list[Told]:
    filled = [] if dry_run else waiting.unfinished(scene)
    if filled:
        waiting.until_up_to_date(report, scene, filled)
        scene = scenes.again(scene)
    removals = choosing.surplus(scene, count)
    plan = _plan(scene, removals, count)
    if not telling.is_agreed(report, [(told.step, told.note) for told in plan], dry_run, yes):
        return plan if dry_run else []
    for removal in removals:
        steps.take(scene, removal.node)
    return [told._replace(outcome=DONE) for told in plan]


def _plan(scene: Scene, removals: Sequence[rules.Removal], count: int) -> list[Told]:
    more = list(notes.of_count(scene, count))
    return [
        Told(
            WOULD,
            scene.resource,
            removal.node,
            notes.said_of_removal(scene, removal),
            "; ".join([*notes.of_staying(scene, removal.node), *more]),
        )
        for removal in removals
    ]
