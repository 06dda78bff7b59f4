"""Nodes and storage pools."""

from __future__ import annotations

from typing import Any, Callable

from .. import answers, names, properties
from ..answers import Answer, ApiError, Context
from ..model import Node, StoragePool, new_uuid
from ..views import node_json, pool_json
from . import snapshots
from .base import Controller, Request, Response, catching, name_filter, respond, route
from .pending import catch_up

DEFAULT_POOL_KIB = 20 * 1024 * 1024


def _node_answer(operation: int, name: str) -> Answer:
    return Answer(Context(operation, answers.NODE, {"Node": name}, f"Node: {name}"))


@route("GET", "/v1/nodes")
def listing(controller: Controller, request: Request) -> Response:
    """All nodes, or those that the filters leave."""
    wanted = name_filter(request, "nodes")
    found = [
        node
        for node in controller.cluster.nodes
        if wanted(node.name) and properties.matches_filters(node.props, request.values("props"))
    ]
    return Response(200, [node_json(node) for node in found])


@route("GET", "/v1/nodes/{node}")
def show(controller: Controller, request: Request) -> Response:
    """One node."""
    name = request.params["node"]
    node = controller.cluster.nodes.get(name)
    if node is None:
        raise ApiError(answers.FAIL_NOT_FOUND_NODE, f"Node '{name}' not found.", bare=True)
    return Response(200, node_json(node))


@route("POST", "/v1/nodes", schema="Node")
def create(controller: Controller, request: Request) -> Response:
    """A new node, online at once."""
    body = request.body
    name = body.get("name") or ""
    answer = _node_answer(answers.CREATE, name)
    with catching(answer):
        names.check_node_name(name)
        if name in controller.cluster.nodes:
            raise ApiError(
                answers.FAIL_EXISTS_NODE,
                f"Registration of node '{name}' failed.",
                cause=f"A node with the specified name '{name}' already exists.\nThe Node already exists",
                correction="- Specify another name for the new node\nor\n"
                "- Delete the existing node before creating a new node with the same name",
            )
        interface = (body.get("net_interfaces") or [{}])[0]
        if interface and not interface.get("satellite_encryption_type"):
            raise ApiError(609, f"No satellite connection defined for node '{name}'", report=True)
        address = interface.get("address") or ""
        node = controller.cluster.add_node(name, address, address not in controller.cluster.unreachable)
        node.props.update(properties.check(body.get("props") or {}))
        answer.add(
            answers.CREATED,
            f"New node '{name}' registered.",
            details=f"Node '{name}' UUID is: {node.uuid}",
            refs={"UUID": node.uuid},
        )
        _connected_entry(answer, node)
    return respond(answer, 201)


def _connected_entry(answer: Answer, node: Node) -> None:
    if node.online:
        answer.add(9, f"Node '{node.name}' authenticated", details=f"Supported storage providers: {node.providers}")
    else:
        answer.not_connected(node.name)


@route("PUT", "/v1/nodes/{node}", schema="NodeModify")
def modify(controller: Controller, request: Request) -> Response:
    """Properties of a node."""
    name = request.params["node"]
    answer = _node_answer(answers.MODIFY, name)
    with catching(answer):
        node = controller.node(name)
        properties.modify(answer, answers.NODE, node.props, request.body)
        answer.add(
            answers.MODIFIED,
            f"Node '{node.name}' modified.",
            details=f"Node '{node.name}' UUID is: {node.uuid}",
            refs={"UUID": node.uuid},
        )
        if node.online:
            answer.add(answers.MODIFIED, f"({node.name}) Node changes applied.")
        elif "NodeUname" in node.props:
            answer.not_connected(node.name)
    return respond(answer)


def _deletion(controller: Controller, request: Request, delete_it: Callable[[Answer, Node], None]) -> Response:
    """The answer to a request that deletes a node, if there is such a node."""
    name = request.params["node"]
    answer = _node_answer(answers.DELETE, name)
    node = controller.cluster.nodes.get(name)
    if node is None:
        answer.warn(
            answers.WARN_NOT_FOUND,
            f"Deletion of node '{name}' had no effect.",
            cause=f"Node '{name}' does not exist.",
            details=f"Node: {name}",
        )
    else:
        with catching(answer):
            delete_it(answer, node)
    return respond(answer)


def _remove(controller: Controller, answer: Answer, node: Node) -> None:
    controller.cluster.nodes.pop(node.name)
    answer.add(answers.DELETED, f"Node '{node.name}' deleted.", details=f"Node '{node.name}' UUID was: {node.uuid}")


@route("DELETE", "/v1/nodes/{node}")
def delete(controller: Controller, request: Request) -> Response:
    """A node without resources."""

    def remove(answer: Answer, node: Node) -> None:
        if any(resource.node is node for resource in controller.cluster.resources()):
            raise ApiError(answers.FAIL_EXISTS_RSC, f"Node '{request.params['node']}' still has resources.")
        _remove(controller, answer, node)

    return _deletion(controller, request, remove)


