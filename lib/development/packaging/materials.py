"""The bill of materials: what the packages contain and need, with versions and licences, as CycloneDX 1.5 has it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from development.packaging.source import Vendored
from linstor_un import __version__

_LICENCE = "Apache-2.0"
_VENDORED_LICENCE = "LGPL-3.0-or-later"
# What distributions bring: whose, and under which licence.
_NEEDED = {"python3": "PSF-2.0", "lxml": "BSD-3-Clause", "click": "BSD-3-Clause"}


def bill(vendored: Vendored, epoch: int) -> str:
    """Return the bill as JSON, dated `epoch` seconds."""
    inside = {
        **_component("library", vendored.name, _VENDORED_LICENCE, vendored.version),
        "hashes": [{"alg": "SHA-256", "content": vendored.sha256}],
    }
    needed = [_component("library", name, licence) for name, licence in _NEEDED.items()]
    own = _component("application", "linstor_un", _LICENCE, __version__)
    components = [inside, *needed]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
            "component": own,
        },
        "components": components,
        "dependencies": [{"ref": own["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]}],
    }
    # The same contents have the same number.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return json.dumps({**document, "serialNumber": f"urn:uuid:{number}"}, indent=2) + "\n"


def _component(kind: str, name: str, licence: str, version: str = "") -> dict[str, Any]:
    """Return a component; without a version it is one that the distribution brings."""
    place = f"pkg:pypi/{name.replace('_', '-')}@{version}" if version else f"pkg:generic/{name}"
    return {
        "type": kind,
        "bom-ref": place,
        "name": name,
        **({"version": version, "purl": place} if version else {"description": "of the distribution, not contained"}),
        "licenses": [{"license": {"id": licence}}],
    }
