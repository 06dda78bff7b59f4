"""evacuate: move the replicas of all volumes off a node."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence

import click

from linstor_un.cli import completion, holding
from linstor_un.cli import inventory as inventories
from linstor_un.cli.inventory import Inventory
from linstor_un.cli.moving import leaving, telling, waiting
from linstor_un.cli.moving import scene as scenes
from linstor_un.cli.moving.leaving import Plan
from linstor_un.cli.moving.scene import known_node, listed, plural, usable_node
from linstor_un.cli.moving.telling import DONE, FAILED, REFUSED, WOULD, Told
from linstor_un.cli.moving.waiting import Watch
from linstor_un.cli.output import Report, changing, is_agreed, reporting
from linstor_un.cli.status import gib
from linstor_un.cluster import inventory as clusters
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.inventory import Placed
from linstor_un.driver import configuration_path
from linstor_un.errors import DriverError, InvalidInput, NotFound
from linstor_un.settings import from_configuration, read_configuration

LEFT = 3
_POLL_SECONDS = 1.0
_PARALLEL = 4
_HELP = """\
Move the replicas of this OpenNebula's volumes off a node, so that it can be serviced or removed.

Each volume gets a replica elsewhere first, by its resource group and datastore and where there is most room; when that
is up to date the one on the node goes, and where a VM has it there the volume becomes diskless, and the VM goes on.
Tie-breakers move too, and the snapshots that VMs' disks are made of are deleted: the next VM takes a new one. What
cannot be moved is listed and stays, the rest goes on. Running it again goes on where it was interrupted.

Nothing is set on the node: disable its host in OpenNebula first, and keep LINSTOR from placing new volumes there with
`linstor node set-property NODE AutoplaceTarget false` (without `false` to take that back).

\b
Examples:
  linstor-un evacuate node2 --dry-run
  linstor-un evacuate node2
  linstor-un evacuate node2 --target node3 --target node4 --parallel 8

\b
Exit codes:
  0  nothing of these volumes is on the node, or could be elsewhere
  1  failed: the sentence on stderr says why
  3  something is left on the node: each is listed with its reason
