"""Faults on request: what goes wrong with the next matching REST requests."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from re import Pattern
from typing import Any, Callable, Optional

from . import answers
from .answers import JsonObject

KINDS = ("answer", "hang", "drop-before", "drop-after", "delay")


@dataclass
class Fault:
    """One fault; `remaining` counts the requests it still meets, below 0 it meets all."""

    kind: str
    pattern: Pattern[str]
    remaining: int = 1
    status: int = 500
    body: Any = None
    seconds: Optional[float] = None
    after_work: bool = False
    skip: int = 0
    action: Optional[Callable[[], object]] = None
    ends: bool = False
    breaks_after: Optional[int] = None
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let hanging requests go on, and meet no more."""
        self.remaining = 0
        self.released.set()


class Faults:
    """The faults of one sandbox. Patterns are regular expressions on "METHOD /path"."""

    def __init__(self) -> None:
        self.latency = 0.0
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """One more."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def fail(
        self,
        pattern: str,
        code: int = answers.FAIL_UNKNOWN_ERROR,
        message: str = "injected failure",
        *,
        status: Optional[int] = None,
        body: Any = None,
        times: int = 1,
        after_work: bool = False,
    ) -> Fault:
        """Answer an error entry with this code (low 15 bits), or this body; with or without having done the work."""
        entries: list[JsonObject] = answers.plain_error(code, message)
        chosen = answers.status_of(entries, 500) if status is None else status
        return self.add(
            Fault(
                "answer", re.compile(pattern), times, chosen, entries if body is None else body, after_work=after_work
            )
        )

    def hang(self, pattern: str, seconds: Optional[float] = None, *, times: int = 1, after_work: bool = False) -> Fault:
        """Accept and not answer, for so many seconds or until released; then the work is done and answered."""
        return self.add(Fault("hang", re.compile(pattern), times, seconds=seconds, after_work=after_work))

    def delay(self, pattern: str, seconds: float, *, times: int = -1) -> Fault:
        """Take so many seconds longer."""
        return self.add(Fault("delay", re.compile(pattern), times, seconds=seconds))

    def drop(self, pattern: str, *, after_work: bool = False, times: int = 1) -> Fault:
        """Close the connection without an answer, before or after the work."""
        return self.add(Fault("drop", re.compile(pattern), times, after_work=after_work))

    def take(self, line: str) -> Optional[Fault]:
        """The fault that meets this request, counted down."""
        with self._lock:
            for fault in self._faults:
                if not fault.remaining or not fault.pattern.search(line):
                    continue
                if fault.skip:
                    fault.skip -= 1
                else:
                    fault.remaining -= 1
                    return fault
        return None

    def clear(self) -> None:
        """No more faults; hanging requests go on."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.release()
        self.latency = 0.0

    def from_json(self, body: dict[str, Any]) -> Fault:
        """A fault as POST /sandbox/faults describes it."""
        kind, pattern = str(body.get("kind")), str(body.get("pattern", ".*"))
        times, after = int(body.get("times", 1)), bool(body.get("after_work"))
        if kind == "answer":
            return self.fail(
                pattern,
                int(body.get("code", answers.FAIL_UNKNOWN_ERROR)),
                str(body.get("message", "injected failure")),
                status=body.get("status"),
                body=body.get("body"),
                times=times,
                after_work=after,
            )
        if kind == "hang":
            return self.hang(pattern, body.get("seconds"), times=times, after_work=after)
        if kind == "delay":
            return self.delay(pattern, float(body.get("seconds", 0)), times=times)
        if kind in ("drop-before", "drop-after"):
            return self.drop(pattern, after_work=kind == "drop-after", times=times)
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
