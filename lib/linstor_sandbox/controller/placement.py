"""Autoplace: which nodes get replicas, and making them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from .. import answers, properties
from ..answers import Answer, ApiError, Context
from ..autoplacer import Autoplacer
from ..drbd import diskless_pool, new_resource
from ..model import Filter, Resource, ResourceDefinition, StoragePool
from ..satellite import Satellites
from .base import Controller, Request, Response, catching, respond, route
from .deployment import Deployment

DEFAULT_LAYERS = ["DRBD", "STORAGE"]


def check_layers(layers: Sequence[str]) -> list[str]:
    """A layer stack in its order, on STORAGE; 225 when LINSTOR refuses it."""
    stack = [layer.upper() for layer in layers]
    order = {"DRBD": 0, "CACHE": 1, "WRITECACHE": 1, "BCACHE": 1, "LUKS": 2, "NVME": 3, "STORAGE": 4}
    full = stack if stack and stack[-1] == "STORAGE" else [*stack, "STORAGE"]
    ranks = [order.get(layer, -1) for layer in full]
    if -1 in ranks or any(first >= second for first, second in zip(ranks, ranks[1:])):
        raise ApiError(answers.FAIL_INVLD_LAYER_STACK, f"The layer stack [{', '.join(full)}] is invalid", report=True)
    return full


def check_replicas(controller: Controller, definition: ResourceDefinition, pools: Sequence[StoragePool]) -> None:
    """ApiError 993 or 221 where a definition cannot have replicas in these pools too."""
    there = definition.diskful()
    if len(there) + len(pools) > definition.peer_slots + 1:
        raise ApiError(
            answers.FAIL_INSUFFICIENT_PEER_SLOTS,
            f"Resource on node {there[0].node.name if there else pools[0].node.name} has insufficient peer slots to "
            "add another peer",
            report=True,
        )
    mixing = controller.cluster.prop((definition.props, definition.group.props), properties.ALLOW_MIXING)
    first, *others = [pool.kind for pool in [*(resource.pool for resource in there), *pools]]
    for kind in others:
        if kind.goes_with != first.goes_with and (
            not properties.is_true(mixing) or "FILE" in (kind.family, first.family)
        ):
            raise ApiError(
                answers.FAIL_INVLD_STOR_DRIVER,
                f"Storage driver '{kind.name}' not allowed for volume.",
                details="Using storage pools with different storage drivers on the same volume definition is not "
                "supported.",
                correction=f"Either use a storage pool with a driver compatible with {first.name}, or enable storage "
                f"pool mixing using the property '{properties.ALLOW_MIXING}'",
                report=True,
            )


class Placement:
    """One autoplace on one definition."""

    def __init__(self, controller: Controller, definition: ResourceDefinition, wanted: Filter, answer: Answer) -> None:
        self.controller = controller
        self.definition = definition
        self.filter = wanted
        self.answer = answer
        self.deployment = Deployment(controller, definition, answer)
        self.layers = list(wanted.layer_stack or definition.layers or DEFAULT_LAYERS)

    def missing(self) -> int:
        """How many more replicas are asked for; below zero when there are too many."""
        if self.filter.additional_place_count:
            return self.filter.additional_place_count
        diskful = [res for res in self.definition.diskful() if "DELETE" not in res.flags]
        return (self.filter.place_count or 0) - len(diskful)

    def check_encryption(self) -> None:
        """LUKS cannot be placed without the master passphrase."""
        passphrase = self.controller.cluster.passphrase
        if "LUKS" in self.layers and not passphrase.unlocked:
            raise ApiError(
                answers.FAIL_UNKNOWN_ERROR,
                "An exception occurred while creating layer data",
                cause="Unable to create encrypt key without having a master key",
                report=True,
            )

    def choose(self, count: int) -> list[StoragePool]:
        """The pools for so many more replicas; ApiError 996."""
        diskless = [res.node.name for res in self.definition.resources if res.diskless]
        placer = Autoplacer(
            self.controller.cluster,
            self.filter,
            self.definition.size(),
            definition=self.definition,
            allowed_again=diskless,
        )
        found = placer.choose(count)
        if found is None:
            raise placer.not_enough(count)
        if found:
            check_replicas(self.controller, self.definition, found)
        return found

    def run(self, details: str) -> None:
        """Place what is missing; ApiError 996 when it cannot be done, and nothing has changed then."""
        count = self.missing()
        if count < 0:
            self._too_many(details)
        elif count == 0 and not self.filter.diskless_on_remaining:
            self._already(details)
        else:
            self.check_encryption()
            self._place(self.choose(count), details)

    def _names(self) -> str:
        return ", ".join(f"'{res.node.name}'" for res in self.definition.diskful())

    def _too_many(self, details: str) -> None:
        name, count = self.definition.name, len(self.definition.diskful())
        self.answer.warn(
            answers.WARN_RSC_ALREADY_DEPLOYED,
            f"The resource '{name}' was already deployed on {count} nodes: {self._names()}. "
            "The resource would have to be deleted from nodes to reach the placement count.",
            details=details,
        )

    def _already(self, details: str) -> None:
        count = len(self.definition.diskful())
        used = f"Used nodes: {self._names() or chr(39) * 2}\n{details}"
        self.answer.warn(
            answers.WARN_RSC_ALREADY_DEPLOYED,
            f"Resource '{self.definition.name}' was already deployed on {count} nodes. Skipping.",
            details=used,
        )

    def _place(self, pools: Sequence[StoragePool], details: str) -> None:
        for pool in pools:
            if pool.node.name in self.definition.resources:
                check_room(self.definition.resources[pool.node.name], pool)
        self.controller.satellites.prepare(self.definition, self.layers)
        created: list[Resource] = []
        toggled: list[Resource] = []
        for pool in pools:
            existing = self.definition.resources.get(pool.node.name)
            self.deployment.set_pool_entry(pool.node.name if existing else "")
            if existing is None:
                created.append(new_resource(self.definition, pool.node, pool, self.layers))
            else:
                give_disk(existing, pool, self.layers)
                toggled.append(existing)
        if self.filter.diskless_on_remaining:
            created += self._diskless_on_remaining()
        self._placed_entry(pools)
        helper = self.deployment.automatic()
        for resource in toggled:
            added_disk(self.deployment, resource)
        if toggled:
            self.deployment.joined(toggled, details)
        self.deployment.deploy(created, details, helper.created)
        self.deployment.finish(helper, details)

    def _diskless_on_remaining(self) -> list[Resource]:
        created = []
        for node in self.controller.cluster.nodes:
            if node.online and node.name not in self.definition.resources:
                self.deployment.set_pool_entry()
                created.append(
                    new_resource(
                        self.definition, node, diskless_pool(node), DEFAULT_LAYERS, {"DISKLESS", "DRBD_DISKLESS"}
                    )
                )
        return created

    def _placed_entry(self, pools: Sequence[StoragePool]) -> None:
        refs: dict[str, Optional[str]] = {}
        for index, pool in enumerate(pools):
            refs[f"Node/{index}"] = pool.node.name
            refs[f"StoragePool/{index}/0"] = f"{pool.name},{pool.kind.name}"
        # LINSTOR before 1.26 does not say where.
        if not self.controller.cluster.at_least("1.21.0"):
            refs = {}
        used = ", ".join(f"'{pool.node.name} ({pool.name})'" for pool in pools)
        self.answer.add(
            answers.CREATED,
            f"Resource '{self.definition.name}' successfully autoplaced on {len(pools)} nodes",
            details=f"Used nodes (storage pool name): {used}",
            refs=refs,
        )


def check_room(resource: Resource, pool: StoragePool) -> None:
    """ApiError 206 where a thick pool has no room for the disk that a diskless resource is to get."""
    if not Satellites.fits(replace(resource, pool=pool)):
        raise ApiError(
            answers.FAIL_INVLD_VLM_SIZE, f"Not enough free space available for volume 0 of resource '{resource.name}'."
        )


def give_disk(resource: Resource, pool: StoragePool, layers: Sequence[str]) -> None:
    """Turn a diskless resource into a replica (the model only)."""
    resource.flags -= {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER", "DRBD_CLIENT"}
    resource.pool, resource.toggled = pool, True
    resource.layers = list(layers)
    resource.props[properties.STOR_POOL_NAME] = pool.name


def added_disk(deployment: Deployment, resource: Resource) -> None:
    """The satellites' side of a disk that is added, with its entries."""
    answer, name, node = deployment.answer, deployment.name, resource.node.name
    refs = {"Node": node}
    deployment.set_pool_entry(node)
    answer.add(
        answers.MODIFIED,
        f"Addition of disk to resource '{name}' on node '{node}' registered",
        op=answers.MODIFY,
        obj=answers.RSC,
        refs=refs,
    )
    for peer in deployment.definition.resources:
        if peer is not resource and peer.deployed:
            deployment.adjusted(peer)
            answer.add(
                answers.MODIFIED,
                f"Prepared '{peer.node.name}' to expect disk on '{node}'",
                op=answers.MODIFY,
                obj=answers.RSC,
                refs=refs,
            )
    initial = not any(res.deployed and res is not resource for res in deployment.definition.diskful())
    deployment.satellites.deploy([resource], initial)
    deployment.volume_entries(resource, answers.CREATED, "created", answers.MODIFY)
    deployment.adjusted(resource)
    answer.add(answers.MODIFIED, f"Added disk on '{node}'", op=answers.MODIFY, obj=answers.RSC, refs=refs)


@route("POST", "/v1/resource-definitions/{rd}/autoplace", schema="AutoPlaceRequest")
def autoplace(controller: Controller, request: Request) -> Response:
    """Place the replicas that are missing."""
    name = request.params["rd"]
    details = f"Auto-placing resource: {name}"
    answer = Answer(Context(answers.CREATE, answers.RSC, {"RscDfn": name}, details))
    with catching(answer):
        definition = controller.definition(name)
        wanted = Filter.parse(request.body.get("select_filter"))
        # The request's own fields go over those of its filter, absent ones too.
        wanted.layer_stack = check_layers(request.body["layer_list"]) if request.body.get("layer_list") else None
        wanted.diskless_on_remaining = bool(request.body.get("diskless_on_remaining"))
        Placement(controller, definition, wanted.merged(definition.group.filter), answer).run(details)
    return respond(answer, 201)
