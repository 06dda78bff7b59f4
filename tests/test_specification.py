"""What the driver asks and what the sandbox answers, beside LINSTOR's OpenAPI description."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from linstor_sandbox import Exchange, Pool, Sandbox
from linstor_sandbox.conformance.recordings import scenarios
from linstor_sandbox.conformance.scenes import SCENES
from linstor_sandbox.conformance.stage import Stage
from tests import specification

pytestmark = pytest.mark.skipif(specification.MISSING is not None, reason=str(specification.MISSING))

SPAWN = "/v1/resource-groups/group/spawn"
BODY = {"resource_definition_name": "rd", "volume_sizes": [65536]}
TYPES = {"nodes": {"type": "SATELLITE"}}
ENTRIES = [{"ret_code": 20185089, "message": "created", "created_at": "2026-11-22T12:11:54Z"}]


def fresh(rest_version: str = "1.27.0") -> Callable[[Exchange], list[str]]:
    """A check that has seen nothing yet."""
    specification.specification.cache_clear()
    return specification.specification(rest_version).check


def test_an_exchange_as_described_is_allowed() -> None:
    assert fresh()(Exchange("POST", SPAWN, BODY, 201, ENTRIES)) == []


@pytest.mark.parametrize(
    ("body", "answer", "problem"),
    [
        ({**BODY, "volume_size": 1}, ENTRIES, "'volume_size' was unexpected"),
        ({**BODY, "volume_sizes": ["65536"]}, ENTRIES, "request at volume_sizes.0: '65536' is not of type 'integer'"),
        (BODY, {"message": "created"}, "is not of type 'array'"),
        (BODY, [{**ENTRIES[0], "ret_code": "1"}], "answer at 0.ret_code: '1' is not of type 'integer'"),
        (BODY, [{**ENTRIES[0], "text": ""}], "'text' was unexpected"),
    ],
)
def test_what_is_not_described_is_found(body: Any, answer: Any, problem: str) -> None:
    found = fresh()(Exchange("POST", SPAWN, body, 201, answer))
    assert len(found) == 1
    assert problem in found[0]


def test_what_is_asked_in_the_path_is_found() -> None:
    check = fresh()
    path = "/v1/resource-definitions/rd/resources/n1"
    assert check(Exchange("DELETE", path, None, 200, ENTRIES, {"keep_tiebreaker": ["true"]})) == []
    assert "keep_tiebraker" in check(Exchange("DELETE", path, None, 200, ENTRIES, {"keep_tiebraker": ["true"]}))[0]
    assert check(Exchange("GET", "/v1/view/resources", None, 200, [], {"nodes": ["n1"], "limit": ["1"]})) == []
    assert "no body is described" in check(Exchange("DELETE", path, {"force": True}, 200, ENTRIES))[0]


def test_a_value_that_is_not_enumerated_is_found_after_one_that_is() -> None:
    check, path = fresh(), "/v1/nodes/n1/storage-pools"
    for kind, problems in (("LVM", 0), ("LWM", 1), ("ZFS", 0)):
        body = {"storage_pool_name": "data", "provider_kind": kind}
        assert len(check(Exchange("POST", path, body, 201, ENTRIES))) == problems


@pytest.mark.parametrize("kind", ["nodes", "resource-definitions", "resource-groups"])
def test_a_single_object_is_one_of_its_list(kind: str) -> None:
    check, missing = fresh(), [{"ret_code": -4611686018425815058, "message": "not found"}]
    assert check(Exchange("GET", f"/v1/{kind}/x", None, 200, {"name": "x", **TYPES.get(kind, {})})) == []
    assert check(Exchange("GET", f"/v1/{kind}/x", None, 404, missing)) == []
    assert check(Exchange("GET", f"/v1/{kind}/x", None, 200, {"name": "x", "nonsense": 1})) != []
    assert check(Exchange("GET", f"/v1/{kind[:-2]}/x", None, 404, missing)) != []


def test_unknown_paths_and_methods_are_found() -> None:
    check = fresh()
    assert "no such method" in check(Exchange("PUT", SPAWN, None, 200, None))[0]
    assert "no such method" in check(Exchange("GET", "/v1/nosuch", None, 200, []))[0]


@pytest.mark.skipif(not scenarios(), reason="no recorded exchanges")
def test_what_the_sandbox_answers_to_the_recorded_requests_is_described(tmp_path: Path) -> None:
    """And the excuses are no wider than the real controller needs."""
    check = fresh()
    found: list[str] = []
    for name, exchanges in scenarios().items():
        scene = SCENES[name[:2]]
        with Sandbox(tmp_path / name, (), ()) as sandbox:
            sandbox.witness = lambda exchange: found.extend(check(exchange))
            stage = Stage(sandbox)
            for exchange in exchanges:
                stage.do(scene.before.get(0, []) if exchange is exchanges[0] else [])
                stage.do(scene.before.get(exchange.number, []) if exchange.number else [])
                if exchange.method and exchange.number not in scene.left_out:
                    stage.exchange(exchange)
    # What was recorded to be wrong.
    asked = (" request", "405", "/v1/nosuch ")
    assert "\n".join(text for text in found if not any(word in text for word in asked)) == ""


@pytest.mark.parametrize("rest_version", ["1.23.0", "1.27.0", "1.28.0", "1.29.1"])
def test_a_whole_life_is_described_in_every_version(make_world: Any, rest_version: str) -> None:
    """Images, VMs, snapshots, deletion: make_world fails for anything that is not."""
    world = make_world(pools=(Pool("data", "LVM_THIN", 4096),), rest_version=rest_version)
    requests = world.sandbox.requests
    image = world.cloud.create_image(world.images, world.file("image.raw", b"image" * 10000), persistent=False)
    vm = world.cloud.instantiate(
        f"DISK=[IMAGE_ID={image.identifier}] DISK=[TYPE=fs,FORMAT=raw,FS=ext4,SIZE=16]", "node1", world.system
    )
    world.cloud.migrate_cold(vm, "node2")
    world.cloud.resize_disk(vm, vm.disk(0), 96)
    world.cloud.terminate(vm)
    world.cloud.monitor(world.images)
    world.cloud.delete_image(image)
    assert {request.method for request in requests} >= {"GET", "POST", "PUT", "DELETE"}
