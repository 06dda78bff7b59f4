"""datastore/snap_flatten: give an image the content of one of its snapshots and delete all of them."""

from __future__ import annotations

from linstor_un.actions import cloning, image_snapshot
from linstor_un.cluster import snapshots
from linstor_un.driver import Call


def run(call: Call) -> None:
    """Roll back to the snapshot that IMAGE/TARGET_SNAPSHOT names, then delete every snapshot that OpenNebula knows.

    Run again after a crash in between, the target may be gone: then the content is what it should be, since the target
    is deleted last.
    """
    wanted = image_snapshot.begin(call)
    names = [wanted.action.names.snapshot(number, wanted.resource) for number in wanted.snapshot_ids]
    with wanted.lock():
        there = {snapshot.name.lower() for snapshot in snapshots.of(wanted.gateway, wanted.resource)}
        if wanted.name.lower() not in there:
            wanted.refuse_unless_flattened(there & {name.lower() for name in names})
            wanted.detach()
            return
        snapshots.check_can_roll_back(wanted.gateway, wanted.action.names, wanted.resource, wanted.name)
        cloning.forget_base(wanted.gateway, wanted.resource)
        wanted.roll_back()
        for name in sorted(names, key=lambda item: item == wanted.name):
            snapshots.delete(wanted.gateway, wanted.resource, name)
