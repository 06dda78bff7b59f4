"""Which volume is a VM's own disk, where its first name waits for an offline node."""

from __future__ import annotations

import pytest

from linstor_un import settings
from linstor_un.cli.inventory import Inventory, Site, own
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.inventory import Cluster
from linstor_un.cluster.volumes import Volume
from linstor_un.naming import Names
from linstor_un.opennebula.model import Disk, VirtualMachine
from linstor_un.opennebula.pools import Database, Machine

SETTINGS = settings.from_configuration({})


def volume(name: str, *flags: str) -> Volume:
    return Volume(name, 4096, {}, frozenset(flags), "group")


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "one-vm-7-disk-0"),
        ([volume("one-vm-7-disk-0")], "one-vm-7-disk-0"),
        ([volume("one-vm-7-disk-0", "DELETE")], "one-vm-7-disk-0"),
        ([volume("one-vm-7-disk-0", "DELETE"), volume("one-vm-7-disk-0-2")], "one-vm-7-disk-0-2"),
        ([volume("one-vm-7-disk-0"), volume("one-vm-7-disk-0-2")], "one-vm-7-disk-0"),
    ],
)
def test_a_disk_is_the_first_of_its_names_that_is_there_to_stay(there: list[Volume], expected: str) -> None:
    cluster = Cluster({}, {}, {}, (), {item.resource.lower(): item for item in there}, {}, {})
    site = Site(Gateway(SETTINGS), cluster, frozenset({100}))
    machine = Machine(VirtualMachine(7, 3, 3, "one-7", 64, (), ("node1",), (100,)), "seven", 0, {})
    inventory = Inventory(Database({}, {}, {7: machine}, ("node1",)), {}, SETTINGS, (site,))
    disk = Disk(**{**dict.fromkeys(Disk._fields, None), "disk_id": 0})  # type: ignore[arg-type]
    assert own(inventory, site, machine, disk) == expected


def test_a_vm_is_told_by_every_name_of_its_disks() -> None:
    names = Names("one")
    found = [names.vm_id_of(f"one-vm-7-{rest}") for rest in ("disk-0", "disk-0-2", "checkpoint-4", "disk-0-5")]
    assert found == [7, 7, 7, None]
