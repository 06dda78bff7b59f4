"""Snapshots that one side does not know, that have failed, or that an action has left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Optional

from linstor_un.cli.auditing import backups
from linstor_un.cli.auditing.backups import Left
from linstor_un.cli.auditing.finding import ASK, SAFE, Finding, Repair, View
from linstor_un.cli.inventory import IMAGE, Wanted
from linstor_un.cluster import snapshots
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.naming import BASE_SNAPSHOT, snapshot_vm_id_of


def examine(view: View) -> Iterator[Finding]:
    """Yield what is wrong with the snapshots of volumes that oned's database speaks of."""
    for key, wanted in view.wanted.items():
        volume = view.cluster.volumes.get(key)
        if volume is None or not wanted.is_settled or volume.is_being_deleted or view.is_busy(volume):
            continue
        there = view.cluster.snapshots_of(key)
        for snapshot in there:
            vm_id = snapshot_vm_id_of(snapshot.name)
            if vm_id is None or not backups.is_under_way(view, vm_id):
                yield from _judge(view, wanted, snapshot)
        names = {item.name.lower() for item in there}
        for number in sorted(wanted.snapshot_ids):
            if view.inventory.names.snapshot(number, wanted.resource).lower() not in names:
                yield _missing(wanted, number)


def _missing(wanted: Wanted, number: int) -> Finding:
    text = f"OpenNebula's snapshot {number} of {wanted.label} is not in LINSTOR: delete it in OpenNebula"
    return Finding("missing-snapshot", f"{wanted.resource}/snapshot-{number}", "", text, wanted.resource)


def _judge(view: View, wanted: Wanted, snapshot: Snapshot) -> Iterator[Finding]:
    names = view.inventory.names
    number, saved_id = names.snapshot_id_of(snapshot.name), names.saved_image_id_of(snapshot.name)
    is_known = number in wanted.known_snapshot_ids
    if "DELETE" in snapshot.flags:
        yield _being_deleted(view, wanted, snapshot)
    elif not snapshot.is_usable and is_known:
        text = f"snapshot {number} of {wanted.label} cannot be used: it has failed; delete it in OpenNebula"
        yield Finding("failed-snapshot", f"{wanted.resource}/{snapshot.name}", "", text, wanted.resource)
    elif not snapshot.is_usable and _is_ours(number, saved_id, snapshot):
        reason = "it has failed, nobody can use it, and it keeps its name"
        yield _deletable("failed-snapshot", view, wanted, snapshot, "has failed", SAFE, reason)
    elif number >= 0 and not is_known:
        reason = "nobody can reach it through OpenNebula, which gives no id twice"
        yield _deletable("unknown-snapshot", view, wanted, snapshot, "is unknown to OpenNebula", ASK, reason)
    else:
        left = _left(view, wanted, snapshot)
        if left is not None:
            yield _deletable("left-snapshot", view, wanted, snapshot, *left)


def _left(view: View, wanted: Wanted, snapshot: Snapshot) -> Optional[Left]:
    saved_id = view.inventory.names.saved_image_id_of(snapshot.name)
    if saved_id is not None and not _is_being_saved(view, saved_id):
        text = f"was taken to be saved as image {saved_id} and is left over"
        return Left(text, SAFE, "it is needed only while it is saved, and the disk that it was taken of is there")
    if snapshot.name.lower() == BASE_SNAPSHOT.lower() and _is_stale_base(wanted):
        text = "is older than what may have been written since: VMs must not be made of it"
        return Left(text, SAFE, "the next VM takes a new one")
    return backups.left(wanted, snapshot)


def _is_ours(number: int, saved_id: int | None, snapshot: Snapshot) -> bool:
    is_named = snapshot.name.lower() == BASE_SNAPSHOT.lower() or snapshot_vm_id_of(snapshot.name) is not None
    return number >= 0 or saved_id is not None or is_named


def _is_being_saved(view: View, image_id: int) -> bool:
    image = view.inventory.database.images.get(image_id)
    return image is not None and not image.is_settled


def _is_stale_base(wanted: Wanted) -> bool:
    """Tell whether a volume with a base snapshot is written to: a VM's disk, or a persistent image that a VM has."""
    if wanted.kind != IMAGE:
        return True
    return wanted.image is not None and wanted.image.is_persistent and bool(wanted.machines) and wanted.is_writable


def _being_deleted(view: View, wanted: Wanted, snapshot: Snapshot) -> Finding:
    away = [node for node in snapshot.nodes if not view.cluster.is_online(node)]
    if away:
        text = f"snapshot {snapshot.name} of {wanted.resource} is being deleted: it goes when {', '.join(away)} is back"
        return Finding("stuck-deleting", f"{wanted.resource}/{snapshot.name}", "", text, wanted.resource)
    reason = "it was already told to go, and all its nodes answer"
    return _deletable("stuck-deleting", view, wanted, snapshot, "has stayed while it was deleted", SAFE, reason)


def _deletable(
    kind: str, view: View, wanted: Wanted, snapshot: Snapshot, text: str, consent: str, reason: str
) -> Finding:
    resource, name = wanted.resource, snapshot.name
    what = f"delete snapshot {name} of {resource}"
    repair = Repair(what, reason, consent, partial(snapshots.forget, view.site.gateway, resource, name))
    return Finding(kind, f"{resource}/{name}", "", f"snapshot {name} of {wanted.label} {text}", resource, repair)
