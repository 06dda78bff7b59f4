"""LINSTOR's clone call and its status."""

from __future__ import annotations

import secrets
import time
import urllib.parse
from typing import Any, Optional

from .. import answers, properties
from ..answers import Answer, ApiError, Context
from ..autoplacer import usable
from ..drbd import AutoHelper, diskless_pool, new_resource
from ..model import Resource, ResourceDefinition, ResourceGroup, StoragePool, VolumeDefinition
from .base import Controller, Request, Response, catching, route
from .definitions import check_new_name
from .deployment import Deployment
from .placement import check_layers

FOREVER = 1 << 30


@route("POST", "/v1/resource-definitions/{rd}/clone", schema="Clone", parse_status=0, since="1.10.0")
def clone(controller: Controller, request: Request) -> Response:
    """Start a clone; the answer is an object, even where it is an error."""
    source_name, body = request.params["rd"], request.body
    name: Optional[str] = body.get("name") or None
    source = controller.cluster.definitions.get(source_name)
    if source is None:
        error = answers.not_found(answers.FAIL_NOT_FOUND_RSC_DFN, "resource definition", source_name, bare=True)
        raise error
    answer = Answer(
        Context(
            answers.CREATE,
            answers.RSC_DFN,
            {"RscDfn": name},
            f"Resource definition: {'null' if name is None else name}",
        )
    )
    with catching(answer):
        Clone(controller, answer, source, body).run()
    shown = name or "__invalid_name__"
    location = f"/v1/resource-definitions/{source_name}/clone/{urllib.parse.quote(shown, errors='replace')}"
    return Response(
        # Up to LINSTOR 1.32 the errors of a clone came with the status of success.
        answer.status(201) if controller.cluster.at_least("1.27.0") else 201,
        {"location": location, "source_name": source.name, "clone_name": shown, "messages": answer.entries},
    )


