"""What `datastore create` asks where its options do not say it: with the choices that LINSTOR has."""

from __future__ import annotations

from collections.abc import Mapping

import click

from linstor_un.cli.output import Report
from linstor_un.cluster.survey import StoragePool, Survey
from linstor_un.errors import NotFound
from linstor_un.units import KIB_PER_GIB

_DEFAULT_REPLICAS = 2
SNAPSHOT, COPY = "snapshot", "copy"


def ask(report: Report, cluster: Survey, given: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that the operator chooses at the terminal beside those that are given.

    Raises NotFound where LINSTOR has no storage pool to choose.
    """
    pools = by_name(cluster)
    if not pools:
        raise NotFound("LINSTOR has no storage pool yet: create some with `linstor storage-pool create`")
    report.rows(_COLUMNS, [_row(name, found) for name, found in pools.items()])
    pool = _prompt("Storage pool", click.Choice(list(pools)), next(iter(pools)))
    most = len({item.node for item in pools[pool]})
    chosen = {"STORAGE_POOL": pool}
    count = given.get("REPLICA_COUNT") or _number("Replicas of each volume", most, min(_DEFAULT_REPLICAS, most))
    chosen["REPLICA_COUNT"] = count
    if "CLONE_MODE" not in given:
        modes = [SNAPSHOT, COPY] if can_snapshot(pools[pool]) else [COPY]
        chosen["CLONE_MODE"] = _prompt("How VMs' disks are made of images", click.Choice(modes), modes[0])
    if "CHECKPOINT_REPLICA_COUNT" not in given:
        default = int(count) if count.isdigit() else most
        chosen["CHECKPOINT_REPLICA_COUNT"] = _number("Replicas of a suspended VM's memory", most, min(default, most))
    return chosen


_COLUMNS = ("pool", "kind", "nodes", "on", "free_gib", "snapshots")


def _row(name: str, pools: list[StoragePool]) -> tuple[str, str, int, str, float, str]:
    free = sum(pool.free_kib or 0 for pool in pools) / KIB_PER_GIB
    kinds = " ".join(sorted({pool.provider for pool in pools}))
    nodes = sorted({pool.node for pool in pools})
    return name, kinds, len(nodes), " ".join(nodes), round(free, 1), "yes" if can_snapshot(pools) else "no"


def by_name(cluster: Survey) -> dict[str, list[StoragePool]]:
    """Return the pools that hold data by their names."""
    found: dict[str, list[StoragePool]] = {}
    for pool in sorted(cluster.pools, key=lambda pool: (pool.name, pool.node)):
        found.setdefault(pool.name, []).append(pool)
    return found


def can_snapshot(pools: list[StoragePool]) -> bool:
    """Tell whether volumes can have snapshots wherever they are put."""
    return bool(pools) and all(pool.supports_snapshots for pool in pools)


def _number(text: str, most: int, default: int) -> str:
    return str(click.prompt(text, type=click.IntRange(1, most), default=default, err=True))


def _prompt(text: str, choices: click.Choice[str], default: str) -> str:
    return str(click.prompt(text, type=choices, default=default, err=True))
