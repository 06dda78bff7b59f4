"""What can be wrong in the estate of the tests, one thing at a time, and what `audit` must say of it."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple

from linstor_sandbox.drbd import diskless_pool, new_resource
from linstor_sandbox.model import Filter, Resource, ResourceDefinition, ResourceGroup
from linstor_sandbox.opennebula import LcmState, VmState
from linstor_sandbox.seeding import take
from linstor_un.actions import new_volume
from linstor_un.cluster import placement as placements
from linstor_un.settings import Settings
from tests.linstor_un.cli.clouds import MIB, Estate

TWO_PRIMARIES = {"DrbdOptions/Net/allow-two-primaries": "yes", "DrbdOptions/Net/protocol": "C"}
TIE_BREAKER = "DrbdOptions/auto-add-quorum-tiebreaker"
# No process has this number: /proc/sys/kernel/pid_max is at most 2^22.
DEAD = f"{new_volume.mark().split(':')[0]}:{1 << 23}:{time.time_ns()}"
ELSEWHERE = f"another-front-end:1:{time.time_ns()}"


class Planted(NamedTuple):
    """Something wrong: what it must be called, where, and what a repair of it needs (empty: there is none)."""

    title: str
    kind: str
    subject: str
    consent: str
    plant: Callable[[Estate], object]
    also: tuple[str, ...] = ()


def build(estate: Estate) -> None:
    """Image 0 is cloned, 1 is VM 0's own, 2 is in no use; VMs 0 on node1 and 1 on node2 run, the latter has migrated,
    2 is off on node3, 3 is stopped and its memory saved."""
    base, own, _ = estate.image(), estate.image(persistent=True, host="node1"), estate.image(persistent=True)
    estate.machine("node1", base, own)
    moved = estate.machine("node2", base, volatile=True)
    moved.place("node2", 1, estate.system)
    estate.machine("node3", base).become(VmState.POWEROFF)
    stopped = estate.machine("node4", base)
    stopped.become(VmState.STOPPED)
    estate.volume("one-vm-3-checkpoint", 3, VM_ID="3")
    estate.cloud.machines[-1].is_saved = True
    estate.sandbox.cluster.touch()


def definition(estate: Estate, name: str) -> ResourceDefinition:
    return estate.sandbox.definition(name)


def props(estate: Estate, name: str, **said: str) -> None:
    """Let a volume say Aux/one/<key>=<value> of itself, or nothing where the value is empty."""
    properties = definition(estate, name).props
    for key, value in said.items():
        properties.pop(f"Aux/one/{key}", None)
        if value:
            properties[f"Aux/one/{key}"] = value


def role_of(found: Resource) -> str:
    if found.tie_breaker:
        return "tie-breaker"
    return "attached" if found.diskless else "replica"


def resource(estate: Estate, name: str, role: str, number: int = 0) -> Resource:
    """A `replica`, the `attached` or the `tie-breaker` resource of a volume."""
    return [item for item in definition(estate, name).resources if role_of(item) == role][number]


def drop(estate: Estate, name: str, role: str, number: int = 0) -> Resource:
    """Take a resource of a volume away, as nobody has asked LINSTOR to."""
    found = resource(estate, name, role, number)
    definition(estate, name).resources.pop(found.node.name)
    found.pool.members.pop((definition(estate, name).uuid, 0), None)
    return found


def attach(estate: Estate, name: str) -> None:
    """Attach a volume where it is not."""
    known = definition(estate, name)
    node = next(node for node in estate.sandbox.cluster.nodes if node.name not in known.resources)
    made = new_resource(known, node, diskless_pool(node), ["DRBD", "STORAGE"], {"DISKLESS", "DRBD_DISKLESS"})
    made.deployed, made.volume_uuids = True, {0: made.uuid}


def flag(estate: Estate, name: str, *flags: str, role: str = "replica") -> None:
    resource(estate, name, role).flags.update(flags)


def snapshot(estate: Estate, volume: str, name: str, *flags: str) -> None:
    made = take(estate.sandbox, definition(estate, volume), name)
    if flags:
        made.flags = set(flags)


def make(name: str, **said: str) -> Callable[[Estate], object]:
    return lambda estate: estate.volume(name, 0, **said)


def both(*steps: Callable[[Estate], object]) -> Callable[[Estate], object]:
    return lambda estate: [step(estate) for step in steps]


def know_snapshot(estate: Estate, identifier: int) -> None:
    """oned knows a snapshot of disk 0 of VM 0."""
    vm = estate.cloud.machines[0]
    known = vm.snapshots_of(vm.disk(0))
    known.allow_orphans, known.next_id = "YES", identifier
    known.create("mine", MIB)


def chain(estate: Estate, last: int, vm_id: int = 0) -> None:
    """A VM is backed up by increments, the last of which has this id."""
    config = {"MODE": "INCREMENT", "LAST_INCREMENT_ID": str(last), "INCREMENTAL_BACKUP_ID": "50"}
    estate.cloud.machines[vm_id].backups.config.update(config)


def half_gone(estate: Estate) -> None:
    """There was one replica more, which does not go."""
    known = definition(estate, D0)
    node = next(node for node in estate.sandbox.cluster.nodes if node.name not in known.resources)
    made = new_resource(known, node, node.pools["data"], ["DRBD", "STORAGE"], {"DELETE", "DRBD_DELETE"})
    made.deployed, made.volume_uuids = True, {0: made.uuid}


def open_volume(estate: Estate, name: str, node: str) -> None:
    """Have somebody open a volume on a node that has a replica."""
    estate.sandbox.satellites.refresh(definition(estate, name))
    estate.sandbox.open(node, name)


def stuck(estate: Estate) -> None:
    """A volume that was told to go has stayed."""
    estate.volume("one-image-79", 0, IMAGE_ID="79")
    definition(estate, "one-image-79").flags.add("DELETE")
    for item in definition(estate, "one-image-79").resources:
        item.flags |= {"DELETE", "DRBD_DELETE"}


def outdated(estate: Estate, name: str, count: int) -> None:
    for number in range(count):
        estate.sandbox.set_disk_state(name, resource(estate, name, "replica", number).node.name, "Outdated")


def pair(estate: Estate, name: str) -> None:
    nodes = [item.node.name.upper() for item in definition(estate, name).resources][:2]
    definition(estate, name).connections[frozenset(nodes)] = dict(TWO_PRIMARIES)


def move(estate: Estate) -> None:
    """VM 1, whose two disks are on node2, is on node4."""
    estate.cloud.machines[1].place("node4", 3, estate.system)


D0 = "one-vm-0-disk-0"
# The group of both of the estate's datastores.
_PLACED = placements.of(Settings(storage_pools=("data",), replica_count=2), "its datastores")


def narrow(estate: Estate) -> None:
    said = Filter.parse({**_PLACED.select_filter, "node_name_list": ["node1", "node2"]})
    estate.sandbox.cluster.groups[_PLACED.group] = ResourceGroup(_PLACED.group, "", said)


ON_LINSTOR = (
    Planted(
        "an image's volume without image", "orphan-image", "one-image-77", "name", make("one-image-77", IMAGE_ID="77")
    ),
    Planted("a VM's disk without VM", "orphan-disk", "one-vm-77-disk-0", "name", make("one-vm-77-disk-0", VM_ID="77")),
    Planted(
        "a disk that its VM does not have", "orphan-disk", "one-vm-0-disk-9", "name", make("one-vm-0-disk-9", VM_ID="0")
    ),
    Planted(
        "an image that was filled half",
        "half-made",
        "one-image-78",
        "safe",
        make("one-image-78", IMAGE_ID="78", INCOMPLETE=DEAD, MADE_BY=DEAD),
    ),
    Planted(
        "a disk that was copied half",
        "half-made",
        "one-vm-78-disk-0",
        "safe",
        make("one-vm-78-disk-0", VM_ID="78", INCOMPLETE=DEAD),
    ),
    Planted(
        "a disk of a VM that lives, made half",
        "half-made",
        "one-vm-0-disk-7",
        "safe",
        make("one-vm-0-disk-7", VM_ID="0", INCOMPLETE=DEAD),
    ),
    Planted(
        "what passed a snapshot on",
        "half-made",
        "one-image-0-saved",
        "safe",
        make("one-image-0-saved", IMAGE_ID="0", INCOMPLETE=f"{DEAD} 0"),
    ),
    Planted(
        "half made by another front-end",
        "half-made",
        "one-image-79",
        "ask",
        make("one-image-79", IMAGE_ID="79", INCOMPLETE=ELSEWHERE),
    ),
    Planted("a name of ours that says nothing", "unclaimed", "one-vm-79-disk-0", "name", make("one-vm-79-disk-0")),
    Planted(
        "the memory of a VM that runs",
        "stale-checkpoint",
        "one-vm-0-checkpoint",
        "safe",
        make("one-vm-0-checkpoint", VM_ID="0"),
    ),
    Planted(
        "the memory of no VM",
        "orphan-checkpoint",
        "one-vm-77-checkpoint",
        "name",
        make("one-vm-77-checkpoint", VM_ID="77"),
    ),
    Planted(
        "an image without volume",
        "missing-volume",
        "one-image-2",
        "",
        lambda e: e.sandbox.cluster.definitions.pop("one-image-2"),
    ),
    Planted("a disk without volume", "missing-volume", D0, "", lambda e: e.sandbox.cluster.definitions.pop(D0)),
    Planted("a volume that does not go", "stuck-deleting", "one-image-79", "safe", stuck),
    Planted(
        "one that waits for a node",
        "stuck-deleting",
        "one-image-79",
        "",
        both(stuck, lambda e: e.sandbox.set_node("node2", online=False)),
        ("node-away",),
    ),
    Planted("another VM's disk", "wrong-owner", D0, "", lambda e: props(e, D0, VM_ID="99")),
    Planted(
        "an earlier image of that id", "wrong-owner", "one-image-2", "", lambda e: props(e, "one-image-2", REGTIME="1")
    ),
    Planted("a disk that says nothing", "unsaid-owner", D0, "safe", lambda e: props(e, D0, VM_ID="")),
    Planted("a disk in an earlier datastore", "unsaid-owner", D0, "safe", lambda e: props(e, D0, DS_ID="99")),
    Planted(
        "a disk smaller than promised",
        "too-small",
        D0,
        "ask",
        lambda e: e.cloud.machines[0].disk(0).attributes.update(SIZE=str(2 * MIB)),
    ),
    Planted("a disk marked as incomplete", "incomplete", D0, "", lambda e: props(e, D0, INCOMPLETE=DEAD)),
    Planted(
        "a volume that is only a name",
        "no-replica",
        D0,
        "",
        lambda e: [drop(e, D0, role) for role in ("replica", "replica", "tie-breaker")],
        ("not-attached",),
    ),
    Planted("one replica of two", "few-replicas", D0, "safe", lambda e: drop(e, D0, "replica", 1)),
    Planted("a group for a few nodes", "narrow-group", _PLACED.group, "ask", narrow),
    Planted("no tie-breaker", "no-tie-breaker", D0, "safe", lambda e: drop(e, D0, "tie-breaker")),
    Planted(
        "a tie-breaker deleted by hand",
        "no-tie-breaker",
        D0,
        "ask",
        lambda e: (drop(e, D0, "tie-breaker"), definition(e, D0).props.update({TIE_BREAKER: "False"})),
    ),
    Planted("attached for nobody", "unused-diskless", D0, "safe", lambda e: attach(e, D0)),
    Planted(
        "an image attached for nobody", "unused-diskless", "one-image-2", "safe", lambda e: attach(e, "one-image-2")
    ),
    Planted("open where no VM is", "open-elsewhere", D0, "", lambda e: open_volume(e, D0, "node2")),
    Planted("not there where its VM is", "not-attached", "one-vm-1-disk-0", "ask", move, ("not-attached",)),
    Planted(
        "two primaries everywhere", "two-primaries", D0, "safe", lambda e: definition(e, D0).props.update(TWO_PRIMARIES)
    ),
    Planted(
        "two primaries on two nodes", "two-primaries", "one-vm-1-disk-0", "safe", lambda e: pair(e, "one-vm-1-disk-0")
    ),
    Planted("a replica that does not go", "stuck-deleting", D0, "safe", half_gone),
    Planted("an outdated replica", "not-up-to-date", D0, "", lambda e: outdated(e, D0, 1)),
    Planted(
        "no good replica", "no-good-copy", D0, "", lambda e: outdated(e, D0, 2), ("not-up-to-date", "not-up-to-date")
    ),
    Planted("a replica taken down", "inactive", D0, "", lambda e: flag(e, D0, "INACTIVE"), ("few-replicas",)),
    Planted("a node that is away", "node-away", "node4", "", lambda e: e.sandbox.set_node("node4", online=False)),
    Planted(
        "a snapshot that only LINSTOR has",
        "unknown-snapshot",
        f"{D0}/snapshot-5",
        "ask",
        lambda e: snapshot(e, D0, "snapshot-5"),
    ),
    Planted(
        "a snapshot that only OpenNebula has", "missing-snapshot", f"{D0}/snapshot-3", "", lambda e: know_snapshot(e, 3)
    ),
    Planted(
        "a snapshot that has failed",
        "failed-snapshot",
        f"{D0}/snapshot-6",
        "safe",
        lambda e: snapshot(e, D0, "snapshot-6", "FAILED_DEPLOYMENT"),
    ),
    Planted(
        "a failed one that OpenNebula believes in",
        "failed-snapshot",
        f"{D0}/snapshot-3",
        "",
        both(lambda e: know_snapshot(e, 3), lambda e: snapshot(e, D0, "snapshot-3", "FAILED_DISCONNECT")),
    ),
    Planted(
        "taken to be saved, and left",
        "left-snapshot",
        f"{D0}/save-as-one-image-88",
        "safe",
        lambda e: snapshot(e, D0, "save-as-one-image-88"),
    ),
    Planted(
        "a base of what is written to",
        "left-snapshot",
        "one-image-1/linstor_un-base",
        "safe",
        lambda e: snapshot(e, "one-image-1", "linstor_un-base"),
    ),
    Planted(
        "a base of a VM's disk",
        "left-snapshot",
        f"{D0}/linstor_un-base",
        "safe",
        lambda e: snapshot(e, D0, "linstor_un-base"),
    ),
    Planted(
        "kept by backups of a VM that is no more",
        "left-snapshot",
        "one-image-1/backup-77-3-1795000000-64",
        "safe",
        lambda e: snapshot(e, "one-image-1", "backup-77-3-1795000000-64"),
    ),
    Planted(
        "kept for a chain that its VM no longer has",
        "left-snapshot",
        f"{D0}/backup-0-3-1795000000-64",
        "safe",
        lambda e: snapshot(e, D0, "backup-0-3-1795000000-64"),
    ),
    Planted(
        "kept by a backup that has failed",
        "left-snapshot",
        f"{D0}/backup-0-4-1795000000-64",
        "safe",
        both(lambda e: chain(e, 3), lambda e: snapshot(e, D0, "backup-0-4-1795000000-64")),
    ),
    Planted(
        "one for an increment that has failed",
        "failed-snapshot",
        f"{D0}/backup-0-3-1795000000-64",
        "safe",
        both(lambda e: chain(e, 3), lambda e: snapshot(e, D0, "backup-0-3-1795000000-64", "FAILED_DEPLOYMENT")),
    ),
    Planted(
        "what was there before a restore",
        "left-snapshot",
        f"{D0}/restore-0",
        "ask",
        lambda e: snapshot(e, D0, "restore-0"),
    ),
    Planted(
        "what was there before a restore of a VM that is no more",
        "left-snapshot",
        "one-image-1/restore-77",
        "ask",
        lambda e: snapshot(e, "one-image-1", "restore-77"),
    ),
    Planted(
        "what a backup has read",
        "left-copy",
        "one-vm-0-disk-0-backup",
        "safe",
        make("one-vm-0-disk-0-backup", VM_ID="0", INCOMPLETE=DEAD, MADE_BY=DEAD),
    ),
    Planted(
        "what a backup of a VM that is no more has compared",
        "left-copy",
        "one-vm-77-disk-0-earlier",
        "safe",
        make("one-vm-77-disk-0-earlier", VM_ID="77", INCOMPLETE=DEAD),
    ),
    Planted(
        "what a backup of another front-end has read",
        "left-copy",
        "one-vm-0-disk-0-backup",
        "ask",
        make("one-vm-0-disk-0-backup", VM_ID="0", INCOMPLETE=ELSEWHERE),
    ),
    Planted(
        "a name of a backup's that says nothing",
        "unclaimed",
        "one-vm-0-disk-0-backup",
        "name",
        make("one-vm-0-disk-0-backup"),
    ),
    Planted(
        "what a backup has read and does not go",
        "stuck-deleting",
        "one-vm-0-disk-0-backup",
        "safe",
        both(
            make("one-vm-0-disk-0-backup", VM_ID="0"),
            lambda e: definition(e, "one-vm-0-disk-0-backup").flags.add("DELETE"),
        ),
    ),
    Planted(
        "a snapshot that does not go",
        "stuck-deleting",
        f"{D0}/snapshot-7",
        "safe",
        lambda e: snapshot(e, D0, "snapshot-7", "DELETE"),
    ),
)


def unlink(estate: Estate, vm_id: int) -> None:
    (estate.directory(estate.cloud.machines[vm_id]) / "disk.0").unlink()


def leave(estate: Estate, name: str, vm_id: int) -> None:
    """A directory of a VM on node2, with a link or a file."""
    directory = estate.sandbox.host("node2") / f"var/lib/one/datastores/{estate.system.identifier}/{vm_id}"
    directory.mkdir(parents=True)
    target = estate.sandbox.host("node2") / "dev/drbd/by-res/one-vm-77-disk-0/0"
    (directory / name).symlink_to(target) if name.startswith("disk") else (directory / name).write_text("kept")


def strange_device(estate: Estate) -> None:
    device = estate.sandbox.host("node2") / "dev/drbd/by-res/one-vm-77-disk-0/0"
    device.parent.mkdir(parents=True, exist_ok=True)
    device.write_text("")


ON_HOSTS = (
    Planted("a link that is gone", "no-link", "node1:100/0/disk.0", "safe", lambda e: unlink(e, 0)),
    Planted(
        "a link to another volume",
        "wrong-link",
        "node1:100/0/disk.0",
        "",
        lambda e: e.link(e.cloud.machines[0], 0, "one-image-0"),
    ),
    Planted(
        "a link without device",
        "no-device",
        "node1:100/0/disk.0",
        "ask",
        lambda e: (e.sandbox.host("node1") / f"dev/drbd/by-res/{D0}/0").unlink(),
    ),
    Planted(
        "links of a VM that is no more", "left-directory", "node2:100/77", "safe", lambda e: leave(e, "disk.0", 77)
    ),
    Planted(
        "files of a VM that is no more", "left-directory", "node2:100/77", "ask", lambda e: leave(e, "deployment.0", 77)
    ),
    Planted(
        "links of a VM that is elsewhere", "left-directory", "node2:100/0", "safe", lambda e: leave(e, "disk.0", 0)
    ),
    Planted(
        "a device that LINSTOR does not know",
        "unknown-device",
        "node2:/dev/drbd/by-res/one-vm-77-disk-0/0",
        "",
        strange_device,
    ),
    Planted("a host that does not answer", "host-away", "node2", "", lambda e: e.sandbox.set_ssh("node2", "refuse")),
)


def not_wrong(estate: Estate) -> None:
    """All that is not ours, or that an action is working on."""
    alive = new_volume.mark()
    estate.volume("two-image-1", 0)
    estate.volume("two-vm-1-disk-0", 0)
    estate.volume("backup", 0)
    estate.volume("OpenNebula-Image-5", 0)
    other = estate.volume("one-image-90", 0)
    other.props.update({"Aux/two/IMAGE_ID": "90"})
    estate.volume("one-image-91", 0, IMAGE_ID="91", INCOMPLETE=alive, MADE_BY=alive)
    estate.volume("one-vm-92-disk-0", 0, VM_ID="92", MADE_BY=alive)
    starting = estate.machine("node4", estate.cloud.images[0], volatile=True)
    starting.become(VmState.ACTIVE, LcmState.PROLOG)
    estate.sandbox.cluster.definitions.pop(f"one-vm-{starting.identifier}-disk-0")
    moving = estate.machine("node4", estate.cloud.images[0])
    moving.place("node1", 0, estate.system)
    moving.become(VmState.ACTIVE, LcmState.MIGRATE)
    pair(estate, f"one-vm-{moving.identifier}-disk-0")
    returning = estate.machine("node4", estate.cloud.images[0])
    attach(estate, f"one-vm-{returning.identifier}-disk-0")
    returning.place("node1", 0, estate.system)
    returning.become(VmState.ACTIVE, LcmState.PROLOG_MIGRATE_FAILURE)
    backups(estate)
    snapshot(estate, D0, "daily-1")
    snapshot(estate, D0, "daily-2", "FAILED_DEPLOYMENT")
    know_snapshot(estate, 2)
    snapshot(estate, D0, "snapshot-2")


def backups(estate: Estate) -> None:
    """A VM whose chain goes on, one that is backed up now, and one that is restored now."""
    chain(estate, 3)
    for name in ("backup-0-2-1795000000-64", "backup-0-3-1795000001-64"):
        snapshot(estate, D0, name)
    for lcm_state, taken in ((LcmState.BACKUP, "backup-{}-0-1795000000-64"), (LcmState.RESTORE, "restore-{}")):
        vm = estate.machine("node4", estate.cloud.images[0])
        vm.become(VmState.ACTIVE, lcm_state)
        disk = f"one-vm-{vm.identifier}-disk-0"
        snapshot(estate, disk, taken.format(vm.identifier))
        estate.volume(f"{disk}-backup", 0, VM_ID=str(vm.identifier), INCOMPLETE=DEAD)
    # Whoever holds the lock may be another one than oned knows of: a backup that it has given up on.
    estate.volume("one-vm-94-disk-0-backup", 0, VM_ID="94", INCOMPLETE=DEAD)
    snapshot(estate, "one-image-1", "backup-94-0-1795000000-64")
