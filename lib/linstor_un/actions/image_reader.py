"""Reading a volume that nobody writes to, on a node that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Optional

from linstor_un import settings as settings_room
from linstor_un.actions import new_volume
from linstor_un.cluster import replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.replicas import Replica
from linstor_un.errors import NotFound
from linstor_un.hosts import devices, runner
from linstor_un.hosts.runner import Host
from linstor_un.locks import shared_guest, volume_lock
from linstor_un.naming import drbd_device


class Reader(NamedTuple):
    """A host on which a volume's device can be read."""

    host: Host
    device: str


@contextmanager
def reading(gateway: Gateway, resource: str, known: Optional[Sequence[Replica]] = None) -> Iterator[Reader]:
    """Have the volume on a host for the length of the block: one with a replica, of BRIDGE_LIST where there is one.

    `known` is where the volume is, if that was asked before. Raises NotFound where LINSTOR has no such volume.
    """
    there = replicas.of(gateway, resource) if known is None else known
    holders = [replica.node for replica in there if replica.holds_data]
    if not holders:
        raise NotFound(f"LINSTOR has no replica of {resource}: see `linstor resource list -r {resource}`")
    node = new_volume.choose_copier(gateway.settings, holders, resource, holders)
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
    settings = gateway.settings
    locks = settings_room.lock_directory(settings)
    with shared_guest(locks, resource, node) as guest:
        with volume_lock(locks, resource, settings.lock_timeout_seconds):
            # LINSTOR answers alike for a tie-breaker, which becomes one again, and for another VM's attachment.
            here = [item for item in replicas.of(gateway, resource) if item.node.lower() == node.lower()]
            replicas.attach(gateway, resource, node)
            if all(item.is_tie_breaker for item in here):
                guest.note_attached()
        try:
            yield
        finally:
            if guest.may_detach():
                _detach(gateway, resource, node)


def _detach(gateway: Gateway, resource: str, node: str) -> None:
    """Detach the volume unless a VM has got it on this node meanwhile, which nothing would attach again."""
    settings = gateway.settings
    with volume_lock(settings_room.lock_directory(settings), resource, settings.lock_timeout_seconds):
        if not devices.is_linked(runner.host(node, settings), drbd_device(resource), settings.datastore_location):
            replicas.detach(gateway, resource, node)
