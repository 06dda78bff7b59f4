"""Resources: list, create, make available, delete."""

from __future__ import annotations

from typing import Any, Optional

from .. import answers, properties
from ..answers import NOT_CONNECTED_DETAILS, Answer, ApiError, Context
from ..autoplacer import Autoplacer, usable
from ..drbd import diskless_pool, new_resource
from ..model import Filter, Node, Resource, ResourceDefinition, StoragePool
from ..views import ResourceView
from .base import Controller, Request, Response, catching, name_filter, paginate, respond, route
from .definitions import in_use_error
from .deployment import Deployment
from .placement import DEFAULT_LAYERS, Placement, added_disk, check_layers, check_replicas, check_room, give_disk
from .toggle import ACTIVATION, lose_disk

_BASE = "/v1/resource-definitions/{rd}/resources"
DISKLESS_FLAGS = {"DISKLESS", "DRBD_DISKLESS", "DRBD_CLIENT", "TIE_BREAKER"}


@route("GET", _BASE)
def listing(controller: Controller, request: Request) -> Response:
    """The resources of one definition, without volumes."""
    definition = controller.read_definition(request.params["rd"])
    return Response(200, [ResourceView(controller.satellites, res).to_json(False) for res in definition.resources])


def _read(controller: Controller, request: Request) -> Resource:
    name, node = request.params["rd"], request.params["node"]
    definition = controller.cluster.definitions.get(name)
    resource = definition.resources.get(node) if definition else None
    if resource is None:
        raise ApiError(answers.FAIL_NOT_FOUND_RSC, f"Resource '{name}' on '{node}' not found.", bare=True)
    return resource


@route("GET", _BASE + "/{node}")
def show(controller: Controller, request: Request) -> Response:
    """One resource."""
    return Response(200, ResourceView(controller.satellites, _read(controller, request)).to_json(False))


@route("GET", _BASE + "/{node}/volumes")
def volumes(controller: Controller, request: Request) -> Response:
    """The volumes of one resource."""
    view = ResourceView(controller.satellites, _read(controller, request))
    return Response(200, view.to_json(True).get("volumes", []))


@route("GET", _BASE + "/{node}/volumes/{number}")
def volume(controller: Controller, request: Request) -> Response:
    """One volume of one resource."""
    resource = _read(controller, request)
    found = controller.volume(resource.definition, request.params["number"])
    return Response(200, ResourceView(controller.satellites, resource).volume_json(found))


@route("GET", "/v1/view/resources")
def view(controller: Controller, request: Request) -> Response:
    """All resources that have volumes, with their volumes."""
    for node in request.values("nodes"):
        controller.node(node)
    by_name = name_filter(request, "resources")
    definitions = [rd for rd in controller.cluster.definitions if rd.volumes and by_name(rd.name)]
    everything = not set(request.query) - {"resources"}
    chosen = set() if everything else {id(res) for res in _chosen(request, definitions)}

    def describe(definition: ResourceDefinition) -> list[dict[str, Any]]:
        return [
            ResourceView(controller.satellites, res).to_json(True)
            for res in definition.resources
            if everything or id(res) in chosen
        ]

    return Response(200, controller.serialized.items("resources" if everything else "", definitions, describe))


def _chosen(request: Request, definitions: list[ResourceDefinition]) -> list[Resource]:
    """The resources that the filters leave."""
    by_node, by_pool = name_filter(request, "nodes"), name_filter(request, "storage_pools")
    found = [
        res
        for definition in definitions
        for res in definition.resources
        if by_node(res.node.name)
        and by_pool(res.pool.name)
        and properties.matches_filters(res.props, request.values("props"))
    ]
    return paginate(request, found)


@route("POST", _BASE, schema="[ResourceCreate]")
def create(controller: Controller, request: Request) -> Response:
    """Resources on named nodes, all or none."""
    name = request.params["rd"]
    items: list[dict[str, Any]] = request.body if isinstance(request.body, list) else [request.body]
    return _create(controller, name, items)


@route("POST", _BASE + "/{node}", schema="ResourceCreate")
def create_one(controller: Controller, request: Request) -> Response:
    """A resource on the node in the path."""
    item = dict(request.body)
    item["resource"] = {**(item.get("resource") or {}), "node_name": request.params["node"]}
    return _create(controller, request.params["rd"], [item])


