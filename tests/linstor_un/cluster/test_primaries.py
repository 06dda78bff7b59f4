"""Two primaries: allowed between two nodes and nowhere else, and all of it taken back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_un import log
from linstor_un.cluster import primaries, replicas
from linstor_un.cluster.gateway import Gateway
from linstor_un.errors import ControllerFailed
from linstor_un.settings import for_datastore

# Not as OpenNebula has them: LINSTOR does not distinguish the case of a name.
NODES = ("Node1", "Node2", "Node3", "Node4", "Node5")
DISK, OTHER = "One-VM-1-Disk-0", "one-vm-2-disk-0"
ALLOWED = {"DrbdOptions/Net/allow-two-primaries": "yes", "DrbdOptions/Net/protocol": "C"}
FOREIGN = {"DrbdOptions/Net/max-buffers": "8000"}


@pytest.fixture
def sandbox(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Replicas are on the first two nodes, the tie-breaker is on one of the others, and all have the volume."""
    rest_version = getattr(request, "param", "1.27.0")
    with Sandbox(tmp_path / "box", NODES, (Pool("data", "LVM_THIN", 1000, NODES[:2]),), rest_version) as box:
        yield box
        assert box.exceptions == []


@pytest.fixture
def gateway(sandbox: Sandbox) -> Iterator[Gateway]:
    log.start("test/primaries")
    made = Gateway(for_datastore({}, {"LS_CONTROLLERS": sandbox.uri}, "datastore 1"))
    made.create_resource_group({"name": "two", "select_filter": {"place_count": 2, "storage_pool_list": ["data"]}})
    for name in (DISK, OTHER):
        made.spawn("two", {"resource_definition_name": name, "volume_sizes": [4096]})
        for node in NODES[2:]:
            made.make_available(name, node)
    yield made
    made.close()


def allowed(sandbox: Sandbox, name: str = DISK) -> dict[str, dict[str, str]]:
    """What is set for pairs of nodes, and for `all` of them."""
    definition = sandbox.snapshot_of_state()["resource_definitions"][name]
    everywhere = {key: value for key, value in definition["props"].items() if key.startswith("DrbdOptions/Net/")}
    found = {pair.lower(): props for pair, props in definition["connections"].items()}
    return {**found, **({"all": everywhere} if everywhere else {})}


def allow(gateway: Gateway, source: str, target: str, name: str = DISK) -> None:
    primaries.allow(gateway, name, replicas.of(gateway, name), source, target)


def forbid(gateway: Gateway, left: str, stays: str, name: str = DISK) -> None:
    primaries.forbid(gateway, name, replicas.of(gateway, name), left, stays)


def changes(sandbox: Sandbox) -> list[str]:
    return [f"{request.method} {request.path}" for request in sandbox.requests if request.method != "GET"]


def warnings() -> list[str]:
    return [line for line in log.lines() if line.startswith("WARN")]


@pytest.mark.parametrize(
    ("source", "target", "where"),
    [
        ("node1", "node2", "node1/node2"),
        ("node1", "node4", "node1/node4"),
        ("Node5", "Node2", "node2/node5"),
        # DRBD connects no two nodes without a replica.
        ("Node4", "node5", "all"),
    ],
)
def test_both_hosts_may_be_primary_until_it_is_taken_back(
    gateway: Gateway, sandbox: Sandbox, source: str, target: str, where: str
) -> None:
    for _ in range(2):
        allow(gateway, source, target)
        assert allowed(sandbox) == {where: ALLOWED}
        assert log.lines()[-1].endswith(f"{DISK} may be primary on {source} and {target}")
    assert warnings() == []
    for _ in range(2):
        forbid(gateway, source, target)
        assert allowed(sandbox) == {}
    assert allowed(sandbox, OTHER) == {}


def test_a_volume_may_be_on_the_two_hosts_alone(gateway: Gateway, sandbox: Sandbox) -> None:
    name = "one-vm-3-disk-0"
    gateway.create_resource_group({"name": "one", "select_filter": {"place_count": 1, "node_name_list": ["Node1"]}})
    gateway.spawn("one", {"resource_definition_name": name, "volume_sizes": [4096]})
    gateway.make_available(name, "Node4")
    allow(gateway, "node1", "node4", name)
    assert allowed(sandbox, name) == {"node1/node4": ALLOWED}
    forbid(gateway, "node1", "node4", name)
    assert allowed(sandbox, name) == {}


