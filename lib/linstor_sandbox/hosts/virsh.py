"""virsh: the commands that a storage driver and the stock scripts of OpenNebula's KVM driver use."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Callable, Optional

from ..model import Node
from . import saved
from .domains import Domain, Domains, VirshError, disks_of, memory_of
from .guests import AgentSilent
from .saved import BadImage, Saved

Output = tuple[int, str, str]
"""exit status, stdout, stderr"""
_VALUE_OPTIONS = ("--xml", "--pool", "--timeout")
_UNITS = {"": 10, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}


class Virsh:
    """virsh on any host."""

    def __init__(self, domains: Domains) -> None:
        self.domains = domains

    def run(self, node: Node, arguments: Sequence[str], text: str) -> Output:
        """virsh with these arguments; `text` is what the XML file among them holds."""
        words, uri = _without_connection(arguments)
        command = words[0] if words else ""
        method: Optional[Callable[[Node, list[str], str], str]] = getattr(self, f"_{command.replace('-', '_')}", None)
        if method is None:
            return 1, "", f"error: unknown command: '{command}'\n"
        try:
            target = self._connected(node, uri)
            self.domains.check(command)
            output = method(target, list(words[1:]), text)
            self.domains.check(command, "answer")
            return 0, output, ""
        except VirshError as exc:
            return 1, "", f"error: {exc}\n"

    def _connected(self, node: Node, uri: str) -> Node:
        """The host that a URI names."""
        match = re.match(r"qemu\+\w+://(?:[^@/]*@)?([^/:]+)", uri)
        if match is None:
            return node
        found = self.domains.cluster.nodes.get(match.group(1))
        if found is None or not found.host_up:
            raise VirshError(
                "failed to connect to the hypervisor\nerror: Cannot recv data: ssh: connect to host "
                f"{match.group(1)} port 22: No route to host: Connection reset by peer"
            )
        return found

    def _domain(self, node: Node, words: Sequence[str]) -> Domain:
        return self.domains.find(node, next(iter(_names(words)), ""))

    # --- beginning and end ------------------------------------------------------------------------------------------

    def _create(self, node: Node, words: list[str], text: str) -> str:
        shown = words[0] if words else ""
        try:
            domain = self.domains.new(node, text)
            self.domains.start(node, domain)
        except VirshError as exc:
            raise VirshError(f"Failed to create domain from {shown}\nerror: {exc}") from None
        except ElementTree.ParseError as exc:
            raise VirshError(f"Failed to create domain from {shown}\nerror: (domain_definition):1: {exc}") from None
        domain.guest.boot(memory_of(domain.xml))
        return f"Domain '{domain.name}' created from {shown}\n\n"

    def _destroy(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        self.domains.stop(domain)
        return f"Domain '{domain.name}' destroyed\n\n"

    _shutdown = _destroy

    def _define(self, _node: Node, _words: list[str], _text: str) -> str:
        return "\n"

    _undefine = _define

    # --- holding ----------------------------------------------------------------------------------------------------

    def _suspend(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        domain.guest.become("paused")
        self.domains.note(domain, "suspend")
        return f"Domain '{domain.name}' suspended\n\n"

    def _resume(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        self.domains.note(domain, "resume")
        domain.guest.become("running")
        return f"Domain '{domain.name}' resumed\n\n"

    def _domfsfreeze(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        with _agent():
            domain.guest.freeze()
        self.domains.note(domain, "freeze")
        return "Froze 1 filesystem(s)\n"

    def _domfsthaw(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        with _agent():
            was_frozen = domain.guest.thaw()
        if was_frozen:
            self.domains.note(domain, "thaw")
        return f"Thawed {int(was_frozen)} filesystem(s)\n"

    def _domtime(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        with _agent():
            domain.guest.set_clock()
        self.domains.note(domain, "domtime")
        return "\n"

    # --- memory -----------------------------------------------------------------------------------------------------

    def _save(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        path = _names(words)[1]
        was = domain.state
        domain.guest.become("paused")
        try:
            self._write_image(node, domain, path)
        except OSError as exc:
            domain.guest.become(was)
            raise VirshError(
                f"Failed to save domain '{domain.name}' to {path}\nerror: operation failed: migration out "
                f"job: failed to write '{path}': {exc.strerror}"
            ) from None
        self.domains.stop(domain, "saved")
        self.domains.note(domain, "save")
        return f"Domain '{domain.name}' saved to {path}\n\n"

    def _write_image(self, node: Node, domain: Domain, path: str) -> None:
        image = Saved(domain.xml, domain.guest.memory_kib, domain.guest.seed)
        with self._file(node, path, f"save {domain.name}", write=True) as (descriptor, capacity):
            saved.write(descriptor, image, capacity)

    def _save_image_dumpxml(self, node: Node, words: list[str], _text: str) -> str:
        return self.domains.shown(node, self._image(node, _names(words)[0]).xml) + "\n"

    def _restore(self, node: Node, words: list[str], text: str) -> str:
        path = _names(words)[0]
        image = self._image(node, path)
        domain = self.domains.new(node, text if "--xml" in words else image.xml)
        if image.seed != domain.guest.seed:
            raise VirshError(
                f"Failed to restore domain from {path}\nerror: internal error: it is the memory of "
                "another guest, or of an earlier life of this one"
            )
        try:
            self.domains.start(node, domain)
        except VirshError as exc:
            raise VirshError(f"Failed to restore domain from {path}\nerror: {exc}") from None
        self.domains.note(domain, "restore")
        domain.guest.become("paused" if "--paused" in words else "running")
        return f"Domain restored from {path}\n\n"

    def _image(self, node: Node, path: str) -> Saved:
        try:
            with self._file(node, path, f"restore {path}", write=False) as (descriptor, _):
                return saved.read(descriptor)
        except OSError as exc:
            raise VirshError(f"Failed to open file '{path}': {exc.strerror}") from None
        except BadImage as exc:
            raise VirshError(f"Failed to restore domain from {path}\nerror: {exc}") from None

    @contextmanager
    def _file(self, node: Node, path: str, holder: str, write: bool) -> Iterator[tuple[int, Optional[int]]]:
        """A file of the host, or a device by DRBD's rules: its descriptor, and a device's size."""
        domains = self.domains
        device = domains.openings.devices.find(node.name, domains.inside(node, path))
        if device is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if write else os.O_RDONLY
            descriptor = os.open(domains.outside(node, path), flags, 0o600)
        else:
            domains.openings.open(node, domains.inside(node, path), write, holder=holder)
            descriptor = os.open(device.content.path, os.O_WRONLY if write else os.O_RDONLY)
        try:
            yield descriptor, device.content.size if device else None
        finally:
            os.close(descriptor)
            domains.openings.close_holder(node.name, holder)

    # --- moving -----------------------------------------------------------------------------------------------------

    def _migrate(self, node: Node, words: list[str], _text: str) -> str:
        """The destination opens the disks before the source closes them; whatever fails leaves the source running."""
        domain = self._domain(node, words)
        target = self._connected(node, _names(words)[1])
        if target is node:
            raise VirshError("Requested operation is not valid: cannot migrate domain to itself")
        self.domains.check("migrate", "prepare")
        arriving = self.domains.new(target, domain.xml)
        self.domains.start(target, arriving)
        self.domains.note(arriving, "migrate opened")
        try:
            self.domains.check("migrate", "perform")
            self.domains.check("migrate", "finish")
            self.domains.stop(domain, "")
        except VirshError:
            self.domains.stop(arriving, "")
            self.domains.run_in(domain)
            raise
        self.domains.note(arriving, "migrate")
        return "\n"

    # --- disks ------------------------------------------------------------------------------------------------------

    def _attach_device(self, node: Node, words: list[str], text: str) -> str:
        domain = self._domain(node, words)
        try:
            self.domains.plug(node, domain, text)
        except OSError as exc:
            raise VirshError(
                "Failed to attach device\nerror: internal error: unable to execute QEMU command 'blockdev-add': Could "
                f"not open the disk: {exc.strerror}"
            ) from None
        return "Device attached successfully\n\n"

    def _detach_disk(self, node: Node, words: list[str], _text: str) -> str:
        self.domains.unplug(self._domain(node, words), _names(words)[1])
        return "Disk detached successfully\n\n"

    def _blockresize(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        _, target, size = _names(words)[:3]
        for name, path, _ in disks_of(domain.xml):
            if target in (name, path):
                content = domain.contents.get(name)
                if content is not None and content.size < _bytes(size):
                    raise VirshError(
                        "internal error: unable to execute QEMU command 'block_resize': Cannot grow device files"
                    )
                return f"Block device '{target}' is resized\n"
        raise VirshError(f"invalid argument: invalid path '{target}' not assigned to domain")

    def _change_media(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        target, source = _names(words)[1:3]
        if self.domains.regular_file(node, source) is None:
            raise VirshError(f"Could not open '{source}': No such file or directory")
        tree = ElementTree.fromstring(domain.xml)
        for disk in tree.iter("disk"):
            found, place = disk.find("source"), disk.find("target")
            if found is not None and place is not None and place.get("dev") == target:
                found.set("file", self.domains.plain(node, source))
        domain.xml = ElementTree.tostring(tree, encoding="unicode")
        return "Successfully updated media.\n\n"

    def _domblklist(self, node: Node, words: list[str], _text: str) -> str:
        rows = "".join(f" {target:<9}{path}\n" for target, path, _ in disks_of(self._domain(node, words).xml))
        return f" Target   Source\n{'-' * 40}\n{rows}\n"

    # --- looking ----------------------------------------------------------------------------------------------------

    def _dominfo(self, node: Node, words: list[str], _text: str) -> str:
        domain = self._domain(node, words)
        lines = (
            ("Id", domain.serial),
            ("Name", domain.name),
            ("UUID", domain.uuid),
            ("OS Type", "hvm"),
            ("State", domain.state),
            ("CPU(s)", 1),
            ("Persistent", "no"),
        )
        return "".join(f"{key + ':':<16}{value}\n" for key, value in lines) + "\n"

    def _domstate(self, node: Node, words: list[str], _text: str) -> str:
        return f"{self._domain(node, words).state}\n\n"

    def _dommemstat(self, node: Node, words: list[str], _text: str) -> str:
        memory = self._domain(node, words).guest.memory_kib
        return f"actual {memory}\nunused {memory // 2}\nrss {memory}\n\n"

    def _dumpxml(self, node: Node, words: list[str], _text: str) -> str:
        return self.domains.shown(node, self._domain(node, words).xml) + "\n"

    def _snapshot_list(self, node: Node, words: list[str], _text: str) -> str:
        self._domain(node, words)
        return "\n"

    def _list(self, node: Node, words: list[str], _text: str) -> str:
        mine = self.domains.of(node)
        if "--name" in words or "--uuid" in words:
            return "".join(f"{domain.name if '--name' in words else domain.uuid}\n" for domain in mine) + "\n"
        rows = "".join(f" {domain.serial:<5}{domain.name:<16}{domain.state}\n" for domain in mine)
        return f" Id   Name            State\n{'-' * 32}\n{rows}\n"


@contextmanager
def _agent() -> Iterator[None]:
    try:
        yield
    except AgentSilent as exc:
        raise VirshError(str(exc)) from None


def _names(words: Sequence[str]) -> list[str]:
    """The words that are neither options nor their values."""
    found = []
    skip = False
    for word in words:
        if not skip and not word.startswith("-"):
            found.append(word)
        skip = word in _VALUE_OPTIONS
    return found


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)([BKMGT]?)(?:iB)?", text)
    if match is None:
        raise VirshError(f"invalid argument: scaled numeric value '{text}' is malformed")
    return int(match.group(1)) << _UNITS[match.group(2)]


def _without_connection(arguments: Sequence[str]) -> tuple[list[str], str]:
    """The words after virsh's own options, and the URI that they name."""
    words, uri = list(arguments), ""
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in ("-c", "--connect") and words:
            uri = words.pop(0)
    return words, uri
