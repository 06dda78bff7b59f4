"""datastore/export: make a file of an image for a marketplace; prints where it is, and how to remove it.

The action's id is the marketplace app's, not the image's.
"""

from __future__ import annotations

import shlex

from linstor_un.actions import datastore_action, image_reader
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput
from linstor_un.hosts import copies


def run(call: Call) -> None:
    """Convert the image to a qcow2 file on a node that holds it, and print the <IMPORT_INFO>."""
    action = datastore_action.decode(call, image="with another's id")
    image = action.need_image()
    if not image.size_mib:
        raise InvalidInput("<IMAGE/SIZE> is missing or 0: export an image that has a size")
    resource = datastore_action.resource_of_source(image.source)
    with image_reader.reading(action.gateway(), resource) as reader:
        file = copies.export(reader.host, reader.device, image.size_mib * datastore_action.MIB)
    command = f"ssh {shlex.quote(reader.host.name)} rm -f {shlex.quote(file.path)}"
    call.answer(
        "<IMPORT_INFO>\n"
        f"  <IMPORT_SOURCE><![CDATA[ssh://{reader.host.name}:{file.path}]]></IMPORT_SOURCE>\n"
        f"  <MD5><![CDATA[{file.md5}]]></MD5>\n"
        f"  <SIZE><![CDATA[{image.size_mib}]]></SIZE>\n"
        "  <FORMAT><![CDATA[qcow2]]></FORMAT>\n"
        "  <DISPOSE>YES</DISPOSE>\n"
        f"  <DISPOSE_CMD><![CDATA[{command}]]></DISPOSE_CMD>\n"
        "</IMPORT_INFO>"
    )
