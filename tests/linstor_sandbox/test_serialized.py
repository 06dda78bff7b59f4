"""Long lists go out piece by piece: to every kind of client the same list, and never one body."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.controller import Request
from linstor_sandbox.script import play
from linstor_sandbox.seeding import seed
from linstor_sandbox.serialized import AT_A_TIME, Pieces

from .rest import Rest

NODES = tuple(f"node{number}" for number in range(4))
LISTS = ("/v1/resource-definitions?with_volume_definitions=true", "/v1/view/resources", "/v1/view/snapshots")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Volumes for three pieces."""
    with Sandbox(tmp_path_factory.mktemp("large"), NODES, (Pool("data", size_mib=1 << 20),)) as sandbox:
        seed(sandbox, 2 * AT_A_TIME + 1, 1, size_kib=4096)
        yield sandbox
        assert sandbox.exceptions == []


def ask(box: Sandbox, target: str, *headers: str, method: str = "GET", version: str = "1.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", box.port), timeout=30)
    lines = [f"{method} {target} HTTP/{version}", "Host: box", *headers]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def whole(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    """Headers and body of an answer that ends with its connection."""
    with connection:
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def chunks(body: bytes) -> list[bytes]:
    found = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        assert body[length : length + 2] == b"\r\n"
        if not length:
            assert body == b"\r\n"
            return found
        found.append(body[:length])
        body = body[length + 2 :]


def pieces(box: Sandbox, target: str) -> Pieces:
    body = box.controller.handle(Request("GET", target)).body
    assert isinstance(body, Pieces)
    return body


@pytest.mark.parametrize("target", LISTS)
def test_every_client_gets_the_same_list(large: Sandbox, target: str) -> None:
    headers, body = whole(ask(large, target, "Connection: close"))
    assert (headers["transfer-encoding"], "content-length" in headers) == ("chunked", False)
    assert len(chunks(body)) == 3
    plain = b"".join(chunks(body))
    assert len({json.dumps(item) for item in json.loads(plain)}) >= 2 * AT_A_TIME + 1
    headers, body = whole(ask(large, target, "Connection: close", "Accept-Encoding: deflate, gzip"))
    assert (headers["content-encoding"], headers["transfer-encoding"]) == ("gzip", "chunked")
    assert gzip.decompress(b"".join(chunks(body))) == plain
    headers, body = whole(ask(large, target, "Connection: keep-alive", version="1.0"))
    assert (headers["connection"], "transfer-encoding" in headers) == ("close", False)
    assert body == plain
    headers, body = whole(ask(large, target, "Accept-Encoding: gzip", version="1.0"))
    assert gzip.decompress(body) == plain


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("*", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("identity", False), ("xgzip", False)],
)
def test_gzip_is_for_those_who_read_it(large: Sandbox, accepted: str, packed: bool) -> None:
    headers, _ = whole(ask(large, LISTS[0], "Connection: close", f"Accept-Encoding: {accepted}"))
    assert ("content-encoding" in headers) == packed


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_the_connection_stays_good(large: Sandbox, encoding: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", large.port, timeout=30)
    sockets = set()
    for method, target in (("GET", LISTS[1]), ("HEAD", LISTS[1]), ("GET", "/v1/nodes"), ("GET", LISTS[2])):
        connection.request(method, target, headers={"Accept-Encoding": encoding})
        sockets.add(connection.sock)
        answer = connection.getresponse()
        data = answer.read()
        assert (answer.status, bool(data)) == (200, method == "GET")
    assert len(sockets) == 1


def test_head_is_get_without_its_body(large: Sandbox) -> None:
    for target in (LISTS[0], "/v1/controller/version"):
        got, _ = whole(ask(large, target, "Connection: close"))
        headers, body = whole(ask(large, target, "Connection: close", method="HEAD"))
        assert body == b""
        assert {key: value for key, value in headers.items() if key != "date"} == {
            key: value for key, value in got.items() if key != "date"
        }


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("nodes=node1", None),
        ("storage_pools=data&limit=5&offset=600", 5),
        (f"limit=2&offset={2 * AT_A_TIME}", 1),
        ("storage_pools=nosuch", 0),
        ("resources=nosuch", 0),
    ],
)
def test_filters_leave_the_same_in_pieces(large: Sandbox, query: str, count: Any) -> None:
    rest = Rest(large, timeout=30)
    found = rest.ok("GET", "/v1/view/resources", query=query)
    if count is None:
        everything = rest.ok("GET", "/v1/view/resources")
        assert found == [item for item in everything if item["node_name"] == "node1"] != []
    else:
        assert len(found) == count


def test_what_is_deleted_between_two_pieces_is_not_there(large: Sandbox) -> None:
    """Nothing waits for the end of a list: another connection deletes in its middle."""
    names = sorted(rd.name for rd in large.cluster.definitions)
    body = iter(pieces(large, "/v1/resource-definitions"))
    first = next(body)
    rest = Rest(large, timeout=30)
    for name in (names[0], *names[AT_A_TIME : 2 * AT_A_TIME]):
        large.definition(name).snapshots.pop("snap")
        rest.ok("DELETE", f"/v1/resource-definitions/{name}")
    left = json.loads(first + b"".join(body))
    assert [item["name"] for item in left] == names[:AT_A_TIME] + names[2 * AT_A_TIME :]
    seed(large, 2 * AT_A_TIME + 1, 1, size_kib=4096)


@pytest.mark.parametrize(("target", "after"), [(LISTS[1], 100000), ("/v1/nodes", 1000), ("/v1/controller/version", 0)])
def test_a_controller_that_dies_in_the_middle_of_an_answer(large: Sandbox, target: str, after: int) -> None:
    play(large, f"on GET {target} x2: die {after}")
    with pytest.raises(http.client.IncompleteRead):
        Rest(large, timeout=30)("GET", target)
    headers, body = whole(ask(large, target))
    assert len(body.partition(b"\r\n")[2] if "transfer-encoding" in headers else body) == after
    assert Rest(large, timeout=30)("GET", target)[0] == 200


def test_a_client_that_goes_away_holds_nobody_up(large: Sandbox) -> None:
    gone = ask(large, LISTS[1])
    gone.recv(100)
    gone.close()
    assert Rest(large, timeout=30)("GET", "/v1/nodes")[0] == 200


def test_stopping_ends_a_list_that_nobody_reads(large: Sandbox) -> None:
    reader = ask(large, LISTS[1])
    reader.recv(100)
    stopping = threading.Thread(target=large.stop_controller)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()
    large.start_controller()
    reader.close()


def test_what_goes_wrong_in_a_later_piece_breaks_the_list_and_is_kept(large: Sandbox) -> None:
    last = max(large.cluster.definitions, key=lambda rd: rd.name)
    last.props, kept = None, last.props  # type: ignore[assignment]
    large.cluster.touch()
    with pytest.raises(http.client.IncompleteRead):
        Rest(large, timeout=30)("GET", LISTS[0])
    assert "Traceback" in large.exceptions.pop()
    last.props = kept
    large.cluster.touch()
    assert Rest(large, timeout=30)("GET", LISTS[0])[0] == 200


def test_what_changes_no_volume_leaves_their_descriptions(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    before = (box.cluster.epoch, box.definition("vol").stamp)
    rest.ok("POST", "/v1/resource-groups/group/query-size-info", {})
    rest.ok("PUT", "/v1/key-value-store/some", {"override_props": {"key": "vol"}})
    rest("POST", "/v1/resource-groups/group/spawn", {"nosuchkey": 1})
    assert (box.cluster.epoch, box.definition("vol").stamp) == before
