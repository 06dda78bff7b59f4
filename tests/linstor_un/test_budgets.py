"""How much each action asks of LINSTOR, of hosts and of oned, held exactly.

The measure is linstor-contract.md, section 10, column n, plus the one request that every action begins with: it finds
the controller and its version. Where an action takes more than that the row says why. A row that beats its measure is
held as well: it must not get worse unseen.

Replicas are on node1 and node2 alone, so that node1 is a host with a replica and node3 one without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import VirtualMachine
from linstor_sandbox.opennebula.scripts import Call
from tests.conftest import SYSTEM_TEMPLATE, World
from tests.linstor_un.scenes import add_image, content

HOSTS = ("node1", "node2", "node3")


@dataclass(frozen=True)
class Cost:
    """What one run of an action took; `ssh` says how often each host was connected to."""

    verb: str
    rest: int
    ssh: tuple[str, ...] = ()
    oned: int = 1


# --- images: oned tells everything on stdin, and is not asked -----------------------------------------------------

# n 1: the spawn. Ours: and the mark of an incomplete volume goes when its content is complete.
CP_ON_A_HOLDER = Cost("cp", 3, ("holder",), 0)
MKFS = Cost("mkfs", 3, (), 0)
MKFS_FORMATTED = Cost("mkfs", 3, ("holder",), 0)
STAT = Cost("stat", 0, (), 0)
MONITOR = Cost("monitor", 2, (), 0)
# n 4: spawn, attach the source, copy, detach. Ours: on a holder of both; a look at the source, the spawn, the mark.
CLONE_IMAGE = Cost("clone", 4, ("holder",), 0)
# n 1: the deletion. Ours: and a look before it whose volume it is, because only our own is deleted, and one behind it
# whether it is gone, whatever LINSTOR has answered.
RM = Cost("rm", 4, (), 0)

# --- disks --------------------------------------------------------------------------------------------------------

# n 4 with a kept base snapshot: is there one, definition, its volume, its replicas.
CLONE = Cost("clone", 5, ("node1",))
# n 7: and the base snapshot. Ours, once per image: looked for, looked for again under the lock, the image's own tags
# taken off (trap 7), taken, and looked at (a success may be a partial one, trap 4).
FIRST_CLONE = Cost("clone", 9, ("node1",))
CLONE_AWAY = Cost("clone", 6, ("node3",))
# Ours: a disk that grows is looked at first, and the pools are asked whether they can promise it (trap 19).
CLONE_LARGER = Cost("clone", 8, ("node1",))
# n 1: attach. Ours: a disk that will be written to loses its image's base snapshot, which costs the second request.
LN_PERSISTENT = Cost("ln", 3, ("node1",))
LN_CDROM = Cost("ln", 2, ("node1",))
# n 1 or 2: spawn, attach. Ours: and the mark of an incomplete volume goes when it is formatted.
VOLATILE = (3, 4)
CONTEXT = Cost("context", 0, ("node1",), 0)
# n 2: the size, and a look before it (never shrink, finish what failed). Ours: and whether the pools can promise it,
# and which volume the VM's own disk has: its first name may be that of a volume that is being deleted.
RESIZE_RUNNING = Cost("resize", 5, ("node1",))
RESIZE_AT_REST = Cost("resize", 5, ())
RESIZE_NOTHING = Cost("resize", 3, ())

# --- moving: n 2 per disk ----------------------------------------------------------------------------------------

# Ours: and which volume the VM's own disk has.
MV_DISK = Cost("mv", 3, ("node3",))
# One look at all disks together (trap 2), nothing to detach from a host with replicas; one connection to each host.
MV_DIRECTORY_FROM_A_HOLDER = Cost("mv", 2, ("node1", "node3"))
# And one deletion per disk that was only attached there: two.
MV_DIRECTORY_FROM_A_GUEST = Cost("mv", 4, ("node3", "node1"))
PARK_DISK = Cost("mv", 0, ())
PARK_DIRECTORY = Cost("mv", 2, ("node1",))
RETURN_DISK = Cost("mv", 3, ("node1",))
RETURN_DIRECTORY = Cost("mv", 0, ("node1",))

# --- ending -------------------------------------------------------------------------------------------------------

# n 2: a look and a deletion where it was only attached.
MVDS = Cost("mvds", 2, ("node1",))
MVDS_AWAY = Cost("mvds", 3, ("node3",))
# n 1: the deletion. Ours: and a look before it and one behind it, as for an image.
DELETE_OWN = Cost("delete", 4, ("node1",))
DELETE_CDROM = Cost("delete", 2, ("node1",))
# n 1: the search for what the lines before have left.
DELETE_DIRECTORY = Cost("delete", 2, ("node1",))

# --- backups, of two disks ----------------------------------------------------------------------------------------

# Which volumes, copies and snapshots there are, all snapshots in one request and a look at them; for each disk a
# volume of its snapshot, which is defined, gets its size and its replica, is asked for its device, and is deleted as
# any volume is, and the snapshot. A connection for the directory, one while the guest is held, one for all files.
FULL_BACKUP = Cost("prebackup_live", 23, ("node1",) * 3)
# The snapshots stay.
FIRST_INCREMENT = Cost("prebackup_live", 21, ("node1",) * 3)
# And for each disk which node has both snapshots, and in which pool; that node says what has changed while the host
# writes it: two connections per disk, as no list of all that has changed is ever kept.
NEXT_INCREMENT = Cost("prebackup_live", 25, ("node1",) * 6)
# And the snapshots of the increment before the last go; no guest is held.
LATER_INCREMENT_AT_REST = Cost("prebackup", 27, ("node1",) * 5)
# Of one disk: the volume is attached where its replica is not.
FIRST_INCREMENT_AWAY = Cost("prebackup_live", 16, ("node3",) * 2)
NEXT_INCREMENT_AWAY = Cost("prebackup_live", 18, ("node1", "node3", "node3"))
# Is a volume left that was read? The files.
POSTBACKUP = (2, ("node1",))
# Only the image of the backup says in which datastore it is: oned is asked twice. For each disk: who has it open, what
# it has kept before, a snapshot and a look at it, attaching it, for writing and for its VM, and what is kept no longer.
# Connections: which are linked, and the links are back; for each disk the link goes, and the content comes.
RESTORE = Cost("restore", 23, ("node1",) * 6, 2)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world whose replicas are on node1 and node2, and that has its resource group already."""
    world = make_world(pools=(Pool("data", "LVM_THIN", 4096, ("node1", "node2")),))
    for host in HOSTS:
        world.cloud.scripts.meters[host] = lambda host=host: sum(  # type: ignore[misc]
            connection.host == host for connection in world.sandbox.connections
        )
    world.cloud.scripts.meters["oned"] = lambda: world.cloud.rpc.http_requests
    world.cloud.delete_image(world.cloud.create_datablock(world.images, 4))
    world.cloud.calls.clear()
    return world


