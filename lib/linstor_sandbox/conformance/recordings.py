"""The recorded exchanges with a real controller, as they lie beside the project."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

# What a note says of the resources of one definition.
_STATE = re.compile(r"(n\d) pool=(\S+) flags=(\[[^\]]*\]) in_use=(\w+) disk=(\[[^\]]*\])")
FOLDER = Path(__file__).resolve().parents[4] / "shared" / "linstor-transcripts"


@dataclass(frozen=True)
class Exchange:
    """One entry of a recording: a request with its answer, or (method "") only a note."""

    number: int
    note: str
    method: str = ""
    path: str = ""
    query: str = ""
    body: Any = None
    status: Optional[int] = None
    answer: Any = None

    @property
    def line(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}" if self.method else "the resources of one definition"

    @property
    def states(self) -> dict[str, str]:
        """{node: pool, flags, in_use and disk states} where a note tells them of the resources of a definition."""
        return {node: " ".join(told) for node, *told in _STATE.findall(self.note)}


def _exchange(entry: dict[str, Any]) -> Exchange:
    number, note = int(entry["exchange"]), str(entry.get("note", ""))
    if "request" not in entry:
        return Exchange(number, note)
    request, response = entry["request"], entry["response"]
    return Exchange(
        number,
        note,
        request["method"],
        request["path"],
        request.get("query") or "",
        request.get("body"),
        response.get("status"),
        response.get("body"),
    )


def scenarios() -> dict[str, list[Exchange]]:
    """{name of the file without its ending: its exchanges in order}."""
    return {
        file.stem: [_exchange(entry) for entry in json.loads(file.read_text(encoding="utf-8"))]
        for file in sorted(FOLDER.glob("*.json"))
    }
