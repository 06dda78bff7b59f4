"""datastore/snap_delete: delete a snapshot of an image."""

from __future__ import annotations

from linstor_un.actions import image_snapshot
from linstor_un.cluster import snapshots
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Delete the snapshot that IMAGE/TARGET_SNAPSHOT names; absent is done."""
    wanted = image_snapshot.begin(call)
    with wanted.lock():
        snapshots.delete(wanted.gateway, wanted.resource, wanted.name)
