"""drbdsetup and drbdadm: what they show of a host's resources."""

from __future__ import annotations

import json
from typing import Any

from .. import drbd
from ..model import Node, Resource
from ..satellite import Satellites

Output = tuple[int, str, str]


def run(satellites: Satellites, node: Node, tool: str, arguments: list[str]) -> Output:
    """`status [RESOURCE] [--json]` and `role RESOURCE`."""
    words = [word for word in arguments if not word.startswith("-")]
    command, names = (words[0] if words else ""), words[1:]
    mine = [
        res
        for res in satellites.cluster.resources()
        if res.node is node and res.uses_drbd and res.deployed and not res.inactive
    ]
    chosen = [res for res in mine if not names or res.name in names]
    if names and not chosen:
        return 10, "", f"'{names[0]}': No such resource\n"
    if command == "role":
        return 0, "".join(f"{_role(satellites, res)}\n" for res in chosen), ""
    if command != "status":
        return 20, "", f"{tool}: unknown command '{command}'\n"
    if "--json" in arguments or "-j" in arguments:
        return 0, json.dumps([_status(satellites, res) for res in chosen], indent=4) + "\n", ""
    return 0, "\n".join(_text(satellites, res) for res in chosen), ""


def _role(satellites: Satellites, resource: Resource) -> str:
    primaries = satellites.openings.primaries(resource.definition)
    return "Primary" if resource.node.name in primaries else "Secondary"


def _peers(resource: Resource) -> list[Resource]:
    return [
        peer
        for peer in resource.definition.resources
        if peer is not resource and drbd.votes(peer) and not (peer.diskless and resource.diskless)
    ]


def _status(satellites: Satellites, resource: Resource) -> dict[str, Any]:
    quorum = drbd.has_quorum(resource.definition)
    devices = [
        {
            "volume": number,
            "minor": volume.minor,
            "disk-state": resource.state(),
            "client": resource.diskless,
            "open": satellites.openings.is_open(resource),
            "quorum": quorum,
            "size": drbd.device_size(resource.definition, volume) // 1024,
        }
        for number, volume in sorted(resource.definition.volumes.items())
    ]
    return {
        "name": resource.name,
        "node-id": resource.node_id,
        "role": _role(satellites, resource),
        "suspended": False,
        "may_promote": not satellites.openings.primaries(resource.definition),
        "devices": devices,
        "connections": [_connection(satellites, resource, peer) for peer in _peers(resource)],
    }


def _connection(satellites: Satellites, resource: Resource, peer: Resource) -> dict[str, Any]:
    up = peer.node.host_up
    return {
        "peer-node-id": peer.node_id,
        "name": peer.node.name,
        "connection-state": "Connected" if up else "Connecting",
        "peer-role": _role(satellites, peer) if up else "Unknown",
        "peer_devices": [
            {
                "volume": number,
                "replication-state": "Established" if up else "Off",
                "peer-disk-state": peer.state() if up else "DUnknown",
            }
            for number in sorted(resource.definition.volumes)
        ],
    }


def _text(satellites: Satellites, resource: Resource) -> str:
    lines = [f"{resource.name} role:{_role(satellites, resource)}", f"  disk:{resource.state()}"]
    for peer in _peers(resource):
        state = f"role:{_role(satellites, peer)}" if peer.node.host_up else "connection:Connecting"
        lines.append(f"  {peer.node.name} {state}")
    return "\n".join(lines) + "\n"
