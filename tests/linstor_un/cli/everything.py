"""All that a cluster in a box and its OpenNebula hold, so that a test sees what else has changed, whatever it is."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linstor_sandbox.model import Node, ResourceDefinition, ResourceGroup, Snapshot, StoragePool
from linstor_sandbox.registry import Registry
from linstor_sandbox.storage import Content, data_extents
from tests.linstor_un.cli.clouds import Estate

# A name says which, and what they have stands by itself.
_NAMED = (Node, ResourceDefinition, ResourceGroup, Snapshot, StoragePool)
# What LINSTOR, DRBD or a pool only counts.
_COUNTERS = {"resource_count", "last_thin_id", "stamp"}
_Found = Iterator[tuple[str, Any]]


def everything(estate: Estate) -> dict[str, Any]:
    """What there is, by where it is: what is a volume's begins with its name and a colon."""
    with estate.sandbox.cluster.lock:
        return dict([*_of_linstor(estate), *_of_volumes(estate), *_of_hosts(estate), *_of_oned(estate)])


def touched(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """The volumes and resource groups of which anything is different, and whatever else is."""
    places = {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)}
    return {place.partition(": ")[0] for place in places}


def _of_linstor(estate: Estate) -> _Found:
    cluster = estate.sandbox.cluster
    yield "controller", plain([cluster.props, cluster.pool_props, cluster.passphrase])
    yield from ((f"{group.name}: a resource group", fields(group)) for group in cluster.groups)
    yield from ((f"key values {item.name}", plain(item)) for item in cluster.key_values)
    names = {item.uuid: item.name for definition in cluster.definitions for item in (definition, *definition.snapshots)}
    owners = {item.uuid: definition.name for definition in cluster.definitions for item in definition.snapshots}
    for node in cluster.nodes:
        yield f"node {node.name}", fields(node, "pools")
        for pool in node.pools:
            yield f"pool {node.name}/{pool.name}", fields(pool, "members")
            for (uuid, number), stored in pool.members.items():
                owner = owners.get(uuid) or names.get(uuid, "nobody")
                yield f"{owner}: {names.get(uuid)} {number} in {node.name}/{pool.name}", plain(stored)


def _of_volumes(estate: Estate) -> _Found:
    for definition in estate.sandbox.cluster.definitions:
        yield f"{definition.name}: itself", fields(definition, "resources", "snapshots")
        for resource in definition.resources:
            yield f"{definition.name}: on {resource.node.name}", (fields(resource, "synced_at"), resource.state())
        for snapshot in definition.snapshots:
            yield f"{definition.name}: snapshot {snapshot.name}", fields(snapshot)
    for opening in estate.sandbox.openings.all():
        yield f"{opening.definition.name}: open {opening.serial}", plain(opening)


def _of_hosts(estate: Estate) -> _Found:
    volumes = [
        (definition.name, item)
        for definition in estate.sandbox.cluster.definitions
        for item in definition.volumes.values()
    ]
    owners = {f"drbd{item.minor}": name for name, item in volumes}
    for node in estate.sandbox.cluster.nodes:
        top = estate.sandbox.host(node.name)
        for path in sorted([*(top / "var").rglob("*"), *(top / "dev").rglob("*")]):
            yield _place(node.name, str(path.relative_to(top)), owners), _file(path)
    for domain in estate.sandbox.domains.all.values():
        yield f"domain {domain.node}/{domain.name}", plain(domain)


def _place(host: str, path: str, owners: Mapping[str, str]) -> str:
    """A device is its volume's; `owners` has those of DRBD's numbers."""
    device = re.match(r"dev/(?:drbd/by-res/(?P<name>[^/]+)|(?P<number>drbd\d+)$|\w+/(?P<backing>[\w-]+)_\d{5}$)", path)
    if device is None:
        return f"{host}:{path}"
    owner = owners.get(device["number"], "nobody") if device["number"] else device["name"] or device["backing"]
    return f"{owner}: {host}:{path}"


def _file(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    # A device's bytes are its volume's.
    return "" if path.is_dir() or "/dev/" in str(path) else hashlib.sha256(path.read_bytes()).hexdigest()


def _of_oned(estate: Estate) -> _Found:
    cloud = estate.cloud
    yield "oned", plain([cloud.own_attributes, cloud.vm_templates, list(cloud.hosts)])
    for kind, items in (("datastore", cloud.datastores), ("image", cloud.images), ("VM", cloud.machines)):
        yield from ((f"oned's {kind} {item.identifier}", plain(item)) for item in items)


def fields(value: Any, *others: str) -> dict[str, Any]:
    """What a thing has, but for what stands elsewhere."""
    names = [item.name for item in dataclasses.fields(value)]
    return {name: plain(getattr(value, name)) for name in names if name not in {*others, *_COUNTERS}}


def plain(value: Any) -> Any:
    """A value that stays as it is now."""
    if isinstance(value, Content):
        return _digest(value)
    if isinstance(value, _NAMED):
        return value.name
    if dataclasses.is_dataclass(value):
        return fields(value)
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple, Registry)):
        return [plain(item) for item in value]
    return value


def _digest(content: Content) -> str:
    """The digest of the bytes, and of where they are."""
    if not content.path.exists():
        return "no bytes"
    found = hashlib.sha256(str(content.size).encode())
    with content.path.open("rb") as file:
        for start, end in data_extents(file.fileno(), content.size):
            found.update(f"{start}-{end}".encode())
            found.update(os.pread(file.fileno(), end - start, start))
    return found.hexdigest()
