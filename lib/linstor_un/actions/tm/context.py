"""tm/context: build the VM's context ISO and put it on its host, as a file beside the links to its volumes.

Arguments: CONTEXT.sh [FILE | FILE:NAME ...] HOST:SYSDIR/disk.N VMID DSID (of the system datastore).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from linstor_un import settings as settings_room
from linstor_un.driver import Call
from linstor_un.errors import CommandFailed, InvalidInput, MissingDependency
from linstor_un.hosts import directories, runner
from linstor_un.opennebula import arguments

_BUILDERS = (("xorriso", "-as", "mkisofs"), ("genisoimage",), ("mkisofs",))


def run(call: Call) -> None:
    """Make the ISO on the front-end and replace the host's in one step, as it may be in use."""
    if len(call.arguments) < 4:
        arguments.expect(call.arguments, "CONTEXT.sh", "HOST:PATH", "VMID", "DSID")
    *files, target, vm_id, datastore_id = call.arguments
    arguments.identifier(datastore_id, "DSID")
    place = arguments.disk_place(target, arguments.identifier(vm_id, "VMID"))
    settings = settings_room.from_configuration(call.configuration)
    with tempfile.TemporaryDirectory(prefix="linstor_un-context-") as directory:
        content = os.path.join(directory, "content")
        os.mkdir(content)
        for file in files:
            _add(file, content)
        iso = os.path.join(directory, "context.iso")
        _build(iso, content)
        directories.write_file(runner.host(place.host, settings), place.path, iso)


def _add(file: str, directory: str) -> None:
    """Copy one file or directory, under the name behind its first colon where it has one."""
    path, _, name = file.partition(":")
    name = (name.strip("'\"") or os.path.basename(path.rstrip("/"))).lstrip("/")
    if not name or ".." in name.split("/") or not path.startswith("/"):
        raise InvalidInput(f"Context file {file[:200]!r} is not /path or /path:name: correct CONTEXT/FILES")
    target = os.path.join(directory, name)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(path):
            shutil.copytree(path, target, symlinks=True)
        else:
            shutil.copyfile(path, target)
    except (OSError, shutil.Error) as failure:
        raise InvalidInput(f"Context file {path} cannot be read ({failure}): correct CONTEXT/FILES") from None


def _build(iso: str, content: str) -> None:
    command = [*_builder(), "-o", iso, "-V", "CONTEXT", "-J", "-R", content]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    if done.returncode:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        raise CommandFailed(
            f"{command[0]} could not build the context ISO: {reason}; free space in {tempfile.gettempdir()}?"
        )


def _builder() -> Sequence[str]:
    for command in _BUILDERS:
        if shutil.which(command[0]):
            return command
    raise MissingDependency("No program that builds ISO images is on the front-end: install xorriso or genisoimage")
