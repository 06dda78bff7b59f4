"""Version, health, properties of the controller, key-value store, encryption, statistics."""

from __future__ import annotations

import json

from .. import answers, names, properties
from ..answers import Answer, ApiError, Context
from ..model import KeyValues, new_uuid
from ..views import present
from .base import Controller, Request, Response, catching, respond, route

_SERVER_OF_REST = (
    (29, "1.35.2"),
    (28, "1.34.0"),
    (27, "1.33.3"),
    (26, "1.32.3"),
    (25, "1.31.3"),
    (24, "1.30.4"),
    (23, "1.29.2"),
    (22, "1.27.1"),
    (21, "1.26.2"),
    (20, "1.24.2"),
    (0, "1.23.0"),
)


def server_version(rest: str) -> str:
    """The controller's release that speaks a REST version."""
    minor = int(rest.split(".")[1])
    return next(server for least, server in _SERVER_OF_REST if minor >= least)


@route("GET", "/v1/controller/version")
def version(controller: Controller, _request: Request) -> Response:
    """The versions of controller and REST API."""
    rest = controller.cluster.version
    return Response(
        200,
        {
            "version": server_version(rest),
            "git_hash": "1ff3a1ea5cb5c77100265ec442bb9a492b225145",
            "build_time": "2026-11-22T11:15:33+00:00",
            "rest_api_version": rest,
        },
    )


@route("GET", "/health")
def health(_controller: Controller, _request: Request) -> Response:
    """An empty body: alive."""
    return Response(200, None)


@route("GET", "/v1/controller/properties")
def controller_properties(controller: Controller, _request: Request) -> Response:
    """All properties of the controller."""
    return Response(200, dict(sorted(controller.cluster.props.items())))


@route("POST", "/v1/controller/properties", schema="PropsModify")
def modify_controller(controller: Controller, request: Request) -> Response:
    """Properties of the controller, which every satellite is told."""
    answer = Answer(Context(answers.CREATE, answers.CTRL_CONF, {}, "Controller"))
    cluster = controller.cluster
    with catching(answer):
        try:
            override = properties.check(request.body.get("override_props") or {})
        except ApiError as exc:
            raise ApiError(exc.code, exc.cause.rstrip(".")) from None
        for key, value in override.items():
            answer.add(answers.CREATED, f"Successfully set property '{key}' to value '{value}'")
        cluster.props.update(override)
        gone = list(request.body.get("delete_props") or [])
        for key in gone + properties.strip_keys(cluster.props, request.body.get("delete_namespaces") or []):
            cluster.props.pop(key, None)
        for node in cluster.nodes:
            if node.online:
                answer.info(0, f"({node.name}) Controller properties applied", op=answers.MODIFY)
    return respond(answer, 201)


def _delete_property(controller: Controller, key: str) -> Response:
    answer = Answer(Context(answers.DELETE, answers.CTRL_CONF))
    controller.cluster.props.pop(key, None)
    answer.add(answers.DELETED, f"Successfully deleted property '{key}'")
    return respond(answer)


@route("DELETE", "/v1/controller/properties/{key}")
def delete_property(controller: Controller, request: Request) -> Response:
    """One property of the controller, its key percent-encoded."""
    return _delete_property(controller, request.params["key"])


@route("DELETE", "/v1/controller/properties/{namespace}/{key}")
def delete_property_below(controller: Controller, request: Request) -> Response:
    """One property of the controller, its key with a slash."""
    return _delete_property(controller, f"{request.params['namespace']}/{request.params['key']}")


@route("GET", "/v1/key-value-store")
def key_values(controller: Controller, _request: Request) -> Response:
    """All instances."""
    return Response(200, [present(name=kvs.name, props=dict(kvs.props)) for kvs in controller.cluster.key_values])


@route("GET", "/v1/key-value-store/{instance}")
def key_value(controller: Controller, request: Request) -> Response:
    """One instance, in a list."""
    name = request.params["instance"]
    found = controller.cluster.key_values.get(name)
    if found is None:
        raise ApiError(answers.FAIL_NOT_FOUND_KVS, f"Could not find key value store instance '{name}'.", bare=True)
    return Response(200, [present(name=found.name, props=dict(found.props))])


@route("PUT", "/v1/key-value-store/{instance}", schema="PropsModify", parse_status=400)
def modify_key_value(controller: Controller, request: Request) -> Response:
    """Keys of an instance, which comes and goes with them."""
    name, body = request.params["instance"], request.body
    answer = Answer(Context(answers.MODIFY, answers.CTRL_CONF))
    with catching(answer):
        names.check_kvs_name(name)
        found = controller.cluster.key_values.get(name) or KeyValues(name)
        # A leading slash is not part of a key.
        found.props.update({key.lstrip("/"): str(value) for key, value in (body.get("override_props") or {}).items()})
        gone = [key.lstrip("/") for key in body.get("delete_props") or []]
        for key in gone + properties.strip_keys(found.props, body.get("delete_namespaces") or []):
            found.props.pop(key, None)
        if found.props:
            controller.cluster.key_values[name] = found
        else:
            controller.cluster.key_values.pop(name)
        answer.add(answers.MODIFIED, "Successfully updated properties")
    return respond(answer)


