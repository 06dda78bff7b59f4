"""A sandbox like the recorded cluster, and what was done to it between the recorded exchanges."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Union

from ..openings import Opening
from ..sandbox import Sandbox
from ..tls import Authority, serving
from .recordings import Exchange

NODES = ("n1", "n2", "n3", "n4")
# The recorded nodes had no ZFS; name, kind, KiB in all, KiB free, nodes, what it is on the node.
PROVIDERS = ("LVM", "LVM_THIN", "FILE", "FILE_THIN")
POOLS = (
    ("fat", "FILE", 20905984, 20727172, NODES[:3], "/srv/{node}/fat"),
    ("thick", "LVM", 18874368, 4194304, NODES[:2], "vg0"),
    ("thin", "FILE_THIN", 20905984, 20727172, NODES, "/srv/{node}/thin"),
    ("thinpool", "LVM_THIN", 14680064, 14680064, NODES[:3], "vg0/thinpool"),
)

_PLACED = (
    re.compile(r"'(\w+) \((\w+)\)'"),
    re.compile(r'"node_name": "(\w+)", "stor_pool_name": "(\w+)"'),
    re.compile(r'"(n\d)"()(?=[^\]]*\], "all_thin")'),
)
_TIE_BREAKER = re.compile(r"Tie breaker resource '[^']+' created on (\w+)")
USUAL_TIE_BREAKER = ("n3",)

Request = tuple[Any, ...]
Step = Union[Request, Callable[["Stage"], None]]
"""(method, path, body, query), the last two as needed, which must succeed; or anything else that is done."""


class Stage:
    """One scenario's sandbox with a client of its own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.held: dict[tuple[str, str], Opening] = {}

    def ask(self, method: str, path: str, body: Any = None, query: str = "", kind: str = "application/json") -> Any:
        """(status, answer); (None, None) where nobody listens."""
        if body is not None and (not isinstance(body, str) or method == "PATCH"):
            body = json.dumps(body)
        port = self.sandbox.port if self.sandbox.tls is None else self.sandbox.redirect_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Content-Type": kind} if kind else {}
        try:
            target = path + (f"?{query}" if query else "")
            connection.request(method, target, None if body is None else body.encode(), headers)
            response = connection.getresponse()
            return response.status, _decoded(response.read())
        except ConnectionRefusedError:
            return None, None
        finally:
            connection.close()

    def follow(self, recorded: Exchange) -> None:
        """Where LINSTOR had the choice between equally good nodes and pools, take those that it took."""
        text = json.dumps(recorded.answer)
        cluster = self.sandbox.cluster
        cluster.preferred = tuple(place for pattern in _PLACED for place in pattern.findall(text))
        cluster.tie_breakers = tuple(_TIE_BREAKER.findall(text)) or USUAL_TIE_BREAKER

    def exchange(self, recorded: Exchange) -> Any:
        """What the sandbox answers to a recorded request."""
        kind = "text/plain" if "without Content-Type" in recorded.note else "application/json"
        return self.ask(recorded.method, recorded.path, recorded.body, recorded.query, kind)

    def states(self) -> dict[str, dict[str, str]]:
        """{definition: {node: pool, flags, in_use and disk states}}, as the notes tell them."""
        found: dict[str, dict[str, str]] = {}
        for resource in self.ask("GET", "/v1/view/resources")[1]:
            disks = [volume.get("state", {}).get("disk_state") for volume in resource.get("volumes", ())]
            told = (
                resource["props"]["StorPoolName"],
                resource.get("flags", []),
                resource.get("state", {}).get("in_use"),
            )
            found.setdefault(resource["name"], {})[resource["node_name"]] = " ".join(map(str, (*told, disks)))
        return found

    def do(self, steps: Sequence[Step]) -> None:
        """Carry out what lies between two exchanges; AssertionError for a request that fails."""
        self.sandbox.cluster.tie_breakers = USUAL_TIE_BREAKER
        for step in steps:
            if callable(step):
                step(self)
                continue
            status, answer = self.ask(*step)
            if status not in (200, 201):
                raise AssertionError(f"{step} answers {status} {answer}")


