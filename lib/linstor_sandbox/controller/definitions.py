"""Resource definitions: create, list, modify, delete."""

from __future__ import annotations

from typing import Any

from .. import answers, names, properties
from ..answers import Answer, ApiError, Context
from ..model import DEFAULT_GROUP, Resource, ResourceDefinition, VolumeDefinition
from ..views import definition_json
from .base import Controller, Request, Response, catching, name_filter, paginate, respond, route
from .deployment import Deployment
from .placement import check_layers
from .sizes import check_peer_slots, check_size


def exists(name: str) -> ApiError:
    """501: the name is taken."""
    return ApiError(
        answers.FAIL_EXISTS_RSC_DFN,
        f"A resource definition with the name '{name}' already exists",
        cause="The ResourceDefinition already exists",
    )


def check_new_name(controller: Controller, name: str) -> None:
    """ApiError 202 or 501 for a name that cannot be created."""
    names.check_resource_name(name)
    if name in controller.cluster.definitions:
        raise exists(name)


def choose_name(controller: Controller, name: str, external: str) -> str:
    """The name to create: the given one, or one made from the external name."""
    if external and any(rd.external_name == external for rd in controller.cluster.definitions):
        raise ApiError(answers.FAIL_EXISTS_EXT_NAME, "The specified external name is already registered", report=True)
    if name or not external:
        check_new_name(controller, name)
        return name
    made = base = names.name_from_external(external)
    serial = 0
    while made in controller.cluster.definitions:
        serial += 1
        made = f"{base}_{serial}"
    return made


def _layers(answer: Answer, given: list[dict[str, Any]]) -> list[str]:
    stack = [str(layer.get("type")) for layer in given]
    full = check_layers(stack) if stack else []
    if full != stack:
        answer.bare_warning(
            answers.WARN_LAYER_STACK_EXTENDED,
            "The layerstack was extended with STORAGE kind.",
            details="Layer stacks have to be based on STORAGE kind. Layers configured to be diskless\n"
            "will not use the additional STORAGE layer.",
        )
    return full


def warn_missing_passphrase(controller: Controller, answer: Answer, layers: list[str]) -> None:
    """LUKS is accepted before there is a passphrase, with a warning."""
    if "LUKS" in layers and not controller.cluster.passphrase.unlocked:
        answer.bare_warning(
            answers.WARN_NOT_FOUND_CRYPT_KEY,
            "The master key has not yet been set. Creating volume definitions within "
            "\nan encrypted resource definition will fail!",
            correction="Create  the master passphrase, or remove the luks layer from the stack",
        )


def created_entry(answer: Answer, definition: ResourceDefinition) -> None:
    """The entry of a new resource definition."""
    name = definition.name
    answer.add(
        answers.CREATED,
        f"New resource definition '{name}' created.",
        obj=answers.RSC_DFN,
        details=f"Resource definition '{name}' UUID is: {definition.uuid}",
        refs={"UUID": definition.uuid, "RscDfn": name},
    )


@route("POST", "/v1/resource-definitions", schema="ResourceDefinitionCreate", parse_status=400)
def create(controller: Controller, request: Request) -> Response:
    """A new definition, by name or from an external name."""
    body = request.body.get("resource_definition") or {}
    name = body.get("name") or ""
    answer = Answer(Context(answers.CREATE, answers.RSC_DFN, {"RscDfn": name}, f"Resource definition: {name}"))
    with catching(answer):
        definition = _build(controller, answer, body, request.body)
        controller.cluster.definitions[definition.name] = definition
    for entry in answer.entries:
        if definition_created(entry):
            entry["obj_refs"]["RscDfn"] = definition.name
    return respond(answer, 201)


def definition_created(entry: dict[str, Any]) -> bool:
    """Whether an entry is the one of the new definition."""
    return "UUID" in entry.get("obj_refs", {})


