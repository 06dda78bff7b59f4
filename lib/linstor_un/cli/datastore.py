"""datastore: make the pair of datastores, for images and for VMs, that a cloud on LINSTOR needs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Optional

import click

from linstor_un import settings as settings_room
from linstor_un.cli import completion
from linstor_un.cli.checks.finding import ERROR, Finding
from linstor_un.cli.output import Cell, Report, changing, is_agreed, reporting
from linstor_un.cli.provisioning import plan, questions
from linstor_un.cli.provisioning.plan import Planned
from linstor_un.cluster import survey as cluster_survey
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.pools import Capacity
from linstor_un.cluster.survey import Survey
from linstor_un.driver import configuration_path
from linstor_un.errors import DriverError, OnedRefused
from linstor_un.opennebula import changes, survey
from linstor_un.opennebula.survey import Store
from linstor_un.settings import ALIASES, ATTRIBUTES, SECRET
from linstor_un.units import KIB_PER_GIB

EXIT_FOUND = 3
LEFT, WOULD, MADE = "left", "would", "made"

_HELP = """\
Make datastores of linstor_un.

\b
Examples:
  linstor-un datastore create linstor             asks for all that it needs
  linstor-un datastore create linstor --pool data --dry-run
"""
_CREATE_HELP = """\
Make two datastores in OpenNebula: NAME-system for VMs and NAME-images for images.

Without --pool and --resource-group it asks, and shows what LINSTOR has. It shows what it is going to make, with the
room that LINSTOR has for it, and judges it as `linstor-un check` does. Where datastores of these names are there as
asked for they are left alone; one that is not is refused, and nothing is changed. Where the second cannot be made the
first is taken back.

\b
Exit codes:
  0  both are there as asked for
  1  failed, or a datastore of that name is another one: nothing was changed
  3  the datastores would not work: each fault is named; nothing was changed

\b
Examples:
  linstor-un datastore create linstor
  linstor-un datastore create linstor --pool data --replicas 3 --dry-run
  linstor-un datastore create fast --pool nvme --replicas 2 --clone-mode snapshot --yes
  linstor-un datastore create linstor --resource-group opennebula --cluster 100
  linstor-un datastore create linstor --pool data --set PREFER_NODE=yes