def costs(world: World, holder: bool = False) -> list[Cost]:
    """What the calls since the last time took; `holder` stands for whichever host has a replica."""
    calls = list(world.cloud.calls)
    world.cloud.calls.clear()
    return [_cost(call, holder) for call in calls]


def _cost(call: Call, holder: bool) -> Cost:
    assert call.succeeded, call.stderr
    hosts = [host for host in HOSTS for _ in range(call.counts[host])]
    shown = ["holder" if holder and host in ("node1", "node2") else host for host in hosts]
    return Cost(call.verb, call.counts["rest"], tuple(shown), call.counts["oned"])


def one_ssh_each(*expected: Cost) -> list[Cost]:
    """The rows with their hosts in the order in which they are counted."""
    return [Cost(cost.verb, cost.rest, tuple(sorted(cost.ssh)), cost.oned) for cost in expected]


def start(world: World, template: str, host: str = "node1") -> VirtualMachine:
    return world.cloud.instantiate(template, host, world.system)


def test_images(world: World) -> None:
    path = world.file("image.raw", content(1))
    image = world.cloud.create_image(world.images, path)
    assert costs(world, holder=True) == [STAT, CP_ON_A_HOLDER, MONITOR]
    world.cloud.create_datablock(world.images, 4)
    assert costs(world) == [MKFS, MONITOR]
    world.cloud.create_datablock(world.images, 16, "ext4")
    assert costs(world, holder=True) == [MKFS_FORMATTED, MONITOR]
    world.cloud.clone_image(image)
    assert costs(world, holder=True) == [CLONE_IMAGE, MONITOR]
    world.cloud.delete_image(image)
    assert costs(world) == [RM, MONITOR]
    world.cloud.monitor(world.system)
    assert costs(world) == [MONITOR]


