"""What an action did, for the system log while it runs and for stderr when it fails."""

from __future__ import annotations

import syslog

from linstor_un import hiding

_PRIORITIES = {"ERROR": syslog.LOG_ERR, "WARN": syslog.LOG_WARNING, "INFO": syslog.LOG_INFO, "DEBUG": syslog.LOG_DEBUG}
_lines: list[str] = []
_name = "linstor_un"


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


def lines() -> list[str]:
    """Return the lines so far, each as `SEVERITY: action: text`, the form that oned sorts into the VM's log."""
    return list(_lines)
