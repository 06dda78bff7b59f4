"""What oned says of the whole cloud: its configuration as it runs, its hosts, and the driver's datastores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from linstor_un.errors import OnedUnreachable
from linstor_un.opennebula import decoding, model, oned
from linstor_un.opennebula.decoding import number, required_number, text
from linstor_un.opennebula.model import Datastore

if TYPE_CHECKING:
    from lxml.etree import _Element

# STATE of a host that an operator has taken out of service, or that is off.
_OFFLINE = 8
_FIRST_WITH_BLOCK_DISKS = (6, 4, 1)


class Host(NamedTuple):
    """A host as it is registered; `hypervisor` is the name of its VM_MAD."""

    host_id: int
    name: str
    cluster_id: int
    hypervisor: str
    is_in_service: bool


class Store(NamedTuple):
    """A datastore of the driver; `stored` are its attributes as they lie in oned's database, secrets encrypted."""

    datastore: Datastore
    is_system: bool
    cluster_ids: frozenset[int]
    total_mib: int
    stored: Datastore


class Survey(NamedTuple):
    """The cloud; `configuration` is written as in oned.conf."""

    release: str
    configuration: str
    hosts: tuple[Host, ...]
    stores: tuple[Store, ...]

    def hosts_of(self, stores: Sequence[Store]) -> list[Host]:
        """Return the hosts in service on which VMs with disks in these datastores may run: those of their clusters."""
        clusters = {cluster for store in stores for cluster in store.cluster_ids}
        return [host for host in self.hosts if host.is_in_service and host.cluster_id in clusters]


def take(driver: str) -> Survey:
    """Ask oned, in two requests, for everything that concerns this transfer driver; raises OnedUnreachable."""
    names = ("one.system.version", "one.system.config", "one.hostpool.info", "one.datastorepool.info")
    release, configuration, hosts, datastores = (_there(answer) for answer in oned.call([(name, ()) for name in names]))
    elements = [
        element
        for element in decoding.parse(datastores, "DATASTORE_POOL").iterfind("DATASTORE")
        if text(element, "TM_MAD") == driver
    ]
    return Survey(
        release.decode("utf-8", "replace").strip(),
        _as_text(decoding.parse(configuration, "OPENNEBULA_CONFIGURATION")),
        tuple(_host(element) for element in decoding.parse(hosts, "HOST_POOL").iterfind("HOST")),
        tuple(_opened(elements)),
    )


def system_disk_type() -> str:
    """Return the DISK_TYPE of new system datastores: BLOCK, which releases before 6.4.1 refuse; raises OnedUnreachable.

    There libvirt takes a link to a device for a file, and opens what it leads to.
    """
    [version] = oned.call([("one.system.version", ())])
    numbers = [int(number) for number in re.findall(r"\d+", _there(version).decode("utf-8", "replace"))[:3]]
    return "BLOCK" if tuple(numbers) >= _FIRST_WITH_BLOCK_DISKS else "FILE"


def named(names: Sequence[str]) -> dict[str, Store]:
    """Return the datastores of these names, whichever driver they have; raises OnedUnreachable."""
    return {store.datastore.name: store for store in _stores(lambda element: text(element, "NAME") in names)}


def of_drivers(*drivers: str) -> list[Store]:
    """Return the datastores of these transfer drivers; raises OnedUnreachable."""
    return _stores(lambda element: text(element, "TM_MAD") in drivers)


def _stores(is_wanted: Callable[[_Element], bool]) -> list[Store]:
    [pool] = oned.call([("one.datastorepool.info", ())])
    found = decoding.parse(_there(pool), "DATASTORE_POOL").iterfind("DATASTORE")
    return _opened([element for element in found if is_wanted(element)])


def _opened(elements: Sequence[_Element]) -> list[Store]:
    """Return datastores of the pool with their attributes decrypted too, which the pool's are not."""
    if not elements:
        return []
    answers = oned.call([("one.datastore.info", (required_number(item, "ID"), True)) for item in elements])
    return [_store(stored, decoding.parse(clear, "DATASTORE")) for stored, clear in zip(elements, answers) if clear]


def configuration() -> str:
    """Return oned's configuration as it runs, written as in oned.conf; raises OnedUnreachable."""
    [answer] = oned.call([("one.system.config", ())])
    return _as_text(decoding.parse(_there(answer), "OPENNEBULA_CONFIGURATION"))


def _there(answer: Optional[bytes]) -> bytes:
    if answer is None:
        raise OnedUnreachable("oned answered that a list of all does not exist; see /var/log/one/oned.log")
    return answer


def _host(element: _Element) -> Host:
    return Host(
        host_id=required_number(element, "ID"),
        name=text(element, "NAME"),
        cluster_id=number(element, "CLUSTER_ID") or 0,
        hypervisor=text(element, "VM_MAD"),
        is_in_service=number(element, "STATE") != _OFFLINE,
    )


def _store(stored: _Element, clear: _Element) -> Store:
    return Store(
        datastore=model.datastore(clear),
        is_system=number(clear, "TYPE") == 1,
        cluster_ids=frozenset(int(item.text or 0) for item in clear.iterfind("CLUSTERS/ID")),
        total_mib=number(clear, "TOTAL_MB") or 0,
        stored=model.datastore(stored),
    )


def _as_text(tree: _Element) -> str:
    """Return the attributes as they stand in oned.conf."""
    lines = []
    for element in tree:
        if len(element):
            pairs = ", ".join(f"{child.tag!s} = {_quoted(child)}" for child in element)
            lines.append(f"{element.tag!s} = [ {pairs} ]\n")
        else:
            lines.append(f"{element.tag!s} = {_quoted(element)}\n")
    return "".join(lines)


def _quoted(element: _Element) -> str:
    return '"' + (element.text or "").replace('"', '\\"') + '"'
