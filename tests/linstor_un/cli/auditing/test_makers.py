"""Whether the action that has marked a volume still runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from linstor_un.actions import new_volume
from linstor_un.cli.auditing import makers

HERE = os.uname().nodename


def test_a_process_that_runs_is_alive() -> None:
    assert makers.state(new_volume.mark()) == makers.ALIVE
    assert makers.state(new_volume.mark_for({"a": "7"})) == makers.ALIVE


def test_a_process_that_has_ended_is_not() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "from linstor_un.actions import new_volume; print(new_volume.mark())"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert makers.state(said.stdout.decode().strip()) == makers.DEAD


def test_a_process_that_only_got_the_same_number_is_not() -> None:
    yesterday = time.time_ns() - 86400 * 10**9 * 365
    assert makers.state(f"{HERE}:{os.getpid()}:{yesterday}") == makers.DEAD


@pytest.mark.parametrize("mark", ["another-host:1:1", "", "yes", f"{HERE}:x:1"])
def test_what_cannot_be_known_is_not_guessed(mark: str) -> None:
    assert makers.state(mark) == makers.UNKNOWN
