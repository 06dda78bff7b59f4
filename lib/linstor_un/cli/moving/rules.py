"""What may be done to a volume's replicas: what would lose its last good copy, or its quorum, is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

from linstor_un.cli.moving import room
from linstor_un.cli.moving.scene import Scene, known_node, listed, plural, usable_node
from linstor_un.cluster.inventory import Placed
from linstor_un.errors import InUse, InvalidInput, NotReady

_LEAST_VOTES = 3


class Addition(NamedTuple):
    """A replica that is to be made: `is_toggle` where the node has the volume without disk."""

    node: str
    pool: str
    is_toggle: bool


class Removal(NamedTuple):
    """A replica that is to go; `stays_for` is the VM or opener for which it becomes diskless instead."""

    node: str
    stays_for: str


def addition(scene: Scene, node_name: str, pool_name: str = "") -> Optional[Addition]:
    """Return what puts a replica on a node, None where it has one.

    Raises NotFound, NotReady, NoRoom and InvalidInput where it cannot be.
    """
    node = known_node(scene.site, node_name)
    there = scene.on(node.name)
    if there is not None and there.replica.holds_data:
        _check_pool(scene, there, pool_name)
        return None
    usable_node(scene.site, node_name)
    if there is not None and not _may_get_disk(there):
        raise NotReady(
            f"{scene.resource} on {node.name} is {', '.join(sorted(there.replica.flags))}: wait until it is gone "
            f"there, or see `linstor resource list -r {scene.resource}`"
        )
    check_copies(scene)
    pool = room.pool_on(scene, node.name, pool_name)
    return Addition(node.name, pool.name, there is not None)


def _may_get_disk(there: Placed) -> bool:
    return there.replica.is_diskless and not there.replica.flags & {"DELETE", "DRBD_DELETE"}


def _check_pool(scene: Scene, there: Placed, pool_name: str) -> None:
    if pool_name.lower() not in ("", there.replica.storage_pool.lower()):
        raise InvalidInput(
            f"{scene.resource} is on {there.node} in pool {there.replica.storage_pool}, and not in {pool_name}: take "
            f"it away there first, `linstor-un place {scene.resource} --remove {there.node}`"
        )


def check_copies(scene: Scene) -> None:
    """Refuse what has nothing to be copied from, or nothing that copies."""
    if scene.layers and "DRBD" not in scene.layers:
        raise InvalidInput(
            f"{scene.resource} has no DRBD layer and can be on one node only: make an image of it in a datastore "
            "whose LAYER_LIST has DRBD"
        )
    if not scene.good:
        states = listed([f"{item.disk_state or 'unknown'} on {item.node}" for item in scene.holders]) or "nowhere"
        raise NotReady(
            f"No replica of {scene.resource} is up to date ({states}): bring back the node that has the data"
        )


def removal(scene: Scene, node_name: str) -> Optional[Removal]:
    """Return what takes the replica off a node, None where it has none.

    Raises NotFound for an unknown node, NotReady and InUse where the last good copy or the quorum would go with it.
    """
    node = known_node(scene.site, node_name)
    there = scene.on(node.name)
    if there is None or not there.replica.holds_data:
        return None
    others = [item for item in scene.holders if item is not there]
    _check_others(scene, there, others)
    _check_quorum(scene, there, others)
    if there.replica.in_use:
        return Removal(node.name, scene.vm_on(node.name) or "what has it open")
    stays_for = scene.vm_on(node.name)
    if not node.is_online and (stays_for or scene.wanted is None):
        raise InUse(
            f"{scene.resource} may be open on {node.name}, which is {node.connection}"
            f"{f' and has {stays_for}' if stays_for else ''}: bring its satellite back, or give the node up with "
            f"`linstor node lost {node.name}`"
        )
    return Removal(node.name, stays_for)


def _check_others(scene: Scene, there: Placed, others: Sequence[Placed]) -> None:
    good = [item for item in others if scene.is_good(item)]
    if not good:
        raise NotReady(
            f"{there.node} has the last good copy of {scene.resource}: put another on a node first, `linstor-un place "
            f"{scene.resource} --add NODE`"
        )
    behind = [item for item in others if not scene.is_good(item)]
    if behind and scene.is_good(there):
        shown = listed([f"{item.disk_state or 'away'} on {item.node}" for item in behind])
        raise NotReady(
            f"{scene.resource} is {shown}, so that its good copy on {there.node} has to stay: wait until all are up to "
            f"date (`linstor-un status volumes --syncing`), or take that one away instead"
        )


def _check_quorum(scene: Scene, there: Placed, others: Sequence[Placed]) -> None:
    """Refuse to take the vote of a node without which the others are too few to write."""
    if _has_quorum(scene, scene.holders, False) and not _has_quorum(scene, others, there.replica.is_online):
        away = [item.node for item in others if not scene.site.cluster.is_online(item.node)]
        raise NotReady(
            f"Without its replica on {there.node}, {scene.resource} has no quorum: {len(others) - len(away)} of "
            f"{plural(len(others), 'replica')} would answer; bring {listed(away)} back first, or take their replicas "
            "away"
        )


def _has_quorum(scene: Scene, holders: Sequence[Placed], may_get_tie_breaker: bool) -> bool:
    """Tell whether the replicas that answer may write; with fewer than three votes LINSTOR asks for no quorum."""
    if "DRBD" not in scene.layers:
        return True
    online = sum(scene.site.cluster.is_online(item.node) for item in holders)
    diskless = [item for item in scene.placed if item.replica.is_diskless and "DRBD_CLIENT" not in item.replica.flags]
    is_tie_broken = may_get_tie_breaker or any(scene.site.cluster.is_online(item.node) for item in diskless)
    if len(holders) + len(diskless) + may_get_tie_breaker < _LEAST_VOTES:
        return True
    return 2 * online > len(holders) or (2 * online == len(holders) and is_tie_broken)
