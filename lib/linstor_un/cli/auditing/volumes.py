"""Volumes that one side has and the other does not, or that say something else of themselves than oned does."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Optional

from linstor_un.cli.auditing import backups
from linstor_un.cli.auditing.finding import ASK, NAME, SAFE, Finding, Repair, View
from linstor_un.cli.inventory import CHECKPOINT, DISK, Wanted
from linstor_un.cluster import volumes
from linstor_un.cluster.volumes import Volume
from linstor_un.units import KIB_PER_MIB


def examine(view: View) -> Iterator[Finding]:
    """Yield what is wrong with volumes as such."""
    for key, volume in view.cluster.volumes.items():
        if view.is_busy(volume):
            continue
        wanted = view.wanted.get(key)
        if volume.is_being_deleted:
            yield from _being_deleted(view, volume, wanted)
        elif wanted is None:
            yield from _unknown(view, volume)
        elif wanted.is_settled:
            yield from _known(view, volume, wanted)
    for key, wanted in view.wanted.items():
        is_held = view.inventory.names.first_name(key).lower() in view.held
        if wanted.is_settled and wanted.is_required and key not in view.cluster.volumes and not is_held:
            yield _missing(wanted)


def _missing(wanted: Wanted) -> Finding:
    text = (
        f"OpenNebula's {wanted.label} is volume {wanted.resource}, which LINSTOR does not have: restore it from a "
        "backup under this name, or delete what OpenNebula has of it"
    )
    return Finding("missing-volume", wanted.resource, "", text, wanted.resource)


def _being_deleted(view: View, volume: Volume, wanted: Optional[Wanted]) -> Iterator[Finding]:
    names, resource = view.inventory.names, volume.resource
    by_name = (names.image_id_of(resource), names.vm_id_of(resource), names.backup_copy_vm_id_of(resource))
    is_ours = wanted is not None or by_name != (None, None, None)
    if not is_ours or names.is_foreign(volume.properties):
        return
    away = [item.node for item in view.cluster.placed(resource) if not view.cluster.is_online(item.node)]
    if away:
        remedy = f"it goes when {', '.join(away)} is back, or is given up with `linstor node lost`"
        yield Finding("stuck-deleting", resource, "", f"{resource} is being deleted: {remedy}", resource)
        return
    repair = Repair(
        f"delete volume {resource} once more",
        "it was already told to go, and all its nodes answer",
        SAFE,
        partial(volumes.remove, view.site.gateway, resource),
    )
    yield Finding("stuck-deleting", resource, "", f"{resource} has stayed while it was deleted", resource, repair)


def _unknown(view: View, volume: Volume) -> Iterator[Finding]:
    """Judge a volume that oned's database does not speak of, and that is ours by its name."""
    names, resource = view.inventory.names, volume.resource
    image_id, vm_id = names.image_id_of(resource), names.vm_id_of(resource)
    passing_id, copied_vm_id = names.passing_image_id_of(resource), names.backup_copy_vm_id_of(resource)
    if image_id is vm_id is passing_id is copied_vm_id is None or names.is_foreign(volume.properties):
        return
    if len(view.inventory.sites) > 1 and view.inventory.is_wanted_anywhere(resource):
        return
    number = image_id if passing_id is None else passing_id
    image = view.inventory.database.images.get(number) if number is not None else None
    machine = view.inventory.database.machines.get(vm_id) if vm_id is not None else None
    if (image and not image.is_settled) or (machine and not machine.is_settled):
        return
    if vm_id is not None and names.first_name(resource).lower() == names.checkpoint(vm_id).lower():
        yield _checkpoint(view, volume, machine is not None and machine.is_running)
    elif copied_vm_id is not None and names.says_whose(volume.properties):
        yield from _copy(view, volume, copied_vm_id)
    elif names.incomplete in volume.properties:
        yield _half_made(view, volume)
    elif not names.says_whose(volume.properties):
        text = f"{resource} has a name of ours, does not say whose it is, and OpenNebula knows no such volume"
        yield _deletable("unclaimed", view, volume, text)
    elif image_id is not None:
        whose = f"OpenNebula's {image.label} has no volume" if image else f"OpenNebula has no image {image_id}"
        yield _deletable("orphan-image", view, volume, f"{resource} is left over: {whose}")
    elif machine is not None:
        yield _deletable("orphan-disk", view, volume, f"{resource} is left over: {machine.label} has no such disk")
    else:
        yield _deletable("orphan-disk", view, volume, f"{resource} is left over: OpenNebula has no VM {vm_id}")


def _checkpoint(view: View, volume: Volume, is_stale: bool) -> Finding:
    if not is_stale:
        text = f"{volume.resource} is the memory of a VM that OpenNebula does not have as suspended or stopped"
        return _deletable("orphan-checkpoint", view, volume, text)
    text = f"{volume.resource} is a memory from before: its VM runs"
    reason = "a VM that runs has its memory, and what it had before can be resumed no more"
    return _deletable("stale-checkpoint", view, volume, text, SAFE, reason)


