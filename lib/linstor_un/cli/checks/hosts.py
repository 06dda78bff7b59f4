"""OpenNebula's hosts: each a node of LINSTOR by the same name, within reach, and with what actions need there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from linstor_un.cli.checks.facts import Facts, Seen
from linstor_un.cli.checks.finding import Finding, error, of_failure, warning
from linstor_un.cluster.survey import Node, Survey
from linstor_un.hosts.inspection import Inspection

_MOST_SECONDS = 5
_MOST_METADATA_PERCENT = 80


def nodes(facts: Facts) -> Iterator[Finding]:
    """Is every host a node of the LINSTOR whose datastores it has?"""
    for site in facts.sites:
        if site.cluster:
            for host in site.hosts(facts.cloud):
                yield from _as_node(host.name, site.cluster)


def _as_node(host: str, cluster: Survey) -> Iterator[Finding]:
    node = cluster.node(host)
    if node is None:
        yield _no_node(host, cluster)
    elif node.name != host:
        what = f"Host {host} is written {node.name} in LINSTOR"
        yield warning("host-name-case", what, "give both one spelling, so that nobody takes them for two")
    elif node.kind not in ("SATELLITE", "COMBINED"):
        what = f"Host {host} is a node of type {node.kind.lower()}, which has no satellite"
        yield error("host-no-satellite", what, f"run `linstor node modify --node-type Combined {host}`")


def _no_node(host: str, cluster: Survey) -> Finding:
    for node in cluster.nodes:
        if node.name.split(".")[0].lower() == host.split(".")[0].lower() and not host[0].isdigit():
            what = f"Host {host} is node {node.name} in LINSTOR: one has its domain in its name, the other has not"
            return error("host-name-short", what, _same_name(host, node))
    addresses = _addresses(host)
    for node in cluster.nodes:
        if addresses & set(node.addresses):
            what = f"Host {host} has the address of node {node.name}, and another name"
            return error("host-name-other", what, _same_name(host, node))
    what = f"Host {host} is not a node of LINSTOR, so that no volume can be attached there"
    return error("host-no-node", what, f"run `linstor node create {host} ADDRESS`, and start linstor-satellite there")


def _same_name(host: str, node: Node) -> str:
    return f"register the host as {node.name} in OpenNebula (`onehost create {node.name}`), or the node as {host}"


def _addresses(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def reachable(facts: Facts) -> Iterator[Finding]:
    """Does oneadmin reach every host without a password?"""
    for seen in facts.hosts:
        if seen.failure:
            yield of_failure("host-ssh", seen.failure)


def _inspected(facts: Facts) -> Iterator[tuple[Seen, Inspection]]:
    for seen in facts.hosts:
        if seen.inspection:
            yield seen, seen.inspection


def programs(facts: Facts) -> Iterator[Finding]:
    """Are the programs there that actions start on hosts?"""
    for seen, found in _inspected(facts):
        for program in found.missing_programs:
            remedy = "install it there"
            if program.startswith("mkfs."):
                remedy += f", or take {program[5:]} out of SUPPORTED_FS in linstor_un.conf"
            yield error("host-program", f"{program} is missing on {seen.name}", remedy)


def devices(facts: Facts) -> Iterator[Finding]:
    """May oneadmin open the volumes' devices?"""
    for seen, found in _inspected(facts):
        if found.closed_device:
            device = "devices of DRBD" if found.closed_device == "-" else found.closed_device
            what = f"{found.user} cannot open {device} on {seen.name}"
            remedy = f"run `usermod -aG disk {found.user}` there, or add a udev rule that gives it the devices"
            yield error("host-devices", what, remedy)


def directories(facts: Facts) -> Iterator[Finding]:
    """Can VMs' directories and images in conversion be written?"""
    staging, location = facts.settings.staging_directory, facts.settings.datastore_location
    for seen, found in _inspected(facts):
        if found.datastores:
            what = f"{found.user} cannot write to {location} on {seen.name}, or it is missing"
            yield error("host-datastores", what, f"make it there, and let it belong to {found.user}")
        if found.staging == "absent":
            what = f"{staging} is missing on {seen.name}: images cannot be converted there"
            yield error("host-staging", what, "make it there, or correct STAGING_DIR in linstor_un.conf")
        elif found.staging == "closed":
            what = f"{found.user} cannot write to {staging} on {seen.name}: images cannot be converted there"
            yield error("host-staging", what, f"let {found.user} write to it, or correct STAGING_DIR")
        elif found.staging:
            what = f"{staging} on {seen.name} is open to other users, and actions refuse it"
            yield error("host-staging", what, f"run `chmod +t {staging}` there, or correct STAGING_DIR")


def clocks(facts: Facts) -> Iterator[Finding]:
    """Do all clocks show the same?"""
    for seen, found in _inspected(facts):
        if abs(found.clock_ahead_seconds) > _MOST_SECONDS:
            direction = "ahead of" if found.clock_ahead_seconds > 0 else "behind"
            what = f"The clock of {seen.name} is {abs(found.clock_ahead_seconds):.0f} s {direction} the front-end's"
            yield warning("host-clock", what, "let chrony or another service set it")


def thin_pools(facts: Facts) -> Iterator[Finding]:
    """Have thin pools room for their metadata? A full one stops all of its volumes."""
    for seen, found in _inspected(facts):
        used = {
            pool.backing
            for site in facts.sites
            for pool in (site.cluster.pools if site.cluster else ())
            if pool.node.lower() == seen.name.lower()
        }
        for name, percent in found.metadata_percent:
            if name in used and percent > _MOST_METADATA_PERCENT:
                what = (
                    f"The metadata of thin pool {name} on {seen.name} is {percent:.0f} % full; at 100 % all of it stops"
                )
                remedy = f"run `lvextend --poolmetadatasize +1G {name}` there, or delete snapshots"
                yield error("thin-pool-metadata", what, remedy)


CHECKS = (nodes, reachable, programs, devices, directories, clocks, thin_pools)
