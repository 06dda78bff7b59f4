"""Run a program and say what it took: `python -IS bench/launch.py DESCRIPTOR PROGRAM [ARGUMENT ...]`.

A process of its own, and a small one, because Linux counts the memory of whoever starts a program as the program's.
Writes one line of figures to the descriptor; the program has the streams and the environment that this was given.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def clock_of(process: int) -> int:
    """The clock of a process's own CPU time, its children's apart: clock_getcpuclockid(3), which Python lacks."""
    return (~process << 3) | 2


def waited_for_processor(process: int) -> int:
    """Nanoseconds that a process was ready to run and did not: schedstat of its first thread; 0 where nobody counts."""
    try:
        with open(f"/proc/{process}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1])
    except (OSError, IndexError):
        return 0


def run(command: list[str]) -> list[int]:
    """Exit status (below 0 a signal), then ns: wall, own CPU, children's CPU, waited for a processor; then peak KiB."""
    started = time.monotonic_ns()
    # Python ignores these; what oned starts does not.
    process = os.posix_spawnp(command[0], command, os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    wall = time.monotonic_ns() - started
    own, waited = time.clock_gettime_ns(clock_of(process)), waited_for_processor(process)
    _, status, usage = os.wait4(process, 0)
    everything = int((usage.ru_utime + usage.ru_stime) * 1e9)
    return [os.waitstatus_to_exitcode(status), wall, own, max(0, everything - own), waited, usage.ru_maxrss]


if __name__ == "__main__":
    os.set_inheritable(int(sys.argv[1]), False)
    figures = run(sys.argv[2:])
    os.write(int(sys.argv[1]), (" ".join(map(str, figures)) + "\n").encode())
