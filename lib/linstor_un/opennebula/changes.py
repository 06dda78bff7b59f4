"""Changing what oned has, as the operators' commands do; all raise OnedUnreachable, and OnedRefused with its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from linstor_un.errors import OnedRefused
from linstor_un.opennebula.oned import ANSWER_SECONDS, Client, Parameter

DEFAULT_CLUSTER = -1
_REPLACE = 0
_MERGE = 1
# oned waits 90 s for the driver to measure what is to be imported.
_IMPORT_SECONDS = 120
# A volume that is there already takes no room.
_WITHOUT_CAPACITY_CHECK = True


def allocate_datastore(attributes: Mapping[str, str], cluster_id: int = DEFAULT_CLUSTER) -> int:
    """Make a datastore of these attributes, NAME among them, and return its id.

    Raises OnedUnreachable, and OnedRefused for what oned does not take, for instance a NAME that is taken.
    """
    missing = f"there is no cluster {cluster_id}; see `onecluster list`"
    return int(_change("one.datastore.allocate", template(attributes), cluster_id, missing=missing))


def delete_datastore(datastore_id: int) -> None:
    """Delete a datastore without images; raises OnedUnreachable and OnedRefused."""
    _change("one.datastore.delete", datastore_id)


def update_datastore(datastore_id: int, attributes: Mapping[str, str]) -> None:
    """Give a datastore exactly these attributes; raises OnedUnreachable and OnedRefused."""
    _change("one.datastore.update", datastore_id, template(attributes), _REPLACE)


def allocate_image(attributes: Mapping[str, str], datastore_id: int) -> int:
    """Make an image, without asking its driver where it has a SOURCE, and return its id.

    Raises OnedUnreachable, and OnedRefused for what oned does not take, for instance a NAME that is taken.
    """
    return int(_change("one.image.allocate", template(attributes), datastore_id, _WITHOUT_CAPACITY_CHECK))


def import_image(attributes: Mapping[str, str], datastore_id: int) -> int:
    """Make an image of what its PATH names, which its driver measures first and fetches afterwards; return its id.

    Raises OnedUnreachable, and OnedRefused for what oned or the driver does not take, or has no room for.
    """
    return int(_change("one.image.allocate", template(attributes), datastore_id, answer_seconds=_IMPORT_SECONDS))


def clone_image(image_id: int, name: str, datastore_id: int) -> int:
    """Let an image be copied to a datastore of the same driver, and return the copy's id; raises as all here."""
    return int(_change("one.image.clone", image_id, name, datastore_id))


def delete_image(image_id: int) -> None:
    """Let an image be deleted."""
    _change("one.image.delete", image_id)


def rename_image(image_id: int, name: str) -> None:
    """Give an image another name."""
    _change("one.image.rename", image_id, name)


def own_image(image_id: int, owner_id: int, group_id: int) -> None:
    """Give an image to a user and a group."""
    _change("one.image.chown", image_id, owner_id, group_id)


def permit_image(image_id: int, bits: Sequence[int]) -> None:
    """Give an image its nine rights: use, manage, admin of its owner, its group and all others, each 0 or 1."""
    _change("one.image.chmod", image_id, *bits)


def persist_image(image_id: int, is_persistent: bool) -> None:
    """Say whether a VM writes to the image itself."""
    _change("one.image.persistent", image_id, is_persistent)


def enable_image(image_id: int, is_enabled: bool) -> None:
    """Let VMs use an image, or none."""
    _change("one.image.enable", image_id, is_enabled)


def add_to_image(image_id: int, elements: str) -> None:
    """Add attributes, as XML elements, to an image's template; those of these names are replaced."""
    _change("one.image.update", image_id, f"<TEMPLATE>{elements}</TEMPLATE>", _MERGE)


def add_to_user(user_id: int, elements: str) -> None:
    """Add attributes, as XML elements, to a user's template; those of these names are replaced."""
    _change("one.user.update", user_id, f"<TEMPLATE>{elements}</TEMPLATE>", _MERGE)


def attach_disk(vm_id: int, attributes: Mapping[str, str]) -> None:
    """Let a disk of these attributes be attached to a VM."""
    _change("one.vm.attach", vm_id, f"<TEMPLATE><DISK>{elements(attributes)}</DISK></TEMPLATE>")


def detach_disk(vm_id: int, disk_id: int) -> None:
    """Let a disk be detached from a VM."""
    _change("one.vm.detach", vm_id, disk_id)


def template(attributes: Mapping[str, str]) -> str:
    """Return a template as XML, in which a value may be any text."""
    return f"<TEMPLATE>{elements(attributes)}</TEMPLATE>"


def elements(attributes: Mapping[str, str]) -> str:
    """Return what is within a template as XML."""
    return "".join(f"<{key}>{escape(value)}</{key}>" for key, value in attributes.items())


def _change(
    method: str,
    *parameters: Parameter,
    answer_seconds: int = ANSWER_SECONDS,
    missing: str = "what it names does not exist; see /var/log/one/oned.log",
) -> bytes:
    answer = Client(answer_seconds).call(method, *parameters)
    if answer is None:
        raise OnedRefused(f"oned refused {method}: {missing}")
    return answer
