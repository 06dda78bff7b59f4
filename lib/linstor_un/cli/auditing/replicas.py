"""Where volumes are: too few replicas, attached where nobody needs them, two primaries, what does not get deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from linstor_un.cli.auditing.finding import ASK, SAFE, Finding, Repair, View
from linstor_un.cli.inventory import DISK, Wanted
from linstor_un.cluster import placement, primaries, replicas
from linstor_un.cluster.inventory import AUTO_TIE_BREAKER, Placed
from linstor_un.cluster.volumes import Volume

_DELETING = frozenset({"DELETE", "DRBD_DELETE"})


def examine(view: View) -> Iterator[Finding]:
    """Yield what is wrong with the places of volumes that oned's database speaks of."""
    for key, wanted in view.wanted.items():
        volume = view.cluster.volumes.get(key)
        if volume is None or not wanted.is_settled or volume.is_being_deleted or view.is_busy(volume):
            continue
        placed = view.cluster.placed(key)
        yield from _deleting(view, wanted, placed)
        yield from _copies(view, wanted, placed)
        yield from _count(view, volume, wanted, placed)
        yield from _tie_breaker(view, volume, wanted, placed)
        yield from _attached(view, wanted, placed)
        if primaries.TWO_PRIMARIES in volume.properties:
            yield _two_primaries(view, wanted)
    yield from _nodes(view)


def _nodes(view: View) -> Iterator[Finding]:
    """Yield the nodes that are away and have replicas of ours, once each."""
    having: dict[str, int] = {}
    for key in view.wanted:
        for item in view.cluster.placed(key):
            if not item.replica.is_diskless and not view.cluster.is_online(item.node):
                having[item.node] = having.get(item.node, 0) + 1
    for node, count in sorted(having.items()):
        replicas_of = f"{count} replica{'' if count == 1 else 's'}"
        text = f"node {node}, with {replicas_of} of ours, does not answer: bring its satellite back"
        yield Finding("node-away", node, node, text, "")


def _deleting(view: View, wanted: Wanted, placed: Sequence[Placed]) -> Iterator[Finding]:
    good = [item.node for item in placed if item.is_up_to_date]
    for item in placed:
        if not item.replica.flags & _DELETING:
            continue
        resource, node = wanted.resource, item.node
        text = f"{resource} on {node} has stayed while it was deleted"
        if not view.cluster.is_online(node):
            yield Finding("stuck-deleting", resource, node, f"{text}: it goes when {node} is back", resource)
        elif not item.replica.is_diskless and not good:
            yield Finding("stuck-deleting", resource, node, f"{text}, and no other replica is up to date", resource)
        else:
            reason = f"it was already told to go, and {', '.join(good)} has the data"
            make = partial(view.site.gateway.delete_resource, resource, node)
            repair = Repair(f"delete {resource} on {node} once more", reason, SAFE, make)
            yield Finding("stuck-deleting", resource, node, text, resource, repair)


def _copies(view: View, wanted: Wanted, placed: Sequence[Placed]) -> Iterator[Finding]:
    resource = wanted.resource
    holders = [item for item in placed if item.replica.holds_data]
    if holders and not any(item.is_up_to_date for item in holders):
        shown = ", ".join(f"{item.node} {item.disk_state or 'unknown'}" for item in holders)
        text = f"no replica of {resource} of {wanted.label} is up to date ({shown}): bring back the node that has it"
        yield Finding("no-good-copy", resource, "", text, resource)
    for item in holders:
        is_known = "DRBD" in item.replica.layers and view.cluster.is_online(item.node)
        if is_known and item.disk_state not in ("UpToDate", "") and not item.is_syncing:
            text = (
                f"{resource} of {wanted.label} is {item.disk_state} on {item.node} and is not syncing: see `drbdadm "
                "status` there for its connections"
            )
            yield Finding("not-up-to-date", resource, item.node, text, resource)
    for item in placed:
        if "INACTIVE" in item.replica.flags:
            text = f"{resource} is deactivated on {item.node}: `linstor resource activate {item.node} {resource}`"
            yield Finding("inactive", resource, item.node, text, resource)


def _asked(view: View, volume: Volume, wanted: Wanted) -> int:
    """Return how many replicas a volume of ours is to have: as its group says, or the datastore over it."""
    is_own = bool(wanted.owner)
    overrides = volume.properties.get(placement.BALANCE_PROPERTY) == "false"
    of_group = view.cluster.place_count(volume)
    return (wanted.replica_count if overrides or of_group is None else of_group) or 0 if is_own else 0


def _count(view: View, volume: Volume, wanted: Wanted, placed: Sequence[Placed]) -> Iterator[Finding]:
    count, asked = sum(item.replica.holds_data for item in placed), _asked(view, volume, wanted)
    if not count or count >= asked:
        return
    resource = wanted.resource
    text = f"{resource} of {wanted.label} has {count} of {asked} replicas"
    reason = "LINSTOR copies what is there to a node that has room; nothing that is there changes"
    make = partial(view.site.gateway.autoplace, resource, {"place_count": asked})
    repair = Repair(f"place {asked} replicas of {resource}", reason, SAFE, make)
    yield Finding("few-replicas", resource, "", text, resource, repair)


