"""Bytes, sizes and pools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from linstor_sandbox import OLD_DATA, Pool, Sandbox
from linstor_sandbox.autoplacer import greedy_capacity
from linstor_sandbox.storage import MIB, Store

from .rest import Rest, error_code, low_codes

MIB64 = 65536
NODES = ("node1", "node2", "node3")
RD = "/v1/resource-definitions"


def test_a_thin_volume_reads_zero_and_takes_no_space(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    assert box.device_size("vol") == 71249920
    assert box.read("vol") == bytes(71249920)
    assert box.allocated("vol") == 0


def test_a_thick_volume_is_full_of_old_data(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", group="fat")
    data = box.read("vol")
    assert data.startswith(OLD_DATA)
    assert bytes(4096) not in data


def test_a_thin_pool_that_does_not_zero_shows_old_data(tmp_path: Path) -> None:
    with Sandbox(tmp_path, pools=(Pool("data", zeroes=False),)) as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        end = box.device_size("vol")
        assert box.read("vol", 0, 4096) == OLD_DATA
        # What is copied of a volume has its zeroes.
        box.write("vol", bytes(end))
        rest.ok("POST", f"{RD}/vol/clone", {"name": "copy"})
        assert box.read("copy", 0, end) == bytes(end)


def test_growing_a_thick_volume_shows_old_data_beyond_the_end(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", group="fat")
    end = box.device_size("vol")
    box.write("vol", bytes(end))
    rest.ok("PUT", "/v1/resource-definitions/vol/volume-definitions/0", {"size_kib": 2 * MIB64})
    assert box.read("vol", 0, end) == bytes(end)
    assert box.read("vol", end, 4096) != bytes(4096)


def test_snapshots_keep_bytes_and_rollback_brings_them_back(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol")
    box.write("vol", b"one", 8 * MIB)
    rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "first"})
    box.write("vol", b"two", 8 * MIB)
    rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "second"})
    rest.ok("PUT", "/v1/resource-definitions/vol/volume-definitions/0", {"size_kib": 2 * MIB64})
    rest.ok("POST", "/v1/resource-definitions/vol/snapshot-rollback/first", {})
    assert box.read("vol", 8 * MIB, 3) == b"one"
    assert box.device_size("vol") == 71249920
    rest.ok("POST", "/v1/resource-definitions/vol/snapshot-rollback/second", {})
    assert box.read("vol", 8 * MIB, 3) == b"two"
    assert box.allocated("vol") <= MIB


def test_rollback_puts_properties_back_and_keeps_newer_ones(rest: Rest) -> None:
    rest.spawn("vol", resource_definition_props={"Aux/a": "old"})
    rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "snap"})
    rest.ok("PUT", "/v1/resource-definitions/vol", {"override_props": {"Aux/a": "new", "Aux/b": "new"}})
    rest.ok("POST", "/v1/resource-definitions/vol/snapshot-rollback/snap", {})
    props = rest.props("vol")
    assert (props["Aux/a"], props["Aux/b"]) == ("old", "new")


def test_several_resources_at_one_instant_or_none(box: Sandbox, rest: Rest) -> None:
    rest.spawn("one")
    rest.spawn("two")
    both = [{"resource_name": name, "name": "snap"} for name in ("one", "two")]
    rest.ok("POST", "/v1/actions/snapshot/multi", {"snapshots": both})
    again = [{"resource_name": "one", "name": "next"}, {"resource_name": "two", "name": "snap"}]
    status, answer = rest("POST", "/v1/actions/snapshot/multi", {"snapshots": again})
    assert (status, error_code(answer)) == (500, 514)
    assert [snap["name"] for snap in rest.ok("GET", "/v1/view/snapshots")] == ["snap", "snap"]


def test_clone_is_independent_of_its_source(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", resource_definition_props={"Aux/a": "1", "Aux/b": "1"})
    box.write("vol", b"golden")
    answer = rest.ok(
        "POST",
        "/v1/resource-definitions/vol/clone",
        {"name": "copy", "override_props": {"Aux/a": "2"}, "delete_props": ["Aux/b"]},
    )
    assert answer["location"] == "/v1/resource-definitions/vol/clone/copy"
    box.write("vol", b"edited")
    rest.ok("DELETE", "/v1/resource-definitions/vol")
    assert box.read("copy", 0, 6) == b"golden"
    props = rest.props("copy")
    assert (props["Aux/a"], props.get("Aux/b"), props["cloned-from"]) == ("2", None, "vol")


def test_clone_on_a_thick_pool_takes_a_while(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", group="fat")
    rest.ok("POST", "/v1/resource-definitions/vol/clone", {"name": "copy"})
    polls = [rest.ok("GET", "/v1/resource-definitions/vol/clone/copy")["status"] for _ in range(2)]
    assert polls == ["CLONING", "COMPLETE"]
    assert box.read("copy") == box.read("vol")


def test_a_larger_clone_since_1_29_1(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "new", rest_version="1.29.1") as box:
        rest = Rest(box)
        rest.group("group")
        rest.spawn("vol")
        box.write("vol", b"golden")
        rest.ok("POST", "/v1/resource-definitions/vol/clone", {"name": "copy", "volume_sizes": [2 * MIB64]})
        assert box.read("copy", 0, 6) == b"golden"
        assert box.device_size("copy") > 2 * MIB64 * 1024
        rest.ok("DELETE", "/v1/resource-definitions/copy")


def test_thick_pools_count_sizes_thin_pools_count_blocks(box: Sandbox, rest: Rest) -> None:
    def free(pool: str) -> int:
        found = rest.ok("GET", "/v1/view/storage-pools", query=f"storage_pools={pool}&nodes=node1")
        return int(found[0]["free_capacity"])

    rest.spawn("fat1", group="fat")
    rest.spawn("thin1")
    assert free("thick") == 1024 * 1024 - 69632
    assert free("data") == 4096 * 1024
    box.write("thin1", b"x" * MIB)
    assert free("data") == 4095 * 1024
    rest.ok("POST", "/v1/resource-definitions/thin1/clone", {"name": "thin2"})
    assert free("data") == 4095 * 1024
    for name in ("fat1", "thin1", "thin2"):
        rest.ok("DELETE", f"/v1/resource-definitions/{name}")
    assert (free("thick"), free("data")) == (1024 * 1024, 4096 * 1024)


def test_a_full_pool_refuses(box: Sandbox, rest: Rest) -> None:
    box.fill_pool("node1", "thick", free_mib=32)
    box.fill_pool("node2", "thick", free_mib=32)
    status, answer = rest(
        "POST", "/v1/resource-groups/fat/spawn", {"resource_definition_name": "vol", "volume_sizes": [MIB64]}
    )
    assert (status, error_code(answer)) == (500, 996)
    assert rest("GET", "/v1/resource-definitions/vol")[0] == 404
    rest.ok("POST", "/v1/resource-definitions", {"resource_definition": {"name": "vol"}})
    rest.ok("POST", "/v1/resource-definitions/vol/volume-definitions", {"volume_definition": {"size_kib": MIB64}})
    status, answer = rest(
        "POST",
        "/v1/resource-definitions/vol/resources",
        [{"resource": {"node_name": "node1", "props": {"StorPoolName": "thick"}}}],
    )
    assert (status, error_code(answer)) == (500, 206)


def test_growing_beyond_a_thick_pool_is_refused_a_thin_one_lets_it(rest: Rest) -> None:
    rest.spawn("fat1", group="fat")
    rest.spawn("thin1")
    path = "/v1/resource-definitions/{}/volume-definitions/0"
    status, answer = rest("PUT", path.format("fat1"), {"size_kib": 2 << 20})
    assert (status, error_code(answer)) == (500, 980)
    assert rest("PUT", path.format("thin1"), {"size_kib": 1 << 30})[0] == 200
    status, answer = rest(
        "POST", "/v1/resource-groups/group/spawn", {"resource_definition_name": "next", "volume_sizes": [MIB64]}
    )
    assert error_code(answer) in (None, 996)
    assert rest("PUT", path.format("thin1"), {"size_kib": MIB64})[0] == 500


def test_without_drbd_the_device_is_the_pools_own(box: Sandbox, rest: Rest) -> None:
    rest.group("plain", "data", place_count=1, layer_stack=["STORAGE"])
    rest.spawn("vol", group="plain")
    resource = rest.ok("GET", "/v1/view/resources")[0]
    assert resource["volumes"][0]["device_path"] == "/dev/vg_data/vol_00000"
    assert (box.host("node1") / "dev/vg_data/vol_00000").stat().st_size == MIB64 * 1024
    rest.ok("DELETE", "/v1/resource-definitions/vol")
    assert not (box.host("node1") / "dev/vg_data").exists()


def test_the_layers_of_the_group_are_deployed(rest: Rest) -> None:
    """Encryption asked for on the definition is lost where the group says otherwise."""
    rest.ok("POST", "/v1/encryption/passphrase", {"new_passphrase": "secret"})
    rest.group("named", layer_stack=["DRBD", "STORAGE"])
    for name, group in (("lost", "named"), ("kept", "group")):
        layers = [{"type": layer} for layer in ("DRBD", "LUKS", "STORAGE")]
        body = {"resource_definition": {"name": name, "layer_data": layers, "resource_group_name": group}}
        rest.ok("POST", "/v1/resource-definitions", body)
        path = f"/v1/resource-definitions/{name}"
        rest.ok("POST", f"{path}/volume-definitions", {"volume_definition": {"size_kib": 4096}})
        rest.ok("POST", f"{path}/autoplace", {"select_filter": {"place_count": 1}})
    below = {res["name"]: res["layer_object"]["children"][0]["type"] for res in rest.ok("GET", "/v1/view/resources")}
    assert below == {"lost": "STORAGE", "kept": "LUKS"}


def test_encryption_needs_the_passphrase(rest: Rest) -> None:
    rest.group("luks", layer_stack=["DRBD", "LUKS", "STORAGE"])
    body = {"resource_definition_name": "vol", "volume_sizes": [MIB64]}
    status, answer = rest("POST", "/v1/resource-groups/luks/spawn", body)
    assert (status, error_code(answer)) == (500, 998)
    rest.ok("POST", "/v1/encryption/passphrase", {"new_passphrase": "secret"})
    rest.ok("POST", "/v1/resource-groups/luks/spawn", body)


def test_zfs_devices_lie_below_zvol(box: Sandbox, rest: Rest) -> None:
    rest.group("zfs", "zdata", place_count=1, layer_stack=["STORAGE"])
    rest.spawn("vol", group="zfs")
    assert (box.host("node1") / "dev/zvol/zp_zdata/vol_00000").exists()


def test_capacity_is_as_greedy_as_linstors(rest: Rest) -> None:
    assert greedy_capacity([64, 64, 64], 2) == 64
    assert greedy_capacity([100, 10, 10], 2) == 20
    info = rest.ok("POST", "/v1/resource-groups/group/query-size-info", {})["space_info"]
    assert info["available_size_in_kib"] == 4096 * 1024
    assert info["max_vlm_size_in_kib"] == 20 * 4096 * 1024
    assert len(info["next_spawn_result"]) == 2


def test_offline_nodes_have_no_capacity(box: Sandbox, rest: Rest) -> None:
    box.set_node("node2", online=False)
    found = rest.ok("GET", "/v1/view/storage-pools", query="storage_pools=data")
    assert ["free_capacity" in pool for pool in found] == [True, False, True]
    assert found[1]["reports"][0]["ret_code"] == -9223372036854774806


def test_nodes_are_restricted_not_preferred(rest: Rest) -> None:
    answer = rest.spawn("vol", select_filter={"node_name_list": ["node3", "node1"]})
    assert {"Node/0": "node1", "Node/1": "node3"}.items() <= next(
        entry["obj_refs"] for entry in answer if "Node/0" in entry.get("obj_refs", {})
    ).items()
    status, answer = rest(
        "POST",
        "/v1/resource-groups/group/spawn",
        {"resource_definition_name": "next", "volume_sizes": [MIB64], "select_filter": {"node_name_list": ["node3"]}},
    )
    assert (status, error_code(answer)) == (500, 996)


def test_spawn_leaves_nothing_when_the_name_exists(rest: Rest) -> None:
    rest.spawn("vol")
    status, answer = rest(
        "POST", "/v1/resource-groups/group/spawn", {"resource_definition_name": "VOL", "volume_sizes": [MIB64]}
    )
    assert (status, error_code(answer)) == (500, 501)


def test_snapshots_are_refused_on_thick_lvm_until_1_29(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", group="fat")
    status, answer = rest("POST", "/v1/resource-definitions/vol/snapshots", {"name": "snap"})
    assert (status, error_code(answer)) == (500, 994)
    box.cluster.version = "1.29.0"
    assert low_codes(rest.ok("POST", "/v1/resource-definitions/vol/snapshots", {"name": "snap"})) >= {1, 3}


def free_kib(rest: Rest, pool: str) -> int:
    """What is free in a pool on the first node."""
    return int(rest.ok("GET", "/v1/nodes/node1/storage-pools/" + pool)["free_capacity"])


def restore(rest: Rest, name: str, group: str) -> tuple[int, Any]:
    """A restore of vol's snapshot."""
    rest.ok("POST", RD, {"resource_definition": {"name": name, "resource_group_name": group}})
    rest.ok("POST", f"{RD}/vol/snapshot-restore-volume-definition/snap", {"to_resource": name})
    return rest("POST", f"{RD}/vol/snapshot-restore-resource/snap", {"to_resource": name})


