"""What the scripts of OpenNebula's own storages do to a VM's directory, as far as other drivers' disks lie in it.

They know nothing of those disks: `mv` of the directory removes what is at its destination and takes links along as
they are, premigrate and postmigrate call the drivers of the VM's disks without asking how that went, and failmigrate
calls nobody (opennebula-contract.md, 11).
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import subprocess
import sys
import xmlrpc.client
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

_UNKNOWN_STATES = ("60", "61")


class ScriptFailed(Exception):
    """What a script writes to stderr before it exits with 1."""


class Location(NamedTuple):
    """HOST:PATH."""

    host: str
    path: str

    @classmethod
    def parse(cls, argument: str) -> Location:
        """Of an argument; the double slash of oned goes."""
        host, _, path = argument.partition(":")
        return cls(host, "/" + os.path.normpath(path).lstrip("/"))

    @property
    def is_disk(self) -> bool:
        """It ends in disk.N."""
        return re.search(r"/disk\.\d+$", self.path) is not None

    @property
    def parent(self) -> str:
        """The directory that it is in."""
        return self.path.rpartition("/")[0]


def main(driver: str, verb: str, frontend: str) -> None:
    """Run one verb of a driver."""
    storage = {"shared": Shared, "local": Local, "ceph": Ceph, "ssh": Ssh}[driver](driver, frontend)
    try:
        getattr(storage, verb)(sys.argv[1:])
    except ScriptFailed as failed:
        sys.stderr.write(f"{failed}\n")
        sys.exit(1)


class Ssh:
    """Each host has a directory of its own; its disks are files there."""

    def __init__(self, driver: str, frontend: str) -> None:
        self.driver = driver
        self.frontend = frontend

    # --- hosts ------------------------------------------------------------------------------------------------------

    def _command(self, host: str, command: str) -> list[str]:
        return ["sh", "-c", command] if host == self.frontend else ["ssh", host, command]

    def _on(self, host: str, command: str, data: bytes = b"") -> str:
        done = subprocess.run(self._command(host, command), input=data, capture_output=True, check=False)
        if done.returncode:
            raise ScriptFailed(f"Command execution failed on {host}: {command}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def _root(self, host: str) -> str:
        """What the devices of a host lie below on this machine."""
        return "" if host == self.frontend else self._on(host, "echo /dev/x").strip()[: -len("/dev/x")]

    def _vm(self, vm_id: str) -> ElementTree.Element:
        home = Path.home() / ".one"
        oned: Any = xmlrpc.client.ServerProxy((home / "one_endpoint").read_text(encoding="utf-8").strip())
        answer = oned.one.vm.info((home / "one_auth").read_text(encoding="utf-8").strip(), int(vm_id))
        if not answer[0]:
            raise ScriptFailed(answer[1])
        return ElementTree.fromstring(answer[1])

    # --- disks ------------------------------------------------------------------------------------------------------

    def clone(self, arguments: Sequence[str]) -> None:
        """FE:SOURCE HOST:PATH VM DATASTORE: the image's file comes to the host."""
        source, target = Location.parse(arguments[0]), Location.parse(arguments[1])
        content = Path(source.path).read_bytes()
        self._on(target.host, f"mkdir -p {shlex.quote(target.parent)} && cat > {shlex.quote(target.path)}", content)

    ln = clone

    def mkimage(self, arguments: Sequence[str]) -> None:
        """MIB FORMAT HOST:PATH VM DATASTORE."""
        self._make(arguments[0], Location.parse(arguments[2]))

    def mkswap(self, arguments: Sequence[str]) -> None:
        """MIB HOST:PATH VM DATASTORE."""
        self._make(arguments[0], Location.parse(arguments[1]))

    def _make(self, mib: str, target: Location) -> None:
        path = shlex.quote(target.path)
        self._on(target.host, f"mkdir -p {shlex.quote(target.parent)} && rm -f {path} && truncate -s {mib}M {path}")

    def context(self, arguments: Sequence[str]) -> None:
        """CONTEXT.sh ... HOST:PATH VM DATASTORE."""
        target = Location.parse(arguments[-3])
        content = Path(arguments[0]).read_bytes()
        self._on(target.host, f"mkdir -p {shlex.quote(target.parent)} && cat > {shlex.quote(target.path)}", content)

    def mvds(self, _arguments: Sequence[str]) -> None:
        """What it would bring back is no part of this."""

    def delete(self, arguments: Sequence[str]) -> None:
        """HOST:PATH VM DATASTORE: of a disk and of the directory alike."""
        target = Location.parse(arguments[0])
        path = shlex.quote(target.path)
        self._on(target.host, f"[ -e {path} ] || exit 0; rm -rf {path}")

    # --- moving -----------------------------------------------------------------------------------------------------

    def mv(self, arguments: Sequence[str]) -> None:
        """HOST:PATH HOST:PATH VM DATASTORE: disks go with the directory."""
        source, target = Location.parse(arguments[0]), Location.parse(arguments[1])
        if target.is_disk or source == target:
            return
        if self._vm(arguments[2]).findtext("LCM_STATE") in _UNKNOWN_STATES:
            return
        self._on(target.host, f"mkdir -p {shlex.quote(target.parent)} && rm -rf {shlex.quote(target.path)}")
        self._transport(source, target)
        self._on(source.host, f"rm -rf {shlex.quote(source.path)}")

    def _transport(self, source: Location, target: Location) -> None:
        pack = f"tar -C {shlex.quote(source.parent)} --sparse -cf - {source.path.rpartition('/')[2]}"
        unpack = f"tar -C {shlex.quote(target.parent)} --sparse -xf -"
        with subprocess.Popen(self._command(source.host, pack), stdout=subprocess.PIPE) as sender:
            received = subprocess.run(self._command(target.host, unpack), stdin=sender.stdout, check=False)
        if sender.returncode or received.returncode:
            raise ScriptFailed("Error copying disk directory to target host")
        self._relink(source.host, target)

    def _relink(self, before: str, target: Location) -> None:
        """Each host's devices lie below a folder of its own here, which is none of a real link's."""
        old, new = self._root(before), self._root(target.host)
        relink = (
            f"for link in {shlex.quote(target.path)}/disk.*; do [ -L $link ] || continue; to=$(readlink $link); "
            f'ln -sfT "{new}""${{to#{old}}}" $link; done'
        )
        self._on(target.host, relink)

    def premigrate(self, arguments: Sequence[str]) -> None:
        """SOURCE TARGET DIRECTORY VM DATASTORE, the VM in base64 on stdin."""
        source, host, directory = arguments[:3]
        data = sys.stdin.buffer.read()
        if source == host:
            return
        self._on(host, f"rm -rf {shlex.quote(Location.parse(f'{host}:{directory}').path)}")
        self._call_others("premigrate", arguments, data)

    def postmigrate(self, arguments: Sequence[str]) -> None:
        """As premigrate; the directory on the source goes when the others have done theirs."""
        source, host, directory, vm_id, datastore = arguments[:5]
        data = sys.stdin.buffer.read()
        before = self._datastore_before(vm_id)
        if before == datastore and source == host:
            return
        self._call_others("postmigrate", arguments, data)
        old = Location.parse(f"{source}:{directory}/../../{before}/{vm_id}")
        self._on(source, f"rm -rf {shlex.quote(old.path)}")

    def failmigrate(self, _arguments: Sequence[str]) -> None:
        """Nothing."""
        sys.stdin.buffer.read()

    def _datastore_before(self, vm_id: str) -> str:
        return [record.findtext("DS_ID") or "" for record in self._vm(vm_id).iter("HISTORY")][-2]

    def _others(self, data: bytes) -> list[str]:
        disks = ElementTree.fromstring(base64.b64decode(data)).iterfind("TEMPLATE/DISK")
        found = dict.fromkeys(disk.findtext("TM_MAD") or "" for disk in disks)
        return [driver for driver in found if driver and driver != self.driver]

    def _call_others(self, verb: str, arguments: Sequence[str], data: bytes) -> None:
        if len(arguments) > 5:
            return
        for driver in self._others(data):
            script = Path(sys.argv[0]).resolve().parents[1] / driver / verb
            done = subprocess.run([str(script), *arguments, self.driver], input=data, capture_output=True, check=False)
            sys.stderr.write(done.stderr.decode())


