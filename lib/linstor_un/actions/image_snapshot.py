"""What the actions on an image's snapshots begin with."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import NamedTuple

from linstor_un.actions import attachment, datastore_action
from linstor_un.actions.datastore_action import DatastoreAction
from linstor_un.cluster.gateway import Gateway
from linstor_un.driver import Call
from linstor_un.errors import InvalidInput, NotFound
from linstor_un.naming import resource_of_source


class ImageSnapshot(NamedTuple):
    """A snapshot of an image, and the ids of all that OpenNebula knows of it."""

    action: DatastoreAction
    gateway: Gateway
    resource: str
    name: str
    snapshot_ids: tuple[int, ...]
    is_linear: bool

    def lock(self) -> AbstractContextManager[bool]:
        """Return the lock of the image's volume."""
        return self.action.lock(self.resource)

    def roll_back(self) -> None:
        """Roll the volume back, and detach it where that, even if its end is not known, has attached it."""
        attachment.roll_back(self.gateway, self.resource, self.name, self.detach)
        self.detach()

    def detach(self) -> None:
        """Detach the volume, which no VM has, where a rollback has attached it."""
        attachment.detach_rolled_back(self.gateway, self.resource)

    def refuse_unless_flattened(self, remaining: Collection[str]) -> None:
        """Raise NotFound where the snapshot to keep is gone and others are left: nothing can be flattened to it."""
        if remaining:
            raise NotFound(
                f"{self.resource} has no snapshot {self.name} to flatten to, only {', '.join(sorted(remaining))}: "
                f"see `linstor snapshot list -r {self.resource}`"
            )


def begin(call: Call) -> ImageSnapshot:
    """Decode and check the input; raises InvalidInput."""
    action = datastore_action.decode(call)
    image = action.need_image()
    if image.target_snapshot < 0:
        raise InvalidInput("<IMAGE/TARGET_SNAPSHOT> is missing from the action's XML: call it as OpenNebula does")
    resource = resource_of_source(image.source)
    name = action.names.snapshot(image.target_snapshot, resource)
    return ImageSnapshot(action, action.gateway(), resource, name, image.snapshot_ids, image.is_linear)