def _create(controller: Controller, name: str, items: list[dict[str, Any]]) -> Response:
    nodes = [str((item.get("resource") or {}).get("node_name")) for item in items]
    details = "Node(s): " + ", ".join(f"'{node}'" for node in nodes) + f", Resource: '{name}'"
    answer = Answer(Context(answers.CREATE, answers.RSC, {"RscDfn": name}, details))
    with catching(answer):
        for node in nodes:
            controller.node(node, bare=True)
        definition = controller.definition(name)
        if not items:
            raise ApiError(answers.FAIL_UNKNOWN_ERROR, "An unknown error occurred.", bare=True)
        if not _already_there(answer, definition, nodes, details):
            plans = [
                _plan(controller, answer, definition, controller.node(node), item) for node, item in zip(nodes, items)
            ]
            pools = [plan.pool for plan in plans if plan.pool is not None and not plan.diskless]
            if pools:
                check_replicas(controller, definition, pools)
            Creation(Deployment(controller, definition, answer), plans, details).run()
    return respond(answer, 201)


def _already_there(answer: Answer, definition: ResourceDefinition, nodes: list[str], details: str) -> bool:
    """A replica on one of the nodes is information, and the end of the call."""
    for node in nodes:
        resource = definition.resources.get(node)
        if resource is not None and not resource.diskless:
            answer.info(
                answers.INFO_RSC_ALREADY_EXISTS,
                f"A resource '{definition.name}' on node '{resource.node.name}' already exists.",
                cause="Resource already exists",
                details=details,
            )
            return True
    return False


class Plan:
    """What an explicit create wants on one node."""

    def __init__(
        self, node: Node, pool: Optional[StoragePool], layers: list[str], diskless: bool, props: dict[str, str]
    ) -> None:
        self.node = node
        self.pool = pool
        self.layers = layers
        self.diskless = diskless
        self.props = props


def _plan(
    controller: Controller, answer: Answer, definition: ResourceDefinition, node: Node, item: dict[str, Any]
) -> Plan:
    body = item.get("resource") or {}
    props = properties.check(body.get("props") or {})
    layers = (
        check_layers(item["layer_list"])
        if item.get("layer_list")
        else list(definition.layers or definition.group.filter.layer_stack or DEFAULT_LAYERS)
    )
    diskless = bool(set(body.get("flags") or []) & DISKLESS_FLAGS)
    existing = definition.resources.get(node.name)
    if existing is not None and diskless:
        return Plan(node, None, layers, diskless, props)
    if existing is not None:
        # A disk for a diskless resource is a toggle-disk, which modifies.
        answer.context = Context(
            answers.MODIFY,
            answers.RSC,
            {"RscDfn": definition.name, "Node": node.name},
            f"Node: {node.name}, Resource: {definition.name}",
        )
    pool = diskless_pool(node) if diskless else _named_pool(controller, definition, node, props)
    missing = [layer for layer in layers if layer not in node.layers or not node.online]
    missing = [layer for layer in missing if layer != "STORAGE"]
    if missing:
        raise ApiError(
            answers.FAIL_STLT_DOES_NOT_SUPPORT_LAYER,
            f"Satellite '{node.name}' does not support the following layers: [{', '.join(missing)}]",
            report=True,
        )
    if diskless and "DRBD" not in layers:
        raise ApiError(
            answers.FAIL_INVLD_LAYER_STACK,
            "The given storage pool is a diskless storage pool, but no "
            "layer from the given layer-list supports diskless storage pools",
            report=True,
        )
    if not diskless and definition.size() > usable(controller.cluster, pool):
        raise ApiError(
            answers.FAIL_INVLD_VLM_SIZE,
            f"Not enough free space available for volume 0 of resource '{definition.name}'.",
        )
    return Plan(node, pool, layers, diskless, props)


