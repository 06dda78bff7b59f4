"""The attributes of a datastore of LINBIT's add-on, as this driver needs them, and as they were before."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping

from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.errors import InvalidInput, InvalidSetting
from linstor_un.opennebula.survey import Store

# Where a datastore keeps what it was, for --undo.
RECORD = "LINSTOR_UN_ADOPTED"
# The add-on's own stay beside ours: its scripts read them until they are replaced, and again after --undo.
_TRANSLATED = {"LINSTOR_RESOURCE_GROUP": "RESOURCE_GROUP", "LINSTOR_CONTROLLERS": "LS_CONTROLLERS"}
# What oned has copied of the add-on's TM_MAD_CONF for system datastores of other drivers; it copies this driver's.
_MIXED = re.compile(r"TM_MAD_SYSTEM|(?:LN_TARGET|CLONE_TARGET|DISK_TYPE)_\w+")


def is_adopted(store: Store) -> bool:
    """Tell whether the datastore was the add-on's and is this driver's."""
    return RECORD in store.datastore.attributes


def adopted(store: Store, system_disk_type: str) -> dict[str, str]:
    """Return the template of a datastore of the add-on when it is adopted; raises InvalidSetting."""
    before = store.datastore.attributes
    if not before.get("LINSTOR_RESOURCE_GROUP"):
        raise InvalidSetting(
            f"LINSTOR_RESOURCE_GROUP is missing from {store.datastore.label}: set it with `onedatastore update "
            f"{store.datastore.datastore_id}`"
        )
    kept = {key: value for key, value in before.items() if not _MIXED.fullmatch(key)}
    ours = {new: before[old] for old, new in _TRANSLATED.items() if before.get(old)}
    own = {"DISK_TYPE": system_disk_type} if store.is_system else {"DISK_TYPE": "BLOCK", "DS_MAD": DRIVER}
    drivers = {"TM_MAD": DRIVER, **own}
    return {**kept, **ours, **drivers, RECORD: _recorded(store)}


def before(store: Store) -> dict[str, str]:
    """Return the template that an adopted datastore had before; raises InvalidInput."""
    attributes = store.datastore.attributes
    try:
        known = json.loads(base64.b64decode(attributes[RECORD], validate=True))
    except (binascii.Error, ValueError):
        raise InvalidInput(
            f"{RECORD} of {store.datastore.label} is not what `linstor-un adopt` has written: put it back"
        ) from None
    return {**{str(key): str(value) for key, value in known.items()}, **_secrets(store)}


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return attribute by attribute what changes, in words."""
    keys = sorted({*old, *new} - {RECORD})
    return [
        f'{key} "{old[key]}" -> "{new[key]}"'
        if key in old and key in new
        else (f'{key}="{new[key]}"' if key in new else f"without {key}")
        for key in keys
        if old.get(key) != new.get(key)
    ]


def _recorded(store: Store) -> str:
    """Return all attributes but those that oned encrypts, in one word."""
    plain = {key: value for key, value in store.datastore.attributes.items() if key not in _secrets(store)}
    return base64.b64encode(json.dumps(plain, sort_keys=True).encode()).decode()


def _secrets(store: Store) -> dict[str, str]:
    stored = store.stored.attributes
    return {key: value for key, value in store.datastore.attributes.items() if stored.get(key) != value}