@route("DELETE", "/v1/key-value-store/{instance}")
def delete_key_value(controller: Controller, request: Request) -> Response:
    """An instance less; absent is a warning."""
    name = request.params["instance"]
    answer = Answer(Context(0, 0))
    if controller.cluster.key_values.pop(name) is None:
        answer.warn(answers.WARN_NOT_FOUND, f"Kvs '{name}' not found.")
    else:
        answer.add(answers.DELETED, f"Kvs '{name}' deleted.", details=f"Kvs '{name}' UUID was: {new_uuid()}")
    return respond(answer)


_WRONG_SECRET = "Could not restore master passphrase as the given old passphrase was incorrect"


@route("GET", "/v1/encryption/passphrase", since="1.25.0")
def passphrase_status(controller: Controller, _request: Request) -> Response:
    """unset, locked or unlocked."""
    passphrase = controller.cluster.passphrase
    status = "unset" if passphrase.secret is None else "unlocked" if passphrase.unlocked else "locked"
    return Response(200, {"status": status})


def _passphrase_answer(operation: int) -> Answer:
    return Answer(Context(operation, answers.CTRL_CONF))


@route("POST", "/v1/encryption/passphrase", schema="PassphraseCreate")
def create_passphrase(controller: Controller, request: Request) -> Response:
    """Set the master passphrase for the first time."""
    answer = _passphrase_answer(answers.CREATE)
    with catching(answer):
        passphrase = controller.cluster.passphrase
        if passphrase.secret is not None:
            raise ApiError(
                answers.FAIL_EXISTS_CRYPT_PASSPHRASE,
                "Could not create new crypt passphrase as it already exists",
                cause="A passphrase was already defined",
                correction="Use the crypt-modify-passphrase command instead of crypt-create-passphrase",
            )
        passphrase.secret, passphrase.unlocked = str(request.body.get("new_passphrase")), True
        answer.add(answers.CREATED, "Crypt passphrase created.")
    return respond(answer, 201)


@route("PUT", "/v1/encryption/passphrase", schema="PassphraseCreate")
def change_passphrase(controller: Controller, request: Request) -> Response:
    """Another master passphrase for the old one."""
    answer = _passphrase_answer(answers.MODIFY)
    with catching(answer):
        passphrase = controller.cluster.passphrase
        if passphrase.secret is None or passphrase.secret != request.body.get("old_passphrase"):
            raise ApiError(
                answers.FAIL_MISSING_PROPS,
                _WRONG_SECRET,
                cause="Wrong passphrase",
                correction="Enter the correct passphrase",
            )
        passphrase.secret = str(request.body.get("new_passphrase"))
        answer.add(answers.MODIFIED, "Crypt passphrase updated")
    return respond(answer)


@route("PATCH", "/v1/encryption/passphrase")
def enter_passphrase(controller: Controller, request: Request) -> Response:
    """Unlock with the master passphrase, a JSON string."""
    answer = _passphrase_answer(answers.MODIFY)
    try:
        given = json.loads(request.raw)
    except (ValueError, RecursionError) as exc:
        return Response(500, answers.parse_error(str(exc)))
    with catching(answer):
        passphrase = controller.cluster.passphrase
        if passphrase.secret is None:
            raise ApiError(
                answers.FAIL_MISSING_PROPS,
                "encrypted namespace is empty, you need to set a passphrase first",
            )
        if passphrase.secret != given:
            raise ApiError(
                answers.FAIL_MISSING_PROPS,
                _WRONG_SECRET,
                cause="Wrong passphrase",
                correction="Enter the correct passphrase",
            )
        passphrase.unlocked = True
        answer.add(answers.PASSPHRASE_ACCEPTED, "Passphrase accepted")
    return respond(answer)


@route("GET", "/v1/stats/{kind}")
def statistics(controller: Controller, request: Request) -> Response:
    """How many there are of a kind."""
    cluster = controller.cluster
    counts = {
        "nodes": len(cluster.nodes),
        "resource-groups": len(cluster.groups),
        "resource-definitions": len(cluster.definitions),
        "resources": sum(1 for _ in cluster.resources()),
        "storage-pools": sum(len(node.pools) for node in cluster.nodes),
    }
    kind = request.params["kind"]
    return Response(200, {"count": counts[kind]}) if kind in counts else controller.no_route(request, False)
