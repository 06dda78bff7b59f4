"""Disks that come and go: toggle-disk, migrate-disk, activate, deactivate."""

from __future__ import annotations

from typing import Optional

from .. import answers, properties
from ..answers import Answer, ApiError, Context
from ..drbd import diskless_pool
from ..model import Resource, StoragePool
from .base import Controller, Request, Response, catching, respond, route
from .deployment import Deployment
from .placement import DEFAULT_LAYERS, added_disk, check_replicas, check_room, give_disk

_BASE = "/v1/resource-definitions/{rd}/resources/{node}"


ACTIVATION = (("Reactivating resource", "Resource updated"), ("Resource activated", "Resource activated"))
_DEACTIVATION = (
    ("Resource deactivated", "Resource marked inactivate"),
    ("Finished deactivation of resource", "Finished deactivation of resource"),
)


def _answer(request: Request) -> Answer:
    name, node = request.params["rd"], request.params["node"]
    return Answer(
        Context(answers.MODIFY, answers.RSC, {"RscDfn": name, "Node": node}, f"Node: {node}, Resource: {name}")
    )


def lose_disk(deployment: Deployment, resource: Resource) -> None:
    """Turn a replica into a diskless resource, on its node too."""
    deployment.satellites.drop_disk(resource)
    resource.pool = diskless_pool(resource.node)
    resource.flags |= {"DISKLESS", "DRBD_DISKLESS"}
    resource.props[properties.STOR_POOL_NAME] = resource.pool.name
    deployment.satellites.refresh(deployment.definition)


def into_diskless(deployment: Deployment, resource: Resource) -> None:
    """Take the disk off a replica."""
    answer, name, node = deployment.answer, deployment.name, resource.node.name
    if resource.diskless:
        answer.warn(
            answers.WARN_RSC_ALREADY_DISKLESS, "Resource already diskless", details=f"Node: {node}, Resource: {name}"
        )
        return
    others = [res for res in deployment.definition.diskful() if res is not resource and res.node.online]
    if not others or not resource.node.online:
        raise ApiError(
            answers.FAIL_INSUFFICIENT_REPLICA_COUNT, "Cannot remove the disk from the only online resource with a disk"
        )
    deployment.set_pool_entry()
    answer.add(answers.MODIFIED, f"Removal of disk from resource '{name}' on node '{node}' registered")
    deployment.adjust_all()
    lose_disk(deployment, resource)
    answer.add(answers.MODIFIED, f"Removed disk on '{node}'")
    helper = deployment.automatic()
    for other in deployment.definition.resources:
        if other is not resource:
            answer.add(answers.MODIFIED, f"Notified '{other.node.name}' that disk has been removed on '{node}'")
    deployment.finish(helper, answer.context.description)


def into_diskful(deployment: Deployment, resource: Resource, pool_name: Optional[str]) -> None:
    """Give a diskless resource a disk, in the pool of that name or the one to be expected."""
    pool = _pool(resource, pool_name)
    answer, name, node = deployment.answer, deployment.name, resource.node.name
    if not resource.diskless:
        answer.warn(
            answers.WARN_RSC_ALREADY_HAS_DISK, "Resource already has disk", details=f"Node: {node}, Resource: {name}"
        )
        return
    check_replicas(deployment.controller, deployment.definition, [pool])
    check_room(resource, pool)
    if pool_name:
        deployment.set_pool_entry()
    give_disk(resource, pool, deployment.definition.layers or DEFAULT_LAYERS)
    resource.props["DiskfulBy"] = "user"
    added_disk(deployment, resource)
    deployment.finish(deployment.automatic(), deployment.answer.context.description)


def _pool(resource: Resource, name: Optional[str]) -> StoragePool:
    from .resources import not_deployed

    chosen = name or (resource.definition.group.filter.storage_pool_list or ["DfltStorPool"])[0]
    pool = resource.node.pools.get(chosen)
    if pool is None:
        raise not_deployed(chosen, resource.name, resource.node.name)
    return pool


