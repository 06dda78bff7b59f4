"""The driver's datastores: whether their attributes are valid, and LINSTOR can do what they ask."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from linstor_un.cli.checks.facts import Configured, Facts
from linstor_un.cli.checks.finding import Finding, error, of_failure, warning
from linstor_un.cli.checks.opennebula import NEEDED_VALUES
from linstor_un.cli.installation import mixed_modes, oned_conf
from linstor_un.cluster import placement as placements
from linstor_un.cluster.survey import StoragePool, Survey
from linstor_un.errors import DriverError, UnreadableConfiguration
from linstor_un.settings import ALIASES, ATTRIBUTES
from linstor_un.units import KIB_PER_GIB

_DEFAULT_PLACE_COUNT = 2
_LEAST_FREE = 0.1
# Attributes of OpenNebula's own that look like ours.
_OPENNEBULAS = frozenset({"SHARED", "DRIVER", "TYPE", "NAME", "DISK_TYPE", "DS_MAD", "TM_MAD", "LIMIT_MB"})
# What oned copies from TM_MAD_CONF when a datastore is made, and only then.
_COPIED = {
    True: ("SHARED", "DS_MIGRATE", "DS_LIVE_MIGRATE", "DS_MIGRATE_SNAP", "ALLOW_ORPHANS"),
    False: ("LN_TARGET", "CLONE_TARGET", "DRIVER", "ALLOW_ORPHANS"),
}
# What datastores lack that an older OpenNebula has made: an upgrade adds it to those of its own drivers alone.
_COPIED_SINCE: Mapping[str, tuple[int, ...]] = {"DRIVER": (), "DS_LIVE_MIGRATE": (7, 2), "DS_MIGRATE_SNAP": (7, 2)}


class Wanted(NamedTuple):
    """A datastore beside its cluster: the pools that may hold its volumes, and the replicas that each has."""

    configured: Configured
    cluster: Survey
    pool_names: tuple[str, ...]
    pools: tuple[StoragePool, ...]
    replica_count: int

    @property
    def nodes(self) -> set[str]:
        """Return the nodes that have such a pool."""
        return {pool.node for pool in self.pools}


def present(facts: Facts) -> Iterator[Finding]:
    """Are there datastores of both kinds?"""
    if facts.cloud is None or not facts.is_installed:
        return
    kinds = {store.is_system for store in facts.cloud.stores}
    if not kinds:
        what = "No datastore uses linstor_un yet"
        yield warning("no-datastore", what, "create one for images and one for VMs with `onedatastore create`")
    elif kinds == {False} and not _are_mixed(facts):
        what = "There is no system datastore of linstor_un: no VM with its images can be scheduled"
        yield error("no-system-datastore", what, "create one (TYPE=SYSTEM_DS) with `onedatastore create`")
    elif kinds == {True}:
        what = "There is no image datastore of linstor_un"
        yield warning("no-image-datastore", what, "create one (TYPE=IMAGE_DS) with `onedatastore create`")


def _are_mixed(facts: Facts) -> bool:
    """Tell whether images may be in system datastores of other drivers."""
    return any(configured.store.datastore.attributes.get("TM_MAD_SYSTEM") for configured in facts.stores)


def attributes(facts: Facts) -> Iterator[Finding]:
    """Does every attribute make sense?"""
    for configured in facts.stores:
        if configured.failure:
            yield of_failure("attribute-invalid", configured.failure)
        yield from of_attributes(configured)


def of_attributes(configured: Configured) -> Iterator[Finding]:
    """Return which attributes of a datastore mean nothing."""
    for name in configured.store.datastore.attributes:
        near = _meant(name)
        if near:
            what = f"{configured.label} has an attribute {name}, which nothing reads"
            yield warning("attribute-misspelt", what, f"write {near}, or remove it")


def _meant(name: str) -> str:
    """Return the attribute of ours that an unknown one is nearly, empty where it is none."""
    known = [*ATTRIBUTES, *ALIASES]
    if name in known or name in _OPENNEBULAS:
        return ""
    return next(iter(difflib.get_close_matches(name, known, 1, 0.85)), "")


def secrets(facts: Facts) -> Iterator[Finding]:
    """Is a token in a template encrypted in oned's database?"""
    for configured in facts.stores:
        token = configured.store.datastore.attributes.get("LS_TOKEN")
        if token and configured.store.stored.attributes.get("LS_TOKEN") == token:
            what = f"LS_TOKEN of {configured.label} can be read by everybody who may see the datastore"
            remedy = 'use LS_TOKEN_FILE, or add DATASTORE_ENCRYPTED_ATTR = "LS_TOKEN" to oned.conf and set it again'
            yield warning("token-not-encrypted", what, remedy)


