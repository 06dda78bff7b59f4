"""Resource groups that the driver has made: whether they let volumes be where their datastores do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from linstor_un.cli.auditing.finding import ASK, Finding, Repair, View
from linstor_un.cluster import placement as placements
from linstor_un.cluster.placement import Placement
from linstor_un.errors import InvalidSetting


def examine(view: View) -> Iterator[Finding]:
    """Yield the groups that keep volumes on fewer nodes than their datastores ask for.

    The driver made such ones before it told a volume's own wish (PREFER_NODE) from what holds for all.
    """
    for name, (wanted, label) in sorted(_made(view).items()):
        group = view.cluster.groups.get(name.lower())
        nodes = (group.select_filter.get("node_name_list") or []) if group else []
        if not nodes or wanted.select_filter.get("node_name_list"):
            continue
        text = (
            f"resource group {name} of {label} keeps replicas and tie-breakers on {', '.join(nodes)}, which the "
            "datastore does not ask for"
        )
        reason = "nothing that is there moves; what is placed from then on may be on any node with the pool"
        body = {"select_filter": {**wanted.select_filter, "node_name_list": []}}
        make = partial(view.site.gateway.modify_resource_group, name, body)
        repair = Repair(f"let resource group {name} use all nodes", reason, ASK, make)
        yield Finding("narrow-group", name, "", text, "", repair)


def _made(view: View) -> dict[str, tuple[Placement, str]]:
    """Return this cluster's placements by attributes by their groups, each with the label of a datastore."""
    found: dict[str, tuple[Placement, str]] = {}
    for number in sorted(view.site.datastore_ids):
        label = view.inventory.database.datastores[number].label
        try:
            wanted = placements.of(view.inventory.settings[number], label)
        except InvalidSetting:
            # `check` says so.
            continue
        if wanted.is_own_group:
            found.setdefault(wanted.group, (wanted, label))
    return found
