"""The one way to LINSTOR: python-linstor's low-level class, with deadlines, fail-over and typed answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar
from urllib.parse import quote

from linstor_un import log
from linstor_un.cluster.codes import INFO_PROPERTY_SET, Entry, entry, refusal
from linstor_un.errors import (
    AnswerLost,
    AnswerOverdue,
    ControllerFailed,
    InUse,
    NoRoom,
    NotReady,
)
from linstor_un.settings import Settings
from linstor_un.undo import undisturbed

if TYPE_CHECKING:
    from linstor_un.cluster.connection import Connection

# What a controller knows from which REST version on (CHANGELOG-OPENAPI.md of linstor-server): a field that it does not
# know is a hard error there, and a query that it does not know is ignored.
_MANAGED_SINCE = (1, 29)
_KEEPS_TIE_BREAKERS_SINCE = (1, 23)
_SPAWNS_WITH_PROPERTIES_SINCE = (1, 22)
_ATTACHES_BESIDE_OFFLINE_NODES_SINCE = (1, 22)
_BALANCES_SINCE = (1, 21)
_ATTACHES_TIE_BREAKERS_SINCE = (1, 19)
_TAKES_SNAPSHOTS_TOGETHER_SINCE = (1, 18)
_AUTO_TIE_BREAKER = "DrbdOptions/auto-add-quorum-tiebreaker"
_IDLE_SECONDS = 20
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 1.0
_LEAST_ANSWER_SECONDS = 1.0
_Answer = TypeVar("_Answer")


class Gateway:
    """The LINSTOR cluster of one datastore; connects when the first request is due.

    The mutating methods return the controller's entries; a refusal is raised as the DriverError of its remedy, whose
    `code` tells callers that know better what it was.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._connection: Optional[Connection] = None
        self._last_used = 0.0
        self._missed_since = 0.0
        self._has_failed_over = False
        self._overdue_since = 0.0

    @property
    def rest_version(self) -> tuple[int, ...]:
        """Return the controller's REST version; fields that it does not know are hard errors there."""
        return self._connected().rest_version

    @property
    def manages_two_primaries(self) -> bool:
        """Tell whether LINSTOR itself, and the installed python-linstor, allow two primaries while a VM migrates."""
        return self.rest_version >= _MANAGED_SINCE and hasattr(self._connected(), "resource_unmake_available")

    @property
    def spawns_with_properties(self) -> bool:
        """Tell whether a volume is made with its properties in one request, whose answer says where it is."""
        return self.rest_version >= _SPAWNS_WITH_PROPERTIES_SINCE

    @property
    def attaches_beside_offline_nodes(self) -> bool:
        """Tell whether attaching succeeds where another node of the volume is offline; else it is done and fails."""
        return self.rest_version >= _ATTACHES_BESIDE_OFFLINE_NODES_SINCE

    @property
    def attaches_tie_breakers(self) -> bool:
        """Tell whether a tie-breaker that is made available is none any more; else LINSTOR may take it away later."""
        return self.rest_version >= _ATTACHES_TIE_BREAKERS_SINCE

    @property
    def balances(self) -> bool:
        """Tell whether LINSTOR brings volumes to their groups' replica counts by itself, and knows how not to."""
        return self.rest_version >= _BALANCES_SINCE

    def certificate_days(self) -> Optional[float]:
        """Return for how many days more the controller's certificate is valid, None without TLS."""
        return self._connected().certificate_days()

    def connect(self) -> None:
        """Connect now, for an action that must lose no time later."""
        self._connected()

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    # --- requests that python-linstor has a method for ----------------------------------------------------------

    def make_available(self, resource: str, node: str, for_migration: bool = False) -> list[Entry]:
        """Offer `resource` on `node`, diskless where the node has no replica; does nothing where it is offered.

        `for_migration` also allows two primaries, from REST 1.29 on.
        """
        # Older releases of python-linstor do not have the argument.
        migration = {"auto_manage_dual_primary": True} if for_migration else {}

        def call(connection: Connection) -> Any:
            return connection.resource_make_available(node, resource, **migration)

        return self._ask(f"Attaching {resource} on {node}", call, True)

    def unmake_available(self, resource: str, node: str) -> list[Entry]:
        """Take back `make_available` for a migration, from REST 1.29 on: never removes a replica or a tie-breaker."""
        what = f"Detaching {resource} from {node}"
        return self._ask(what, lambda c: c.resource_unmake_available(node, resource), True)

    def modify_connection(
        self, resource: str, node: str, other: str, properties: Mapping[str, str], deleted: Sequence[str] = ()
    ) -> list[Entry]:
        """Set and delete properties of the connection of two nodes that both have the resource."""
        what = f"Setting properties of {resource} between {node} and {other}"
        return self._ask(
            what, lambda c: c.resource_conn_modify(resource, node, other, dict(properties), list(deleted)), True
        )

    def delete_resource(self, resource: str, node: str) -> list[Entry]:
        """Delete `resource` on `node`, keeping a tie-breaker; the caller has made sure that its data is not needed.

        Older controllers take the deletion of what was made a tie-breaker meanwhile for the wish to have none: that is
        put right, which makes one again.
        """
        what = f"Detaching {resource} from {node}"
        if self.rest_version >= _KEEPS_TIE_BREAKERS_SINCE:
            return self._ask(what, lambda c: c.resource_delete(node, resource, keep_tiebreaker=True), True)
        entries = self._ask(what, lambda c: c.resource_delete(node, resource), True)
        if any(item.code == INFO_PROPERTY_SET and "auto-tiebreaker" in item.message for item in entries):
            self.modify_resource_definition(resource, {}, [_AUTO_TIE_BREAKER])
        return entries

    def modify_resource(
        self, resource: str, node: str, properties: Mapping[str, str], deleted: Sequence[str] = ()
    ) -> list[Entry]:
        """Set and delete properties of `resource` on one node, which go with it."""
        what = f"Setting properties of {resource} on {node}"
        return self._ask(what, lambda c: c.resource_modify(node, resource, dict(properties), list(deleted)), True)

    def delete_resource_definition(self, resource: str) -> list[Entry]:
        """Delete `resource` with all its replicas; absent is done."""
        return self._ask(f"Deleting {resource}", lambda c: c.resource_dfn_delete(resource), True)

    def modify_resource_definition(
        self, resource: str, properties: Mapping[str, str], deleted: Sequence[str] = ()
    ) -> list[Entry]:
        """Set and delete properties of a resource definition."""
        return self._ask(
            f"Setting properties of {resource}",
            lambda c: c.resource_dfn_modify(resource, dict(properties), list(deleted)),
            True,
        )

    def resize_volume_definition(self, resource: str, size_kib: int) -> list[Entry]:
        """Set the size of volume 0."""
        return self._ask(f"Resizing {resource}", lambda c: c.volume_dfn_modify(resource, 0, size=size_kib), True)

    def create_snapshots(self, wanted: Mapping[str, str]) -> list[Entry]:
        """Take a snapshot of each volume, by its name, on all nodes with a replica: all at one instant, or none.

        Before REST 1.18 one after the other: at one instant for whoever does not let the VM write meanwhile, and where
        one fails those before it are there.
        """
        if len(wanted) == 1 or self.rest_version < _TAKES_SNAPSHOTS_TOGETHER_SINCE:
            return [entry for item in wanted.items() for entry in self._create_snapshot(*item)]
        items = [{"resource_name": resource, "name": snapshot} for resource, snapshot in wanted.items()]
        what = f"Taking snapshots of {', '.join(wanted)}"
        return self._send(what, "POST", ("actions", "snapshot", "multi"), {"snapshots": items})

    def _create_snapshot(self, resource: str, snapshot: str) -> list[Entry]:
        what = f"Taking snapshot {snapshot} of {resource}"
        return self._ask(what, lambda c: c.snapshot_create([], resource, snapshot))

    def delete_snapshot(self, resource: str, snapshot: str) -> list[Entry]:
        """Delete a snapshot; absent is done."""
        return self._ask(
            f"Deleting snapshot {snapshot} of {resource}", lambda c: c.snapshot_delete(resource, snapshot), True
        )

    def restore_volume_definition(self, resource: str, snapshot: str, target: str) -> list[Entry]:
        """Give the resource definition `target` the volumes of a snapshot; before `restore_resources`, always."""
        return self._ask(
            f"Restoring snapshot {snapshot} of {resource} to {target}",
            lambda c: c.snapshot_volume_definition_restore(resource, snapshot, target),
        )

    def restore_resources(self, resource: str, snapshot: str, target: str, nodes: Sequence[str] = ()) -> list[Entry]:
        """Create the replicas of `target` from a snapshot, on all nodes that hold it or on `nodes` of them."""
        return self._ask(
            f"Restoring snapshot {snapshot} of {resource} to {target}",
            lambda c: c.snapshot_resource_restore(list(nodes), resource, snapshot, target),
        )

    def roll_back(self, resource: str, snapshot: str) -> list[Entry]:
        """Give `resource` the content of a snapshot."""
        what = f"Rolling {resource} back to snapshot {snapshot}"
        return self._ask(what, lambda c: c.snapshot_rollback(resource, snapshot), True)

    # --- requests with fields that python-linstor has no argument for --------------------------------------------

    def spawn(self, group: str, body: Mapping[str, Any]) -> list[Entry]:
        """Create a resource definition with its volume and replicas from a resource group, in one transaction."""
        name = body["resource_definition_name"]
        return self._send(f"Creating {name}", "POST", ("resource-groups", group, "spawn"), body)

    def create_resource_group(self, body: Mapping[str, Any]) -> list[Entry]:
        """Create a resource group with its placement."""
        return self._send(f"Creating resource group {body['name']}", "POST", ("resource-groups",), body, True)

    def modify_resource_group(self, name: str, body: Mapping[str, Any]) -> list[Entry]:
        """Change what a resource group says; a list of its filter that is given empty is empty from then on."""
        return self._send(f"Changing resource group {name}", "PUT", ("resource-groups", name), body, True)

    def create_resource_definition(
        self, name: str, group: str, properties: Mapping[str, str], layers: Sequence[str] = ()
    ) -> list[Entry]:
        """Create an empty resource definition, LINSTOR's only atomic mutex; without `layers` with its group's."""
        definition: dict[str, Any] = {"name": name, "resource_group_name": group, "props": dict(properties)}
        if layers:
            definition["layer_data"] = [{"type": layer} for layer in layers]
        return self._send(f"Creating {name}", "POST", ("resource-definitions",), {"resource_definition": definition})

    def create_volume_definition(self, resource: str, size_kib: int) -> list[Entry]:
        """Give a resource definition its volume."""
        path = ("resource-definitions", resource, "volume-definitions")
        return self._send(f"Creating {resource}", "POST", path, {"volume_definition": {"size_kib": size_kib}})

    def autoplace(self, resource: str, select_filter: Mapping[str, Any], layers: Sequence[str] = ()) -> list[Entry]:
        """Add replicas until the filter is satisfied; without `layers` with those of the resource group."""
        path = ("resource-definitions", resource, "autoplace")
        body: dict[str, Any] = {"select_filter": dict(select_filter)}
        if layers:
            body["layer_list"] = list(layers)
        return self._send(f"Placing {resource}", "POST", path, body, True)

    def create_replica(self, resource: str, node: str, pool: str, layers: Sequence[str]) -> list[Entry]:
        """Create `resource` with a disk in that pool of a node where it is not; does nothing where there is one."""
        wanted = {"name": resource, "node_name": node, "props": {"StorPoolName": pool}}
        path = ("resource-definitions", resource, "resources")
        body = [{"resource": wanted, "layer_list": list(layers)}]
        return self._send(f"Placing {resource} on {node}", "POST", path, body, True)

    def create_diskless(self, resource: str, node: str) -> list[Entry]:
        """Create `resource` on a node without disk and with a vote, in place of a tie-breaker."""
        path = ("resource-definitions", resource, "resources")
        body = [{"resource": {"name": resource, "node_name": node, "flags": ["DRBD_DISKLESS"]}}]
        return self._send(f"Attaching {resource} on {node}", "POST", path, body, True)

    def give_disk(self, resource: str, node: str, pool: str, layers: Sequence[str]) -> list[Entry]:
        """Give a diskless resource a disk in that pool; does nothing where it has one. The peers fill it later."""
        path = ("resource-definitions", resource, "resources", node, "toggle-disk", "diskful", pool)
        return self._send(f"Placing {resource} on {node}", "PUT", path, {"layer_list": list(layers)}, True)

    def take_disk(self, resource: str, node: str) -> list[Entry]:
        """Make a replica diskless, open or not; does nothing where it is. LINSTOR refuses for the last that answers."""
        path = ("resource-definitions", resource, "resources", node, "toggle-disk", "diskless")
        return self._send(f"Taking the disk of {resource} on {node}", "PUT", path, None, True)

    def get(self, what: str, path: Sequence[str], query: Sequence[tuple[str, str]] = ()) -> Any:
        """Return the data of a GET below /v1; raises NotFound for what does not exist."""
        import json

        url = _path(path, query)

        def call(connection: Connection) -> tuple[int, str]:
            response = connection._rest_request_base(what, "GET", url, None)
            return response.status, connection._decode_response_data(response)

        status, text = self._attempt(what, call, True, reads=True)
        try:
            data = json.loads(text)
        except ValueError:
            raise ControllerFailed(
                f"{what} failed: LINSTOR answered status {status} without JSON; see its log"
            ) from None
        if status >= 400:
            raise refusal(what, [entry(item) for item in (data if isinstance(data, list) else [])])
        return data

    def once_closed(self, request: Callable[[], _Answer]) -> _Answer:
        """Make a request that needs the volume closed, for at most IN_USE_TIMEOUT: LINSTOR hears of a close late.

        Raises InUse where the volume stays open.
        """
        deadline = time.monotonic() + self.settings.in_use_timeout_seconds
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                return request()
            except InUse:
                if time.monotonic() > deadline:
                    raise
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def unless_done(self, request: Callable[[], list[Entry]], is_done: Callable[[], bool]) -> list[Entry]:
        """Make a request that must not happen twice; where its answer is lost, again unless it has happened."""
        try:
            return request()
        except AnswerLost as lost:
            log.warning(f"{lost}; looking what has come of it")
            return [] if is_done() else request()

    def once_connected(self, request: Callable[[], _Answer]) -> _Answer:
        """Make a request that needs satellites; again while a controller that has just started connects them.

        For at most FAILOVER_TIMEOUT. A node that is dead is not waited for.
        """
        deadline = time.monotonic() + self.settings.failover_timeout_seconds
        wait, was_starting = _FIRST_WAIT_SECONDS, False
        while True:
            try:
                return request()
            except (NoRoom, NotReady) as error:
                is_starting = time.monotonic() < deadline and self._is_starting()
                if not (is_starting or was_starting):
                    raise
                was_starting = is_starting
                log.debug(f"{error}; the controller has just started: trying again")
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def _is_starting(self) -> bool:
        from linstor_un.cluster import controllers

        nodes = self.get("Looking at the nodes", ("nodes",))
        return controllers.are_being_connected([str(node.get("connection_status")) for node in nodes])

    # --- beneath them ---------------------------------------------------------------------------------------------

    def _send(self, what: str, method: str, path: Sequence[str], body: object, repeatable: bool = False) -> list[Entry]:
        url = _path(path)
        return self._ask(what, lambda connection: connection._rest_request(what, method, url, body), repeatable)

    def _ask(self, what: str, call: Callable[[Connection], Any], repeatable: bool = False) -> list[Entry]:
        entries = [entry(item._rest_data) for item in self._attempt(what, call, repeatable)]
        for item in entries:
            if item.is_error or item.is_warning:
                log.debug(f"{what}: {item.message}")
        if any(item.is_error for item in entries):
            raise refusal(what, entries)
        return entries

    def _attempt(self, what: str, call: Callable[[Connection], Any], repeatable: bool, reads: bool = False) -> Any:
        """Make one request; one that may safely be made twice is made again after a fail-over.

        A signal waits for its answer, unless it only `reads`: LINSTOR may do what nobody waits for when it has been
        taken back, and the volume made anew.

        Raises AnswerLost for one that may not: its caller has to look whether it happened.
        """
        try:
            return self._once(what, call, reads)
        except AnswerLost as lost:
            if not repeatable:
                raise
            log.warning(f"{lost}; asking again")
        return self._once(what, call, reads)

    def _once(self, what: str, call: Callable[[Connection], Any], reads: bool) -> Any:
        from linstor.errors import LinstorError, LinstorNetworkError, LinstorTimeoutError

        log.doing(what)
        connection = self._connected()
        started = time.monotonic()
        try:
            with nullcontext() if reads else undisturbed():
                return call(connection)
        except (LinstorNetworkError, OSError, HTTPException) as lost:
            self._lose()
            raise AnswerLost(f"{what}: the LINSTOR controller went away ({lost}), retry when it is back") from None
        except LinstorTimeoutError:
            self.close()
            if not self._still_answers(connection):
                self._lose()
                raise AnswerLost(f"{what}: the LINSTOR controller fell silent, retry when it is back") from None
            self._overdue_since = self._overdue_since or time.monotonic()
            raise AnswerOverdue(
                f"{what}: LINSTOR did not answer within {self.settings.request_timeout_seconds} s; see `linstor node "
                "list` for a node that hangs, and retry"
            ) from None
        except LinstorError as refused:
            raise ControllerFailed(f"{what} failed: {refused}; see the controller's log") from None
        except BaseException:
            # What was asked has no answer yet, which the next request would take for its own.
            self.close()
            raise
        finally:
            self._last_used = time.monotonic()
            log.debug(f"{what}: {self._last_used - started:.3f} s")

    def _connected(self) -> Connection:
        if self._connection is not None and time.monotonic() - self._last_used > _IDLE_SECONDS:
            # The controller closes idle connections, which shows only when a request has gone into the void.
            self.close()
        if self._connection is not None:
            try:
                self._connection.stay(self._longest_seconds())
            except OSError as lost:
                log.debug(f"the LINSTOR controller went away: {lost}")
                self._lose()
        if self._connection is None:
            self._connection = self._connect()
            self._connection.stay(self._longest_seconds())
            self._last_used = time.monotonic()
        return self._connection

    def _still_answers(self, connection: Connection) -> bool:
        """Tell whether the controller that owes an answer is alive, so that no other one is going to take over."""
        from linstor_un.cluster import controllers

        return controllers.answers(self.settings, connection.uri)

    def _longest_seconds(self) -> float:
        """Return for how long a request may take: all that follow one that is overdue share as long again."""
        longest = self.settings.request_timeout_seconds
        if not self._overdue_since:
            return longest
        return max(_LEAST_ANSWER_SECONDS, self._overdue_since + longest - time.monotonic())

    def _lose(self) -> None:
        self.close()
        self._has_failed_over = True

    def _connect(self) -> Connection:
        """Connect, for as long as a fail-over may take; what follows one that was too long does not wait again."""
        from linstor_un.cluster import controllers

        self._missed_since = self._missed_since or time.monotonic()
        deadline = self._missed_since + self.settings.failover_timeout_seconds
        found = controllers.find(self.settings, deadline, self._has_failed_over)
        self._missed_since, self._has_failed_over = 0.0, False
        return found


def _path(parts: Sequence[str], query: Sequence[tuple[str, str]] = ()) -> str:
    url = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    if query:
        url += "?" + "&".join(f"{quote(key)}={quote(value, safe='=/')}" for key, value in query)
    return url