def test_copies_in_a_thin_pool_take_what_is_different_in_them(box: Sandbox, rest: Rest) -> None:
    rest.spawn("vol", select_filter={"place_count": 3})
    total = free_kib(rest, "data")
    box.write("vol", b"a" * (8 * MIB))
    assert free_kib(rest, "data") == total - 8192
    rest.ok("POST", f"{RD}/vol/snapshots", {"name": "snap"})
    assert free_kib(rest, "data") == total - 8192
    box.write("vol", b"b" * (4 * MIB))
    assert free_kib(rest, "data") == total - 12288
    assert restore(rest, "copy", "group")[0] == 200
    assert free_kib(rest, "data") == total - 12288
    rest.ok("DELETE", f"{RD}/vol/snapshots/snap")
    assert free_kib(rest, "data") == total - 12288
    rest.ok("DELETE", f"{RD}/vol")
    assert free_kib(rest, "data") == total - 8192
    rest.ok("DELETE", f"{RD}/copy")
    assert free_kib(rest, "data") == total


def test_a_snapshot_of_a_thick_volume_sets_its_size_aside(tmp_path: Path) -> None:
    with Sandbox(tmp_path, NODES, (Pool("thick", "LVM", 200),), "1.29.1") as sandbox:
        rest = Rest(sandbox)
        rest.group("fat", "thick", place_count=3)
        rest.spawn("vol", group="fat")
        assert free_kib(rest, "thick") == 200 * 1024 - 69632
        rest.ok("POST", f"{RD}/vol/snapshots", {"name": "snap"})
        assert free_kib(rest, "thick") == 200 * 1024 - 2 * 69632
        assert [error_code(restore(rest, "copy", "fat")[1]), rest.flags("copy").keys()] == [998, set(NODES)]
        status, answer = rest("POST", f"{RD}/vol/snapshots", {"name": "next"})
        assert (status, error_code(answer)) == (500, 998)
        assert rest.ok("GET", f"{RD}/vol/snapshots/next")["flags"] == ["FAILED_DEPLOYMENT"]
        for name in ("snap", "next"):
            rest.ok("DELETE", f"{RD}/vol/snapshots/{name}")
        assert free_kib(rest, "thick") == 200 * 1024 - 69632


