"""What LINSTOR has: volumes and their placement for the table, and what differs between two states."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linstor_sandbox.demo.images import MIB
from linstor_sandbox.properties import ALLOW_TWO_PRIMARIES

if TYPE_CHECKING:
    from linstor_sandbox import Sandbox


_DATASTORE_DIRECTORY = re.compile(r"(var/)?lib/one/datastores/\d+")


@dataclass(frozen=True)
class Volume:
    """A resource with one volume; `places`: what is on each node; `allocated`: bytes of one replica."""

    name: str
    size_kib: int
    allocated: int
    places: Mapping[str, str]

    @property
    def replicas(self) -> int:
        """How many nodes keep its bytes."""
        return sum(place.startswith("replica") for place in self.places.values())

    @property
    def attached(self) -> bool:
        """Some node has it attached without a replica, or a VM has it open; a tie-breaker is LINSTOR's own."""
        return any(place.startswith("diskless") or place.endswith("*") for place in self.places.values())

    def row(self, nodes: Sequence[str]) -> list[str]:
        """A line of the table."""
        size, allocated = f"{self.size_kib // 1024} MiB", f"{self.allocated / MIB:.1f} MiB"
        return [self.name, size, allocated, *(self.places.get(node, "") for node in nodes)]


def read(sandbox: Sandbox) -> list[Volume]:
    """Every resource, as the REST interface tells."""
    resources = _get(sandbox, "/v1/view/resources")
    definitions = _get(sandbox, "/v1/resource-definitions?with_volume_definitions=true")
    return [
        Volume(
            definition["name"],
            definition["volume_definitions"][0]["size_kib"],
            sandbox.allocated(definition["name"]),
            {entry["node_name"]: _place(entry) for entry in resources if entry["name"] == definition["name"]},
        )
        for definition in sorted(definitions, key=lambda definition: str(definition["name"]))
    ]


def _get(sandbox: Sandbox, path: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(sandbox.uri + path, timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def _place(entry: Mapping[str, Any]) -> str:
    flags = entry.get("flags", [])
    if "TIE_BREAKER" in flags:
        return "tie-breaker"
    kind = "diskless" if any("DISKLESS" in flag for flag in flags) else "replica"
    in_use = entry.get("state", {}).get("in_use", False)
    return f"{kind} *" if in_use else kind


def with_two_primaries(state: Mapping[str, Any]) -> list[str]:
    """The volumes that may be primary on two nodes at once, with the nodes."""
    found = []
    for name, definition in state["resource_definitions"].items():
        containers = {"all nodes": definition["props"], **definition["connections"]}
        found += [f"{name} on {place}" for place, props in containers.items() if ALLOW_TWO_PRIMARIES in props]
    return found


def of_images_and_vms(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state without what belongs to a datastore: resource groups, and the directory of a datastore on each host."""
    files = {
        node: {path: what for path, what in found.items() if not _DATASTORE_DIRECTORY.fullmatch(path)}
        for node, found in state["files"].items()
    }
    return {**state, "resource_groups": {}, "files": files}


def differences(before: object, after: object, place: str = "") -> list[str]:
    """What is in one state and not in the other, each in a few words."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            told
            for key in sorted({*before, *after}, key=str)
            for told in differences(before.get(key), after.get(key), f"{place}/{key}")
        ]
    if before == after:
        return []
    if before is None:
        return [f"{place} is left: {after!r:.80}"]
    return [f"{place} was {before!r:.80} and is {after!r:.80}"]
