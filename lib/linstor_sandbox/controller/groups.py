"""Resource groups: create, modify, volume groups, spawn, what fits."""

from __future__ import annotations

from typing import Any

from .. import answers, names, properties
from ..answers import Answer, ApiError, Context
from ..autoplacer import Autoplacer, size_info
from ..model import DEFAULT_GROUP, Filter, ResourceDefinition, ResourceGroup, VolumeGroup
from ..views import group_json, present, volume_group_json
from .base import Controller, Request, Response, catching, name_filter, respond, route
from .definitions import choose_name, created_entry
from .deployment import Deployment
from .placement import DEFAULT_LAYERS, Placement, check_layers
from .sizes import check_peer_slots, check_size
from .volumes import new_volume

_BASE = "/v1/resource-groups"


def _answer(operation: int, name: str, obj: int = answers.RSC_GRP) -> Answer:
    return Answer(Context(operation, obj, {"RscGrp": name}, f"Resource group: {name}"))


@route("GET", _BASE)
def listing(controller: Controller, request: Request) -> Response:
    """All groups."""
    wanted = name_filter(request, "resource_groups")
    found = [
        group
        for group in controller.cluster.groups
        if wanted(group.name) and properties.matches_filters(group.props, request.values("props"))
    ]
    return Response(200, [group_json(group) for group in found])


def read_group(controller: Controller, name: str) -> ResourceGroup:
    """A group for GET requests; ApiError 317 that says less."""
    found = controller.cluster.groups.get(name)
    if found is None:
        raise ApiError(answers.FAIL_NOT_FOUND_RSC_GRP, f"Resource group '{name}' not found.", bare=True)
    return found


@route("GET", _BASE + "/{group}")
def show(controller: Controller, request: Request) -> Response:
    """One group."""
    return Response(200, group_json(read_group(controller, request.params["group"])))


def _unknown_pools(controller: Controller, wanted: Filter) -> list[str]:
    return [
        name
        for name in wanted.storage_pool_list or []
        if not any(name in node.pools for node in controller.cluster.nodes)
    ]


@route("POST", _BASE, schema="ResourceGroup", parse_status=400)
def create(controller: Controller, request: Request) -> Response:
    """A new group; properties in the body are ignored, as the real controller does."""
    body = request.body
    name = body.get("name") or ""
    answer = _answer(answers.CREATE, name)
    with catching(answer):
        names.check_group_name(name)
        if name in controller.cluster.groups:
            raise ApiError(
                answers.FAIL_EXISTS_RSC_GRP,
                f"A Resource group: {name} already exists.",
                cause="The ResourceGroup already exists",
            )
        wanted = Filter.parse(body.get("select_filter"))
        if wanted.layer_stack:
            check_layers(wanted.layer_stack)
        unknown = _unknown_pools(controller, wanted)
        if unknown:
            answer.bare_warning(
                answers.WARN_NOT_FOUND,
                "The following configured storage pools do not exist on any node:\n\t" + "\n\t".join(unknown),
            )
        group = ResourceGroup(
            name, body.get("description") or "", wanted, peer_slots=check_peer_slots(body.get("peer_slots"))
        )
        controller.cluster.groups[name] = group
        answer.add(
            answers.CREATED,
            f"New resource group '{name}' created.",
            details=f"Resource group '{name}' UUID is: {group.uuid}",
            refs={"UUID": group.uuid},
        )
    return respond(answer, 201)


@route("PUT", _BASE + "/{group}", schema="ResourceGroupModify")
def modify(controller: Controller, request: Request) -> Response:
    """Properties and filter; a higher place count is carried out at once."""
    name, body = request.params["group"], request.body
    answer = _answer(answers.CREATE, name)
    with catching(answer):
        group = controller.group(name)
        before = group.filter.place_count
        properties.modify(answer, answers.RSC_DFN, group.props, body)
        if body.get("select_filter") is not None:
            group.filter = Filter.parse(body["select_filter"]).merged(group.filter)
            for key, value in body["select_filter"].items():
                if value == []:
                    setattr(group.filter, key, None)
        if body.get("description") is not None:
            group.description = body["description"]
        if body.get("peer_slots") is not None:
            group.peer_slots = check_peer_slots(body["peer_slots"])
        answer.add(
            answers.MODIFIED,
            f"Resource group '{group.name}' modified.",
            details=f"Resource group '{group.name}' UUID is: {group.uuid}",
            refs={"UUID": group.uuid},
        )
        if (group.filter.place_count or 0) > (before or 0):
            _fill_up(controller, group, answer)
        _push(controller, group, answer)
    return respond(answer)


