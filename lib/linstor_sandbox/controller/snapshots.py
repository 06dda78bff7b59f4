"""Snapshots: take (of one resource, or of several at one instant), list, modify, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .. import answers, names, properties
from ..answers import Answer, ApiError, Context
from ..model import Resource, ResourceDefinition, Snapshot, SnapshotReplica, VolumeDefinition, new_uuid
from ..views import snapshot_json, supports_snapshots
from .base import Controller, Request, Response, catching, name_filter, paginate, respond, route

_BASE = "/v1/resource-definitions/{rd}/snapshots"


class Plan:
    """A snapshot that can be taken: everything that refuses it was asked before."""

    def __init__(
        self, controller: Controller, definition: ResourceDefinition, name: Any, nodes: Sequence[str], answer: Answer
    ) -> None:
        self.controller = controller
        self.cluster = controller.cluster
        self.definition = definition
        self.name = name
        self.nodes = list(nodes)
        self.answer = answer
        names.check_snapshot_name(name)
        if name in definition.snapshots:
            raise ApiError(
                answers.FAIL_EXISTS_SNAPSHOT_DFN,
                f"A snapshot definition with the name '{name}' already "
                f"exists in resource definition '{definition.name}'.",
                cause="The SnapshotDefinition already exists",
            )
        self.replicas = self._replicas()

    def _replicas(self) -> list[Resource]:
        """The replicas of which it is taken; diskless and offline ones are left out."""
        if self.nodes:
            chosen = [self.controller.resource(self.definition, node) for node in self.nodes]
            diskless = next((res for res in chosen if res.diskless), None)
            if diskless is not None:
                raise ApiError(
                    answers.FAIL_SNAPSHOTS_NOT_SUPPORTED,
                    f"Cannot create snapshot from diskless resource on node '{diskless.node.name}'",
                    report=True,
                )
        else:
            chosen = [res for res in self.definition.diskful() if not res.inactive]
        for resource in chosen:
            self._check(resource)
        online = [res for res in chosen if res.node.connection != "OFFLINE"]
        if not online:
            raise ApiError(
                answers.FAIL_NOT_CONNECTED,
                "No diskful connected satellite for snapshot or no resources.",
                details="Snapshots need at least one diskful online satellite.",
                report=True,
            )
        for resource in chosen:
            if resource not in online:
                self.answer.warn(
                    0,
                    f"Snapshot for resource '{self.definition.name}' will not be created on node "
                    f"'{resource.node.name}' because that node is currently offline.",
                )
        return online

    def _check(self, resource: Resource) -> None:
        if not supports_snapshots(self.cluster, resource.pool):
            raise ApiError(
                answers.FAIL_SNAPSHOTS_NOT_SUPPORTED,
                f"Storage driver '{resource.pool.kind.name}' does not support snapshots.",
                report=True,
                details=f"Used for storage pool '{resource.pool.name}' on '{resource.node.name}'.",
            )
        if resource.uses_drbd and resource.node.online and resource.state() != "UpToDate":
            raise ApiError(
                979,
                f"Snapshot of resource '{resource.name}' on node '{resource.node.name}' is not "
                "possible: the disk is not UpToDate.",
                report=True,
            )

    def register(self, props: Optional[dict[str, str]] = None) -> Snapshot:
        """Make the snapshot in the model, without bytes."""
        definition = self.definition
        sequence = 1 + max((int(other.props["SequenceNumber"]) for other in definition.snapshots), default=0)
        snapshot = Snapshot(self.name, definition)
        ids = ",".join(str(res.node_id) for res in definition.diskful() if res.uses_drbd)
        snapshot.props = {"BackupShipping/BackupNodeIdsToReset": ids, "SequenceNumber": str(sequence), **(props or {})}
        snapshot.definition_props = dict(definition.props.items())
        snapshot.volumes = {
            number: VolumeDefinition(number, volume.size, dict(volume.props), list(volume.flags))
            for number, volume in definition.volumes.items()
        }
        for resource in self.replicas:
            replica = SnapshotReplica(
                resource.node, resource.pool, list(resource.layers), dict(resource.props), node_id=resource.node_id
            )
            replica.volume_uuids = {number: new_uuid() for number in definition.volumes}
            snapshot.replicas[resource.node.name] = replica
        definition.snapshots[self.name] = snapshot
        return snapshot

    def registered_entry(self, snapshot: Snapshot) -> None:
        """The entry of a new snapshot."""
        on_nodes = " on nodes " + ", ".join(f"'{node}'" for node in self.nodes) if self.nodes else ""
        described = f"napshot '{self.name}' of resource '{self.definition.name}'{on_nodes}"
        self.answer.add(
            answers.CREATED,
            f"New s{described} registered.",
            obj=answers.SNAPSHOT,
            op=answers.CREATE,
            details=f"S{described} UUID is: {snapshot.uuid}",
            refs={"UUID": snapshot.uuid},
        )


class Taking:
    """Suspend, snapshot, resume: on all nodes of all resources concerned."""

    def __init__(self, plans: Sequence[Plan], snapshots: Sequence[Snapshot], answer: Answer) -> None:
        self.plans = plans
        self.snapshots = snapshots
        self.answer = answer
        self.controller = plans[0].controller
        self.names = ", ".join(plan.definition.name for plan in plans)

    def run(self) -> bool:
        """True when it was taken everywhere."""
        self._step("Suspended IO of '[{names}]' on '{node}' for snapshot")
        replicas = [res for plan in self.plans for res in plan.replicas]
        broken = {
            res.node.name: "injected failure"
            for res in replicas
            if self.controller.cluster.fails(res.node.name, "snapshot")
        }
        full = self.controller.satellites.without_room(replicas)
        broken.update(dict.fromkeys(full, "Volume group has insufficient free space"))
        with self.controller.cluster.suspended_io:
            for plan, snapshot in zip(self.plans, self.snapshots):
                if not broken:
                    self.controller.satellites.take_snapshot(snapshot, plan.replicas)
                snapshot.flags = {"FAILED_DEPLOYMENT"} if broken else {"SUCCESSFUL"}
        self._took(broken)
        if broken:
            self._step("Aborted snapshot and resumed IO of '{names}' on '{node}'")
        else:
            self._step("Resumed IO of '[{names}]' on '{node}' after snapshot")
        return not broken

    def _nodes(self) -> list[str]:
        return sorted(
            {
                res.node.name
                for plan in self.plans
                for res in plan.definition.resources
                if res.node.online and res.deployed
            }
        )

    def _step(self, text: str) -> None:
        for node in self._nodes():
            self._node_entries(node)
            self.answer.add(answers.MODIFIED, text.format(names=self.names, node=node))

    def _node_entries(self, node: str) -> None:
        for plan, snapshot in zip(self.plans, self.snapshots):
            resource = plan.definition.resources.get(node)
            if resource is not None and resource.uses_drbd:
                self.answer.add(
                    answers.MODIFIED, f"({node}) Resource '{plan.definition.name}' [DRBD] adjusted.", obj=answers.RSC
                )
            if node not in snapshot.replicas:
                self.answer.add(
                    0,
                    f"({node}) Skipping processing unknown snapshot '{snapshot.name}' of resource "
                    f"'{plan.definition.name}'",
                    cause="Resource is already deleted",
                )

    def _took(self, broken: Mapping[str, str]) -> None:
        for node in self._nodes():
            self._node_entries(node)
            if node in broken:
                volume = f"{self.plans[0].definition.name}_00000"
                group, _, thin = self.snapshots[0].replicas[node].pool.driver().partition("/")
                self.answer.satellite_error(
                    node,
                    f"Failed to create snapshot {group}/{volume}_{self.snapshots[0].name} from {volume} within "
                    + (f"thin volume group {group}/{thin}" if thin else f"volume group {group}"),
                    f"Command 'lvcreate' returned with exitcode 5. \n\nError message: \n  {broken[node]}",
                )
                continue
            for plan, snapshot in zip(self.plans, self.snapshots):
                self._volume_entries(node, plan, snapshot)
            self.answer.add(answers.MODIFIED, f"Took snapshot of '[{self.names}]' on '{node}'")

    def _volume_entries(self, node: str, plan: Plan, snapshot: Snapshot) -> None:
        replica = snapshot.replicas.get(node)
        for number in sorted(snapshot.volumes) if replica else ():
            assert replica is not None
            self.answer.add(
                answers.CREATED,
                f"({node}) Snapshot [{replica.pool.kind.label}] with name '{snapshot.name}' of "
                f"resource '{plan.definition.name}', volume number {number} created.",
                refs={"Snapshot": snapshot.name, "RscDfn": plan.definition.name, "VlmNr": str(number)},
            )


@route("POST", _BASE, schema="Snapshot")
def create(controller: Controller, request: Request) -> Response:
    """A snapshot of one resource."""
    rd, body = request.params["rd"], request.body
    name, nodes = body.get("name"), list(body.get("nodes") or [])
    prefix = f"Nodes: {', '.join(nodes)}; " if nodes else ""
    answer = Answer(
        Context(
            answers.CREATE,
            answers.SNAPSHOT,
            {"RscDfn": rd, "Snapshot": name},
            f"{prefix}Resource: {rd}, Snapshot: {'null' if name is None else name}",
        )
    )
    with catching(answer):
        props = properties.check(body.get("snapshot_definition_props") or {})
        plan = Plan(controller, controller.definition(rd), name, nodes, answer)
        snapshot = plan.register(props)
        plan.registered_entry(snapshot)
        Taking([plan], [snapshot], answer).run()
    return respond(answer, 201)


@route("POST", "/v1/actions/snapshot/multi", schema="MultiSnapshot", since="1.18.0")
def create_multi(controller: Controller, request: Request) -> Response:
    """Snapshots of several resources at one instant; all or none."""
    items = request.body.get("snapshots") or []
    listed = ", ".join(f"Resource: {item.get('resource_name')}, Snapshot: {item.get('name')}" for item in items)
    answer = Answer(Context(answers.CREATE, answers.SNAPSHOT, {}, f"MultiSnapshot 1 [{listed}]"))
    with catching(answer):
        plans = [
            Plan(
                controller,
                controller.definition(str(item.get("resource_name"))),
                item.get("name"),
                item.get("nodes") or [],
                answer,
            )
            for item in items
        ]
        keys = [(plan.definition.name, plan.name.upper()) for plan in plans]
        if len(set(keys)) != len(keys):
            raise ApiError(answers.FAIL_EXISTS_SNAPSHOT_DFN, "A snapshot is named twice.")
        snapshots = [plan.register() for plan in plans]
        for plan, snapshot in zip(plans, snapshots):
            plan.registered_entry(snapshot)
        if plans:
            Taking(plans, snapshots, answer).run()
    return respond(answer, 201)


@route("GET", _BASE)
def listing(controller: Controller, request: Request) -> Response:
    """The snapshots of one definition."""
    definition = controller.read_definition(request.params["rd"])
    return Response(200, [snapshot_json(controller.cluster, snapshot) for snapshot in definition.snapshots])


@route("GET", _BASE + "/{snapshot}")
def show(controller: Controller, request: Request) -> Response:
    """One snapshot."""
    definition = controller.read_definition(request.params["rd"])
    name = request.params["snapshot"]
    found = definition.snapshots.get(name)
    if found is None:
        raise ApiError(answers.FAIL_NOT_FOUND_SNAPSHOT, f"Snapshot '{name}' not found.", bare=True)
    return Response(200, snapshot_json(controller.cluster, found))


@route("GET", "/v1/view/snapshots")
def view(controller: Controller, request: Request) -> Response:
    """All snapshots, or those that the filters leave."""
    by_name, by_node = name_filter(request, "resources"), name_filter(request, "nodes")
    definitions = [rd for rd in controller.cluster.definitions if rd.snapshots and by_name(rd.name)]
    found = [
        snapshot
        for definition in definitions
        for snapshot in definition.snapshots
        if not request.values("nodes") or any(by_node(replica.node.name) for replica in snapshot.replicas)
    ]
    everything = not request.query
    chosen = set() if everything else {id(snapshot) for snapshot in paginate(request, found)}

    def describe(definition: ResourceDefinition) -> list[dict[str, Any]]:
        return [
            snapshot_json(controller.cluster, snapshot)
            for snapshot in definition.snapshots
            if everything or id(snapshot) in chosen
        ]

    return Response(200, controller.serialized.items("snapshots" if everything else "", definitions, describe))


@route("PUT", _BASE + "/{snapshot}", schema="PropsModify", since="1.26.0")
def modify(controller: Controller, request: Request) -> Response:
    """Properties of a snapshot."""
    rd, name = request.params["rd"], request.params["snapshot"]
    answer = Answer(
        Context(answers.CREATE, answers.SNAPSHOT, {"RscDfn": rd, "Snapshot": name}, f"Resource: {rd}, Snapshot: {name}")
    )
    with catching(answer):
        found = controller.snapshot(controller.definition(rd), name)
        properties.modify(answer, answers.SNAPSHOT, found.props, request.body)
    return respond(answer)


@route("DELETE", _BASE + "/{snapshot}")
def delete(controller: Controller, request: Request) -> Response:
    """A snapshot, on all or on some nodes; absent is a warning."""
    rd, name = request.params["rd"], request.params["snapshot"]
    answer = Answer(
        Context(answers.DELETE, answers.SNAPSHOT, {"RscDfn": rd, "Snapshot": name}, f"Resource: {rd}, Snapshot: {name}")
    )
    definition = controller.cluster.definitions.get(rd)
    snapshot = definition.snapshots.get(name) if definition else None
    if definition is None or snapshot is None:
        answer.warn(
            answers.WARN_NOT_FOUND,
            f"Snapshot definition {name} of resource {rd} not found.",
            details=f"Resource: {rd}, Snapshot: {name}",
        )
        return respond(answer)
    with catching(answer):
        remove(controller, snapshot, answer, request.values("nodes"))
        empty = request.flag("delete_empty_resource_definition") and controller.cluster.at_least("1.29.0")
        if empty and not len(definition.resources) and not len(definition.snapshots):
            controller.cluster.definitions.pop(definition.name)
            answer.add(answers.DELETED, f"Resource definition '{definition.name}' deleted.", obj=answers.RSC_DFN)
    return respond(answer)


def remove(controller: Controller, snapshot: Snapshot, answer: Answer, nodes: Sequence[str] = ()) -> None:
    """Delete a snapshot on all or some of its nodes; on a node that is not connected it stays DELETE."""
    wanted = {node.upper() for node in nodes}
    chosen = [replica for replica in snapshot.replicas if not wanted or replica.node.name.upper() in wanted]
    described = f"napshot '{snapshot.name}' of resource '{snapshot.definition.name}'"
    for replica in chosen:
        answer.add(answers.DELETED, f"Marked snapshot for deletion s{described} on nodes '{replica.node.name}'")
    gone = []
    for replica in chosen:
        if not replica.node.online or controller.cluster.fails(replica.node.name, "delete-silently"):
            answer.not_connected(replica.node.name)
            snapshot.flags.add("DELETE")
        elif controller.cluster.fails(replica.node.name, "delete"):
            answer.satellite_error(replica.node.name, f"Failed to delete snapshot {snapshot.name}")
            snapshot.flags.add("DELETE")
        elif _has_clones(controller, snapshot, replica):
            answer.satellite_error(replica.node.name, "Failed to delete zfs snapshot")
            snapshot.flags.add("DELETE")
        else:
            _gone_entries(snapshot, replica, answer)
            gone.append(replica.node.name)
    for node in gone:
        forget_on(controller, snapshot, node)
    if gone:
        answer.add(answers.DELETED, f"S{described} on nodes '{', '.join(gone)}' deleted.")
    if not len(snapshot.replicas):
        answer.add(
            answers.DELETED,
            f"S{described} deleted.",
            details=f"S{described} UUID was: {snapshot.uuid}",
            refs={"UUID": snapshot.uuid},
        )


def _has_clones(controller: Controller, snapshot: Snapshot, replica: SnapshotReplica) -> bool:
    """Whether ZFS keeps a snapshot for what was restored from it; since LINSTOR 1.31 it is renamed out of the way."""
    if replica.pool.kind.family != "ZFS" or controller.cluster.at_least("1.25.0"):
        return False
    return any(res.restored_from is snapshot and res.node is replica.node for res in controller.cluster.resources())


def _gone_entries(snapshot: Snapshot, replica: SnapshotReplica, answer: Answer) -> None:
    node, name = replica.node.name, snapshot.definition.name
    for number in sorted(snapshot.volumes) if "SUCCESSFUL" in snapshot.flags else ():
        answer.add(
            answers.DELETED,
            f"({node}) Snapshot [{replica.pool.kind.label}] with name '{snapshot.name}' of "
            f"resource '{name}', volume number {number} deleted.",
            refs={"VlmNr": str(number)},
        )
    answer.add(answers.MODIFIED, f"Deleted snapshot '{snapshot.name}' of '{name}' on '{node}'")


def forget_on(controller: Controller, snapshot: Snapshot, node: str) -> None:
    """Take a snapshot off a node, bytes and all; with the last of its nodes it is gone."""
    controller.satellites.drop_snapshot(snapshot, node)
    snapshot.replicas.pop(node)
    if not len(snapshot.replicas):
        controller.satellites.drop_snapshot(snapshot)
        snapshot.definition.snapshots.pop(snapshot.name)
