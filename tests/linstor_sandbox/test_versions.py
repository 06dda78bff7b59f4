"""What the REST versions 1.19, 1.23, 1.27, 1.28 and 1.29.1 have in common, and what not.

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

VERSIONS = ("1.19.0", "1.23.0", "1.27.0", "1.28.0", "1.29.1")
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
    *((version, "LVM_THIN", version in ("1.19.0", "1.23.0")) for version in VERSIONS),
    *((version, "ZFS", version != "1.25.0") for version in ("1.23.0", "1.25.0", "1.26.0", "1.27.0")),
]


@contextmanager
def cluster(folder: Path, version: str, kind: str = "LVM_THIN") -> Iterator[tuple[Sandbox, Rest]]:
    with Sandbox(folder, NODES, (Pool("data", kind, 4096, NODES[:3]),), version) as sandbox:
        rest = Rest(sandbox)
        rest.group("group")
        yield sandbox, rest
        assert sandbox.exceptions == []


@pytest.mark.parametrize("version", ["1.18.0", "1.29.2", "2.0.0", "newest"])
def test_other_versions_are_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ValueError, match=f"REST version {version} is not between 1.19.0 and 1.29.1"):
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
