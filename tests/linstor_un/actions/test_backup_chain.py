"""Which kept snapshot an increment is made from: the one of the chain, or none."""

from __future__ import annotations

from typing import Optional

import pytest

from linstor_un.actions import backup_chain
from linstor_un.cluster.snapshots import Snapshot
from linstor_un.naming import BackupSnapshot

DONE = {0: 100, 1: 200, 2: 300}


def snapshot(increment_id: int, taken: int, vm_id: int = 7, flags: str = "SUCCESSFUL") -> Snapshot:
    return Snapshot(BackupSnapshot(vm_id, increment_id, taken, 64).name, frozenset(flags.split()), ("node1",), 65536)


@pytest.mark.parametrize(
    ("found", "increment_id", "expected"),
    [
        ([snapshot(2, 250)], 2, 250),
        ([snapshot(2, 300), snapshot(1, 150)], 2, 300),
        ([snapshot(2, 200)], 2, 200),
        ([snapshot(0, 90)], 0, 90),
        # Taken before the increment before was done, or after its own was: another chain's, or of a failed backup.
        ([snapshot(2, 199)], 2, None),
        ([snapshot(2, 301)], 2, None),
        # Which of them it is nobody knows.
        ([snapshot(2, 250), snapshot(2, 260)], 2, None),
        ([snapshot(2, 250), snapshot(2, 350)], 2, 250),
        ([snapshot(2, 250, flags="FAILED_DEPLOYMENT")], 2, None),
        ([snapshot(2, 250, flags="SUCCESSFUL DELETE")], 2, None),
        ([snapshot(2, 250, vm_id=8)], 2, None),
        ([snapshot(3, 350)], 3, None),
        ([], 2, None),
    ],
)
def test_the_base_is_the_chains_or_none(found: list[Snapshot], increment_id: int, expected: Optional[int]) -> None:
    kept = backup_chain.of_vm(found, 7)
    base = backup_chain.base(
        kept, increment_id, {number: when for number, when in DONE.items() if number <= increment_id}
    )
    assert (base.says.taken if base else None) == expected


def test_a_chain_that_has_an_increment_of_which_the_vm_does_not_know_has_no_base() -> None:
    kept = backup_chain.of_vm([snapshot(1, 150)], 7)
    assert backup_chain.base(kept, 1, DONE) is None
