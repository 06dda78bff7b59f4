"""What a program took, told apart from what it started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.scripts import launch

WORK = "sum(range(4_000_000))"


def figures(tmp_path: Path, program: str) -> dict[str, float]:
    return dict(launch([sys.executable, "-c", program], os.environ, tmp_path).figures)


def test_cpu_of_its_own_and_of_its_children(tmp_path: Path) -> None:
    own = figures(tmp_path, WORK)
    children = figures(
        tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{WORK}'], check=True)"
    )
    assert own["cpu_ms"] > 5 * own["children_cpu_ms"]
    assert children["children_cpu_ms"] > children["cpu_ms"] / 5
    assert own["wall_ms"] >= 0.9 * own["cpu_ms"]


def test_memory_is_the_programs_and_not_that_of_whoever_starts_it(tmp_path: Path) -> None:
    ballast = bytearray(os.urandom(1) * (100 << 20))
    small, large = figures(tmp_path, "pass"), figures(tmp_path, "bytearray(b'x' * (50 << 20))")
    assert len(ballast) == 100 << 20
    assert small["memory_mib"] < 40
    assert small["memory_mib"] + 45 < large["memory_mib"]


def test_status_and_streams_are_the_programs(tmp_path: Path) -> None:
    program = "import sys; print(sys.stdin.read().upper()); print('said', file=sys.stderr); sys.exit(3)"
    ended = launch([sys.executable, "-c", program], os.environ, tmp_path, "text")
    assert (ended.status, ended.stdout, ended.stderr) == (3, "TEXT\n", "said\n")
    assert launch(["sh", "-c", "kill -TERM $$"], os.environ, tmp_path).status == -15


def test_what_it_leaves_running_does_not_hold_the_figures(tmp_path: Path) -> None:
    ended = launch(["sh", "-c", "sleep 60 >/dev/null 2>&1 </dev/null & echo $!"], os.environ, tmp_path)
    os.kill(int(ended.stdout), 9)
    assert ended.status == 0


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-program cannot be run"):
        launch(["no-such-program"], os.environ, tmp_path)
