"""JSON of whole definitions: sent piece by piece, and kept from call to call for lists of ten thousand volumes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Callable

from .answers import JsonObject
from .model import Cluster, ResourceDefinition

FROM = 500
"""From so many definitions on keeping is worth it; smaller clusters are described anew every time."""
AT_A_TIME = 500
"""So many definitions make a piece. A list of no more shows one moment; a longer one as many moments as it has pieces,
as nothing else could be done meanwhile if all of it was described at once."""


class Pieces:
    """A JSON list that is serialised while it is sent; its first piece is made at once."""

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        definitions: list[ResourceDefinition],
        serialize: Callable[[ResourceDefinition], bytes],
    ) -> None:
        self.more = len(definitions) > AT_A_TIME
        self._lock = lock
        self._serialize = serialize
        self._pieces = self._made(definitions)
        self.first = next(self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        """All pieces, once."""
        yield self.first
        yield from self._pieces

    def keep(self) -> bytes:
        """The whole list, which can be sent all the same."""
        self.first, self.more, self._pieces = b"".join(self), False, iter(())
        return self.first

    def _made(self, definitions: list[ResourceDefinition]) -> Iterator[bytes]:
        sent = False
        for start in range(0, len(definitions) or 1, AT_A_TIME):
            with self._lock:
                text = b",".join(filter(None, map(self._serialize, definitions[start : start + AT_A_TIME])))
            opening = b"[" if start == 0 else b"," if sent and text else b""
            sent = sent or bool(text)
            yield opening + text + b"]" * (start + AT_A_TIME >= len(definitions))


class Serialized:
    """What was last said about each definition, and whether it still holds."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._kept: dict[tuple[str, str], tuple[object, bytes]] = {}

    def items(
        self,
        kind: str,
        definitions: list[ResourceDefinition],
        describe: Callable[[ResourceDefinition], list[JsonObject]],
    ) -> Pieces:
        """All items that describe these definitions; `kind` names the description, "" one that is not kept."""
        keep = bool(kind) and len(self.cluster.definitions) >= FROM
        return Pieces(self.cluster.lock, definitions, lambda definition: self._part(kind, definition, describe, keep))

    def _part(
        self,
        kind: str,
        definition: ResourceDefinition,
        describe: Callable[[ResourceDefinition], list[JsonObject]],
        keep: bool,
    ) -> bytes:
        # It may have been deleted since the first piece.
        if self.cluster.definitions.get(definition.name) is not definition:
            return b""
        key = (kind, definition.uuid)
        stamp = (self.cluster.epoch, definition.stamp)
        found = self._kept.get(key)
        if keep and found is not None and found[0] == stamp:
            return found[1]
        described = json.dumps(describe(definition), separators=(",", ":"), ensure_ascii=False)
        text = described[1:-1].encode("utf-8", "replace")
        if keep and not _moving(definition):
            self._kept[key] = (stamp, text)
        return text


def _moving(definition: ResourceDefinition) -> bool:
    """Whether it changes by itself: a sync that ends, bytes that somebody writes."""
    now = time.monotonic()
    written = [content for resource in definition.resources for content in resource.contents.values()]
    written += definition.contents.values()
    return any(content.written for content in written) or any(res.synced_at > now for res in definition.resources)