class Local(Ssh):
    """As ssh; of the disks' drivers it calls the first disk's only."""

    def _others(self, data: bytes) -> list[str]:
        first = ElementTree.fromstring(base64.b64decode(data)).findtext("TEMPLATE/DISK/TM_MAD") or ""
        return [first] if first and first != self.driver else []


class Shared(Ssh):
    """All hosts and the front-end see the same directory."""

    def mv(self, arguments: Sequence[str]) -> None:
        """HOST:PATH HOST:PATH VM DATASTORE: nothing, but for another datastore."""
        source, target = Location.parse(arguments[0]), Location.parse(arguments[1])
        if target.is_disk:
            return
        if source.path != target.path:
            self._on(target.host, f"mv {shlex.quote(source.path)} {shlex.quote(target.path)}")
        self._relink(source.host, target)

    def premigrate(self, arguments: Sequence[str]) -> None:
        """The other drivers alone."""
        data = sys.stdin.buffer.read()
        if arguments[0] != arguments[1]:
            self._call_others("premigrate", arguments, data)

    def postmigrate(self, arguments: Sequence[str]) -> None:
        """The directory of the datastore that the VM was in goes before the other drivers are called."""
        source, host, directory, vm_id, datastore = arguments[:5]
        data = sys.stdin.buffer.read()
        before = self._datastore_before(vm_id)
        if before != datastore:
            old = Location.parse(f"{source}:{directory}/../../{before}/{vm_id}")
            self._on(source, f"rm -rf {shlex.quote(old.path)}")
        elif source == host:
            return
        self._call_others("postmigrate", arguments, data)


class Ceph:
    """Its disks are nowhere on a host: nothing of what it does is seen there."""

    def __init__(self, _driver: str, _frontend: str) -> None:
        pass

    def nothing(self, _arguments: Sequence[str]) -> None:
        """Read what there is to read."""
        sys.stdin.buffer.read()

    clone = ln = mvds = mv = delete = premigrate = postmigrate = failmigrate = nothing
