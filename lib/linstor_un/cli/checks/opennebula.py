"""OpenNebula's side: oned.conf, vmm_execrc, the hypervisor's defaults, and whether oned knows of it all."""

from __future__ import annotations

import os
from collections.abc import Iterator

from linstor_un.cli.checks.facts import Facts
from linstor_un.cli.checks.finding import Finding, error, of_failure, warning
from linstor_un.cli.installation import mixed_modes, oned_conf, oned_syntax, vmm_execrc
from linstor_un.cli.installation.oned_conf import DRIVER, OVERRIDES, Edit, Keys, Listed, Override, Stanza
from linstor_un.errors import UnreadableConfiguration
from linstor_un.hosts import runner

_OLDEST_RELEASE = (5, 12)
_ADD = "run `linstor-un install`, which adds it, and restart oned"
# What the driver's stanza must not say otherwise.
NEEDED_VALUES = {"LN_TARGET": ("NONE",), "CLONE_TARGET": ("SYSTEM", "SELF"), "SHARED": ("YES",), "DRIVER": ("RAW",)}
_SAFE_CACHES = ("NONE", "DIRECTSYNC", "DEFAULT", "")


def release(facts: Facts) -> Iterator[Finding]:
    """Is OpenNebula new enough?"""
    if facts.release and facts.release < _OLDEST_RELEASE:
        what = f"OpenNebula {facts.tree.release()} is too old for {DRIVER}"
        yield error("opennebula-too-old", what, "upgrade it to 5.12 or newer")


def oned(facts: Facts) -> Iterator[Finding]:
    """Does oned answer?"""
    if facts.cloud_failure:
        yield of_failure("oned-unreachable", facts.cloud_failure)


def configuration(facts: Facts) -> Iterator[Finding]:
    """Does oned.conf say what the driver needs?"""
    if not facts.is_installed:
        return
    try:
        for edit in oned_conf.needed(facts.oned_conf):
            yield _missing(facts, edit)
        for name in oned_conf.hypervisors(facts.oned_conf):
            yield from _foreign_overrides(facts, name)
        yield from _wrong_values(facts)
        yield from _modes(facts)
    except UnreadableConfiguration as failure:
        yield of_failure("oned-conf-unreadable", failure)


def _missing(facts: Facts, edit: Edit) -> Finding:
    path = facts.tree.here(facts.tree.oned_conf)
    if isinstance(edit, Listed) and edit.attribute == "TM_MAD":
        return error("tm-mad", f"{DRIVER} is not in the list (-d) of TM_MAD in {path}: no VM can use it", _ADD)
    if isinstance(edit, Listed) and not edit.default:
        what = f"{DRIVER} is not in the list (-d) of DATASTORE_MAD in {path}: no image can be made"
        return error("datastore-mad", what, _ADD)
    if isinstance(edit, Listed):
        what = f"{DRIVER} is not in the list (-s) of DATASTORE_MAD in {path}: system datastores have no capacity"
        return error("system-datastores", what, _ADD)
    if isinstance(edit, Override):
        what = f"VM_MAD {edit.name} in {path} lacks -l {','.join(edit.actions)}: suspended VMs stay bound to their host"
        return warning("save-override", what, _ADD)
    if isinstance(edit, Stanza):
        kind = edit.stanza.partition(" ")[0]
        return error(kind.lower().replace("_", "-"), f"There is no {kind} for {DRIVER} in {path}", _ADD)
    assert isinstance(edit, Keys)
    keys = ", ".join(f'{name}="{value}"' for name, value in edit.pairs)
    return warning("stanza-incomplete", f"The {edit.kind} of {DRIVER} in {path} lacks {keys}", _ADD)


def _foreign_overrides(facts: Facts, name: str) -> Iterator[Finding]:
    for action, script in oned_conf.overridden(facts.oned_conf, name).items():
        if action in OVERRIDES and script != OVERRIDES[action]:
            what = (
                f"VM_MAD {name} runs {action} by {script or 'its own script'}: suspended VMs stay bound to their host"
            )
            remedy = f"let {script or 'that script'} do what {OVERRIDES[action]} does, or name that in oned.conf"
            yield warning("save-override-foreign", what, remedy)


def _wrong_values(facts: Facts) -> Iterator[Finding]:
    stanza = oned_conf.stanza_of_driver(facts.oned_conf, "TM_MAD_CONF")
    for name, allowed in NEEDED_VALUES.items():
        value = stanza.text(name) if stanza else ""
        if value and value.upper() not in allowed:
            what = f'TM_MAD_CONF of {DRIVER} has {name}="{value}", with which disks are not handled as the driver does'
            remedy = (
                f'set {name}="{allowed[0]}" in oned.conf, restart oned, and run `onedatastore update` on datastores'
            )
            yield error("tm-mad-conf-value", what, remedy)


