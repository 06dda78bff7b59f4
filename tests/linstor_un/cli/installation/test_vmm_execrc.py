"""LIVE_DISK_SNAPSHOTS in vmm_execrc, however it is written."""

from __future__ import annotations

import subprocess

import pytest

from linstor_un.cli.installation import vmm_execrc
from tests.linstor_un.cli.trees import NAMES, RELEASES

WANTED = ("kvm-linstor_un", "qemu-linstor_un")
FILES = {
    **{name: (RELEASES / name / "vmm_execrc").read_text() for name in NAMES},
    "single quotes": "LIVE_DISK_SNAPSHOTS='kvm-qcow2 kvm-ceph' # pairs\n",
    "no quotes": "LIVE_DISK_SNAPSHOTS=kvm-qcow2\n",
    "empty": 'LIVE_DISK_SNAPSHOTS=""\n',
    "several lines": 'LIVE_DISK_SNAPSHOTS="kvm-qcow2\n  kvm-ceph"\nOTHER="x"\n',
    "twice": 'LIVE_DISK_SNAPSHOTS="old"\nLIVE_DISK_SNAPSHOTS="kvm-ceph"\n',
    "one is there": 'LIVE_DISK_SNAPSHOTS="kvm-qcow2 kvm-linstor_un kvm-ceph"\n',
    "a longer name": 'LIVE_DISK_SNAPSHOTS="kvm-linstor_un-2"\n',
    "no newline at the end": 'LIVE_DISK_SNAPSHOTS="kvm-qcow2"',
    "windows line ends": '# comment\r\nLIVE_DISK_SNAPSHOTS="kvm-qcow2"\r\n',
}
ABSENT = {"commented out": '#LIVE_DISK_SNAPSHOTS="kvm-qcow2"\n', "nothing": "", "no newline": "OTHER=1"}


def shown(text: str) -> list[str]:
    """Return the pairs that a shell finds in the file."""
    asked = subprocess.run(
        ["sh", "-c", f'{text}\nprintf %s "$LIVE_DISK_SNAPSHOTS"'], capture_output=True, text=True, check=True
    )
    return asked.stdout.split()


@pytest.mark.parametrize("title", [*FILES, *ABSENT])
def test_the_pairs_are_added_once(title: str) -> None:
    text = {**FILES, **ABSENT}[title]
    after = vmm_execrc.with_pairs(text, vmm_execrc.missing(text, WANTED))
    assert vmm_execrc.missing(after, WANTED) == []
    if "windows" not in title:
        before = [] if title in ABSENT else shown(text)
        assert shown(after) == [*before, *(pair for pair in WANTED if pair not in before)]


@pytest.mark.parametrize("title", [title for title in FILES if title != "no quotes"])
def test_what_was_added_can_be_taken_back(title: str) -> None:
    missing = vmm_execrc.missing(FILES[title], WANTED)
    assert vmm_execrc.without_pairs(vmm_execrc.with_pairs(FILES[title], missing), missing) == FILES[title]


def test_new_lines_end_as_the_old_ones_do() -> None:
    assert vmm_execrc.with_pairs("A=1\r\n", WANTED[:1]).endswith('\r\nLIVE_DISK_SNAPSHOTS="kvm-linstor_un"\r\n')