def disk_types(facts: Facts) -> Iterator[Finding]:
    """Are images block devices for the hypervisor?"""
    for configured in facts.stores:
        kind = configured.store.datastore.attributes.get("DISK_TYPE", "")
        if not configured.store.is_system and kind.upper() != "BLOCK":
            what = f'{configured.label} has DISK_TYPE="{kind}": VMs with its images do not start'
            yield error(
                "disk-type", what, 'set DISK_TYPE="BLOCK" with `onedatastore update`, and on images made so far'
            )


def copied(facts: Facts) -> Iterator[Finding]:
    """Have the datastores what TM_MAD_CONF says now?"""
    try:
        stanza = oned_conf.stanza_of_driver(facts.oned_conf, "TM_MAD_CONF")
    except UnreadableConfiguration:
        return
    for configured in facts.stores if stanza else ():
        own = configured.store.datastore.attributes
        for name in _COPIED[configured.store.is_system]:
            wanted = stanza.text(name) if stanza else ""
            is_copied = name in own or (name in _COPIED_SINCE and facts.release >= _COPIED_SINCE[name])
            is_other = is_copied and own.get(name, "").upper() != wanted.upper()
            # Of a value that is wrong itself another check says so.
            if wanted and is_other and wanted.upper() in NEEDED_VALUES.get(name, (wanted.upper(),)):
                what = f'{configured.label} was made when {name} was "{own.get(name, "")}" and not "{wanted}"'
                number = configured.store.datastore.datastore_id
                yield warning("datastore-stale", what, f"run `onedatastore update {number}`, which copies it anew")


def modes(facts: Facts) -> Iterator[Finding]:
    """Do image datastores know of all system datastores that oned.conf names?"""
    try:
        wanted = mixed_modes.copied(facts.oned_conf)
    except UnreadableConfiguration:
        return
    for configured in facts.stores:
        own, number = configured.store.datastore.attributes, configured.store.datastore.datastore_id
        other = [name for name, value in wanted.items() if own.get(name, "").upper() != value.upper()]
        if other and not configured.store.is_system:
            what = f"{configured.label} was made when {', '.join(other)} stood otherwise, or not, in oned.conf"
            yield warning("mixed-stale", what, f"run `onedatastore update {number}`, which copies it anew")


def increments(facts: Facts) -> Iterator[Finding]:
    """Is no VM backed up by increments that another driver would make of its volumes?"""
    for label in facts.mixed_increments:
        what = f"{label} has MODE=INCREMENT in a system datastore of another driver, which cannot make them of volumes"
        yield error("mixed-increments", what, "set MODE=FULL with `onevm updateconf`")


def monitored(facts: Facts) -> Iterator[Finding]:
    """Does oned know how much fits?"""
    for configured in facts.stores:
        if not configured.store.total_mib:
            what = f"oned has no capacity for {configured.label}: it was made a moment ago, or its monitoring fails"
            remedy = "see `journalctl -t linstor_un` and `onedatastore show` in five minutes"
            yield warning("not-monitored", what, remedy)


def placements_possible(facts: Facts) -> Iterator[Finding]:
    """Can LINSTOR place what the attributes ask for?"""
    for cluster, configured in _placed(facts):
        yield from of_placement(cluster, configured)


def _placed(facts: Facts) -> Iterator[tuple[Survey, Configured]]:
    """Yield the datastores with their clusters, where those answer."""
    for site in facts.sites:
        if site.cluster is not None:
            yield from ((site.cluster, configured) for configured in site.stores)


def of_placement(cluster: Survey, configured: Configured) -> Iterator[Finding]:
    """Return what a cluster cannot do of what a datastore asks for."""
    settings = configured.settings
    try:
        placements.of(settings, configured.label)
    except DriverError as failure:
        yield of_failure("placement-incomplete", failure)
        return
    if settings.resource_group and cluster.group(settings.resource_group) is None:
        what = f"LINSTOR has no resource group {settings.resource_group}, which {configured.label} names"
        remedy = f"run `linstor resource-group create {settings.resource_group}`, or correct RESOURCE_GROUP"
        yield error("resource-group-missing", what, remedy)
        return
    wanted = _wanted(cluster, configured)
    yield from _pools(wanted)
    yield from _nodes(wanted)
    yield from _abilities(wanted)