def _named_pool(
    controller: Controller, definition: ResourceDefinition, node: Node, props: dict[str, str]
) -> StoragePool:
    """The pool by property: resource, volume definition, definition, group, node, or the default."""
    containers = [
        props,
        *(volume.props for volume in definition.volumes.values()),
        definition.props,
        definition.group.props,
        node.props,
    ]
    given = controller.cluster.prop(containers, properties.STOR_POOL_NAME)
    from_group = definition.group.filter.storage_pool_list or []
    name = given or (from_group[0] if from_group else "DfltStorPool")
    pool = node.pools.get(name)
    if pool is None:
        if name != "DfltStorPool" and not any(name in other.pools for other in controller.cluster.nodes):
            raise ApiError(
                answers.FAIL_NOT_FOUND_STOR_POOL_DFN,
                f"Storage pool definition '{name}' not found.",
                cause=f"The specified storage pool definition '{name}' could not be found in the database",
                correction=f"Create a storage pool definition '{name}' first.",
            )
        raise not_deployed(name, definition.name, node.name)
    return pool


def not_deployed(pool: str, name: str, node: str) -> ApiError:
    """311: the pool is not on that node."""
    return ApiError(
        answers.FAIL_NOT_FOUND_DFLT_STOR_POOL,
        f"The storage pool '{pool}' for resource '{name}' for volume number '0' is not deployed on node '{node}'.",
        cause="Dependency not found",
        report=True,
        details="The resource which should be deployed had at least one volume definition (volume number '0') which "
        "LINSTOR tried to automatically create. The storage pool name for this new volume was looked for, in "
        "order, in: the properties of the resource, volume definition, resource definition and node, and "
        "finally in a system wide default storage pool name defined by the LINSTOR Controller.",
    )


class Creation:
    """Explicitly asked-for resources of one definition."""

    def __init__(self, deployment: Deployment, plans: list[Plan], details: str) -> None:
        self.deployment = deployment
        self.definition = deployment.definition
        self.answer = deployment.answer
        self.plans = plans
        self.details = details

    def run(self) -> None:
        """Create what is asked for."""
        wanted = [plan for plan in self.plans if plan.pool is not None]
        again = [self.definition.resources[plan.node.name] for plan in self.plans if plan.pool is None]
        layers = self.plans[0].layers
        self._check_encryption(layers)
        self.deployment.satellites.prepare(self.definition, layers)
        for plan in wanted:
            if plan.pool is not None and plan.node.name in self.definition.resources:
                check_room(self.definition.resources[plan.node.name], plan.pool)
        created, toggled = self._register(wanted)
        helper = self.deployment.automatic() if created or toggled else None
        for resource in [*created, *again]:
            self._unflag(resource)
            self.deployment.registered(resource)
        for resource in toggled:
            added_disk(self.deployment, resource)
        self.deployment.deploy([*created, *again], self.details, helper.created if helper else ())
        if helper:
            self.deployment.finish(helper, self.details)

    def _unflag(self, resource: Resource) -> None:
        """Asked for by name, a tie-breaker becomes a plain diskless resource."""
        if resource.tie_breaker and any(plan.node is resource.node for plan in self.plans):
            resource.flags.discard("TIE_BREAKER")

    def _check_encryption(self, layers: list[str]) -> None:
        if "LUKS" in layers and not self.deployment.cluster.passphrase.unlocked:
            raise ApiError(
                answers.FAIL_UNKNOWN_ERROR,
                "An exception occurred while creating layer data",
                cause="Unable to create encrypt key without having a master key",
                report=True,
            )

    def _register(self, wanted: list[Plan]) -> tuple[list[Resource], list[Resource]]:
        created: list[Resource] = []
        toggled: list[Resource] = []
        for plan in wanted:
            assert plan.pool is not None
            if properties.STOR_POOL_NAME in plan.props:
                self.deployment.set_pool_entry()
            existing = self.definition.resources.get(plan.node.name)
            if existing is not None:
                give_disk(existing, plan.pool, plan.layers)
                toggled.append(existing)
                continue
            flags = {"DISKLESS", "DRBD_DISKLESS"} if plan.diskless else set()
            resource = new_resource(self.definition, plan.node, plan.pool, plan.layers, flags)
            resource.props.update(plan.props)
            resource.props[properties.STOR_POOL_NAME] = plan.pool.name
            created.append(resource)
        return created, toggled


