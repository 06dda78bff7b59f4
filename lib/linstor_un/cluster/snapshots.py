"""Snapshots of volumes, and volumes restored from them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from linstor_un import log
from linstor_un.cluster import replicas
from linstor_un.cluster.codes import (
    EXISTS_SNAPSHOT,
    NOT_FOUND_SNAPSHOT_DEFINITION,
    SNAPSHOTS_NOT_SUPPORTED,
    WARN_NOT_CONNECTED,
    Entry,
)
from linstor_un.errors import (
    AlreadyExists,
    AnswerLost,
    AnswerOverdue,
    ControllerFailed,
    DriverError,
    NotFound,
    NotReady,
)

if TYPE_CHECKING:
    from linstor_un.cluster.gateway import Gateway
    from linstor_un.naming import Names

_WAIT_SECONDS = 0.5
_ROLLS_BACK_TO_ANY_SINCE = (1, 25)


class Snapshot(NamedTuple):
    """A snapshot of a resource definition."""

    name: str
    flags: frozenset[str]
    nodes: tuple[str, ...]
    size_kib: int

    @property
    def is_usable(self) -> bool:
        """Tell whether the snapshot is complete and there to stay."""
        return "SUCCESSFUL" in self.flags and not self.is_being_deleted

    @property
    def is_being_deleted(self) -> bool:
        """Tell whether it waits for a node to come back before it goes."""
        return "DELETE" in self.flags


def of(gateway: Gateway, resource: str) -> list[Snapshot]:
    """Return the snapshots of a volume; none where there is no such volume."""
    try:
        data = gateway.get(f"Looking for snapshots of {resource}", ("resource-definitions", resource, "snapshots"))
    except NotFound:
        return []
    return [from_json(item) for item in data]


def of_all(gateway: Gateway, resources: Sequence[str] = ()) -> dict[str, tuple[Snapshot, ...]]:
    """Return the snapshots of these volumes, without any of all, by the volumes' names in lower case."""
    found: dict[str, list[Snapshot]] = {}
    query = [("resources", resource) for resource in resources]
    for item in gateway.get("Looking for snapshots", ("view", "snapshots"), query):
        found.setdefault(item["resource_name"].lower(), []).append(from_json(item))
    return {name: tuple(items) for name, items in found.items()}


def forget(gateway: Gateway, resource: str, name: str) -> None:
    """Delete a snapshot; absent is done."""
    entries = gateway.delete_snapshot(resource, name)
    if any(item.is_warning and item.code == WARN_NOT_CONNECTED for item in entries):
        log.warning(f"snapshot {name} of {resource} goes for good when its offline nodes are back")
    log.info(f"deleted snapshot {name} of {resource}")


def delete(gateway: Gateway, resource: str, name: str) -> None:
    """Delete a snapshot that oned forgets after this, and look that it is gone; absent is done.

    Raises ControllerFailed where LINSTOR reports success and has it still.
    """
    forget(gateway, resource, name)
    left = find(gateway, resource, name)
    if left is not None and not left.is_being_deleted:
        raise ControllerFailed(
            f"LINSTOR reported that it deleted snapshot {name} of {resource} and has it still: see its log and retry"
        )


def from_json(data: Mapping[str, Any]) -> Snapshot:
    """Read a snapshot as LINSTOR describes it."""
    holders = tuple(item["node_name"] for item in data.get("snapshots", ()))
    definitions = data.get("volume_definitions") or [{}]
    return Snapshot(
        name=data["name"],
        flags=frozenset(data.get("flags", ())),
        nodes=holders or tuple(data.get("nodes", ())),
        size_kib=int(definitions[0].get("size_kib", 0)),
    )


def find(gateway: Gateway, resource: str, name: str) -> Optional[Snapshot]:
    """Return one snapshot, or None where there is none."""
    return _named(of(gateway, resource), name)


def _named(found: Sequence[Snapshot], name: str) -> Optional[Snapshot]:
    return next((item for item in found if item.name.lower() == name.lower()), None)


@contextmanager
def needed(remedy: str) -> Iterator[None]:
    """Say what to do where a pool cannot take the snapshots that the block takes; raises NotReady for that."""
    try:
        yield
    except ControllerFailed as error:
        if error.code != SNAPSHOTS_NOT_SUPPORTED:
            raise
        raise NotReady(f"{error}; {remedy}") from None


