"""What oned.conf must say for VMs whose disks are of one driver and whose system datastore is another's.

opennebula-contract.md, 11: an image datastore names in TM_MAD_SYSTEM the drivers of the system datastores that VMs with
its images may be in, and has three values for each. oned copies them from TM_MAD_CONF when a datastore is made or
updated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, Optional

from linstor_un.actions.mixed_mode import SYSTEM_DRIVERS
from linstor_un.cli.installation.oned_conf import DRIVER
from linstor_un.cli.installation.oned_syntax import Attribute, Pair, attributes
from linstor_un.errors import InvalidInput

_LIST = "TM_MAD_SYSTEM"


class Mode(NamedTuple):
    """Images of one driver in system datastores of another."""

    images: str
    system: str
    values: Mapping[str, str]

    @property
    def keys(self) -> dict[str, str]:
        """Return the pairs that the stanza of the images' driver must have for this mode."""
        return {f"{name}_{self.system.upper()}": value for name, value in self.values.items()}


# Disks stay volumes of LINSTOR, whose room is the image datastore's.
_VOLUMES = {"LN_TARGET": "NONE", "CLONE_TARGET": "SELF", "DISK_TYPE": "BLOCK"}
# By the names that an operator gives them: the driver that is not this one.
MODES = {
    **{name: Mode(DRIVER, name, _VOLUMES) for name in SYSTEM_DRIVERS},
    "ceph": Mode("ceph", DRIVER, {"LN_TARGET": "NONE", "CLONE_TARGET": "SELF", "DISK_TYPE": "RBD"}),
}


class Fault(NamedTuple):
    """A pair of a mode's stanza that lacks (`value` is empty) or is another than it must be."""

    mode: str
    key: str
    value: str
    wanted: str


def parse(names: str) -> list[str]:
    """Return the modes that an operator has named, parted by commas; raises InvalidInput."""
    found = [name.strip().lower() for name in names.split(",") if name.strip()]
    unknown = [name for name in found if name not in MODES]
    if unknown:
        raise InvalidInput(
            f"--mixed does not know {', '.join(unknown)[:200]}: it takes {', '.join(MODES)}, parted by commas"
        )
    return list(dict.fromkeys(found))


def named(text: str) -> list[str]:
    """Return the modes that this oned.conf speaks of, in the list or by a value; raises UnreadableConfiguration."""
    return [name for name, mode in MODES.items() if _speaks_of(_stanza(text, mode.images), mode)]


def faults(text: str) -> list[Fault]:
    """Return what lacks or is wrong for the modes that this oned.conf speaks of; raises UnreadableConfiguration."""
    return [fault for name in named(text) for fault in _faults(text, name)]


def copied(text: str) -> dict[str, str]:
    """Return what oned copies into this driver's image datastores; raises UnreadableConfiguration."""
    stanza = _stanza(text, DRIVER)
    if stanza is None or not stanza.text(_LIST):
        return {}
    modes = [mode for mode in MODES.values() if mode.images == DRIVER and mode.system in _items(stanza)]
    return {name: stanza.text(name) for name in (_LIST, *(key for mode in modes for key in mode.keys))}


def unwanted(text: str) -> list[str]:
    """Return the drivers whose stanzas let their images into this driver's system datastores, and should not."""
    allowed = {mode.images for mode in MODES.values() if mode.system == DRIVER}
    found = [item for item in attributes(text) if item.name == "TM_MAD_CONF" and DRIVER in _items(item)]
    return [item.text("NAME") for item in found if item.text("NAME") not in {*allowed, DRIVER}]


def edited(text: str, names: Collection[str]) -> str:
    """Return the text with all that these modes need; raises InvalidInput where a driver has no stanza."""
    for name in names:
        mode = MODES[name]
        if _stanza(text, mode.images) is None:
            raise InvalidInput(f"oned.conf has no TM_MAD_CONF of {mode.images}: --mixed {name} needs one")
        text = _listed(text, mode)
        for number, (key, value) in enumerate(mode.keys.items()):
            text = _set(text, mode.images, key, value, begins_line=number == 0)
    return text


def reverted(text: str, before: str) -> str:
    """Return the text without what `edited` has put into it since it was `before`; values that it had come back."""
    for name in reversed(named(text)):
        mode = MODES[name]
        then = _stanza(before, mode.images)
        for key, value in reversed(list(mode.keys.items())):
            text = _unset(text, mode.images, key, value, then.pair(key) if then else None)
        if then is None or mode.system not in _items(then):
            text = _unlisted(text, mode, then)
    return text


def _stanza(text: str, driver: str) -> Optional[Attribute]:
    found = (item for item in attributes(text) if item.name == "TM_MAD_CONF" and item.text("NAME") == driver)
    return next(found, None)


def _items(stanza: Attribute) -> list[str]:
    return [item.strip() for item in stanza.text(_LIST).split(",") if item.strip()]


def _speaks_of(stanza: Optional[Attribute], mode: Mode) -> bool:
    return stanza is not None and (mode.system in _items(stanza) or any(map(stanza.pair, mode.keys)))


def _faults(text: str, name: str) -> Iterator[Fault]:
    mode = MODES[name]
    stanza = _stanza(text, mode.images)
    assert stanza is not None, "the mode is spoken of in it"
    if mode.system not in _items(stanza):
        yield Fault(name, _LIST, stanza.text(_LIST), ",".join([*_items(stanza), mode.system]))
    for key, wanted in mode.keys.items():
        if stanza.text(key).upper() != wanted:
            yield Fault(name, key, stanza.text(key), wanted)


# --- Editing ----------------------------------------------------------------------------------------------------------


def _listed(text: str, mode: Mode) -> str:
    stanza = _stanza(text, mode.images)
    assert stanza is not None, "looked for before"
    items = _items(stanza)
    return text if mode.system in items else _set(text, mode.images, _LIST, ",".join([*items, mode.system]), True)


def _unlisted(text: str, mode: Mode, then: Optional[Attribute]) -> str:
    stanza = _stanza(text, mode.images)
    pair = stanza.pair(_LIST) if stanza else None
    if stanza is None or pair is None:
        return text
    items = [item for item in _items(stanza) if item != mode.system]
    was = then.pair(_LIST) if then else None
    if not items and was is None:
        return _cut_pair(text, pair)
    # What stood there before comes back as it was written.
    return _valued(text, pair, was.value if was and items == _items(then or stanza) else ",".join(items))


def _set(text: str, driver: str, key: str, value: str, begins_line: bool) -> str:
    stanza = _stanza(text, driver)
    assert stanza is not None, "looked for before"
    pair = stanza.pair(key)
    if pair is not None:
        return text if pair.value.upper() == value else _valued(text, pair, value)
    end = stanza.pairs[-1].span.end
    newline = "\r\n" if "\r\n" in text else "\n"
    return f'{text[:end]},{f"{newline}    " if begins_line else " "}{key} = "{value}"{text[end:]}'


def _unset(text: str, driver: str, key: str, value: str, then: Optional[Pair]) -> str:
    stanza = _stanza(text, driver)
    pair = stanza.pair(key) if stanza else None
    if pair is None or pair.value.upper() != value:
        return text
    return _cut_pair(text, pair) if then is None else _valued(text, pair, then.value)


def _valued(text: str, pair: Pair, value: str) -> str:
    return text[: pair.inner.start] + value + text[pair.inner.end :]


def _cut_pair(text: str, pair: Pair) -> str:
    start = len(re.sub(r",\s*$", "", text[: pair.span.start]))
    return text[:start] + text[pair.span.end :]
