"""What a satellite does when it is back: the deletes that waited for it, the resources that it missed."""

from __future__ import annotations

from .. import answers
from ..answers import Answer, Context
from ..drbd import AutoHelper
from ..model import Node, ResourceDefinition
from . import snapshots
from .base import Controller
from .definitions import forget
from .deployment import Deployment


def catch_up(controller: Controller, node: Node) -> None:
    """Finish on a node that is connected (again) what could not be done before."""
    for definition in controller.cluster.definitions:
        AutoHelper(controller.cluster, definition, Answer(Context(0, answers.RSC_DFN))).quorum()
        deployment = Deployment(controller, definition, Answer(Context(answers.DELETE, answers.RSC)))
        resource = definition.resources.get(node.name)
        if "DELETE" in definition.flags and all(res.node.online for res in definition.resources):
            for waiting in definition.resources:
                deployment.clean_up(waiting)
        elif resource is not None and resource.deleting:
            deployment.clean_up(resource)
        elif resource is not None and not resource.deployed:
            deployment.deploy([resource])
        for snapshot in definition.snapshots:
            if "DELETE" in snapshot.flags:
                snapshots.remove(controller, snapshot, Answer(Context(answers.DELETE, answers.SNAPSHOT)))
        controller.satellites.refresh(definition)
        _forget_deleted(deployment, definition)


def _forget_deleted(deployment: Deployment, definition: ResourceDefinition) -> None:
    if "DELETE" in definition.flags and not len(definition.resources) and not len(definition.snapshots):
        forget(deployment, definition)
