"""datastore/monitor: tell what the image datastore can still store."""

from __future__ import annotations

from linstor_un.actions import capacity, datastore_action
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Print USED_MB, TOTAL_MB and FREE_MB with the asked replicas."""
    call.answer(capacity.report(datastore_action.decode(call, image="none")))
