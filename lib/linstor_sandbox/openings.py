"""Who has a device open: DRBD's rules for opening, promotion and the Primary role."""

from __future__ import annotations

import errno
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from . import drbd, properties
from .devices import Device, Devices
from .model import Cluster, Node, Resource, ResourceDefinition

EMEDIUMTYPE = errno.EMEDIUMTYPE


def _process_start(pid: int) -> str:
    """When a process began, in clock ticks; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


@dataclass
class Opening:
    """One open of a device on a node, held by a process or by a name (a domain)."""

    serial: int
    node: str
    definition: ResourceDefinition
    number: int
    write: bool
    pid: int = 0
    started: str = ""
    holder: str = ""

    def alive(self) -> bool:
        """Whether its process still runs; what a name holds lives until closed."""
        return not self.pid or (bool(self.started) and _process_start(self.pid) == self.started)


class Openings:
    """All openings of all hosts; every method takes the cluster's lock."""

    def __init__(self, cluster: Cluster, devices: Devices) -> None:
        self.cluster = cluster
        self.devices = devices
        self.promote_timeout = 2.0
        self.in_use_lag = 0.0
        self._serials = itertools.count(1)
        self._open: dict[int, Opening] = {}
        self._recent: dict[tuple[str, str], float] = {}

    def open(self, node: Node, path: str, write: bool, pid: int = 0, holder: str = "") -> Opening:
        """Open a device of a host; OSError as the kernel gives it. Waits for promotion without the lock."""
        deadline = time.monotonic() + self.promote_timeout
        with self.cluster.lock:
            while True:
                device = self.devices.find(node.name, path)
                if device is None:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                refusal = self._refusal(node, device, write)
                if refusal == 0:
                    return self._add(node, device, write, pid, holder)
                if refusal != errno.EROFS or time.monotonic() >= deadline:
                    raise OSError(refusal, os.strerror(refusal))
                self.cluster.lock.wait(0.02)

    def _add(self, node: Node, device: Device, write: bool, pid: int, holder: str) -> Opening:
        opening = Opening(
            next(self._serials),
            node.name,
            device.definition,
            device.number,
            write,
            pid,
            _process_start(pid) if pid else "",
            holder,
        )
        self._open[opening.serial] = opening
        self.cluster.touch([device.definition.name])
        device.content.written = device.content.written or write
        if write and device.definition.uses_drbd:
            device.definition.volumes[device.number].props[properties.FREEZE_BLOCK_SIZE] = "True"
        return opening

    def _refusal(self, node: Node, device: Device, write: bool) -> int:
        """The errno with which DRBD refuses, or 0."""
        definition = device.definition
        resource = definition.resources.get(node.name)
        if resource is None or not resource.uses_drbd:
            return 0
        primaries = self.primaries(definition)
        if node.name in primaries:
            return 0
        others = primaries | self._readers(resource) if write else primaries
        refused = (
            any(not drbd.two_primaries_allowed(self.cluster, definition, node.name, other) for other in others)
            or not drbd.has_data(definition)
            or (write and not drbd.has_quorum(definition))
        )
        return 0 if not refused else errno.EROFS if write else EMEDIUMTYPE

    def _readers(self, resource: Resource) -> set[str]:
        """The other nodes that object to a promotion: open there for reading, and connected to this one (DRBD 9)."""
        readers = {opening.node for opening in self._open.values() if opening.definition is resource.definition}
        return {
            other.node.name
            for other in resource.definition.resources
            if other is not resource and other.node.name in readers and not (other.diskless and resource.diskless)
        }

    def close(self, serial: int) -> None:
        """Close one opening."""
        with self.cluster.lock:
            self._drop([opening for opening in self._open.values() if opening.serial == serial])

    def close_holder(self, node: str, holder: str) -> None:
        """Close all that a name holds on a node."""
        with self.cluster.lock:
            self._drop(
                [opening for opening in self._open.values() if opening.holder == holder and opening.node == node]
            )

    def drop_host(self, node: str) -> None:
        """A host lost its power: nothing is open there any more."""
        with self.cluster.lock:
            self._drop([opening for opening in self._open.values() if opening.node == node])
            self._recent.clear()

    def _drop(self, gone: list[Opening]) -> None:
        for opening in gone:
            del self._open[opening.serial]
            self.cluster.touch([opening.definition.name])
            if opening.write:
                self._recent[(opening.definition.uuid, opening.node)] = time.monotonic()
        if gone:
            self.cluster.lock.notify_all()

    def prune(self) -> None:
        """Forget what dead processes held."""
        self._drop([opening for opening in self._open.values() if not opening.alive()])

    def all(self) -> list[Opening]:
        """What is open now."""
        with self.cluster.lock:
            self.prune()
            return list(self._open.values())

    def primaries(self, definition: ResourceDefinition) -> set[str]:
        """The nodes on which the resource is Primary: open for writing."""
        with self.cluster.lock:
            self.prune()
            return {
                opening.node for opening in self._open.values() if opening.write and opening.definition is definition
            }

    def is_open(self, resource: Resource) -> bool:
        """Whether anybody on the node has the device open, for reading too."""
        return any(
            opening.definition is resource.definition and opening.node == resource.node.name for opening in self.all()
        )

    def in_use(self, resource: Resource) -> bool:
        """What the controller knows of the Primary role; lags behind by `in_use_lag` seconds."""
        if resource.node.name in self.primaries(resource.definition):
            return True
        closed = self._recent.get((resource.definition.uuid, resource.node.name))
        return closed is not None and time.monotonic() - closed < self.in_use_lag

    def first_in_use(self, definition: ResourceDefinition) -> Optional[Resource]:
        """A resource of the definition that is Primary somewhere."""
        return next(
            (resource for resource in definition.resources if resource.uses_drbd and self.in_use(resource)), None
        )