@route("DELETE", "/v1/nodes/{node}/lost")
def lost(controller: Controller, request: Request) -> Response:
    """A node that never comes back, with all that was on it; what waited for it goes on."""

    def forget(answer: Answer, node: Node) -> None:
        if node.connection != "OFFLINE":
            text = f"Node '{request.params['node']}' still connected, please use the 'DelNode' api."
            raise ApiError(answers.FAIL_EXISTS_NODE_CONN, text, report=True)
        for definition in controller.cluster.definitions:
            resource = definition.resources.get(node.name)
            if resource is not None:
                controller.satellites.remove(resource)
            for snapshot in definition.snapshots.values():
                snapshots.forget_on(controller, snapshot, node.name)
        _remove(controller, answer, node)
        for other in controller.cluster.nodes:
            if other.online:
                catch_up(controller, other)
                answer.add(answers.MODIFIED, f"Notified '{other.name}' that '{node.name}' has been lost")

    return _deletion(controller, request, forget)


@route("PUT", "/v1/nodes/{node}/reconnect")
def reconnect(controller: Controller, request: Request) -> Response:
    """The satellites are always connected or down; nothing happens."""
    node = controller.node(request.params["node"])
    answer = _node_answer(answers.MODIFY, node.name)
    answer.add(0, f"Nodes [{node.name}] will be reconnected.")
    _connected_entry(answer, node)
    return respond(answer)


def _read_node(controller: Controller, name: str) -> Node:
    return controller.node(name, bare=True)


@route("GET", "/v1/nodes/{node}/storage-pools")
def pools(controller: Controller, request: Request) -> Response:
    """The pools of one node."""
    node = _read_node(controller, request.params["node"])
    return Response(200, [pool_json(controller.cluster, pool) for pool in node.pools])


@route("GET", "/v1/nodes/{node}/storage-pools/{pool}")
def pool(controller: Controller, request: Request) -> Response:
    """One pool of one node."""
    node = _read_node(controller, request.params["node"])
    name = request.params["pool"]
    found = node.pools.get(name)
    if found is None:
        raise ApiError(
            answers.FAIL_NOT_FOUND_STOR_POOL, f"Storage pool '{name}' on node '{node.name}' not found.", bare=True
        )
    return Response(200, pool_json(controller.cluster, found))


@route("GET", "/v1/view/storage-pools")
def view(controller: Controller, request: Request) -> Response:
    """All pools, or those that the filters leave."""
    for name in request.values("nodes"):
        controller.node(name, bare=True)
    by_node, by_pool = name_filter(request, "nodes"), name_filter(request, "storage_pools")
    found = [
        pool
        for node in controller.cluster.nodes
        for pool in node.pools
        if by_node(node.name) and by_pool(pool.name) and properties.matches_filters(pool.props, request.values("props"))
    ]
    if not request.flag("cached") and any(pool.node.name in controller.hung_satellites for pool in found):
        return Response(500, _without_message(answers.plain_error(answers.FAIL_UNKNOWN_ERROR, "", report=True)))
    found.sort(key=lambda pool: (pool.name.upper(), pool.node.name.upper()))
    return Response(200, [pool_json(controller.cluster, pool) for pool in found])


