"""Thousands of volumes at once, and lists of them that are kept from call to call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

from linstor_sandbox import Pool, Sandbox
from linstor_sandbox.seeding import seed
from linstor_sandbox.serialized import FROM

from .rest import Rest, error_code

NODES = tuple(f"node{number}" for number in range(5))
RD = "/v1/resource-definitions/one-image-7"
LISTS = ("/v1/resource-definitions", "/v1/view/resources", "/v1/view/snapshots")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """One image more than what is described anew for every list."""
    with Sandbox(tmp_path_factory.mktemp("large"), NODES, (Pool("data", size_mib=1 << 20),)) as sandbox:
        seed(sandbox, FROM + 1, size_kib=65536)
        yield Rest(sandbox, timeout=30)
        assert sandbox.exceptions == []


def one(rest: Rest, target: str) -> list[dict[str, Any]]:
    return [found for found in rest.ok("GET", target) if found.get("resource_name", found["name"]) == "one-image-7"]


def test_seeded_volumes_are_like_others(large: Rest) -> None:
    assert [len(large.ok("GET", target)) for target in LISTS] == [FROM + 1, 3 * (FROM + 1), FROM + 1]
    resource, snapshot = one(large, "/v1/view/resources")[0], one(large, "/v1/view/snapshots")[0]
    assert resource["volumes"][0]["state"]["disk_state"] == "UpToDate"
    assert (snapshot["flags"], len(snapshot["snapshots"])) == (["SUCCESSFUL"], 3)


def test_seeded_volumes_come_to_life_when_used(large: Rest) -> None:
    box, name = large.sandbox, "one-image-9"
    large.ok("POST", f"/v1/resource-definitions/{name}/resources/node4/make-available", {})
    box.write(name, b"data")
    assert box.read(name, 0, 4) == b"data"
    large.ok("POST", f"/v1/resource-definitions/{name}/snapshot-rollback/snap")
    assert box.read(name, 0, 4) == b"\0" * 4
    large.ok("DELETE", f"/v1/resource-definitions/{name}/snapshots/snap")
    large.ok("DELETE", f"/v1/resource-definitions/{name}")


@pytest.mark.parametrize(
    ("target", "change"),
    [
        (LISTS[0], lambda rest: rest.ok("PUT", RD, {"override_props": {"Aux/a": "b"}})),
        (
            f"{LISTS[0]}?with_volume_definitions=true",
            lambda rest: rest.ok("PUT", f"{RD}/volume-definitions/0", {"size_kib": 131072}),
        ),
        (LISTS[1], lambda rest: rest.sandbox.open("node2", "one-image-7")),
        (LISTS[1], lambda rest: rest.sandbox.set_disk_state("one-image-7", "node2", "Inconsistent")),
        (LISTS[1], lambda rest: rest.sandbox.set_node("node3", online=False)),
        (LISTS[1], lambda rest: rest.sandbox.set_node("node3", online=True)),
        (LISTS[2], lambda rest: rest.ok("DELETE", f"{RD}/snapshots/snap")),
    ],
)
def test_a_list_that_is_kept_shows_every_change(large: Rest, target: str, change: Callable[[Rest], Any]) -> None:
    large.ok("GET", target)
    before = one(large, target)
    change(large)
    assert one(large, target) != before
    assert one(large, target) == one(large, target)


def test_a_deleted_name_that_is_made_again_is_not_the_old_one(large: Rest) -> None:
    path = "/v1/resource-definitions/one-image-11"
    large.ok("GET", LISTS[1])
    large.ok("DELETE", f"{path}/snapshots/snap")
    large.ok("DELETE", path)
    body = {"resource_definition_name": "one-image-11", "volume_sizes": [4096], "select_filter": {"place_count": 1}}
    assert error_code(large("POST", "/v1/resource-groups/DfltRscGrp/spawn", body)[1]) is None
    found = large.ok("GET", "/v1/view/resources", query="resources=one-image-11")
    assert len(found) == 1
