"""Changing what oned has: datastores and images, as the operators' commands do."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

from linstor_un.errors import OnedRefused
from linstor_un.opennebula.oned import Client, Parameter

DEFAULT_CLUSTER = -1
_REPLACE = 0
# A volume that is there already takes no room.
_WITHOUT_CAPACITY_CHECK = True


def allocate_datastore(attributes: Mapping[str, str], cluster_id: int = DEFAULT_CLUSTER) -> int:
    """Make a datastore of these attributes, NAME among them, and return its id.

    Raises OnedUnreachable, and OnedRefused for what oned does not take, for instance a NAME that is taken.
    """
    return int(_change("one.datastore.allocate", template(attributes), cluster_id))


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


def template(attributes: Mapping[str, str]) -> str:
    """Return a template as XML, in which a value may be any text."""
    return f"<TEMPLATE>{''.join(f'<{key}>{escape(value)}</{key}>' for key, value in attributes.items())}</TEMPLATE>"


def _change(method: str, *parameters: Parameter) -> bytes:
    answer = Client().call(method, *parameters)
    if answer is None:
        raise OnedRefused(f"oned refused {method}: what it names does not exist; see /var/log/one/oned.log")
    return answer
