"""What is to be measured, how often, and where."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, TypeVar

from bench import cluster, world
from bench.cluster import NODES, Cluster
from bench.figures import Row
from bench.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """The choices of one run of benchmarks; `real` is the real cluster, None for sandboxes.

    Sizes: `size_mib` of images, `large_gib` of the sparse one that memory is measured with (0: none); `vms` and
    `workers` of the crowd, `at_once` clones at one time, `volumes` that monitoring is measured with.
    """

    folder: Path
    remotes: Path
    real: Optional[Cluster] = None
    runs: int = 5
    size_mib: int = 1024
    large_gib: int = 0
    at_once: int = 15
    vms: int = 300
    workers: int = 15
    volumes: tuple[int, ...] = (100, 1000, 10000)
    tell: Callable[[str], None] = print

    @contextmanager
    def world(
        self,
        name: str,
        nodes: Sequence[str] = NODES,
        holders: Sequence[str] = NODES[:2],
        volumes: int = 0,
        recorded_times: bool = False,
    ) -> Iterator[World]:
        """An OpenNebula on the real cluster, or on a sandbox like this, in a folder of this name."""
        folder = self.folder / name
        folder.mkdir()
        if self.real is not None:
            with world.world(self.real, folder, self.remotes) as made:
                yield made
            return
        made_of = cluster.sandbox(folder, nodes, holders, volumes, recorded_times)
        with made_of as found, world.world(found, folder, self.remotes) as made:
            yield made


def together(workers: int, act: Callable[[T], object], whom: Iterable[T]) -> float:
    """Do it to all, by so many at once, and return the seconds until all are done; what fails ends it."""
    started = time.monotonic()
    pool = ThreadPoolExecutor(workers)
    try:
        for _ in pool.map(act, whom):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return time.monotonic() - started


@dataclass(frozen=True)
class Table:
    """What is shown of some rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """One part: `./dev bench NAME`."""

    name: str
    meaning: str
    measure: Callable[[Setting], list[Row]]
    tables: Callable[[list[Row]], list[Table]]
