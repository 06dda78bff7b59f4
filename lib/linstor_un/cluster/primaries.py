"""Two primaries at once, for the moment of a live migration, and only between its two hosts.

The destination's QEMU opens the disk while the source's still has it (linstor-contract.md, 5.5). Controllers from REST
1.29 on manage this themselves; for older ones it is set at the connection of the two nodes, or at the resource
definition where both are diskless and have no connection, and always taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from linstor_un import log
from linstor_un.cluster import replicas
from linstor_un.errors import DriverError

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway

TWO_PRIMARIES = "DrbdOptions/Net/allow-two-primaries"
_PROTOCOL = "DrbdOptions/Net/protocol"
_MANAGED_SINCE = (1, 29)


def allow(gateway: Gateway, resource: str, source: str, target: str) -> None:
    """Make the volume available on `target` and let it be primary there while it is on `source`."""
    if gateway.rest_version >= _MANAGED_SINCE:
        gateway.make_available(resource, target, for_migration=True)
        return
    replicas.attach(gateway, resource, target)
    # Protocol C is what two primaries need, whatever the group says.
    wanted = {TWO_PRIMARIES: "yes", _PROTOCOL: "C"}
    if _are_diskless(replicas.of(gateway, resource), source, target):
        gateway.modify_resource_definition(resource, wanted)
    else:
        gateway.modify_connection(resource, source, target, wanted)
    log.info(f"{resource} may be primary on {source} and {target}")


def forbid(gateway: Gateway, resource: str, left: str, stays: str) -> None:
    """Take back what `allow` did, and detach the volume from `left` where it is only attached; absent is done."""
    known = replicas.of(gateway, resource)
    if gateway.rest_version >= _MANAGED_SINCE:
        gateway.unmake_available(resource, left)
        return
    for revoke in (_revoke_connection, _revoke_definition):
        try:
            revoke(gateway, resource, known, left, stays)
        except DriverError as error:
            if not error.code:
                raise
            log.error(f"two primaries stay allowed for {resource}: {error}")
    for replica in known:
        if replica.node.lower() == left.lower():
            replicas.detach_replica(gateway, resource, replica)


def _are_diskless(known: Sequence[replicas.Replica], *nodes: str) -> bool:
    names = {node.lower() for node in nodes}
    return all(replica.is_diskless for replica in known if replica.node.lower() in names)


def _revoke_connection(
    gateway: Gateway, resource: str, known: Sequence[replicas.Replica], left: str, stays: str
) -> None:
    there = {replica.node.lower() for replica in known}
    # LINSTOR stumbles over a connection to a node that the resource is not on, and has forgotten its properties anyway.
    if {left.lower(), stays.lower()} <= there and not _are_diskless(known, left, stays):
        gateway.modify_connection(resource, left, stays, {}, [TWO_PRIMARIES, _PROTOCOL])


def _revoke_definition(
    gateway: Gateway, resource: str, known: Sequence[replicas.Replica], left: str, stays: str
) -> None:
    if _are_diskless(known, left, stays):
        gateway.modify_resource_definition(resource, {}, [TWO_PRIMARIES, _PROTOCOL])
