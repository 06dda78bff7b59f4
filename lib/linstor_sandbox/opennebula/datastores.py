"""Datastores: how oned makes one of a template, and how it shows one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from linstor_sandbox.opennebula import markup, templates
from linstor_sandbox.opennebula.errors import Refused
from linstor_sandbox.opennebula.releases import Release

# The stanza that the driver's documentation has for oned.conf.
TM_MAD_CONF = {
    "NAME": "linstor_un",
    "LN_TARGET": "NONE",
    "CLONE_TARGET": "SYSTEM",
    "SHARED": "YES",
    "DS_MIGRATE": "YES",
    "DRIVER": "raw",
    "DISK_TYPE": "BLOCK",
    "ALLOW_ORPHANS": "YES",
    "DS_LIVE_MIGRATE": "YES",
    "DS_MIGRATE_SNAP": "YES",
}

DATASTORE_LOCATION = "/var/lib/one//datastores"

# What oned takes for what a stanza does not say.
_DEFAULTS = {"DS_MIGRATE": "YES", "DS_LIVE_MIGRATE": "NO", "DS_MIGRATE_SNAP": "NO", "PERSISTENT_SNAPSHOTS": "YES"}

_TYPES = {"IMAGE_DS": 0, "SYSTEM_DS": 1, "BACKUP_DS": 3}
_DISK_TYPES = {"FILE": 0, "CD_ROM": 1, "BLOCK": 2, "RBD": 3}


@dataclass
class Datastore:
    """A datastore as oned keeps it: sizes are MiB, `attributes` is its TEMPLATE."""

    identifier: int
    name: str
    type: str
    attributes: dict[str, str]
    encrypted: frozenset[str] = frozenset()
    # The directory that all datastores are below, with oned's double slash.
    location: str = DATASTORE_LOCATION
    images: list[int] = field(default_factory=list)
    total_mb: int = 0
    free_mb: int = 0
    used_mb: int = 0

    @property
    def tm_mad(self) -> str:
        """The transfer driver's name."""
        return self.attributes["TM_MAD"]

    @property
    def ds_mad(self) -> str:
        """The datastore driver's name, `-` in a system datastore."""
        return self.attributes.get("DS_MAD", "-")

    @property
    def disk_type(self) -> str:
        """What its disks are: BLOCK or FILE."""
        return self.attributes.get("DISK_TYPE", "FILE")

    @property
    def base_path(self) -> str:
        """The directory of this datastore on every host."""
        return f"{self.location}/{self.identifier}"

    def xml(self, decrypt: bool = True) -> str:
        """The DATASTORE element; without `decrypt` secret attributes stay as oned stores them."""
        return markup.element(
            "DATASTORE",
            markup.owner(self.name, self.identifier, markup.OWNERS_RIGHTS | {"GROUP_U"}),
            markup.cdata("DS_MAD", self.ds_mad),
            markup.cdata("TM_MAD", self.tm_mad),
            markup.cdata("BASE_PATH", self.base_path),
            markup.text("TYPE", _TYPES[self.type]),
            markup.text("DISK_TYPE", _DISK_TYPES[self.disk_type]),
            "<STATE>0</STATE><CLUSTERS><ID>0</ID></CLUSTERS>",
            markup.text("TOTAL_MB", self.total_mb),
            markup.text("FREE_MB", self.free_mb),
            markup.text("USED_MB", self.used_mb),
            markup.ids("IMAGES", self.images),
            markup.element("TEMPLATE", markup.attributes(self._shown(decrypt))),
        )

    def _shown(self, decrypt: bool) -> dict[str, str]:
        if decrypt:
            return self.attributes
        return {name: _hidden(value) if name in self.encrypted else value for name, value in self.attributes.items()}


def create(
    identifier: int,
    template: str,
    release: Release,
    tm_mad_confs: Mapping[str, Mapping[str, str]],
    encrypted: frozenset[str] = frozenset(),
    location: str = DATASTORE_LOCATION,
) -> Datastore:
    """A datastore of a template's text, with the attributes of TM_MAD_CONF copied in as oned does at creation.

    `tm_mad_confs` are the stanzas of oned.conf by their driver.
    """
    given = templates.single(templates.parse(template))
    name, kind = given.pop("NAME", ""), given.get("TYPE", "IMAGE_DS")
    if not name:
        raise Refused("No NAME in template.")
    if kind not in _TYPES:
        raise Refused(f"datastore {name}: TYPE {kind!r} is none of {', '.join(_TYPES)}")
    tm_mad_conf = _conf(tm_mad_confs, given.get("TM_MAD", ""))
    if not {"SAFE_DIRS", "RESTRICTED_DIRS"} & given.keys():
        given.update(SAFE_DIRS="/var/tmp", RESTRICTED_DIRS="/")
    attributes = {**given, "TYPE": kind, **_copied(kind, release, tm_mad_conf)}
    if kind == "SYSTEM_DS":
        attributes = {"DISK_TYPE": "FILE", **attributes}
        _check_disk_type(attributes["DISK_TYPE"], release)
    return Datastore(identifier, name, kind, attributes, encrypted, location)


