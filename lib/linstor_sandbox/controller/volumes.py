"""Volume definitions: create, list, resize, delete."""

from __future__ import annotations

import secrets
from typing import Any

from .. import answers, properties
from ..answers import Answer, ApiError, Context
from ..autoplacer import usable
from ..model import ResourceDefinition, VolumeDefinition
from ..views import volume_definition_json
from .base import Controller, Request, Response, catching, respond, route
from .deployment import Deployment
from .sizes import check_size

_BASE = "/v1/resource-definitions/{rd}/volume-definitions"


def new_volume(number: int, size: int, props: properties.Props, flags: list[str]) -> VolumeDefinition:
    """A volume definition with DRBD's first generation identifier."""
    return VolumeDefinition(number, size, {"DrbdCurrentGi": secrets.token_hex(8).upper(), **props}, flags)


def next_number(definition: ResourceDefinition) -> int:
    """The lowest free volume number."""
    number = 0
    while number in definition.volumes:
        number += 1
    return number


def _context(operation: int, name: str, number: object, known: bool) -> Context:
    refs = {"RscDfn": name, "VlmNr": str(number)} if known else {"RscDfn": name}
    return Context(operation, answers.VLM_DFN, refs, f"Resource definition: {name}, Volume number: {number}")


@route("POST", _BASE, schema="VolumeDefinitionCreate")
def create(controller: Controller, request: Request) -> Response:
    """A volume definition; deployed resources get the volume at once."""
    name, body = request.params["rd"], request.body.get("volume_definition") or {}
    definition = controller.cluster.definitions.get(name)
    if definition is None:
        answer = Answer(
            Context(
                answers.CREATE,
                answers.VLM_DFN,
                {"RscDfn": name},
                f"Volume definitions for resource definition '{name}'",
            )
        )
        with catching(answer):
            controller.definition(name)
        return respond(answer)
    number = int(body["volume_number"]) if body.get("volume_number") is not None else next_number(definition)
    answer = Answer(_context(answers.CREATE, name, number, True))
    answer.context.description += f"\nVolume definitions for resource definition '{name}'"
    with catching(answer):
        _create(controller, answer, definition, number, body)
        if request.body.get("drbd_minor_number") is not None:
            definition.volumes[number].minor = int(request.body["drbd_minor_number"])
        _deploy(controller, answer, definition)
    return respond(answer)


def _create(
    controller: Controller, answer: Answer, definition: ResourceDefinition, number: int, body: dict[str, Any]
) -> None:
    name = definition.name
    if number in definition.volumes:
        raise ApiError(
            answers.FAIL_EXISTS_VLM_DFN,
            f"A volume definition with the number {number} already exists in resource definition '{name}'.",
            cause="The VolumeDefinition already exists",
        )
    size = int(body.get("size_kib") or 0)
    check_size(name, number, size)
    props = properties.check(body.get("props") or {})
    volume = new_volume(number, size, props, list(body.get("flags") or []))
    definition.volumes[number] = volume
    if definition.layers:
        controller.satellites.prepare(definition, definition.layers)
    answer.add(
        answers.CREATED, f"New volume definition with number '{number}' of resource definition '{name}' created."
    )


def _deploy(controller: Controller, answer: Answer, definition: ResourceDefinition) -> None:
    """A volume that is added to deployed resources is made at once."""
    deployed = [res for res in definition.resources if res.deployed]
    if deployed:
        controller.satellites.deploy(deployed, True)
        Deployment(controller, definition, answer).adjust_all()


@route("GET", _BASE)
def listing(controller: Controller, request: Request) -> Response:
    """The volume definitions of one definition."""
    definition = controller.read_definition(request.params["rd"])
    return Response(
        200, [volume_definition_json(definition, volume) for _, volume in sorted(definition.volumes.items())]
    )


