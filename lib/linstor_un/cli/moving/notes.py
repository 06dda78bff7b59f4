"""What an operator should know before a replica is put or taken, and the words for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from linstor_un.cli.moving.rules import Addition, Removal
from linstor_un.cli.moving.scene import Scene, listed
from linstor_un.cluster.placement import BALANCE_PROPERTY

# Before it LINSTOR rolls every replica back where it is, and needs the snapshot there.
_RESTORES_SINCE = (1, 25)


def of_addition(scene: Scene, wanted: Addition) -> list[str]:
    """Return what follows from a new replica."""
    return [*of_snapshots(scene, [wanted.node]), *of_count(scene, len(scene.holders) + 1)]


def of_removal(scene: Scene, wanted: Removal) -> list[str]:
    """Return what follows when a replica goes."""
    return [*of_staying(scene, wanted.node), *of_count(scene, len(scene.holders) - 1)]


def of_snapshots(scene: Scene, nodes: Sequence[str]) -> Iterator[str]:
    """Yield what new replicas on these nodes mean for reverts to older snapshots."""
    names = sorted({name for node in nodes for name in scene.snapshots_missing_on(node)})
    if not names:
        return
    text = f"{listed(names)} {'is' if len(names) == 1 else 'are'} not on {listed(nodes)}"
    if scene.site.gateway.rest_version < _RESTORES_SINCE:
        yield f"{text}: LINSTOR before 1.31 refuses to revert to what one of the replicas does not have"
    else:
        yield f"{text}: a revert leaves replicas only where the snapshot is"


def of_staying(scene: Scene, node: str) -> Iterator[str]:
    """Yield what is left of a volume on a node that its replica leaves."""
    names = [
        item.name
        for item in scene.site.cluster.snapshots_of(scene.resource)
        if node.lower() in {at.lower() for at in item.nodes}
    ]
    if names:
        stay = "stays" if len(names) == 1 else "stay"
        yield f"{listed(names)} {stay} on {node}, as LINSTOR keeps snapshots: what is made of one has a replica there"


def of_count(scene: Scene, count: int) -> Iterator[str]:
    """Yield what follows from another count of replicas."""
    asked = scene.wanted.replica_count if scene.wanted else None
    if asked is not None and count < asked:
        yield f"the datastore asks for {asked} replicas: `linstor-un audit` finds that {scene.resource} has {count}"
    if scene.is_balanced and count != scene.balanced_count:
        yield (
            f"resource group {scene.volume.group} asks for {scene.balanced_count} replicas: {BALANCE_PROPERTY} is set "
            f"to false for {scene.resource}, so that LINSTOR leaves the {count} alone"
        )


def said_of_addition(scene: Scene, wanted: Addition) -> str:
    """Return an addition in words."""
    there = scene.on(wanted.node)
    if there is None:
        return f"put a replica of {scene.resource} on {wanted.node}, in pool {wanted.pool}"
    what = "the tie-breaker is" if there.replica.is_tie_breaker else "it is attached without"
    return f"give {scene.resource} a disk on {wanted.node}, where {what}, in pool {wanted.pool}"


def said_of_removal(scene: Scene, wanted: Removal) -> str:
    """Return a removal in words."""
    if wanted.stays_for:
        return f"make {scene.resource} on {wanted.node} diskless: {wanted.stays_for} goes on there over the network"
    return f"take the replica of {scene.resource} off {wanted.node}"