"""


@click.group(help=_HELP)
def command() -> None:
    """Run what is asked for."""


def _attribute(_: click.Context, __: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """Return the attributes of --set."""
    found = {}
    for value in values:
        key, separator, text = value.partition("=")
        key = ALIASES.get(key.strip().upper(), key.strip().upper())
        if not separator or key not in ATTRIBUTES:
            raise click.BadParameter(f"{key} is no attribute of a datastore: README.md lists them, as KEY=VALUE.")
        found[key] = text
    return found


@command.command("create", help=_CREATE_HELP)
@click.argument("name")
@click.option(
    "--pool",
    type=completion.POOL,
    multiple=True,
    metavar="POOL",
    help="A storage pool for the volumes; may be given again.",
)
@click.option(
    "--resource-group",
    type=completion.GROUP,
    default="",
    metavar="GROUP",
    help="A resource group of LINSTOR instead of a pool.",
)
@click.option("--replicas", default="", metavar="N", help="Replicas of each volume (2; of a group: as it says).")
@click.option("--clone-mode", type=click.Choice([questions.SNAPSHOT, questions.COPY]), help="How VMs' disks are made.")
@click.option("--checkpoint", default="", metavar="N", help="Replicas of a suspended VM's memory (as of the others).")
@click.option("--bridge-list", default="", metavar="NODES", help="Nodes that may copy, separated by blanks.")
@click.option(
    "--controllers", default="", metavar="LIST", help="LINSTOR's controllers, where linstor_un.conf has none."
)
@click.option("--set", "attributes", multiple=True, metavar="KEY=VALUE", callback=_attribute, help="Another attribute.")
@click.option("--cluster", type=click.IntRange(0), metavar="ID", help="OpenNebula's cluster (the default one).")
@changing
@reporting
def create(
    report: Report,
    name: str,
    pool: tuple[str, ...],
    resource_group: str,
    attributes: Mapping[str, str],
    cluster: Optional[int],
    dry_run: bool,
    yes: bool,
    **options: Optional[str],
) -> None:
    """Plan both, judge them, and make what is missing."""
    chosen = {"STORAGE_POOL": " ".join(pool), "RESOURCE_GROUP": resource_group, **_named(options)}
    given = {**{key: value for key, value in chosen.items() if value}, **attributes}
    configuration = settings_room.read_configuration(configuration_path())
    settings = settings_room.for_datastore(configuration, given, "what was asked for")
    # A person waits: that no controller answers is said at once.
    gateway = Gateway(settings._replace(failover_timeout_seconds=0))
    known = cluster_survey.take(gateway)
    completed = _completed(report, known, given, dry_run or yes)
    planned = plan.pair(configuration, name, completed, survey.system_disk_type())
    _judge(known, planned)
    there = survey.named([item.name for item in planned])
    number = changes.DEFAULT_CLUSTER if cluster is None else cluster
    for item in planned:
        if item.name in there:
            item.check_same(there[item.name], number)
    fits = planned[0].capacity(gateway)
    if report.is_for_people and not report.is_quiet:
        _show(report, planned, fits)
    missing = [item for item in planned if item.name not in there]
    is_to_be = bool(missing) and is_agreed(report, f"Make {_names(missing)}?", dry_run, yes)
    made = _make(missing, number) if is_to_be else {}
    _tell(report, planned, there, made, fits)


def _named(options: Mapping[str, Optional[str]]) -> dict[str, str]:
    names = {
        "replicas": "REPLICA_COUNT",
        "clone_mode": "CLONE_MODE",
        "checkpoint": "CHECKPOINT_REPLICA_COUNT",
        "bridge_list": "BRIDGE_LIST",
        "controllers": "LS_CONTROLLERS",
    }
    return {names[key]: value for key, value in options.items() if value}


def _completed(report: Report, cluster: Survey, given: Mapping[str, str], is_silent: bool) -> dict[str, str]:
    """Return the attributes with those that nobody has said: asked for, or what is usual."""
    if "RESOURCE_GROUP" in given:
        return dict(given)
    if "STORAGE_POOL" not in given:
        if is_silent or sys.stdin is None or not sys.stdin.isatty():
            names = ", ".join(questions.by_name(cluster)) or "none yet"
            raise click.UsageError(f"Say --pool or --resource-group; LINSTOR has the pools: {names}.")
        return {**given, **questions.ask(report, cluster, given)}
    usual = {} if "NODE_LIST" in given else {"REPLICA_COUNT": "2"}
    wanted = given["STORAGE_POOL"].split()
    pools = [pool for pool in cluster.pools if pool.name in wanted]
    usual["CLONE_MODE"] = questions.SNAPSHOT if questions.can_snapshot(pools) else questions.COPY
    return {**usual, **given}


def _judge(cluster: Survey, planned: Sequence[Planned]) -> None:
    """Print what would be wrong with the datastores; exit where they would not work."""
    findings: dict[tuple[str, str], Finding] = {}
    for item in planned:
        for finding in plan.judge(cluster, item):
            # What is wrong with both is said once.
            findings.setdefault((finding.code, finding.remedy), finding)
    for finding in findings.values():
        title = click.style(finding.severity, fg="red" if finding.severity == ERROR else "yellow", bold=True)
        click.echo(f"{title}: {finding.what}: {finding.remedy} ({finding.documentation}).", err=True)
    if any(finding.severity == ERROR for finding in findings.values()):
        sys.exit(EXIT_FOUND)


def _show(report: Report, planned: Sequence[Planned], fits: Capacity) -> None:
    keys = dict.fromkeys(key for item in planned for key in item.attributes)
    rows = [(key, *(_shown(key, item.attributes.get(key, "")) for item in planned)) for key in keys]
    report.rows(("attribute", *(item.name for item in planned)), rows)
    report.say(f"Room for {gib(fits.free_kib)} of {gib(fits.total_kib)} GiB with these replicas.")


def _shown(key: str, value: str) -> str:
    return "(hidden)" if key in SECRET and value else value


def gib(kib: int) -> str:
    """Return KiB as GiB, for people to read."""
    return f"{kib / KIB_PER_GIB:.1f}"


def _names(planned: Sequence[Planned]) -> str:
    return " and ".join(item.name for item in planned)


def _make(missing: Sequence[Planned], cluster_id: int) -> dict[str, int]:
    """Make the datastores and return their ids by name; where one fails those before it are taken back."""
    made: dict[str, int] = {}
    try:
        for item in missing:
            made[item.name] = changes.allocate_datastore({"NAME": item.name, **item.attributes}, cluster_id)
    except DriverError as failure:
        for name, number in made.items():
            try:
                changes.delete_datastore(number)
            except DriverError as error:
                raise OnedRefused(f"{failure}; and datastore {number} ({name}) is there without it: {error}") from None
        raise
    return made


def _tell(
    report: Report,
    planned: Sequence[Planned],
    there: Mapping[str, Store],
    made: Mapping[str, int],
    fits: Capacity,
) -> None:
    rows: list[tuple[Cell, ...]] = []
    for item in planned:
        store = there.get(item.name)
        number = store.datastore.datastore_id if store else made.get(item.name)
        outcome = LEFT if store else MADE if item.name in made else WOULD
        if outcome != WOULD:
            words = "is there already, as asked for" if outcome == LEFT else "was made"
            report.say(f"Datastore {number} ({item.name}) {words}.")
        rows.append((item.name, item.attributes["TYPE"], number, outcome, fits.free_kib, fits.total_kib))
    if not report.is_for_people:
        report.rows(("datastore", "type", "id", "outcome", "fits_kib", "total_kib"), rows)
