"""Doing it: each step looks again while it holds the volume, and does nothing where it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from linstor_un.cli import holding
from linstor_un.cli.moving import rules
from linstor_un.cli.moving import scene as scenes
from linstor_un.cli.moving.rules import Addition, Removal
from linstor_un.cli.moving.scene import Scene
from linstor_un.cluster import inventory as clusters
from linstor_un.cluster.placement import BALANCE_PROPERTY


@contextmanager
def held(known: Scene) -> Iterator[Scene]:
    """Hold the volume and look at it again; raises Busy where an action has it."""
    with holding.held(known.inventory.common, known.resource):
        yield scenes.again(known)


def put(known: Scene, node: str, pool: str = "") -> Optional[Addition]:
    """Put a replica on a node and return what that took; its data is copied after that."""
    with held(known) as scene:
        wanted = rules.addition(scene, node, pool)
        if wanted is not None:
            count = len(scene.holders) + 1
            leave_unbalanced(scene, count)
            do_put(scene, wanted)
            let_balance(scene, count)
    return wanted


def do_put(scene: Scene, wanted: Addition) -> None:
    """Make an addition that was found to be right."""
    make = scene.site.gateway.give_disk if wanted.is_toggle else scene.site.gateway.create_replica
    make(scene.resource, wanted.node, wanted.pool, scene.layers)


def take(known: Scene, node: str) -> Optional[Removal]:
    """Take the replica off a node and return what that took; the volume stays there diskless for who has it open."""
    with held(known) as scene:
        wanted = rules.removal(scene, node)
        if wanted is not None:
            count = len(scene.holders) - 1
            leave_unbalanced(scene, count)
            do_take(scene, wanted)
            let_balance(scene, count)
    return wanted


def do_take(scene: Scene, wanted: Removal) -> None:
    """Make a removal that was found to be right."""
    if wanted.stays_for:
        scene.site.gateway.take_disk(scene.resource, wanted.node)
    else:
        scene.site.gateway.delete_resource(scene.resource, wanted.node)


def placed_now(scene: Scene) -> Scene:
    """Return the volume with its places as they are by now, all else as before."""
    found = clusters.placed(scene.site.gateway, [scene.resource])
    return scene.placed_at(found.get(scene.resource.lower(), ()))


def leave_unbalanced(scene: Scene, count: int) -> None:
    """Keep LINSTOR's hourly balancing from taking back what is about to be done."""
    if scene.is_balanced and count != scene.balanced_count:
        scene.site.gateway.modify_resource_definition(scene.resource, {BALANCE_PROPERTY: "false"})


def let_balance(scene: Scene, count: int) -> None:
    """Let LINSTOR's balancing go on where it wants as many replicas as there are."""
    is_kept = scene.site.gateway.balances and not scene.is_balanced
    if is_kept and count == scene.balanced_count and scene.may_be_balanced:
        scene.site.gateway.modify_resource_definition(scene.resource, {}, [BALANCE_PROPERTY])
