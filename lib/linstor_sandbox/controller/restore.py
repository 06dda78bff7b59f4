"""From a snapshot: volume definitions, resources, and back (rollback)."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from typing import Optional

from .. import answers
from ..answers import Answer, ApiError, Context
from ..drbd import new_resource
from ..model import Node, Resource, Snapshot, SnapshotReplica, StoragePool, VolumeDefinition
from .base import Controller, Request, Response, catching, respond, route
from .definitions import delete_resources, in_use_error
from .deployment import Deployment
from .snapshots import Plan, Taking, remove

_BASE = "/v1/resource-definitions/{rd}"


@route("POST", _BASE + "/snapshot-restore-volume-definition/{snapshot}", schema="SnapshotRestore", parse_status=400)
def restore_volumes(controller: Controller, request: Request) -> Response:
    """The volume definitions of a snapshot into another definition."""
    rd, name = request.params["rd"], request.params["snapshot"]
    target_name = str(request.body.get("to_resource") or "")
    answer = Answer(Context(answers.CREATE, answers.SNAPSHOT, {}, f"Volume definitions of resource: {target_name}"))
    with catching(answer):
        snapshot = controller.snapshot(controller.definition(rd), name)
        target = controller.definition(target_name)
        for number in snapshot.volumes:
            if number in target.volumes:
                raise ApiError(
                    answers.FAIL_EXISTS_VLM_DFN,
                    f"A volume definition with the number {number} already "
                    f"exists in resource definition '{target.name}'.",
                    cause="The VolumeDefinition already exists",
                )
        for number, volume in snapshot.volumes.items():
            target.volumes[number] = VolumeDefinition(number, volume.size, dict(volume.props), list(volume.flags))
        if target.layers:
            controller.satellites.prepare(target, target.layers)
        answer.add(
            answers.DELETED,
            f"Volume definitions of resource definition '{target.name}' restored from "
            f"resource '{rd}', snapshot '{name}'.",
            details="Resource UUIDs: ",
        )
    return respond(answer)


@route("POST", _BASE + "/snapshot-restore-resource/{snapshot}", schema="SnapshotRestore")
def restore_resources(controller: Controller, request: Request) -> Response:
    """The replicas of a snapshot into another definition."""
    rd, name, body = request.params["rd"], request.params["snapshot"], request.body
    target_name, nodes = str(body.get("to_resource") or ""), list(body.get("nodes") or [])
    prefix = f"Nodes: {', '.join(nodes)}; " if nodes else ""
    answer = Answer(
        Context(answers.CREATE, answers.SNAPSHOT, {"RscDfn": target_name}, f"{prefix}Resource: {target_name}")
    )
    with catching(answer):
        try:
            snapshot = controller.snapshot(controller.definition(rd), name)
            target = controller.definition(target_name)
            Restore(Deployment(controller, target, answer), snapshot, nodes, body.get("stor_pool_rename") or {}).run()
        except ApiError as exc:
            exc.obj = answers.RSC
            raise
    return respond(answer)


class Restore:
    """Resources of a definition from a snapshot."""

    def __init__(
        self, deployment: Deployment, snapshot: Snapshot, nodes: Sequence[str], renames: dict[str, str]
    ) -> None:
        self.deployment = deployment
        self.controller = deployment.controller
        self.definition = deployment.definition
        self.answer = deployment.answer
        self.snapshot = snapshot
        self.nodes = list(nodes)
        self.renames = {key.upper(): value for key, value in renames.items()}

    def run(self) -> None:
        """Restore, or raise before anything has changed."""
        self.check()
        replicas = self._replicas()
        pools = {replica.node.name: self._pool(replica) for replica in replicas}
        self.definition.restored = self.definition.restored or not self.definition.secret
        # The source's properties at the time of the snapshot go over the target's; keys only the target has stay.
        self.definition.props.update(self.snapshot.definition_props)
        created = [self._create(replica, pools[replica.node.name]) for replica in replicas]
        helper = self.deployment.automatic()
        if not self.definition.volumes:
            self.answer.warn(
                answers.WARN_NOT_FOUND,
                "No volumes to restore.",
                obj=answers.RSC,
                details="The target resource definition has no volume definitions. The restored resources will be "
                f"empty.\nResource: {self.definition.name}",
                correction="Restore the volume definitions to the target resource definition.",
            )
        self._restored_entry()
        self._deploy(created, helper.created)
        if any(resource.deployed for resource in created) or not created:
            self.deployment.finish(helper, f"Resource: {self.definition.name}")
        else:
            self.controller.satellites.deploy(helper.created, False)

    def check(self) -> None:
        """Everything that refuses a restore."""
        target = self.definition
        if len(target.resources):
            raise already_has_resources()
        check_successful(self.snapshot)
        for number, volume in target.volumes.items():
            origin = self.snapshot.volumes.get(number)
            if origin is not None and origin.size != volume.size:
                raise ApiError(
                    answers.FAIL_INVLD_VLM_SIZE,
                    f"Snapshot size does not match for volume number {number}; snapshot "
                    f"size: {origin.size}KiB, required size: {volume.size}KiB",
                )

    def _replicas(self) -> list[SnapshotReplica]:
        if not self.nodes:
            return self.snapshot.replicas.values()
        found = []
        for name in self.nodes:
            node = self.controller.node(name)
            found.append(snapshot_on(self.snapshot, node))
        return found

    def _pool(self, replica: SnapshotReplica) -> StoragePool:
        name = self.renames.get(replica.pool.name.upper(), replica.pool.name)
        pool = replica.node.pools.get(name)
        if pool is None:
            raise ApiError(
                answers.FAIL_NOT_FOUND_STOR_POOL, f"Storage pool '{name}' on node '{replica.node.name}' not found."
            )
        return pool

    def _create(self, replica: SnapshotReplica, pool: StoragePool) -> Resource:
        self.controller.satellites.prepare(self.definition, replica.layers)
        resource = new_resource(self.definition, replica.node, pool, replica.layers)
        resource.props.update(replica.props)
        resource.props["StorPoolName"] = pool.name
        if pool.kind.family == replica.pool.kind.family and replica.node.online:
            self._copy(resource)
            resource.restored_from = self.snapshot
        return resource

    def _copy(self, resource: Resource) -> None:
        for number, volume in self.definition.volumes.items():
            origin = self.snapshot.content(resource.node.name, number)
            if origin is not None:
                self.controller.satellites.copy_into(resource, volume, origin)

    def _restored_entry(self) -> None:
        uuids = ", ".join(resource.uuid for resource in self.definition.resources)
        on_nodes = " on nodes " + ", ".join(f"'{node}'" for node in self.nodes) if self.nodes else ""
        self.answer.add(
            answers.CREATED,
            f"Resource '{self.definition.name}'{on_nodes} restored from resource "
            f"'{self.snapshot.definition.name}', snapshot '{self.snapshot.name}'.",
            op=answers.CREATE,
            obj=answers.RSC,
            details=f"Resource UUIDs: {uuids}",
        )

    def _deploy(self, created: Sequence[Resource], waiting: Sequence[Resource]) -> None:
        strange = [
            res for res in created if res.pool.kind.family != self.snapshot.replicas[res.node.name].pool.kind.family
        ]
        for resource in strange:
            resource.flags.add("RESTORE_FROM_SNAPSHOT")
            self.answer.satellite_error(
                resource.node.name,
                "class com.linbit.linstor.storage.data.provider.lvm."
                "LvmThinData cannot be cast to class com.linbit.linstor.storage.data."
                "provider.file.FileData (both are in unnamed module of loader 'app')",
            )
        good = [res for res in created if res not in strange]
        if good:
            self.deployment.deploy(good, f"Resource: {self.definition.name}", waiting)
        elif strange:
            for peer in waiting:
                self.deployment.peer_entries(peer, strange)


def already_has_resources() -> ApiError:
    """502: only an empty definition can be restored to."""
    text = "Cannot restore to resource definition which already has resources"
    return ApiError(answers.FAIL_EXISTS_RSC, text, report=True)


def snapshot_on(snapshot: Snapshot, node: Node) -> SnapshotReplica:
    """The snapshot on a node; ApiError 315."""
    replica = snapshot.replicas.get(node.name)
    if replica is None:
        raise ApiError(
            answers.FAIL_NOT_FOUND_SNAPSHOT,
            f"Snapshot '{snapshot.name}' of resource '{snapshot.definition.name}' on node '{node.name}' not found.",
        )
    return replica


def check_successful(snapshot: Snapshot) -> None:
    """ApiError 998 for a snapshot that failed."""
    if "SUCCESSFUL" not in snapshot.flags:
        raise ApiError(
            answers.FAIL_UNKNOWN_ERROR,
            f"Unable to use failed snapshot '{snapshot.name}' of resource '{snapshot.definition.name}'",
            report=True,
        )


@route("POST", _BASE + "/snapshot-rollback/{snapshot}", schema="SnapshotRollback", optional_body=True)
def rollback(controller: Controller, request: Request) -> Response:
    """A definition back to its snapshot."""
    rd, name = request.params["rd"], request.params["snapshot"]
    answer = Answer(
        Context(answers.MODIFY, answers.SNAPSHOT, {"RscDfn": rd, "Snapshot": name}, f"Resource: {rd}, Snapshot: {name}")
    )
    with catching(answer):
        definition = controller.definition(rd)
        strategy = str(request.body.get("zfs_rollback_strategy") or "")
        Rollback(Deployment(controller, definition, answer), controller.snapshot(definition, name), strategy).run()
    return respond(answer)


class Rollback:
    """In place, or a safety snapshot, all resources away, back from the snapshot, the other nodes made available."""

    def __init__(self, deployment: Deployment, snapshot: Snapshot, strategy: str) -> None:
        self.deployment = deployment
        self.controller = deployment.controller
        self.definition = deployment.definition
        self.answer = deployment.answer
        self.snapshot = snapshot
        self.strategy = strategy.lower() or "dynamic"

    def run(self) -> None:
        """Roll back, or raise before anything has changed."""
        in_place = self._goes_in_place()
        self._check()
        if in_place:
            self._in_place()
            return
        before = [res.node.name for res in self.definition.resources]
        safety = self._safety()
        if safety is not None and "SUCCESSFUL" not in safety.flags:
            remove(self.controller, safety, self.answer)
            return
        if not self._delete():
            self._revive()
        elif self._restore(self.snapshot):
            self._available_again(before)
        elif safety is not None and self._delete():
            self._restore(safety)
        if safety is not None:
            remove(self.controller, safety, self.answer)
        for node in () if self.answer.has_error() else before:
            message = "Resource already deployed as requested"
            self.answer.add(0, message, op=answers.CREATE, obj=answers.RSC, refs={"Node": node})

    def _goes_in_place(self) -> bool:
        """Always up to LINSTOR 1.30, and with ZFS again since 1.32 where it can; only to the newest snapshot."""
        cluster = self.controller.cluster
        newest = max(self.definition.snapshots, key=lambda found: int(found.props["SequenceNumber"])) is self.snapshot
        if not cluster.at_least("1.25.0"):
            if not newest:
                text = "Rollback is only allowed with the most recent snapshot"
                raise ApiError(answers.FAIL_EXISTS_SNAPSHOT_DFN, text, report=True)
            return True
        pools = [holder.pool for holder in [*self.definition.diskful(), *self.snapshot.replicas]]
        if not cluster.at_least("1.26.0") or any(pool.kind.family != "ZFS" for pool in pools):
            return False
        if self.strategy == "rollback" and not newest:
            raise ApiError(
                answers.FAIL_DEPENDEND_BACKUP,
                f"'{self.snapshot.name}' is not the most recent snapshot. Cannot 'zfs rollback ...' to the given "
                "snapshot!",
            )
        return newest and self.strategy != "clone"

    def _check(self) -> None:
        check_successful(self.snapshot)
        busy = self.controller.satellites.openings.first_in_use(self.definition)
        if busy is not None:
            error = in_use_error(busy, True)
            error.report = True
            raise error
        nodes = [res.node for res in self.definition.resources] + [rep.node for rep in self.snapshot.replicas]
        if any(not node.online for node in nodes):
            raise ApiError(
                answers.FAIL_NOT_CONNECTED,
                "Snapshot rollback cannot be performed when the corresponding satellites are not connected.",
                report=True,
            )

    def _in_place(self) -> None:
        """Take the devices down, give them the snapshot's bytes, bring them up; every replica needs the snapshot."""
        name = self.definition.name
        for resource in self.definition.diskful():
            snapshot_on(self.snapshot, resource.node)
        described = f"Snapshot '{self.snapshot.name}' of resource '{name}'"
        self.answer.add(answers.MODIFIED, f"{described} marked down for rollback.")
        held = [resource for resource in self.definition.resources if self.deployment.held(resource)]
        if held:
            self.answer.add(answers.MODIFIED, f"Rollback of '{name}' aborted due to error deactivating")
            return
        if self.controller.cluster.at_least("1.26.0"):
            self._reset(self.snapshot)
        self.controller.satellites.roll_back(self.definition, self.snapshot)
        for text, resources in (
            ("Deactivated resource '{}' on '{}' for rollback", self.definition.resources.values()),
            ("Rolled resource '{}' back on '{}'", self.definition.diskful()),
            ("Re-activated resource '{}' on '{}' after rollback", self.definition.resources.values()),
        ):
            for resource in resources:
                self.answer.add(answers.MODIFIED, text.format(name, resource.node.name))

    def _safety(self) -> Optional[Snapshot]:
        if not self.definition.diskful():
            return None
        letters = string.ascii_letters + string.digits
        name = "safety-snap-" + "".join(secrets.choice(letters) for _ in range(10))
        plan = Plan(self.controller, self.definition, name, [], self.answer)
        safety = plan.register()
        Taking([plan], [safety], self.answer).run()
        safety.flags.add("SAFETY_SNAPSHOT")
        return safety

    def _delete(self) -> bool:
        self.answer.context.operation = answers.MODIFY
        delete_resources(self.deployment)
        return not len(self.definition.resources)

    def _restore(self, snapshot: Snapshot) -> bool:
        self._reset(snapshot)
        Restore(self.deployment, snapshot, [], {}).run()
        return not self.answer.has_error()

    def _revive(self) -> None:
        """What a node could not delete comes up again as it was; LINSTOR tries to restore it nevertheless."""
        for resource in self.definition.resources:
            resource.flags -= {"DELETE", "DRBD_DELETE"}
            text = f"Deactivated resource '{resource.name}' on '{resource.node.name}' for rollback"
            self.answer.add(answers.MODIFIED, text)
        self.answer.error(already_has_resources())

    def _reset(self, snapshot: Snapshot) -> None:
        """Sizes and properties as at the time of a snapshot; minors and uuids stay."""
        for number, volume in snapshot.volumes.items():
            mine = self.definition.volumes.setdefault(number, VolumeDefinition(number, volume.size))
            mine.size, mine.props = volume.size, dict(volume.props)

    def _available_again(self, nodes: Sequence[str]) -> None:
        """The nodes of before get the resource back; asked for, a tie-breaker is a plain diskless one."""
        from .resources import Availability

        for node in nodes:
            resource = self.definition.resources.get(node)
            if resource is not None:
                resource.flags.discard("TIE_BREAKER")
            else:
                Availability(self.deployment, self.controller.node(node), {}).run()
