"""Which pools of which nodes may get a replica of a volume, and have room for it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from linstor_un.cli.moving.scene import Scene, gib, listed
from linstor_un.cluster.inventory import Placed
from linstor_un.cluster.pools import Pool
from linstor_un.cluster.survey import Node
from linstor_un.errors import NoRoom, NotFound

# What actions have promised to a pool since it was last asked, in KiB, by node and pool.
Promised = Mapping[tuple[str, str], int]


def needed_kib(scene: Scene, pool: Pool) -> int:
    """Return what a replica takes in a pool: in a thin one what the others have taken."""
    size = max([scene.volume.size_kib, *(item.replica.usable_size_kib for item in scene.holders)])
    taken = max((item.allocated_kib for item in scene.good), default=-1)
    return taken if pool.is_thin and taken >= 0 else size


def pool_on(scene: Scene, node: str, name: str = "") -> Pool:
    """Return the pool on a node for a replica: that of this name, or the best of those that the volume may be in.

    Raises NotFound where there is none, NoRoom where it is too full.
    """
    there = [pool for pool in scene.site.cluster.pools if pool.node.lower() == node.lower()]
    fitting = [pool for pool in there if pool.name.lower() == name.lower()] if name else _allowed(scene, there)
    if not fitting:
        having = listed([pool.name for pool in there]) or "none that answers"
        asked = f"pool {name}" if name else f"pool that {scene.resource} may be in ({listed(_names(scene)) or 'any'})"
        raise NotFound(f"Node {node} has no {asked}: its pools are {having}; name one with --pool")
    best = max(fitting, key=lambda pool: pool.free_kib)
    if needed_kib(scene, best) > best.free_kib:
        raise NoRoom(
            f"Pool {best.name} on {best.node} has {gib(best.free_kib)} free and a replica of {scene.resource} needs "
            f"{gib(needed_kib(scene, best))}: free space there, or take another pool or node"
        )
    return best


def _names(scene: Scene) -> list[str]:
    return list(scene.select_filter.get("storage_pool_list") or ())


def _allowed(scene: Scene, there: Sequence[Pool]) -> list[Pool]:
    """Return the pools that the volume's filter names, of the kinds that LINSTOR puts beside those it has."""
    names = {name.lower() for name in _names(scene)}
    providers = set(scene.select_filter.get("provider_list") or ())
    kinds = {_family(item.provider) for item in scene.holders}
    return [
        pool
        for pool in there
        if (not names or pool.name.lower() in names)
        and (not providers or pool.provider in providers)
        and (not kinds or _family(pool.provider) in kinds)
    ]


def _family(provider: str) -> str:
    """Return what the pools of one volume have in common: LINSTOR mixes thin and thick ones of ZFS and files only."""
    return provider if provider.startswith("LVM") else provider.replace("_THIN", "")


def candidates(
    scene: Scene, staying: Sequence[Placed], promised: Promised, targets: Collection[str] = ()
) -> Iterator[tuple[Pool, int]]:
    """Yield the pools that may get one more replica beside those that stay, with what remains there, most first.

    `targets` are nodes, in lower case, that an operator has named; they go over those of NODE_LIST.
    """
    found = []
    for node in scene.site.cluster.nodes.values():
        present = scene.on(node.name)
        is_free = present is None or (present.replica.is_diskless and not present.replica.flags & {"DELETE"})
        if is_free and node.is_online and not node.is_leaving and _may_have(scene, node, staying, targets):
            there = [pool for pool in scene.site.cluster.pools if pool.node == node.name]
            for pool in _allowed(scene, there):
                left = pool.free_kib - promised.get((pool.node, pool.name), 0) - needed_kib(scene, pool)
                if left >= 0:
                    found.append((pool, left))
    yield from sorted(found, key=lambda item: (-item[1], item[0].node))


def _may_have(scene: Scene, node: Node, staying: Sequence[Placed], targets: Collection[str]) -> bool:
    """Tell whether the volume's filter lets a node have a replica beside those that stay, as LINSTOR reads it."""
    wanted = scene.select_filter
    names = targets or {name.lower() for name in wanted.get("node_name_list") or ()}
    others = [scene.site.cluster.nodes[item.node.lower()] for item in staying]
    same = all(
        _value(node, key) == _value(other, key) for key in wanted.get("replicas_on_same") or () for other in others
    )
    different = all(
        _value(node, key) != _value(other, key) for key in wanted.get("replicas_on_different") or () for other in others
    )
    return (not names or node.name.lower() in names) and same and different and not _avoids(scene, node, wanted)


def _value(node: Node, key: str) -> str:
    name, _, fixed = key.partition("=")
    value = node.properties.get(name) or node.properties.get(f"Aux/{name}", "")
    return f"{value}={value == fixed}" if fixed else value


def _avoids(scene: Scene, node: Node, wanted: Mapping[str, Any]) -> bool:
    names = {name.lower() for name in wanted.get("not_place_with_rsc") or ()}
    pattern = wanted.get("not_place_with_rsc_regex") or ""
    for key, placed in scene.site.cluster.resources.items():
        is_avoided = key in names or (pattern and re.fullmatch(pattern, key, re.IGNORECASE))
        if is_avoided and key != scene.resource.lower() and any(item.node == node.name for item in placed):
            return True
    return False