def take(gateway: Gateway, resource: str, name: str, may_be_partial: bool = False) -> bool:
    """Take a snapshot of all replicas and return whether this call made it; a usable one that is there is as good.

    A failed one would keep its name for ever, so that it is deleted again, as is a partial one unless it may be.
    Raises NotReady where a replica is away or not up to date, ControllerFailed where the pool cannot take snapshots.
    """
    return take_together(gateway, {resource: name}, may_be_partial)


def take_together(gateway: Gateway, wanted: Mapping[str, str], may_be_partial: bool = False) -> bool:
    """Take snapshots of several volumes, by their names, at one instant: all or none; otherwise as `take`."""
    return gateway.once_connected(lambda: until_judged(lambda: attempt(gateway, wanted).judge(gateway, may_be_partial)))


def until_judged(trial: Callable[[], Optional[bool]]) -> bool:
    """Return what a trial at a snapshot says, which is made again where it says nothing, or the controller went away.

    What there may have been of it is deleted then. Raises AnswerLost where the controller goes away twice.
    """
    was_lost = False
    while True:
        try:
            taken = trial()
        except AnswerLost as lost:
            if was_lost:
                raise
            was_lost, taken = True, None
            log.warning(f"{lost}; taking it again")
        if taken is not None:
            return taken


class Attempt(NamedTuple):
    """The answer to the one request for snapshots, not yet judged, as that may cost more requests.

    `wanted` has volumes and the snapshots' names; LINSTOR makes several at one instant, and all or none.
    """

    wanted: Mapping[str, str]
    entries: Sequence[Entry]
    error: Optional[DriverError]

    def judge(self, gateway: Gateway, may_be_partial: bool = False) -> Optional[bool]:
        """Return whether the request made the snapshots, or None where it is worth another; raises as `take`."""
        if isinstance(self.error, AlreadyExists) and self.error.code == EXISTS_SNAPSHOT:
            return self._judge_existing(gateway)
        if self.error is not None:
            if self.error.code or isinstance(self.error, (AnswerLost, AnswerOverdue)):
                self._forget(gateway)
            raise self.error
        warning = next((item.message for item in self.entries if item.is_warning), None)
        if warning is not None and not may_be_partial:
            # LINSTOR leaves replicas on offline nodes out and reports success.
            for resource, name in self.wanted.items():
                gateway.delete_snapshot(resource, name)
            raise NotReady(
                f"A snapshot of {', '.join(self.wanted)} would miss replicas ({warning.rstrip('.')}): "
                "bring the offline nodes back and retry"
            )
        if not may_be_partial:
            self._confirm(gateway)
        for resource, name in self.wanted.items():
            log.info(f"took snapshot {name} of {resource}")
        return True

    def _judge_existing(self, gateway: Gateway) -> Optional[bool]:
        if all(_settled(gateway, resource, name) for resource, name in self.wanted.items()):
            return False
        # What is left of several would keep the next request from making the others.
        if len(self.wanted) > 1:
            self._forget(gateway)
        return None

    def _confirm(self, gateway: Gateway) -> None:
        """Look whether there is what LINSTOR reports; whoever may do with less looks by itself what there is."""
        resources = list(self.wanted)
        there = of_all(gateway, resources) if len(resources) > 1 else {resources[0].lower(): of(gateway, resources[0])}
        for resource, name in self.wanted.items():
            made = _named(there.get(resource.lower(), ()), name)
            if made is None or not made.is_usable:
                self._forget(gateway)
                raise ControllerFailed(
                    f"LINSTOR reported that it took snapshot {name} of {resource} and "
                    f"{'has none' if made is None else 'has one that failed'}: see its log and retry"
                )

    def _forget(self, gateway: Gateway) -> None:
        for resource, name in self.wanted.items():
            _forget_failed(gateway, resource, name)


def attempt(gateway: Gateway, wanted: Mapping[str, str]) -> Attempt:
    """Ask for snapshots of volumes by these names, in exactly one request: a VM may be held meanwhile."""
    try:
        return Attempt(wanted, gateway.create_snapshots(wanted), None)
    except DriverError as error:
        return Attempt(wanted, (), error)