def _modes(facts: Facts) -> Iterator[Finding]:
    """Return what is wrong with the lines of mixed mode, where there are any."""
    path = facts.tree.here(facts.tree.oned_conf)
    for fault in mixed_modes.faults(facts.oned_conf):
        images = mixed_modes.MODES[fault.mode].images
        what = f'The TM_MAD_CONF of {images} in {path} has {fault.key}="{fault.value}"'
        remedy = f'run `linstor-un install --mixed {fault.mode}`, which makes it "{fault.wanted}", and restart oned'
        if fault.key.startswith("CLONE_TARGET_") and fault.value.upper() == "SYSTEM":
            yield warning("mixed-room", f"{what}: oned counts room where disks take none", remedy)
        else:
            yield error("mixed-mode", f"{what}: VMs in system datastores of another driver are refused", remedy)
    for driver in mixed_modes.unwanted(facts.oned_conf):
        what = (
            f"The TM_MAD_CONF of {driver} in {path} lets its images into system datastores of {DRIVER}, where their "
            "VMs cannot migrate live"
        )
        yield error("mixed-files", what, f"take {DRIVER} out of its TM_MAD_SYSTEM, and restart oned")


def restarted(facts: Facts) -> Iterator[Finding]:
    """Has oned read its configuration since it was edited?"""
    if facts.cloud is None:
        return
    try:
        running = facts.cloud.configuration
        is_late = oned_conf.needed(running) and not oned_conf.needed(facts.oned_conf)
        is_late = is_late or mixed_modes.copied(facts.oned_conf) != mixed_modes.copied(running)
    except UnreadableConfiguration:
        return
    if is_late:
        what = (
            f"oned runs with a configuration from before {DRIVER} was added to {facts.tree.here(facts.tree.oned_conf)}"
        )
        yield error("oned-not-restarted", what, f"run `{facts.tree.restart()}`")


def live_snapshots(facts: Facts) -> Iterator[Finding]:
    """May disks of running VMs have snapshots?"""
    if not facts.is_installed:
        return
    try:
        wanted = [f"{name}-{DRIVER}" for name in oned_conf.hypervisors(facts.oned_conf)]
    except UnreadableConfiguration:
        return
    missing = vmm_execrc.missing(facts.vmm_execrc, wanted)
    if missing:
        path = facts.tree.here(facts.tree.vmm_execrc)
        what = f"LIVE_DISK_SNAPSHOTS in {path} lacks {' '.join(missing)}: oned refuses snapshots of running VMs' disks"
        yield error("live-snapshots", what, _ADD)


def disk_cache(facts: Facts) -> Iterator[Finding]:
    """Is what VMs write on the volume when they are told so?"""
    path = facts.tree.here(f"{facts.tree.etc}/vmm_exec/vmm_exec_kvm.conf")
    try:
        with open(path, encoding="latin-1") as file:
            found = [item for item in oned_syntax.attributes(file.read()) if item.name == "DISK"]
    except (OSError, UnreadableConfiguration):
        return
    for disk in found:
        if disk.text("CACHE").upper() not in _SAFE_CACHES:
            what = f'{path} has CACHE="{disk.text("CACHE")}" for disks: live migration loses what only the host has'
            yield error("disk-cache", what, 'set CACHE="none" there')


def names(facts: Facts) -> Iterator[Finding]:
    """Do oned and the driver call the front-end, and the place of datastores, the same?"""
    if facts.settings_failure:
        return
    values = {item.name: item.value for item in _attributes(facts)}
    hostname = values.get("HOSTNAME", "")
    if hostname and not runner.is_frontend(hostname, facts.settings):
        what = f"oned calls the front-end {hostname}, and the driver takes that for a host"
        yield error("frontend-hostname", what, f'set FRONTEND_HOSTNAME="{hostname}" in linstor_un.conf')
    default = "/var/lib/one/datastores" if not facts.tree.is_self_contained else f"{facts.tree.var}/datastores"
    location = os.path.normpath(values.get("DATASTORE_LOCATION", "") or default)
    if location != os.path.normpath(facts.settings.datastore_location):
        what = f"oned has datastores in {location}, and the driver looks in {facts.settings.datastore_location}"
        yield error("datastore-location", what, f'set DATASTORE_LOCATION="{location}" in linstor_un.conf')


def _attributes(facts: Facts) -> list[oned_syntax.Attribute]:
    try:
        return oned_syntax.attributes(facts.oned_conf)
    except UnreadableConfiguration:
        return []


CHECKS = (release, oned, configuration, restarted, live_snapshots, disk_cache, names)