def _decoded(data: bytes) -> Any:
    text = data.decode()
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def nodes(stage: Stage) -> None:
    """Four nodes, their satellites not yet connected, and what their hosts have to make pools of."""
    for name in NODES:
        stage.sandbox.cluster.add_node(name, providers=PROVIDERS, online=False)
    stage.sandbox.cluster.storages = {
        driver.format(node=node): (total, free) for _, _, total, free, where, driver in POOLS for node in where
    }


def cluster(stage: Stage) -> None:
    """What scenario 02 leaves: sites, pools, groups."""
    nodes(stage)
    stage.do([connection(node, "ONLINE") for node in NODES])
    for node, site in zip(NODES, "aabb"):
        stage.do([("PUT", f"/v1/nodes/{node}", {"override_props": {"Aux/site": site}})])
    for name, kind, _, _, where, driver in POOLS:
        for node in where:
            pool = {
                "storage_pool_name": name,
                "provider_kind": kind,
                "props": {"StorDriver/StorPoolName": driver.format(node=node)},
            }
            stage.do([("POST", f"/v1/nodes/{node}/storage-pools", pool)])
    stage.do(
        [
            ("PUT", "/v1/storage-pool-definitions/thin", {"override_props": {"MaxOversubscriptionRatio": "5"}}),
            group("rg1", "thinpool", layer_stack=["DRBD", "STORAGE"], description="lab"),
            ("POST", "/v1/resource-groups/rg1/volume-groups"),
            ("PUT", "/v1/resource-groups/rg1", {"override_props": {"DrbdOptions/auto-quorum": "io-error"}}),
        ]
    )


def group(name: str, pool: str, description: str = "", **select: Any) -> Step:
    """A resource group of two replicas."""
    wanted = {"place_count": 2, "storage_pool_list": [pool], **select}
    return ("POST", "/v1/resource-groups", {"name": name, "description": description, "select_filter": wanted})


def tie_breaker(node: str) -> Step:
    """The next tie-breakers go there."""

    def step(stage: Stage) -> None:
        stage.sandbox.cluster.tie_breakers = (node,)

    return step


def no_satellites(stage: Stage) -> None:
    """Nodes can be made, but none of their satellites runs."""
    stage.sandbox.cluster.unreachable = {f"127.0.1.{number}" for number in range(10)}


def connection(node: str, state: str) -> Step:
    """OFFLINE, CONNECTED or ONLINE."""

    def step(stage: Stage) -> None:
        stage.sandbox.set_connection(node, state)

    return step


def hung(node: str, state: bool) -> Step:
    """The node's satellite is stopped (SIGSTOP), or goes on."""
    return lambda stage: stage.sandbox.hang_satellite(node, state)


def stop_controller(stage: Stage) -> None:
    """SIGTERM."""
    stage.sandbox.stop_controller()


def start_controller(stage: Stage) -> None:
    """It listens again, and knows no satellite yet."""
    for node in NODES:
        stage.sandbox.set_connection(node, "OFFLINE")
        stage.sandbox.cluster.nodes[node].reported = False
    stage.sandbox.start_controller()


def https(stage: Stage) -> None:
    """The controller is started with HTTPS; the exchanges were with its port of HTTP."""
    stage.sandbox.stop_controller()
    stage.sandbox.tls = serving(Authority(stage.sandbox.root).of_kind("good"))
    stage.sandbox.start_controller()


def sweep(stage: Stage) -> None:
    """Everything is deleted."""
    for definition in stage.sandbox.cluster.definitions.values():
        for snapshot in definition.snapshots.values():
            stage.do([("DELETE", f"/v1/resource-definitions/{definition.name}/snapshots/{snapshot.name}")])
        stage.do(delete(definition.name))


