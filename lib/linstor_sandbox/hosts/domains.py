"""Domains of the hosts' hypervisors: they keep the disks of a VM open as QEMU does, and move between hosts."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

from ..model import Cluster, Node
from ..openings import Opening, Openings
from ..storage import Content
from .guests import Guest

_DEFAULT_MEMORY_KIB = 8192
_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "KiB": 1, "k": 1, "MiB": 1024, "M": 1024, "GiB": 1 << 20, "G": 1 << 20}


@dataclass
class Domain:
    """A running VM on a host; `xml` has the paths as the host knows them.

    `openings` are the disks that it has open, `contents` those that it writes to, both by target.
    """

    name: str
    node: str
    xml: str
    serial: int
    guest: Guest
    uuid: str = ""
    contents: dict[str, Content] = field(default_factory=dict)
    openings: dict[str, Opening] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """running or paused."""
        return self.guest.state

    @property
    def holder(self) -> str:
        """The name under which it keeps its disks open."""
        return f"domain {self.name}"


@dataclass(frozen=True)
class Event:
    """Something that happened to a domain, after so many REST requests."""

    node: str
    domain: str
    what: str
    requests: int
    moment: float = field(default_factory=time.monotonic, compare=False)


@dataclass
class _Failure:
    command: str
    step: str
    message: str
    remaining: int


class VirshError(Exception):
    """What virsh prints after "error: "."""


def disks_of(xml: str) -> list[tuple[str, str, bool]]:
    """(target, source, read-only) of the disks in a domain's XML."""
    found = []
    for disk in ElementTree.fromstring(xml).iter("disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is None or target is None:
            continue
        path = source.get("dev") or source.get("file") or ""
        read_only = disk.get("device") == "cdrom" or disk.find("readonly") is not None
        found.append((target.get("dev") or "", path, read_only))
    return found


def memory_of(xml: str) -> int:
    """KiB of RAM that a domain's XML asks for."""
    memory = ElementTree.fromstring(xml).find("memory")
    if memory is None or not memory.text:
        return _DEFAULT_MEMORY_KIB
    return int(int(memory.text) * _KIB[memory.get("unit", "KiB")])


class Domains:
    """All domains of all hosts, and the guests in them, which outlive a move and a save."""

    def __init__(
        self,
        cluster: Cluster,
        openings: Openings,
        stopping: Optional[threading.Event] = None,
        count_requests: Callable[[], int] = lambda: 0,
    ) -> None:
        self.cluster = cluster
        self.openings = openings
        self.stopping = stopping or threading.Event()
        self.all: dict[tuple[str, str], Domain] = {}
        self.guests: dict[str, Guest] = {}
        self.events: list[Event] = []
        self._count_requests = count_requests
        self._failures: list[_Failure] = []
        self._serials = itertools.count(1)

    # --- for tests --------------------------------------------------------------------------------------------------

    def guest(self, name: str) -> Guest:
        """The guest of a VM, also before its domain is started: its agent can be chosen then."""
        return self.guests.setdefault(name, Guest(name, self.stopping, self.cluster.suspended_io))

    def fail(
        self, command: str, step: str = "", message: str = "internal error: injected failure", times: int = 1
    ) -> None:
        """Let the next virsh commands of a kind fail.

        `step` of migrate is prepare, perform or finish; `answer` of any loses what it says when it is done.
        """
        self._failures.append(_Failure(command, step, message, times))

    def check(self, command: str, step: str = "") -> None:
        """VirshError when a test wants this command to fail at this step."""
        for failure in self._failures:
            if (failure.command, failure.step) == (command, step) and failure.remaining > 0:
                failure.remaining -= 1
                raise VirshError(failure.message)

    def note(self, domain: Domain, what: str) -> None:
        """Remember an event."""
        self.events.append(Event(domain.node, domain.name, what, self._count_requests()))

    # --- domains ----------------------------------------------------------------------------------------------------

    def find(self, node: Node, name: str) -> Domain:
        """A host's domain by name, uuid or id; VirshError."""
        for domain in list(self.all.values()):
            if domain.node == node.name and name in (domain.name, domain.uuid, str(domain.serial)):
                return domain
        raise VirshError(f"failed to get domain '{name}'")

    def of(self, node: Node) -> list[Domain]:
        """A host's domains."""
        return [domain for domain in list(self.all.values()) if domain.node == node.name]

    def new(self, node: Node, xml: str) -> Domain:
        """A domain that is not yet started; VirshError when the host has one of this name."""
        tree = ElementTree.fromstring(xml)
        name = tree.findtext("name") or "domain"
        if (node.name, name) in self.all:
            raise VirshError(f"operation failed: domain '{name}' already exists")
        return Domain(
            name,
            node.name,
            self.plain(node, xml),
            next(self._serials),
            self.guest(name),
            tree.findtext("uuid") or str(uuid.uuid4()),
        )

    def start(self, node: Node, domain: Domain) -> None:
        """Open the disks of a domain; none stays open when one cannot be. The guest is left as it is."""
        for target, path, read_only in disks_of(domain.xml):
            try:
                self._open(node, domain, target, path, not read_only)
            except OSError as exc:
                self._close(domain, list(domain.openings))
                raise VirshError(
                    "internal error: process exited while connecting to monitor: qemu-system-x86_64: "
                    f"-blockdev: Could not open '{path}': {exc.strerror}"
                ) from None
        self.all[(node.name, domain.name)] = domain
        self.run_in(domain)

    def run_in(self, domain: Domain) -> None:
        """The guest writes to what this domain has opened, whatever its links lead to by now."""
        domain.guest.disks = dict(domain.contents).get

    def _open(self, node: Node, domain: Domain, target: str, path: str, write: bool) -> None:
        inside = self.inside(node, path)
        if not path or self.regular_file(node, path) is not None:
            return
        device = self.openings.devices.find(node.name, inside)
        if device is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        domain.openings[target] = self.openings.open(node, inside, write, holder=domain.holder)
        if write:
            domain.contents[target] = device.content

    def _close(self, domain: Domain, targets: Iterable[str]) -> None:
        for target in targets:
            self.openings.close(domain.openings.pop(target).serial)
            domain.contents.pop(target, None)

    def plug(self, node: Node, domain: Domain, disk_xml: str) -> None:
        """Open one more disk in a running domain; OSError, VirshError where the target is taken."""
        disk = self.plain(node, disk_xml)
        for target, path, read_only in disks_of(f"<devices>{disk}</devices>"):
            if target in {known for known, _, _ in disks_of(domain.xml)}:
                raise VirshError(f"Requested operation is not valid: target {target} already exists")
            self._open(node, domain, target, path, not read_only)
        domain.xml = domain.xml.replace("</devices>", f"{disk}</devices>")
        self.run_in(domain)

    def unplug(self, domain: Domain, target: str) -> None:
        """Close one disk of a running domain; VirshError where it has none of that name."""
        tree = ElementTree.fromstring(domain.xml)
        for devices in tree.iter("devices"):
            for disk in devices.findall("disk"):
                place = disk.find("target")
                if place is not None and place.get("dev") == target:
                    devices.remove(disk)
                    domain.xml = ElementTree.tostring(tree, encoding="unicode")
                    self._close(domain, {target} & set(domain.openings))
                    self.run_in(domain)
                    return
        raise VirshError(f"No disk found whose source path or target is {target}")

    def stop(self, domain: Domain, guest_state: str = "off") -> None:
        """End a domain and close its disks; its guest is `off`, or lives on elsewhere; VirshError: it has ended."""
        if self.all.pop((domain.node, domain.name), None) is None:
            raise VirshError("operation failed: domain is no longer running")
        self._close(domain, list(domain.openings))
        if guest_state:
            domain.guest.become(guest_state)

    def drop_host(self, node: str) -> None:
        """A host lost its power: its domains are gone."""
        for domain in [domain for domain in list(self.all.values()) if domain.node == node]:
            with suppress(VirshError):
                self.stop(domain)

    # --- paths ------------------------------------------------------------------------------------------------------

    def inside(self, node: Node, path: str) -> str:
        """A path as the host knows it, or mapped already, below the host's root."""
        host = str(self.openings.devices.host(node.name)) + "/"
        return path[len(host) :] if path.startswith(host) else path

    def outside(self, node: Node, path: str) -> Path:
        """The file on this machine that the host knows by a path."""
        return self.openings.devices.host(node.name) / self.inside(node, path).lstrip("/")

    def regular_file(self, node: Node, path: str) -> Optional[Path]:
        """A file on the host that is no device, or None."""
        if self.openings.devices.find(node.name, self.inside(node, path)) is not None:
            return None
        found = self.outside(node, path)
        return found if found.is_file() and not found.is_symlink() else None

    def plain(self, node: Node, text: str) -> str:
        """XML with the paths as the host knows them."""
        return text.replace(str(self.openings.devices.host(node.name)), "")

    def shown(self, node: Node, xml: str) -> str:
        """XML with paths as the host's shell has them in its arguments, below the host's root."""
        plain = self.plain(node, xml)
        for quote in "'\"":
            plain = plain.replace(f"{quote}/var/lib/one", f"{quote}{self.openings.devices.host(node.name)}/var/lib/one")
        return plain