def update(
    datastore: Datastore,
    template: str,
    is_merged: bool,
    release: Release,
    tm_mad_confs: Mapping[str, Mapping[str, str]],
) -> None:
    """Change a datastore's template; what a datastore cannot be without stays, and TM_MAD_CONF is copied in anew."""
    given = templates.single(templates.parse(template))
    kind, before = datastore.type, datastore.attributes
    needed = ("TYPE", "TM_MAD", "DS_MAD", "DISK_TYPE")
    wanted = {name: value for name, value in before.items() if is_merged or name in needed}
    wanted.update(given)
    copied = _copied(kind, release, _conf(tm_mad_confs, wanted["TM_MAD"]))
    if (wanted["TM_MAD"], wanted.get("DS_MAD")) != (before["TM_MAD"], before.get("DS_MAD")):
        datastore.total_mb = datastore.free_mb = datastore.used_mb = 0
    foreign = ("LN_TARGET", "CLONE_TARGET", "DS_MAD") if kind == "SYSTEM_DS" else ("SHARED",)
    if kind == "SYSTEM_DS":
        _check_disk_type(wanted["DISK_TYPE"], release)
    datastore.attributes = {name: value for name, value in {**wanted, **copied}.items() if name not in foreign}


def _check_disk_type(disk_type: str, release: Release) -> None:
    """What a system datastore's disks may be."""
    if disk_type == "BLOCK" and not release.takes_block_system_datastores:
        raise Refused("Invalid DISK_TYPE for a System Datastore.")


def targets(datastore: Datastore, system_tm_mad: str) -> dict[str, str]:
    """Where disks of an image datastore go in a system datastore of another driver; Refused where that is not said."""
    names = ("CLONE_TARGET", "LN_TARGET", "DISK_TYPE")
    found = {name: datastore.attributes.get(f"{name}_{system_tm_mad.upper()}", "") for name in names}
    if not all(found.values()):
        raise Refused(f"Image Datastore does not support transfer mode: {system_tm_mad}")
    return found


def _conf(tm_mad_confs: Mapping[str, Mapping[str, str]], tm_mad: str) -> Mapping[str, str]:
    if tm_mad == "-":
        return {}
    if tm_mad not in tm_mad_confs:
        raise Refused(f'TM_MAD named "{tm_mad}" is not defined in oned.conf')
    return tm_mad_confs[tm_mad]


def _copied(kind: str, release: Release, tm_mad_conf: Mapping[str, str]) -> dict[str, str]:
    """What a system or an image datastore gets of TM_MAD_CONF."""
    if kind == "SYSTEM_DS":
        names = ["SHARED", "DS_MIGRATE"]
        names += ["DS_LIVE_MIGRATE", "DS_MIGRATE_SNAP"] if release.version >= (7, 2) else []
    else:
        names = ["LN_TARGET", "CLONE_TARGET", "DRIVER"]
        names += ["DISK_TYPE"] if release.copies_disk_type else []
        names += _of_modes(tm_mad_conf)
    names += ["ALLOW_ORPHANS"]
    names += ["PERSISTENT_SNAPSHOTS"] if release.version >= (7, 0) else []
    said = {**_DEFAULTS, **tm_mad_conf}
    return {name: said[name] for name in names if name in said}


def _of_modes(tm_mad_conf: Mapping[str, str]) -> list[str]:
    """What an image datastore gets for system datastores of other drivers; all of it must be there."""
    modes = [mode.strip().upper() for mode in tm_mad_conf.get("TM_MAD_SYSTEM", "").split(",") if mode.strip()]
    names = [f"{name}_{mode}" for mode in modes for name in ("LN_TARGET", "CLONE_TARGET", "DISK_TYPE")]
    if not all(tm_mad_conf.get(name) for name in names):
        raise Refused(
            f"Attribute shared, ln_target or clone_target in TM_MAD_CONF for {tm_mad_conf['NAME']} is missing or has "
            "wrong value in oned.conf"
        )
    return ["TM_MAD_SYSTEM", *names] if names else []


def _hidden(value: str) -> str:
    return base64.b64encode(hashlib.sha256(value.encode()).digest()).decode()