@route("POST", _BASE + "/{node}/make-available", schema="MakeAvailable", since="1.7.0")
def make_available(controller: Controller, request: Request) -> Response:
    """Whatever it takes that the device is there on the node."""
    name, node = request.params["rd"], request.params["node"]
    answer = Answer(
        Context(answers.CREATE, answers.RSC, {"RscDfn": name, "Node": node}, f"Node: {node}, Resource: '{name}'")
    )
    with catching(answer):
        definition = controller.definition(name)
        availability = Availability(Deployment(controller, definition, answer), controller.node(node), request.body)
        availability.run()
    return respond(answer)


class Availability:
    """make-available: whatever it takes that the device is there."""

    def __init__(self, deployment: Deployment, node: Node, body: dict[str, Any]) -> None:
        self.deployment = deployment
        self.definition = deployment.definition
        self.answer = deployment.answer
        self.node = node
        self.diskful = bool(body.get("diskful"))
        self.client = body.get("drbd_client", True)
        self.dual_primary = bool(body.get("auto_manage_dual_primary"))
        given = body.get("layer_list")
        self.given_layers = check_layers(given) if given else None
        self.layers = self.given_layers or list(self.definition.layers or DEFAULT_LAYERS)

    def run(self) -> None:
        """See to it that the device is there."""
        existing = self.definition.resources.get(self.node.name)
        if existing is not None:
            self._reuse(existing)
        else:
            self._place()
        if self.dual_primary:
            self._allow_two_primaries()

    def _reuse(self, resource: Resource) -> None:
        if self.given_layers and self.given_layers != resource.layers:
            raise ApiError(answers.FAIL_INVLD_LAYER_STACK, "Layerstack of deployed resource does not match")
        resource.flags -= {"DELETE", "DRBD_DELETE", "INACTIVE"}
        if resource.diskless and self.diskful:
            self._toggle(resource)
            return
        # LINSTOR before 1.23 says that all is well, and has a tie-breaker still, which it takes away when it likes.
        if self.deployment.cluster.at_least("1.19.0"):
            resource.flags.discard("TIE_BREAKER")
        self.deployment.satellites.refresh(self.definition)
        self.answer.add(0, "Resource already deployed as requested")

    def _find_pool(self) -> StoragePool:
        wanted = Filter(node_name_list=[self.node.name], layer_stack=self.layers)
        merged = wanted.merged(self.definition.group.filter)
        cluster = self.deployment.cluster
        found = Autoplacer(
            cluster, merged, self.definition.size(), definition=self.definition, allowed_again=[self.node.name]
        ).choose(1)
        if not found:
            raise self._no_pool("diskful")
        check_replicas(self.deployment.controller, self.definition, found)
        return found[0]

    def _no_pool(self, kind: str) -> ApiError:
        return ApiError(
            answers.FAIL_NOT_FOUND_STOR_POOL,
            f"Autoplacer could not find {kind} stor pool on node "
            f"{self.node.name} matching resource-groups autoplace-settings",
        )

    def _toggle(self, resource: Resource) -> None:
        pool = self._find_pool()
        check_room(resource, pool)
        give_disk(resource, pool, self.layers)
        helper = self.deployment.automatic()
        added_disk(self.deployment, resource)
        self.deployment.finish(helper)

    def _place(self) -> None:
        diskless = (
            "DRBD" in self.layers and not self.diskful and any(res.uses_drbd for res in self.definition.diskful())
        )
        if diskless and not self.node.online:
            raise self._no_pool("diskless")
        pool = diskless_pool(self.node) if diskless else self._find_pool()
        Placement(
            self.deployment.controller, self.definition, Filter(layer_stack=self.layers), self.answer
        ).check_encryption()
        self.deployment.satellites.prepare(self.definition, self.layers)
        self.deployment.set_pool_entry()
        resource = new_resource(self.definition, self.node, pool, self.layers, self._flags(diskless))
        helper = self.deployment.automatic()
        self.deployment.registered(resource)
        details = f"Node(s): '{self.node.name}', Resource: '{self.definition.name}'"
        self.deployment.deploy([resource], details, helper.created)
        self.deployment.finish(helper, details)
        self._complain_of_peers()

    def _complain_of_peers(self) -> None:
        """LINSTOR before 1.27 has done what it was asked for, and answers with an error for a peer that is offline."""
        offline = [res.node.name for res in self.definition.resources if not res.node.online]
        if offline and not self.deployment.cluster.at_least("1.22.0"):
            raise ApiError(
                answers.FAIL_NOT_CONNECTED,
                f"No active connection to satellite '{offline[0]}'",
                details="The controller is trying to (re-) establish a connection to the satellite. The controller "
                "stored the changes and as soon the satellite is connected, it will receive this update.",
            )

    def _flags(self, diskless: bool) -> set[str]:
        """Since REST 1.28 such a client does not vote."""
        if not diskless:
            return set()
        client = self.deployment.cluster.at_least("1.28.0") and self.client
        return {"DISKLESS", "DRBD_DISKLESS"} | ({"DRBD_CLIENT"} if client else set())

    def _allow_two_primaries(self) -> None:
        """auto_manage_dual_primary: between this node and the one that is Primary; both diskless: for all."""
        openings = self.deployment.satellites.openings
        others = [name for name in openings.primaries(self.definition) if name != self.node.name]
        if len(others) > 1:
            raise ApiError(
                answers.FAIL_EXISTS_LIVE_MIGRATE, f"Resource '{self.definition.name}' is already being live migrated."
            )
        for other in others:
            both = [self.definition.resources[other], self.definition.resources[self.node.name]]
            if all(res.diskless for res in both):
                self.definition.props[properties.ALLOW_TWO_PRIMARIES] = "yes"
            else:
                pair = frozenset((other.upper(), self.node.name.upper()))
                self.definition.connections.setdefault(pair, {})[properties.ALLOW_TWO_PRIMARIES] = "yes"
            self.deployment.adjust_all()