def _tie_breaker(view: View, volume: Volume, wanted: Wanted, placed: Sequence[Placed]) -> Iterator[Finding]:
    holders = [item for item in placed if item.replica.holds_data and "DRBD" in item.replica.layers]
    others = [item for item in placed if item.replica.is_diskless]
    there = {item.node.lower() for item in placed}
    free = [node for key, node in view.cluster.nodes.items() if key not in there and node.is_online]
    if len(holders) < 2 or len(holders) % 2 or others or not free or not view.cluster.wants_tie_breaker(volume):
        return
    resource = wanted.resource
    text = f"{resource} of {wanted.label} has {len(holders)} replicas and no tie-breaker: one away stops all writing"
    make = partial(view.site.gateway.modify_resource_definition, resource, {AUTO_TIE_BREAKER: "True"})
    reason = "the cluster's settings ask for one, and it takes no space"
    # LINSTOR notes this where somebody has deleted a tie-breaker by hand, who may have meant it.
    consent = ASK if volume.properties.get(AUTO_TIE_BREAKER, "").lower() == "false" else SAFE
    repair = Repair(f"let LINSTOR give {resource} a tie-breaker", reason, consent, make)
    yield Finding("no-tie-breaker", resource, "", text, resource, repair)


def _attached(view: View, wanted: Wanted, placed: Sequence[Placed]) -> Iterator[Finding]:
    # oned sends a VM whose move has failed back to where it came from, without calling any driver.
    if any(machine.has_failed for machine in wanted.machines):
        return
    resource = wanted.resource
    for item in placed:
        node = item.node
        if node.lower() in wanted.hosts or item.replica.flags & _DELETING:
            continue
        if item.replica.in_use:
            text = (
                f"{resource} of {wanted.label} is open on {node}, where OpenNebula has no VM with it: stop what has it"
            )
            yield Finding("open-elsewhere", resource, node, text, resource)
        elif item.replica.is_diskless and not item.replica.is_tie_breaker and item.replica.is_online:
            text = f"{resource} of {wanted.label} is attached on {node}, where OpenNebula has no VM with it"
            make = partial(replicas.detach, view.site.gateway, resource, node)
            reason = "it holds no data, nobody has it open, and the next VM attaches it again"
            repair = Repair(f"detach {resource} from {node}", reason, SAFE, make)
            yield Finding("unused-diskless", resource, node, text, resource, repair)
    there = {item.node.lower() for item in placed}
    for host, label in wanted.hosts.items():
        if host not in there and wanted.is_required:
            yield _not_attached(view, wanted, host, label)


def _not_attached(view: View, wanted: Wanted, host: str, label: str) -> Finding:
    text = f"{wanted.resource} is not available on {host}, where {label} is"
    if host not in view.cluster.nodes:
        return Finding("not-attached", wanted.resource, host, f"{text}: register it in LINSTOR", wanted.resource)
    make = partial(replicas.attach, view.site.gateway, wanted.resource, view.cluster.nodes[host].name)
    repair = Repair(f"attach {wanted.resource} on {host}", "the VM cannot be started or go on without", ASK, make)
    return Finding("not-attached", wanted.resource, host, text, wanted.resource, repair)


def _two_primaries(view: View, wanted: Wanted) -> Finding:
    resource = wanted.resource
    text = f"{resource} of {wanted.label} may be primary on all nodes at once, and no VM that has it migrates"
    reason = "only a live migration needs it, and two VMs that write at once destroy the data"
    make = partial(primaries.forget_everywhere, view.site.gateway, resource)
    repair = Repair(f"forbid two primaries of {resource}", reason, SAFE, make)
    return Finding("two-primaries", resource, "", text, resource, repair)


def pairs(view: View, wanted: Wanted, allowed: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Yield the pairs of nodes that a migration has left allowed to be primary at once."""
    resource = wanted.resource
    for nodes in allowed:
        text = f"{resource} of {wanted.label} may be primary on {nodes[0]} and {nodes[1]} at once, and migrates no more"
        reason = "only a live migration needs it, and two VMs that write at once destroy the data"
        make = partial(primaries.forget_pair, view.site.gateway, resource, nodes)
        repair = Repair(f"forbid two primaries of {resource} on {nodes[0]} and {nodes[1]}", reason, SAFE, make)
        yield Finding("two-primaries", resource, ",".join(nodes), text, resource, repair)


def may_have_migrated(view: View) -> list[Wanted]:
    """Return the volumes whose connections may still have what a live migration needs: only they are asked for."""
    return [
        wanted
        for key, wanted in view.wanted.items()
        if wanted.is_settled
        and wanted.is_writable
        and not (wanted.kind == DISK and not wanted.machines)
        and any(machine.moves for machine in wanted.machines)
        and key in view.cluster.volumes
        and not view.is_busy(view.cluster.volumes[key])
    ]
