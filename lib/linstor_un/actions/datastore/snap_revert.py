"""datastore/snap_revert: give an image the content of one of its snapshots; the others stay.

Unless OpenNebula forgets those that are younger (ALLOW_ORPHANS="LINEAR", from 7.0 on).
"""

from __future__ import annotations

from linstor_un.actions import cloning, image_snapshot
from linstor_un.cluster import snapshots
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Roll the image's volume back to the snapshot that IMAGE/TARGET_SNAPSHOT names."""
    wanted = image_snapshot.begin(call)
    with wanted.lock():
        snapshots.check_can_roll_back(wanted.gateway, wanted.action.names, wanted.resource, wanted.name)
        cloning.forget_base(wanted.gateway, wanted.resource)
        wanted.roll_back()
        if wanted.is_linear:
            snapshots.forget_younger(wanted.gateway, wanted.action.names, wanted.resource, wanted.name)