def _fill_up(controller: Controller, group: ResourceGroup, answer: Answer) -> None:
    """Give the group's definitions the replicas that it now asks for."""
    for definition in controller.cluster.definitions:
        if definition.group is not group:
            continue
        name = definition.name
        below = Answer(
            Context(
                answers.CREATE, answers.RSC, {"RscDfn": name, "RscGrp": group.name}, f"Auto-placing resource: {name}"
            )
        )
        placement = Placement(controller, definition, group.filter, below)
        with catching(below):
            if placement.missing() > 0:
                placement.run(f"Auto-placing resource: {name}")
        answer.entries += below.entries


def _push(controller: Controller, group: ResourceGroup, answer: Answer) -> None:
    """Tell the satellites of a changed group."""
    for definition in controller.cluster.definitions:
        if definition.group is group:
            deployment = Deployment(controller, definition, answer)
            for resource in definition.resources:
                deployment.adjusted(resource)
                answer.add(
                    answers.MODIFIED, f"Updated Resource definition '{definition.name}' on '{resource.node.name}'"
                )


@route("POST", _BASE + "/{group}/adjust", schema="Any", optional_body=True)
def adjust(controller: Controller, request: Request) -> Response:
    """Give a group's definitions the replicas that it asks for."""
    answer = _answer(answers.CREATE, request.params["group"])
    with catching(answer):
        group = controller.group(request.params["group"])
        for definition in controller.cluster.definitions:
            if definition.group is group and len(definition.resources):
                Placement(controller, definition, group.filter, answer).run(f"Resource group: {group.name}")
    return respond(answer)


@route("POST", _BASE + "/adjustall", schema="Any", optional_body=True)
def adjust_all(controller: Controller, _request: Request) -> Response:
    """Give the definitions of all groups the replicas that they ask for."""
    answer = Answer(Context(answers.CREATE, answers.RSC_GRP, {}, "All resource groups"))
    with catching(answer):
        for definition in controller.cluster.definitions:
            if definition.volumes:
                Placement(controller, definition, definition.group.filter, answer).run("All resource groups")
    return respond(answer)


@route("DELETE", _BASE + "/{group}")
def delete(controller: Controller, request: Request) -> Response:
    """A group that no definition uses."""
    name = request.params["group"]
    answer = _answer(answers.CREATE, name)
    group = controller.cluster.groups.get(name)
    if group is None:
        answer.warn(answers.WARN_NOT_FOUND, f"Resource group '{name}' not found.", details=f"Resource group: {name}")
        return respond(answer)
    with catching(answer):
        if any(definition.group is group for definition in controller.cluster.definitions):
            raise ApiError(
                answers.FAIL_EXISTS_RSC_DFN,
                f"Cannot delete resource group '{group.name}' because it has existing resource definitions.",
            )
        if group.name == DEFAULT_GROUP:
            raise ApiError(answers.FAIL_INVLD_RSC_GRP_NAME, "Cannot delete default resource group!")
        controller.cluster.groups.pop(name)
        answer.add(
            answers.DELETED,
            f"Resource group '{group.name}' deleted.",
            details=f"Resource group '{group.name}' UUID was: {group.uuid}",
            refs={"UUID": group.uuid},
        )
    return respond(answer)


@route("GET", _BASE + "/{group}/volume-groups")
def volume_groups(controller: Controller, request: Request) -> Response:
    """All volume groups of a group."""
    group = read_group(controller, request.params["group"])
    return Response(200, [volume_group_json(found) for _, found in sorted(group.volume_groups.items())])


