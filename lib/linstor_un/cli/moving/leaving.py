"""A volume leaves a node: a replica more elsewhere, and when it is up to date the one on the node goes.

How many replicas there shall be is noted at the one that is to go, and goes with it: who goes on after an interruption
could not tell the one more from one that was wanted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple, Optional

from linstor_un.cli.moving import notes, room, rules, steps
from linstor_un.cli.moving.room import Promised
from linstor_un.cli.moving.scene import Scene, listed, plural
from linstor_un.cluster import snapshots
from linstor_un.cluster.inventory import Placed
from linstor_un.cluster.pools import Pool
from linstor_un.errors import DriverError, NoRoom, NotReady
from linstor_un.naming import BASE_SNAPSHOT


class Plan(NamedTuple):
    """How a volume leaves a node: `pool` is where a replica more goes, None where there are enough.

    `removal` is None where the node has no replica, and only a tie-breaker or the snapshot that VMs' disks are made of.
    """

    scene: Scene
    node: str
    replica_count: int
    pool: Optional[Pool]
    removal: Optional[rules.Removal]

    @property
    def said(self) -> str:
        """Return it in words."""
        if self.removal is None:
            return f"take what is left of {self.scene.resource} off {self.node}"
        words = notes.said_of_removal(self.scene, self.removal)
        return f"put a replica of {self.scene.resource} on {self.pool.node}, then {words}" if self.pool else words

    @property
    def needed_kib(self) -> int:
        """Return what is copied."""
        return room.needed_kib(self.scene, self.pool) if self.pool else 0


def concerns(scene: Scene, node: str) -> bool:
    """Tell whether there is something of a volume on a node that can be elsewhere."""
    there = scene.on(node)
    if there is None:
        return _has_base(scene, node)
    is_movable = there.replica.is_tie_breaker and bool(_free_nodes(scene, node))
    return there.replica.holds_data or is_movable or _is_marked(scene, there) or _has_base(scene, node)


def _is_marked(scene: Scene, there: Placed) -> bool:
    return scene.inventory.names.leaving in there.properties


def _has_base(scene: Scene, node: str) -> bool:
    return any(
        item.name.lower() == BASE_SNAPSHOT.lower() and node.lower() in {at.lower() for at in item.nodes}
        for item in scene.site.cluster.snapshots_of(scene.resource)
    )


def plan(scene: Scene, node: str, targets: Collection[str] = (), promised: Optional[Promised] = None) -> Plan:
    """Return how a volume leaves a node; raises DriverError where it cannot.

    Arguments: `targets` are the nodes, in lower case, that may get it; `promised` what others get of their pools.
    """
    there = scene.on(node)
    if there is None or not there.replica.holds_data:
        return Plan(scene, node, len(scene.holders), None, None)
    others = [item for item in scene.holders if item is not there]
    count = int(there.properties.get(scene.inventory.names.leaving) or len(scene.holders))
    pool = None
    if len(others) < count:
        rules.check_copies(scene)
        pool = _pool(scene, others, node, targets, promised or {})
    # What would refuse the last step refuses the first.
    removal = rules.removal(scene.with_copy(pool.node if pool else ""), node)
    return Plan(scene, node, count, pool, removal)


def _pool(scene: Scene, others: list[Placed], node: str, targets: Collection[str], promised: Promised) -> Pool:
    found = next(room.candidates(scene, others, promised, targets), None)
    if found is None:
        nobody = f"None of {listed(sorted(targets))}" if targets else "No other node"
        raise NoRoom(
            f"{nobody} may have a replica of {scene.resource} and has room for it: free space, add a node with such a "
            f"pool, name nodes with --target that its resource group {scene.volume.group} allows, or put it on one "
            f"with `linstor-un place {scene.resource} --add`{_with_fewer(scene, node, len(others))}"
        )
    return found[0]


def _with_fewer(scene: Scene, node: str, count: int) -> str:
    """Return how the node is left with a replica fewer, where that loses nothing."""
    try:
        rules.removal(scene, node)
    except DriverError:
        return ""
    return f"; or do with {plural(count, 'replica')}: `linstor-un place {scene.resource} --remove {node}`"


def begin(known: Plan) -> list[str]:
    """Put the replica more where one is missing by now, and return the nodes whose replicas are to be waited for."""
    with steps.held(known.scene) as scene:
        wanted = plan(scene, known.node, {known.pool.node.lower()} if known.pool else ())
        if wanted.pool is not None:
            if known.pool is None:
                raise _gone(scene)
            _put(wanted)
    new = [wanted.pool.node] if wanted.pool else []
    is_waited_for = wanted.removal is not None
    others = [item.node for item in scene.holders if item.is_syncing and item.node.lower() != known.node.lower()]
    return new + others if is_waited_for else []


def _gone(scene: Scene) -> NotReady:
    return NotReady(f"A replica of {scene.resource} has gone meanwhile: run this again")


def _put(wanted: Plan) -> None:
    """Put the replica more on its node, and note how many there shall be."""
    scene, pool, name = wanted.scene, wanted.pool, wanted.scene.inventory.names.leaving
    addition = rules.addition(scene, pool.node, pool.name) if pool else None
    if addition is None:
        return
    scene.site.gateway.modify_resource(scene.resource, wanted.node, {name: str(wanted.replica_count)})
    try:
        steps.do_put(scene, addition)
    except DriverError as error:
        if error.code:
            scene.site.gateway.modify_resource(scene.resource, wanted.node, {}, [name])
        raise


def end(known: Plan) -> str:
    """Take the volume off the node, now that there are enough good replicas, and return what there is to say of it."""
    with steps.held(known.scene) as scene:
        if plan(scene, known.node).pool is not None:
            raise _gone(scene)
        removal = rules.removal(scene, known.node)
        if removal is not None:
            steps.do_take(scene, removal)
        said = [_forget_base(scene, known.node), *_tidy(scene, known.node)]
    return "; ".join(filter(None, said))


def _forget_base(scene: Scene, node: str) -> str:
    """Delete what VMs' disks would be made of on the node; the next VM takes a new one where the replicas are."""
    if not _has_base(scene, node):
        return ""
    try:
        snapshots.forget(scene.site.gateway, scene.resource, BASE_SNAPSHOT)
    except DriverError as error:
        return f"VMs' disks made of it have a replica on {node}, since snapshot {BASE_SNAPSHOT} stays: {error}"
    return ""


