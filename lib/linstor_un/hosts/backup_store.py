"""Asking the driver of a backup datastore, on the front-end, where the disks of a backup are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from linstor_un.errors import CommandFailed, InvalidInput
from linstor_un.hosts.runner import Host, Step

_LIST = """
receive | "$1" -i "$2"
"""


def urls(frontend: Host, drivers: str, driver: str, increment_id: int, document: bytes) -> Mapping[int, str]:
    """Return the URL of each disk of a backup as of one of its increments, by the disks' ids.

    Arguments: `drivers` is the folder of the datastore drivers; `increment_id` is -1 for the newest; `document` is the
    XML of datastore, VM and image (opennebula-contract.md, 6). Raises InvalidInput, and as Host.run.
    """
    if not re.fullmatch(r"[a-z0-9_-]+", driver):
        raise InvalidInput(f"The backup datastore has DS_MAD {driver[:80]!r}, which is no driver's name: correct it")
    what = f"Looking for the disks of the backup with {driver}/ls"
    with frontend.feed(what, Step(_LIST, (f"{drivers}/{driver}/ls", increment_id))) as feed:
        feed.send(document)
        feed.end()
        told = feed.finish()
    try:
        found = dict(json.loads(told))
    except (ValueError, TypeError):
        raise CommandFailed(f"{what} failed: it printed no list of URLs; see /var/log/one/oned.log") from None
    # A virtual TPM's state comes under its name.
    return {int(key): str(url) for key, url in found.items() if key.isdigit()}
