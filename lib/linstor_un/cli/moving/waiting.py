"""Waiting until replicas are up to date, and for what else takes long, with a bar where somebody watches."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Callable, Optional

import click

from linstor_un.cli.moving.scene import Scene, listed
from linstor_un.cli.output import Report
from linstor_un.cluster import inventory as clusters
from linstor_un.cluster.inventory import Placed
from linstor_un.errors import NotFound, NotReady

_POLL_SECONDS = 1.0
_WHOLE = 100


@contextmanager
def bar(report: Report, label: str, count: int) -> Iterator[Callable[[float], None]]:
    """Show a bar for so many replicas, on terminals only; gives what is told how many per cent are done in all."""
    if not _is_shown(report):
        yield lambda _: None
        return
    with click.progressbar(length=_WHOLE * count, label=label, file=sys.stderr) as shown:
        yield lambda done: shown.update(max(0, int(done) - shown.pos))


@contextmanager
def clock(report: Report, label: str) -> Iterator[Callable[[], None]]:
    """Show, on terminals only, how long something has taken of which nobody says how far it is; gives what goes on."""
    if not _is_shown(report):
        yield lambda: None
        return
    began = time.monotonic()
    with click.progressbar(itertools.count(), label=label, file=sys.stderr) as shown:

        def go_on() -> None:
            shown.label = f"{label}, {timedelta(seconds=int(time.monotonic() - began))}"
            shown.update(1)

        yield go_on
        shown.finish()
        shown.render_progress()


def _is_shown(report: Report) -> bool:
    return report.is_for_people and not report.is_quiet and sys.stderr.isatty()


def clear_bar(report: Report) -> None:
    """Make room for a line where the bar is, which comes back below it when there is something new to show."""
    if _is_shown(report):
        click.echo("\r\x1b[K", nl=False, err=True)


def until_up_to_date(report: Report, scene: Scene, nodes: Sequence[str]) -> None:
    """Wait until the replicas on these nodes are up to date.

    Raises NotFound where one goes meanwhile, NotReady where its node goes away or its data is not copied any more.
    """
    watch = Watch(scene.site.gateway.settings.request_timeout_seconds)
    with bar(report, f"{scene.resource} to {listed(nodes)}", len(nodes)) as show:
        while True:
            placed = clusters.placed(scene.site.gateway, [scene.resource]).get(scene.resource.lower(), ())
            done = [watch.percent(scene.resource, node, placed) for node in nodes]
            show(sum(done))
            if min(done, default=_WHOLE) >= _WHOLE:
                return
            time.sleep(_POLL_SECONDS)


class Watch:
    """What is known of replicas that are being filled: since when which of them is not."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._idle_since: dict[tuple[str, str], float] = {}

    def percent(self, resource: str, node: str, placed: Sequence[Placed]) -> float:
        """Return how much of a replica is there, in per cent, and 100 only where all of it is; raises as above."""
        item = _on(placed, node)
        if item is None:
            raise NotFound(f"The replica of {resource} on {node} is gone: somebody has deleted it; run this again")
        if not item.replica.is_online:
            raise NotReady(f"{node} went away while {resource} was copied to it: bring it back and run this again")
        if item.is_up_to_date:
            return _WHOLE
        self._check(resource, item)
        return min(item.synced_percent or 0.0, _WHOLE - 1)

    def _check(self, resource: str, item: Placed) -> None:
        key = resource, item.node
        if item.is_syncing:
            self._idle_since.pop(key, None)
        elif time.monotonic() - self._idle_since.setdefault(key, time.monotonic()) > self._patience_seconds:
            raise NotReady(
                f"{resource} is {item.disk_state} on {item.node} and is not copied: see `drbdadm status {resource}` "
                "there for its connections"
            )


def _on(placed: Sequence[Placed], node: str) -> Optional[Placed]:
    return next((item for item in placed if item.node.lower() == node.lower()), None)


def unfinished(scene: Scene) -> list[str]:
    """Return the nodes whose replicas are being filled."""
    return [item.node for item in scene.holders if not item.is_up_to_date and item.is_syncing]