def _build(controller: Controller, answer: Answer, body: dict[str, Any], outer: dict[str, Any]) -> ResourceDefinition:
    external = body.get("external_name") or ""
    name = choose_name(controller, body.get("name") or "", external)
    group_name = body.get("resource_group_name") or DEFAULT_GROUP
    group = controller.cluster.groups.get(group_name)
    if group is None:
        raise ApiError(
            answers.FAIL_NOT_FOUND_RSC_GRP, f"Resource group '{group_name}' could not be found.", report=True
        )
    props = properties.check(body.get("props") or {})
    layers = _layers(answer, body.get("layer_data") or [])
    definition = ResourceDefinition(name, group, external, props, layers=layers)
    below = next((layer.get("data") or {} for layer in body.get("layer_data") or [] if layer.get("type") == "DRBD"), {})
    definition.peer_slots = check_peer_slots(outer.get("drbd_peer_slots")) or group.peer_slots or 7
    definition.port = int(outer.get("drbd_port") or below.get("port") or -1)
    definition.secret = outer.get("drbd_secret") or below.get("secret") or ""
    for index, volume in enumerate(body.get("volume_definitions") or []):
        number = int(volume.get("volume_number", index))
        check_size(name, number, int(volume.get("size_kib") or 0))
        definition.volumes[number] = VolumeDefinition(
            number, int(volume["size_kib"]), properties.check(volume.get("props") or {})
        )
    if layers:
        controller.satellites.prepare(definition, layers)
    warn_missing_passphrase(controller, answer, layers)
    if props:
        answer.add(answers.CREATED, "Successfully set property key(s): " + ",".join(props))
        del answer.entries[-1]["obj_refs"]
    for number in sorted(definition.volumes):
        answer.add(
            answers.CREATED,
            f"Volume definition with number '{number}' successfully  created in resource definition '{name}'.",
            obj=answers.VLM_DFN,
            refs={"VlmNr": str(number)},
        )
    created_entry(answer, definition)
    return definition


@route("GET", "/v1/resource-definitions")
def listing(controller: Controller, request: Request) -> Response:
    """All, or those that the filters leave."""
    wanted = name_filter(request, "resource_definitions")
    found = [
        rd
        for rd in controller.cluster.definitions
        if wanted(rd.name) and properties.matches_filters(rd.props, request.values("props"))
    ]
    with_volumes = request.flag("with_volume_definitions")

    def describe(definition: ResourceDefinition) -> list[dict[str, Any]]:
        return [definition_json(definition, with_volumes)]

    kind = f"definition {with_volumes}"
    return Response(200, controller.serialized.items(kind, paginate(request, found), describe))


@route("GET", "/v1/resource-definitions/{rd}")
def show(controller: Controller, request: Request) -> Response:
    """One, without its volume definitions whatever the query says."""
    return Response(200, definition_json(controller.read_definition(request.params["rd"])))


@route("PUT", "/v1/resource-definitions/{rd}", schema="ResourceDefinitionModify")
def modify(controller: Controller, request: Request) -> Response:
    """Properties, group, port and peer slots."""
    name, body = request.params["rd"], request.body
    answer = Answer(Context(answers.MODIFY, answers.RSC_DFN, {"RscDfn": name}, f"Resource definition: {name}"))
    with catching(answer):
        definition = controller.definition(name)
        group = controller.group(body["resource_group"]) if body.get("resource_group") else definition.group
        had_quorum = properties.QUORUM in (body.get("override_props") or {})
        changed = properties.modify(answer, answers.RSC_DFN, definition.props, body)
        changed = changed or definition.group is not group or bool(body.get("drbd_port"))
        definition.group = group
        if body.get("drbd_port"):
            definition.tcp_port = int(body["drbd_port"])
        definition.peer_slots = check_peer_slots(body.get("drbd_peer_slots")) or definition.peer_slots
        if had_quorum:
            definition.props[properties.QUORUM_SET_BY] = "user"
        elif properties.QUORUM in (body.get("delete_props") or []):
            definition.props.pop(properties.QUORUM_SET_BY, None)
        _apply(controller, answer, definition, changed)
    return respond(answer)


def _apply(controller: Controller, answer: Answer, definition: ResourceDefinition, changed: bool) -> None:
    deployment = Deployment(controller, definition, answer)
    helper = deployment.automatic() if len(definition.resources) else None
    answer.add(
        answers.MODIFIED,
        f"Resource definition '{definition.name}' modified.",
        details=f"Resource definition '{definition.name}' UUID is: {definition.uuid}",
        refs={"UUID": definition.uuid},
    )
    if changed:
        deployment.adjust_all()
        controller.satellites.refresh(definition)
        for resource in definition.resources:
            if not resource.node.online:
                answer.not_connected(resource.node.name)
    if helper:
        deployment.finish(helper)


def in_use_error(resource: Resource, named_node: bool) -> ApiError:
    """997: somebody has the device open for writing."""
    name, node = resource.name, resource.node.name
    where = f" on node '{node}'" if named_node else ""
    return ApiError(
        answers.FAIL_IN_USE,
        f"Resource '{name}'{where} is still in use.",
        cause="Resource is mounted/in use.",
        correction=f"Un-mount resource '{name}' on the node '{node}'.",
    )


