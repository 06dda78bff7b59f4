"""What oned has in its database: in pages, none of whose objects is skipped because others have gone meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from linstor_sandbox.opennebula.rpc import Endpoint
from linstor_un.opennebula import pools

SESSION = "oneadmin:password"
DISK = "<DISK><DISK_ID>0</DISK_ID><TM_MAD>linstor_un</TM_MAD><IMAGE_ID>3</IMAGE_ID><SIZE>8</SIZE></DISK>"


class Oned:
    """oned with images and VMs by their ids; `between` happens after each page of images."""

    def __init__(self) -> None:
        self.images = list(range(450))
        self.between: list[Callable[[], object]] = []
        self.is_upwards = False
        self.endpoint = Endpoint(
            SESSION,
            {
                "one.datastorepool.info": (
                    "datastore",
                    lambda: f"<DATASTORE_POOL>{self.datastores()}</DATASTORE_POOL>",
                ),
                "one.datastore.info": ("datastore", lambda number, _decrypt: self.datastore(number, "linstor_un")),
                "one.imagepool.info": ("image", self.page),
                "one.image.info": ("image", self.image),
                "one.vmpool.infoextended": ("vm", lambda *_: f"<VM_POOL>{self.machine(7)}</VM_POOL>"),
                "one.vm.info": ("vm", self.machine),
                "one.hostpool.info": ("host", lambda: "<HOST_POOL><HOST><NAME>node1</NAME></HOST></HOST_POOL>"),
            },
        )

    def datastores(self) -> str:
        return self.datastore(100, "linstor_un") + self.datastore(1, "ssh")

    def datastore(self, number: int, driver: str) -> str:
        return f"<DATASTORE><ID>{number}</ID><NAME>d</NAME><TM_MAD>{driver}</TM_MAD><TEMPLATE/></DATASTORE>"

    def image(self, number: int) -> str:
        if number not in self.images:
            raise KeyError(number)
        datastore = 1 if number == 5 else 100
        snapshots = "<SNAPSHOTS><SNAPSHOT><ID>4</ID><NAME>s</NAME><SIZE>8</SIZE></SNAPSHOT></SNAPSHOTS>"
        vms = "<VMS><ID>7</ID></VMS>" if number == 3 else "<VMS></VMS>"
        return f"<IMAGE><ID>{number}</ID><DATASTORE_ID>{datastore}</DATASTORE_ID>{vms}{snapshots}</IMAGE>"

    def machine(self, number: int) -> str:
        if number not in (7, 8):
            raise KeyError(number)
        state = 3 if number == 7 else 6
        history = "<HISTORY><SEQ>2</SEQ><HOSTNAME>node2</HOSTNAME><DS_ID>100</DS_ID></HISTORY>"
        records = f"<HISTORY_RECORDS>{history}</HISTORY_RECORDS>"
        snapshots = "<SNAPSHOTS><DISK_ID>0</DISK_ID><SNAPSHOT><ID>9</ID></SNAPSHOT></SNAPSHOTS>"
        states = f"<STATE>{state}</STATE><LCM_STATE>3</LCM_STATE>"
        return f"<VM><ID>{number}</ID><NAME>web</NAME>{states}<TEMPLATE>{DISK}</TEMPLATE>{records}{snapshots}</VM>"

    def page(self, whose: int, first: int, last: int) -> str:
        assert (whose, last) == (-2, -pools.PAGE)
        ordered = sorted(self.images, reverse=not self.is_upwards)
        listed = "".join(self.image(number) for number in ordered[first : first - last])
        if self.between:
            self.between.pop(0)()
        return f"<IMAGE_POOL>{listed}</IMAGE_POOL>"


@pytest.fixture
def oned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Oned]:
    made = Oned()
    (tmp_path / "one_auth").write_text(SESSION)
    monkeypatch.setenv("ONE_AUTH", str(tmp_path / "one_auth"))
    monkeypatch.setenv("ONE_XMLRPC", made.endpoint.uri)
    yield made
    made.endpoint.close()


def test_everything_of_this_driver_is_read(oned: Oned) -> None:
    database = pools.read()
    assert set(database.datastores) == {100}
    assert set(database.images) == set(range(450)) - {5}
    assert database.images[3].vm_ids == (7,)
    assert [item.snapshot_id for item in database.images[3].snapshots] == [4]
    machine = database.machines[7]
    assert (machine.host, machine.datastore_id, machine.moves, machine.is_running) == ("node2", 100, 2, True)
    assert [item.snapshot_id for item in machine.snapshots[0]] == [9]
    assert database.hosts == ("node1",)


@pytest.mark.parametrize("is_upwards", [True, False])
@pytest.mark.parametrize("gone", [range(0, 100), range(330, 450), range(100, 330), range(10, 450)])
def test_what_goes_between_two_pages_hides_nothing(oned: Oned, is_upwards: bool, gone: range) -> None:
    oned.is_upwards = is_upwards
    oned.between = [lambda: oned.images.__setitem__(slice(None), [n for n in oned.images if n not in gone])]
    assert set(pools.read().images) >= set(range(450)) - set(gone) - {5}


def test_what_comes_between_two_pages_is_no_hindrance(oned: Oned) -> None:
    oned.between = [lambda: oned.images.extend(range(450, 900))] * 2
    assert set(pools.read().images) >= set(range(450)) - {5}


def test_asked_again_for_images_and_machines_only_they_are_known(oned: Oned) -> None:
    known = pools.read()
    again = pools.again(known, [3, 999], [8])
    assert set(again.images) == {3}
    assert set(again.machines) == {7}, "the VM that uses image 3, and not 8, which is done"
    assert (again.datastores, again.hosts) == (known.datastores, known.hosts)
