"""Making a volume and filling it: marked until its content is complete, removed again where that fails."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple, Optional, TypeVar

from linstor_un import log
from linstor_un.cluster import replicas, volumes
from linstor_un.cluster.gateway import Gateway
from linstor_un.cluster.placement import Placement
from linstor_un.cluster.replicas import Replica
from linstor_un.cluster.volumes import Home, Volume
from linstor_un.errors import AlreadyExists, AnswerLost, Busy, ControllerFailed, InUse
from linstor_un.hosts import copies, filesystems, runner
from linstor_un.hosts.runner import Host, Step
from linstor_un.naming import Names, drbd_device
from linstor_un.settings import Settings
from linstor_un.undo import Undo
from linstor_un.units import BYTES_PER_KIB

_Made = TypeVar("_Made")


class NewVolume(NamedTuple):
    """A volume that this action makes, the nodes with a replica, and the host that fills it."""

    resource: str
    size_bytes: int
    reads_zero: bool
    shows_old_data: bool
    device: str
    nodes: tuple[str, ...]
    writer: Host

    @property
    def is_writer_a_guest(self) -> bool:
        """Tell whether the host that fills it has no replica and has it attached for that."""
        return self.writer.name.lower() not in {node.lower() for node in self.nodes}


def mark() -> str:
    """Return a value for the mark of an incomplete volume that says who is filling it, and no other run ever has."""
    return f"{os.uname().nodename}:{os.getpid()}:{time.time_ns()}"


def make(
    gateway: Gateway,
    undo: Undo,
    resource: str,
    size_kib: int,
    placement: Placement,
    owner: Mapping[str, str],
    writer: str = "",
    preferred_writers: Sequence[str] = (),
) -> NewVolume:
    """Make a marked volume and offer it to the host that is to fill it.

    Arguments: `writer` is that host; without it one with a replica is chosen, of `preferred_writers` where possible.
    What exists under the name is discarded if it is the same owner's, and in nobody's use; the volume has another name
    where a VM's earlier one cannot go yet, see `claim`. Raises AlreadyExists where the name belongs to something else.
    """
    names = gateway.settings.names
    token = mark()
    # The second stays: an action may still fail when its volume is complete, for want of a reader of its answer.
    properties = {**owner, names.incomplete: token, names.run: token}

    def create(name: str) -> Home:
        return volumes.create(gateway, name, size_kib, placement, properties)

    resource, home = claim(gateway, undo, resource, owner, token, create)
    if not home.nodes:
        raise ControllerFailed(
            f"LINSTOR made {resource} without any replica: see `linstor resource list -r {resource}`"
        )
    node = writer or choose_copier(gateway.settings, home.nodes, resource, preferred_writers)
    if node.lower() not in {name.lower() for name in home.nodes}:
        replicas.attach(gateway, resource, node)
    is_zeroed = home.is_zeroed(placement.thin_pool_zero)
    is_encrypted = "LUKS" in (placement.layers or _deployed_layers(gateway, resource))
    return NewVolume(
        resource=resource,
        size_bytes=size_kib * BYTES_PER_KIB,
        # What LUKS makes of blocks that nobody has written is neither zero nor anybody's old data.
        reads_zero=is_zeroed and not is_encrypted,
        shows_old_data=not is_zeroed and not is_encrypted,
        device=device(gateway, resource, placement.layers, node),
        nodes=home.nodes,
        writer=runner.host(node, gateway.settings),
    )


def claim(
    gateway: Gateway,
    undo: Undo,
    resource: str,
    owner: Mapping[str, str],
    token: str,
    create: Callable[[str], _Made],
) -> tuple[str, _Made]:
    """Create a volume, which goes again where the action fails; what the same owner has under its name is discarded.

    `create` makes it under a name and gives it the run's `token`. Returns the name too: a VM's own volume gets the next
    of Names.successors where an earlier one waits for offline nodes before it is gone. Raises AlreadyExists where the
    name belongs to something else, Busy where all names are taken by what waits.
    """
    for name in gateway.settings.names.successors(resource):
        made = _create(gateway, undo, name, owner, token, create)
        if made is not None:
            if name != resource:
                log.warning(f"the volume is {name}: {resource} is deleted and waits for its offline nodes")
            return name, made
    raise Busy(
        f"{resource} of an earlier VM or image is still being deleted: bring its offline nodes back (`linstor node "
        "list`), or give them up with `linstor node lost`"
    )


def _create(
    gateway: Gateway, undo: Undo, name: str, owner: Mapping[str, str], token: str, create: Callable[[str], _Made]
) -> Optional[_Made]:
    """Create a volume under this very name; return None where that is not free and will not be soon."""
    undo.push(f"volume {name}", lambda: remove_made(gateway, name, token))
    try:
        made = create(name)
    except (AlreadyExists, AnswerLost) as error:
        if isinstance(error, AnswerLost):
            log.warning(f"{error}; looking what has come of it")
        if not discard(gateway, name, owner):
            return None
        made = create(name)
    # From here on it is known to be ours, marked or not, and whatever a restore makes it say of itself.
    undo.push(f"volume {name}", lambda: volumes.remove(gateway, name))
    return made


def _deployed_layers(gateway: Gateway, resource: str) -> tuple[str, ...]:
    """Return the layers that an operator's resource group has given the volume; only it knows them."""
    return next((replica.layers for replica in replicas.of(gateway, resource) if replica.holds_data), ())


