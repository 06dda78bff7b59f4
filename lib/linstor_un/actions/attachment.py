"""Attaching a volume for an action that may still fail, and then takes that back."""

from __future__ import annotations

from typing import Callable, Optional

from linstor_un.cluster import replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.undo import Undo


def attach(gateway: Gateway, undo: Undo, resource: str, node: str, is_needed: Callable[[], bool]) -> None:
    """Attach `resource` on `node`; undoing detaches it unless it was attached before.

    Where the answer gets lost nobody says whether it was: `is_needed` then tells whether something there relies on it.
    """
    is_new: Optional[bool] = None

    def take_back() -> None:
        if is_new or (is_new is None and not is_needed()):
            replicas.detach(gateway, resource, node)

    undo.push(f"attachment of {resource} on {node}", take_back)
    is_new = replicas.attach(gateway, resource, node)
