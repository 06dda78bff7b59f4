"""What has changed between two snapshots, as ranges of a disk."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linstor_un.errors import CommandFailed, HostUnreachable
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


STREAM = """BEGIN record
\thdrtype = 1
\ttoname = p/v@b

OBJECT object = 1 type = 23 bonustype = 0 blksz = 8192 bonuslen = 0
FREE object = 1 offset = 32768 length = -1
WRITE object = 1 type = 23 checksum type = 7 flags = 0 offset = 8192 logical_size = 8192 compressed_size = 0
WRITE object = 1 type = 23
    offset = 24576 logical_size = 8192
WRITE object = 2 type = 23 offset = 0 logical_size = 512
END checksum = 1/2/3/4
SUMMARY:
\tTotal DRR_BEGIN records = 1 (0 bytes)
\tTotal DRR_END records = 1 (0 bytes)
\tTotal DRR_OBJECT records = 1 (0 bytes)
\tTotal DRR_WRITE records = 3 (16896 bytes)
\tTotal DRR_WRITE_BYREF records = 0 (0 bytes)
\tTotal DRR_FREE records = 1 (0 bytes)
\tTotal records = 7
\tTotal payload size = 16896 (0x4200)
"""


def told_by_zfs(monkeypatch: pytest.MonkeyPatch, folder: Path, stream: str) -> list[tuple[int, int]]:
    """What is taken from a stream that zstream shows so."""
    (folder / "stream").write_text(stream)
    for tool, script in (("sudo", "exit 1"), ("zfs", ":"), ("zstream", f"exec cat {folder}/stream")):
        (folder / tool).write_text(f"#!/bin/sh\n{script}\n")
        (folder / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return list(changes.of_zfs(Host("onefe", Settings(), True), "p/v", "a", "b", 40960))


def test_a_stream_of_zfs_is_read_as_its_summary_counts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert told_by_zfs(monkeypatch, tmp_path, STREAM) == [(32768, 8192), (8192, 8192), (24576, 8192)]


SECOND_WRITE = "WRITE object = 1 type = 23\n    offset = 24576 logical_size = 8192\n"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (SECOND_WRITE, "", "3 WRITE and not 2, 7 records and not 6"),
        (SECOND_WRITE, "    offset = 24576 logical_size = 8192\n", "3 WRITE and not 2"),
        ("FREE object", "  FREE object", "1 FREE and not 0"),
        ("OBJECT object", "object", "7 records and not 6"),
        (SECOND_WRITE, "REWRITE object = 1 offset = 24576\n", "says 'REWRITE object = 1 offset = 24576'"),
        ("offset = 8192 logical_size = 8192", "at = 8192 size = 8192", "says 'WRITE object = 1 type = 23 checksum"),
        ("object = 1 type = 23 checksum", "of type = 23 checksum", "says 'WRITE of type = 23"),
        ("END checksum", "Expected checksum differs from checksum in stream.\nEND checksum", "says 'Expected checksum"),
        ("END checksum = 1/2/3/4\n", "", "no whole stream"),
        (STREAM[STREAM.index("SUMMARY") :], "", "no whole stream"),
        (STREAM[STREAM.index("\tTotal DRR_WRITE records") :], "", "no whole stream"),
        (STREAM[STREAM.index("END") :], "", "no whole stream"),
        (STREAM, "", "no whole stream"),
    ],
)
def test_a_stream_of_zfs_that_is_not_read_whole_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    assert STREAM.count(old) == 1
    with pytest.raises(CommandFailed, match=re.escape(reason)):
        told_by_zfs(monkeypatch, tmp_path, STREAM.replace(old, new))


SUDO = """shift
case "$*" in
lvs*) printf ' vg|pool|1|v_a\\n vg|pool|2|v_b\\n' ;;
*reserve_metadata_snap) [ -e {folder}/released ] || {{ echo "device busy" >&2; exit 1; }} ;;
*release_metadata_snap) touch {folder}/released ;;
thin_delta*)
    echo '<superblock data_block_size="128">'
    echo '<different begin="3" length="2"/>'
    echo '</superblock>'
    ;;
esac
"""
# Of all that is in /proc.
SEEN = {"nobody": 'case "$1" in -qsx) exit 1 ;; *) exit 0 ;; esac', "hidden": "exit 2"}


@pytest.mark.parametrize("others", ["nobody", "hidden"])
def test_metadata_that_are_reserved_are_released_only_where_it_can_be_seen_that_nobody_reads_them(
    others: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripts = {
        "sudo": SUDO.format(folder=tmp_path),
        "thin_delta": "echo 1.0.6",
        "grep": f'case "$*" in */proc/*) {SEEN[others]} ;; esac\nexec /bin/grep "$@"',
    }
    for tool, script in scripts.items():
        (tmp_path / tool).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    # All that comes before the pool is read has twice as long.
    here = Host("onefe", Settings(command_timeout_seconds=4), True)
    found = changes.of_thin_pool(here, "v", "a", "b")
    if others == "nobody":
        assert list(found) == [(3 * 65536, 2 * 65536)]
        return
    with pytest.raises(CommandFailed, match=r"cannot be seen, as /proc is mounted with hidepid: let \w+ see all"):
        list(found)
    assert not (tmp_path / "released").exists()