def _wanted(cluster: Survey, configured: Configured) -> Wanted:
    settings = configured.settings
    group = cluster.group(settings.resource_group) if settings.resource_group else None
    names = settings.storage_pools or (group.pools if group else ())
    pools = tuple(pool for pool in cluster.pools if not names or pool.name in names)
    if settings.providers:
        pools = tuple(pool for pool in pools if pool.provider in settings.providers)
    count = len(settings.node_list) or settings.replica_count or (group.place_count if group else None)
    return Wanted(configured, cluster, names, pools, count or _DEFAULT_PLACE_COUNT)


def _pools(wanted: Wanted) -> Iterator[Finding]:
    known = {pool.name for pool in wanted.cluster.pools}
    for name in wanted.pool_names:
        if name not in known:
            what = f"No node has a storage pool {name}, which {wanted.configured.label} names"
            yield error("pool-missing", what, "see `linstor storage-pool list`, and correct STORAGE_POOL")


def _nodes(wanted: Wanted) -> Iterator[Finding]:
    label, settings = wanted.configured.label, wanted.configured.settings
    for name in settings.node_list:
        if wanted.cluster.node(name) is None:
            what = f"NODE_LIST of {label} names {name}, which is not a node of LINSTOR"
            yield error("node-list", what, "see `linstor node list`, and correct NODE_LIST")
        elif wanted.pools and name.lower() not in {node.lower() for node in wanted.nodes}:
            what = f"NODE_LIST of {label} names {name}, which has none of the pools {' '.join(wanted.pool_names)}"
            yield error("node-list", what, "create the pool there, or correct NODE_LIST")
    for name in settings.bridge_list:
        if wanted.cluster.node(name) is None:
            what = f"BRIDGE_LIST of {label} names {name}, which is not a node of LINSTOR: nothing can be copied there"
            yield error("bridge-list", what, "see `linstor node list`, and correct BRIDGE_LIST")
    # Where no such pool is known at all, that has been said.
    if (wanted.pools or settings.providers) and not settings.node_list:
        yield from _enough(wanted, wanted.replica_count, "too-few-nodes", "replicas", "REPLICA_COUNT")
        checkpoint = settings.checkpoint_replica_count or 0
        if checkpoint != wanted.replica_count:
            key = "CHECKPOINT_REPLICA_COUNT"
            yield from _enough(wanted, checkpoint, "checkpoint-replicas", "replicas of suspended VMs' memory", key)


def _enough(wanted: Wanted, count: int, code: str, what: str, key: str) -> Iterator[Finding]:
    if count > len(wanted.nodes):
        have = f"{len(wanted.nodes)} node{'s have' if len(wanted.nodes) != 1 else ' has'} its pools"
        sentence = f"{wanted.configured.label} asks for {count} {what}, and {have}"
        yield error(code, sentence, f"add pools (`linstor storage-pool create`), or lower {key}")


def _abilities(wanted: Wanted) -> Iterator[Finding]:
    settings = wanted.configured.settings
    unable = sorted({pool.name for pool in wanted.pools if not pool.supports_snapshots})
    if settings.clone_mode == "snapshot" and unable:
        what = f"{wanted.configured.label} has CLONE_MODE=snapshot, and pool {' '.join(unable)} can have no snapshots"
        remedy = "use a pool of kind LVM_THIN, ZFS, ZFS_THIN or FILE_THIN, or CLONE_MODE=copy, as is done anyway"
        yield warning("snapshots-impossible", what, remedy)


def free_space(facts: Facts) -> Iterator[Finding]:
    """Have the pools that datastores use room?"""
    for cluster, configured in _placed(facts):
        yield from of_room(cluster, configured)


def of_room(cluster: Survey, configured: Configured) -> Iterator[Finding]:
    """Return the pools of a datastore that are nearly full."""
    for pool in _wanted(cluster, configured).pools:
        if pool.total_kib and pool.free_kib is not None:
            yield from _full(pool, pool.free_kib, pool.total_kib)


def _full(pool: StoragePool, free_kib: int, total_kib: int) -> Iterator[Finding]:
    if free_kib < total_kib * _LEAST_FREE:
        free, total = free_kib / KIB_PER_GIB, total_kib / KIB_PER_GIB
        what = f"Pool {pool.name} on {pool.node} has {free:.1f} of {total:.1f} GiB free"
        remedy = "enlarge it, move volumes, or delete snapshots; a full thin pool stops its VMs"
        yield warning("pool-full", what, remedy)


CHECKS = (
    present,
    attributes,
    secrets,
    disk_types,
    copied,
    modes,
    increments,
    monitored,
    placements_possible,
    free_space,
)
