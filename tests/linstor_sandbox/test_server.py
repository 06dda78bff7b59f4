"""HTTP as the real controller speaks it, and what it says to what it cannot understand."""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.controller import Request
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


ALL = [found for routes in ROUTES.values() for found in routes if found.handler.__name__ != "clone"]
QUERY_KEYS = ("nodes", "resources", "storage_pools", "resource_definitions", "props", "limit", "offset", "cached")
# What no key should have: another type, a number out of range, a name that nothing can have, half a pattern.
STRANGE: list[Any] = [
    *([1], {"a": {"b": 1}}, "x", -1, 0, 1.5, True, None, [], {}, ["\0"], [{}], [None], [[]], "\ud800", "[", "node1\n"),
    *(1 << 33, 1 << 70, "9" * 30, "x" * 60, "a/b", [-1], [1 << 70], {"": ""}, {"Aux/": "x"}, {"Aux/a": None}),
    *({"StorPoolName": "x"}, {"DrbdOptions/Net/allow-two-primaries": "x"}, ["node1", "node1"], ["nosuch"], ["Aux/a="]),
    *(["DRBD"], ["STORAGE", "DRBD"], ["LUKS"], 65536, "65536"),
]
# What makes a call succeed.
GOOD: dict[str, dict[str, Any]] = {
    "Spawn": {"resource_definition_name": "made", "volume_sizes": [4096]},
    "ResourceGroup": {"name": "made"},
    "Snapshot": {"name": "made"},
    "ResourceDefinitionCreate": {"resource_definition": {"name": "made"}},
    "VolumeDefinitionCreate": {"volume_definition": {"size_kib": 4096}},
    "StoragePool": {
        "storage_pool_name": "made",
        "provider_kind": "LVM_THIN",
        "props": {"StorDriver/StorPoolName": "a/b"},
    },
    "Node": {"name": "made", "net_interfaces": [{"address": "127.0.1.9"}]},
    "SnapshotRestore": {"to_resource": "empty"},
}


def populated(folder: Path) -> Sandbox:
    """Not started: the controller is asked directly."""
    box = Sandbox(folder, rest_version="1.29.1", auto_promote_timeout=0)
    ask(box, "POST", "/v1/resource-groups", {"name": "group", "select_filter": {"place_count": 2}})
    ask(box, "POST", "/v1/resource-groups/group/volume-groups", {})
    sweep(box)
    return box


def ask(box: Sandbox, method: str, target: str, body: Any = None) -> None:
    box.controller.handle(Request(method, target, raw=b"" if body is None else json.dumps(body).encode()))


def sweep(box: Sandbox) -> None:
    """What was made goes, and what is needed is there."""
    for definition in box.cluster.definitions:
        if definition.name not in ("vol", "empty"):
            for snapshot in definition.snapshots:
                ask(box, "DELETE", f"{RD}/{definition.name}/snapshots/{snapshot.name}")
            ask(box, "DELETE", f"{RD}/{definition.name}")
    if "vol" not in box.cluster.definitions:
        body = {"resource_definition_name": "vol", "volume_sizes": [4096]}
        ask(box, "POST", "/v1/resource-groups/group/spawn", body)
    if "snap" not in box.definition("vol").snapshots:
        ask(box, "POST", f"{RD}/vol/snapshots", {"name": "snap"})
    ask(box, "POST", RD, {"resource_definition": {"name": "empty"}})


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


def bodies(schema: str) -> Iterator[dict[str, Any]]:
    """One key at a time, on every level, with every strange value."""
    for key, (below, _) in _PARSED[schema].items():
        yield from ({key: value} for value in STRANGE)
        for body in bodies(below.strip("[]")) if below else ():
            yield {key: [body] if below.startswith("[") else body}


