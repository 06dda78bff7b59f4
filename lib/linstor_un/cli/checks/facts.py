"""Everything that the checks judge, looked at once: files, oned, each LINSTOR cluster, each host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Optional

from linstor_un import settings as settings_room
from linstor_un.cli.installation import interpreter, payload
from linstor_un.cli.installation.interpreter import Interpreter
from linstor_un.cli.installation.journal import Journal
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.cli.installation.tree import Tree
from linstor_un.cluster import survey as cluster_survey
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.survey import Survey as Cluster
from linstor_un.errors import DriverError, MissingDependency
from linstor_un.hosts import changes, inspection, runner
from linstor_un.hosts.inspection import Inspection
from linstor_un.opennebula import pools
from linstor_un.opennebula import survey as cloud_survey
from linstor_un.opennebula.survey import Host, Store
from linstor_un.opennebula.survey import Survey as Cloud
from linstor_un.settings import Settings

_HOSTS_AT_ONCE = 16


class Configured(NamedTuple):
    """A datastore with its settings, or with why it has none."""

    store: Store
    settings: Settings
    failure: Optional[DriverError] = None

    @property
    def label(self) -> str:
        """Return how findings call the datastore."""
        return self.store.datastore.label


class Site(NamedTuple):
    """A LINSTOR cluster: the settings by which it is reached, the datastores on it, what it says or why it does not."""

    settings: Settings
    stores: tuple[Configured, ...]
    cluster: Optional[Cluster]
    failure: Optional[DriverError] = None

    def hosts(self, cloud: Optional[Cloud]) -> list[Host]:
        """Return OpenNebula's hosts that have to be nodes of this cluster."""
        return cloud.hosts_of([configured.store for configured in self.stores]) if cloud else []


class Seen(NamedTuple):
    """A host that is a node, and what it is like or why it cannot be looked at."""

    name: str
    inspection: Optional[Inspection]
    failure: Optional[DriverError] = None


class ForIncrements(NamedTuple):
    """A host that increments of backups need, what it lacks for them, or why it cannot be looked at.

    `may_compare` where BACKUP_COMPARE lets a backup go on without what pools say.
    """

    name: str
    may_compare: bool
    lacks: tuple[str, ...]
    failure: Optional[DriverError] = None


class Scripts(NamedTuple):
    """The entry scripts by their path in the remotes folder: the first line, empty for one that is not there."""

    first_lines: Mapping[str, str]
    interpreters: Mapping[str, Interpreter]
    failures: Mapping[str, DriverError]


class Facts(NamedTuple):
    """All of it; `left_out` are sentences on what could not be looked at."""

    tree: Tree
    journal: Journal
    journal_failure: Optional[DriverError]
    scripts: Scripts
    settings: Settings
    settings_failure: Optional[DriverError]
    oned_conf: str
    vmm_execrc: str
    cloud: Optional[Cloud]
    cloud_failure: Optional[DriverError]
    stores: tuple[Configured, ...]
    sites: tuple[Site, ...]
    hosts: tuple[Seen, ...]
    increments: tuple[ForIncrements, ...]
    mixed_increments: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def release(self) -> tuple[int, ...]:
        """Return the first two numbers of OpenNebula's release, empty where it does not say."""
        return tuple(int(part) for part in self.tree.release().split(".")[:2] if part.isdigit())

    @property
    def is_installed(self) -> bool:
        """Tell whether there is a driver of this name at all."""
        return os.path.isdir(self.tree.here(f"{self.tree.remotes}/datastore/{DRIVER}"))


