"""Whether the action that has marked a volume still runs."""

from __future__ import annotations

import os
import re

ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"
_NANOSECONDS = 1_000_000_000
# A process is there a moment before it takes its mark, and the clock of its start is coarse.
_TOLERANCE_SECONDS = 2


def state(mark: str) -> str:
    """Return what is known of the process that a mark (actions.new_volume.mark) names.

    A process of another machine may live; one that began after the mark was made has only the same number.
    """
    match = re.fullmatch(r"(.*):(\d+):(\d+)", mark.partition(" ")[0])
    if match is None or match.group(1) != os.uname().nodename:
        return UNKNOWN
    began = began_at(int(match.group(2)))
    if began is None or began > int(match.group(3)) / _NANOSECONDS + _TOLERANCE_SECONDS:
        return DEAD
    return ALIVE


def began_at(process: int) -> float | None:
    """Return when a process began, in seconds since 1970, or None where there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        with open("/proc/stat", encoding="utf-8") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    except OSError:
        return None
    return None if fields[0] == "Z" else booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
