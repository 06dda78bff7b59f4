"""The picture as text: each node with its pools, the VMs on it and their volumes, and the replicas of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from linstor_un.cli.mapping.picture import ATTACHED, TIE_BREAKER, Box, Drawn, Picture, Spot

_BAR = 20
_MARKS = {ATTACHED: "o", TIE_BREAKER: "·"}


def lines(picture: Picture) -> Iterator[str]:
    """Yield the lines, the last of which says what the signs mean."""
    for box in picture.boxes:
        key = box.name.lower()
        here = [volume for volume in picture.volumes if any(spot.node.lower() == key for spot in volume.spots)]
        yield f"{box.name}  {box.state}"
        for pool in box.pools:
            yield f"  {pool.name} {pool.kind} {_bar(pool.used_percent)} {pool.used_percent}% of {pool.total_gib} GiB"
        yield from _guests(box, key, here, picture.volumes)
        guests = {guest.vm_id for guest in box.guests}
        others = [volume for volume in here if not guests.intersection(volume.vm_ids)]
        if others:
            yield "  without a VM here"
            yield from (f"    {_volume(volume, key)}" for volume in others)
        yield ""
    yield "■ replica  □ not up to date  o attached  · tie-breaker  * primary"


def _guests(box: Box, key: str, here: Sequence[Drawn], every: Sequence[Drawn]) -> Iterator[str]:
    for guest in box.guests:
        own = [volume for volume in every if guest.vm_id in volume.vm_ids]
        if own:
            yield f"  VM {guest.vm_id} ({guest.name})"
        for volume in own:
            missing = "" if volume in here else "  not here!"
            yield f"    {_volume(volume, key)}{missing}"


def _bar(percent: int) -> str:
    full = round(_BAR * percent / 100)
    return "[" + "#" * full + "-" * (_BAR - full) + "]"


def _volume(volume: Drawn, key: str) -> str:
    first = [spot for spot in volume.spots if spot.node.lower() == key]
    others = [spot for spot in volume.spots if spot.node.lower() != key]
    elsewhere = " ".join(f"{_mark(spot)} {spot.node}" for spot in others)
    here = _mark(first[0]) if first else " "
    return f"{here:<2} {volume.name}  {volume.size_gib} GiB  {volume.state}  {elsewhere}".rstrip()


def _mark(spot: Spot) -> str:
    mark = _MARKS.get(spot.role) or ("■" if spot.is_good else "□")
    return mark + ("*" if spot.is_primary else "")
