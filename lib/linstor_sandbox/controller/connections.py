"""Resource connections: properties of one pair of nodes."""

from __future__ import annotations

import itertools
from typing import Optional

from .. import answers, properties
from ..answers import Answer, ApiError, Context
from ..model import Resource, ResourceDefinition, new_uuid
from ..views import present
from .base import Controller, Request, Response, catching, respond, route
from .deployment import Deployment

_BASE = "/v1/resource-definitions/{rd}/resource-connections"


def _pair(first: str, second: str) -> frozenset[str]:
    return frozenset((first.upper(), second.upper()))


def _json(definition: ResourceDefinition, first: Resource, second: Resource) -> dict[str, object]:
    props = definition.connections.get(_pair(first.node.name, second.node.name), {})
    return present(node_a=first.node.name, node_b=second.node.name, props=dict(sorted(props.items())))


@route("GET", _BASE)
def listing(controller: Controller, request: Request) -> Response:
    """Every pair of nodes that has the resource."""
    definition = controller.read_definition(request.params["rd"])
    pairs: list[dict[str, object]] = [
        _json(definition, one, other) for one, other in itertools.combinations(definition.resources.values(), 2)
    ]
    return Response(200, pairs)


@route("GET", _BASE + "/{first}/{second}")
def show(controller: Controller, request: Request) -> Response:
    """One pair."""
    definition = controller.read_definition(request.params["rd"])
    first = controller.resource(definition, request.params["first"])
    second = controller.resource(definition, request.params["second"])
    return Response(200, _json(definition, first, second))


@route("PUT", _BASE + "/{first}/{second}", schema="PropsModify")
def modify(controller: Controller, request: Request) -> Response:
    """Properties of one pair, as allow-two-primaries for a live migration."""
    name, first, second = (request.params[key] for key in ("rd", "first", "second"))
    description = f"Resource connection between nodes {first} and {second} for resource {name}"
    refs: dict[str, Optional[str]] = {"SecondNode": second, "RscDfn": name, "FirstNode": first}
    answer = Answer(Context(answers.MODIFY, answers.RSC_CONN, refs, description))
    with catching(answer):
        definition = controller.definition(name)
        nodes = [controller.node(first), controller.node(second)]
        missing = next((node for node in nodes if node.name not in definition.resources), None)
        if missing is not None:
            raise _null_pointer(first, second, name)
        pair = _pair(first, second)
        props = definition.connections.setdefault(pair, {})
        uuid = definition.connection_uuids.setdefault(pair, new_uuid())
        changed = properties.modify(answer, answers.RSC_CONN, props, request.body)
        described = f"Resource connection between nodes '{first}' and '{second}' for resource '{name}'"
        answer.add(
            answers.MODIFIED, f"{described} modified.", details=f"{described} UUID is: {uuid}", refs={"UUID": uuid}
        )
        if changed:
            Deployment(controller, definition, answer).adjust_all()
    return respond(answer)


def _null_pointer(first: str, second: str, name: str) -> ApiError:
    return ApiError(
        answers.FAIL_UNKNOWN_ERROR,
        f"Modification of resource connection between nodes '{first}' and '{second}' for resource '{name}' failed due "
        'to an unhandled exception of type NullPointerException. Cannot invoke "com.linbit.linstor.core.objects.'
        'Resource.getObjProt()" because "<parameter3>" is null',
        report=True,
    )