def _half_made(view: View, volume: Volume) -> Finding:
    whom = f" for {' '.join(view.marked_for(volume))}" if view.marked_for(volume) else ""
    if view.maker_may_live(volume):
        text = f"{volume.resource} is half made{whom} by an action of another front-end, which may still run"
        return _deletable("half-made", view, volume, text, ASK, "its content never was complete")
    text = f"{volume.resource} is half made{whom}: the action that filled it has ended before it was complete"
    return _deletable("half-made", view, volume, text, SAFE, "its content never was complete, and nobody makes it")


def _copy(view: View, volume: Volume, vm_id: int) -> Iterator[Finding]:
    """Judge what a backup of the VM has made of a snapshot in order to read it."""
    if backups.is_under_way(view, vm_id):
        return
    text = f"{volume.resource} was made for a backup of VM {vm_id} to read a snapshot"
    reason = "the backup has ended, and it is a copy of what a snapshot had"
    if view.maker_may_live(volume):
        yield _deletable("left-copy", view, volume, f"{text}, on another front-end, which may still run", ASK, reason)
    else:
        yield _deletable("left-copy", view, volume, f"{text}, and is left over", SAFE, reason)


def _deletable(
    kind: str, view: View, volume: Volume, text: str, consent: str = NAME, reason: str = "OpenNebula has no use for it"
) -> Finding:
    resource, users = volume.resource, view.users(volume.resource)
    if users:
        text = f"{text}, and it is open on {', '.join(users)}: find out by whom (`drbdsetup status`, `fuser`)"
        return Finding(kind, resource, "", text, resource)
    if consent == NAME:
        text = f"{text}; if nothing needs its data: `linstor-un audit --repair --delete {resource}`"
    make = partial(volumes.remove, view.site.gateway, resource)
    return Finding(kind, resource, "", text, resource, Repair(f"delete volume {resource}", reason, consent, make))


def _known(view: View, volume: Volume, wanted: Wanted) -> Iterator[Finding]:
    if wanted.kind == CHECKPOINT:
        return
    resource = volume.resource
    if view.inventory.names.incomplete in volume.properties and wanted.is_required:
        text = (
            f"{resource} of {wanted.label} is marked as incomplete: an action was ended while it filled it; compare "
            "its content, and make the image or VM anew where it is not whole"
        )
        yield Finding("incomplete", resource, "", text, resource)
    yield from _owner(view, volume, wanted)
    holders = [item.replica for item in view.cluster.placed(resource) if item.replica.holds_data]
    if not holders and wanted.is_required:
        text = f"{resource} of {wanted.label} has no replica: restore it from a backup, or delete what OpenNebula has"
        yield Finding("no-replica", resource, "", text, resource)
    sizes = [item.usable_size_kib for item in holders if item.usable_size_kib > 0]
    if sizes and min(sizes) < wanted.size_mib * KIB_PER_MIB:
        yield _too_small(view, wanted, resource, min(sizes) // KIB_PER_MIB)


def _too_small(view: View, wanted: Wanted, resource: str, size_mib: int) -> Finding:
    text = f"{resource} has {size_mib} MiB, and OpenNebula gives {wanted.label} {wanted.size_mib} MiB"
    repair = Repair(
        f"grow {resource} to {wanted.size_mib} MiB",
        "what OpenNebula has promised must be there; nothing that is there changes",
        ASK,
        partial(volumes.grow, view.site.gateway, resource, wanted.size_mib),
    )
    return Finding("too-small", resource, "", text, resource, repair)


def _owner(view: View, volume: Volume, wanted: Wanted) -> Iterator[Finding]:
    """Compare what the volume says of its owner; images need not say anything, as the driver's earlier ones do not."""
    names, resource = view.inventory.names, volume.resource
    is_ours_to_say = wanted.kind == DISK
    said = {key: volume.properties.get(key) for key in wanted.owner}
    wrong = {key: value for key, value in said.items() if value not in (None, wanted.owner[key])}
    if {key for key in wrong if key != names.datastore_id}:
        shown = ", ".join(f"{key}={value}" for key, value in sorted(wrong.items()))
        text = (
            f"{resource} is that of {wanted.label} and says that it is another's ({shown}): find out whose data it is, "
            "and correct the property or the image"
        )
        yield Finding("wrong-owner", resource, "", text, resource)
    elif is_ours_to_say and any(said[key] != value for key, value in wanted.owner.items()):
        what = "another system datastore" if wrong else "nobody"
        text = f"{resource} of {wanted.label} names {what} in its properties"
        make = partial(view.site.gateway.modify_resource_definition, resource, dict(wanted.owner))
        reason = "OpenNebula's database says whose it is; without it the VM's end would leave it behind"
        repair = Repair(f"say in {resource} whose it is", reason, SAFE, make)
        yield Finding("unsaid-owner", resource, "", text, resource, repair)