def _tidy(scene: Scene, node: str) -> list[str]:
    """Take the mark and the tie-breaker that LINSTOR has made of the replica; return what stays."""
    now = steps.placed_now(scene)
    there = now.on(node)
    if there is not None and _is_marked(now, there) and there.replica.is_diskless:
        now.site.gateway.modify_resource(now.resource, node, {}, [now.inventory.names.leaving])
    kept = [
        item.name
        for item in scene.site.cluster.snapshots_of(scene.resource)
        if item.name.lower() != BASE_SNAPSHOT.lower() and node.lower() in {at.lower() for at in item.nodes}
    ]
    stay = "stays" if len(kept) == 1 else "stay"
    said = [f"{listed(kept)} {stay} on {node}: what is made of it has a replica there"] if kept else []
    if there is not None and there.replica.is_tie_breaker and not _moves_tie_breaker(now, node):
        said.append(f"{node} stays its tie-breaker, as no other node is free for that")
    return said


def _moves_tie_breaker(scene: Scene, node: str) -> bool:
    """Have another node be the tie-breaker.

    LINSTOR takes its own tie-breaker where somebody else without disk has a vote, and makes one of the last such that
    goes; deleting a tie-breaker would turn them off for the volume (linstor-contract.md, 5.2).
    """
    gateway = scene.site.gateway
    for free in _free_nodes(scene, node)[:1]:
        gateway.create_diskless(scene.resource, free)
        gateway.delete_resource(scene.resource, free)
        return True
    return False


def _free_nodes(scene: Scene, node: str) -> list[str]:
    """Return the nodes that could be the tie-breaker in place of this one; none where it could not be told."""
    nodes = scene.site.cluster.nodes.values()
    free = [item.name for item in nodes if item.is_online and not item.is_leaving and scene.on(item.name) is None]
    return free if scene.site.cluster.is_online(node) else []
