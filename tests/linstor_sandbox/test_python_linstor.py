"""python-linstor cannot tell the sandbox from a controller."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import linstor
import pytest

from linstor_sandbox import Sandbox

from .rest import Rest


def uri(box: Sandbox) -> str:
    return box.uri.replace("http://", "linstor://")


@pytest.fixture
def lin(box: Sandbox, rest: Rest) -> linstor.Linstor:
    client = linstor.Linstor(uri(box), timeout=5)
    client.connect()
    return client


def succeeded(answers: list[linstor.responses.ApiCallResponse]) -> bool:
    return bool(linstor.Linstor.all_api_responses_no_error(answers))


def test_versions_nodes_and_pools(lin: linstor.Linstor) -> None:
    assert lin.controller_version().rest_api_version == "1.27.0"
    assert [(node.name, node.connection_status) for node in lin.node_list_raise().nodes] == [
        ("node1", "ONLINE"),
        ("node2", "ONLINE"),
        ("node3", "ONLINE"),
    ]
    pools = lin.storage_pool_list_raise(filter_by_stor_pools=["data"]).storage_pools
    assert [(pool.node_name, pool.provider_kind, pool.free_space.free_capacity) for pool in pools] == [
        (node, "LVM_THIN", 4 << 20) for node in ("node1", "node2", "node3")
    ]


def test_a_volume_from_spawn_to_delete(box: Sandbox, lin: linstor.Linstor) -> None:
    assert succeeded(lin.resource_group_spawn("group", "vol", [64 * 1024]))
    assert succeeded(lin.resource_make_available("node3", "vol"))
    assert succeeded(lin.volume_dfn_modify("vol", 0, size=128 * 1024))
    assert succeeded(lin.snapshot_create([], "vol", "snap", False))
    assert succeeded(lin.resource_dfn_modify("vol", {"Aux/one/VM_ID": "7"}, []))
    listed = lin.resource_dfn_list_raise(query_volume_definitions=True, filter_by_props=["Aux/one/VM_ID=7"])
    assert [
        (rd.name, rd.volume_definitions[0].size, rd.volume_definitions[0].drbd_data.minor)
        for rd in listed.resource_definitions
    ] == [("vol", 128 * 1024, 1000)]
    assert lin.resource_dfn_delete("vol")[0].is_error(514)
    assert succeeded(lin.snapshot_rollback("vol", "snap"))
    assert succeeded(lin.snapshot_delete("vol", "snap"))
    assert succeeded(lin.resource_delete("node3", "vol", keep_tiebreaker=True))
    assert succeeded(lin.resource_dfn_delete("vol"))
    assert lin.resource_dfn_delete("vol")[0].is_warning()
    assert list((box.root / "volumes").iterdir()) == []


def test_restore_into_another_definition(box: Sandbox, lin: linstor.Linstor) -> None:
    lin.resource_group_spawn("group", "image", [64 * 1024])
    box.write("image", b"golden")
    lin.resource_dfn_modify("image", {"Aux/owner": "image"}, [])
    assert succeeded(lin.snapshot_create([], "image", "base", False))
    lin.resource_dfn_modify("image", {"Aux/owner": "changed"}, [])
    assert succeeded(lin.resource_dfn_create("clone", None, resource_group="group"))
    lin.resource_dfn_modify("clone", {"Aux/owner": "clone", "Aux/own": "kept"}, [])
    assert succeeded(lin.snapshot_volume_definition_restore("image", "base", "clone"))
    assert succeeded(lin.snapshot_resource_restore([], "image", "base", "clone"))
    assert box.read("clone", 0, 6) == b"golden"
    props = lin.resource_dfn_list_raise(filter_by_resource_definitions=["clone"]).resource_definitions[0].properties
    assert (props["Aux/owner"], props["Aux/own"]) == ("image", "kept")


def test_clone_and_its_status(box: Sandbox, lin: linstor.Linstor) -> None:
    lin.resource_group_spawn("group", "image", [64 * 1024])
    box.write("image", b"golden")
    started = lin.resource_dfn_clone("image", "copy", property_dict={"Aux/a": "b"})
    assert not any(message.is_error() for message in started.messages)
    assert lin.resource_dfn_clone_wait_complete("image", "copy", wait_interval=0.01, timeout=5)
    assert box.read("copy", 0, 6) == b"golden"


def test_high_level_classes(box: Sandbox, rest: Rest) -> None:
    resource = linstor.Resource.from_resource_group(uri(box), "group", "high", ["64MiB"])
    assert resource.diskful_nodes() == ["node1", "node2"]
    assert resource.is_diskless("node3") and resource.is_thin()
    assert (resource.volumes[0].device_path, resource.volumes[0].minor) == ("/dev/drbd1000", 1000)
    resource.activate("node3")
    resource.allow_two_primaries = True
    resource.snapshot_create("first")
    resource.restore_from_snapshot("first", "restored")
    resource.clone("cloned", use_zfs_clone=False)
    resource.deactivate("node3")
    assert rest.flags("high")["node3"] == {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER"}
    resource.deactivate("node3")
    assert "node3" not in rest.flags("high")
    assert rest.props("high")["DrbdOptions/auto-add-quorum-tiebreaker"] == "False"
    resource.delete()
    assert [rd["name"] for rd in rest.ok("GET", "/v1/resource-definitions")] == ["cloned", "restored"]


def test_key_value_store(box: Sandbox, lin: linstor.Linstor) -> None:
    store = linstor.KV("one", uri=uri(box))
    store["a/b"] = "c"
    assert linstor.KV("one", uri=uri(box))["a/b"] == "c"


def test_an_older_controller_refuses_locally(box: Sandbox, lin: linstor.Linstor) -> None:
    with pytest.raises(linstor.LinstorError, match=r"1\.29"):
        lin.resource_unmake_available("node1", "vol")


def test_several_controllers_of_which_one_answers(box: Sandbox, rest: Rest) -> None:
    """MultiLinstor finds the active one, before and after the other has taken over."""
    rest.spawn("vol")
    uris = linstor.MultiLinstor.controller_uri_list(box.uris.replace("http://", "linstor://"))
    for _ in range(2):
        with linstor.MultiLinstor(uris, timeout=5) as client:
            assert [found.name for found in client.resource_dfn_list()[0].resource_definitions] == ["vol"]
        box.fail_over()


def test_several_fail_overs_at_once_end_at_one_address(box: Sandbox) -> None:
    addresses = set(box.uris.split(","))
    with ThreadPoolExecutor(4) as pool:
        for over in [pool.submit(box.fail_over) for _ in range(9)]:
            over.result()
    assert box.uri in addresses and set(box.uris.split(",")) == addresses
    with linstor.Linstor(uri(box), timeout=5) as client:
        assert succeeded(client.resource_dfn_create("vol"))