def test_a_snapshot_of_a_thick_zvol_sets_aside_what_may_be_overwritten(tmp_path: Path) -> None:
    with Sandbox(tmp_path, NODES, (Pool("tank", "ZFS", 100),)) as sandbox:
        rest = Rest(sandbox)
        rest.group("zfs", "tank", place_count=3)
        rest.spawn("vol", group="zfs")
        before = free_kib(rest, "tank")
        sandbox.write("vol", b"a" * (24 * MIB))
        assert free_kib(rest, "tank") == before
        rest.ok("POST", f"{RD}/vol/snapshots", {"name": "snap"})
        assert free_kib(rest, "tank") == before - 24576
        assert error_code(rest("POST", f"{RD}/vol/snapshots", {"name": "next"})[1]) == 998


def test_a_clone_on_zfs_shares_blocks_only_when_it_is_asked_to(tmp_path: Path) -> None:
    with Sandbox(tmp_path, NODES, (Pool("tank", "ZFS_THIN", 100),)) as sandbox:
        rest = Rest(sandbox)
        rest.group("zfs", "tank", place_count=3)
        rest.spawn("vol", group="zfs")
        sandbox.write("vol", b"a" * (8 * MIB))
        before = free_kib(rest, "tank")
        rest.ok("POST", f"{RD}/vol/clone", {"name": "sent"})
        assert free_kib(rest, "tank") == before - 8192
        rest.ok("POST", f"{RD}/vol/clone", {"name": "cloned", "use_zfs_clone": True})
        assert free_kib(rest, "tank") == before - 8192