def test_clones(world: World) -> None:
    image = add_image(world)
    start(world, f"DISK=[IMAGE_ID={image.identifier}]")
    assert costs(world) == [FIRST_CLONE]
    start(world, f"DISK=[IMAGE_ID={image.identifier}]")
    start(world, f"DISK=[IMAGE_ID={image.identifier}]", "node3")
    start(world, f"DISK=[IMAGE_ID={image.identifier},SIZE=16]")
    assert costs(world) == [CLONE, CLONE_AWAY, CLONE_LARGER]


def test_a_clone_by_copy(world: World) -> None:
    image = add_image(world)
    copies = world.cloud.create_datastore(
        SYSTEM_TEMPLATE.replace('"snapshot"', '"copy"').replace("system", "copies", 1)
    )
    world.cloud.instantiate(f"DISK=[IMAGE_ID={image.identifier}]", "node1", copies)
    # n 5: spawn, where the source is, attach and detach it. Ours: the mark, and a host that has both: no attaching.
    assert [(cost.verb, cost.rest, cost.oned) for cost in costs(world)] == [("clone", 4, 1)]


def test_linked_images(world: World) -> None:
    persistent, cdrom = add_image(world, persistent=True), add_image(world, 2, type="CDROM")
    vm = start(world, f"DISK=[IMAGE_ID={persistent.identifier}] DISK=[IMAGE_ID={cdrom.identifier}]")
    assert costs(world) == [LN_PERSISTENT, LN_CDROM]
    world.cloud.terminate(vm)
    assert costs(world) == [MVDS, DELETE_CDROM, DELETE_DIRECTORY]
    vm = start(world, f"DISK=[IMAGE_ID={persistent.identifier}]", "node3")
    costs(world)
    world.cloud.terminate(vm)
    assert costs(world)[0] == MVDS_AWAY


def test_volatile_disks(world: World) -> None:
    template = "DISK=[TYPE=fs,FORMAT=raw,SIZE=4] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16] DISK=[TYPE=swap,SIZE=4]"
    vm = start(world, f'{template} CONTEXT=[NETWORK="YES"]')
    here, away = VOLATILE
    verbs = ("mkimage", "mkimage", "mkswap")
    assert costs(world) == [*(Cost(verb, here, ("node1",)) for verb in verbs), CONTEXT]
    start(world, template, "node3")
    assert costs(world) == [Cost(verb, away, ("node3",)) for verb in verbs]
    world.cloud.terminate(vm)
    assert costs(world) == [DELETE_OWN, DELETE_OWN, DELETE_OWN, DELETE_DIRECTORY]


def test_resizing(world: World) -> None:
    vm = start(world, "DISK=[TYPE=swap,SIZE=4]")
    costs(world)
    world.cloud.resize_disk(vm, vm.disk(0), 16)
    assert costs(world) == [RESIZE_RUNNING]
    world.cloud.poweroff(vm)
    world.cloud.resize_disk(vm, vm.disk(0), 32)
    vm.disk(0).attributes["SIZE"] = "4"
    world.cloud.resize_disk(vm, vm.disk(0), 32)
    assert costs(world) == [RESIZE_AT_REST, RESIZE_NOTHING]


