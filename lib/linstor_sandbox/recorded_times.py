"""How long satellites take: what was recorded on three nodes with real DRBD 9.3.3 on LVM-thin under LINSTOR 1.33.3.

Medians of calls that were made alone. Of calls made together, so much of each was seen to be done while no other is:
fifteen spawns at once took 21.9 s where one took 3.5 s, fifteen snapshots 27 s for 4.4 s, fifteen deletions 9.9 s for
1.9 s. Snapshots and clones of one source were seen to be done one after the other altogether.
"""

from __future__ import annotations

import re
import threading

SECONDS = (
    (r"POST .*/spawn", 6.4),
    (r"POST .*/autoplace", 6.4),
    (r"POST .*/snapshot-restore-resource/[^/]+", 2.2),
    (r"POST .*/snapshot-rollback/[^/]+", 5.6),
    (r"POST .*/snapshots|POST /v1/actions/snapshot/multi", 2.0),
    (r"DELETE .*/snapshots/[^/]+", 0.29),
    (r"POST .*/clone", 6.0),
    (r"PUT .*/volume-definitions/\d+", 2.7),
    # Attaching was not recorded where anything had to be made: as detaching, which is less than it takes.
    (r"POST .*/(un)?make-available", 0.27),
    (r"DELETE .*/resources/[^/]+", 0.27),
    (r"PUT .*/resource-connections/.*", 0.33),
    (r"PUT /v1/resource-definitions/[^/]+", 0.29),
    (r"DELETE /v1/resource-definitions/[^/]+", 1.4),
)
ALONE = 0.4
"""The part of a call during which the satellites do nothing else."""
_OF_ONE_SOURCE = re.compile(r"POST /v1/resource-definitions/([^/]+)/(?:snapshots|clone)")


class RecordedTimes:
    """The satellites' time, spent by the calls that make them work."""

    def __init__(self) -> None:
        self._satellites = threading.Lock()
        self._sources: dict[str, threading.Lock] = {}

    def spend(self, call: str, stopping: threading.Event) -> None:
        """Take the time of a call (`METHOD /path`), in turn with the others."""
        seconds = next((seconds for pattern, seconds in SECONDS if re.fullmatch(pattern, call)), 0.0)
        source = _OF_ONE_SOURCE.fullmatch(call)
        if source is None:
            self._work(seconds, stopping)
            return
        with self._sources.setdefault(source[1], threading.Lock()):
            self._work(seconds, stopping)

    def _work(self, seconds: float, stopping: threading.Event) -> None:
        with self._satellites:
            stopping.wait(seconds * ALONE)
        stopping.wait(seconds * (1 - ALONE))
