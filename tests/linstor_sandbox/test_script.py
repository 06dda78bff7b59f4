"""Faults in words, at once and at the moment of a call."""

from __future__ import annotations

import http.client
import subprocess
import threading
from typing import Callable

import pytest

from linstor_sandbox import Sandbox
from linstor_sandbox.script import play

from .rest import Rest, error_code

RD = "/v1/resource-definitions/vol"
Ssh = Callable[..., "subprocess.CompletedProcess[bytes]"]


def names(rest: Rest) -> list[str]:
    return [found["name"] for found in rest.ok("GET", "/v1/resource-definitions")]


@pytest.mark.parametrize(
    ("fault", "works"),
    [
        ("on GET /v1/nodes: drop", [False, True]),
        ("on GET /v1/nodes #2: drop", [True, False, True]),
        ("on GET /v1/nodes x2: drop", [False, False, True]),
        ("on GET /v1/nodes always: drop", [False, False, False]),
        ("on GET /v1/no: drop", [True]),
        ("on GET /v1/n.*s: drop", [False, True]),
    ],
)
def test_which_calls_it_meets(box: Sandbox, fault: str, works: list[bool]) -> None:
    play(box, fault)
    found = []
    for _ in works:
        try:
            found.append(Rest(box)("GET", "/v1/nodes")[0] == 200)
        except (http.client.RemoteDisconnected, ConnectionError):
            found.append(False)
    assert found == works


@pytest.mark.parametrize(("end", "made"), [("", []), (" after", ["vol"])])
def test_a_connection_closed_before_or_after_the_work(box: Sandbox, rest: Rest, end: str, made: list[str]) -> None:
    play(box, f"on POST .*/spawn: drop{end}")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        rest.spawn("vol")
    assert names(Rest(box)) == made


def test_an_error_with_its_report(box: Sandbox, rest: Rest) -> None:
    play(box, "on POST .*/spawn: error 996 not enough of anything")
    status, answer = rest("POST", "/v1/resource-groups/group/spawn", {})
    assert (status, error_code(answer), answer[0]["message"]) == (500, 996, "not enough of anything")
    assert answer[0]["error_report_ids"]


def test_accepted_and_silent_and_slow(box: Sandbox) -> None:
    fault = play(box, "on GET /v1/nodes: silent")
    with pytest.raises(TimeoutError):
        Rest(box, timeout=0.2)("GET", "/v1/nodes")
    assert fault is not None
    fault.release()
    play(box, "on GET /v1/nodes: slow 0.3s")
    with pytest.raises(TimeoutError):
        Rest(box, timeout=0.1)("GET", "/v1/nodes")


def test_a_node_goes_offline_in_the_middle_of_a_flow(box: Sandbox, rest: Rest) -> None:
    play(box, "on POST .*/snapshots: offline node2")
    rest.spawn("vol")
    answer = rest.ok("POST", f"{RD}/snapshots", {"name": "snap"})
    assert "will not be created on node 'node2'" in answer[0]["message"]
    play(box, "online node2")
    assert [node["connection_status"] for node in rest.ok("GET", "/v1/nodes")] == ["ONLINE"] * 3


def test_a_full_pool_and_a_broken_node(box: Sandbox, rest: Rest) -> None:
    play(box, "full node1/thick")
    body = {"resource_definition_name": "vol", "volume_sizes": [65536], "select_filter": {"place_count": 3}}
    assert error_code(rest("POST", "/v1/resource-groups/fat/spawn", body)[1]) == 996
    rest.spawn("vol")
    play(box, "broken node1 snapshot")
    assert error_code(rest("POST", f"{RD}/snapshots", {"name": "snap"})[1]) == 998
    rest.ok("POST", f"{RD}/snapshots", {"name": "another"})


def test_connections_refused_until_it_listens(box: Sandbox) -> None:
    play(box, "on GET /v1/nodes: refuse")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        Rest(box)("GET", "/v1/nodes")
    with pytest.raises(ConnectionRefusedError):
        Rest(box)("GET", "/v1/nodes")
    play(box, "listen")
    assert Rest(box)("GET", "/v1/nodes")[0] == 200


def test_the_second_address_takes_over_with_the_same_state(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    both = set(box.uris.split(","))
    first = box.uri
    play(box, "on DELETE .*: failover after")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        rest("DELETE", RD)
    assert (both, box.uri in both, box.uri == first) == (set(box.uris.split(",")), True, False)
    assert names(Rest(box)) == []
    play(box, "failover")
    assert box.uri == first
    assert names(Rest(box)) == []


@pytest.mark.parametrize(
    ("fault", "message"), [("refuse", b"Connection refused"), ("exit", b"Connection closed by node1")]
)
def test_ssh_that_exits_255(box: Sandbox, ssh: Ssh, fault: str, message: bytes) -> None:
    play(box, f"ssh node1 {fault}")
    done = ssh("node1", "true")
    assert (done.returncode, message in done.stderr) == (255, True)
    assert ssh("node2", "true").returncode == 0
    play(box, "ssh node1 ok")
    assert ssh("node1", "true").returncode == 0


def test_ssh_that_hangs_until_it_is_mended(box: Sandbox, ssh: Ssh) -> None:
    play(box, "ssh node1 hang")
    done: list[int] = []
    waiting = threading.Thread(target=lambda: done.append(ssh("node1", "true").returncode))
    waiting.start()
    waiting.join(0.3)
    assert done == []
    play(box, "mend")
    waiting.join(10)
    assert done == [0]


def test_ssh_that_dies_half_way(box: Sandbox, ssh: Ssh, rest: Rest) -> None:
    """In either direction, and nothing of the command lives on."""
    rest.spawn("vol")
    play(box, "ssh node1 die 65536")
    sent = ssh("node1", "dd", "of=/dev/drbd1000", "bs=4096", "iflag=fullblock", "conv=notrunc", stdin=b"x" * 200000)
    assert sent.returncode == 255
    assert box.read("vol", 100000, 4) == b"\0" * 4
    read = ssh("node1", "head -c 200000 /dev/zero")
    assert (read.returncode, len(read.stdout)) == (255, 65536)
    assert ssh("node1", "echo short").stdout == b"short\n"
    assert ssh("node1", "exit 3").returncode == 3


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("", "is no fault"),
        ("explode", "'explode' is no fault"),
        ("offline", "none of the nodes"),
        ("offline node9", "'node9' in the fault 'offline node9' is none of the nodes node1, node2, node3"),
        ("full node1/nosuch", "is no fault"),
        ("full node1/data much", "'much' is no number"),
        ("on GET /v1/nodes: slow soon", "'soon' is no number"),
        ("drop", "is no fault"),
        ("broken node1 everything", "is no fault"),
        ("ssh node1 die", "is no fault"),
        ("on GET /v1/nodes: die", "is no fault"),
    ],
)
def test_what_is_not_understood_is_said(box: Sandbox, fault: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        play(box, fault)
