"""Two primaries at once, for the moment of a live migration, and only between its two hosts.

The destination's QEMU opens the disk while the source's still has it (linstor-contract.md, 5.5). Controllers from REST
1.29 on manage this themselves; for older ones it is set at the connection of the two nodes, or at the resource
definition where both are diskless and have no connection, and always taken back: by whatever ends the migration, or by
the next one where the front-end died in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from linstor_un import log
from linstor_un.cluster import volumes
from linstor_un.cluster.replicas import Replica
from linstor_un.errors import NotFound

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway

TWO_PRIMARIES = "DrbdOptions/Net/allow-two-primaries"
_PROTOCOL = "DrbdOptions/Net/protocol"
# Protocol C is what two primaries need, whatever the group says.
_ALLOWED = {TWO_PRIMARIES: "yes", _PROTOCOL: "C"}


def allow(gateway: Gateway, resource: str, known: Sequence[Replica], source: str, target: str) -> None:
    """Let the volume, which is attached on both nodes, be primary on both; `known` is where it is.

    Only for controllers that do not manage this themselves.
    """
    _forget_pairs(gateway, resource, {source, target})
    if _are_diskless(known, {source, target}):
        gateway.modify_resource_definition(resource, _ALLOWED)
    else:
        gateway.modify_connection(resource, source, target, _ALLOWED)
    log.info(f"{resource} may be primary on {source} and {target}")


def forget_earlier(gateway: Gateway, resources: Collection[str]) -> None:
    """Take back what a migration between diskless nodes has left allowed because its front-end died."""
    wanted = {resource.lower() for resource in resources}
    for volume in volumes.with_property(gateway, TWO_PRIMARIES, _ALLOWED[TWO_PRIMARIES]):
        if volume.resource.lower() in wanted:
            forget_everywhere(gateway, volume.resource)


def forget(gateway: Gateway, resource: str) -> None:
    """Take back all that migrations have left allowed, for a volume that outlives its VM.

    Where LINSTOR manages two primaries it takes them back with the attachment that they were allowed for.
    """
    if not gateway.manages_two_primaries:
        forget_earlier(gateway, [resource])
        _forget_pairs(gateway, resource)


def forbid(gateway: Gateway, resource: str, known: Sequence[Replica], left: str, stays: str) -> None:
    """Take back what `allow` did; absent is done. As `allow`, only for controllers that do not manage this."""
    nodes = {replica.node.lower() for replica in known}
    if _are_diskless(known, {left, stays}):
        gateway.modify_resource_definition(resource, {}, list(_ALLOWED))
    # LINSTOR stumbles over a connection to a node that the resource is not on, and has forgotten its properties anyway.
    elif {left.lower(), stays.lower()} <= nodes:
        gateway.modify_connection(resource, left, stays, {}, list(_ALLOWED))


def leave(gateway: Gateway, resource: str, left: str) -> None:
    """Take back two primaries and detach the volume from the node that it has left, where LINSTOR manages both."""
    gateway.once_closed(lambda: gateway.unmake_available(resource, left))


def _are_diskless(known: Sequence[Replica], nodes: Collection[str]) -> bool:
    names = {node.lower() for node in nodes}
    there = [replica for replica in known if replica.node.lower() in names]
    return len(there) == len(names) and all(replica.is_diskless for replica in there)


def _forget_pairs(gateway: Gateway, resource: str, kept: Collection[str] = ()) -> None:
    """Take back what a migration whose front-end died has left allowed between other nodes than those that are kept."""
    for nodes in allowed_pairs(gateway, resource):
        if {node.lower() for node in nodes} != {node.lower() for node in kept}:
            forget_pair(gateway, resource, nodes)


def allowed_pairs(gateway: Gateway, resource: str) -> list[tuple[str, str]]:
    """Return the pairs of nodes on which the volume may be primary at once; none where there is no such volume."""
    what = f"Looking for connections of {resource}"
    try:
        found = gateway.get(what, ("resource-definitions", resource, "resource-connections"))
    except NotFound:
        return []
    return [(item["node_a"], item["node_b"]) for item in found if TWO_PRIMARIES in (item.get("props") or {})]


def forget_pair(gateway: Gateway, resource: str, nodes: tuple[str, str]) -> None:
    """Take back that the volume may be primary on both nodes at once."""
    log.warning(f"{resource} was still allowed to be primary on {nodes[0]} and {nodes[1]}: it no longer is")
    gateway.modify_connection(resource, *nodes, {}, list(_ALLOWED))


def forget_everywhere(gateway: Gateway, resource: str) -> None:
    """Take back that the volume may be primary on all nodes at once."""
    log.warning(f"{resource} was still allowed to be primary on all nodes: it no longer is")
    gateway.modify_resource_definition(resource, {}, list(_ALLOWED))
