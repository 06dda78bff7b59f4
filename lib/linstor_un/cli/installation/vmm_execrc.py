"""LIVE_DISK_SNAPSHOTS in vmm_execrc: without the driver in it oned refuses snapshots of a running VM's disks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

# What a shell takes when it sources the file: a later assignment wins.
_ASSIGNMENT = re.compile(
    r"^LIVE_DISK_SNAPSHOTS=(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s#\"']*))", re.MULTILINE
)


def pairs(text: str) -> list[str]:
    """Return the pairs of hypervisor and transfer driver for which oned allows live snapshots."""
    found = _last(text)
    return (found.group(found.lastgroup or 0) or "").split() if found else []


def missing(text: str, wanted: Sequence[str]) -> list[str]:
    """Return those of the wanted pairs that the file does not have."""
    given = pairs(text)
    return [pair for pair in wanted if pair not in given]


def with_pairs(text: str, added: Sequence[str]) -> str:
    """Return the text with these pairs behind the others."""
    found = _last(text)
    if found is None:
        eol = "\r\n" if "\r\n" in text else "\n"
        begin = "" if not text or text.endswith("\n") else eol
        return f'{text}{begin}LIVE_DISK_SNAPSHOTS="{" ".join(added)}"{eol}'
    if found.lastgroup == "bare":
        return f'{text[: found.start("bare")]}"{" ".join([*pairs(text), *added])}"{text[found.end() :]}'
    end = found.end(found.lastgroup or 0)
    blank = " " if pairs(text) else ""
    return f"{text[:end]}{blank}{' '.join(added)}{text[end:]}"


def without_pairs(text: str, removed: Sequence[str]) -> str:
    """Return the text without these pairs."""
    found = _last(text)
    if found is None or not found.lastgroup:
        return text
    start, end = found.span(found.lastgroup)
    value = text[start:end]
    for pair in removed:
        value = re.sub(rf"[ \t]?(?<!\S){re.escape(pair)}(?!\S)", "", value)
    return text[:start] + value + text[end:]


def _last(text: str) -> Optional[re.Match[str]]:
    return next(reversed(list(_ASSIGNMENT.finditer(text))), None)