def define(name: str, size: int = 65536, group: str = "rg1") -> list[Step]:
    """A definition with one volume (KiB)."""
    body = {"resource_definition": {"name": name, "resource_group_name": group}}
    volume = {"volume_definition": {"size_kib": size}}
    return [
        ("POST", "/v1/resource-definitions", body),
        ("POST", f"/v1/resource-definitions/{name}/volume-definitions", volume),
    ]


def place(name: str, **select: Any) -> list[Step]:
    """Autoplace."""
    return [("POST", f"/v1/resource-definitions/{name}/autoplace", {"select_filter": select} if select else {})]


def both(name: str, group: str = "rg1", size: int = 65536, **select: Any) -> list[Step]:
    """A definition, placed."""
    return [*define(name, size, group), *place(name, **select)]


def available(name: str, node: str) -> list[Step]:
    """make-available."""
    return [("POST", f"/v1/resource-definitions/{name}/resources/{node}/make-available", {})]


def delete(*names: str) -> list[Step]:
    """No more such definitions."""
    return [("DELETE", f"/v1/resource-definitions/{name}") for name in names]


def hold(name: str, node: str) -> Step:
    """A process opens the device for writing."""

    def step(stage: Stage) -> None:
        stage.held[name, node] = stage.sandbox.open(node, name)

    return step


def release(name: str, node: str) -> Step:
    """The process closes it."""
    return lambda stage: stage.sandbox.close(stage.held.pop((name, node)))


def write(name: str, data: bytes) -> Step:
    """Bytes at the beginning of the device."""
    return lambda stage: stage.sandbox.write(name, data)


def holds(name: str, data: bytes) -> Step:
    """Those bytes must be there."""

    def step(stage: Stage) -> None:
        found = stage.sandbox.read(name, 0, len(data))
        assert found == data, f"{name} holds {found!r}, recorded {data!r}"

    return step


def broken(operation: str, *where: str) -> Step:
    """The next command of a kind fails on these nodes."""

    def step(stage: Stage) -> None:
        for node in where:
            stage.sandbox.break_satellite(node, operation)

    return step


def satellite(node: str, online: bool) -> Step:
    """The node's satellite stops or comes back."""
    return lambda stage: stage.sandbox.set_node(node, online, satellite_only=True)


def fuller(node: str, pool: str, kib: int) -> Step:
    """So much less is free in a pool (or more): what else was on the recorded one, or not yet known of it."""

    def step(stage: Stage) -> None:
        stage.sandbox.cluster.nodes[node].pools[pool].withheld += kib

    return step


def disk_state(name: str, node: str, state: Any) -> Step:
    """DRBD's disk state as it was forced to be, or None for what it is by itself."""
    return lambda stage: stage.sandbox.set_disk_state(name, node, state)


def storage_only(name: str, *where: str) -> list[Step]:
    """64 MiB without DRBD in the pool `thin` of these nodes."""
    body = {"resource_definition": {"name": name, "layer_data": [{"type": "STORAGE"}]}}
    replicas = [{"resource": {"name": name, "node_name": node, "props": {"StorPoolName": "thin"}}} for node in where]
    return [
        ("POST", "/v1/resource-definitions", body),
        define(name)[1],
        ("POST", f"/v1/resource-definitions/{name}/resources", replicas),
    ]


def snapshot(name: str, snapshot: str, *where: str) -> Step:
    """A snapshot on all or some nodes."""
    body = {"name": snapshot, "nodes": list(where)}
    return ("POST", f"/v1/resource-definitions/{name}/snapshots", body)


def restore_volumes(name: str, source: str, snapshot: str) -> list[Step]:
    """A definition with the volumes of a snapshot."""
    path = f"/v1/resource-definitions/{source}/snapshot-restore-volume-definition/{snapshot}"
    return [define(name)[0], ("POST", path, {"to_resource": name})]
