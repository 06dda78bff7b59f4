"""datastore/export: make a file of an image for a marketplace; prints where it is, and how to remove it.

The action's id is the marketplace app's, not the image's.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from linstor_un.actions import cloning, datastore_action, image_reader
from linstor_un.actions.datastore_action import DatastoreAction
from linstor_un.actions.image_reader import Reader
from linstor_un.cluster import placement as placements
from linstor_un.cluster import replicas, snapshots, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput, NotReady
from linstor_un.hosts import copies
from linstor_un.hosts.copies import ExportedFile
from linstor_un.naming import resource_of_source
from linstor_un.opennebula.model import Image
from linstor_un.undo import Undo
from linstor_un.units import MIB

_SNAPSHOT = "export"


def run(call: Call) -> None:
    """Convert the image to a qcow2 file on a node that holds it, and print the <IMPORT_INFO>."""
    action = datastore_action.decode(call, image="with another's id")
    image = action.need_image()
    if not image.size_mib:
        raise InvalidInput("<IMAGE/SIZE> is missing or 0: export an image that has a size")
    resource = resource_of_source(image.source)
    with Undo() as undo:
        with _still(action, image, resource) as reader:
            file = copies.export(reader.host, reader.device, image.size_mib * MIB)
            undo.push(f"{file.path} on {reader.host.name}", file.remove)
        call.answer(_import_info(reader.host.name, file))
        file.keep()


def _import_info(host: str, file: ExportedFile) -> str:
    command = f"ssh {shlex.quote(host)} rm -f {shlex.quote(file.path)}"
    return (
        "<IMPORT_INFO>\n"
        f"  <IMPORT_SOURCE><![CDATA[ssh://{host}:{file.path}]]></IMPORT_SOURCE>\n"
        f"  <MD5><![CDATA[{file.md5}]]></MD5>\n"
        f"  <SIZE><![CDATA[{-(-file.size_bytes // MIB)}]]></SIZE>\n"
        "  <FORMAT><![CDATA[qcow2]]></FORMAT>\n"
        "  <DISPOSE>YES</DISPOSE>\n"
        f"  <DISPOSE_CMD><![CDATA[{command}]]></DISPOSE_CMD>\n"
        "</IMPORT_INFO>"
    )


@contextmanager
def _still(action: DatastoreAction, image: Image, resource: str) -> Iterator[Reader]:
    """Have the image to read for the length of the block; where a VM writes to it, as it is at this moment."""
    gateway = action.gateway()
    known = replicas.of(gateway, resource)
    if not any(replica.in_use for replica in known):
        with image_reader.reading(gateway, resource, known) as reader:
            yield reader
        return
    passing = action.names.passing(resource)
    with action.lock(passing), Undo() as undo:
        _restore(action, gateway, undo, image, resource)
        with image_reader.reading(gateway, passing) as reader:
            yield reader
        volumes.remove(gateway, passing)


def _restore(action: DatastoreAction, gateway: Gateway, undo: Undo, image: Image, resource: str) -> None:
    """Make a volume of what the image is now, by a snapshot that goes again."""
    placement = placements.of(action.settings, action.datastore.label)
    owner = action.names.image_properties(image.image_id)
    passing = action.names.passing(resource)
    wanted = cloning.Clone(resource, image.size_mib, passing, image.size_mib, placement, owner)
    undo.push(f"snapshot {_SNAPSHOT}", lambda: snapshots.forget(gateway, resource, _SNAPSHOT))
    snapshots.forget(gateway, resource, _SNAPSHOT)
    snapshots.take(gateway, resource, _SNAPSHOT)
    found = snapshots.find(gateway, resource, _SNAPSHOT)
    if found is None:
        raise NotReady(f"The snapshot of {resource} for its export went away: retry")
    cloning.restore(gateway, undo, wanted, found)
    snapshots.forget(gateway, resource, _SNAPSHOT)
