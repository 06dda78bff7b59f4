"""Where replicas go: LINSTOR's autoplacer, and the capacity it promises."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from . import answers, properties
from .answers import ApiError
from .model import Cluster, Filter, Node, ResourceDefinition, StoragePool

DEFAULT_RATIO = 20.0


def _ratio(cluster: Cluster, pool: StoragePool, key: str) -> float:
    containers = (pool.props, cluster.pool_props.get(pool.name, {}))
    value = cluster.prop(containers, key) or cluster.prop(containers, properties.OVERSUBSCRIPTION)
    return float(value) if value else DEFAULT_RATIO


def usable(cluster: Cluster, pool: StoragePool) -> int:
    """KiB that may still be promised in a pool: free space, and what thin pools may oversubscribe."""
    if not pool.kind.thin:
        return pool.free()
    by_free = pool.free() * _ratio(cluster, pool, properties.OVERSUBSCRIPTION_FREE)
    by_total = pool.total * _ratio(cluster, pool, properties.OVERSUBSCRIPTION_TOTAL) - pool.reserved()
    return max(0, int(min(by_free, by_total)))


class Autoplacer:
    """Chooses pools for one request."""

    def __init__(
        self,
        cluster: Cluster,
        wanted: Filter,
        size: int,
        *,
        definition: Optional[ResourceDefinition] = None,
        excluded: str = "",
        allowed_again: Sequence[str] = (),
    ) -> None:
        self.cluster = cluster
        self.filter = wanted
        self.size = size
        self.definition = definition
        self.excluded = excluded or (definition.name if definition else "")
        self.allowed_again = {name.upper() for name in allowed_again}
        self.deployed = definition.diskful() if definition else []
        self.avoided = self._avoided()
        self._free: dict[int, int] = {}

    def choose(self, count: int) -> Optional[list[StoragePool]]:
        """The best pools for so many more replicas; None when there are not enough."""
        by_node: dict[str, list[StoragePool]] = {}
        for pool in self._candidates():
            by_node.setdefault(pool.node.name, []).append(pool)
        families = {resource.pool.kind.goes_with for resource in self.deployed} or {
            pool.kind.goes_with for pools in by_node.values() for pool in pools
        }
        best: Optional[list[StoragePool]] = None
        for family in sorted(families):
            ranked = [
                pools[0]
                for pools in ([pool for pool in pools if pool.kind.goes_with == family] for pools in by_node.values())
                if pools
            ]
            ranked.sort(key=self._rank)
            found = self._pick(ranked, count, [resource.node for resource in self.deployed])
            if found is not None and (best is None or self._score(found) > self._score(best)):
                best = found
        return sorted(best, key=lambda pool: pool.node.name.upper()) if best is not None else None

    def free(self, pool: StoragePool) -> int:
        """Free KiB, asked once per placement."""
        if id(pool) not in self._free:
            self._free[id(pool)] = pool.free()
        return self._free[id(pool)]

    def _rank(self, pool: StoragePool) -> tuple[int, bool, str]:
        return (-self.free(pool), *self.cluster.preference(pool))

    def _score(self, pools: Sequence[StoragePool]) -> int:
        return sum(self.free(pool) for pool in pools)

    def _candidates(self) -> list[StoragePool]:
        pools = [
            pool
            for node in self.cluster.nodes
            if self._node_allowed(node)
            for pool in node.pools
            if self._pool_allowed(pool)
        ]
        return sorted(pools, key=self._rank)

    def _node_allowed(self, node: Node) -> bool:
        names = self.filter.node_name_list
        if not node.online or (names and node.name.upper() not in {name.upper() for name in names}):
            return False
        if any(layer not in node.layers for layer in self.filter.layer_stack or ()):
            return False
        avoided = self.avoided
        if node.name.upper() in self.allowed_again:
            avoided = [definition for definition in avoided if definition is not self.definition]
        return not any(node.name in definition.resources for definition in avoided)

    def _avoided(self) -> list[ResourceDefinition]:
        """The definitions beside whose resources none may be placed; this one's own among them."""
        found = {id(self.definition): self.definition}
        for name in [*(self.filter.not_place_with_rsc or ()), self.excluded]:
            found[id(self.cluster.definitions.get(name))] = self.cluster.definitions.get(name)
        pattern = self._pattern()
        for definition in self.cluster.definitions if pattern else ():
            if pattern and pattern.fullmatch(definition.name):
                found[id(definition)] = definition
        return [definition for definition in found.values() if definition is not None]

    def _pattern(self) -> Optional[re.Pattern[str]]:
        text = self.filter.not_place_with_rsc_regex
        try:
            return re.compile(text, re.IGNORECASE) if text else None
        except re.error as exc:
            raise ApiError(answers.FAIL_UNKNOWN_ERROR, f"{exc.msg} near index {exc.pos}", report=True) from None

    def _pool_allowed(self, pool: StoragePool) -> bool:
        names, kinds = self.filter.storage_pool_list, self.filter.provider_list
        if pool.diskless or (names and pool.name.upper() not in {name.upper() for name in names}):
            return False
        return not (kinds and pool.kind.name not in kinds) and usable(self.cluster, pool) >= self.size

    def _pick(self, ranked: Sequence[StoragePool], count: int, chosen: list[Node]) -> Optional[list[StoragePool]]:
        """Depth first through the ranking, until the constraints between nodes hold."""
        if count <= 0:
            return []
        for index, pool in enumerate(ranked):
            if not self._fits_with(pool.node, chosen):
                continue
            rest = self._pick(ranked[index + 1 :], count - 1, [*chosen, pool.node])
            if rest is not None:
                return [pool, *rest]
        return None

    def _fits_with(self, node: Node, chosen: Sequence[Node]) -> bool:
        for text in self.filter.replicas_on_same or ():
            key, equals, value = text.partition("=")
            if key not in node.props or (equals and node.props[key] != value):
                return False
            if any(other.props.get(key) != node.props[key] for other in chosen):
                return False
        for text in self.filter.replicas_on_different or ():
            key, equals, value = text.partition("=")
            if equals and node.props.get(key) == value:
                return False
            if not equals and any(other.props.get(key) == node.props.get(key) for other in chosen):
                return False
        for key, most in (self.filter.x_replicas_on_different_map or {}).items():
            if sum(other.props.get(key) == node.props.get(key) for other in chosen) >= most:
                return False
        return True

    def not_enough(self, count: int) -> ApiError:
        """996 with the criteria, in the controller's words."""
        wanted, names = self.filter, self.filter.storage_pool_list
        lines = ["Not enough nodes fulfilling the following auto-place criteria:"]
        if names:
            lines.append(f" * has a deployed storage pool named [{', '.join(names)}]")
            lines.append(f" * the storage pools have to have at least '{self.size}' free space")
        lines += [
            " * the current access context has enough privileges to use the node and the storage pool",
            " * the node is online",
            "",
            "Auto-place configuration details:",
            f"   Replica count: {wanted.place_count}",
            f"   Additional replica count: {count}",
        ]
        for title, values in self._listed():
            lines += [f"   {title}:", *(f"      {value}" for value in values)]
        if wanted.not_place_with_rsc_regex:
            lines.append(f"   Do not place with resource (regex): {wanted.not_place_with_rsc_regex}")
        if wanted.diskless_on_remaining is not None:
            lines.append(f"   Diskless on remaining: {str(bool(wanted.diskless_on_remaining)).lower()}")
        return ApiError(answers.FAIL_NOT_ENOUGH_NODES, "Not enough available nodes", details="\n".join(lines) + "\n")

    def _listed(self) -> list[tuple[str, list[str]]]:
        wanted = self.filter
        lists = [
            ("Storage pool name", wanted.storage_pool_list),
            ("Node name list", wanted.node_name_list),
            ("Do not place with resource", [*(wanted.not_place_with_rsc or []), self.excluded]),
            ("Replicas on nodes with same property", wanted.replicas_on_same),
            ("Replicas on nodes with different property", wanted.replicas_on_different),
            ("Allowed Provider", wanted.provider_list),
            ("Layer stack", wanted.layer_stack),
        ]
        return [(title, values) for title, values in lists if values]


