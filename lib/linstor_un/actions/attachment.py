"""Attaching a volume for an action that may still fail, and then takes that back; and what a rollback attaches."""

from __future__ import annotations

from typing import Callable, Optional

from linstor_un import log
from linstor_un.cluster import replicas, snapshots
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import DriverError
from linstor_un.undo import Undo


def attach(
    gateway: Gateway,
    undo: Undo,
    resource: str,
    node: str,
    is_needed: Callable[[], bool],
    may_lack_drbd: bool = False,
) -> None:
    """Attach `resource` on `node`; undoing detaches it unless it was attached before.

    Where the answer gets lost nobody says whether it was: `is_needed` then tells whether something there relies on it.
    `may_lack_drbd` and what is raised: as replicas.attach.
    """
    is_new: Optional[bool] = None

    def take_back() -> None:
        if is_new or (is_new is None and not is_needed()):
            replicas.detach(gateway, resource, node)

    undo.push(f"attachment of {resource} on {node}", take_back)
    is_new = replicas.attach(gateway, resource, node, may_lack_drbd=may_lack_drbd)


def roll_back(gateway: Gateway, resource: str, snapshot: str, detach: Callable[[], None]) -> None:
    """Roll `resource` back; where that fails, or its end is not known, `detach` what it has attached."""
    with Undo() as undo:
        undo.push(f"attachments of {resource} by the rollback", detach)
        snapshots.roll_back(gateway, resource, snapshot)


def detach_rolled_back(gateway: Gateway, resource: str, kept_node: str = "") -> None:
    """Make a tie-breaker again of what a rollback has attached; what fails is a warning: the content is changed."""
    try:
        replicas.detach_elsewhere(gateway, resource, kept_node)
    except DriverError as error:
        log.warning(f"{resource} may be attached where nobody needs it: {error}")