def test_what_others_have_set_stays(gateway: Gateway, sandbox: Sandbox) -> None:
    gateway.modify_resource_definition(DISK, FOREIGN)
    for node in ("Node2", "Node4"):
        gateway.modify_connection(DISK, "Node1", node, FOREIGN)
    before = allowed(sandbox)
    for source, target in (("node1", "node4"), ("node4", "node5")):
        allow(gateway, source, target)
        forbid(gateway, target, source)
        assert allowed(sandbox) == before
    assert warnings() == []


def test_other_pairs_that_were_left_are_taken_back(gateway: Gateway, sandbox: Sandbox) -> None:
    gateway.modify_connection(DISK, "Node1", "Node3", FOREIGN)
    for target in ("Node2", "Node3"):
        gateway.modify_connection(DISK, "Node1", target, ALLOWED)
    allow(gateway, "node1", "node4")
    assert allowed(sandbox) == {"node1/node4": ALLOWED, "node1/node3": FOREIGN}
    assert len(warnings()) == 2
    assert f"{DISK} was still allowed to be primary on Node1 and Node2: it no longer is" in "\n".join(warnings())


def test_that_other_pairs_cannot_be_looked_for_is_said(gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.faults.fail("GET .*/resource-connections", 998)
    with pytest.raises(ControllerFailed, match=f"Looking for connections of {DISK} failed"):
        allow(gateway, "node1", "node4")
    assert allowed(sandbox) == {}


@pytest.mark.parametrize(("left", "stays"), [("node4", "node5"), ("node5", "node4"), ("node4", "node1")])
def test_nothing_is_asked_for_a_node_that_has_lost_the_volume(
    gateway: Gateway, sandbox: Sandbox, left: str, stays: str
) -> None:
    gateway.delete_resource(DISK, "Node4")
    sandbox.clear_requests()
    forbid(gateway, left, stays)
    assert changes(sandbox) == []


def test_what_an_earlier_migration_has_left_for_all_nodes_is_taken_back(gateway: Gateway, sandbox: Sandbox) -> None:
    for name in (DISK, OTHER):
        gateway.modify_resource_definition(name, {**ALLOWED, **FOREIGN})
    primaries.forget_earlier(gateway, ["one-vm-1-DISK-0", "one-vm-3-disk-0"])
    assert allowed(sandbox) == {"all": FOREIGN}
    assert allowed(sandbox, OTHER) == {"all": {**ALLOWED, **FOREIGN}}
    assert len(warnings()) == 1
    assert warnings()[0].endswith(f"{DISK} was still allowed to be primary on all nodes: it no longer is")


def test_all_that_was_left_is_taken_back_from_a_volume_that_outlives_its_vm(gateway: Gateway, sandbox: Sandbox) -> None:
    for name in (DISK, OTHER):
        gateway.modify_resource_definition(name, {**ALLOWED, **FOREIGN})
        gateway.modify_connection(name, "Node1", "Node3", ALLOWED)
    primaries.forget(gateway, DISK)
    assert allowed(sandbox) == {"all": FOREIGN}
    assert allowed(sandbox, OTHER) == {"node1/node3": ALLOWED, "all": {**ALLOWED, **FOREIGN}}


def test_a_volume_that_is_not_there_is_allowed_nothing(gateway: Gateway) -> None:
    assert primaries.allowed_pairs(gateway, "one-vm-9-disk-0") == []


@pytest.mark.parametrize("sandbox", ["1.29.1"], indirect=True)
def test_where_linstor_manages_it_nothing_is_looked_for(gateway: Gateway, sandbox: Sandbox) -> None:
    assert gateway.manages_two_primaries
    sandbox.clear_requests()
    primaries.forget(gateway, DISK)
    assert sandbox.requests == []


@pytest.mark.parametrize("sandbox", ["1.29.1"], indirect=True)
def test_where_linstor_manages_it_the_node_is_left(gateway: Gateway, sandbox: Sandbox) -> None:
    assert gateway.manages_two_primaries
    gateway.delete_resource(DISK, "Node4")
    gateway.make_available(DISK, "Node1", for_migration=True)
    gateway.make_available(DISK, "Node4", for_migration=True)
    primaries.leave(gateway, DISK, "Node4")
    assert "Node4" not in {replica.node for replica in replicas.of(gateway, DISK)}
    assert allowed(sandbox) == {}