def test_moving(world: World) -> None:
    vm = start(world, "DISK=[TYPE=swap,SIZE=4] DISK=[TYPE=swap,SIZE=4]")
    world.cloud.poweroff(vm)
    costs(world)
    world.cloud.migrate_cold(vm, "node3")
    assert costs(world) == one_ssh_each(MV_DISK, MV_DISK, MV_DIRECTORY_FROM_A_HOLDER)
    world.cloud.migrate_cold(vm, "node1")
    disk = Cost("mv", MV_DISK.rest, ("node1",))
    assert costs(world) == one_ssh_each(disk, disk, MV_DIRECTORY_FROM_A_GUEST)


def test_parking(world: World) -> None:
    vm = start(world, "DISK=[TYPE=swap,SIZE=4] DISK=[TYPE=swap,SIZE=4]")
    costs(world)
    world.cloud.undeploy(vm)
    assert costs(world) == [PARK_DISK, PARK_DISK, PARK_DIRECTORY]
    world.cloud.deploy(vm, "node1", world.system)
    assert costs(world) == [RETURN_DISK, RETURN_DISK, RETURN_DIRECTORY]


def test_backups(world: World) -> None:
    datastore, _ = world.install_backups()
    vm = start(world, "".join(f"DISK=[IMAGE_ID={add_image(world, seed, seed == 2).identifier}]" for seed in (1, 2)))
    costs(world)
    world.cloud.backup(vm, datastore, "FULL", fs_freeze="AGENT")
    assert driver_costs(world) == [FULL_BACKUP, Cost("postbackup_live", *POSTBACKUP)]
    world.cloud.backup(vm, datastore, "INCREMENT")
    assert driver_costs(world) == [FIRST_INCREMENT, Cost("postbackup_live", *POSTBACKUP)]
    world.cloud.backup(vm, datastore)
    assert driver_costs(world) == [NEXT_INCREMENT, Cost("postbackup_live", *POSTBACKUP)]
    world.cloud.poweroff(vm)
    costs(world)
    image = world.cloud.backup(vm, datastore)
    assert driver_costs(world) == [LATER_INCREMENT_AT_REST, Cost("postbackup", *POSTBACKUP)]
    world.cloud.restore_in_place(vm, image)
    assert costs(world) == [RESTORE]


def test_backups_of_a_vm_on_a_host_without_a_replica(world: World) -> None:
    datastore, _ = world.install_backups()
    vm = start(world, f"DISK=[IMAGE_ID={add_image(world).identifier}]", "node3")
    costs(world)
    world.cloud.backup(vm, datastore, "INCREMENT")
    assert driver_costs(world)[0] == FIRST_INCREMENT_AWAY
    world.cloud.backup(vm, datastore)
    assert driver_costs(world)[0] == NEXT_INCREMENT_AWAY


def driver_costs(world: World) -> list[Cost]:
    """What the calls since the last time took that are not the backup datastore's."""
    return [cost for cost in costs(world) if cost.verb != "backup"]


def test_repeating_costs_no_more_than_a_look(world: World) -> None:
    """What a retry finds done already is not done again: its own volumes excepted, which it makes anew."""
    vm = start(world, "DISK=[TYPE=swap,SIZE=4]")
    world.cloud.terminate(vm)
    lines: Sequence[Call] = [call for call in world.cloud.calls if call.verb == "delete"]
    world.cloud.calls.clear()
    for call in lines:
        world.cloud.scripts.transfer_line(" ".join(["DELETE", "linstor_un", *call.argv]))
    assert costs(world) == [Cost("delete", 2, ("node1",)), DELETE_DIRECTORY]
