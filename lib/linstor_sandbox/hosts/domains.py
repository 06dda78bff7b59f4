"""Domains of the hosts' hypervisors: as much of virsh as opens and closes the disks of a VM."""
from __future__ import annotations

import itertools
import uuid
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from typing import Callable, Optional

from ..model import Cluster, Node
from ..openings import Opening, Openings

Output = tuple[int, str, str]
"""exit status, stdout, stderr"""


@dataclass
class Domain:
    """A running VM on a host."""

    name: str
    node: str
    xml: str
    serial: int
    state: str = "running"
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    openings: list[Opening] = field(default_factory=list)


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


class Domains:
    """All domains of all hosts."""

    def __init__(self, cluster: Cluster, openings: Openings) -> None:
        self.cluster = cluster
        self.openings = openings
        self._serials = itertools.count(1)
        self.all: dict[tuple[str, str], Domain] = {}

    def run(self, node: Node, arguments: list[str], text: str) -> Output:
        """virsh with these arguments; `text` is what its file holds."""
        words = _without_connection(arguments)
        command = words[0] if words else ""
        method: Optional[Callable[[Node, list[str], str], str]] = getattr(self, f"_{command.replace('-', '_')}", None)
        if method is None:
            return 1, "", f"error: unknown command: '{command}'\n"
        try:
            return 0, method(node, list(words[1:]), text), ""
        except VirshError as exc:
            return 1, "", f"error: {exc}\n"

    def _find(self, node: Node, words: list[str]) -> Domain:
        names = [word for word in words if not word.startswith("-")]
        name = names[0] if names else ""
        for domain in self.all.values():
            if domain.node == node.name and name in (domain.name, domain.uuid, str(domain.serial)):
                return domain
        raise VirshError(f"failed to get domain '{name}'")

    def _create(self, node: Node, words: list[str], text: str) -> str:
        name = ElementTree.fromstring(text).findtext("name") or "domain"
        if (node.name, name) in self.all:
            raise VirshError(f"Failed to create domain from {words[0]}\nerror: operation failed: domain '{name}' "
                             "already exists")
        domain = Domain(name, node.name, text, next(self._serials))
        self.start(node, domain, words[0] if words else "")
        return f"Domain '{name}' created from {words[0] if words else ''}\n\n"

    def start(self, node: Node, domain: Domain, shown: str) -> None:
        """Open the disks of a domain; none stays open when one cannot be."""
        holder = f"domain {domain.name}"
        for _, path, read_only in disks_of(domain.xml):
            if not path or self.openings.devices.find(node.name, self._inside(node, path)) is None:
                continue
            try:
                opening = self.openings.open(node, self._inside(node, path), not read_only, holder=holder)
            except OSError as exc:
                self.openings.close_holder(node.name, holder)
                raise VirshError(
                    f"Failed to create domain from {shown}\nerror: internal error: process exited while connecting to "
                    f"monitor: qemu-system-x86_64: -blockdev: Could not open '{path}': {exc.strerror}") from None
            domain.openings.append(opening)
        self.all[(node.name, domain.name)] = domain

    def _inside(self, node: Node, path: str) -> str:
        """A path as the host knows it, or mapped already, below the host's root."""
        host = str(self.openings.devices.host(node.name)) + "/"
        return path[len(host):] if path.startswith(host) else path

    def _destroy(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._find(node, words)
        self.stop(domain)
        return f"Domain '{domain.name}' destroyed\n\n"

    def stop(self, domain: Domain) -> None:
        """End a domain and close its disks."""
        self.openings.close_holder(domain.node, f"domain {domain.name}")
        del self.all[(domain.node, domain.name)]

    def drop_host(self, node: str) -> None:
        """A host lost its power: its domains are gone."""
        for domain in [domain for domain in self.all.values() if domain.node == node]:
            self.stop(domain)

    def _suspend(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._find(node, words)
        domain.state = "paused"
        return f"Domain '{domain.name}' suspended\n\n"

    def _resume(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._find(node, words)
        domain.state = "running"
        return f"Domain '{domain.name}' resumed\n\n"

    def _dominfo(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._find(node, words)
        lines = (("Id", domain.serial), ("Name", domain.name), ("UUID", domain.uuid), ("OS Type", "hvm"),
                 ("State", domain.state), ("CPU(s)", 1), ("Persistent", "no"))
        return "".join(f"{key + ':':<16}{value}\n" for key, value in lines) + "\n"

    def _domstate(self, node: Node, words: list[str], _text: str) -> str:
        return f"{self._find(node, words).state}\n\n"

    def _dumpxml(self, node: Node, words: list[str], _text: str) -> str:
        return self._find(node, words).xml + "\n"

    def _domblklist(self, node: Node, words: list[str], _text: str) -> str:
        rows = "".join(f" {target:<9}{path}\n" for target, path, _ in disks_of(self._find(node, words).xml))
        return f" Target   Source\n{'-' * 40}\n{rows}\n"

    def _list(self, node: Node, words: list[str], _text: str) -> str:
        mine = [domain for domain in self.all.values() if domain.node == node.name]
        if "--name" in words:
            return "".join(f"{domain.name}\n" for domain in mine) + "\n"
        rows = "".join(f" {domain.serial:<5}{domain.name:<16}{domain.state}\n" for domain in mine)
        return f" Id   Name            State\n{'-' * 32}\n{rows}\n"


def _without_connection(arguments: list[str]) -> list[str]:
    """The words after virsh's own options."""
    words = list(arguments)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in ("-c", "--connect") and words:
            words.pop(0)
    return words
