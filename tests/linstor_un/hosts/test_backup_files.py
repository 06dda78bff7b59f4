"""Files of increments: what is in them, and how fast they may be made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from linstor_un.hosts import backup_files, pipes
from linstor_un.hosts.backup_files import Manner, Target
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings
from linstor_un.units import MIB
from tests.linstor_un.hosts.hosts_in_a_box import say_size

SIZE = 64 * MIB
HERE = Host("onefe", Settings(), True)
RANGES = [(0, 65536), (MIB, 33 * MIB), (SIZE - 4096, 4096)]


class Clock:
    """Time that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pipes, "time", made)
    return made


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Target:
    """A disk full of data, which a lsblk of its own takes for a device."""
    say_size(monkeypatch, tmp_path / "programs", SIZE)
    device = tmp_path / "device"
    device.write_bytes(b"data" * (SIZE // 4))
    return Target(str(device), SIZE, str(tmp_path / "disk.0.1"))


def content(target: Target) -> bytes:
    """The file's own content, zero where it has none."""
    raw = f"{target.file}.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", target.file, raw], check=True)
    return Path(raw).read_bytes()


@pytest.mark.parametrize("limit", [0, 4 * MIB])
def test_what_has_changed_is_in_the_file_and_nothing_else(target: Target, clock: Clock, limit: int) -> None:
    backup_files.changes(HERE, target, Manner(bytes_per_second=limit), lambda _: RANGES)
    expected = bytearray(SIZE)
    for offset, length in RANGES:
        # qcow2 has clusters of 64 KiB.
        start, end = offset // 65536 * 65536, -(-(offset + length) // 65536) * 65536
        expected[start:end] = b"data" * ((end - start) // 4)
    assert content(target) == bytes(expected)
    assert clock.seconds == (sum(length for _, length in RANGES) / limit if limit else 0)


def test_many_small_reads_are_told_together(target: Target, clock: Clock) -> None:
    ranges = [(number * 2 * 65536, 65536) for number in range(400)]
    backup_files.changes(HERE, target, Manner(bytes_per_second=MIB), lambda _: ranges)
    assert content(target).count(b"data") == 400 * 65536 // 4
    assert clock.seconds == 25


def test_a_pace_is_kept_in_the_long_run(clock: Clock) -> None:
    pace = pipes.Pace(100)
    pace.keep(50)
    assert clock.seconds == 0.5
    # What took longer by itself is made up for.
    clock.sleep(2)
    pace.keep(100)
    assert clock.seconds == 2.5
    pace.keep(200)
    assert clock.seconds == 3.5
