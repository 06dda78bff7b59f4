"""A small crowd, another one after each commit; `./dev crowd` is as large as is asked for."""

from __future__ import annotations

from tests.conftest import commit
from tests.crowd.crowd import crowd


def test_a_small_crowd_that_changes_with_the_commit() -> None:
    seed = commit()
    with crowd(workers=6, seed=seed, rate=0, per_round=30) as running:
        wrong = running.run(deeds=60)
    assert not wrong, "\n".join([f"seed {seed}", *wrong])
