"""The capacity of a datastore, as oned reads it."""

from __future__ import annotations

from linstor_un.actions.datastore_action import DatastoreAction
from linstor_un.cluster import placement as placements
from linstor_un.cluster import pools
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import NoRoom
from linstor_un.units import KIB_PER_MIB


def report(action: DatastoreAction) -> str:
    """Return the three lines of a datastore's monitoring.

    Raises NoRoom where no pool answers: oned keeps the old numbers then, and zeroes would stop all scheduling.
    """
    placement = placements.of(action.settings, action.datastore.label)
    # Not worth a wait: oned asks again, and has one thread for each question.
    gateway = Gateway(action.settings._replace(failover_timeout_seconds=0))
    found = pools.capacity(gateway, placement)
    if not found.total_kib:
        raise NoRoom(
            f"Too few storage pools answer for the replicas of {action.datastore.label}: see `linstor storage-pool "
            "list`, or correct STORAGE_POOL, REPLICA_COUNT or RESOURCE_GROUP"
        )
    total = found.total_kib // KIB_PER_MIB
    free = min(found.free_kib // KIB_PER_MIB, total)
    return f"USED_MB={total - free}\nTOTAL_MB={total}\nFREE_MB={free}"