def blank(volume: NewVolume, kind: str) -> list[Step]:
    """Return the steps that rid a fresh volume of old data, and format it as `kind` where that is not empty."""
    steps = [copies.zero(volume.writer, volume.device, volume.size_bytes)] if volume.shows_old_data else []
    if kind:
        steps.append(filesystems.make(volume.writer, volume.device, volume.size_bytes, kind))
    return steps


def finish(gateway: Gateway, volume: NewVolume) -> None:
    """Take the mark from a volume that is complete."""
    gateway.modify_resource_definition(volume.resource, {}, [gateway.settings.names.incomplete])


def leave_writer(gateway: Gateway, volume: NewVolume) -> None:
    """Take the volume from a host that only filled it; LINSTOR may have given it a replica meanwhile (auto-diskful)."""
    if volume.is_writer_a_guest:
        replicas.detach(gateway, volume.resource, volume.writer.name)


def discard(gateway: Gateway, resource: str, owner: Mapping[str, str]) -> bool:
    """Remove what an earlier run for the same owner left under this name; return whether the name is free then.

    Raises AlreadyExists for what is anything else's and there to stay.
    """
    existing = volumes.find(gateway, resource)
    if existing is None:
        return True
    if not is_owned(gateway.settings.names, existing, owner):
        if existing.is_being_deleted:
            return False
        raise AlreadyExists(
            f"LINSTOR already has a volume {resource} that was not made for this image or VM: remove it if nothing "
            f"needs it (`linstor resource-definition delete {resource}`), or set another PREFIX in linstor_un.conf"
        )
    log.warning(f"discarding {resource}, left by an earlier run")
    try:
        # Once more where it is being deleted: an error on a node has left it then, or the nodes are back meanwhile.
        return volumes.remove(gateway, resource)
    except InUse as error:
        if not existing.is_being_deleted:
            raise
        log.warning(f"{error}")
        return False


def mark_for(owner: Mapping[str, str]) -> str:
    """Return a mark that names the owner as well, for a volume that a restore makes say that it is another's."""
    return " ".join([mark(), *owner.values()])


def marked_for(names: Names, volume: Volume) -> list[str]:
    """Return the values of the owner that the volume's mark names, none where it has no such mark."""
    return volume.properties.get(names.incomplete, "").split()[1:]


def is_owned(names: Names, volume: Volume, owner: Mapping[str, str]) -> bool:
    """Tell whether the volume's properties name this owner, or its mark does.

    A VM's disk is its own whichever system datastore it was in: made anew, the VM may come to another.
    """
    decisive = {key: value for key, value in owner.items() if key != names.datastore_id}
    marked = marked_for(names, volume)
    said = dict(zip(owner, marked)) if len(marked) == len(owner) else {}
    says = [
        all(properties.get(key) == value for key, value in decisive.items()) for properties in (volume.properties, said)
    ]
    return bool(owner) and any(says)


def device(gateway: Gateway, resource: str, layers: Sequence[str], node: str = "") -> str:
    """Return the path of a volume's device on `node` or any; only stacks that are known to lack DRBD cost a request."""
    if not layers or "DRBD" in layers:
        return drbd_device(resource)
    return device_among(replicas.of(gateway, resource), resource, node)


def device_among(known: Sequence[Replica], resource: str, node: str = "") -> str:
    """Return the path of a volume's device on `node` or any; `known` is where it is."""
    if any("DRBD" in replica.layers for replica in known):
        return drbd_device(resource)
    for replica in known:
        if replica.device_path and replica.holds_data and node.lower() in ("", replica.node.lower()):
            return replica.device_path
    where = f" on {node}" if node else ""
    raise ControllerFailed(f"LINSTOR reports no device for {resource}{where}: see `linstor volume list -r {resource}`")


def remove_made(gateway: Gateway, resource: str, token: str) -> bool:
    """Remove the volume if this very run has made it, as its properties say by the run's `token`, and tell so."""
    existing = volumes.find(gateway, resource)
    is_ours = existing is not None and existing.properties.get(gateway.settings.names.run) == token
    if is_ours:
        volumes.remove(gateway, resource)
    return is_ours


def choose_copier(settings: Settings, holders: Sequence[str], resource: str, preferred: Sequence[str]) -> str:
    """Return the host that copies: one with a replica, of BRIDGE_LIST if there is one, of `preferred` if possible."""
    bridges = {name.lower(): name for name in settings.bridge_list}
    allowed = [node for node in holders if not bridges or node.lower() in bridges]
    wanted = {name.lower() for name in preferred}
    best = [node for node in allowed if node.lower() in wanted]
    candidates = best or allowed or list(bridges.values())
    # Spread by name, so that many images at once do not load one host; the same image always takes the same one.
    return candidates[sum(resource.encode()) % len(candidates)]