def _toggle(
    controller: Controller, request: Request, pool: Optional[str], diskless: bool, source: Optional[str] = None
) -> Response:
    answer = _answer(request)
    with catching(answer):
        definition = controller.definition(request.params["rd"])
        controller.node(request.params["node"])
        resource = controller.resource(definition, request.params["node"])
        deployment = Deployment(controller, definition, answer)
        if diskless:
            into_diskless(deployment, resource)
        else:
            into_diskful(deployment, resource, pool)
        if source is not None:
            _leave(deployment, controller.resource(definition, source))
    return respond(answer)


def _leave(deployment: Deployment, source: Resource) -> None:
    """What a migrated disk leaves behind: the old replica goes, or stays as the tie-breaker."""
    source.flags.add("DRBD_DELETE")
    # The node that got the disk is in sync by now; what follows happens after the answer.
    deployment.answer = Answer(deployment.answer.context)
    helper = deployment.automatic()
    if helper.taken_over is source:
        lose_disk(deployment, source)
        source.flags |= {"TIE_BREAKER"}
    else:
        deployment.clean_up(source)
    deployment.finish(helper)


@route("PUT", _BASE + "/toggle-disk/diskless")
def toggle_diskless(controller: Controller, request: Request) -> Response:
    """Take the disk off."""
    return _toggle(controller, request, None, True)


@route("PUT", _BASE + "/toggle-disk/diskful")
def toggle_diskful(controller: Controller, request: Request) -> Response:
    """Give it a disk in the group's pool."""
    return _toggle(controller, request, None, False)


@route("PUT", _BASE + "/toggle-disk/diskful/{pool}")
def toggle_diskful_pool(controller: Controller, request: Request) -> Response:
    """Give it a disk in a named pool."""
    return _toggle(controller, request, request.params["pool"], False)


@route("PUT", _BASE + "/toggle-disk", schema="ToggleDisk", since="1.28.0")
def toggle(controller: Controller, request: Request) -> Response:
    """The one call for it since REST 1.28."""
    body = request.body
    diskless = body.get("operation") != "INTO_DRBD_DISKFUL"
    return _toggle(controller, request, body.get("storage_pool"), diskless, body.get("migrate_from"))


@route("PUT", _BASE + "/migrate-disk/{source}/{pool}")
def migrate_pool(controller: Controller, request: Request) -> Response:
    """Give it a disk in a named pool, and take it from another node."""
    return _toggle(controller, request, request.params["pool"], False, request.params["source"])


@route("POST", _BASE + "/deactivate")
def deactivate(controller: Controller, request: Request) -> Response:
    """Take the device down, keep the data."""
    return _activation(controller, request, False)


@route("POST", _BASE + "/activate")
def activate(controller: Controller, request: Request) -> Response:
    """Bring the device up again."""
    return _activation(controller, request, True)


def _activation(controller: Controller, request: Request, active: bool) -> Response:
    answer = _answer(request)
    with catching(answer):
        definition = controller.definition(request.params["rd"])
        controller.node(request.params["node"])
        resource = controller.resource(definition, request.params["node"])
        if resource.inactive != active:
            verb = "activated" if active else "deactivated"
            answer.info(answers.INFO_NOOP, f"Resource is already {verb}. Noop")
            return respond(answer)
        if not active and controller.satellites.openings.in_use(resource):
            raise ApiError(answers.FAIL_IN_USE, "Cannot deactivate a resource while being in use!", report=True)
        _set_active(Deployment(controller, definition, answer), resource, active)
    return respond(answer)


def _set_active(deployment: Deployment, resource: Resource, active: bool) -> None:
    node, answer = resource.node.name, deployment.answer
    if not resource.node.online:
        answer.not_connected(node)
    (resource.flags.discard if active else resource.flags.add)("INACTIVE")
    deployment.satellites.refresh(deployment.definition)
    deployment.adjust_all()
    if not active and resource.node.online:
        answer.add(answers.DELETED, f"({node}) Resource '{deployment.name}' [DRBD] deleted.")
        deployment.volume_entries(resource, answers.MODIFIED, "deactivated")
    steps = ACTIVATION if active else _DEACTIVATION
    for own, others in steps:
        for other in deployment.definition.resources:
            answer.add(answers.MODIFIED, f"{own if other is resource else others} on '{other.node.name}'")
