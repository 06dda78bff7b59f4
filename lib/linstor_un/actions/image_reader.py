"""Reading a volume that nobody writes to, on a node that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, Optional

from linstor_un import locks, log
from linstor_un.actions import new_volume
from linstor_un.cluster import replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.replicas import Replica
from linstor_un.errors import DriverError, NotFound
from linstor_un.hosts import devices, runner
from linstor_un.hosts.runner import Host
from linstor_un.locks import SharedGuest
from linstor_un.naming import drbd_device
from linstor_un.settings import lock_directory
from linstor_un.undo import undisturbed


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
    on = holders(there, resource)
    node = new_volume.choose_copier(gateway.settings, on, resource, on)
    with offered(gateway, resource, node, on):
        yield Reader(runner.host(node, gateway.settings), new_volume.device_among(there, resource))


def holders(known: Sequence[Replica], resource: str, purpose: str = "") -> list[str]:
    """Return the nodes with a replica; raises NotFound, whose sentence `purpose` is part of, where there is none."""
    found = [replica.node for replica in known if replica.holds_data]
    if not found:
        raise NotFound(f"LINSTOR has no replica of {resource}{purpose}: see `linstor resource list -r {resource}`")
    return found


@contextmanager
def offered(gateway: Gateway, resource: str, node: str, on: Sequence[str]) -> Iterator[None]:
    """Have the volume, whose replicas are `on` these nodes, on `node` for the length of the block."""
    if node.lower() in {holder.lower() for holder in on}:
        yield
        return
    settings = gateway.settings
    with locks.shared_guest(lock_directory(settings), resource, node, settings.lock_timeout_seconds) as guest:
        try:
            with locks.of_volume(settings, resource):
                # LINSTOR answers alike for a tie-breaker, which becomes one again, and for another VM's attachment.
                here = [item for item in replicas.of(gateway, resource) if item.node.lower() == node.lower()]
                if all(item.is_tie_breaker for item in here):
                    # Before it is: LINSTOR may do it and answer with an error, or not at all.
                    guest.note_attached()
                with undisturbed():
                    replicas.attach(gateway, resource, node)
            yield
            # In here, so that a signal that comes just before it is no way around it.
            _leave(gateway, guest, resource, node)
        except BaseException:
            # The reason for that must reach the user, not the failure to leave.
            with suppress(DriverError):
                _leave(gateway, guest, resource, node)
            raise


def _leave(gateway: Gateway, guest: SharedGuest, resource: str, node: str) -> None:
    """Detach the volume if nobody else reads it, and no VM has got it on this node: nothing would attach it again."""
    settings = gateway.settings
    # Whoever asks the action to stop meanwhile wants it gone too.
    with undisturbed():
        if not guest.may_detach():
            return
        try:
            with locks.of_volume(settings, resource):
                host = runner.host(node, settings)
                if not devices.is_linked(host, drbd_device(resource), settings.datastore_location):
                    replicas.detach(gateway, resource, node)
        except DriverError as failure:
            log.error(f"could not take back attachment of {resource} on {node}: {failure}")
            raise
