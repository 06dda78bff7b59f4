"""How the bytes of an old image are read, by the driver of its datastore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable

from linstor_un.cli.relocating.plan import Move
from linstor_un.errors import HostUnreachable, InvalidInput
from linstor_un.hosts import origins, runner
from linstor_un.hosts.origins import Origin
from linstor_un.hosts.runner import Host
from linstor_un.settings import Settings

# The option of `rbd` for each attribute of a datastore.
_RBD_OPTIONS = {"CEPH_USER": "--id", "CEPH_CONF": "--conf", "CEPH_KEY": "--keyfile"}


def of(move: Move, common: Settings) -> Origin:
    """Return the old image's disk; raises a DriverError with why it cannot be read."""
    driver = move.source.attributes.get("DS_MAD", "")
    source = move.old.image.source
    if not source:
        raise InvalidInput(f"{move.label} has no SOURCE: it was never filled, see `oneimage show {move.image_id}`")
    hosts = _hosts(move.source.attributes, common)
    if driver == "fs" and not hosts:
        return origins.of_file(source, image_format(move))
    if driver in ("fs", "lvm", "dev", "ceph") and not hosts:
        raise InvalidInput(
            f"{move.source.label} has no BRIDGE_LIST, so that no host is known that can read {source}: add it with "
            f"`onedatastore update {move.source.datastore_id}`"
        )
    if driver == "ceph":
        options = [word for key, option in _RBD_OPTIONS.items() for word in _pair(move, key, option)]
        return _first(hosts, lambda host: origins.of_rbd(host, source, options))
    if driver in ("fs", "lvm", "dev"):
        if image_format(move) != "raw":
            raise InvalidInput(
                f"{move.label} is {image_format(move)} on a host of BRIDGE_LIST, where only raw can be read: mount "
                "the datastore on the front-end and take BRIDGE_LIST away, or import the file with `oneimage create`"
            )
        return _first(hosts, lambda host: origins.of_device(host, source))
    raise InvalidInput(
        f"{move.source.label} has DS_MAD {driver[:40]!r}, and images come from fs, ceph, lvm, dev and linstor_un: make "
        "an image of a file that you export from it"
    )


def image_format(move: Move) -> str:
    """Return the format that OpenNebula knows; what says nothing is raw.

    5.12 has no FORMAT: there a datastore's DRIVER holds for all of its images, and is what VMs open them with.
    """
    drivers = (attributes.get("DRIVER", "") for attributes in (move.source.attributes, move.old.attributes))
    return next(filter(None, (move.old.image.format, *drivers)), "raw").lower()


def _pair(move: Move, key: str, option: str) -> list[str]:
    value = move.source.attributes.get(key, "")
    return [option, value] if value else []


def _hosts(attributes: Mapping[str, str], common: Settings) -> list[Host]:
    return [runner.host(name, common) for name in attributes.get("BRIDGE_LIST", "").split()]


def _first(hosts: list[Host], read: Callable[[Host], Origin]) -> Origin:
    """Return what the first host that answers has."""
    for host in hosts[:-1]:
        try:
            return read(host)
        except HostUnreachable:
            continue
    return read(hosts[-1])
