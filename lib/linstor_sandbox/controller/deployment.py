"""Deploying and removing resources, and what the satellites report of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from .. import answers
from ..answers import Answer
from ..drbd import AutoHelper, votes
from ..model import Resource, ResourceDefinition, new_uuid
from .base import Controller


class Deployment:
    """The steps of one call on one resource definition, reported in its answer."""

    def __init__(self, controller: Controller, definition: ResourceDefinition, answer: Answer) -> None:
        self.controller = controller
        self.cluster = controller.cluster
        self.satellites = controller.satellites
        self.definition = definition
        self.answer = answer

    @property
    def name(self) -> str:
        """Name of the definition."""
        return self.definition.name

    def adjusted(self, resource: Resource) -> None:
        """DRBD's line for a node; nothing for a stack without DRBD or a node that is not connected."""
        if resource.uses_drbd and resource.node.online and not resource.inactive:
            self.answer.add(
                answers.MODIFIED, f"({resource.node.name}) Resource '{self.name}' [DRBD] adjusted.", obj=answers.RSC
            )

    def adjust_all(self) -> None:
        """DRBD's line for every node."""
        for resource in self.definition.resources:
            if resource.deployed:
                self.adjusted(resource)

    def volume_entries(self, resource: Resource, code: int, verb: str, op: Optional[int] = None) -> None:
        """What a satellite did with a replica's volumes."""
        if resource.diskless or (code == answers.DELETED and not resource.deployed):
            return
        for number in sorted(self.definition.volumes):
            text = f"({resource.node.name}) Volume number {number} of resource '{self.name}' "
            self.answer.add(
                code, f"{text}[{resource.pool.kind.label}] {verb}", obj=answers.VLM, op=op, refs={"VlmNr": str(number)}
            )

    def deploy(self, created: Sequence[Resource], details: str = "", waiting: Sequence[Resource] = ()) -> None:
        """Bring new resources up on their nodes and connect their peers; a tie-breaker may wait for them."""
        new = list(created)
        if not new:
            return
        peers = [res for res in self.definition.resources if res not in new and res.deployed]
        initial = not any(not res.diskless for res in peers)
        fresh = any("DRBD_INITIALIZED" not in volume.flags for volume in self.definition.volumes.values())
        broken = [
            res
            for res in new
            if res.node.online and (self.cluster.fails(res.node.name, "create") or not self.satellites.fits(res))
        ]
        working = [res for res in new if res.node.online and res not in broken]
        self.satellites.deploy(working, initial)
        for resource in broken:
            resource.volume_uuids = {number: new_uuid() for number in self.definition.volumes}
        for resource in new:
            self._created_entries(resource, resource in broken)
        for peer in [*peers, *waiting]:
            self.peer_entries(peer, working)
        self._ready_entries(working, details)
        if initial and fresh and any(res.uses_drbd for res in working):
            for resource in working:
                self.answer.add(
                    answers.MODIFIED,
                    f"({resource.node.name}) Resource '{self.name}' [DRBD] adjusted.",
                    op=answers.MODIFY,
                    obj=answers.RSC,
                )

    def joined(self, resources: Sequence[Resource], details: str) -> None:
        """The entries of resources that were there before, without a disk."""
        peers = [res for res in self.definition.resources if res not in resources and res.deployed]
        for resource in resources:
            self.adjusted(resource)
            self.answer.add(answers.MODIFIED, f"Created resource '{self.name}' on '{resource.node.name}'")
        for peer in peers:
            self.peer_entries(peer, resources)
        self._ready_entries(resources, details)

    def _created_entries(self, resource: Resource, broken: bool) -> None:
        node = resource.node.name
        if not resource.node.online:
            self.answer.not_connected(node)
        elif broken:
            text = f"Failed to create volume {self.satellites.devices.backing_path(resource, 0)}"
            if "LUKS" in resource.layers:
                text = f"Failed to open dm-crypt device 'Linstor-Crypt-{self.name}_00000'"
            self.answer.satellite_error(node, text, "Command 'lvcreate' returned with exitcode 5.")
        else:
            self.volume_entries(resource, answers.CREATED, "created")
            self.adjusted(resource)
            self.answer.add(answers.MODIFIED, f"Created resource '{self.name}' on '{node}'")

    def peer_entries(self, peer: Resource, new: Sequence[Resource]) -> None:
        """What a node says that has to know of new peers."""
        names = ", ".join(f"'{resource.node.name}'" for resource in new)
        if not peer.node.online:
            self.answer.not_connected(peer.node.name)
        self.adjusted(peer)
        self.answer.add(answers.MODIFIED, f"Added peer(s) {names} to resource '{self.name}' on '{peer.node.name}'")

    def _ready_entries(self, created: Sequence[Resource], details: str) -> None:
        if not self.definition.volumes:
            self.answer.warn(
                answers.WARN_NOT_FOUND, f"No volumes have been defined for resource '{self.name}'", obj=answers.RSC
            )
            return
        if sum(votes(res) for res in self.definition.resources) < 2:
            return
        restoring = self.answer.context.obj == answers.SNAPSHOT
        for resource in created:
            if resource.uses_drbd:
                self.answer.add(
                    answers.CREATED,
                    f"Resource '{self.name}' on '{resource.node.name}' ready",
                    details=details,
                    obj=answers.RSC if restoring else None,
                    op=answers.CREATE if restoring else None,
                )

    def automatic(self, keep_tiebreaker: bool = False) -> AutoHelper:
        """Let LINSTOR see to tie-breaker and quorum; nothing is deployed yet."""
        helper = AutoHelper(self.cluster, self.definition, self.answer, keep_tiebreaker)
        helper.manage()
        return helper

    def finish(self, helper: AutoHelper, details: str = "") -> None:
        """Deploy the tie-breaker that the helper made, remove the one that it does not want."""
        if helper.created:
            self.deploy(helper.created, details)
        for resource in helper.removed:
            self.adjust_all()
            self.clean_up(resource)

    def clean_up(self, resource: Resource) -> bool:
        """Remove a resource from its node and say so; False when it stays DELETING."""
        node = resource.node.name
        resource.flags |= {"DELETE", "DRBD_DELETE"}
        others = [res for res in self.definition.resources if res is not resource]
        stays = self.refused(resource)
        if not stays:
            if resource.uses_drbd:
                self.answer.add(answers.DELETED, f"({node}) Resource '{self.name}' [DRBD] deleted.", obj=answers.RSC)
            self.volume_entries(resource, answers.DELETED, "deleted")
            self.answer.add(answers.MODIFIED, f"Cleaning up '{self.name}' on '{node}'")
            self.satellites.remove(resource)
        for other in others:
            self.adjusted(other)
            if not other.node.online:
                self.answer.not_connected(other.node.name)
            text = f"Notified '{other.node.name}' that '{self.name}' is being cleaned up on Node(s): [{node}]"
            self.answer.add(answers.MODIFIED, text)
        if not stays:
            self.answer.add(
                answers.DELETED,
                f"Node: {node}, Resource: {self.name} deletion complete.",
                details=f"Node: {node}, Resource: {self.name} UUID was: {resource.uuid}",
            )
        return not stays

    def refused(self, resource: Resource) -> bool:
        """Whether the node cannot delete it now: not connected, told to fail, or the device is open."""
        node = resource.node.name
        if not resource.node.online or self.cluster.fails(node, "delete-silently"):
            self.answer.not_connected(node)
            return True
        if self.held(resource):
            return True
        busy = self.satellites.openings.is_open(resource)
        if busy or self.cluster.fails(node, "delete"):
            volume = self.satellites.devices.backing_path(resource, 0).replace("/dev/", "")
            reason = f"Logical volume {volume} in use." if busy else "injected failure"
            self.answer.satellite_error(node, f"Failed to delete lvm volume {volume}", f"Error message: \n  {reason}")
            return True
        return False

    def held(self, resource: Resource) -> bool:
        """Whether DRBD cannot be taken down on a node, as somebody has the device open there."""
        if not resource.uses_drbd or not self.satellites.openings.is_open(resource):
            return False
        self.answer.satellite_error(
            resource.node.name,
            f"Shutdown of the DRBD resource '{self.name} failed",
            "The external command for stopping the DRBD resource failed",
        )
        return True

    def set_pool_entry(self, node: str = "") -> None:
        """The entry of the pool property that every new resource gets, and one that is there with its node."""
        self.answer.add(
            answers.CREATED,
            "Successfully set property key(s): StorPoolName",
            op=answers.CREATE,
            obj=answers.RSC,
            refs={"Node": node} if node else None,
        )

    def registered(self, resource: Resource) -> None:
        """The two entries of an explicitly created resource."""
        node = resource.node.name
        self.answer.add(
            answers.CREATED,
            f"New resource '{self.name}' on node '{node}' registered.",
            details=f"Resource '{self.name}' on node '{node}' UUID is: {resource.uuid}",
            refs={"UUID": resource.uuid},
        )
        for number in sorted(self.definition.volumes):
            uuid = resource.volume_uuids.setdefault(number, new_uuid())
            self.answer.add(
                answers.CREATED,
                f"Volume with number '{number}' on resource '{self.name}' on node '{node}' successfully registered",
                obj=answers.VLM,
                details=f"Volume UUID is: {uuid}",
                refs={"VlmNr": str(number), "Node": node},
            )
