"""What an action did, for the system log while it runs and for stderr when it fails."""

from __future__ import annotations

import os
import syslog
from typing import Optional

from linstor_un import hiding

_PRIORITIES = {"ERROR": syslog.LOG_ERR, "WARN": syslog.LOG_WARNING, "INFO": syslog.LOG_INFO, "DEBUG": syslog.LOG_DEBUG}
_lines: list[str] = []
_name = "linstor_un"
_LONGEST_STEP = 200
# The locks that this process holds: who looks at them learns what it does.
_locks: list[int] = []
_step = ""


def start(name: str) -> None:
    """Begin the log of one action; `name` is for example `tm/clone`."""
    global _name
    _name = name
    _lines.clear()
    syslog.openlog("linstor_un", syslog.LOG_PID, syslog.LOG_DAEMON)


def _write(severity: str, text: str) -> None:
    line = f"{severity}: {_name}: {' '.join(hiding.urls(text).split())}"
    _lines.append(line)
    _to_system_log(severity, line)


def _to_system_log(severity: str, line: str) -> None:
    # A full or absent system log must never fail an action.
    try:
        syslog.syslog(_PRIORITIES[severity], line)
    except (OSError, ValueError):
        pass


def info(text: str) -> None:
    """Note a step that was done."""
    _write("INFO", text)


def debug(text: str) -> None:
    """Note what only whoever maintains the driver wants to know."""
    _write("DEBUG", text)


def warning(text: str) -> None:
    """Note something that did not stop the action and that an operator should know."""
    _write("WARN", text)


def error(text: str) -> None:
    """Note what failed."""
    _write("ERROR", text)


def record(text: str) -> None:
    """Note what is for the system log alone, and neither for oned nor for a user."""
    _to_system_log("INFO", f"INFO: {_name}: {text}")


def show_in(lock: int) -> None:
    """Let a lock file, by its descriptor, say from the next step on what is being done: see `doing`."""
    _locks.append(lock)


def hide_from(lock: int) -> None:
    """Let a lock file be, before its descriptor is closed."""
    _locks.remove(lock)


def doing(step: str) -> None:
    """Say which step begins, for `linstor-un actions`: in the locks that are held, as `PROCESS DONE TOTAL STEP`."""
    global _step
    _step = " ".join(step.split())[:_LONGEST_STEP]
    progress()


def progress(done_bytes: Optional[int] = None, total_bytes: Optional[int] = None) -> None:
    """Say how far the step is, where that is known."""
    done = " ".join("-" if number is None else str(number) for number in (done_bytes, total_bytes))
    for lock in _locks:
        # A line in one piece: whoever reads takes what is before its end, and what was longer stays behind it.
        try:
            os.pwrite(lock, f"{os.getpid()} {done} {_step}\n".encode(), 0)
        except OSError:
            pass


def lines() -> list[str]:
    """Return the lines so far, each as `SEVERITY: action: text`, the form that oned sorts into the VM's log."""
    return list(_lines)