@route("GET", _BASE + "/{number}")
def show(controller: Controller, request: Request) -> Response:
    """One volume definition."""
    definition = controller.read_definition(request.params["rd"])
    return Response(200, volume_definition_json(definition, controller.volume(definition, request.params["number"])))


@route("PUT", _BASE + "/{number}", schema="VolumeDefinitionModify")
def modify(controller: Controller, request: Request) -> Response:
    """Size and properties."""
    name, number, body = request.params["rd"], request.params["number"], request.body
    answer = Answer(_context(answers.MODIFY, name, number, True))
    with catching(answer):
        definition = controller.definition(name)
        volume = controller.volume(definition, number)
        size = body.get("size_kib")
        if size is not None and int(size) != volume.size:
            _check_resize(controller, definition, volume, int(size))
        elif size is not None:
            answer.warn(
                answers.WARN_VLMDFN_RESIZE_SAME_SIZE,
                "VolumeDefinition already has the expected size, no satellite update will be triggered.",
            )
        changed = properties.modify(answer, answers.VLM_DFN, volume.props, body)
        described = f"Volume definition with number '{number}' of resource definition '{definition.name}'"
        answer.add(
            answers.MODIFIED,
            f"{described} modified.",
            details=f"{described} UUID is: {volume.uuid}",
            refs={"UUID": volume.uuid},
        )
        if size is not None and int(size) != volume.size:
            Resize(Deployment(controller, definition, answer), volume, int(size)).run()
        elif changed:
            _push(Deployment(controller, definition, answer), volume)
    return respond(answer)


def _push(deployment: Deployment, volume: VolumeDefinition) -> None:
    """Tell the satellites of changed properties."""
    for resource in deployment.definition.resources:
        deployment.adjusted(resource)
        deployment.answer.add(
            answers.MODIFIED, f"Updated volume {volume.number} of '{deployment.name}' on '{resource.node.name}'"
        )


def _check_resize(controller: Controller, definition: ResourceDefinition, volume: VolumeDefinition, size: int) -> None:
    """Everything that refuses a resize before anything has changed."""
    check_size(definition.name, volume.number, size)
    deployed = definition.diskful()
    uses_drbd = any(res.uses_drbd for res in deployed)
    if uses_drbd and size < volume.size:
        raise ApiError(
            answers.FAIL_INVLD_VLM_SIZE,
            "Shrinking volumes is not supported by layer 'DRBD'. Volumes can only grow in size.",
        )
    if uses_drbd and controller.satellites.exact_size(definition):
        raise ApiError(
            answers.FAIL_INVLD_VLM_SIZE, "Cannot resize a volume of a resource definition with DrbdOptions/ExactSize"
        )
    active = [res for res in deployed if not res.inactive]
    if uses_drbd and any(not res.node.online or res.state() != "UpToDate" for res in active):
        raise ApiError(
            answers.FAIL_NOT_ALL_UPTODATE, "Cannot resize volume, because we have a non-UpToDate DRBD device."
        )
    if definition.snapshots and any(res.pool.kind.name == "LVM" for res in deployed):
        # Since LINSTOR 1.35 there can be such snapshots; with which code it refuses is not known.
        text = f"Cannot resize volume {volume.number} of resource '{definition.name}' while it has snapshots."
        raise ApiError(answers.FAIL_UNKNOWN_ERROR, text)
    for resource in deployed:
        if not resource.pool.kind.thin and size - volume.size > usable(controller.cluster, resource.pool):
            raise ApiError(
                answers.FAIL_NOT_ENOUGH_FREE_SPACE,
                f"Not enough free space available for volume {volume.number} of resource '{definition.name}' in "
                f"storage pool '{resource.pool.name}' on node '{resource.node.name}'.",
            )


