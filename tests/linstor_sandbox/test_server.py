"""HTTP as the real controller speaks it, and what it says to what it cannot understand."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.controller.base import ROUTES, Route
from linstor_sandbox.controller.grammar import _PARSED

from .rest import Rest, codes, error_code

PARSE_ERROR = 0xCFFFFFFFFFFFFFFD
RD = "/v1/resource-definitions"
# Where a bad body is a bad request; everywhere else it is an internal error.
BAD_REQUESTS = {
    ("POST", RD),
    ("POST", "/v1/resource-groups"),
    ("POST", "/v1/resource-groups/{group}/volume-groups"),
    ("POST", f"{RD}/{{rd}}/snapshot-restore-volume-definition/{{snapshot}}"),
    ("PUT", "/v1/key-value-store/{instance}"),
}
WITH_BODY = [
    found
    for routes in ROUTES.values()
    for found in routes
    if found.schema not in ("", "Any") and found.handler.__name__ != "clone"
]
NAMES = {"rd": "vol", "node": "node1", "group": "group", "snapshot": "snap", "number": "0", "first": "node1"}


def template(found: Route) -> str:
    return "/" + "/".join(found.segments)


def path(found: Route) -> str:
    parts = [NAMES.get(part[1:-1], "node2") if part.startswith("{") else part for part in found.segments]
    return "/" + "/".join(parts)


@pytest.mark.parametrize("found", WITH_BODY, ids=lambda found: f"{found.method} {template(found)}")
def test_a_body_that_cannot_be_read(shared: Rest, found: Route) -> None:
    for body in (b"{", b"\xff\xfe", b'{"nosuchkey": 1}', b"5", b'"text"', b"[" * 100000):
        status, answer = shared(found.method, path(found), body)
        assert codes(answer) == {PARSE_ERROR}, body
        assert answer[0]["message"] == "Unable to parse input json."
        assert answer[0]["error_report_ids"]
        assert status == (400 if (found.method, template(found)) in BAD_REQUESTS else 500)


@pytest.mark.parametrize("found", WITH_BODY, ids=lambda found: f"{found.method} {template(found)}")
def test_values_of_wrong_types_are_answered(shared: Rest, found: Route) -> None:
    """With whatever, but never with a traceback."""
    values: list[Any] = [[1], {"a": {"b": 1}}, "x", -1, 1.5, True, None, [], {}, ["\0"], [{}], "\ud800"]
    shared.sandbox.exceptions.clear()
    for key in sorted(_PARSED[found.schema.strip("[]")]):
        for value in values:
            body: Any = {key: value}
            status, answer = shared(found.method, path(found), [body] if found.schema.startswith("[") else body)
            assert shared.sandbox.exceptions == [], (key, value)
            assert status in (200, 201, 400, 404, 405, 500), (key, answer)


@pytest.mark.parametrize(
    ("name", "code"),
    [("", 202), ("a", 202), ("1abc", 202), ("a.b", 202), ("x" * 49, 202), ("x" * (2 << 20), 202), ("all", 202)],
)
def test_names_that_are_refused(shared: Rest, name: str, code: int) -> None:
    status, answer = shared("POST", RD, {"resource_definition": {"name": name}})
    assert (status, error_code(answer)) == (500, code)


def test_two_mebibytes_are_read(shared: Rest) -> None:
    body = {"override_props": {"Aux/long": "x" * (2 << 20)}}
    shared.ok("PUT", "/v1/key-value-store/long", body)
    assert len(shared.ok("GET", "/v1/key-value-store/long")[0]["props"]["Aux/long"]) == 2 << 20
    assert codes(shared("POST", RD, b"x" * (2 << 20))[1]) == {PARSE_ERROR}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE"])
def test_a_method_that_the_path_has_not(shared: Rest, method: str) -> None:
    status, answer = shared(method, "/v1/view/resources")
    assert (status, error_code(answer)) == (405, 998)
    assert answer[0]["message"] == f"Method '{method}' not allowed on path '/v1/view/resources'."


@pytest.mark.parametrize("target", ["/v1/nosuch", "/v2/nodes", "/v1", "/v1/resource-groups/group/volume-groups/x"])
def test_a_path_that_is_not_there(shared: Rest, target: str) -> None:
    status, answer = shared("GET", target)
    assert (status, error_code(answer)) == (404, 998)
    assert answer[0]["message"] == f"Path '{target}' not found on server."


@pytest.mark.parametrize("query", ["limit=x", "limit=--5", "offset=y&limit=2", "limit=1.5"])
def test_a_limit_that_is_no_number(shared: Rest, query: str) -> None:
    assert shared("GET", RD, query=query)[0] == 500


def test_compression_is_for_those_who_ask_and_for_what_is_long(shared: Rest) -> None:
    def ask(target: str, **headers: str) -> Any:
        shared.connection.request("GET", target, headers=headers)
        response = shared.connection.getresponse()
        return response.getheader("Content-Encoding"), response.read()

    accept = {"Accept-Encoding": "gzip"}
    encoding, data = ask("/v1/nodes", **accept)
    assert encoding == "gzip"
    assert {"node1", "node2", "node3"} <= {node["name"] for node in json.loads(gzip.decompress(data))}
    assert ask("/v1/nodes")[0] is None
    assert ask("/v1/controller/version", **accept)[0] is None


def test_a_connection_is_good_for_256_requests(shared: Rest) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared.sandbox.port)
    closing = []
    for _ in range(256):
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
        closing.append(response.getheader("Connection"))
    assert closing == [None] * 255 + ["close"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One sandbox for all requests that change nothing, or nothing that matters here."""
    with Sandbox(tmp_path_factory.mktemp("server"), rest_version="1.29.1") as sandbox:
        rest = Rest(sandbox)
        rest.group("group")
        rest.spawn("vol")
        yield rest
        assert sandbox.exceptions == []
