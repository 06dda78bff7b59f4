"""From the bytes that OpenNebula's drivers pass to an XML tree, safely."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Optional

from lxml import etree

from linstor_un.errors import InvalidInput

if TYPE_CHECKING:
    from lxml.etree import _Element

_LONGEST_DOCUMENT_BYTES = 64 * 1024 * 1024


def action_data(arguments: Sequence[str], standard_input: bytes) -> tuple[bytes, str]:
    """Return the XML and the id of a datastore action, whatever the release (opennebula-contract.md, 2.1).

    Told apart by argv alone: `<base64> <id>` up to 6.6, `- <id>` with stdin where one_datastore runs with -i, and
    `<id>` with stdin from 6.8 on.

    Raises InvalidInput for any other shape.
    """
    if len(arguments) == 2 and arguments[0] != "-":
        return decode(arguments[0].encode("utf-8", "surrogateescape")), arguments[1]
    if len(arguments) == 1 or len(arguments) == 2:
        return decode(standard_input), arguments[-1]
    raise InvalidInput(
        f"A datastore action takes its XML and an id, and got {len(arguments)} arguments: "
        "call it as one_datastore does, `<id>` with base64 XML on stdin"
    )


def decode(data: bytes) -> bytes:
    """Return the XML of `data`, which is plain XML or the base64 of it.

    Raises InvalidInput for anything else.
    """
    data = data.strip()
    if len(data) > _LONGEST_DOCUMENT_BYTES:
        raise InvalidInput(f"The action's XML is longer than {_LONGEST_DOCUMENT_BYTES >> 20} MiB: this is not oned's")
    if data.startswith(b"<"):
        return data
    if not data:
        raise InvalidInput("The action got no XML, neither as argument nor on stdin: call it as OpenNebula does")
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("The action's input is neither XML nor base64: call it as OpenNebula does") from None


def parse(document: bytes, root: str) -> _Element:
    """Return the tree of `document`, whose root element must be `root`.

    No entities, no document type, no network, no huge trees; bytes that are not UTF-8 are replaced, since users type
    names that old databases keep in other encodings.

    Raises InvalidInput.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        tree = etree.fromstring(document.decode("utf-8", "replace").encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as failure:
        raise InvalidInput(f"The action's XML cannot be read ({failure}): call it as OpenNebula does") from None
    if tree.getroottree().docinfo.doctype:
        raise InvalidInput(
            "The action's XML has a document type, which OpenNebula's never has: it was not read further"
        )
    if tree.tag != root:
        raise InvalidInput(f"The action's XML is a <{tree.tag!s}> and must be a <{root}>: call it as OpenNebula does")
    return tree


def text(tree: _Element, path: str) -> str:
    """Return the text of the first element at `path`, without blanks around it; empty where there is none."""
    return (tree.findtext(path) or "").strip()


def attributes(elements: Iterable[_Element]) -> dict[str, str]:
    """Return the plain ones of a template's elements by their names; those that have elements of their own are none."""
    plain = (item for item in elements if isinstance(item.tag, str) and not len(item))
    return {str(item.tag): (item.text or "").strip() for item in plain}


def number(tree: _Element, path: str) -> Optional[int]:
    """Return the whole number at `path`, or None where the element is absent or empty.

    Raises InvalidInput for text that is no number.
    """
    value = text(tree, path)
    if not value:
        return None
    # int() alone would take 1_000 and digits of other scripts.
    if not re.fullmatch(r"-?[0-9]{1,19}", value):
        raise InvalidInput(f"<{path}> is {value[:40]!r} and must be a whole number of at most 19 digits")
    return int(value)


def as_id(value: str) -> Optional[int]:
    """Return the id that a text is, None where it is none: what people type and templates have is any text."""
    # oned's ids have 31 bits.
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else None


def required_number(tree: _Element, path: str) -> int:
    """Return the whole number that must be at `path` and must not be negative; raises InvalidInput."""
    value = number(tree, path)
    if value is None:
        raise InvalidInput(f"<{path}> is missing from the action's XML: call it as OpenNebula does")
    if value < 0:
        raise InvalidInput(f"<{path}> is {value} and must not be negative")
    return value
