"""What must be equal in two answers: status, decisive entries, objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..answers import MASK_ERROR, unsigned

# What differs from one run of the real controller to the next, wherever it stands.
_VARYING = [
    (re.compile(r"\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9A-F]{8}-[0-9A-F]{5}-[0-9]{6}\b"), "REPORT"),
    (re.compile(r"/dev/(drbd|loop)\d+"), r"/dev/\1#"),
    (re.compile(r"safety-snap-\w{10}"), "safety-snap-#"),
    (re.compile(r"(cannot be cast to class \S+) \(.*"), r"\1"),
    (re.compile(r"_CF_\w{8}"), "_CF_#"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "127.0.0.1:#"),
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


def _decisive(answer: Any) -> set[tuple[str, str, str]]:
    """Code, message and cause of every entry but the satellites' progress."""
    found = set()
    for entry in entries(answer):
        code, message = unsigned(entry["ret_code"]), normal(entry.get("message", ""))
        if code & MASK_ERROR != MASK_ERROR and _PROGRESS.match(message):
            continue
        found.add((f"{code:#x}", message, normal(entry.get("cause", ""))))
    return found


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
        found += [f"missing {' '.join(entry)}" for entry in sorted(recorded - own)]
        found += [f"too much {' '.join(entry)}" for entry in sorted(own - recorded)]
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
