"""Random sequences of operations, and what holds after every one of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from linstor_sandbox import Opening, Pool, Sandbox
from linstor_sandbox.answers import is_error
from linstor_sandbox.controller import Request
from linstor_sandbox.model import ResourceDefinition, StoragePool
from linstor_sandbox.storage import Content, data_extents

NODES = ("n1", "n2", "n3", "n4")
NAMES = st.sampled_from(["va", "vb", "vc"])
SNAPSHOTS = st.sampled_from(["sx", "sy"])
ANY_NODE = st.sampled_from(NODES)
RD = "/v1/resource-definitions"


class Operations(RuleBasedStateMachine):
    """Requests, hosts that come and go, processes that open devices. No server: the controller is asked directly."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        pools = (Pool("thin", "LVM_THIN", 1024), Pool("thick", "LVM", 96))
        self.sandbox = Sandbox(self.folder, NODES, pools, auto_promote_timeout=0.0)
        self.opened: dict[tuple[str, str], Opening] = {}
        self.digests: dict[str, str] = {}
        self.replicas: dict[str, set[str]] = {}
        # {name: nodes whose replica the last request may have removed}.
        self.may_lose: dict[str, set[str]] = {}
        self.shaken: set[str] = set()
        for name in ("thin", "thick"):
            wanted = {"place_count": 2, "storage_pool_list": [name]}
            self.ask("POST", "/v1/resource-groups", {"name": name, "select_filter": wanted})
            self.ask("POST", f"/v1/resource-groups/{name}/volume-groups", {})

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> bool:
        raw = b"" if body is None else json.dumps(body).encode()
        found = self.sandbox.controller.handle(
            Request(method, path, {key: [value] for key, value in query.items()}, raw)
        )
        answer = found.body["messages"] if isinstance(found.body, dict) and "messages" in found.body else found.body
        failed = any(is_error(entry["ret_code"]) for entry in answer)
        assert failed == (found.status >= 400), (path, found.status, answer)
        return not failed

    @property
    def definitions(self) -> list[ResourceDefinition]:
        return self.sandbox.cluster.definitions.values()

    def definition(self, name: str) -> Optional[ResourceDefinition]:
        return self.sandbox.cluster.definitions.get(name)

    # What is done.

    @rule(name=NAMES, group=st.sampled_from(["thin", "thick"]), count=st.integers(1, 4), mib=st.integers(1, 64))
    def spawn(self, name: str, group: str, count: int, mib: int) -> None:
        body = {"resource_definition_name": name, "volume_sizes": [mib * 1024], "select_filter": {"place_count": count}}
        if self.ask("POST", f"/v1/resource-groups/{group}/spawn", body):
            found = self.definition(name)
            assert found is not None
            assert len(found.diskful()) == count

    @rule(name=NAMES, node=ANY_NODE, diskful=st.booleans())
    def make_available(self, name: str, node: str, diskful: bool) -> None:
        path = f"{RD}/{name}/resources/{node}/make-available"
        if self.ask("POST", path, {"diskful": diskful}):
            resource = self.sandbox.resource(name, node)
            assert resource is not None
            assert not (diskful and resource.diskless)

    @rule(name=NAMES, node=ANY_NODE, keep=st.booleans())
    def delete_resource(self, name: str, node: str, keep: bool) -> None:
        found = self.definition(name)
        # One that waits to be deleted may be taken over as the tie-breaker instead.
        self.may_lose[name] = {node, *(res.node.name for res in found.resources if res.deleting)} if found else set()
        self.ask("DELETE", f"{RD}/{name}/resources/{node}", keep_tiebreaker=str(keep).lower())

    @rule(keep=st.booleans())
    def delete_resource_that_is_primary(self, keep: bool) -> None:
        for name, node in [where for where, opening in self.opened.items() if opening.write]:
            resource = self.sandbox.resource(name, node)
            assert resource is not None
            before = set(resource.flags)
            assert not self.ask("DELETE", f"{RD}/{name}/resources/{node}", keep_tiebreaker=str(keep).lower())
            assert resource.flags == before, f"{name} is Primary on {node}"

    @rule(name=NAMES, node=ANY_NODE, what=st.sampled_from(["diskless", "diskful"]))
    def toggle(self, name: str, node: str, what: str) -> None:
        self.may_lose[name] = {node}
        self.ask("PUT", f"{RD}/{name}/resources/{node}/toggle-disk/{what}")

    @rule(name=NAMES, count=st.integers(1, 4))
    def autoplace(self, name: str, count: int) -> None:
        before = self.definition(name)
        least = min(count, len(before.diskful())) if before else 0
        if self.ask("POST", f"{RD}/{name}/autoplace", {"select_filter": {"place_count": count}}):
            found = self.definition(name)
            assert found is not None
            assert len(found.diskful()) >= max(count, least)

    @rule(name=NAMES, mib=st.integers(1, 128))
    def resize(self, name: str, mib: int) -> None:
        self.ask("PUT", f"{RD}/{name}/volume-definitions/0", {"size_kib": mib * 1024})

    @rule(name=NAMES, snapshot=SNAPSHOTS)
    def take_snapshot(self, name: str, snapshot: str) -> None:
        self.ask("POST", f"{RD}/{name}/snapshots", {"name": snapshot})

    @rule(name=NAMES, snapshot=SNAPSHOTS)
    def delete_snapshot(self, name: str, snapshot: str) -> None:
        self.ask("DELETE", f"{RD}/{name}/snapshots/{snapshot}")

    @rule(name=NAMES, snapshot=SNAPSHOTS)
    def roll_back(self, name: str, snapshot: str) -> None:
        self.may_lose[name] = set(NODES)
        if self.ask("POST", f"{RD}/{name}/snapshot-rollback/{snapshot}"):
            found = self.definition(name)
            assert found is not None
            for number in found.volumes:
                assert _digest(found.contents[number]) == _digest(found.snapshots[snapshot].contents["", number])

    @rule(name=NAMES, snapshot=SNAPSHOTS, into=NAMES)
    def restore(self, name: str, snapshot: str, into: str) -> None:
        body = {"resource_definition": {"name": into, "resource_group_name": "thin"}}
        if self.ask("POST", RD, body):
            self.ask("POST", f"{RD}/{name}/snapshot-restore-volume-definition/{snapshot}", {"to_resource": into})
            self.ask("POST", f"{RD}/{name}/snapshot-restore-resource/{snapshot}", {"to_resource": into})

    @rule(name=NAMES, into=NAMES)
    def clone(self, name: str, into: str) -> None:
        self.ask("POST", f"{RD}/{name}/clone", {"name": into})

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.may_lose[name] = set(NODES)
        self.ask("DELETE", f"{RD}/{name}")

    @rule(node=ANY_NODE, online=st.booleans(), satellite_only=st.booleans())
    def node(self, node: str, online: bool, satellite_only: bool) -> None:
        # What waited for the node is done now, and what was open on a host without power is not any more.
        for found in self.definitions:
            whole = "DELETE" in found.flags
            self.may_lose[found.name] = {res.node.name for res in found.resources if whole or res.deleting}
        self.sandbox.set_node(node, online, satellite_only=satellite_only)
        if not online and not satellite_only:
            self.opened = {key: opening for key, opening in self.opened.items() if opening.node != node}

    @rule()
    def balance(self) -> None:
        before = {found.name: len(found.diskful()) for found in self.definitions}
        self.may_lose = {name: set(NODES) for name in before}
        self.sandbox.run_balance()
        for found in self.definitions:
            wanted = found.group.filter.place_count or 0
            assert min(before[found.name], wanted) <= len(found.diskful()) <= max(before[found.name], wanted)
            if found.group.name == "thin" and found.diskful() and self.settled(found):
                assert len(found.diskful()) == 2, found.name

    @rule(name=NAMES, node=ANY_NODE, mode=st.sampled_from(["r", "w", "w"]))
    def open(self, name: str, node: str, mode: str) -> None:
        resource = self.sandbox.resource(name, node)
        if (name, node) in self.opened or resource is None or not resource.definition.volumes:
            return
        try:
            opening = self.sandbox.open(node, name, mode)
        except OSError:
            return
        self.opened[name, node] = opening
        if opening.write:
            assert {other for called, other in self.opened if called == name} == {node}

    @rule(name=NAMES, node=ANY_NODE)
    def close(self, name: str, node: str) -> None:
        opening = self.opened.pop((name, node), None)
        if opening is not None:
            self.sandbox.close(opening)

    @rule(name=NAMES, data=st.binary(min_size=1, max_size=8), offset=st.integers(0, 1 << 19))
    def write(self, name: str, data: bytes, offset: int) -> None:
        found = self.definition(name)
        if found is not None and 0 in found.contents:
            self.sandbox.write(name, data, offset)

    # What holds.

    @invariant()
    def nothing_went_wrong_inside(self) -> None:
        assert self.sandbox.exceptions == []

    @invariant()
    def no_replica_is_lost(self) -> None:
        """A replica goes only by a request that may remove one, and the last never while somebody uses the volume."""
        now = {found.name: {res.node.name for res in found.diskful()} for found in self.definitions}
        for name, before in self.replicas.items():
            lost = before - now.get(name, set())
            assert lost <= self.may_lose.get(name, set()), f"{name} has lost its replicas on {lost}"
        self.replicas = now
        self.may_lose = {}
        for name, node in self.opened:
            assert now[name], f"{name} is open on {node} and has no replica"
            assert self.sandbox.resource(name, node) is not None, f"{name} is open on {node} and has gone from there"

    @invariant()
    def at_most_one_tie_breaker_and_quorum_where_it_can_be(self) -> None:
        for found in self.definitions:
            assert sum(res.tie_breaker for res in found.resources) <= 1
            diskful = [res for res in found.diskful() if not res.deleting and not res.inactive]
            if "DELETE" in found.flags:
                continue
            if found.props.get("DrbdOptions/Resource/quorum") == "majority":
                assert len(found.resources) >= 3 or any(not res.node.online for res in found.resources)
            elif diskful and all(res.node.online and not res.deleting for res in found.resources):
                assert len(diskful) < 3

    def settled(self, found: ResourceDefinition) -> bool:
        """Everything was done about it, and nothing waits for a node; a clone has what its source had."""
        return (
            not found.flags
            and not found.cloned_from
            and found.uuid not in self.shaken
            and all(res.deployed and not res.deleting for res in found.resources)
        )

    @invariant()
    def somebody_breaks_the_tie_of_two_or_four(self) -> None:
        """LINSTOR sees to it at every change, but not when a node comes back."""
        if not all(node.online for node in self.sandbox.cluster.nodes):
            self.shaken |= {found.uuid for found in self.definitions}
        for found in self.definitions:
            enabled = found.props.get("DrbdOptions/auto-add-quorum-tiebreaker") != "False"
            diskful = len(found.diskful())
            if enabled and self.settled(found) and diskful and diskful % 2 == 0 and diskful < len(NODES):
                assert any(res.diskless for res in found.resources), found.name
                assert found.props["DrbdOptions/Resource/quorum"] == "majority", found.name

    @invariant()
    def every_snapshot_has_its_volume_and_its_bytes_never_change(self) -> None:
        seen = {}
        for found in self.definitions:
            for snapshot in found.snapshots:
                assert len(snapshot.replicas)
                assert {number for _, number in snapshot.contents} == set(snapshot.volumes) or snapshot.flags != {
                    "SUCCESSFUL"
                }
                for content in snapshot.contents.values():
                    key = str(content.path)
                    seen[key] = _digest(content)
                    assert self.digests.get(key, seen[key]) == seen[key], f"{found.name}@{snapshot.name} has changed"
        self.digests = seen

    @invariant()
    def files_are_those_of_volumes_and_snapshots(self) -> None:
        contents: list[Content] = []
        for found in self.definitions:
            contents += found.contents.values()
            for holder in [*found.resources, *found.snapshots]:
                contents += holder.contents.values()
        assert {content.path for content in contents} == set((self.folder / "volumes").iterdir())

    @invariant()
    def free_space_adds_up(self) -> None:
        """Every pool has given away what the files in it take: copies share at most what is equal, at least nothing."""
        blocks: dict[Path, set[bytes]] = {}
        for node in self.sandbox.cluster.nodes:
            for pool in (pool for pool in node.pools if not pool.diskless):
                contents = self._contents(pool)
                assert len(pool.members) == len(contents)
                used = (pool.total - pool.free()) * 1024
                if pool.kind.thin:
                    for content in contents:
                        blocks.setdefault(content.path, set(_blocks(content)))
                    least = 4096 * len(set().union(*(blocks[content.path] for content in contents)))
                    most = sum(content.path.stat().st_blocks * 512 for content in contents)
                else:
                    least = sum(content.size for content in contents)
                    most = least + len(contents) * (8 << 20)
                assert least <= used <= most, f"{pool.name} on {node.name}"
                assert used <= pool.total * 1024

    def _contents(self, pool: StoragePool) -> list[Content]:
        """Of the volumes and snapshots that lie in a pool."""
        found = []
        for definition in self.definitions:
            for res in definition.diskful():
                if res.pool is pool and res.deployed:
                    found += [definition.contents[number] for number in definition.volumes]
            for snapshot in definition.snapshots:
                if any(replica.pool is pool for replica in snapshot.replicas):
                    found += snapshot.contents.values()
        return found

    @invariant()
    def devices_are_where_the_resources_are(self) -> None:
        for node in self.sandbox.cluster.nodes:
            if not node.host_up or not node.online:
                continue
            links = self.sandbox.host(node.name) / "dev" / "drbd" / "by-res"
            there = {path.name for path in links.glob("*") if any(path.iterdir())}
            wanted = {
                found.name
                for found in self.definitions
                if found.contents and node.name in found.resources and found.resources[node.name].deployed
            }
            assert there == wanted, node.name

    @invariant()
    def minors_and_node_ids_are_unique(self) -> None:
        minors = [vol.minor for found in self.definitions for vol in found.volumes.values() if vol.minor is not None]
        assert len(minors) == len(set(minors))
        for found in self.definitions:
            ids = [res.node_id for res in found.resources]
            assert len(ids) == len(set(ids))


def _blocks(content: Content) -> Iterator[bytes]:
    """Offset and data of all blocks that are not zero, wherever they are."""
    with content.path.open("rb") as file:
        for start, end in data_extents(file.fileno(), content.size):
            file.seek(start)
            data = file.read(end - start)
            for offset in range(0, len(data), 4096):
                if any(block := data[offset : offset + 4096]):
                    yield str(start + offset).encode() + block


def _digest(content: Content) -> str:
    """Of the size and of all bytes that are not zero, wherever they are."""
    digest = hashlib.sha256(str(content.size).encode())
    for block in _blocks(content):
        digest.update(block)
    return digest.hexdigest()


TestOperations = Operations.TestCase
TestOperations.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