def gather(tree: Tree) -> Facts:
    """Look at everything; what does not answer becomes a fact too."""
    journal, journal_failure = _journal(tree)
    # The longest part of all that needs nothing from the others.
    helper = ThreadPoolExecutor(1)
    scripts = helper.submit(_scripts, tree)
    settings, configuration, settings_failure = _settings(tree)
    cloud, cloud_failure = _cloud()
    left_out = []
    stores: tuple[Configured, ...] = ()
    sites: tuple[Site, ...] = ()
    if settings_failure:
        left_out.append("LINSTOR, datastores and hosts were not looked at: linstor_un.conf has to be corrected first.")
    elif cloud is None and not settings.controllers:
        left_out.append("LINSTOR and hosts were not looked at: oned has to say which controllers the datastores name.")
    else:
        stores = tuple(_configured(configuration, store) for store in cloud.stores) if cloud else ()
        sites = _sites(settings, stores)
    hosts = _hosts(settings, cloud, sites)
    increments = _increments(settings, cloud, sites)
    helper.shutdown()
    return Facts(
        tree=tree,
        journal=journal,
        journal_failure=journal_failure,
        scripts=scripts.result(),
        settings=settings,
        settings_failure=settings_failure,
        oned_conf=_text(tree, tree.oned_conf),
        vmm_execrc=_text(tree, tree.vmm_execrc),
        cloud=cloud,
        cloud_failure=cloud_failure,
        stores=stores,
        sites=sites,
        hosts=hosts,
        increments=increments,
        mixed_increments=_mixed_increments(stores),
        left_out=tuple(left_out),
    )


def _journal(tree: Tree) -> tuple[Journal, Optional[DriverError]]:
    try:
        return Journal(tree).read(), None
    except DriverError as failure:
        return Journal(tree), failure


def _settings(tree: Tree) -> tuple[Settings, Mapping[str, str], Optional[DriverError]]:
    try:
        configuration = settings_room.read_configuration(tree.here(tree.configuration))
        return settings_room.from_configuration(configuration), configuration, None
    except DriverError as failure:
        return Settings(), {}, failure


def _text(tree: Tree, path: str) -> str:
    try:
        with open(tree.here(path), encoding="latin-1", newline="") as file:
            return file.read()
    except OSError:
        return ""


def _cloud() -> tuple[Optional[Cloud], Optional[DriverError]]:
    try:
        return cloud_survey.take(DRIVER), None
    except DriverError as failure:
        return None, failure


def _configured(configuration: Mapping[str, str], store: Store) -> Configured:
    datastore = store.datastore
    try:
        settings = settings_room.for_datastore(configuration, datastore.attributes, datastore.label)
        return Configured(store, settings)
    except DriverError as failure:
        return Configured(store, Settings(), failure)


def _sites(settings: Settings, stores: Sequence[Configured]) -> tuple[Site, ...]:
    """Return one cluster for each set of controllers; without datastores the one that linstor_un.conf names."""
    groups: dict[tuple[object, ...], list[Configured]] = {}
    for configured in stores:
        if configured.failure is None:
            groups.setdefault(_way(configured.settings), []).append(configured)
    if not groups and not any(configured.failure for configured in stores):
        return (_site(settings, ()),)
    return tuple(_site(group[0].settings, tuple(group)) for group in groups.values())


def _way(settings: Settings) -> tuple[object, ...]:
    files = (settings.certificate_file, settings.key_file, settings.ca_file, settings.token_file)
    return (settings.controllers, settings.token, *files)


def _site(settings: Settings, stores: tuple[Configured, ...]) -> Site:
    # A person waits: that no controller answers is what is to be said.
    gateway = Gateway(settings._replace(failover_timeout_seconds=0))
    try:
        return Site(settings, stores, cluster_survey.take(gateway))
    except DriverError as failure:
        return Site(settings, stores, None, failure)
    finally:
        gateway.close()


def _hosts(settings: Settings, cloud: Optional[Cloud], sites: Sequence[Site]) -> tuple[Seen, ...]:
    """Look at the hosts that are nodes, many at once; the others are a finding of their own."""
    wanted: dict[str, bool] = {}
    for site in sites:
        for host in site.hosts(cloud):
            node = site.cluster.node(host.name) if site.cluster else None
            if node is not None and site.cluster is not None:
                thin = any(pool.provider == "LVM_THIN" and pool.node == node.name for pool in site.cluster.pools)
                wanted[host.name] = wanted.get(host.name, False) or thin
    with ThreadPoolExecutor(_HOSTS_AT_ONCE) as pool:
        return tuple(pool.map(lambda item: _seen(settings, *item), wanted.items()))


