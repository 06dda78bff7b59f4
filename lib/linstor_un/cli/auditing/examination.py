"""Everything that is wrong, looked for twice: what is there only once is an action under way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

from linstor_un import locks
from linstor_un import settings as settings_room
from linstor_un.cli import inventory as inventories
from linstor_un.cli.auditing import groups, links, replicas, snapshots, volumes
from linstor_un.cli.auditing.finding import Finding, View
from linstor_un.cli.inventory import Inventory, Site
from linstor_un.cluster import inventory as clusters
from linstor_un.cluster import primaries
from linstor_un.cluster.gateway import Gateway
from linstor_un.opennebula import pools
from linstor_un.settings import Settings, lock_directory

# LINSTOR answers what it is asked about one volume in milliseconds, most of which are the way there and back.
_CONNECTIONS = 4
_REPAIR_WAIT_SECONDS = 1.0

Pairs = Mapping[str, Sequence[tuple[str, str]]]


class Examination(NamedTuple):
    """What there is, and what of it is wrong."""

    inventory: Inventory
    findings: tuple[Finding, ...]


def examine(configuration: Mapping[str, str], with_hosts: bool = False) -> Examination:
    """Return everything that is wrong and stays so.

    Arguments: `configuration` from settings.read_configuration; `with_hosts` asks the hosts too, one ssh connection
    each. Raises OnedUnreachable, ControllerUnreachable and InvalidSetting.
    """
    first = once(configuration, with_hosts)
    if not first.findings:
        return first
    second = once(configuration, with_hosts)
    found = {finding.key for finding in first.findings}
    return second._replace(findings=tuple(item for item in second.findings if item.key in found))


def once(configuration: Mapping[str, str], with_hosts: bool = False) -> Examination:
    """Return what is wrong at this moment, of which an action under way may mend some."""
    settings = settings_room.from_configuration(configuration)
    # Before all else: who holds a volume now may have let go of it when it is looked at, and not the other way round.
    held = locks.held(settings)
    inventory = inventories.read(configuration)
    findings: list[Finding] = []
    for site in inventory.sites:
        findings += _of_site(inventory, site, held | locks.held(settings))
    if with_hosts:
        findings += links.examine(inventory, links.look(inventory, inventory.database.hosts))
    return Examination(inventory, tuple(sorted(findings, key=lambda finding: (finding.kind, finding.subject))))


def _of_site(inventory: Inventory, site: Site, held: frozenset[str]) -> Iterator[Finding]:
    view = View(inventory, site, inventory.wanted(site), held)
    return _rules(view, _pairs(site.gateway, [item.resource for item in replicas.may_have_migrated(view)]))


def _rules(view: View, allowed: Pairs) -> Iterator[Finding]:
    yield from volumes.examine(view)
    yield from replicas.examine(view)
    yield from snapshots.examine(view)
    yield from groups.examine(view)
    for resource, pairs in allowed.items():
        yield from replicas.pairs(view, view.wanted[resource.lower()], pairs)


def _pairs(gateway: Gateway, resources: Sequence[str]) -> Pairs:
    """Ask for the connections of these volumes, over several connections to LINSTOR where there are many."""
    shares = [resources[number::_CONNECTIONS] for number in range(_CONNECTIONS)]
    found: dict[str, Sequence[tuple[str, str]]] = {}
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for share in pool.map(lambda share: _pairs_of(gateway.settings, share), filter(None, shares)):
            found.update(share)
    return found


def _pairs_of(settings: Settings, resources: Sequence[str]) -> Pairs:
    with closing(Gateway(settings)) as gateway:
        return {resource: primaries.allowed_pairs(gateway, resource) for resource in resources}


def mend(known: Inventory, finding: Finding) -> bool:
    """Make a finding's repair if it is still found, and return whether it was.

    The volume is held meanwhile, so that no action can begin to work on it. Raises Busy where one does, and whatever
    the repair does.
    """
    if finding.repair is None:
        return False
    if not finding.resource:
        return _make(_again(known, finding, frozenset()), finding)
    settings, vm_id = known.common, known.names.backup_copy_vm_id_of(finding.resource)
    name = known.names.first_name(finding.resource) if vm_id is None else known.names.backup(vm_id)
    with locks.volume_lock(lock_directory(settings), name, _REPAIR_WAIT_SECONDS):
        return _make(_again(known, finding, locks.held(settings) - {name.lower()}), finding)


def _again(known: Inventory, finding: Finding, held: frozenset[str]) -> Iterator[Finding]:
    """Yield what is wrong by now with the volume, the host or the resource group that a finding is about."""
    vm_id = links.vm_of(finding)
    if vm_id is None and not finding.resource:
        return _of_groups(known)
    if vm_id is None:
        inventory, site = inventories.again(known, _site_of(known, finding.resource), finding.resource)
        return _of_site(inventory, site, held)
    inventory = known._replace(database=pools.again(known.database, [], [vm_id]))
    there = {finding.node, *(machine.host for machine in inventory.database.machines.values() if machine.host)}
    return links.examine(inventory, links.look(inventory, sorted(there)))


def _of_groups(known: Inventory) -> Iterator[Finding]:
    for site in known.sites:
        there = site._replace(cluster=clusters.with_groups(site.gateway, site.cluster))
        yield from groups.examine(View(known, there, {}, frozenset()))


def _make(found: Iterable[Finding], finding: Finding) -> bool:
    for item in found:
        if item.key == finding.key and item.repair is not None and finding.repair is not None:
            if item.repair.consent != finding.repair.consent:
                return False
            item.repair.make()
            return True
    return False


def _site_of(inventory: Inventory, resource: str) -> Site:
    """Return the cluster that has the volume, or is to have it."""
    for site in inventory.sites:
        if resource.lower() in site.cluster.volumes:
            return site
    return next(site for site in inventory.sites if resource.lower() in inventory.wanted(site))