@route("POST", _BASE + "/{node}/unmake-available", schema="UnmakeAvailable", optional_body=True, since="1.29.0")
def unmake_available(controller: Controller, request: Request) -> Response:
    """Take a diskless resource away, and two primaries with it; never a replica."""
    name, node = request.params["rd"], request.params["node"]
    answer = Answer(
        Context(answers.DELETE, answers.RSC, {"RscDfn": name, "Node": node}, f"Node: {node}, Resource: {name}")
    )
    with catching(answer):
        controller.node(node)
        definition = controller.cluster.definitions.get(name)
        resource = definition.resources.get(node) if definition else None
        if definition is None or resource is None:
            answer.warn(answers.WARN_NOT_FOUND, f"Node: {node}, Resource: {name} not found.")
            return respond(answer)
        definition.props.pop(properties.ALLOW_TWO_PRIMARIES, None)
        for pair, props in definition.connections.items():
            if node.upper() in pair:
                props.pop(properties.ALLOW_TWO_PRIMARIES, None)
        if not resource.diskless:
            answer.warn(0, f"Resource '{name}' on node '{node}' is diskful, not deleting it")
        elif resource.tie_breaker:
            answer.info(answers.INFO_NOOP, "Resource is a tie breaker, not deleting it")
        else:
            Deletion(Deployment(controller, definition, answer), resource, True).run()
    return respond(answer)


@route("PUT", _BASE + "/{node}", schema="PropsModify")
def modify(controller: Controller, request: Request) -> Response:
    """Properties of one resource."""
    name, node = request.params["rd"], request.params["node"]
    answer = Answer(
        Context(answers.MODIFY, answers.RSC, {"RscDfn": name, "Node": node}, f"Node: {node}, Resource: {name}")
    )
    with catching(answer):
        definition = controller.definition(name)
        controller.node(node)
        resource = controller.resource(definition, node)
        properties.modify(answer, answers.RSC, resource.props, request.body)
        described = f"Resource '{name}' on node '{node}'"
        answer.add(
            answers.MODIFIED,
            f"{described} modified.",
            details=f"{described} UUID is: {resource.uuid}",
            refs={"UUID": resource.uuid},
        )
        Deployment(controller, definition, answer).adjust_all()
    return respond(answer)


