"""What sizes volumes may have, in KiB."""

from __future__ import annotations

from typing import Optional

from .. import answers
from ..answers import ApiError

MIN_KIB = 4
MAX_KIB = 1099511627776


def check_size(name: str, number: int, size: int) -> None:
    """206 for a size that no volume can have; below 4 KiB is refused only when there is nothing at all."""
    if 0 < size <= MAX_KIB:
        return
    raise ApiError(
        answers.FAIL_INVLD_VLM_SIZE,
        f"The volume definition with number '{number}' of resource definition '{name}' has an invalid size of "
        f"'{size}'. Valid sizes range from {MIN_KIB} to {MAX_KIB}.",
        cause=f"Volume size value {size} is out of range [1 - 9223372036854775807] for non-DRBD",
    )


def check_peer_slots(given: Optional[int]) -> Optional[int]:
    """As many peers as DRBD's meta-data can have; ApiError for others."""
    if given is not None and not 1 <= given <= 31:
        raise ApiError(answers.FAIL_INVLD_REQUEST, f"Peer slots of {given} are out of range [1 - 31]")
    return given
