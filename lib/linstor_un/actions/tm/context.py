"""tm/context: build the VM's context ISO and put it on its host, as a file beside the links to its volumes.

Arguments: CONTEXT.sh [FILE | FILE:NAME ...] HOST:SYSDIR/disk.N VMID DSID (of the system datastore).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import partial

from linstor_un import settings as settings_room
from linstor_un.driver import Call
from linstor_un.errors import CommandFailed, InvalidInput, MissingDependency
from linstor_un.hosts import directories, runner
from linstor_un.opennebula import arguments

_BLOCK_BYTES = 1 << 20
_BUILDERS = (("xorriso", "-as", "mkisofs"), ("genisoimage",), ("mkisofs",))


def run(call: Call) -> None:
    """Send the ISO to the host while it is made, and replace the one there in one step, as it may be in use."""
    if len(call.arguments) < 4:
        arguments.expect(call.arguments, "CONTEXT.sh", "HOST:PATH", "VMID", "DSID")
    *files, target, vm_id, datastore_id = call.arguments
    arguments.identifier(datastore_id, "DSID")
    place = arguments.disk_place(target, arguments.identifier(vm_id, "VMID"))
    settings = settings_room.from_configuration(call.configuration)
    command = [*_builder(), "-quiet", "-V", "CONTEXT", "-J", "-R", "-graft-points", *map(_graft, files)]
    directories.write_file(runner.host(place.host, settings), place.path, _output(command))


def _graft(file: str) -> str:
    """Return how a file or directory gets into the ISO, under the name behind its first colon where it has one."""
    path, _, name = file.partition(":")
    name = (name.strip("'\"") or os.path.basename(path.rstrip("/"))).lstrip("/")
    if not name or ".." in name.split("/") or not path.startswith("/"):
        raise InvalidInput(f"Context file {file[:200]!r} is not /path or /path:name: correct CONTEXT/FILES")
    if not os.access(path, os.R_OK):
        raise InvalidInput(f"Context file {path} is not there or cannot be read: correct CONTEXT/FILES")
    # From the ISO's root, so that no name is an option of the program; and what a link leads to, not the link.
    return f"/{_escaped(name)}={_escaped(os.path.realpath(path))}"


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace("=", "\\=")


def _output(command: Sequence[str]) -> Iterator[bytes]:
    """Yield what a command prints; raises CommandFailed when it ends badly, before anybody takes it for whole."""
    # In memory: nothing is left of it however this ends, and no disk of the front-end has to have room.
    with os.fdopen(os.memfd_create(command[0]), "r+b") as complaints:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        assert process.stdout is not None
        try:
            yield from iter(partial(process.stdout.read, _BLOCK_BYTES), b"")
            process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if process.returncode:
            complaints.seek(0)
            reason = " ".join(complaints.read().decode("utf-8", "replace").split())[-300:]
            raise CommandFailed(f"{command[0]} could not build the context ISO: {reason}; correct CONTEXT/FILES")


def _builder() -> Sequence[str]:
    for command in _BUILDERS:
        if shutil.which(command[0]):
            return command
    raise MissingDependency("No program that builds ISO images is on the front-end: install xorriso or genisoimage")