@route("DELETE", _BASE + "/{node}")
def delete(controller: Controller, request: Request) -> Response:
    """One resource, replica or not; absent is a warning."""
    name, node = request.params["rd"], request.params["node"]
    answer = Answer(
        Context(answers.DELETE, answers.RSC, {"RscDfn": name, "Node": node}, f"Node: {node}, Resource: {name}")
    )
    definition = controller.cluster.definitions.get(name)
    resource = definition.resources.get(node) if definition else None
    if definition is None or resource is None:
        answer.warn(
            answers.WARN_NOT_FOUND,
            f"Node: {node}, Resource: {name} not found.",
            details=f"Node: {node}, Resource: {name}",
        )
        return respond(answer)
    with catching(answer):
        keep = request.flag("keep_tiebreaker") and controller.cluster.at_least("1.23.0")
        Deletion(Deployment(controller, definition, answer), resource, keep).run()
    return respond(answer)


class Deletion:
    """DELETE of one resource, tie-breaker rules included."""

    def __init__(self, deployment: Deployment, resource: Resource, keep_tiebreaker: bool) -> None:
        self.deployment = deployment
        self.definition = deployment.definition
        self.answer = deployment.answer
        self.resource = resource
        self.keep_tiebreaker = keep_tiebreaker

    def run(self) -> None:
        """Delete, or let it be taken over as the tie-breaker."""
        self._check()
        self._activate()
        if not self.resource.uses_drbd:
            self._delete()
            return
        self.resource.flags.add("DRBD_DELETE")
        helper = self.deployment.automatic(self.keep_tiebreaker)
        if helper.taken_over is not None:
            self._taken_over(helper.taken_over)
        else:
            self._delete()
        self.deployment.finish(helper)

    def _check(self) -> None:
        resource = self.resource
        if resource.uses_drbd and self.deployment.satellites.openings.in_use(resource):
            raise in_use_error(resource, False)
        others = [res for res in self.definition.diskful() if res is not resource and not res.deleting]
        users = [res for res in self.definition.resources if res.diskless and not res.tie_breaker and not res.deleting]
        if not resource.diskless and not others and users:
            raise ApiError(
                answers.FAIL_IN_USE,
                f"Last resource of '{self.definition.name}' with disk still has diskless resources attached.",
                cause="Resource still has diskless users.",
                correction="Before deleting this resource, delete the diskless resources attached to it.",
            )

    def _activate(self) -> None:
        """An inactive resource is activated before it goes."""
        if not self.resource.inactive:
            return
        self.resource.flags.discard("INACTIVE")
        for own, others in ACTIVATION:
            for other in self.definition.resources:
                if not other.node.online:
                    self.answer.warn(
                        answers.WARN_NOT_CONNECTED,
                        op=answers.MODIFY,
                        details=NOT_CONNECTED_DETAILS,
                        message=f"No active connection to satellite '{other.node.name}'",
                    )
                text = own if other is self.resource else others
                self.answer.add(answers.MODIFIED, f"{text} on '{other.node.name}'", op=answers.MODIFY)

    def _taken_over(self, resource: Resource) -> None:
        if not resource.diskless:
            lose_disk(self.deployment, resource)
        resource.flags |= {"DISKLESS", "DRBD_DISKLESS", "TIE_BREAKER"}
        self.deployment.satellites.refresh(self.definition)
        for other in self.definition.resources:
            self.deployment.adjusted(other)
            self.answer.add(answers.MODIFIED, f"Resource '{self.definition.name}' updated on node '{other.node.name}'")

    def _delete(self) -> None:
        name, node, resource = self.definition.name, self.resource.node.name, self.resource
        resource.flags.add("DRBD_DELETE")
        uuid = f"Node: {node}, Resource: {name} UUID is: {resource.uuid}"
        self.answer.add(answers.DELETED, f"Node: {node}, Resource: {name} preparing for deletion.", details=uuid)
        for other in self.definition.resources:
            if other is not resource:
                self.deployment.adjusted(other)
            self.answer.add(answers.MODIFIED, f"Preparing deletion of resource on '{other.node.name}'")
        resource.flags.add("DELETE")
        helper = self.deployment.automatic(self.keep_tiebreaker) if resource.uses_drbd else None
        self.answer.add(answers.DELETED, f"Node: {node}, Resource: {name} marked for deletion.", details=uuid)
        self.deployment.clean_up(resource)
        if helper:
            self.deployment.finish(helper)