def test_copies_keep_holes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    origin = store.create("origin", 1 << 33, False)
    with origin.path.open("r+b") as file:
        file.seek(1 << 32)
        file.write(b"data")
    copy = store.copy(origin, "copy")
    with copy.path.open("rb") as file:
        file.seek(1 << 32)
        assert file.read(4) == b"data"
    assert copy.size == 1 << 33
    assert copy.allocated() < MIB


def test_kinds_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Pool data has kind NONE: use one of LVM"):
        Sandbox(tmp_path, pools=(Pool("data", "NONE"),))


def test_a_definition_with_its_volumes_in_one_body(rest: Rest) -> None:
    layers = [{"type": "DRBD", "data": {"peer_slots": 3, "port": 7777}}, {"type": "STORAGE"}]
    rest.ok(
        "POST",
        "/v1/resource-definitions",
        {
            "resource_definition": {
                "name": "vol",
                "layer_data": layers,
                "volume_definitions": [{"size_kib": MIB64}],
                "props": {"Aux/a": "b"},
            },
            "drbd_peer_slots": 3,
        },
    )
    found = rest.ok("GET", "/v1/resource-definitions", query="with_volume_definitions=true&resource_definitions=VOL")[0]
    assert found["volume_definitions"][0]["size_kib"] == MIB64
    assert found["layer_data"][0]["data"]["peer_slots"] == 3


