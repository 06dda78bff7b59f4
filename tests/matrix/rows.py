"""What the flows are tried with: one thing at a time is another than usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linstor_sandbox import Pool
from linstor_sandbox.opennebula import Release

OPENNEBULA, LINSTOR, LAYERS = "OpenNebula", "LINSTOR", "layers"

# What no release of LINSTOR and no layer changes.
_OF_OPENNEBULA = (
    "images of files",
    "volatile FORMAT",
    "poweroff, resume",
    "what users read",
    "live to another datastore",
    "another system datastore",
)


@dataclass(frozen=True)
class Row:
    """One thing that the flows are tried with; `world` is what build_world gets, `attributes` the datastores'."""

    table: str
    name: str
    world: Mapping[str, Any] = field(default_factory=dict)
    attributes: str = ""
    # Whether the pool takes snapshots, and whether there is DRBD to bring volumes to other hosts.
    can_snapshot: bool = True
    can_move: bool = True

    @property
    def release(self) -> Release:
        """The release of OpenNebula."""
        found = self.world.get("release", "7.4")
        return found if isinstance(found, Release) else Release.parse(found)

    def plays(self, flow: str) -> bool:
        """Whether a flow is of interest here; what concerns one table alone is not played in the others."""
        return self.table == OPENNEBULA or flow not in _OF_OPENNEBULA


def _opennebula(name: str, release: str, stdin_option: bool = False, **world: Any) -> Row:
    return Row(OPENNEBULA, name, {"release": Release.parse(release, stdin_option), **world})


def _layers(name: str, pool: str, attributes: str, **abilities: bool) -> Row:
    pools = (Pool("data", pool, 20480), Pool("meta", "LVM", 4096))
    return Row(LAYERS, name, {"pools": pools}, attributes, **abilities)


# The first of each series, and where a series changes within itself what a driver sees, what came later.
ROWS: tuple[Row, ...] = (
    _opennebula("5.12", "5.12.0"),
    _opennebula("5.12.13", "5.12.13"),
    _opennebula("6.0", "6.0.0"),
    _opennebula("6.0.3", "6.0.3"),
    _opennebula("6.4", "6.4.0"),
    _opennebula("6.4.7", "6.4.7"),
    _opennebula("6.6", "6.6.0"),
    _opennebula("6.6.3 -i", "6.6.3", stdin_option=True),
    _opennebula("6.8", "6.8.0"),
    _opennebula("6.10", "6.10.0"),
    _opennebula("7.0", "7.0.0"),
    _opennebula("7.2", "7.2.0"),
    _opennebula("7.4", "7.4.0"),
    _opennebula("7.4 self-contained", "7.4.0", one_location="/var/lib/one/cloud"),
    # LINSTOR's releases, and the REST version of each (CHANGELOG-OPENAPI.md of linstor-server).
    *(
        Row(LINSTOR, name, {"rest_version": version})
        for name, version in (
            ("1.18", "1.13.0"),
            ("1.20", "1.15.0"),
            ("1.22", "1.18.0"),
            ("1.23", "1.19.0"),
            ("1.24", "1.20.0"),
            ("1.26", "1.21.0"),
            ("1.27", "1.22.0"),
            ("1.29", "1.23.0"),
            ("1.31", "1.25.0"),
            ("1.33", "1.27.0"),
            ("1.34", "1.28.0"),
            ("1.35", "1.29.1"),
        )
    ),
    _layers("DRBD, LVM_THIN", "LVM_THIN", 'LAYER_LIST="DRBD,STORAGE"'),
    _layers("DRBD, LVM", "LVM", 'CLONE_MODE="copy"', can_snapshot=False),
    _layers("DRBD, ZFS_THIN", "ZFS_THIN", 'LAYER_LIST="DRBD,STORAGE"'),
    _layers("DRBD, ZFS", "ZFS", 'LAYER_LIST="DRBD,STORAGE"'),
    _layers("DRBD, LUKS, LVM_THIN", "LVM_THIN", 'ENCRYPTION="yes"'),
    _layers("DRBD, LUKS, LVM", "LVM", 'ENCRYPTION="yes" CLONE_MODE="copy"', can_snapshot=False),
    _layers("DRBD, LUKS, ZFS_THIN", "ZFS_THIN", 'ENCRYPTION="yes"'),
    # Whose resource group has DRBD's meta-data in a pool of their own.
    _layers("DRBD outside, LVM_THIN", "LVM_THIN", 'RESOURCE_GROUP="outside"'),
    _layers("DRBD outside, LUKS, LVM_THIN", "LVM_THIN", 'RESOURCE_GROUP="outside" ENCRYPTION="yes"'),
    _layers("LVM_THIN", "LVM_THIN", 'LAYER_LIST="STORAGE" AUTO_PLACE="1" NODE_LIST="node1"', can_move=False),
    _layers(
        "LUKS, LVM_THIN",
        "LVM_THIN",
        'LAYER_LIST="STORAGE" ENCRYPTION="yes" AUTO_PLACE="1" NODE_LIST="node1"',
        can_move=False,
    ),
)
