"""Answers that come before the thing is done, and the states between."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from linstor_sandbox import Pool, Sandbox, recorded_times, server

from .rest import Rest, error_code, low_codes

RD = "/v1/resource-definitions/vol"
POOLS = (Pool("data", "LVM_THIN", 4096), Pool("thick", "LVM", 1024))


def seen(look: Callable[[], Any], last: Any) -> list[Any]:
    """The values that something takes on the way to its last, each once."""
    found: list[Any] = []
    deadline = time.monotonic() + 20
    while last not in found[-1:] and time.monotonic() < deadline:
        value = look()
        if value not in found[-1:]:
            found.append(value)
    return found


def states(rest: Rest) -> dict[str, str]:
    return {
        found["node_name"]: found["volumes"][0].get("state", {}).get("disk_state", "")
        for found in rest.ok("GET", "/v1/view/resources", query="resources=vol")
    }


def connections(rest: Rest) -> list[str]:
    return [node["connection_status"] for node in rest.ok("GET", "/v1/nodes")]


def test_a_replica_added_later_is_inconsistent_first(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, sync_seconds=0.4) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        assert set(states(rest).values()) == {"UpToDate", "Diskless"}
        rest.ok("POST", f"{RD}/resources/node3/make-available", {"diskful": True})
        assert rest.ok("GET", f"{RD}/sync-status") == {"synced_on_all": False}
        assert error_code(rest("PUT", f"{RD}/volume-definitions/0", {"size_kib": 131072})[1]) == 974
        assert seen(lambda: states(rest)["node3"], "UpToDate") == ["Inconsistent", "UpToDate"]
        assert rest.ok("GET", f"{RD}/sync-status") == {"synced_on_all": True}


def test_a_clone_is_cloning_after_its_call(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, clone_seconds=0.4) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        rest.ok("POST", f"{RD}/clone", {"name": "copy"})
        status = seen(lambda: rest.ok("GET", f"{RD}/clone/copy")["status"], "COMPLETE")
        assert status == ["CLONING", "COMPLETE"]


def test_satellites_come_back_step_by_step_after_the_controllers_start(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, connect_seconds=1.0) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        assert connections(rest) == ["ONLINE"] * 3
        box.stop_controller()
        box.start_controller()
        rest = Rest(box)
        first = rest.ok("GET", "/v1/view/resources")[0]
        assert ("state" in first, "device_path" in first["volumes"][0]) == (False, False)
        assert error_code(rest("POST", f"{RD}/autoplace", {"select_filter": {"place_count": 3}})[1]) == 996
        assert seen(lambda: connections(rest)[0], "ONLINE") == ["OFFLINE", "CONNECTED", "ONLINE"]
        assert rest.ok("GET", "/v1/view/resources")[0]["state"] == {"in_use": False}


def test_a_node_that_is_down_does_not_come_back_with_the_controller(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, connect_seconds=0.2) as box:
        box.set_node("node2", online=False)
        box.stop_controller()
        box.start_controller()
        rest = Rest(box)
        assert seen(lambda: connections(rest), ["ONLINE", "OFFLINE", "ONLINE"])[-1] == ["ONLINE", "OFFLINE", "ONLINE"]
        box.set_node("node2", online=True)
        assert seen(lambda: connections(rest)[1], "ONLINE") == ["OFFLINE", "CONNECTED", "ONLINE"]


def test_a_node_that_goes_down_on_its_way_up_stays_down(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, connect_seconds=0.1) as box:
        rest = Rest(box)
        box.set_node("node2", online=False)
        box.set_node("node2", online=True)
        box.set_node("node2", online=False)
        time.sleep(0.2)
        assert connections(rest)[1] == "OFFLINE"


def test_a_deleted_definition_stays_while_a_node_is_away(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, connect_seconds=0.2) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        box.set_node("node2", online=False)
        assert 1002 in low_codes(rest.ok("DELETE", RD))

        def flags() -> list[list[str]]:
            return [found.get("flags", []) for found in rest.ok("GET", "/v1/resource-definitions")]

        assert flags() == [["DELETE"]]
        box.set_node("node2", online=True)
        assert seen(flags, []) == [[["DELETE"]], []]


def test_in_use_lags_behind_the_last_close(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, in_use_lag=0.4) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        box.close(box.open("node1", "vol"))
        assert error_code(rest("DELETE", RD)[1]) == 997
        assert seen(lambda: rest("DELETE", RD)[0], 200) == [500, 200]


def test_every_request_takes_its_latency(tmp_path: Path) -> None:
    with Sandbox(tmp_path, latency=0.05) as box:
        rest = Rest(box)
        for _ in range(2):
            rest.ok("GET", "/v1/nodes")
        assert all(request.milliseconds >= 50 for request in box.requests)


def test_satellites_do_one_change_after_the_other(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=POOLS, satellite_seconds=0.1) as box:
        Rest(box).group("group")
        threads = [threading.Thread(target=Rest(box).spawn, args=(f"vol{number}",)) for number in range(3)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started >= 0.3
        assert len(box.cluster.definitions) == 3


def test_a_connection_that_is_idle_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.Handler.timeout == 30
    monkeypatch.setattr(server.Handler, "timeout", 0.1)
    with Sandbox(tmp_path) as box, socket.create_connection(("127.0.0.1", box.port), timeout=20) as connection:
        assert connection.recv(1) == b""


def test_satellites_take_the_recorded_times_where_they_work_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_times, "SECONDS", ((r"POST .*/snapshots", 0.2), (r"DELETE .*", 0.1)))
    with Sandbox(tmp_path, pools=POOLS, recorded_times=True) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        names = ("first", "second", "third")
        threads = [threading.Thread(target=Rest(box).ok, args=("POST", f"{RD}/snapshots", {"name": n})) for n in names]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started >= 0.6, "snapshots of one source come one after the other"
        for _ in range(2):
            rest.ok("DELETE", f"{RD}/snapshots/first")
        gone, absent = (request.milliseconds for request in box.requests[-2:])
        assert gone >= 100 > absent