def _without_message(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a hung satellite makes of the answer: an error without the key `message`."""
    for entry in entries:
        del entry["message"]
    return entries


def _pool_answer(operation: int, node: str, pool: str) -> Answer:
    return Answer(
        Context(
            operation,
            answers.STOR_POOL,
            {"StorPoolDfn": pool, "Node": node},
            f"Node: {node}, Storage pool name: {pool}",
        )
    )


@route("POST", "/v1/nodes/{node}/storage-pools", schema="StoragePool")
def create_pool(controller: Controller, request: Request) -> Response:
    """A new pool of 20 GiB."""
    body, node_name = request.body, request.params["node"]
    name = body.get("storage_pool_name") or ""
    answer = _pool_answer(answers.CREATE, node_name, name)
    answer.context.description = ""
    with catching(answer):
        node = controller.node(node_name)
        kind = body.get("provider_kind") or ""
        names.check_pool_name(name)
        if not node.online or kind not in node.providers:
            raise ApiError(
                answers.FAIL_STLT_DOES_NOT_SUPPORT_PROVIDER,
                f"The satellite does not support the device provider {kind}",
            )
        if name in node.pools:
            raise ApiError(
                answers.FAIL_EXISTS_STOR_POOL, f"Node: {node_name}, Storage pool name: {name} already exists."
            )
        props = properties.check(body.get("props") or {})
        driver = props.pop("StorDriver/StorPoolName", "") or props.pop("StorDriver/FileDir", "")
        storages = controller.cluster.storages
        total, free = storages.get(driver, (0, 0)) if storages else (DEFAULT_POOL_KIB, DEFAULT_POOL_KIB)
        made = controller.cluster.add_pool(node, name, kind, total, driver)
        made.withheld = total - free
        made.props.update(props)
        _pool_entries(answer, made, bool(body.get("props")))
        if not total:
            _no_such_storage(answer, made, driver)
    return respond(answer, 201)


def _no_such_storage(answer: Answer, made: StoragePool, driver: str) -> None:
    """What the pool is to be made of is not there: it stays registered."""
    node, what = made.node.name, driver.partition("/")[0]
    message = f"Volume group '{what}' not found" if made.kind.family == "LVM" else "External command failed"
    answer.add(990, f"({node}) {message}", severity=answers.MASK_ERROR)
    answer.add(
        answers.FAIL_UNKNOWN_ERROR,
        f"Registration of storage pool '{made.name}' on node '{node}' failed due to "
        "an unhandled exception of type DelayedApiRcException. Exceptions have been converted to responses",
        severity=answers.MASK_ERROR,
        details=f"Node: {node}, Storage pool name: {made.name}",
    )
    answer.entries[-1]["error_report_ids"] = [answers.report_id()]


def _pool_entries(answer: Answer, made: StoragePool, with_props: bool) -> None:
    node, name = made.node.name, made.name
    if with_props:
        answer.add(answers.CREATED, "Successfully set property key(s): StorDriver/StorPoolName")
    answer.add(
        answers.CREATED,
        f"New storage pool '{name}' on node '{node}' registered.",
        details=f"Storage pool '{name}' on node '{node}' UUID is: {made.uuid}",
        refs={"UUID": made.uuid},
    )
    if made.total:
        answer.add(answers.MODIFIED, f"({node}) Changes applied to storage pool '{name}' of node '{node}'")
        answer.add(answers.MODIFIED, f"Storage pool updated on '{node}'")


@route("PUT", "/v1/nodes/{node}/storage-pools/{pool}", schema="PropsModify")
def modify_pool(controller: Controller, request: Request) -> Response:
    """Properties of a pool."""
    node_name, name = request.params["node"], request.params["pool"]
    answer = _pool_answer(answers.MODIFY, node_name, name)
    with catching(answer):
        node = controller.node(node_name)
        found = node.pools.get(name)
        if found is None:
            raise ApiError(answers.FAIL_NOT_FOUND_STOR_POOL, f"Storage pool '{name}' on node '{node_name}' not found.")
        properties.modify(answer, answers.STOR_POOL, found.props, request.body)
        answer.add(answers.MODIFIED, f"Storage pool '{name}' on node '{node_name}' updated.")
    return respond(answer)


@route("DELETE", "/v1/nodes/{node}/storage-pools/{pool}")
def delete_pool(controller: Controller, request: Request) -> Response:
    """A pool without volumes."""
    node_name, name = request.params["node"], request.params["pool"]
    answer = _pool_answer(answers.DELETE, node_name, name)
    node = controller.cluster.nodes.get(node_name)
    found = node.pools.get(name) if node else None
    if node is None or found is None:
        answer.warn(answers.WARN_NOT_FOUND, f"Node: {node_name}, Storage pool name: {name} not found.")
        return respond(answer)
    with catching(answer):
        if found.members:
            raise ApiError(
                answers.FAIL_IN_USE,
                f"The specified storage pool '{name}' on node '{node_name}' can not "
                "be deleted as volumes / snapshot-volumes are still using it.",
            )
        node.pools.pop(name)
        if not any(name in other.pools for other in controller.cluster.nodes):
            controller.cluster.pool_props.pop(found.name, None)
        described = f"Node: {node_name}, Storage pool name: {name}"
        answer.add(
            answers.DELETED,
            f"{described} deleted.",
            details=f"{described} UUID was: {found.uuid}",
            refs={"UUID": found.uuid},
        )
    return respond(answer)


@route("GET", "/v1/storage-pool-definitions")
def pool_definitions(controller: Controller, _request: Request) -> Response:
    """The names of all pools, with what is set for all of a name."""
    known = sorted({"DfltStorPool", *controller.cluster.pool_props})
    return Response(
        200,
        [
            {"storage_pool_name": name, **({"props": props} if props else {})}
            for name in known
            for props in [controller.cluster.pool_props.get(name, {})]
        ],
    )


@route("PUT", "/v1/storage-pool-definitions/{pool}", schema="PropsModify")
def modify_pool_definition(controller: Controller, request: Request) -> Response:
    """Properties of all pools of a name."""
    name = request.params["pool"]
    answer = Answer(Context(answers.MODIFY, answers.STOR_POOL_DFN, {"StorPoolDfn": name}, f"Storage pool: {name}"))
    with catching(answer):
        if name not in controller.cluster.pool_props:
            raise ApiError(answers.FAIL_NOT_FOUND_STOR_POOL_DFN, f"Storage pool definition '{name}' not found.")
        properties.modify(answer, answers.STOR_POOL_DFN, controller.cluster.pool_props[name], request.body)
        described, uuid = f"Storage pool definition '{name}'", new_uuid()
        answer.add(
            answers.MODIFIED, f"{described} modified.", details=f"{described} UUID is: {uuid}", refs={"UUID": uuid}
        )
        for node in controller.cluster.nodes:
            if name in node.pools and node.online:
                answer.add(
                    answers.MODIFIED, f"({node.name}) Changes applied to storage pool '{name}' of node '{node.name}'"
                )
                answer.add(answers.MODIFIED, f"Storage pool updated on '{node.name}'")
    return respond(answer)