"""


@click.command(help=_HELP)
@click.argument("node", type=completion.NODE)
@click.option("--target", type=completion.NODE, multiple=True, metavar="NODE", help="Move to these nodes only.")
@click.option("--all", "with_others", is_flag=True, help="Also volumes that are not this OpenNebula's.")
@click.option(
    "--parallel", type=click.IntRange(1), default=_PARALLEL, show_default=True, help="So many volumes at a time."
)
@changing
@reporting
def command(
    report: Report, node: str, target: tuple[str, ...], with_others: bool, parallel: int, dry_run: bool, yes: bool
) -> None:
    """Plan, ask, and move."""
    configuration = read_configuration(configuration_path())
    if not dry_run:
        holding.check_user(from_configuration(configuration), "evacuate")
    inventory = inventories.read(configuration)
    node = _check_nodes(inventory, node, target)
    targets = {name.lower() for name in target}
    plans, refused = _plan(inventory, node, targets, with_others)
    _show(report, plans, refused)
    told = [*refused, *(Told(WOULD, plan.scene.resource, node, plan.said) for plan in plans)]
    if not plans:
        report.say(f"Nothing {'more ' if refused else ''}has to be moved off {node}.")
    elif is_agreed(report, f"Move {plural(len(plans), 'volume')} off {node}?", dry_run, yes):
        told = [*refused, *Moving(report).run(plans, parallel)]
    telling.rows(report, told)
    sys.exit(LEFT if any(item.outcome in (REFUSED, FAILED) for item in told) else 0)


def _check_nodes(inventory: Inventory, name: str, targets: Sequence[str]) -> str:
    """Return the node as LINSTOR spells it; raises NotFound, NotReady and InvalidInput."""
    having = [site for site in inventory.sites if name.lower() in site.cluster.nodes]
    if not having:
        names = sorted({item.name for site in inventory.sites for item in site.cluster.nodes.values()})
        raise NotFound(f"LINSTOR has no node {name}: there are {listed(names)}")
    for target in targets:
        usable_node(having[0], target)
    if name.lower() in {target.lower() for target in targets}:
        raise InvalidInput(f"{name} cannot be evacuated to itself: name other nodes with --target, or none")
    return known_node(having[0], name).name


def _plan(
    inventory: Inventory, node: str, targets: Collection[str], with_others: bool
) -> tuple[list[Plan], list[Told]]:
    plans: list[Plan] = []
    refused: list[Told] = []
    promised: dict[tuple[str, str], int] = {}
    for scene in scenes.of_all(inventory, with_others):
        if scene.volume.is_being_deleted or not leaving.concerns(scene, node):
            continue
        try:
            plan = leaving.plan(scene, node, targets, promised)
        except DriverError as error:
            refused.append(Told(REFUSED, scene.resource, node, f"{scene.resource} of {scene.label} stays", str(error)))
            continue
        plans.append(plan)
        if plan.pool is not None:
            key = plan.pool.node, plan.pool.name
            promised[key] = promised.get(key, 0) + plan.needed_kib
    return plans, refused


def _show(report: Report, plans: Sequence[Plan], refused: Sequence[Told]) -> None:
    """Show people what would be done, and what stays."""
    if not report.is_for_people:
        return
    rows = [
        (
            plan.scene.resource,
            plan.scene.label,
            f"{plan.pool.node} {plan.pool.name}" if plan.pool else "",
            gib(plan.needed_kib),
            "" if plan.removal is None else "becomes diskless" if plan.removal.stays_for else "goes",
        )
        for plan in plans
        if not report.is_quiet
    ]
    report.rows(("volume", "of", "to", "gib", "here"), rows)
    for told in refused:
        click.secho(f"{told.outcome:<8} {told.step}: {told.note}", fg="yellow")


class Moving:
    """Volumes that leave a node, some at a time; `told` is what came of those that are through."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._filled: list[tuple[Plan, list[str]]] = []
        self.told: list[Told] = []

    def run(self, plans: Sequence[Plan], parallel: int) -> list[Told]:
        """Move the volumes and return what came of each."""
        queue = list(plans)
        watch = Watch(plans[0].scene.site.gateway.settings.request_timeout_seconds)
        with waiting.bar(self._report, f"off {plans[0].node}", len(plans)) as show:
            while queue or self._filled:
                while queue and len(self._filled) < parallel:
                    self._begin(queue.pop(0))
                before = len(self.told)
                done = self._go_on(watch)
                show(100 * len(self.told) + done)
                if self._filled and len(self.told) == before:
                    time.sleep(_POLL_SECONDS)
        return self.told

    def _begin(self, plan: Plan) -> None:
        try:
            self._filled.append((plan, leaving.begin(plan)))
        except DriverError as error:
            self._tell(plan, FAILED, str(error))

    def _go_on(self, watch: Watch) -> float:
        """End what is copied, and return how many per cent of the others are, in all."""
        found = self._places()
        shares = 0.0
        for plan, nodes in list(self._filled):
            resource = plan.scene.resource
            try:
                placed = found[resource.lower()]
                share = min((watch.percent(resource, node, placed) for node in nodes), default=100.0)
                if share < 100:
                    shares += share
                    continue
                self._tell(plan, DONE, leaving.end(plan))
            except DriverError as error:
                self._tell(plan, FAILED, str(error))
            self._filled.remove((plan, nodes))
        return shares

    def _places(self) -> dict[str, tuple[Placed, ...]]:
        """Ask each cluster once where what is being copied is."""
        names: dict[Gateway, list[str]] = {}
        for plan, _ in self._filled:
            names.setdefault(plan.scene.site.gateway, []).append(plan.scene.resource)
        found: dict[str, tuple[Placed, ...]] = {name.lower(): () for resources in names.values() for name in resources}
        for gateway, resources in names.items():
            found.update(clusters.placed(gateway, resources))
        return found

    def _tell(self, plan: Plan, outcome: str, note: str) -> None:
        self.told.append(Told(outcome, plan.scene.resource, plan.node, plan.said, note))
        waiting.clear_bar(self._report)
        telling.line(self._report, self.told[-1])
