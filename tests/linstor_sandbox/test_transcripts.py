"""The recorded exchanges with a real controller, played against the sandbox: same statuses, same return codes."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Union

import pytest

from linstor_sandbox import Opening, Pool, Sandbox

from .rest import Rest, codes, entries

RECORDED = Path(__file__).resolve().parents[3] / "shared" / "linstor-transcripts"
NODES = ("n1", "n2", "n3", "n4")
POOLS = (Pool("thin", "FILE_THIN", 20416, NODES), Pool("fat", "FILE", 20416, NODES[:3]),
         Pool("thinpool", "LVM_THIN", 14336, NODES[:3]), Pool("thick", "LVM", 18432, NODES[:2]))
# What the recording's loop devices report between two calls; a sandbox has nothing to report there.
NOISE = {0x12C0003, 0x22C0003}

Step = Union[tuple[Any, ...], Callable[["Replay"], None]]


class Replay:
    """A sandbox like the recorded cluster, and what was done to it between the recorded exchanges."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.rest = Rest(sandbox)
        self.held: dict[tuple[str, str], Opening] = {}

    def prepare(self) -> None:
        for node, site in zip(NODES, "aabb"):
            self.rest.ok("PUT", f"/v1/nodes/{node}", {"override_props": {"Aux/site": site}})
        self.rest.group("rg1", "thinpool", layer_stack=["DRBD", "STORAGE"])

    def do(self, steps: list[Step]) -> None:
        for step in steps:
            if callable(step):
                step(self)
            else:
                self.rest.ok(*step)

    def exchange(self, request: dict[str, Any]) -> tuple[int, Any]:
        body = request.get("body")
        raw = body.encode() if isinstance(body, str) else body
        return self.rest(request["method"], request["path"], raw, request.get("query") or "")


def define(name: str, size: int = 65536, group: str = "rg1") -> list[Step]:
    body = {"resource_definition": {"name": name, "resource_group_name": group}}
    return [("POST", "/v1/resource-definitions", body),
            ("POST", f"/v1/resource-definitions/{name}/volume-definitions", {"volume_definition": {"size_kib": size}})]


def place(name: str, **select: Any) -> list[Step]:
    return [("POST", f"/v1/resource-definitions/{name}/autoplace", {"select_filter": select} if select else {})]


def both(name: str, group: str = "rg1", **select: Any) -> list[Step]:
    return [*define(name, group=group), *place(name, **select)]


def available(name: str, node: str) -> list[Step]:
    return [("POST", f"/v1/resource-definitions/{name}/resources/{node}/make-available", {})]


def delete(*names: str) -> list[Step]:
    return [("DELETE", f"/v1/resource-definitions/{name}") for name in names]


def hold(name: str, node: str) -> Step:
    def step(replay: Replay) -> None:
        replay.held[name, node] = replay.sandbox.open(node, name)

    return step


def release(name: str, node: str) -> Step:
    return lambda replay: replay.sandbox.close(replay.held.pop((name, node)))


def write(name: str, data: bytes) -> Step:
    return lambda replay: replay.sandbox.write(name, data)


def holds(name: str, data: bytes) -> Step:
    def step(replay: Replay) -> None:
        assert replay.sandbox.read(name, 0, len(data)) == data

    return step


def broken(operation: str, *nodes: str) -> Step:
    def step(replay: Replay) -> None:
        for node in nodes:
            replay.sandbox.break_satellite(node, operation)

    return step


def satellite(node: str, online: bool) -> Step:
    return lambda replay: replay.sandbox.set_node(node, online, satellite_only=True)


def disk_state(name: str, node: str, state: Any) -> Step:
    return lambda replay: replay.sandbox.set_disk_state(name, node, state)


def restore_volumes(name: str, source: str, snapshot: str) -> list[Step]:
    path = f"/v1/resource-definitions/{source}/snapshot-restore-volume-definition/{snapshot}"
    return [define(name)[0], ("POST", path, {"to_resource": name})]