def greedy_capacity(sizes: Sequence[int], replicas: int) -> int:
    """LINSTOR's estimate of what fits: again and again the `replicas` largest, less the smallest of them (KiB)."""
    left = sorted(sizes, reverse=True)
    total = 0
    while replicas and len(left) >= replicas and left[replicas - 1] > 0:
        step = left[replicas - 1]
        total += step
        left = sorted([size - step if index < replicas else size for index, size in enumerate(left)], reverse=True)
    return total


def size_info(cluster: Cluster, wanted: Filter) -> dict[str, object]:
    """The space_info of query-size-info."""
    placer = Autoplacer(cluster, wanted, 0)
    count = wanted.place_count or 0
    chosen = placer.choose(count) or []
    pools: list[StoragePool] = placer._candidates()
    info: dict[str, object] = {"max_vlm_size_in_kib": 0, "available_size_in_kib": 0, "capacity_in_kib": 0}
    if chosen:
        info["max_vlm_size_in_kib"] = min(usable(cluster, pool) for pool in chosen)
        info["available_size_in_kib"] = greedy_capacity([pool.free() for pool in pools], count)
        info["capacity_in_kib"] = greedy_capacity([pool.total for pool in pools], count)
    info["default_max_oversubscription_ratio"] = DEFAULT_RATIO
    if chosen:
        info["next_spawn_result"] = [
            {
                "node_name": pool.node.name,
                "stor_pool_name": pool.name,
                "stor_pool_oversubscription_ratio": _ratio(cluster, pool, properties.OVERSUBSCRIPTION)
                if pool.kind.thin
                else 1.0,
            }
            for pool in chosen
        ]
    return info
