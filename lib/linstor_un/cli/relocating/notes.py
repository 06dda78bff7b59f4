"""What interrupted moves are to do yet, where nobody but oned's administrators can write: in their own user's template.

Images' templates are their owners' to edit: whoever could write there which image is whose successor, or which VM is to
get a disk, would have this command do it with an administrator's rights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from linstor_un import locks
from linstor_un.errors import InvalidInput
from linstor_un.opennebula import catalogue, changes
from linstor_un.settings import Settings, lock_directory

_ATTRIBUTE = "LINSTOR_UN_MOVES"
_WAIT_SECONDS = 30


class Note(NamedTuple):
    """How far one image's move is.

    `is_held` where the old image was disabled for it; `vm_id` and `disk` where a VM is to get a disk of these
    attributes; `new_id` and `name` once the new image has the old one's bytes, and is to be called so.
    """

    is_held: bool = False
    vm_id: int = -1
    disk: Mapping[str, str] = {}
    new_id: int = -1
    name: str = ""


def read() -> dict[int, Note]:
    """Return the notes by their old images' ids; raises OnedUnreachable, InvalidInput for what is none of ours."""
    text = catalogue.own_user().attributes.get(_ATTRIBUTE, "") or "{}"
    try:
        return {int(number): Note(**fields) for number, fields in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        raise InvalidInput(
            f"{_ATTRIBUTE} in your template in OpenNebula is {text[:80]!r}: take it out with `oneuser update`"
        ) from None


def write(settings: Settings, image_id: int, note: Note) -> None:
    """Replace the note of one image; one that says nothing is none."""
    with locks.volume_lock(lock_directory(settings), "moves-of-images", _WAIT_SECONDS):
        notes = read()
        notes.pop(image_id, None)
        if note != Note():
            notes[image_id] = note
        text = json.dumps({str(number): item._asdict() for number, item in notes.items()})
        changes.add_to_user(catalogue.own_user().user_id, changes.elements({_ATTRIBUTE: text}))