@pytest.mark.parametrize("found", WITH_BODY, ids=lambda found: f"{found.method} {template(found)}")
def test_values_of_wrong_types_are_answered(tmp_path: Path, found: Route) -> None:
    """With whatever, alone and beside what makes a call succeed, but never with a traceback."""
    schema = found.schema.strip("[]")
    box = populated(tmp_path)
    beside = [{**GOOD[schema], key: value} for key in _PARSED[schema] for value in STRANGE] if schema in GOOD else []
    for body in itertools.chain(bodies(schema), beside):
        raw = json.dumps([body] if found.schema.startswith("[") else body).encode()
        answer = box.controller.handle(Request(found.method, path(found), raw=raw))
        assert box.exceptions == [], body
        assert answer.status in (200, 201, 400, 404, 500), body
        if answer.status >= 400:
            assert error_code(answer.body) is not None, body
        else:
            sweep(box)


@pytest.mark.parametrize("found", ALL, ids=lambda found: f"{found.method} {template(found)}")
def test_names_in_paths_and_queries_that_nobody_has(tmp_path: Path, found: Route) -> None:
    box = populated(tmp_path)
    variables = [index for index, part in enumerate(found.segments) if part.startswith("{")]
    for index in variables:
        for name in ("nosuch", "", "%00", "%2e%2e", "a%2fb", "%ff", "x" * 300, "-1", "9" * 30, "VOL", "snap"):
            parts = path(found).split("/")
            parts[index + 1] = name
            answer = box.controller.handle(Request(found.method, "/".join(parts), raw=b"{}"))
            assert answer.status in (200, 201, 400, 404, 405, 500)
            assert box.exceptions == [], parts
            sweep(box)
    for key, value in itertools.product(QUERY_KEYS, ("", "nosuch", "\0", "=", "[", "-1", "9" * 5000)):
        if found.method == "GET":
            box.controller.handle(Request("GET", path(found), {key: [value]}))
            assert box.exceptions == [], (key, value)


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


@pytest.mark.parametrize("found", WITH_BODY, ids=lambda found: f"{found.method} {template(found)}")
def test_two_mebibytes_of_nonsense(shared: Rest, found: Route) -> None:
    assert codes(shared(found.method, path(found), b"x" * (2 << 20))[1]) == {PARSE_ERROR}


@pytest.mark.parametrize("target", sorted({path(found) for found in ALL}))
def test_methods_that_a_path_has_not(shared: Rest, target: str) -> None:
    segments = tuple(target.strip("/").split("/"))
    has = {found.method for found in ROUTES[len(segments)] if found.match(segments) is not None}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - has:
        status, answer = shared(method, target)
        assert (status, error_code(answer)) == (405, 998)
        assert answer[0]["message"] == f"Method '{method}' not allowed on path '{target}'."


@pytest.mark.parametrize("target", ["/v1/nosuch", "/v2/nodes", "/v1", "/v1/resource-groups/group/volume-groups/x"])
def test_a_path_that_is_not_there(shared: Rest, target: str) -> None:
    status, answer = shared("GET", target)
    assert (status, error_code(answer)) == (404, 998)
    assert answer[0]["message"] == f"Path '{target}' not found on server."


def test_a_body_in_chunks_is_read(shared: Rest) -> None:
    data = json.dumps({"override_props": {"key": "x" * 100000}}).encode()
    pieces = (data[start : start + 40000] for start in range(0, len(data), 40000))
    shared.connection.request(
        "PUT", "/v1/key-value-store/chunks", pieces, {"Content-Type": "application/json"}, encode_chunked=True
    )
    assert shared.connection.getresponse().read()
    assert len(shared.ok("GET", "/v1/key-value-store/chunks")[0]["props"]["key"]) == 100000


@pytest.mark.parametrize("header", ["Content-Length: -5", "Content-Length: x", "Transfer-Encoding: chunked"])
def test_a_body_of_no_length_that_can_be_told(shared: Rest, header: str) -> None:
    with socket.create_connection(("127.0.0.1", shared.sandbox.port), timeout=20) as connection:
        connection.sendall(f"PUT /v1/key-value-store/some HTTP/1.1\r\n{header}\r\n\r\nzz\r\n".encode())
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


def test_a_method_that_nobody_has(shared: Rest) -> None:
    status, answer = shared("BREW", "/v1/nodes")
    assert (status, answer[0]["message"]) == (405, "Method 'BREW' not allowed on path '/v1/nodes'.")


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