class Resize:
    """A new size, carried to the satellites."""

    def __init__(self, deployment: Deployment, volume: VolumeDefinition, size: int) -> None:
        self.deployment = deployment
        self.definition = deployment.definition
        self.answer = deployment.answer
        self.volume = volume
        self.size = size

    def run(self) -> None:
        """Resize on all satellites, or fail half way as they do."""
        self.volume.size = self.size
        broken = [res for res in self.definition.diskful() if self.deployment.cluster.fails(res.node.name, "resize")]
        if broken:
            self._fail([res.node.name for res in broken])
            return
        self.deployment.satellites.resize(self.definition, self.volume)
        for verb in ("Updated volume {nr} of", "Resized resource"):
            for resource in self.definition.resources:
                self._step(resource.node.name, verb)
        if any(res.uses_drbd for res in self.definition.diskful()):
            self._drbd_step()

    def _fail(self, nodes: list[str]) -> None:
        """The size stays as asked, the volumes stay flagged."""
        self.volume.flags = sorted({*self.volume.flags, "RESIZE"})
        for resource in self.definition.resources:
            resource.volume_flags.setdefault(self.volume.number, set()).update({"RESIZE", "DRBD_RESIZE"})
        for node in nodes:
            self.answer.satellite_error(node, "Failed to resize volume", "Error message: \n  injected failure")

    def _step(self, node: str, verb: str) -> None:
        name = self.definition.name
        resource = self.definition.resources[node]
        if verb.startswith("Updated"):
            self.deployment.volume_entries(resource, answers.MODIFIED, "resized")
        if resource.uses_drbd:
            self.answer.add(
                0,
                f"({node}) Resource '{name}' [DRBD] not adjusted ",
                obj=answers.RSC,
                cause="This happened most likely because the layer below did not provide a device to work with.",
            )
        self.answer.add(answers.MODIFIED, f"{verb.format(nr=self.volume.number)} '{name}' on '{node}'")

    def _drbd_step(self) -> None:
        name = self.definition.name
        for index, resource in enumerate(self.definition.resources):
            self.deployment.adjusted(resource)
            verb = "Resized DRBD resource" if index == 0 else f"Updated volume {self.volume.number} of"
            self.answer.add(answers.MODIFIED, f"{verb} '{name}' on '{resource.node.name}'")


@route("DELETE", _BASE + "/{number}")
def delete(controller: Controller, request: Request) -> Response:
    """A volume definition less, with its volumes."""
    name, number = request.params["rd"], request.params["number"]
    answer = Answer(_context(answers.DELETE, name, number, True))
    definition = controller.cluster.definitions.get(name)
    volume = definition.volumes.get(int(number)) if definition and number.isdigit() else None
    if definition is None or volume is None:
        answer.warn(
            answers.WARN_NOT_FOUND,
            f"Resource definition: {name}, Volume number: {number} not found.",
            details=f"Resource definition: {name}, Volume number: {number}",
        )
        return respond(answer)
    with catching(answer):
        _delete(controller, answer, definition, volume)
    return respond(answer)


def _delete(controller: Controller, answer: Answer, definition: ResourceDefinition, volume: VolumeDefinition) -> None:
    busy = controller.satellites.openings.first_in_use(definition)
    if busy is not None:
        raise ApiError(answers.FAIL_IN_USE, f"Resource '{definition.name}' on node '{busy.node.name}' is still in use.")
    described = f"Volume definition with number '{volume.number}' of resource definition '{definition.name}'"
    answer.add(answers.DELETED, f"{described} marked for deletion.", details=f"{described} UUID is: {volume.uuid}")
    for resource in definition.resources:
        resource.pool.members.pop((definition.uuid, volume.number), None)
        resource.volume_uuids.pop(volume.number, None)
        own = resource.contents.pop(volume.number, None)
        if own is not None:
            controller.cluster.store.remove(own)
    shared = definition.contents.pop(volume.number, None)
    if shared is not None:
        controller.cluster.store.remove(shared)
    del definition.volumes[volume.number]
    controller.satellites.refresh(definition)
    answer.add(answers.DELETED, f"{described} deleted.", details=f"{described} UUID was: {volume.uuid}")