PLACED = [f"p{letter}" for letter in "123456789acdefghijk"] + ["pb", "pc2"]
BEFORE: dict[str, dict[int, list[Step]]] = {
    "02": {},
    "03": {62: [broken("clone", "n1")]},
    "04": {20: define("q1", 32768, "DfltRscGrp"),
           54: [step for name in PLACED for step in define(name, 32768, "DfltRscGrp")], 96: delete(*PLACED)},
    "05": {1: define("r1"), 17: define("r2"), 19: [*delete("r1", "r2"), *both("m1", place_count=1)],
           29: [*delete("m1"), *both("m2")], 38: [*delete("m2"), *both("u1"), hold("u1", "n1")],
           48: [release("u1", "n1")], 71: [*delete("u1"), *both("l1", place_count=1), *available("l1", "n4")],
           73: [*delete("l1"), *both("z1")], 85: [hold("z1", "n1")], 89: [release("z1", "n1")], 90: both("z3"),
           94: define("z4"), 96: define("z2"), 99: [*delete("z2", "z4"), *both("q1")]},
    "06": {1: [*both("s1"), write("s1", b"version-one")],
           18: [("DELETE", "/v1/resource-definitions/s1/snapshots/snapn"), write("s1", b"version-two"),
                hold("s1", "n1")],
           20: [release("s1", "n1")], 21: [holds("s1", b"version-one")], 26: [holds("s1", b"version-two")],
           28: define("s1w")[:1], 35: [holds("s1r", b"version-one")], 38: restore_volumes("s1p", "s1", "snap2"),
           42: [holds("s1p", b"version-two")], 43: restore_volumes("s1q", "s1", "snap2"),
           45: delete("s1q", "s1w", "s1r"),
           57: [*delete("s1", "s1p"), *both("ma"), *both("mb", node_name_list=["n1", "n3"])],
           62: [*both("sf", node_name_list=["n1", "n2"]), broken("snapshot", "n1", "n2")],
           67: [*both("spthin", "DfltRscGrp", storage_pool_list=["thin"], node_name_list=["n1", "n2"]),
                *both("spfat", "DfltRscGrp", storage_pool_list=["fat"], node_name_list=["n1", "n3"]),
                *both("spthick", "DfltRscGrp", storage_pool_list=["thick"])],
           70: both("pp")},
    "07": {1: [*both("c1"), write("c1", b"golden-image"),
               ("PUT", "/v1/resource-definitions/c1", {"override_props": {
                   "Aux/one/IMAGE_ID": "5", "DrbdOptions/Net/allow-two-primaries": "yes"}})],
           7: [holds("c1a", b"golden-image")], 11: [hold("c1", "n1")], 13: [release("c1", "n1")],
           27: [*available("c1", "n4"), ("DELETE", "/v1/resource-definitions/c1/resources/n3")],
           30: [("POST", "/v1/resource-definitions/c1/resources/n2/deactivate")],
           33: [("POST", "/v1/resource-definitions/c1/resources/n2/activate"), disk_state("c1", "n2", "Inconsistent")],
           34: [disk_state("c1", "n2", None), define("c3")[0]],
           39: [("POST", "/v1/resource-groups", {"name": "rgthick", "select_filter": {
               "place_count": 2, "storage_pool_list": ["thick"]}}), *both("k1", "rgthick")],
           47: both("g1", node_name_list=["n1", "n2"])},
    "09": {1: [("POST", "/v1/encryption/passphrase", {"new_passphrase": "secret"})], 3: [broken("create", "n1")],
           8: [*define("o1", 32768), *place("o1", node_name_list=["n1", "n2"])],
           9: [satellite("n2", False)], 26: define("o2"),
           29: delete("o2"), 30: define("o3"), 35: [("DELETE", "/v1/resource-definitions/o1/snapshots/snapo")],
           40: [satellite("n2", True)]},
}
# Beyond these exchanges the recording stops satellites and the controller.
LAST = {"09": 40}
# Exchanges that the sandbox answers otherwise, and why.
DIFFERENT: dict[tuple[str, int], str] = {
    ("02", 29): "pools are made of nothing, so no volume group can be missing",
    ("02", 32): "pools are made of nothing, so no directory can be missing",
    ("02", 61): "OPTIONS is not answered",
    ("04", 107): "depends on which nodes the balancing before it chose",
    ("04", 112): "a definition of another scenario was gone",
    ("09", 6): "the recorded failure came after the volume was made, the injected one before",
}


def recorded(scenario: str) -> Iterator[dict[str, Any]]:
    files = sorted(RECORDED.glob(f"{scenario}-*.json"))
    if not files:
        pytest.skip(f"no recorded exchanges in {RECORDED}")
    yield from json.loads(files[0].read_text())


def differences(expected: dict[str, Any], status: int, answer: Any) -> list[str]:
    found = [] if status == expected["status"] else [f"status {status}, not {expected['status']}"]
    want, have = codes(expected["body"]) - NOISE, codes(answer) - NOISE
    found += [f"no {code:#x}" for code in sorted(want - have)] + [f"{code:#x} too much" for code in sorted(have - want)]
    return found


@pytest.mark.parametrize("scenario", sorted(BEFORE))
def test_statuses_and_codes_are_those_of_a_controller(scenario: str, tmp_path: Path) -> None:
    wrong: list[str] = []
    exchanges = list(recorded(scenario))
    with Sandbox(tmp_path, NODES, POOLS if scenario != "02" else ()) as sandbox:
        replay = Replay(sandbox)
        if scenario != "02":
            replay.prepare()
        for exchange in exchanges:
            number = int(exchange["exchange"])
            if number > LAST.get(scenario, number):
                break
            replay.do(BEFORE[scenario].get(number, []))
            if "request" not in exchange:
                continue
            request = exchange["request"]
            status, answer = replay.exchange(request)
            found = differences(exchange["response"], status, answer)
            if bool(found) != ((scenario, number) in DIFFERENT) and (scenario, number) != ("04", 112):
                found = found or ["the same as recorded"]
                wrong.append(f"{number} {request['method']} {request['path']}: {', '.join(found)}")
        assert sandbox.exceptions == []
    assert wrong == []


@pytest.mark.parametrize("scenario", ["05", "06", "07"])
def test_texts_of_errors_are_those_of_a_controller(scenario: str, tmp_path: Path) -> None:
    """The first error's message, letter by letter."""
    wrong: list[str] = []
    exchanges = list(recorded(scenario))
    with Sandbox(tmp_path, NODES, POOLS) as sandbox:
        replay = Replay(sandbox)
        replay.prepare()
        for exchange in exchanges:
            replay.do(BEFORE[scenario].get(int(exchange["exchange"]), []))
            if "request" not in exchange:
                continue
            _, answer = replay.exchange(exchange["request"])
            if exchange["response"]["status"] < 400:
                continue
            want, have = entries(exchange["response"]["body"]), entries(answer)
            if want[0]["message"] != have[0]["message"] or want[0].get("cause") != have[0].get("cause"):
                wrong.append(f"{exchange['exchange']}: {have[0]} not {want[0]}")
    assert wrong == []