@route("DELETE", "/v1/resource-definitions/{rd}")
def delete(controller: Controller, request: Request) -> Response:
    """The definition with all its resources; absent is a warning."""
    name = request.params["rd"]
    answer = Answer(Context(answers.DELETE, answers.RSC_DFN, {"RscDfn": name}, f"Resource definition: {name}"))
    definition = controller.cluster.definitions.get(name)
    if definition is None:
        answer.warn(
            answers.WARN_NOT_FOUND, f"Resource definition: {name} not found.", details=f"Resource definition: {name}"
        )
        return respond(answer)
    with catching(answer):
        if len(definition.snapshots):
            raise ApiError(
                answers.FAIL_EXISTS_SNAPSHOT_DFN,
                f"Cannot delete resource definition '{definition.name}' because it has snapshots.",
                report=True,
            )
        busy = controller.satellites.openings.first_in_use(definition)
        if busy is not None:
            # LINSTOR 1.31 to 1.33.1 marked first and looked then.
            if controller.cluster.at_least("1.25.0") and not controller.cluster.at_least("1.27.0"):
                definition.flags.add("DELETE")
            raise in_use_error(busy, True)
        delete_definition(Deployment(controller, definition, answer))
    return respond(answer)


def delete_definition(deployment: Deployment) -> bool:
    """Delete all resources and the definition; False when something stays marked DELETE."""
    answer, definition, name = deployment.answer, deployment.definition, deployment.name
    if len(definition.resources):
        delete_resources(deployment)
    if len(definition.resources):
        definition.flags.add("DELETE")
        return False
    forget(deployment, definition)
    answer.add(
        answers.DELETED,
        f"Resource definition '{name}' deleted.",
        details=f"Resource definition '{name}' UUID was: {definition.uuid}",
    )
    return True


def forget(deployment: Deployment, definition: ResourceDefinition) -> None:
    """Take a definition out of the cluster."""
    deployment.satellites.forget_orphans(definition)
    deployment.satellites.refresh(definition)
    deployment.cluster.definitions.pop(definition.name)


def delete_resources(deployment: Deployment) -> None:
    """All resources of a definition, diskless ones first; where one node fails, all of its kind stay marked."""
    answer, definition, name = deployment.answer, deployment.definition, deployment.name
    answer.add(answers.DELETED, f"Resource definition '{name}' marked for deletion.")
    everything = sorted(definition.resources, key=lambda res: not res.diskless)
    if any(not resource.node.online for resource in everything):
        _wait_for_node(deployment, everything)
        return
    by_steps = everything[0].diskless
    for diskless in (True, False):
        chosen = [resource for resource in everything if resource.diskless == diskless]
        for resource in chosen:
            resource.flags.add("DELETE")
        done = [resource for resource in chosen if _deleted_on_node(deployment, resource, by_steps)]
        if done != chosen:
            return
        for resource in chosen:
            deployment.satellites.remove(resource)


def _deleted_on_node(deployment: Deployment, resource: Resource, by_steps: bool) -> bool:
    answer, name, node = deployment.answer, deployment.name, resource.node.name
    if deployment.refused(resource):
        return False
    if resource.uses_drbd and resource.deployed:
        if not resource.diskless:
            deployment.adjusted(resource)
        answer.add(answers.DELETED, f"({node}) Resource '{name}' [DRBD] deleted.", obj=answers.RSC)
    deployment.volume_entries(resource, answers.DELETED, "deleted")
    answer.add(answers.MODIFIED, f"Resource '{name}' on '{node}' marked for deletion")
    if by_steps and not resource.diskless and resource.uses_drbd:
        answer.add(answers.MODIFIED, f"Resource '{name}' on '{node}' deleted")
    return True


def _wait_for_node(deployment: Deployment, resources: list[Resource]) -> None:
    """With a node that is not connected everything stays until that node is back; replicas are not even marked."""
    answer, name = deployment.answer, deployment.name
    for resource in resources:
        node = resource.node.name
        if resource.diskless or not resource.node.online:
            resource.flags.add("DELETE")
        if not resource.node.online:
            answer.not_connected(node)
            continue
        if resource.diskless and resource.uses_drbd:
            answer.add(answers.DELETED, f"({node}) Resource '{name}' [DRBD] deleted.", obj=answers.RSC)
        else:
            deployment.adjusted(resource)
        answer.add(answers.MODIFIED, f"Resource '{name}' on '{node}' marked for deletion")


@route("GET", "/v1/resource-definitions/{rd}/sync-status")
def sync_status(controller: Controller, request: Request) -> Response:
    """Whether all replicas that are known of are UpToDate."""
    definition = controller.definition(request.params["rd"])
    known = [res for res in definition.diskful() if res.node.online and res.uses_drbd]
    return Response(200, {"synced_on_all": all(res.state() == "UpToDate" for res in known)})