@route("POST", _BASE + "/{group}/volume-groups", schema="VolumeGroup", parse_status=400, optional_body=True)
def create_volume_group(controller: Controller, request: Request) -> Response:
    """A new volume group, as long as nothing was made from the group."""
    name, body = request.params["group"], request.body
    group = controller.cluster.groups.get(name)
    taken = group.volume_groups if group else {}
    number = int(body["volume_number"]) if body.get("volume_number") is not None else len(taken)
    answer = _answer(answers.CREATE, name, answers.VLM_GRP)
    answer.context.refs = {"RscGrp": name, "VlmGrp": name, "VlmNr": str(number)}
    answer.context.description = (
        f"Resource group: {name}, Volume number: {number}\nVolume groups for resource group '{name}'"
    )
    with catching(answer):
        _create_volume_group(controller, answer, controller.group(name), number, body)
    return respond(answer, 201)


def _create_volume_group(
    controller: Controller, answer: Answer, group: ResourceGroup, number: int, body: dict[str, Any]
) -> None:
    if number in group.volume_groups:
        raise ApiError(
            answers.FAIL_EXISTS_VLM_GRP,
            f"A volume group with the number {number} already exists in resource group '{group.name}'.",
            cause="The VolumeGroup already exists",
            obj=answers.VLM_DFN,
        )
    if any(definition.group is group for definition in controller.cluster.definitions):
        raise ApiError(
            answers.FAIL_EXISTS_RSC_DFN,
            "Volume group cannot be created while the resource group has already resource definitions.",
        )
    props = properties.check(body.get("props") or {})
    group.volume_groups[number] = VolumeGroup(number, props, list(body.get("flags") or []))
    answer.add(answers.CREATED, f"New volume group with number '{number}' of resource group '{group.name}' created.")


@route("PUT", _BASE + "/{group}/volume-groups/{number}", schema="VolumeGroupModify")
def modify_volume_group(controller: Controller, request: Request) -> Response:
    """Properties and flags."""
    answer = _answer(answers.MODIFY, request.params["group"], answers.VLM_GRP)
    with catching(answer):
        group = controller.group(request.params["group"])
        found = group.volume_groups.get(int(request.params["number"]))
        if found is None:
            raise ApiError(answers.FAIL_NOT_FOUND_VLM_GRP, "Volume group not found.")
        properties.modify(answer, answers.VLM_GRP, found.props, request.body)
        if request.body.get("flags") is not None:
            found.flags = list(request.body["flags"])
        answer.add(
            answers.MODIFIED, f"Volume group with number '{found.number}' of resource group '{group.name}' modified."
        )
    return respond(answer)


class Spawn:
    """One call that makes a definition, its volume definitions and its resources, or nothing."""

    def __init__(self, controller: Controller, answer: Answer, group: ResourceGroup, body: dict[str, Any]) -> None:
        self.controller = controller
        self.answer = answer
        self.group = group
        self.body = body
        self.filter = Filter.parse(body.get("select_filter")).merged(group.filter)
        self.sizes = [int(size) for size in body.get("volume_sizes") or []]

    def run(self) -> None:
        """Spawn, or leave nothing behind."""
        definition = self._define()
        self.controller.cluster.definitions[definition.name] = definition
        try:
            self._place(definition)
        except ApiError:
            self.controller.cluster.definitions.pop(definition.name)
            raise

    def _define(self) -> ResourceDefinition:
        name = choose_name(
            self.controller,
            self.body.get("resource_definition_name") or "",
            self.body.get("resource_definition_external_name") or "",
        )
        self._check_sizes()
        props = properties.check(self.body.get("resource_definition_props") or {})
        layers = check_layers(self.filter.layer_stack or DEFAULT_LAYERS)
        definition = ResourceDefinition(
            name, self.group, self.body.get("resource_definition_external_name") or "", props, layers=layers
        )
        definition.peer_slots = check_peer_slots(self.body.get("peer_slots")) or self.group.peer_slots or 7
        for number, size in self._numbered():
            check_size(name, number, size)
            flags = list(self.group.volume_groups[number].flags) if number in self.group.volume_groups else []
            definition.volumes[number] = new_volume(number, size, {}, flags)
        self._define_entries(definition)
        return definition

    def _numbered(self) -> list[tuple[int, int]]:
        numbers = sorted(self.group.volume_groups)
        extra = (number for number in range(len(self.sizes) + len(numbers)) if number not in self.group.volume_groups)
        return [
            (numbers[index] if index < len(numbers) else next(extra), size) for index, size in enumerate(self.sizes)
        ]

    def _check_sizes(self) -> None:
        count, name = len(self.group.volume_groups), self.group.name
        assumes = self.controller.cluster.at_least("1.16.0")
        if not count and assumes and not self.body.get("partial"):
            self.answer.info(0, "Resource-group doesn't have any volume-groups, automatically assume partial mode.")
        elif len(self.sizes) != count and not self.body.get("partial"):
            raise ApiError(
                answers.FAIL_INVLD_VLM_SIZES,
                f"Invalid count of volume sizes to spawn resource group '{name}'",
                details=f"The resource group '{name}' has {count} Volume groups, but only {len(self.sizes)} sizes "
                "were provided.",
                correction="Either provide the correct count of volume sizes or use the 'partial' option",
            )

    def _define_entries(self, definition: ResourceDefinition) -> None:
        given = self.body.get("resource_definition_name") or ""
        if definition.props:
            self.answer.add(
                answers.CREATED, "Successfully set property key(s): " + ",".join(definition.props), obj=answers.RSC_DFN
            )
        for number in sorted(definition.volumes):
            self.answer.add(
                answers.CREATED,
                f"Volume definition with number '{number}' successfully  created in resource definition '{given}'.",
                obj=answers.VLM_DFN,
                refs={"VlmNr": str(number)},
            )
        created_entry(self.answer, definition)

    def _place(self, definition: ResourceDefinition) -> None:
        if self.body.get("definitions_only") or self.filter.place_count is None:
            reasons = []
            if self.filter.place_count is None:
                reasons.append("No autoplace configuration in the given resource group (at least place-count required)")
            if self.body.get("definitions_only"):
                reasons.append("--definitions-only was set")
            self.controller.satellites.prepare(definition, definition.layers)
            self.answer.info(
                answers.INFO_NO_RSC_SPAWNED,
                f"Resource definition {definition.name} and "
                f"{len(definition.volumes)} created but no resources deployed",
                cause=" and ".join(reasons),
            )
            return
        Placement(self.controller, definition, self.filter, self.answer).run(f"Resource group: {self.group.name}")


