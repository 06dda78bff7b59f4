"""LINSTOR's BalanceResourcesTask: every definition gets the replica count of its group."""

from __future__ import annotations

from . import answers, properties
from .answers import Answer, ApiError, Context
from .controller.base import Controller
from .controller.deployment import Deployment
from .controller.placement import Placement
from .controller.resources import Deletion
from .drbd import votes
from .model import Filter, Resource, ResourceDefinition


class Balance:
    """One run of the task; grace periods count as over."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.cluster = controller.cluster

    def run(self) -> tuple[int, int]:
        """(definitions that got more replicas, replicas that were removed)."""
        adjusted = removed = 0
        with self.cluster.lock:
            for definition in self.cluster.definitions:
                if self._ignored(definition):
                    continue
                wanted = definition.group.filter.place_count or 0
                have = len(self._replicas(definition))
                if have < wanted:
                    adjusted += self._add(definition)
                elif have > wanted:
                    removed += self._remove(definition, have - wanted)
        return adjusted, removed

    def _ignored(self, definition: ResourceDefinition) -> bool:
        containers = (definition.props, definition.group.props)
        enabled = self.cluster.prop(containers, properties.BALANCE_ENABLED)
        if "DELETE" in definition.flags or not definition.uses_drbd or (enabled and not properties.is_true(enabled)):
            return True
        replicas = self._replicas(definition)
        if not any(res.node.online and res.state() == "UpToDate" for res in replicas):
            return True
        return any(
            not res.node.online or (not res.diskless and res.state() != "UpToDate") for res in definition.resources
        )

    @staticmethod
    def _replicas(definition: ResourceDefinition) -> list[Resource]:
        return [
            res
            for res in definition.diskful()
            if votes(res) and not properties.is_true(res.props.get(properties.SKIP_DISK, ""))
        ]

    def _answer(self, operation: int, definition: ResourceDefinition) -> Answer:
        return Answer(Context(operation, answers.RSC, {"RscDfn": definition.name}))

    def _add(self, definition: ResourceDefinition) -> int:
        answer = self._answer(answers.CREATE, definition)
        try:
            Placement(self.controller, definition, Filter().merged(definition.group.filter), answer).run("")
        except ApiError:
            return 0
        return 1

    def _remove(self, definition: ResourceDefinition, excess: int) -> int:
        """The replica in the fullest pool first; never one in use."""
        openings = self.controller.satellites.openings
        free = [res for res in self._replicas(definition) if not openings.in_use(res)]
        free.sort(key=lambda res: (res.pool.free(), res.node.name))
        for resource in free[:excess]:
            deployment = Deployment(self.controller, definition, self._answer(answers.DELETE, definition))
            Deletion(deployment, resource, False).run()
        return min(excess, len(free))
