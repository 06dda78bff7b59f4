"""What goes wrong on request, and what only some requests may say."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.answers import API_CALL_PARSE_ERROR

from .rest import Rest, codes, error_code, low_codes

SPAWN = "/v1/resource-groups/group/spawn"
BODY = {"resource_definition_name": "vol", "volume_sizes": [65536]}


def names(rest: Rest) -> list[str]:
    return [rd["name"] for rd in rest.ok("GET", "/v1/resource-definitions")]


def test_an_answer_without_and_with_the_work(box: Sandbox, rest: Rest) -> None:
    box.faults.fail("POST .*/spawn", 996, "no room", times=2)
    for _ in range(2):
        status, answer = rest("POST", SPAWN, BODY)
        assert (status, error_code(answer), answer[0]["message"]) == (500, 996, "no room")
    assert names(rest) == []
    box.faults.fail("POST .*/spawn", 998, after_work=True)
    assert rest("POST", SPAWN, BODY)[0] == 500
    assert names(rest) == ["vol"]


def test_a_controller_that_dies_after_accepting(box: Sandbox, rest: Rest) -> None:
    box.faults.drop("POST .*/spawn", after_work=True)
    with pytest.raises(http.client.RemoteDisconnected):
        rest("POST", SPAWN, BODY)
    assert names(Rest(box)) == ["vol"]
    assert [(item.line, item.status) for item in box.requests][-2] == (f"POST {SPAWN}", 0)


def test_a_controller_that_hangs_until_released(box: Sandbox, rest: Rest) -> None:
    fault = box.faults.hang("POST .*/spawn")
    with pytest.raises(TimeoutError):
        Rest(box, timeout=0.1)("POST", SPAWN, BODY)
    assert names(rest) == []
    fault.release()
    deadline = time.monotonic() + 2
    while names(rest) != ["vol"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names(rest) == ["vol"]


def test_what_hangs_in_a_controller_that_ends_is_never_done(box: Sandbox) -> None:
    fault = box.faults.hang("POST .*/spawn")
    with pytest.raises(TimeoutError):
        Rest(box, timeout=0.1)("POST", SPAWN, BODY)
    box.stop_controller()
    box.start_controller()
    before = len(box.requests)
    fault.release()
    deadline = time.monotonic() + 2
    while len(box.requests) == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert box.requests[-1].path == SPAWN
    assert names(Rest(box)) == []


def test_others_are_served_meanwhile(box: Sandbox, rest: Rest) -> None:
    box.faults.hang("POST .*/spawn", 0.3)
    other = threading.Thread(target=Rest(box), args=("POST", SPAWN, BODY))
    other.start()
    time.sleep(0.05)
    started = time.monotonic()
    assert names(rest) == []
    assert time.monotonic() - started < 0.1
    other.join()


def test_a_stopped_controller_refuses_and_comes_back(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.stop_controller()
    with pytest.raises(OSError):
        Rest(box)("GET", "/health")
    box.start_controller()
    assert names(Rest(box)) == ["vol"]


def test_latency(box: Sandbox, rest: Rest) -> None:
    box.faults.latency = 0.1
    started = time.monotonic()
    names(rest)
    assert time.monotonic() - started >= 0.1


def test_spawn_takes_milliseconds(box: Sandbox, rest: Rest) -> None:
    for index in range(5):
        rest.spawn(f"vol{index}")
    assert min(item.milliseconds for item in box.requests if item.path == SPAWN) < 20


def test_a_satellite_that_cannot_take_a_snapshot(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.break_satellite("node1", "snapshot")
    path = "/v1/resource-definitions/vol/snapshots"
    status, answer = rest("POST", path, {"name": "snap"})
    assert (status, error_code(answer)) == (500, 998)
    assert rest.ok("GET", f"{path}/snap")["flags"] == ["FAILED_DEPLOYMENT"]
    assert error_code(rest("POST", path, {"name": "snap"})[1]) == 514
    assert error_code(rest("POST", "/v1/resource-definitions/vol/snapshot-rollback/snap", {})[1]) == 998
    rest.ok("DELETE", f"{path}/snap")
    rest.ok("POST", path, {"name": "snap"})


def test_a_satellite_that_cannot_clone(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.break_satellite("node1", "clone")
    assert rest("POST", "/v1/resource-definitions/vol/clone", {"name": "copy"})[0] == 500
    statuses = {rest.ok("GET", "/v1/resource-definitions/vol/clone/copy")["status"] for _ in range(5)}
    assert statuses == {"CLONING"}
    rest.ok("DELETE", "/v1/resource-definitions/copy")


def test_a_satellite_that_cannot_create(box: Sandbox, rest: Rest) -> None:
    """The call fails, definition and resources stay, and heal when the satellite is mended."""
    box.break_satellite("node2", "create")
    status, answer = rest("POST", SPAWN, BODY)
    assert (status, error_code(answer)) == (500, 998)
    assert set(rest.flags("vol")) == {"node1", "node2", "node3"}
    assert not (box.host("node2") / "dev/drbd1000").exists()
    box.mend()
    assert (box.host("node2") / "dev/drbd1000").exists()


def test_a_satellite_that_cannot_grow(box: Sandbox, rest: Rest) -> None:
    """The size is the new one already, and asking again does nothing."""
    rest.spawn("vol")
    box.break_satellite("node1", "resize")
    path = "/v1/resource-definitions/vol/volume-definitions/0"
    assert rest("PUT", path, {"size_kib": 131072})[0] == 500
    assert rest.ok("GET", path)["size_kib"] == 131072
    assert "RESIZE" in rest.ok("GET", path)["flags"]
    volumes = [found["volumes"][0] for found in rest.ok("GET", "/v1/view/resources")]
    assert all({"RESIZE", "DRBD_RESIZE"} <= set(volume["flags"]) for volume in volumes)
    assert low_codes(rest.ok("PUT", path, {"size_kib": 131072})) >= {1023}
    assert box.device_size("vol") == 71249920


@pytest.mark.parametrize(("operation", "status"), [("delete", 500), ("delete-silently", 200)])
def test_a_resource_that_stays_deleting(box: Sandbox, rest: Rest, operation: str, status: int) -> None:
    rest.spawn("vol")
    box.break_satellite("node1", operation, times=-1)
    assert rest("DELETE", "/v1/resource-definitions/vol")[0] == status
    assert rest.ok("GET", "/v1/resource-definitions/vol")["flags"] == ["DELETE"]
    assert error_code(rest("POST", SPAWN, BODY)[1]) == 501
    box.mend()
    assert names(rest) == []


def test_deletes_wait_for_an_offline_node(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    rest.spawn("other")
    box.set_node("node2", online=False)
    assert 1002 in low_codes(rest.ok("DELETE", "/v1/resource-definitions/vol"))
    rest.ok("DELETE", "/v1/resource-definitions/other/resources/node2")
    assert "DELETE" in rest.flags("other")["node2"]
    assert names(rest) == ["other", "vol"]
    box.set_node("node2", online=True)
    assert names(rest) == ["other"]
    assert set(rest.flags("other")) == {"node1"}


def test_a_lost_node_takes_what_was_on_it_along_and_holds_up_nothing(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    rest.spawn("other")
    for nodes, name in ([["node2"], "there"], [[], "both"]):
        rest.ok("POST", "/v1/resource-definitions/other/snapshots", {"name": name, "nodes": nodes})
    assert error_code(rest("DELETE", "/v1/nodes/node2/lost")[1]) == 506
    box.set_node("node2", online=False)
    assert 1002 in low_codes(rest.ok("DELETE", "/v1/resource-definitions/vol"))
    rest.ok("DELETE", "/v1/nodes/node2/lost")
    assert [node["name"] for node in rest.ok("GET", "/v1/nodes")] == ["node1", "node3"]
    assert (names(rest), set(rest.flags("other"))) == (["other"], {"node1", "node3"})
    snapshots = rest.ok("GET", "/v1/view/snapshots")
    assert [(snapshot["name"], snapshot["nodes"]) for snapshot in snapshots] == [("both", ["node1"])]
    assert 3000 in low_codes(rest.ok("DELETE", "/v1/nodes/node2/lost"))


def test_an_offline_node_has_no_state(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.set_node("node1", online=False)
    resource = rest.ok("GET", "/v1/view/resources", query="nodes=node1")[0]
    assert "state" not in resource and "state" not in resource["volumes"][0]
    assert resource["volumes"][0]["device_path"] == "/dev/drbd1000"
    answer = rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "snap"})
    assert "will not be created on node 'node1'" in answer[0]["message"]
    assert rest.ok("GET", "/v1/resource-definitions/vol/snapshots/snap")["nodes"] == ["node2"]
    assert error_code(rest("POST", "/v1/resource-definitions/vol/clone", {"name": "copy"})[1]) == 996
    assert error_code(rest("POST", "/v1/resource-definitions/vol/snapshot-rollback/snap", {})[1]) == 995


def test_a_hung_satellite_makes_an_error_without_a_message(box: Sandbox, rest: Rest) -> None:
    box.hang_satellite("node1")
    status, answer = rest("GET", "/v1/view/storage-pools")
    assert status == 500 and "message" not in answer[0]
    assert rest("GET", "/v1/view/storage-pools", query="cached=true")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/resource-definitions", 400),
        ("POST", "/v1/resource-groups", 400),
        ("PUT", "/v1/key-value-store/kv", 400),
        ("POST", SPAWN, 500),
        ("PUT", "/v1/resource-definitions/vol", 500),
        ("POST", "/v1/resource-definitions/vol/autoplace", 500),
    ],
)
def test_unknown_keys_are_errors(rest: Rest, method: str, path: str, status: int) -> None:
    answered, answer = rest(method, path, {"no_such_key": 1})
    assert (answered, codes(answer)) == (status, {API_CALL_PARSE_ERROR})
    assert rest(method, path, b"{")[0] == status


def test_an_unknown_key_in_clone_hangs(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    with pytest.raises(TimeoutError):
        Rest(box, timeout=0.1)("POST", "/v1/resource-definitions/vol/clone", {"name": "copy", "volume_sizes": [1]})


def test_newer_keys_and_calls_need_a_newer_controller(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "old", rest_version="1.21.0") as box:
        rest = Rest(box)
        rest.group("group")
        body = {**BODY, "resource_definition_props": {"Aux/a": "b"}}
        assert codes(rest("POST", SPAWN, body)[1]) == {API_CALL_PARSE_ERROR}
        box.cluster.version = "1.22.0"
        assert rest("POST", SPAWN, body)[0] == 201
        assert rest("POST", "/v1/resource-definitions/vol/resources/node1/unmake-available")[0] == 404
        box.cluster.version = "1.29.0"
        assert rest("POST", "/v1/resource-definitions/vol/resources/node1/unmake-available")[0] == 200


def test_paths_and_methods_that_do_not_exist(rest: Rest) -> None:
    status, answer = rest("GET", "/v1/nosuch")
    assert (status, answer[0]["message"]) == (404, "Path '/v1/nosuch' not found on server.")
    status, answer = rest("PATCH", "/v1/resource-definitions")
    assert (status, answer[0]["message"]) == (405, "Method 'PATCH' not allowed on path '/v1/resource-definitions'.")


def test_gzip_when_asked_and_only_then(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    connection = http.client.HTTPConnection("127.0.0.1", box.port)
    for path, encoding in (("/v1/view/resources", "gzip"), ("/v1/controller/version", None)):
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        response.read()
        assert response.getheader("Content-Encoding") == encoding


def test_a_connection_serves_256_requests(box: Sandbox) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", box.port)
    for _ in range(256):
        connection.request("GET", "/health")
        response = connection.getresponse()
        response.read()
    assert response.getheader("Connection") == "close"


def test_faults_over_http(box: Sandbox, rest: Rest) -> None:
    def post(path: str, body: object) -> None:
        data = json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(box.uri + path, data), timeout=5):
            pass

    post("/sandbox/faults", {"kind": "answer", "pattern": "GET /v1/nodes", "code": 300})
    assert rest("GET", "/v1/nodes")[0] == 404
    post("/sandbox/node", {"node": "node1", "online": False})
    assert rest.ok("GET", "/v1/nodes/node1")["connection_status"] == "OFFLINE"


def test_a_rollback_without_its_safety_snapshot_changes_nothing(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "snap"})
    box.write("vol", b"newer")
    box.break_satellite("node2", "snapshot")
    assert rest("POST", "/v1/resource-definitions/vol/snapshot-rollback/snap", {})[0] == 500
    assert box.read("vol", 0, 5) == b"newer"
    assert [snap["name"] for snap in rest.ok("GET", "/v1/view/snapshots")] == ["snap"]


@pytest.mark.parametrize(("operation", "code"), [("delete", 998), ("delete-silently", 1002), ("create", 998)])
def test_a_rollback_that_fails_half_way_is_taken_back(box: Sandbox, rest: Rest, operation: str, code: int) -> None:
    rest.spawn("vol")
    rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "snap"})
    box.write("vol", b"newer")
    rest.ok("PUT", "/v1/resource-definitions/vol/volume-definitions/0", {"size_kib": 131072})
    failure = box.break_satellite("node2", operation)
    status, answer = rest("POST", "/v1/resource-definitions/vol/snapshot-rollback/snap", {})
    assert (status, code in low_codes(answer)) == (500, True)
    assert {node for node, flags in rest.flags("vol").items() if not flags} == {"node1", "node2"}
    assert (box.read("vol", 0, 5), rest.ok("GET", "/v1/resource-definitions/vol").get("flags")) == (b"newer", None)
    assert rest.ok("GET", "/v1/resource-definitions/vol/volume-definitions/0")["size_kib"] == 131072
    assert [snap["name"] for snap in rest.ok("GET", "/v1/view/snapshots")] == ["snap"]
    failure.remaining = 0
    rest.ok("POST", "/v1/resource-definitions/vol/snapshot-rollback/snap", {})
    assert box.read("vol", 0, 5) == bytes(5)


def test_a_restart_locks_the_passphrase(box: Sandbox, rest: Rest) -> None:
    rest.ok("POST", "/v1/encryption/passphrase", {"new_passphrase": "secret"})
    box.stop_controller()
    box.start_controller()
    rest = Rest(box)
    assert rest.ok("GET", "/v1/encryption/passphrase") == {"status": "locked"}
    assert rest("PATCH", "/v1/encryption/passphrase", "wrong")[0] == 500
    rest.ok("PATCH", "/v1/encryption/passphrase", "secret")
    assert rest.ok("GET", "/v1/encryption/passphrase") == {"status": "unlocked"}


def test_one_of_many_gets_the_name(box: Sandbox, rest: Rest) -> None:
    """Creating a definition is LINSTOR's only lock."""
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(Rest(box)("POST", SPAWN, BODY)[0])) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [500] * 9