@route("POST", _BASE + "/{group}/spawn", schema="Spawn")
def spawn(controller: Controller, request: Request) -> Response:
    """A definition with volumes and resources in one call."""
    group_name, name = request.params["group"], request.body.get("resource_definition_name") or ""
    answer = _answer(answers.CREATE, group_name)
    answer.context.refs = {"RscDfn": name, "RscGrp": group_name}
    with catching(answer):
        Spawn(controller, answer, controller.group(group_name), request.body).run()
    return respond(answer, 201)


@route("POST", _BASE + "/{group}/query-size-info", schema="QuerySizeInfo", optional_body=True, since="1.17.0")
def query_size_info(controller: Controller, request: Request) -> Response:
    """What fits; 200 even where it is an error."""
    group = controller.cluster.groups.get(request.params["group"])
    if group is None:
        report = answers.plain_error(
            answers.FAIL_NOT_FOUND_RSC_GRP, f"Resource group '{request.params['group']}' not found."
        )
        return Response(200, {"reports": report})
    wanted = Filter.parse((request.body or {}).get("select_filter")).merged(group.filter)
    return Response(200, {"space_info": size_info(controller.cluster, wanted)})


@route("GET", _BASE + "/{group}/query-max-volume-size")
def query_max_volume_size(controller: Controller, request: Request) -> Response:
    """The older call for what fits."""
    group = read_group(controller, request.params["group"])
    placer = Autoplacer(controller.cluster, group.filter, 0)
    pools = placer.choose(group.filter.place_count or 0) or []
    candidates = (
        [
            present(
                storage_pool=pools[0].name,
                max_volume_size_kib=min(pool.free() for pool in pools),
                node_names=[pool.node.name for pool in pools],
                all_thin=all(pool.kind.thin for pool in pools),
            )
        ]
        if pools
        else []
    )
    return Response(200, {"candidates": candidates, "default_max_oversubscription_ratio": 20.0})


@route("POST", "/v1/queries/resource-groups/query-all-size-info", schema="Any", optional_body=True, since="1.19.0")
def query_all_size_info(controller: Controller, _request: Request) -> Response:
    """What fits, of every group."""
    groups = controller.cluster.groups.values()
    return Response(
        200, {"result": {group.name: {"space_info": size_info(controller.cluster, group.filter)} for group in groups}}
    )
