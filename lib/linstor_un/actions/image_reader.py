"""Reading a volume that nobody writes to, on a node that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from linstor_un import settings as settings_room
from linstor_un.actions import new_volume
from linstor_un.cluster import replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import NotFound
from linstor_un.hosts import runner
from linstor_un.hosts.runner import Host
from linstor_un.locks import shared_guest
from linstor_un.naming import drbd_device


class Reader(NamedTuple):
    """A host on which a volume's device can be read."""

    host: Host
    device: str


@contextmanager
def reading(gateway: Gateway, resource: str) -> Iterator[Reader]:
    """Have the volume on a host for the length of the block: one with a replica, of BRIDGE_LIST where there is one.

    Raises NotFound where LINSTOR has no such volume.
    """
    there = replicas.of(gateway, resource)
    holders = [replica.node for replica in there if replica.holds_data]
    if not holders:
        raise NotFound(f"LINSTOR has no replica of {resource}: see `linstor resource list -r {resource}`")
    node = new_volume.choose(gateway.settings, holders, resource, holders)
    has_drbd = any("DRBD" in replica.layers for replica in there)
    device = drbd_device(resource) if has_drbd else new_volume.reported_device(gateway, resource)
    with offered(gateway, resource, node, holders):
        yield Reader(runner.host(node, gateway.settings), device)


@contextmanager
def offered(gateway: Gateway, resource: str, node: str, holders: list[str]) -> Iterator[None]:
    """Have the volume on `node` for the length of the block, as a guest where it holds no replica."""
    if node.lower() in {holder.lower() for holder in holders}:
        yield
        return
    with shared_guest(settings_room.lock_directory(gateway.settings), resource, node) as is_last:
        replicas.attach(gateway, resource, node)
        try:
            yield
        finally:
            if is_last():
                replicas.detach(gateway, resource, node)