@pytest.mark.parametrize(
    ("method", "what", "body", "code"),
    [
        ("PUT", "resources/node3/toggle-disk/diskful/thick", None, 206),
        ("POST", "resources/node3/make-available", {"diskful": True}, 310),
        ("POST", "autoplace", {"select_filter": {"place_count": 3}}, 996),
    ],
)
def test_a_disk_is_not_added_in_a_thick_pool_without_room(
    box: Sandbox, rest: Rest, method: str, what: str, body: Any, code: int
) -> None:
    rest.spawn("vol", group="fat")
    box.fill_pool("node3", "thick", 32)
    assert error_code(rest(method, f"{RD}/vol/{what}", body)[1]) == code
    assert "DISKLESS" in rest.flags("vol")["node3"]


def test_volumes_larger_than_a_file(box: Sandbox, rest: Rest) -> None:
    """Thin pools promise them; LINSTOR's largest is 1 PiB, which no file can be."""
    rest.spawn("vol")
    path = "/v1/resource-definitions/vol"
    box.write("vol", b"bytes")
    rest.ok("PUT", f"{path}/volume-definitions/0", {"size_kib": 1 << 40})
    assert box.device_size("vol") >= 1 << 50
    rest.ok("POST", f"{path}/snapshots", {"name": "snap"})
    rest.ok("POST", f"{path}/snapshot-rollback/snap", {})
    assert box.read("vol", 0, 5) == b"bytes"
    assert box.allocated("vol") < 1 << 20
