"""What must be equal in two answers: status, decisive entries, objects."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..answers import API_CALL_PARSE_ERROR, MASK_WARN, unsigned

# What differs from one run of the real controller to the next, wherever it stands.
_VARYING = [
    (re.compile(r"\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9A-F]{8}-[0-9A-F]{5}-[0-9]{6}\b"), "REPORT"),
    (re.compile(r"/dev/(drbd|loop)\d+"), r"/dev/\1#"),
    (re.compile(r"safety-snap-\w{10}"), "safety-snap-#"),
    (re.compile(r"(cannot be cast to class \S+) \(.*"), r"\1"),
    (re.compile(r"_CF_\w{8}"), "_CF_#"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "127.0.0.1:#"),
    (re.compile(r"\bMultiSnapshot \d+"), "MultiSnapshot #"),
    (re.compile(r"The external name data is:\n([0-9A-F]{8} .*\n)+"), ""),
]
_VARYING_KEYS = {"uuid", "created_at", "create_timestamp", "error_report_ids"} | {
    "secret",
    "port",
    "tcp_ports",
    "minor_number",
    "DrbdCurrentGi",
}
# A time that comes and goes.
_TIMES = frozenset(("eviction_timestamp",))
_PROGRESS = re.compile(r"\(\S+\) ")
# Said again as often as satellites report, or an earlier request still waits for them.
_REPEATED = re.compile(r"Updated volume \d+ of|Resource '.*' marked for|Tie breaker marked|No active connection")
# What names nodes comes in the order in which they answer.
_OF_A_NODE = re.compile(r"\bn\d\b")


def normal(text: str) -> str:
    """A text without what varies in it."""
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    return text


def entries(answer: Any) -> list[dict[str, Any]]:
    """The ApiCallRc entries of an answer; none where it is something else."""
    if isinstance(answer, dict) and "messages" in answer:
        answer = answer["messages"]
    if isinstance(answer, list) and answer and isinstance(answer[0], dict) and "ret_code" in answer[0]:
        return answer
    return []


def _decisive(answer: Any) -> list[str]:
    """Every entry but the satellites' progress, as text without what varies."""
    found = []
    for entry in entries(answer):
        code, message = unsigned(entry["ret_code"]), entry.get("message", "")
        if not code & MASK_WARN and _PROGRESS.match(message):
            continue
        parts = [message, entry.get("cause", ""), _details(entry), entry.get("correction", "")]
        parts.append(json.dumps(entry.get("obj_refs", {}), sort_keys=True))
        parts.append("report" if entry.get("error_report_ids") and code != API_CALL_PARSE_ERROR else "")
        text = normal(" | ".join([f"{code:#x}", *parts]))
        if text not in found or not _REPEATED.match(message):
            found.append(text)
    return found


def _details(entry: dict[str, Any]) -> str:
    """What the controller has to say itself: not the words of its parser, nor what commands printed on the hosts."""
    details, message = str(entry.get("details", "")), entry.get("message", "")
    if unsigned(entry["ret_code"]) == API_CALL_PARSE_ERROR:
        return "".join(re.findall(r'^Unrecognized field "\w+"', details))
    return "" if _PROGRESS.match(message) or message.endswith(" authenticated") else details


def settled(answer: Any) -> Any:
    """An answer without the replication states that LINSTOR goes on showing of peers that are no longer connected."""
    for resource in answer if isinstance(answer, list) else ():
        drbd = resource.get("layer_object", {}).get("drbd", {}) if isinstance(resource, dict) else {}
        for volume in resource.get("volumes", ()) if drbd else ():
            states = volume.get("state", {}).get("replication_states", {})
            for gone in set(states) - set(drbd.get("connections", ())):
                del states[gone]
            if not states:
                volume.get("state", {}).pop("replication_states", None)
    return answer


def differences(status: Any, answer: Any, got_status: Any, got: Any) -> list[str]:
    """One sentence for each thing in which the second answer is not the first."""
    if status is None and got_status is None:
        return []
    found = [] if status == got_status else [f"status {got_status}, recorded {status}"]
    if entries(answer) or entries(got):
        recorded, own = _decisive(answer), _decisive(got)
        missing, surplus = Counter(recorded) - Counter(own), Counter(own) - Counter(recorded)
        found += [f"missing {entry}" for entry in missing.elements()]
        found += [f"too much {entry}" for entry in surplus.elements()]
        order = [[entry for entry in listed if not _OF_A_NODE.search(entry)] for listed in (recorded, own)]
        if not found and order[0] != order[1]:
            found.append(f"in another order: {order[1]}, recorded {order[0]}")
        if isinstance(answer, dict) and isinstance(got, dict):
            found += _objects("", {**answer, "messages": 0}, {**got, "messages": 0})
        return found
    return found + list(_objects("", settled(answer), settled(got)))


def _objects(where: str, recorded: Any, own: Any) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(own, dict):
        for key in sorted({*recorded, *own} - _TIMES):
            below = f"{where}.{key}"
            if key not in own:
                yield f"{below} is missing"
            elif key not in recorded:
                yield f"{below} is too much"
            elif key == "allocated_size_kib" and _about(recorded[key], own[key]):
                continue
            elif key not in _VARYING_KEYS:
                yield from _objects(below, recorded[key], own[key])
    elif isinstance(recorded, list) and isinstance(own, list):
        if len(recorded) != len(own):
            yield f"{where} has {len(own)} items, recorded {len(recorded)}"
        for index, (one, other) in enumerate(zip(recorded, own)):
            yield from _objects(f"{where}[{index}]", one, other)
    elif _value(recorded) != _value(own):
        yield f"{where} is {own!r}, recorded {recorded!r}"


def _value(value: Any) -> Any:
    return normal(value) if isinstance(value, str) else value


def _about(recorded: Any, own: Any) -> bool:
    """Whether two amounts (KiB) are the same but for what DRBD wrote into its meta-data; below zero is "not known"."""
    if not isinstance(recorded, int) or not isinstance(own, int) or (recorded < 0) != (own < 0):
        return False
    return abs(recorded - own) <= 2048
