"""Which volume a VM's own disk, or its checkpoint, is.

A volume that was deleted while a node with a replica was offline keeps its name until that node is back or is lost to
LINSTOR (`linstor node lost`). A disk of the same number that is made meanwhile (`onevm recover --recreate`, a retry, a
disk that is attached anew) gets the next name of Names.successors: whatever needs the disk later takes the first of
these that is not being deleted. Where an earlier one has become free and was taken again, that is the newest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Optional

from linstor_un.cluster import volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.volumes import Volume
from linstor_un.naming import Names, add_ons_disk
from linstor_un.opennebula.model import Disk


def find(gateway: Gateway, names: Names, resource: str, *adopted: str) -> Optional[Volume]:
    """Return a VM's own volume by the name that it should have; one that is being deleted only where it is the last.

    `adopted` are names that it may have where it was not made by this driver.
    """
    found = volumes.find_several(gateway, (*names.successors(resource), *adopted))
    return _current(found) or next((volume for volume in found if volume is not None), None)


def _current(found: Iterable[Optional[Volume]]) -> Optional[Volume]:
    return next((volume for volume in found if volume is not None and not volume.is_being_deleted), None)


def adopted_name(vm_id: int, disk: Disk) -> str:
    """Return the name that LINBIT's add-on has given to a VM's own disk."""
    return add_ons_disk("" if disk.is_volatile else disk.source, vm_id, disk.disk_id)


class OwnVolumes:
    """The volumes of a VM's own disks; LINSTOR is asked once for all, when the first is needed."""

    def __init__(self, gateway: Gateway, vm_id: int, disks: Iterable[Disk]) -> None:
        own = [disk for disk in disks if not disk.is_image]
        self._gateway = gateway
        self._names = gateway.settings.names
        self._vm_id = vm_id
        self._disk_ids = {disk.disk_id for disk in own}
        self._adopted = {disk.disk_id: adopted_name(vm_id, disk) for disk in own if disk.is_adopted}
        self._known: dict[int, str] = {}

    def resource(self, disk_id: int) -> str:
        """Return the volume of a disk; the name that it should have where there is none."""
        if disk_id not in self._known:
            self._disk_ids.add(disk_id)
            self._ask()
        return self._known[disk_id]

    def candidates(self, disk_id: int) -> Sequence[str]:
        """Return the names that the volume of a disk may have, without asking."""
        adopted = self._adopted.get(disk_id)
        return (*self._names.successors(self._names.disk(self._vm_id, disk_id)), *([adopted] if adopted else []))

    def _ask(self) -> None:
        wanted = {disk_id: self.candidates(disk_id) for disk_id in sorted(self._disk_ids)}
        every = [name for names in wanted.values() for name in names]
        found = dict(zip(every, volumes.find_several(self._gateway, every)))
        for disk_id, names in wanted.items():
            current = _current(found[name] for name in names)
            self._known[disk_id] = names[0] if current is None else current.resource
