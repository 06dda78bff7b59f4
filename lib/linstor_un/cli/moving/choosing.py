"""Which replicas are taken where there are too many."""

from __future__ import annotations

from linstor_un.cli.moving import rules
from linstor_un.cli.moving.rules import Removal
from linstor_un.cli.moving.scene import Scene, listed, plural
from linstor_un.cluster.inventory import Placed
from linstor_un.errors import DriverError, InUse


def surplus(scene: Scene, count: int) -> list[Removal]:
    """Return what leaves so many replicas: first those that are no good copies, last those on hosts of VMs.

    Between equals the one in the fullest pool goes, as with LINSTOR's balancing. Never one that is open. Raises InUse
    where too many are, and as rules.removal.
    """
    idle = [item for item in scene.holders if not item.replica.in_use]
    missing = len(scene.holders) - count
    if len(idle) < missing:
        names = [item.node for item in scene.holders if item.replica.in_use]
        raise InUse(
            f"{scene.resource} is open on {listed(names)} and cannot have fewer than {plural(len(names), 'replica')}: "
            "`linstor-un place --remove` makes one that is open diskless"
        )
    found: list[Removal] = []
    while len(found) < missing:
        removal = _next(scene)
        found.append(removal)
        scene = scene.without(removal.node)
    return found


def _next(scene: Scene) -> Removal:
    """Return the best that may go now; where none may, why the best may not."""
    refusals: list[DriverError] = []
    for item in sorted(
        (item for item in scene.holders if not item.replica.in_use), key=lambda item: _rank(scene, item)
    ):
        try:
            found = rules.removal(scene, item.node)
        except DriverError as error:
            refusals.append(error)
            continue
        if found is not None:
            return found
    raise refusals[0]


def _rank(scene: Scene, item: Placed) -> tuple[bool, bool, int, str]:
    free = [
        pool.free_kib
        for pool in scene.site.cluster.pools
        if (pool.node, pool.name) == (item.node, item.replica.storage_pool)
    ]
    return scene.is_good(item), bool(scene.vm_on(item.node)), sum(free), item.node