class Clone:
    """A definition with copies of another's replicas, on the same nodes."""

    def __init__(
        self, controller: Controller, answer: Answer, source: ResourceDefinition, body: dict[str, Any]
    ) -> None:
        self.controller = controller
        self.cluster = controller.cluster
        self.answer = answer
        self.source = source
        self.body = body
        self.name = str(body.get("name") or "")

    def run(self) -> None:
        """Clone, or raise before anything has changed."""
        self._check_name()
        group = (
            self.controller.group(self.body["resource_group"]) if self.body.get("resource_group") else self.source.group
        )
        replicas = self._replicas()
        pools = {res.node.name: self._pool(res, group) for res in replicas}
        layers = check_layers(self.body["layer_list"]) if self.body.get("layer_list") else list(self.source.layers)
        self._check_layers(layers)
        target = self._define(group, layers)
        self._suspend("Suspend IO on clone source {name}")
        self._props_entries(target)
        self.cluster.definitions[self.name] = target
        created = self._register(target, pools, layers)
        broken = [res for res in created if not res.diskless and self.cluster.fails(res.node.name, "clone")]
        if broken:
            self._fail(target, broken)
            return
        self._suspend("Set snapshot for clone property of '{name}' on '{node}'")
        self._suspend("Resumed IO of '{name}' on '{node}' after clone")
        self._deploy(target, created)

    def _check_name(self) -> None:
        if not self.name and self.body.get("external_name"):
            raise ApiError(
                answers.FAIL_UNKNOWN_ERROR,
                "Creation of resource definition 'null' failed due to an "
                "unhandled exception of type ApiException. com.linbit.ImplementationError: Resource name "
                "must not be null!",
                report=True,
            )
        if not self.name:
            raise ApiError(answers.FAIL_INVLD_RSC_NAME, "No name for the cloned resource was specified.")
        check_new_name(self.controller, self.name)

    def _replicas(self) -> list[Resource]:
        """The source's replicas, all of which must be there and UpToDate."""
        active = [res for res in self.source.diskful() if not res.inactive and not res.deleting]
        if not active or any(not res.node.online for res in active):
            raise ApiError(answers.FAIL_NOT_ENOUGH_NODES, "No suitable storage pools found for cloning.", report=True)
        if any(res.uses_drbd and res.state() != "UpToDate" for res in active):
            raise ApiError(
                answers.FAIL_NOT_ALL_UPTODATE,
                "Cannot clone resource-definition, because we have a non-UpToDate DRBD device.",
            )
        return active

    def _pool(self, resource: Resource, group: ResourceGroup) -> StoragePool:
        """LINSTOR chooses the pool anew, among those that the target's group allows on the node."""
        names = {name.upper() for name in group.filter.storage_pool_list or ()}
        allowed = [
            pool for pool in resource.node.pools if not pool.diskless and (not names or pool.name.upper() in names)
        ]
        if not allowed:
            raise ApiError(answers.FAIL_NOT_ENOUGH_NODES, "No suitable storage pools found for cloning.", report=True)
        pool = max(allowed, key=lambda candidate: (candidate.free(), candidate is resource.pool))
        if not pool.kind.clone or not resource.pool.kind.clone or pool.kind.family != resource.pool.kind.family:
            raise ApiError(answers.FAIL_INVLD_PROVIDER, "Clone source contains unsupported storage pools", report=True)
        if self.source.size() > usable(self.cluster, pool):
            raise ApiError(
                answers.FAIL_INVLD_VLM_SIZE, f"Not enough free space available for volume 0 of resource '{self.name}'."
            )
        return pool

    def _check_layers(self, layers: list[str]) -> None:
        if "DRBD" not in layers and any(res.diskless for res in self.source.resources):
            raise ApiError(
                answers.FAIL_INVLD_LAYER_STACK,
                "Diskless volume is only supported in combination with DRBD and/or NVME",
                report=True,
            )

    def _define(self, group: ResourceGroup, layers: list[str]) -> ResourceDefinition:
        target = ResourceDefinition(self.name, group, self.body.get("external_name") or "", layers=layers)
        target.peer_slots = self.source.peer_slots
        target.cloned_from = self.source.name
        target.props = {**self.source.props, "cloned-from": self.source.name}
        if self.body.get("use_zfs_clone"):
            target.props["use-zfs-clone"] = "true"
        sizes = self.body.get("volume_sizes") or []
        for index, (number, volume) in enumerate(sorted(self.source.volumes.items())):
            size = max(volume.size, int(sizes[index])) if index < len(sizes) and sizes[index] else volume.size
            props = {key: value for key, value in volume.props.items() if key != properties.DISCARD_GRANULARITY}
            target.volumes[number] = VolumeDefinition(number, size, props, list(volume.flags))
        properties.check(self.body.get("override_props") or {})
        return target

    def _suspend(self, text: str) -> None:
        for resource in self.source.resources:
            if not resource.node.online:
                self.answer.not_connected(resource.node.name)
                continue
            if resource.uses_drbd and not resource.inactive:
                self.answer.add(
                    answers.MODIFIED,
                    f"({resource.node.name}) Resource '{self.source.name}' [DRBD] adjusted.",
                    obj=answers.RSC,
                )
            self.answer.add(answers.MODIFIED, text.format(name=self.source.name, node=resource.node.name))

    def _props_entries(self, target: ResourceDefinition) -> None:
        keys = ("override_props", "delete_props", "delete_namespaces")
        if any(self.body.get(key) for key in keys):
            properties.modify(
                self.answer, answers.RSC_DFN, target.props, {key: self.body[key] for key in keys if self.body.get(key)}
            )

    def _register(self, target: ResourceDefinition, pools: dict[str, StoragePool], layers: list[str]) -> list[Resource]:
        self.controller.satellites.prepare(target, layers)
        deployment = Deployment(self.controller, target, self.answer)
        created = []
        for origin in self.source.resources:
            if origin.inactive or not origin.node.online or origin.deleting:
                continue
            pool = diskless_pool(origin.node) if origin.diskless else pools[origin.node.name]
            resource = new_resource(target, origin.node, pool, layers, set(origin.flags))
            deployment.registered(resource)
            created.append(resource)
        # A tie-breaker on a node that is not connected is not cloned along.
        AutoHelper(self.cluster, target, Answer(Context(0, answers.RSC_DFN))).quorum()
        return created

    def _deploy(self, target: ResourceDefinition, created: list[Resource]) -> None:
        deployment = Deployment(self.controller, target, self.answer)
        self._copy(target, created)
        self.controller.satellites.deploy(created, True)
        for resource in created:
            deployment.volume_entries(resource, answers.CREATED, "created")
            self.answer.add(answers.MODIFIED, f"Created resource '{self.name}' on '{resource.node.name}'")
        for resource in created:
            if resource.diskless:
                self.answer.add(
                    answers.MODIFIED,
                    f"({resource.node.name}) Resource '{self.name}' [DRBD] adjusted.",
                    op=answers.MODIFY,
                    obj=answers.RSC,
                )
        for resource in created:
            deployment.adjusted(resource)
            self.answer.add(answers.MODIFIED, f"Disabled start cloning flag {self.name}")
        for resource in created:
            resource.volume_flags = {number: {"CLONING_FINISHED"} for number in target.volumes}
        thick = any(not res.pool.kind.zeroed for res in created if not res.diskless)
        target.clone_done_at = time.monotonic() + self.cluster.clone_seconds
        target.clone_status = "1" if thick or "DRBD" not in target.layers else "0"

    def _copy(self, target: ResourceDefinition, created: list[Resource]) -> None:
        """Data first, then what a larger target has beyond it."""
        for resource in created:
            origin = self.source.resources[resource.node.name]
            for number, volume in target.volumes.items():
                content = None if resource.diskless else origin.content(number)
                if content is not None:
                    self.controller.satellites.copy_into(resource, volume, content)
                    made = resource.content(number)
                    if made is not None and resource.pool.kind.family == "ZFS" and not self.body.get("use_zfs_clone"):
                        # Sent and received: it shares nothing with its source.
                        made.family = made.path

    def _fail(self, target: ResourceDefinition, broken: list[Resource]) -> None:
        """What a satellite's failure leaves: a definition that is CLONING for ever."""
        target.clone_status = str(FOREVER)
        target.flags.add("CLONING")
        for resource in broken:
            resource.volume_flags = {number: {"CLONING_START", "CLONING"} for number in target.volumes}
            volume, group = f"{self.source.name}_00000", resource.pool.driver().partition("/")[0]
            self.answer.satellite_error(
                resource.node.name,
                f"Failed to create snapshot {volume}_CF_"
                f"{secrets.token_hex(4)} from {volume} within volume group {group}",
                "Command 'lvcreate' returned with exitcode 5. \n\nError message: \n  injected failure",
            )
        self._suspend("Resumed IO of '{name}' on '{node}' after clone")


@route("GET", "/v1/resource-definitions/{rd}/clone/{clone}")
def status(controller: Controller, request: Request) -> Response:
    """How far a clone is; for ever CLONING when its call had failed."""
    target = controller.cluster.definitions.get(request.params["clone"])
    if target is None or target.cloned_from.upper() != request.params["rd"].upper():
        raise ApiError(answers.FAIL_NOT_FOUND_RSC_DFN, "Cloned resource not found.", bare=True)
    polls = int(target.clone_status or "0")
    if polls < FOREVER:
        target.clone_status = str(max(0, polls - 1))
    polls = polls or int(time.monotonic() < target.clone_done_at)
    failed = polls < FOREVER and any(not res.node.online for res in target.resources)
    return Response(200, {"status": "FAILED" if failed else "CLONING" if polls else "COMPLETE"})
