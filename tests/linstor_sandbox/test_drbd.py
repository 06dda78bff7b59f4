"""DRBD's rules: who may open, who votes, and what LINSTOR does about it."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.drbd import gross_size, metadata_size

from .rest import Rest, error_code, low_codes

TIE_BREAKER = {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER"}
DISKLESS = {"DISKLESS", "DRBD_DISKLESS"}


@pytest.mark.parametrize(("net", "gross"), [(65536, 65588), (102400, 102460), (1073741824, 1073971288)])
def test_meta_data_takes_what_was_seen(net: int, gross: int) -> None:
    assert gross_size(net, 7) == gross


def test_a_gibibyte_has_the_size_seen_on_real_kernels() -> None:
    volume = -(-gross_size(1 << 20, 7) // 4096) * 4096
    assert (volume - metadata_size(volume, 7)) * 1024 == 1077665792


def test_opening_for_writing_makes_primary(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    opened = box.open("node1", "vol", "w")
    resource = rest.ok("GET", "/v1/resource-definitions/vol/resources/node1")
    assert resource["state"] == {"in_use": True}
    box.close(opened)
    assert rest.ok("GET", "/v1/resource-definitions/vol/resources/node1")["state"] == {"in_use": False}


def test_reading_beside_a_primary_is_refused_at_once(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.open("node1", "vol", "w")
    started = time.monotonic()
    with pytest.raises(OSError) as refused:
        box.open("node2", "vol", "r")
    assert refused.value.errno == errno.EMEDIUMTYPE
    assert time.monotonic() - started < 0.1
    box.open("node1", "vol", "r")


def test_writing_beside_a_primary_waits_then_is_refused(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.open("node1", "vol", "w")
    started = time.monotonic()
    with pytest.raises(OSError) as refused:
        box.open("node2", "vol", "w")
    assert refused.value.errno == errno.EROFS
    assert time.monotonic() - started >= 0.2


def test_writing_succeeds_when_the_other_closes_in_time(box: Sandbox, rest: Rest) -> None:
    box.openings.promote_timeout = 2.0
    rest.spawn("vol")
    first = box.open("node1", "vol", "w")
    threading.Timer(0.1, box.close, [first]).start()
    started = time.monotonic()
    box.open("node2", "vol", "w")
    assert time.monotonic() - started < 1


def test_a_reader_elsewhere_keeps_others_from_becoming_primary(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    reader = box.open("node1", "vol", "r")
    with pytest.raises(OSError) as refused:
        box.open("node2", "vol", "w")
    assert refused.value.errno == errno.EROFS
    box.close(box.open("node1", "vol", "w"))
    box.openings.promote_timeout = 2.0
    threading.Timer(0.1, box.close, [reader]).start()
    box.open("node2", "vol", "w")


def test_two_diskless_nodes_are_not_connected_to_each_other(tmp_path: Path) -> None:
    with Sandbox(tmp_path, ("n1", "n2", "n3", "n4"), auto_promote_timeout=0.1) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol", select_filter={"node_name_list": ["n1", "n2"]})
        for node in ("n3", "n4"):
            rest.ok("POST", f"/v1/resource-definitions/vol/resources/{node}/make-available", {})
        box.open("n3", "vol", "r")
        box.open("n4", "vol", "w")


@pytest.mark.parametrize("path", ["", "/resources/node1"])
def test_what_is_open_for_reading_stays_deleting_until_it_is_closed(box: Sandbox, rest: Rest, path: str) -> None:
    """LINSTOR sees no Primary and begins; the satellite cannot take the device down."""
    rest.spawn("vol")
    reader = box.open("node1", "vol", "r")
    for _ in range(2):
        status, answer = rest("DELETE", f"/v1/resource-definitions/vol{path}")
        assert (status, error_code(answer)) == (500, 998)
        assert "DELETE" in rest.flags("vol")["node1"]
    box.close(reader)
    rest.ok("DELETE", f"/v1/resource-definitions/vol{path}")
    assert box.resource("vol", "node1") is None


def test_a_primary_that_has_lost_quorum_may_open_again(box: Sandbox, rest: Rest) -> None:
    """Only a Secondary is promoted; it is the writing that fails then."""
    rest.spawn("vol")
    box.open("node1", "vol", "w")
    for node in ("node2", "node3"):
        box.set_node(node, online=False)
    box.open("node1", "vol", "w")


@pytest.mark.parametrize("path", ["", "/resource-connections/node1/node3"])
def test_two_primaries_where_they_are_allowed(box: Sandbox, rest: Rest, path: str) -> None:
    rest.spawn("vol")
    rest.ok("POST", "/v1/resource-definitions/vol/resources/node3/make-available", {})
    box.open("node1", "vol", "w")
    key = "DrbdOptions/Net/allow-two-primaries"
    rest.ok("PUT", f"/v1/resource-definitions/vol{path}", {"override_props": {key: "yes"}})
    second = box.open("node3", "vol", "w")
    box.close(second)
    rest.ok("PUT", f"/v1/resource-definitions/vol{path}", {"delete_props": [key]})
    with pytest.raises(OSError):
        box.open("node3", "vol", "w")


def test_a_connection_does_not_allow_others(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    rest.ok(
        "PUT",
        "/v1/resource-definitions/vol/resource-connections/node1/node3",
        {"override_props": {"DrbdOptions/Net/allow-two-primaries": "yes"}},
    )
    box.open("node1", "vol", "w")
    with pytest.raises(OSError):
        box.open("node2", "vol", "w")


@pytest.mark.parametrize("path", ["", "/resources/node1"])
def test_nothing_that_is_open_is_deleted(box: Sandbox, rest: Rest, path: str) -> None:
    rest.spawn("vol")
    opened = box.open("node1", "vol", "w")
    status, answer = rest("DELETE", f"/v1/resource-definitions/vol{path}")
    assert (status, error_code(answer)) == (500, 997)
    box.close(opened)
    rest.ok("DELETE", f"/v1/resource-definitions/vol{path}")


def test_in_use_lags_behind_when_asked_to(box: Sandbox, rest: Rest) -> None:
    box.openings.in_use_lag = 0.2
    rest.spawn("vol")
    box.close(box.open("node1", "vol", "w"))
    assert rest("DELETE", "/v1/resource-definitions/vol")[0] == 500
    time.sleep(0.25)
    assert rest("DELETE", "/v1/resource-definitions/vol")[0] == 200


def test_one_replica_has_no_quorum_and_no_tie_breaker(rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 1})
    assert rest.flags("vol") == {"node1": set()}
    assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "off"


def test_two_replicas_have_a_tie_breaker_and_quorum(rest: Rest) -> None:
    rest.spawn("vol")
    assert rest.flags("vol") == {"node1": set(), "node2": set(), "node3": TIE_BREAKER}
    assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "majority"


def test_attach_and_detach_on_the_tie_breakers_node(rest: Rest) -> None:
    rest.spawn("vol")
    answer = rest.ok("POST", "/v1/resource-definitions/vol/resources/node3/make-available", {})
    assert low_codes(answer) == {0}
    assert rest.flags("vol")["node3"] == DISKLESS
    for _ in range(2):
        rest.ok("DELETE", "/v1/resource-definitions/vol/resources/node3", query="keep_tiebreaker=true")
        assert rest.flags("vol")["node3"] == TIE_BREAKER


def test_deleting_the_tie_breaker_disables_it_for_ever(rest: Rest) -> None:
    rest.spawn("vol")
    answer = rest.ok("DELETE", "/v1/resource-definitions/vol/resources/node3")
    assert low_codes(answer) >= {10002, 10004, 10005}
    assert "node3" not in rest.flags("vol")
    assert rest.props("vol")["DrbdOptions/auto-add-quorum-tiebreaker"] == "False"
    assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "off"
    rest.ok("PUT", "/v1/resource-definitions/vol", {"delete_props": ["DrbdOptions/auto-add-quorum-tiebreaker"]})
    assert rest.flags("vol")["node3"] == TIE_BREAKER


@pytest.fixture
def four(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "four", ("n1", "n2", "n3", "n4"), (Pool("data", nodes=("n1", "n2", "n3")),))


@pytest.mark.parametrize(
    ("version", "during"),
    [
        ("1.27.0", {"n4": DISKLESS}),
        ("1.28.0", {"n3": TIE_BREAKER, "n4": {*DISKLESS, "DRBD_CLIENT"}}),
    ],
)
def test_a_fourth_node_and_the_tie_breaker(four: Sandbox, version: str, during: dict[str, set[str]]) -> None:
    """Below REST 1.28 a client votes and replaces the tie-breaker; since then it does not."""
    four.cluster.version = version
    with four:
        rest = Rest(four)
        rest.group("group")
        rest.spawn("vol")
        rest.ok("POST", "/v1/resource-definitions/vol/resources/n4/make-available", {})
        assert rest.flags("vol") == {"n1": set(), "n2": set(), **during}
        rest.ok("DELETE", "/v1/resource-definitions/vol/resources/n4", query="keep_tiebreaker=true")
        flags = rest.flags("vol")
        assert sorted(len(one) for one in flags.values()) == [0, 0, 3]
        assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "majority"


def test_the_last_replica_stays_while_it_has_users(rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 1})
    rest.ok("POST", "/v1/resource-definitions/vol/resources/node2/make-available", {})
    status, answer = rest("DELETE", "/v1/resource-definitions/vol/resources/node1")
    assert (status, error_code(answer)) == (500, 997)


def test_a_third_replica_that_goes_becomes_the_tie_breaker(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 3})
    box.write("vol", b"bytes")
    answer = rest.ok("DELETE", "/v1/resource-definitions/vol/resources/node3")
    assert 10006 in low_codes(answer)
    assert rest.flags("vol")["node3"] == TIE_BREAKER
    assert box.read("vol", 0, 5) == b"bytes"


def test_without_quorum_nobody_writes(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.set_node("node2", online=False)
    box.close(box.open("node1", "vol", "w"))
    box.set_node("node3", online=False)
    with pytest.raises(OSError) as refused:
        box.open("node1", "vol", "w")
    assert refused.value.errno == errno.EROFS


def test_a_host_that_lost_its_power_is_primary_no_more(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.open("node1", "vol", "w")
    box.set_node("node1", online=False)
    box.open("node2", "vol", "w")


def test_dual_primary_managed_by_the_controller(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "new", rest_version="1.29.0", auto_promote_timeout=0.1) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        box.open("node1", "vol", "w")
        rest.ok(
            "POST", "/v1/resource-definitions/vol/resources/node2/make-available", {"auto_manage_dual_primary": True}
        )
        box.close(box.open("node2", "vol", "w"))
        rest.ok("POST", "/v1/resource-definitions/vol/resources/node2/unmake-available")
        with pytest.raises(OSError):
            box.open("node2", "vol", "w")
        assert rest.flags("vol")["node2"] == set()


def test_a_new_replica_syncs_first(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "slow", sync_seconds=0.3) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        rest.ok("POST", "/v1/resource-definitions/vol/resources/node3/make-available", {"diskful": True})
        assert rest.ok("GET", "/v1/resource-definitions/vol/sync-status") == {"synced_on_all": False}
        status, answer = rest("PUT", "/v1/resource-definitions/vol/volume-definitions/0", {"size_kib": 131072})
        assert (status, error_code(answer)) == (500, 974)
        time.sleep(0.35)
        rest.ok("PUT", "/v1/resource-definitions/vol/volume-definitions/0", {"size_kib": 131072})


def test_a_replica_has_a_slot_for_every_other_replica(tmp_path: Path) -> None:
    with Sandbox(tmp_path, tuple(f"n{number}" for number in range(1, 6))) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol", peer_slots=2)
        path = "/v1/resource-definitions/vol"
        rest.ok("POST", f"{path}/resources/n3/make-available", {"diskful": True})
        replica = [{"resource": {"node_name": "n4", "props": {"StorPoolName": "data"}}}]
        for way, body in (
            ("/resources/n4/make-available", {"diskful": True}),
            ("/autoplace", {"select_filter": {"place_count": 4}}),
            ("/resources", replica),
        ):
            assert error_code(rest("POST", path + way, body)[1]) == 993, way
        rest.ok("POST", f"{path}/resources/n4/make-available", {})
        assert error_code(rest("PUT", f"{path}/resources/n4/toggle-disk/diskful/data")[1]) == 993
        assert {node for node, flags in rest.flags("vol").items() if not flags} == {"n1", "n2", "n3"}


def test_replicas_in_pools_of_different_kinds(box: Sandbox, rest: Rest) -> None:
    """Thick LVM beside thin is mixing, thick ZFS beside thin is not."""
    rest.spawn("vol", select_filter={"place_count": 1})
    path = "/v1/resource-definitions/vol"
    for pool in ("thick", "zdata"):
        replica = [{"resource": {"node_name": "node2", "props": {"StorPoolName": pool}}}]
        assert error_code(rest("POST", f"{path}/resources", replica)[1]) == 221
    rest.ok("PUT", path, {"override_props": {"AllowMixingStoragePools": "true"}})
    rest.ok("POST", f"{path}/resources", replica)
    box.cluster.add_pool(box.cluster.nodes["node3"], "zthick", "ZFS", 1 << 20)
    rest.group("zgroup", "zdata")
    rest.spawn("zvol", group="zgroup", select_filter={"place_count": 1})
    replica = [{"resource": {"node_name": "node3", "props": {"StorPoolName": "zthick"}}}]
    rest.ok("POST", "/v1/resource-definitions/zvol/resources", replica)
