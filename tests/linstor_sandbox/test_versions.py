"""What the REST versions 1.19, 1.23, 1.27, 1.28 and 1.29.1 have in common, and what not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.model import version_tuple

from .rest import Rest, low_codes

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


@contextmanager
def cluster(folder: Path, version: str) -> Iterator[tuple[Sandbox, Rest]]:
    with Sandbox(folder, NODES, (Pool("data", "LVM_THIN", 4096, NODES[:3]),), version) as sandbox:
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
