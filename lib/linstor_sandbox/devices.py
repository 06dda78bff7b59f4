"""The block devices below every host's /dev: they come and go with the resources."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from .model import Cluster, Resource, ResourceDefinition, VolumeDefinition
from .storage import Content

Place = tuple[str, str]
"""(node name upper-cased, path below the host's root)"""


@dataclass
class Device:
    """A device that exists: of which volume, and what its file is a link to."""

    definition: ResourceDefinition
    number: int
    content: Content
    symlink: str = ""


class Devices:
    """Makes the files below root/hosts/<node>/dev agree with what is deployed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.known: dict[str, dict[Place, Device]] = {}
        self.index: dict[Place, Device] = {}
        self._loops: dict[tuple[str, int], str] = {}
        self._loop_numbers = itertools.count(100)

    def host(self, node: str) -> Path:
        """The root of a host's files."""
        return self.cluster.root / "hosts" / node

    def path(self, resource: Resource, volume: VolumeDefinition) -> str:
        """The path that LINSTOR reports for a volume on this node."""
        if resource.uses_drbd:
            return f"/dev/drbd{volume.minor}"
        if "LUKS" in resource.layers:
            return f"/dev/mapper/Linstor-Crypt-{resource.name}_{volume.number:05d}"
        return self.backing_path(resource, volume.number)

    def backing_path(self, resource: Resource, number: int) -> str:
        """The path of the storage layer's device."""
        driver = resource.pool.props.get("StorDriver/StorPoolName", "")
        volume = f"{resource.name}_{number:05d}"
        if resource.pool.kind.family == "LVM":
            return f"/dev/{driver.split('/')[0]}/{volume}"
        if resource.pool.kind.family == "ZFS":
            return f"/dev/zvol/{driver}/{volume}"
        key = (resource.uuid, number)
        if key not in self._loops:
            self._loops[key] = f"/dev/loop{next(self._loop_numbers)}"
        return self._loops[key]

    def _wanted(self, definition: ResourceDefinition) -> dict[Place, Device]:
        wanted: dict[Place, Device] = {}
        for resource in definition.resources:
            if not resource.deployed or resource.inactive:
                continue
            node = resource.node.name.upper()
            for volume in definition.volumes.values():
                content = resource.content(volume.number)
                if content is None:
                    continue
                path = self.path(resource, volume).lstrip("/")
                wanted[(node, path)] = Device(definition, volume.number, content)
                if resource.uses_drbd:
                    link = f"dev/drbd/by-res/{definition.name}/{volume.number}"
                    wanted[(node, link)] = Device(definition, volume.number, content, f"../../../drbd{volume.minor}")
        return wanted

    def refresh(self, definition: ResourceDefinition) -> None:
        """Make and remove device files of one definition; those of a host that is down stay as they are."""
        wanted = self._wanted(definition)
        known = self.known.setdefault(definition.uuid, {})
        for place in [place for place in known if place not in wanted or self._differs(known[place], wanted[place])]:
            if self._host_up(place):
                self._remove(place)
                del known[place]
        for place, device in wanted.items():
            if place not in known and self._host_up(place):
                self._create(place, device)
                known[place] = device
        if not known:
            self.known.pop(definition.uuid)

    @staticmethod
    def _differs(one: Device, other: Device) -> bool:
        return one.content is not other.content or one.symlink != other.symlink

    def _host_up(self, place: Place) -> bool:
        node = self.cluster.nodes.get(place[0])
        return node is not None and node.host_up

    def _file(self, place: Place) -> Path:
        return self.host(self.cluster.nodes[place[0]].name) / place[1]

    def _create(self, place: Place, device: Device) -> None:
        file = self._file(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if device.symlink:
            file.symlink_to(device.symlink)
        else:
            self.cluster.store.ensure(device.content)
            os.link(device.content.path, file)
        self.index[place] = device

    def _remove(self, place: Place) -> None:
        self.index.pop(place, None)
        file = self._file(place)
        file.unlink(missing_ok=True)
        top = self.host(self.cluster.nodes[place[0]].name) / "dev"
        for parent in file.parents:
            if parent == top or parent.name in ("by-res", "drbd", "mapper"):
                return
            try:
                parent.rmdir()
            except OSError:
                return

    def find(self, node: str, path: str) -> Optional[Device]:
        """The device at a path below the host's root, through its links; None when there is none."""
        return self.index.get((node.upper(), self.real_path(node, path)))

    def real_path(self, node: str, path: str) -> str:
        """A path below the host's root with its links followed, those too that mean the host's own /."""
        host = self.host(node)
        file = Path(os.path.normpath(host / path.lstrip("/")))
        for _ in range(16):
            if not file.is_symlink():
                break
            file = self._follow(host, file)
        return os.path.relpath(file, host)

    @staticmethod
    def _follow(host: Path, link: Path) -> Path:
        """Where a link on a host leads, absolute targets below the host's root."""
        target = str(link.readlink())
        if not target.startswith("/"):
            return Path(os.path.normpath(link.parent / target))
        return Path(target) if target.startswith(f"{host}/") else host / target.lstrip("/")
