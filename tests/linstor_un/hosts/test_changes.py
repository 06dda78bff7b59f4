"""What has changed between two snapshots, as ranges of a disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_un.errors import HostUnreachable
from linstor_un.hosts import changes
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings

RANGE = st.tuples(st.integers(0, 40), st.integers(1, 20))


@pytest.mark.parametrize(
    ("found", "earlier", "size", "expected"),
    [
        ([], 10, 10, []),
        ([(0, 4), (4, 2), (8, 1)], 10, 10, [(0, 6), (8, 1)]),
        ([(8, 9)], 10, 10, [(8, 2)]),
        ([(12, 9)], 10, 10, []),
        ([(12, 9)], 10, 20, [(10, 10)]),
        ([(8, 9)], 10, 20, [(8, 12)]),
        ([], 10, 20, [(10, 10)]),
        ([(0, 20)], 20, 10, [(0, 10)]),
    ],
)
def test_ranges_are_joined_cut_and_grown(
    found: list[tuple[int, int]], earlier: int, size: int, expected: list[tuple[int, int]]
) -> None:
    assert list(changes.within(iter(found), earlier, size)) == expected


@given(found=st.lists(RANGE), earlier=st.integers(1, 50), size=st.integers(1, 50))
def test_no_byte_that_may_have_changed_is_left_out(found: list[tuple[int, int]], earlier: int, size: int) -> None:
    expected = {byte for offset, length in found for byte in range(offset, offset + length) if byte < size}
    expected |= set(range(earlier, size))
    covered = {
        byte for offset, length in changes.within(iter(found), earlier, size) for byte in range(offset, offset + length)
    }
    assert covered == expected


@pytest.mark.parametrize("kind", ["thin", "zfs"])
def test_a_pool_that_does_not_come_to_be_read_is_given_up(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sudo").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    here = Host("onefe", Settings(command_timeout_seconds=1, in_use_timeout_seconds=1), True)
    asked = changes.of_thin_pool(here, "v", "a", "b") if kind == "thin" else changes.of_zfs(here, "p/v", "a", "b", 512)
    with pytest.raises(HostUnreachable, match="has not done it in 2 s"):
        next(asked)
