"""What the REST versions 1.13, 1.16, 1.19, 1.23, 1.27, 1.28 and 1.29.1 have in common, and what not.

What a controller does follows its release: REST 1.24 is LINSTOR 1.30, 1.25 is 1.31, 1.26 is 1.32, 1.27 is 1.33.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.model import version_tuple

from .rest import Rest, error_code, low_codes

VERSIONS = ("1.16.0", "1.19.0", "1.23.0", "1.27.0", "1.28.0", "1.29.1")
NODES = ("n1", "n2", "n3", "n4")
RD = "/v1/resource-definitions/vol"
SPAWN = "/v1/resource-groups/group/spawn"
BODY = {"resource_definition_name": "vol", "volume_sizes": [65536]}
# Method, path, body with the key that is new, since which version.
NEW_KEYS: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", SPAWN, {**BODY, "resource_definition_props": {"Aux/a": "b"}}, "1.22.0"),
    ("POST", SPAWN, {**BODY, "select_filter": {"x_replicas_on_different_map": {"Aux/a": 2}}}, "1.23.0"),
    ("POST", f"{RD}/snapshots", {"name": "snap", "snapshot_definition_props": {"Aux/a": "b"}}, "1.24.0"),
    ("POST", f"{RD}/snapshot-rollback/snap", {"zfs_rollback_strategy": "dynamic"}, "1.26.0"),
    ("POST", f"{RD}/resources/n4/make-available", {"drbd_client": True}, "1.28.0"),
    ("POST", f"{RD}/resources/n4/make-available", {"auto_manage_dual_primary": True}, "1.29.0"),
]


IN_PLACE = [
    *((version, "LVM_THIN", version_tuple(version) < (1, 25)) for version in VERSIONS),
    *((version, "ZFS", version != "1.25.0") for version in ("1.23.0", "1.25.0", "1.26.0", "1.27.0")),
]


@contextmanager
def cluster(folder: Path, version: str, kind: str = "LVM_THIN") -> Iterator[tuple[Sandbox, Rest]]:
    with Sandbox(folder, NODES, (Pool("data", kind, 4096, NODES[:3]),), version) as sandbox:
        rest = Rest(sandbox)
        rest.group("group")
        yield sandbox, rest
        assert sandbox.exceptions == []


@pytest.mark.parametrize("version", ["1.12.0", "1.29.2", "2.0.0", "newest"])
def test_other_versions_are_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match=f"REST version {version} is not between 1.13.0 and 1.29.1"):
        Sandbox(tmp_path, rest_version=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_newer_than_the_version_is_an_error(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        for method, path, body, since in NEW_KEYS:
            answer = rest(method, path, body)[1]
            refused = answer[0]["message"] == "Unable to parse input json."
            assert refused == (version_tuple(version) < version_tuple(since)), (path, since)


@pytest.mark.parametrize("version", VERSIONS)
def test_paths_come_with_their_version(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        for method, path, since in (
            ("POST", f"{RD}/resources/n4/unmake-available", "1.29.0"),
            ("GET", "/v1/encryption/passphrase", "1.25.0"),
            ("PUT", f"{RD}/resources/n1/toggle-disk", "1.28.0"),
        ):
            known = rest(method, path, {} if method != "GET" else None)[0] not in (404, 405)
            assert known == (version_tuple(version) >= version_tuple(since)), path


@pytest.mark.parametrize(("version", "is_there"), [("1.17.0", False), ("1.18.0", True)])
def test_snapshots_are_taken_together_from_1_18(tmp_path: Path, version: str, is_there: bool) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        body = {"snapshots": [{"resource_name": "vol", "name": "snap"}]}
        assert (rest("POST", "/v1/actions/snapshot/multi", body)[0] == 201) is is_there


@pytest.mark.parametrize(("version", "assumes"), [("1.15.0", False), ("1.16.0", True)])
def test_a_spawn_from_a_group_without_volume_groups_is_partial_from_1_16(
    tmp_path: Path, version: str, assumes: bool
) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.ok("POST", "/v1/resource-groups", {"name": "bare", "select_filter": {"place_count": 2}})
        path = SPAWN.replace("group/", "bare/")
        assert error_code(rest("POST", path, BODY)[1]) == (None if assumes else 228)
        rest.ok("POST", path, {**BODY, "resource_definition_name": "other", "partial": True})


@pytest.mark.parametrize(("version", "is_told"), [("1.20.0", False), ("1.21.0", True)])
def test_an_answer_says_where_a_volume_is_from_1_21(tmp_path: Path, version: str, is_told: bool) -> None:
    with cluster(tmp_path, version) as (_, rest):
        answer = rest.ok("POST", SPAWN, BODY)
        assert any("Node/0" in entry.get("obj_refs", {}) for entry in answer) is is_told


@pytest.mark.parametrize(("version", "is_known"), [("1.20.0", False), ("1.21.0", True)])
def test_the_property_against_balancing_is_known_from_1_21(tmp_path: Path, version: str, is_known: bool) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        answer = rest("PUT", RD, {"override_props": {"BalanceResourcesEnabled": "false"}})[1]
        assert error_code(answer) == (None if is_known else 213)


@pytest.mark.parametrize(("version", "is_dropped"), [("1.18.0", False), ("1.19.0", True)])
def test_a_tie_breaker_that_is_made_available_stays_one_before_1_19(
    tmp_path: Path, version: str, is_dropped: bool
) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        answer = rest.ok("POST", f"{RD}/resources/n3/make-available", {})
        assert "already deployed" in answer[-1]["message"]
        assert ("TIE_BREAKER" not in rest.flags("vol")["n3"]) is is_dropped
        rest.ok(
            "POST", f"{RD}/resources", [{"resource": {"name": "vol", "node_name": "n3", "flags": ["DRBD_DISKLESS"]}}]
        )
        assert "TIE_BREAKER" not in rest.flags("vol")["n3"]


@pytest.mark.parametrize(("version", "code"), [("1.21.0", 995), ("1.22.0", None)])
def test_attaching_beside_a_node_that_is_offline_fails_and_is_done_before_1_22(
    tmp_path: Path, version: str, code: Optional[int]
) -> None:
    with cluster(tmp_path, version) as (sandbox, rest):
        rest.spawn("vol", select_filter={"node_name_list": ["n1", "n2"]})
        sandbox.set_node("n2", online=False)
        assert error_code(rest("POST", f"{RD}/resources/n4/make-available", {})[1]) == code
        assert "n4" in rest.flags("vol")


@pytest.mark.parametrize("version", VERSIONS)
def test_fields_come_with_their_version(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        rest.ok("POST", f"{RD}/snapshots", {"name": "snap"})
        resource = rest.ok("GET", "/v1/view/resources")[0]
        snapshot = rest.ok("GET", f"{RD}/snapshots/snap")
        numbers = version_tuple(version)
        assert ("snapshot_definition_props" in snapshot) == (numbers >= (1, 24))
        assert ("replication_states" in resource["volumes"][0]["state"]) == (numbers >= (1, 25))
        assert ("tcp_ports" in resource["layer_object"]["drbd"]) == (numbers >= (1, 26))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tie_breaker_gives_way_to_a_diskless_resource_that_votes(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        assert rest.flags("vol")["n3"] >= {"TIE_BREAKER"}
        rest.ok("POST", f"{RD}/resources/n4/make-available", {})
        flags = rest.flags("vol")
        if version_tuple(version) < (1, 28):
            assert (set(flags), flags["n4"]) == ({"n1", "n2", "n4"}, {"DISKLESS", "DRBD_DISKLESS"})
        else:
            assert flags["n4"] == {"DISKLESS", "DRBD_DISKLESS", "DRBD_CLIENT"}
            assert flags["n3"] >= {"TIE_BREAKER"}
        assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "majority"


@pytest.mark.parametrize("version", VERSIONS)
def test_keep_tiebreaker_is_heeded_from_1_23(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        rest.ok("DELETE", f"{RD}/resources/n3", query="keep_tiebreaker=true")
        kept = "n3" in rest.flags("vol")
        assert kept == (version_tuple(version) >= (1, 23))
        assert (rest.props("vol").get("DrbdOptions/auto-add-quorum-tiebreaker") == "False") == (not kept)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_of_a_clone_has_the_status_of_one_from_1_27(tmp_path: Path, version: str) -> None:
    with cluster(tmp_path, version) as (_, rest):
        rest.spawn("vol")
        status, answer = rest("POST", f"{RD}/clone", {"name": "vol"})
        assert 501 in low_codes(answer)
        assert status == (500 if version_tuple(version) >= (1, 27) else 201)


@pytest.mark.parametrize(("version", "marked"), [("1.23.0", False), ("1.26.0", True), ("1.27.0", False)])
def test_a_definition_in_use_is_marked_by_some_releases(tmp_path: Path, version: str, marked: bool) -> None:
    with cluster(tmp_path, version) as (sandbox, rest):
        rest.spawn("vol")
        sandbox.open("n1", "vol")
        assert error_code(rest("DELETE", RD)[1]) == 997
        assert rest.ok("GET", RD).get("flags", []) == (["DELETE"] if marked else [])


@pytest.mark.parametrize(("version", "kind", "in_place"), IN_PLACE)
def test_a_rollback_goes_in_place_or_by_a_restore(tmp_path: Path, version: str, kind: str, in_place: bool) -> None:
    with cluster(tmp_path, version, kind) as (sandbox, rest):
        rest.spawn("vol", select_filter={"node_name_list": ["n1", "n2"]})
        sandbox.write("vol", b"early")
        rest.ok("POST", f"{RD}/snapshots", {"name": "snap"})
        sandbox.write("vol", b"later")
        before = [found["uuid"] for found in rest.ok("GET", f"{RD}/resources")]
        answer = rest.ok("POST", f"{RD}/snapshot-rollback/snap", {})
        assert sandbox.read("vol", 0, 5) == b"early"
        assert any("safety-snap" in entry["message"] for entry in answer) != in_place
        assert ("TIE_BREAKER" in rest.flags("vol")["n3"]) == in_place
        assert ([found["uuid"] for found in rest.ok("GET", f"{RD}/resources")] == before) == in_place
        free = sandbox.cluster.nodes["n1"].pools["data"].free()
        sandbox.write("vol", b"later")
        assert sandbox.read("vol", 0, 5) == b"later"
        assert sandbox.cluster.nodes["n1"].pools["data"].free() <= free


@pytest.mark.parametrize(
    ("version", "kind", "body", "code"),
    [
        ("1.23.0", "LVM_THIN", {}, 514),
        ("1.25.0", "LVM_THIN", {}, None),
        ("1.25.0", "ZFS", {}, None),
        ("1.27.0", "ZFS", {}, None),
        ("1.27.0", "ZFS", {"zfs_rollback_strategy": "rollback"}, 977),
        ("1.27.0", "LVM_THIN", {"zfs_rollback_strategy": "rollback"}, None),
    ],
)
def test_a_rollback_to_an_older_snapshot(
    tmp_path: Path, version: str, kind: str, body: dict[str, str], code: Optional[int]
) -> None:
    with cluster(tmp_path, version, kind) as (sandbox, rest):
        rest.spawn("vol")
        for name in ("older", "newer"):
            rest.ok("POST", f"{RD}/snapshots", {"name": name})
        sandbox.write("vol", b"later")
        assert error_code(rest("POST", f"{RD}/snapshot-rollback/older", body)[1]) == code
        assert sandbox.read("vol", 0, 5) == (b"later" if code else bytes(5))
        assert {found["name"] for found in rest.ok("GET", f"{RD}/snapshots")} == {"older", "newer"}


def test_a_rollback_in_place_needs_the_snapshot_on_every_replica_and_nobody_who_reads(tmp_path: Path) -> None:
    with cluster(tmp_path, "1.23.0") as (sandbox, rest):
        rest.spawn("vol")
        rest.ok("POST", f"{RD}/snapshots", {"name": "snap", "nodes": ["n1"]})
        assert error_code(rest("POST", f"{RD}/snapshot-rollback/snap", {})[1]) == 315
        rest.ok("POST", f"{RD}/snapshots", {"name": "both"})
        sandbox.write("vol", b"later")
        reader = sandbox.open("n3", "vol", "r")
        assert error_code(rest("POST", f"{RD}/snapshot-rollback/both", {})[1]) == 998
        assert sandbox.read("vol", 0, 5) == b"later"
        sandbox.close(reader)
        rest.ok("POST", f"{RD}/snapshot-rollback/both", {})
        assert sandbox.read("vol", 0, 5) == bytes(5)


@pytest.mark.parametrize(
    ("version", "kind", "refused"),
    [("1.23.0", "ZFS_THIN", True), ("1.23.0", "LVM_THIN", False), ("1.27.0", "ZFS_THIN", False)],
)
def test_a_snapshot_that_something_was_restored_from(tmp_path: Path, version: str, kind: str, refused: bool) -> None:
    with cluster(tmp_path, version, kind) as (_, rest):
        rest.spawn("vol")
        rest.ok("POST", f"{RD}/snapshots", {"name": "snap"})
        rest.ok("POST", "/v1/resource-definitions", {"resource_definition": {"name": "child"}})
        for what in ("volume-definition", "resource"):
            rest.ok("POST", f"{RD}/snapshot-restore-{what}/snap", {"to_resource": "child"})
        assert error_code(rest("DELETE", f"{RD}/snapshots/snap")[1]) == (998 if refused else None)
        assert [found["flags"] for found in rest.ok("GET", f"{RD}/snapshots")] == [["DELETE", "SUCCESSFUL"]] * refused
        rest.ok("DELETE", "/v1/resource-definitions/child")
        rest.ok("DELETE", f"{RD}/snapshots/snap")
        rest.ok("DELETE", RD)


def test_a_thick_volume_with_snapshots_does_not_grow(tmp_path: Path) -> None:
    with cluster(tmp_path, "1.29.1", "LVM") as (_, rest):
        rest.spawn("vol")
        rest.ok("POST", f"{RD}/snapshots", {"name": "snap"})
        assert rest("PUT", f"{RD}/volume-definitions/0", {"size_kib": 131072})[0] == 500
        assert rest.ok("GET", f"{RD}/volume-definitions/0")["size_kib"] == 65536
        rest.ok("DELETE", f"{RD}/snapshots/snap")
        rest.ok("PUT", f"{RD}/volume-definitions/0", {"size_kib": 131072})


def test_a_client_has_no_vote(tmp_path: Path) -> None:
    """Two replicas and a client are two votes: without one of them there is no quorum to have."""
    with cluster(tmp_path, "1.28.0") as (sandbox, rest):
        rest.ok(
            "POST", "/v1/controller/properties", {"override_props": {"DrbdOptions/auto-add-quorum-tiebreaker": "no"}}
        )
        rest.spawn("vol")
        rest.ok("POST", f"{RD}/resources/n4/make-available", {})
        assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "off"
        rest.ok("POST", f"{RD}/resources/n3/make-available", {"drbd_client": False})
        assert rest.props("vol")["DrbdOptions/Resource/quorum"] == "majority"


def test_two_primaries_by_themselves_from_1_29(tmp_path: Path) -> None:
    """On while both may be Primary, and taken back by unmake-available, which never takes a replica."""
    with cluster(tmp_path, "1.29.1") as (sandbox, rest):
        rest.spawn("vol")
        source = sandbox.open("n1", "vol")
        rest.ok("POST", f"{RD}/resources/n4/make-available", {"auto_manage_dual_primary": True})
        target = sandbox.open("n4", "vol")
        sandbox.close(source)
        sandbox.close(target)
        assert rest.ok("GET", f"{RD}/resource-connections/n1/n4")["props"]
        rest.ok("POST", f"{RD}/resources/n1/unmake-available")
        assert "props" not in rest.ok("GET", f"{RD}/resource-connections/n1/n4")
        rest.ok("POST", f"{RD}/resources/n4/unmake-available")
        assert set(rest.flags("vol")) == {"n1", "n2", "n3"}


@pytest.mark.parametrize(("version", "usable"), [("1.16.0", 65536), ("1.17.0", 69580), ("1.27.0", 69580)])
def test_how_long_a_device_of_drbd_is_is_told_from_1_17(tmp_path: Path, version: str, usable: int) -> None:
    """LINSTOR 1.21: before it what was asked for is told, whatever the pool has made of it."""
    with cluster(tmp_path, version) as (sandbox, rest):
        rest.spawn("vol")
        found = rest.ok("GET", f"{RD}/resources/n1")["layer_object"]
        assert found["drbd"]["drbd_volumes"][0]["usable_size_kib"] == usable
        assert found["children"][0]["storage"]["storage_volumes"][0]["usable_size_kib"] == 69632
        assert sandbox.device_size("vol") == 71249920
