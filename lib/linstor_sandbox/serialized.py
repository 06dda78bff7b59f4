"""JSON of whole definitions, kept from call to call: what makes lists of ten thousand volumes fast."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Callable

from .answers import JsonObject
from .model import Cluster, ResourceDefinition

FROM = 500
"""From so many definitions on it is worth it; smaller clusters are described anew every time."""


class Joined:
    """The items of a JSON list, already serialised."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def __bytes__(self) -> bytes:
        return b"[" + b",".join(self.parts) + b"]"


class Serialized:
    """What was last said about each definition, and whether it still holds."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._kept: dict[tuple[str, str], tuple[object, bytes]] = {}

    def items(
        self,
        kind: str,
        definitions: Iterable[ResourceDefinition],
        describe: Callable[[ResourceDefinition], list[JsonObject]],
    ) -> Joined:
        """All items that describe these definitions; `kind` names the description."""
        keep = len(self.cluster.definitions) >= FROM
        parts = [self._part(kind, definition, describe, keep) for definition in definitions]
        return Joined([part for part in parts if part])

    def _part(
        self,
        kind: str,
        definition: ResourceDefinition,
        describe: Callable[[ResourceDefinition], list[JsonObject]],
        keep: bool,
    ) -> bytes:
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
