"""One thing that is wrong, and how it is mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, NamedTuple, Optional

from linstor_un.actions import new_volume
from linstor_un.cli.auditing import makers
from linstor_un.cli.inventory import Inventory, Site, Wanted
from linstor_un.cluster.inventory import Cluster
from linstor_un.cluster.volumes import Volume

# What a repair needs: nothing, a yes, or the name of what it deletes, because that may be the last copy of data.
SAFE, ASK, NAME = "safe", "ask", "name"


class Repair(NamedTuple):
    """How a finding is mended: `what` it does in words, why that is right, and what the operator must have said."""

    what: str
    reason: str
    consent: str
    make: Callable[[], object]


class Finding(NamedTuple):
    """What is wrong: its kind, where, a sentence with the remedy, and the repair where there is one.

    `subject` is the volume, `volume/snapshot` or `host:path`; `resource` the volume that a repair holds.
    """

    kind: str
    subject: str
    node: str
    text: str
    resource: str
    repair: Optional[Repair] = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what makes it the same finding when it is looked for again."""
        return self.kind, self.subject.lower(), self.node.lower()


class View(NamedTuple):
    """What the rules compare: one cluster, what oned wants of it, and what some action works on at this moment."""

    inventory: Inventory
    site: Site
    wanted: Mapping[str, Wanted]
    held: frozenset[str]

    @property
    def cluster(self) -> Cluster:
        """Return what LINSTOR says."""
        return self.site.cluster

    def is_busy(self, volume: Volume) -> bool:
        """Tell whether an action holds the volume, or the one that has made it still runs."""
        names = self.inventory.names
        # A VM's disk has one lock, whichever its volume is.
        if names.first_name(volume.resource).lower() in self.held:
            return True
        marks = [volume.properties.get(key, "") for key in (names.incomplete, names.run)]
        return any(makers.state(mark) == makers.ALIVE for mark in marks if mark)

    def maker_may_live(self, volume: Volume) -> bool:
        """Tell whether the volume is marked by a process of another front-end, which cannot be looked for here."""
        mark = volume.properties.get(self.inventory.names.incomplete, "")
        return makers.state(mark) == makers.UNKNOWN

    def users(self, resource: str) -> list[str]:
        """Return the nodes on which somebody has the volume open for writing."""
        return [item.node for item in self.cluster.placed(resource) if item.replica.in_use]

    def marked_for(self, volume: Volume) -> list[str]:
        """Return whom the mark of an incomplete volume names."""
        return new_volume.marked_for(self.inventory.names, volume)