def _seen(settings: Settings, name: str, has_thin_pool: bool) -> Seen:
    try:
        host = runner.host(name, settings)
        systems, location = settings.supported_file_systems, settings.datastore_location
        return Seen(name, inspection.inspect(host, systems, location, has_thin_pool))
    except DriverError as failure:
        return Seen(name, None, failure)


def _increments(settings: Settings, cloud: Optional[Cloud], sites: Sequence[Site]) -> tuple[ForIncrements, ...]:
    """Look at what increments of backups need, where a VM has such: on hosts of VMs, and on nodes that say changes."""
    if cloud is None or not sites or not pools.has_increments():
        return ()
    wanted: list[tuple[str, bool, list[str], bool]] = []
    for site in sites:
        if site.cluster is not None:
            names = {node.name for host in site.hosts(cloud) if (node := site.cluster.node(host.name))}
            may_compare = all(item.settings.backup_compare for item in site.stores if item.store.is_system)
            for node in site.cluster.nodes:
                backings = _tellers(site.cluster, node.name)
                if node.name in names or backings:
                    wanted.append((node.name, node.name in names, backings, may_compare))
    with ThreadPoolExecutor(_HOSTS_AT_ONCE) as pool:
        return tuple(pool.map(lambda item: _for_increments(settings, *item), wanted))


def _tellers(cluster: Cluster, node: str) -> list[str]:
    """Return the pools of a node that can tell what has changed, as inspection.lacks_for_increments takes them."""
    kinds = {**dict.fromkeys(changes.THIN_PROVIDERS, "thin"), **dict.fromkeys(changes.ZFS_PROVIDERS, "zfs")}
    found = [pool for pool in cluster.pools if pool.node == node and pool.provider in kinds]
    return [f"{kinds[pool.provider]}:{pool.backing}" for pool in found]


def _for_increments(
    settings: Settings, name: str, is_vm_host: bool, backings: Sequence[str], may_compare: bool
) -> ForIncrements:
    try:
        lacks = inspection.lacks_for_increments(runner.host(name, settings), is_vm_host, backings)
        return ForIncrements(name, may_compare, lacks)
    except DriverError as failure:
        return ForIncrements(name, may_compare, (), failure)


def _mixed_increments(stores: Sequence[Configured]) -> tuple[str, ...]:
    """Return the VMs that another driver would back up by increments; none where no VM is in such a datastore."""
    is_mixed = any(configured.store.datastore.attributes.get("TM_MAD_SYSTEM") for configured in stores)
    return tuple(pools.others_increments()) if is_mixed else ()


def _scripts(tree: Tree) -> Scripts:
    first_lines = {name: _first_line(tree.here(f"{tree.remotes}/{name}")) for name in payload.entry_scripts()}
    user = interpreter.owner(tree.here(tree.remotes))
    vendored = tree.here(f"{tree.remotes}/{payload.LIBRARY}/{payload.VENDORED}")
    interpreters: dict[str, Interpreter] = {}
    failures: dict[str, DriverError] = {}
    for line in dict.fromkeys(first_lines.values()):
        path = _interpreter(line)
        if path:
            try:
                interpreters[path] = interpreter.look_at(path, user, vendored)
            except MissingDependency as failure:
                failures[path] = failure
    return Scripts(first_lines, interpreters, failures)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _interpreter(first_line: str) -> str:
    """Return the Python that a script's first line names, empty where it names another program."""
    words = first_line[2:].split() if first_line.startswith("#!") else []
    if words[:1] == ["/usr/bin/env"] and len(words) > 1:
        words = [shutil.which(words[1]) or words[1]]
    return words[0] if words and "python" in os.path.basename(words[0]) else ""