def _settled(gateway: Gateway, resource: str, name: str) -> bool:
    """Wait for a snapshot that somebody else is taking; return whether it is usable, and delete it where it failed."""
    deadline = time.monotonic() + gateway.settings.request_timeout_seconds
    while True:
        existing = find(gateway, resource, name)
        if existing is None or existing.is_usable:
            return existing is not None
        if existing.flags & {"FAILED_DEPLOYMENT", "FAILED_DISCONNECT", "DELETE"} or time.monotonic() > deadline:
            gateway.delete_snapshot(resource, name)
            return False
        time.sleep(_WAIT_SECONDS)


def _forget_failed(gateway: Gateway, resource: str, name: str) -> None:
    try:
        gateway.delete_snapshot(resource, name)
    except DriverError as error:
        log.error(f"the failed snapshot {name} of {resource} could not be deleted: {error}")


def remove_all(gateway: Gateway, resource: str) -> None:
    """Delete every snapshot of a volume."""
    for snapshot in of(gateway, resource):
        gateway.delete_snapshot(resource, snapshot.name)


def restore_definition(gateway: Gateway, resource: str, snapshot: str, target: str) -> bool:
    """Give `target` the volume of a snapshot; return False where there is no such snapshot."""

    def restored() -> bool:
        return bool(gateway.get(f"Looking for {target}", ("resource-definitions", target, "volume-definitions")))

    try:
        gateway.unless_done(lambda: gateway.restore_volume_definition(resource, snapshot, target), restored)
    except NotFound as error:
        if error.code != NOT_FOUND_SNAPSHOT_DEFINITION:
            raise
        return False
    return True


def restore(gateway: Gateway, resource: str, snapshot: str, target: str, nodes: tuple[str, ...] = ()) -> None:
    """Create the replicas of `target`, whose definition was restored before, on the snapshot's nodes or some of them.

    Raises ControllerFailed where LINSTOR reports success and there is no volume.
    """
    entries = gateway.unless_done(
        lambda: gateway.restore_resources(resource, snapshot, target, nodes),
        lambda: bool(replicas.of(gateway, target)),
    )
    if any("No volumes" in item.message for item in entries if item.is_warning):
        raise ControllerFailed(f"LINSTOR restored {target} from {resource} without its volume: retry")
    log.info(f"restored {target} from snapshot {snapshot} of {resource}")


def rolls_back_to_any(gateway: Gateway) -> bool:
    """Tell whether LINSTOR can go back to any snapshot, and not to the newest only."""
    return gateway.rest_version >= _ROLLS_BACK_TO_ANY_SINCE


def check_can_roll_back(gateway: Gateway, names: Names, resource: str, name: str) -> None:
    """Raise NotReady where LINSTOR can go back to the newest snapshot only, and this one is older than another.

    Our ids say which is newer; a snapshot that is not there is left for LINSTOR to refuse.
    """
    if rolls_back_to_any(gateway):
        return
    wanted = names.snapshot_id_of(name)
    younger = [item.name for item in of(gateway, resource) if names.snapshot_id_of(item.name) > wanted]
    if younger:
        raise NotReady(
            f"LINSTOR before 1.31 takes {resource} back to its newest snapshot only, and {', '.join(sorted(younger))} "
            f"{'is' if len(younger) == 1 else 'are'} younger than {name}: upgrade LINSTOR, or delete the younger first"
        )


def roll_back(gateway: Gateway, resource: str, name: str) -> None:
    """Give the volume the content and the size that it had when the snapshot was taken; other snapshots stay.

    LINSTOR deletes the replicas and restores them, which needs every node of the volume online and the volume open
    nowhere. Raises InUse, NotReady and NotFound.
    """
    gateway.once_closed(lambda: gateway.roll_back(resource, name))
    log.info(f"rolled {resource} back to snapshot {name}")


def forget_younger(gateway: Gateway, names: Names, resource: str, name: str) -> None:
    """Delete what is younger than a snapshot that was gone back to, where oned forgets it; what fails is a warning."""
    wanted = names.snapshot_id_of(name)
    try:
        for item in of(gateway, resource):
            if names.snapshot_id_of(item.name) > wanted:
                forget(gateway, resource, item.name)
    except DriverError as error:
        log.warning(f"snapshots of {resource} that are younger than {name} stay: {error}")
